use burn::tensor::Tensor;
use moe_core::model::{FeedForward, FeedForwardBlock, Routed};

use crate::hidden::{Hidden, Start};
use crate::router::{Dispatch, Router};
use crate::stacked::Stacked;
use crate::{Catalogue, ExpertId, LayerExpert, LoraDropout, Routing, TokenGate};

/// The experts that answer in one decoder layer, and how they are weighed.
///
/// Each expert is the whole feed-forward network of the layer with its own LoRA on it
/// (MoE-CL, `z_e = F_LoRA(x, θ_e)`), and the layer's output is the weighted sum `Σ_e g_e z_e`.
#[derive(Clone, Debug)]
pub struct ExpertBank<'a> {
    /// The decoder layer.
    pub layer: usize,
    /// Who is active, at least one, in the order of the routing.
    pub(crate) experts: Vec<(ExpertId, &'a LayerExpert)>,
    /// What weighs them; without it they weigh the same.
    pub(crate) gate: Option<&'a TokenGate>,
    /// What picks some of them for each token, in the place of a gate.
    pub(crate) router: Option<&'a Router>,
}

/// What a discriminator looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observe {
    /// The expert whose output is pooled; it has to be active.
    pub expert: ExpertId,
    /// Let the pooled feature's gradient reach only the observed expert's feed-forward LoRA in
    /// the same layer. In the authors' code it goes on into everything below, other experts and
    /// gates included. The cut costs that expert's SwiGLU a second time.
    pub detach_upstream: bool,
}

/// Output of [`ExpertBank::forward`].
#[derive(Clone, Debug)]
pub struct BankOutput {
    /// `[batch, seq, d_model]`.
    pub output: Tensor<3>,
    /// Mean over real tokens of the observed expert's un-gated output, `[batch, d_model]`.
    pub pooled: Option<Tensor<2>>,
    /// Weights of the active experts for each token, `[batch, seq, active]`, when a gate chose.
    pub gate: Option<Tensor<3>>,
    /// What a router chose, where one did.
    pub dispatch: Option<Dispatch>,
    /// What the router of a sparse base chose, where there is one.
    pub routed: Option<Routed>,
}

impl<'a> ExpertBank<'a> {
    /// Who `routing` names, in decoder layer `layer`, the `place`-th adapted one.
    pub(crate) fn new(
        catalogue: &'a Catalogue,
        layer: usize,
        place: usize,
        routing: &Routing,
    ) -> Self {
        let active = routing.experts().iter();
        let gate = routing.gate().map(|id| catalogue.gate(id));
        Self {
            layer,
            experts: active
                .map(|&id| (id, &catalogue.expert(id).layers[place]))
                .collect(),
            gate: gate.and_then(|gate| gate.layers.get(place)),
            router: gate.and_then(|gate| gate.routers.get(place)),
        }
    }

