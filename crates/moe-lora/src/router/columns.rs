use burn::tensor::{Int, Tensor};

use super::{
    BiasBalanced, ExpertChoice, GShard, Jacobs, NoisyTopK, Router, RouterLinear, SoftmaxTopK,
    StMoe, Switch, Uniform,
};

impl RouterLinear {
    /// The same logits for other experts: expert `i` of the new ones is `columns[i]` of these. One that is left out is removed, another
    /// order renumbers, one that is named again is a copy of it (how Lifelong-MoE's gates grow, arXiv 2305.12281).
    ///
    /// # Panics
    /// When a column is not there, or none is named.
    #[must_use]
    pub fn with_columns(&self, columns: &[usize]) -> Self {
        let places = places(columns, self.experts(), &self.weight.val());
        let linear = Self::from_weight(self.weight.val().select(1, places.clone()));
        match &self.bias {
            None => linear,
            Some(bias) => linear.with_bias(bias.val().select(0, places)),
        }
    }
}

impl Router {
    /// The same router over other experts, each with the column that it had: see [`RouterLinear::with_columns`]. What is left of a token's
    /// probability when experts go is shared among the rest as it was. The parameters are new ones, trained from there on.
    ///
    /// # Panics
    /// When a column is not there, or none is named; when fewer experts are left than a token chooses, at the next routing; for
    /// [`RandomRouted`](super::RandomRouted), whose experts belong to domains ([`extract`](super::RandomRouted::extract)).
    #[must_use]
    pub fn with_columns(&self, columns: &[usize]) -> Self {
        let of = |linear: &RouterLinear| linear.with_columns(columns);
        match self {
            Self::Jacobs(it) => Self::Jacobs(Jacobs {
                linear: of(&it.linear),
            }),
            Self::NoisyTopK(it) => Self::NoisyTopK(NoisyTopK {
                config: it.config,
                gate: of(&it.gate),
                noise: of(&it.noise),
            }),
            Self::GShard(it) => Self::GShard(GShard {
                config: it.config,
                linear: of(&it.linear),
            }),
            Self::Switch(it) => Self::Switch(Switch {
                config: it.config,
                linear: of(&it.linear),
            }),
            Self::StMoe(it) => Self::StMoe(StMoe {
                config: it.config,
                linear: of(&it.linear),
            }),
            Self::ExpertChoice(it) => Self::ExpertChoice(ExpertChoice {
                config: it.config,
                linear: of(&it.linear),
            }),
            Self::BiasBalanced(it) => {
                let weight = it.linear.weight.val();
                let bias = it.bias.val();
                let bias = bias.select(0, places(columns, it.linear.experts(), &weight));
                Self::BiasBalanced(BiasBalanced::from_parts(it.config, of(&it.linear), bias))
            }
            Self::SoftmaxTopK(it) => Self::SoftmaxTopK(SoftmaxTopK {
                config: it.config,
                linear: of(&it.linear),
            }),
            Self::RandomRouted(_) => panic!("experts of a random router belong to domains"),
            Self::Uniform(_) => Self::Uniform(Uniform::new(columns.len())),
        }
    }
}

fn places(columns: &[usize], experts: usize, beside: &Tensor<2>) -> Tensor<1, Int> {
    assert!(!columns.is_empty(), "a router of no experts");
    let place = |&column: &usize| {
        assert!(column < experts, "expert {column} of {experts}");
        column as i64
    };
    let places: Vec<i64> = columns.iter().map(place).collect();
    Tensor::from_data(places.as_slice(), &beside.device())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::super::choices::values;
    use super::super::{Dispatch, Phase, RouterInit, SoftmaxTopKConfig, Tokens};
    use super::*;

    fn linear() -> RouterLinear {
        let init = RouterInit::TruncatedNormal {
            scale: 4.0,
            seed: 1,
        };
        let linear = RouterLinear::new(3, 4, init, &Device::flex());
        linear.with_bias(Tensor::from_data([0.1, -0.4, 0.3, 0.0], &Device::flex()))
    }

    fn route(router: &Router) -> Dispatch {
        let x = super::super::draws::normal(2, 18);
        let x = Tensor::from_data(TensorData::new(x, [6, 3]), &Device::flex());
        router.forward(x, &Tokens::new(6), Phase::Evaluate)
    }

    #[test]
    fn renumbered_experts_get_the_same_tokens() {
        let config = SoftmaxTopKConfig::default();
        let linear = linear();
        let router = Router::SoftmaxTopK(SoftmaxTopK { config, linear });
        let columns = [2, 0, 3, 1];
        let (before, after) = (route(&router), route(&router.with_columns(&columns)));
        for (before, after) in before.entries.iter().zip(&after.entries) {
            assert_eq!(before.expert as usize, columns[after.expert as usize]);
        }
        let pairs = values(&before.weights)
            .into_iter()
            .zip(values(&after.weights));
        assert!(
            pairs
                .into_iter()
                .all(|(before, after)| (before - after).abs() < 1e-6)
        );
    }

    #[test]
    fn the_share_of_a_removed_expert_is_renormalised() {
        let router = Router::Jacobs(Jacobs { linear: linear() });
        let before = values(&route(&router).gates());
        let after = values(&route(&router.with_columns(&[0, 1, 3])).gates());
        for (before, after) in before.chunks(4).zip(after.chunks(3)) {
            for (column, after) in [0, 1, 3].into_iter().zip(after) {
                assert!((before[column] / (1.0 - before[2]) - after).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_copy_and_its_original_are_chosen_alike() {
        let router = Router::Jacobs(Jacobs { linear: linear() });
        let grown = route(&router.with_columns(&[0, 1, 2, 3, 1]));
        for row in values(&grown.gates()).chunks(5) {
            assert_eq!(row[1], row[4]);
        }
    }
}
