use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::choices::Choices;
use super::queue::Order;
use super::{Dispatch, Tokens};

/// Every token to every expert, each with weight `1/E`: the mean of the experts, which a learnt router has to beat.
#[derive(Module, Debug)]
pub struct Uniform {
    #[module(skip)]
    experts: usize,
}

impl Uniform {
    /// Over so many experts.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(experts: usize) -> Self {
        assert!(experts > 0, "a mean of no experts");
        Self { experts }
    }

    /// How many experts.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Routes tokens; weights are on `device`.
    pub fn forward(&self, tokens: &Tokens, device: &Device) -> Dispatch {
        let (count, experts) = (tokens.count(), self.experts);
        let ids = (0..count * experts).map(|choice| (choice % experts) as u32);
        let choices = Choices::of(ids.collect(), experts, experts, tokens);
        let slots = choices.admit(Order::Position, None, tokens);
        let weights = Tensor::full([count, experts], 1.0 / experts as f64, device);
        choices.dispatch(&slots, weights.clone(), Some(weights), Vec::new())
    }
}