    /// The mixture for `x [batch, seq, d_model]` (already normed).
    ///
    /// Equal to evaluating every active expert as a network of its own, with fewer products:
    /// `gate` and `up` of the base are computed once, and since `down` (W₂) is linear,
    ///
    /// ```text
    /// Σ_e g_e (W₂ h_e + s B_e A_e h_e) = W₂ (Σ_e g_e h_e) + Σ_e B_e (g_e s A_e h_e)
    /// mean_tokens(W₂ h + s B A h)      = W₂ mean_tokens(h) + B mean_tokens(s A h)
    /// ```
    ///
    /// Where the active experts adapt gate, up and down, that is one operation, [`moe_kernels::moe_ffn()`].
    ///
    /// `observe` names what to pool, with each token's share of its row's mean `[batch, seq]`
    /// ([`pool_shares`](crate::pool_shares)).
    ///
    /// # Panics
    ///
    /// When the observed expert is not active, or a router picks experts ([`Self::forward_routed`]).
    pub fn forward(
        &self,
        ffn: &FeedForward,
        x: Tensor<3>,
        observe: Option<(&Observe, Tensor<2>)>,
        dropout: Option<&LoraDropout>,
    ) -> BankOutput {
        assert!(
            self.router.is_none(),
            "a router has to be told of the tokens"
        );
        if let Some(stacked) = Stacked::new(self, dropout) {
            return stacked.forward(self, ffn, x, observe);
        }
        let [batch, seq, d_model] = x.dims();
        let start = Start::new(ffn, x.reshape([batch * seq, d_model]));
        let gate = self.gate.map(|gate| gate.forward(start.x.clone()));

        let hidden: Vec<Hidden> = self
            .experts
            .iter()
            .map(|active| self.hidden(active, &start, dropout))
            .collect();
        let pooled = observe.map(|(observe, shares)| {
            let column = self.column(observe.expert);
            let seen = if observe.detach_upstream && start.x.is_tracked() {
                self.hidden(&self.experts[column], &start.detach(), dropout)
            } else {
                hidden[column].clone()
            };
            seen.pool(shares).project(&ffn.down)
        });

        let active = self.experts.len();
        let output = hidden
            .into_iter()
            .enumerate()
            .map(|(column, hidden)| match &gate {
                Some(gate) => hidden.weigh(gate.clone().narrow(1, column, 1)),
                None if active > 1 => hidden.scale(1.0 / active as f64),
                None => hidden,
            })
            .reduce(Hidden::add)
            .expect("at least one expert is active")
            .project(&ffn.down);
        BankOutput {
            output: output.reshape([batch, seq, d_model]),
            pooled,
            gate: gate.map(|gate| gate.reshape([batch, seq, active])),
            dispatch: None,
            routed: None,
        }
    }

    /// As [`Self::forward`], over a block that may be sparse. Experts without a LoRA on it are all the block itself, `z_e = F(x)`, and
    /// their mixture is `(Σ_e g_e) F(x)`.
    ///
    /// # Panics
    ///
    /// As [`Self::forward`].
    pub fn forward_block(
        &self,
        block: &FeedForwardBlock,
        x: Tensor<3>,
        observe: Option<(&Observe, Tensor<2>)>,
        dropout: Option<&LoraDropout>,
    ) -> BankOutput {
        let sparse = match block {
            FeedForwardBlock::Dense(ffn) => return self.forward(ffn, x, observe, dropout),
            FeedForwardBlock::Sparse(sparse) => sparse,
        };
        assert!(
            self.router.is_none(),
            "a router has to be told of the tokens"
        );
        if self.is_inside() {
            return self.over_sparse(sparse, x, observe, dropout);
        }
        let [batch, seq, d_model] = x.dims();
        let rows = x.clone().reshape([batch * seq, d_model]);
        let gate = self.gate.map(|gate| gate.forward(rows));
        let (alone, routed) = sparse.forward_routed(x);
        let pooled = observe.map(|(observe, shares)| {
            self.column(observe.expert); // it has to be active
            let seen = match observe.detach_upstream && alone.is_tracked() {
                true => alone.clone().detach(),
                false => alone.clone(),
            };
            let shares = shares.unsqueeze_dim::<3>(1); // [batch, 1, seq]
            shares.matmul(seen).reshape([batch, d_model])
        });
        let output = match &gate {
            // The gate is in the graph as over a dense block, where it weighs equal networks too.
            Some(gate) => alone * gate.clone().sum_dim(1).reshape([batch, seq, 1]),
            None => alone,
        };
        BankOutput {
            output,
            pooled,
            gate: gate.map(|gate| gate.reshape([batch, seq, self.experts.len()])),
            dispatch: None,
            routed: Some(routed),
        }
    }

    /// What the active experts weigh for tokens `x [n, d_model]`, `[n, active]`.
    pub(crate) fn weights(&self, x: Tensor<2>) -> Tensor<2> {
        let ([tokens, _], active) = (x.dims(), self.experts.len());
        match self.gate {
            Some(gate) => gate.forward(x),
            None => Tensor::full([tokens, active], 1.0 / active as f64, &x.device().inner()),
        }
    }

