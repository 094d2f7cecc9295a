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
    /// The active experts, in order.
    pub fn experts(&self) -> &[usize] {
        match self {
            Self::Single(expert) => std::slice::from_ref(expert),
            Self::Gated { experts, .. } | Self::Uniform { experts } => experts,
        }
    }
}
