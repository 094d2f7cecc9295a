use burn::tensor::{Int, Tensor, TensorData};
use moe_core::model::Routed;

use super::{Dispatch, Entry, Tokens};

impl Dispatch {
    /// What the router of a sparse base chose, as the routers here return it: without padding, and without losses.
    ///
    /// # Panics
    /// When `tokens` is of another number.
    pub fn of_routed(routed: &Routed, tokens: &Tokens) -> Self {
        let [count, experts] = routed.probs.dims();
        let [_, top_k] = routed.weights.dims();
        assert_eq!(count, tokens.count(), "as many tokens as were routed");
        let mut wanted = vec![0; experts];
        let (mut entries, mut places) = (Vec::new(), Vec::new());
        for (place, &expert) in routed.experts.iter().enumerate() {
            let token = place / top_k;
            if tokens.is_real(token) {
                entries.push(Entry {
                    token: token as u32,
                    expert,
                    slot: wanted[expert as usize],
                });
                places.push(place as i64);
                wanted[expert as usize] += 1;
            }
        }
        let kept = places.len();
        let places = TensorData::new(places, [kept]);
        let places = Tensor::<1, Int>::from_data(places, &routed.weights.device());
        let weights = routed.weights.clone().reshape([count * top_k]);
        Self {
            tokens: count,
            experts,
            entries,
            weights: weights.select(0, places),
            scores: Some(routed.probs.clone()),
            wanted,
            losses: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn padding_goes_nowhere_and_the_rest_as_the_router_chose() {
        let device = Device::flex();
        let probs =
            Tensor::<2>::from_data([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]], &device);
        let routed = Routed {
            logits: probs.clone().log(),
            probs,
            experts: vec![0, 1, 2, 0, 1, 0],
            weights: Tensor::from_data([[0.7, 0.3], [0.75, 0.25], [0.9, 0.1]], &device),
        };
        let tokens = Tokens::new(3).with_real(vec![true, false, true]);
        let dispatch = Dispatch::of_routed(&routed, &tokens);
        assert_eq!(dispatch.wanted, [2, 2, 0]);
        assert_eq!(dispatch.load(), dispatch.wanted);
        let gates = dispatch.gates().into_data();
        let gates: Vec<f32> = gates.iter().collect();
        assert_eq!(gates, [0.7, 0.3, 0., 0., 0., 0., 0.1, 0.9, 0.]);
        let slots: Vec<u32> = dispatch.entries.iter().map(|entry| entry.slot).collect();
        assert_eq!(slots, [0, 0, 1, 1]);
    }
}