    /// The place of an expert among the active ones.
    pub(crate) fn column(&self, expert: ExpertId) -> usize {
        let column = self.experts.iter().position(|(id, _)| *id == expert);
        column.expect("the observed expert is active")
    }

    fn hidden(
        &self,
        (id, expert): &(ExpertId, &LayerExpert),
        start: &Start,
        dropout: Option<&LoraDropout>,
    ) -> Hidden {
        let dropout = dropout.map(|dropout| dropout.at(self.layer, *id));
        Hidden::new(expert, start, dropout)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device, Distribution, Gradients, Tolerance, activation};
    use moe_core::model::Decoder;

    use super::*;
    use crate::{GateId, GateInit, LayerRange, Lora, LoraConfig, Projection, pool_shares, tiny};

    const FFN: [Projection; 3] = [Projection::Gate, Projection::Up, Projection::Down];

    const LAYER: usize = 1;

    struct Setup {
        catalogue: Catalogue,
        ffn: FeedForward,
        /// `[2, 4, 8]`, tracked.
        x: Tensor<3>,
        /// `[2, 4]`.
        real: Tensor<2, Bool>,
        /// What output and pooled are multiplied with to make a loss.
        probes: (Tensor<3>, Tensor<2>),
    }

    impl Setup {
        fn new(targets: &[Projection]) -> Self {
            let device = Device::flex();
            let ad = device.clone().autodiff();
            let config = tiny::config(targets, LayerRange::All);
            let mut catalogue = Catalogue::new(&config, &tiny::model()).unwrap();
            // Expert 3 is of another rank and scaling than the others.
            let wide = LoraConfig {
                rank: 3,
                ..config.lora.clone()
            };
            for seed in 0..4 {
                let lora = if seed == 3 { &wide } else { &config.lora };
                catalogue.add_expert(lora, "task", seed, &ad);
            }
            catalogue.add_gate(2, GateInit::Random { seed: 1 }, "task", &ad);
            catalogue.add_gate(3, GateInit::Random { seed: 2 }, "task", &ad);
            tiny::train_by_hand(&mut catalogue);
            let mut base = Decoder::random(&tiny::model(), 0, &device);
            let normal = Distribution::Normal(0.0, 1.0);
            Self {
                catalogue,
                ffn: match base.layers.swap_remove(LAYER).feed_forward {
                    FeedForwardBlock::Dense(ffn) => ffn,
                    FeedForwardBlock::Sparse(_) => unreachable!("the base is dense"),
                },
                x: Tensor::random([2, 4, 8], normal, &ad).require_grad(),
                real: Tensor::from_data([[true; 4], [true, true, false, false]], &device),
                probes: (
                    Tensor::random([2, 4, 8], normal, &device),
                    Tensor::random([2, 8], normal, &device),
                ),
            }
        }

        fn forward(
            &self,
            routing: &Routing,
            observe: &Observe,
            dropout: Option<&LoraDropout>,
        ) -> BankOutput {
            let observe = Some((observe, pool_shares(self.real.clone())));
            let bank = self.catalogue.bank(LAYER, routing).unwrap();
            bank.forward(&self.ffn, self.x.clone(), observe, dropout)
        }

