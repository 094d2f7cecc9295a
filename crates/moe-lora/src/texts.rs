use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::router::Tokens;

/// A batch of texts, as base and experts read them.
#[derive(Clone, Debug)]
pub struct Texts {
    /// `[batch, seq]`.
    pub tokens: Tensor<2, Int>,
    /// `[batch, seq]`, true where a token is no padding.
    pub real: Tensor<2, Bool>,
    /// What the lowest layers make of the tokens, where that is known already: they do not run again.
    pub states: Option<States>,
}

/// The output of a decoder's first layers ([`Decoder::states`](moe_core::model::Decoder::states)).
#[derive(Clone, Debug)]
pub struct States {
    /// Number of layers; none of them is adapted.
    pub layers: usize,
    /// `[batch, seq, d_model]`, finite at padding.
    pub x: Tensor<3>,
}

impl Texts {
    /// Texts of which nothing is known but their tokens, `tokens [batch, seq]` and `real [batch, seq]`.
    pub fn new(tokens: Tensor<2, Int>, real: Tensor<2, Bool>) -> Self {
        Self {
            tokens,
            real,
            states: None,
        }
    }

    /// The tokens as routers see them, `batch · seq`, of which padding goes nowhere.
    ///
    /// # Panics
    /// When every token is padding.
    pub fn routed_tokens(&self) -> Tokens {
        let [batch, seq] = self.tokens.dims();
        let real = self.real.clone().into_data().iter::<bool>().collect();
        Tokens::new(batch * seq).with_real(real)
    }

    /// Some of the texts, in this order, without what is known of them.
    pub(crate) fn rows(&self, rows: &[usize]) -> Self {
        let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let count = rows.len();
        let data = TensorData::new(rows, [count]);
        let rows = Tensor::<1, Int>::from_data(data, &self.tokens.device());
        let real = self.real.clone().int().select(0, rows.clone());
        Self::new(self.tokens.clone().select(0, rows), real.bool())
    }
}
