use burn::tensor::Tensor;

use crate::ExpertBank;

/// Which experts of every bank answer, and how their outputs are mixed.
///
/// The numbers are indices into [`ExpertBank::experts`](crate::ExpertBank) and
/// [`ExpertBank::gates`](crate::ExpertBank). In MoE-CL expert 0 is the shared one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routing {
    /// One expert alone.
    Single(usize),
    /// Weighted for each token by a gate with a column per expert, in this order.
    Gated {
        /// The active experts.
        experts: Vec<usize>,
        /// The gate that weighs them.
        gate: usize,
    },
    /// The mean of these experts' outputs.
    Uniform {
        /// The active experts.
        experts: Vec<usize>,
    },
}

impl Routing {
    /// What the active experts weigh for tokens `x [n, d_model]` in a bank, `[n, active]`.
    pub(crate) fn weights(&self, bank: &ExpertBank, x: Tensor<2>) -> Tensor<2> {
        let ([tokens, _], active) = (x.dims(), self.experts().len());
        match self {
            Self::Gated { gate, .. } => bank.gates[*gate].forward(x),
            Self::Single(_) | Self::Uniform { .. } => {
                Tensor::full([tokens, active], 1.0 / active as f64, &x.device().inner())
            }
        }
    }

    /// The active experts, in order.
    pub fn experts(&self) -> &[usize] {
        match self {
            Self::Single(expert) => std::slice::from_ref(expert),
            Self::Gated { experts, .. } | Self::Uniform { experts } => experts,
        }
    }
}