        /// One network per expert, summed: the definition.
        fn naive(
            &self,
            routing: &Routing,
            observe: &Observe,
            dropout: Option<&LoraDropout>,
        ) -> BankOutput {
            let x: Tensor<2> = self.x.clone().flatten(0, 1);
            let gate = match routing {
                Routing::Gated { gate, .. } => {
                    let logits = x
                        .clone()
                        .matmul(self.catalogue.gate(*gate).layers[LAYER].weight.val());
                    Some(activation::softmax(logits, 1))
                }
                _ => None,
            };
            let experts = routing.experts();
            let mut output = Tensor::zeros([8, 8], &x.device());
            let mut pooled = None;
            for (column, &id) in experts.iter().enumerate() {
                let expert = &self.catalogue.expert(id).layers[LAYER];
                let apply = |base: &moe_core::model::Linear,
                             lora: &Option<Lora>,
                             x: &Tensor<2>,
                             projection| {
                    let y = x.clone().matmul(base.weight.float().unwrap().val());
                    let Some(lora) = lora else { return y };
                    let x = match dropout {
                        Some(dropout) => dropout.at(LAYER, id).apply(x.clone(), projection),
                        None => x.clone(),
                    };
                    y + x.matmul(lora.a.val()).matmul(lora.b.val()) * lora.scaling
                };
                let a = apply(&self.ffn.gate, &expert.gate, &x, Projection::Gate);
                let b = apply(&self.ffn.up, &expert.up, &x, Projection::Up);
                let z = apply(
                    &self.ffn.down,
                    &expert.down,
                    &(activation::silu(a) * b),
                    Projection::Down,
                );
                if id == observe.expert {
                    let real = self.real.clone().float().unsqueeze_dim::<3>(2);
                    let z = z.clone().reshape([2, 4, 8]) * real.clone();
                    pooled = Some((z.sum_dim(1) / real.sum_dim(1)).squeeze_dim(1));
                }
                output = output
                    + match (routing, &gate) {
                        (Routing::Gated { .. }, Some(gate)) => {
                            z * gate.clone().narrow(1, column, 1)
                        }
                        _ => z / experts.len() as f64,
                    };
            }
            BankOutput {
                output: output.reshape([2, 4, 8]),
                pooled,
                gate: gate.map(|gate| gate.reshape([2, 4, experts.len()])),
                dispatch: None,
                routed: None,
            }
        }

        fn backward(&self, result: BankOutput) -> Gradients {
            let (output, pooled) = self.probes.clone();
            let loss =
                (result.output * output).sum() + (result.pooled.expect("observed") * pooled).sum();
            loss.backward()
        }

        /// Gradients of x, of every expert's matrices, and of every gate.
        fn gradients(&self, grads: &Gradients) -> Vec<(String, Option<Tensor<2>>)> {
            let x = self.x.grad(grads).map(|x| x.flatten(0, 1));
            let mut all = vec![("x".to_owned(), x)];
            for (index, expert) in self.catalogue.experts().iter().enumerate() {
                for projection in FFN {
                    if let Some(lora) = expert.layers[LAYER].lora(projection) {
                        let name = format!("expert {index} {}", projection.name());
                        all.push((format!("{name} A"), lora.a.grad(grads)));
                        all.push((format!("{name} B"), lora.b.grad(grads)));
                    }
                }
            }
            for (index, gate) in self.catalogue.gates().iter().enumerate() {
                let gate = gate.layers[LAYER].weight.grad(grads);
                all.push((format!("gate {index}"), gate));
            }
            all
        }
    }

    fn close(name: &str, got: Tensor<2>, want: Tensor<2>) {
        println!("{name}");
        let tolerance = Tolerance::rel_abs(1e-4, 1e-5);
        got.into_data()
            .assert_approx_eq::<f32>(&want.into_data(), tolerance);
    }

    fn routings() -> [Routing; 4] {
        [
            Routing::Single(ExpertId(2)),
            Routing::Gated {
                experts: vec![ExpertId(0), ExpertId(2)],
                gate: GateId(0),
            },
            Routing::Gated {
                experts: vec![ExpertId(2), ExpertId(3), ExpertId(0)],
                gate: GateId(1),
            },
            Routing::Uniform {
                experts: vec![ExpertId(1), ExpertId(2)],
            },
        ]
    }

    const OBSERVE: Observe = Observe {
        expert: ExpertId(2),
        detach_upstream: false,
    };

