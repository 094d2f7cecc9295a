//! The first layers of the decoder alone, for what needs features and no prediction.

use burn::tensor::{Bool, Int, Tensor};

use super::{Decoder, Residual};

impl Decoder {
    /// The output of the first `layers` layers, before any norm.
    ///
    /// `tokens [batch, seq]`, `real [batch, seq]` (true = real token) → `[batch, seq, d_model]`.
    /// Rows of padding positions hold finite numbers without meaning.
    ///
    /// # Panics
    ///
    /// When the decoder has fewer layers.
    pub fn states(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        layers: usize,
    ) -> Tensor<3> {
        self.first(tokens, real, layers).into_sum()
    }

    /// What layer `layers` would attend to: [`Self::states`] through the norm that follows them.
    ///
    /// `tokens [batch, seq]`, `real [batch, seq]` (true = real token) → `[batch, seq, d_model]`. After all layers
    /// this is [`Self::forward`]. Rows of padding positions hold finite numbers without meaning.
    ///
    /// # Panics
    ///
    /// When the decoder has fewer layers.
    pub fn features(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        layers: usize,
    ) -> Tensor<3> {
        let norm = self
            .layers
            .get(layers)
            .map_or(&self.norm, |layer| &layer.input_norm);
        self.first(tokens, real, layers).normed(norm)
    }

    fn first(&self, tokens: Tensor<2, Int>, real: Tensor<2, Bool>, layers: usize) -> Residual {
        self.walk_dense(self.embed(tokens), real, 0..layers, None)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::tests::tiny;
    use super::*;
    use crate::generate::{Side, pad};

    #[test]
    fn the_features_of_all_layers_are_the_whole_forward() {
        let device = Device::flex();
        let model = Decoder::random(&tiny(), 1, &device);
        let (tokens, real) = pad(&[vec![3, 17, 5], vec![9]], 0, Side::Right, &device);
        let whole = model.forward(tokens.clone(), real.clone()).into_data();
        let features = |layers| {
            model
                .features(tokens.clone(), real.clone(), layers)
                .into_data()
        };
        assert_eq!(features(2), whole);
        assert_ne!(features(1), whole);
    }
}