    #[test]
    fn batched_layer_is_the_naive_loop_gradients_included() {
        let dropout = LoraDropout::new(0.3, 5);
        for targets in [&FFN[..], &FFN[..1], &FFN[2..]] {
            let setup = Setup::new(targets);
            for routing in routings() {
                for dropout in [None, Some(&dropout)] {
                    let ours = setup.forward(&routing, &OBSERVE, dropout);
                    let naive = setup.naive(&routing, &OBSERVE, dropout);
                    close(
                        "output",
                        ours.output.clone().flatten(0, 1),
                        naive.output.clone().flatten(0, 1),
                    );
                    close(
                        "pooled",
                        ours.pooled.clone().unwrap(),
                        naive.pooled.clone().unwrap(),
                    );
                    assert_eq!(
                        ours.gate.is_some(),
                        matches!(routing, Routing::Gated { .. })
                    );
                    let (ours, naive) = (setup.backward(ours), setup.backward(naive));
                    let pairs = setup
                        .gradients(&ours)
                        .into_iter()
                        .zip(setup.gradients(&naive));
                    for ((name, ours), (_, naive)) in pairs {
                        assert_eq!(ours.is_some(), naive.is_some(), "{name}");
                        if let (Some(ours), Some(naive)) = (ours, naive) {
                            close(&name, ours, naive);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn experts_and_gates_that_are_not_active_get_no_gradient() {
        let setup = Setup::new(&FFN);
        let routing = Routing::Gated {
            experts: vec![ExpertId(0), ExpertId(2)],
            gate: GateId(0),
        };
        let grads = setup.backward(setup.forward(&routing, &OBSERVE, None));
        for (name, grad) in setup.gradients(&grads) {
            let active = ["x", "expert 0", "expert 2", "gate 0"];
            let expected = active.iter().any(|active| name.starts_with(active));
            assert_eq!(grad.is_some(), expected, "{name}");
        }
    }

    #[test]
    fn detached_pooling_has_the_same_value_and_reaches_only_the_observed_expert() {
        let setup = Setup::new(&FFN);
        let routing = Routing::Gated {
            experts: vec![ExpertId(0), ExpertId(2)],
            gate: GateId(0),
        };
        let cut = Observe {
            detach_upstream: true,
            ..OBSERVE
        };
        let dropout = LoraDropout::new(0.2, 1);
        let whole = setup.forward(&routing, &OBSERVE, Some(&dropout));
        let part = setup.forward(&routing, &cut, Some(&dropout));
        let (whole, part) = (whole.pooled.unwrap(), part.pooled.unwrap());
        close("pooled", part.clone(), whole.clone());

        let (_, probe) = setup.probes.clone();
        let whole = (whole * probe.clone()).sum().backward();
        let part = (part * probe).sum().backward();
        let pairs = setup
            .gradients(&whole)
            .into_iter()
            .zip(setup.gradients(&part));
        for ((name, whole), (_, part)) in pairs {
            // One operation for all experts may say "nothing" as a gradient of zeros.
            let reached = part
                .clone()
                .is_some_and(|part| part.abs().max().into_scalar::<f32>() > 0.0);
            assert_eq!(reached, name.starts_with("expert 2"), "{name}");
            if let (true, Some(whole), Some(part)) = (reached, whole, part) {
                close(&name, part, whole);
            }
        }
    }

    #[test]
    fn frozen_base_gets_no_gradient() {
        let setup = Setup::new(&FFN);
        let grads = setup.backward(setup.forward(&Routing::Single(ExpertId(2)), &OBSERVE, None));
        assert!(
            setup
                .ffn
                .gate
                .weight
                .float()
                .unwrap()
                .val()
                .grad(&grads)
                .is_none()
        );
    }

    #[test]
    #[should_panic(expected = "the observed expert is active")]
    fn observing_an_idle_expert_is_refused() {
        Setup::new(&FFN).forward(&Routing::Single(ExpertId(1)), &OBSERVE, None);
    }
}
