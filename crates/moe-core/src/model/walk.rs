//! The one walk through the layers of a decoder.

use std::ops::Range;

use burn::tensor::{Bool, Tensor};

use super::{AttentionContext, Decoder, KvCache, LayerCache, Residual};

impl Decoder {
    /// Takes `x [batch, seq, d_model]`, the input of layer `layers.start`, through `layers`: `block` is what happens in each of them.
    /// Dense, adapted, cached and observed passes differ by what they hand in.
    ///
    /// `real [batch, seq]` is true where a token is no padding. With a cache, the tokens follow those in it, and `block` is given
    /// the layer's part of it.
    ///
    /// # Panics
    ///
    /// When the decoder has fewer layers, or a pass with a cache leaves layers out: each of them has keys and values to keep.
    pub fn walk(
        &self,
        x: Tensor<3>,
        real: Tensor<2, Bool>,
        layers: Range<usize>,
        mut cache: Option<&mut KvCache>,
        mut block: impl FnMut(usize, &mut Residual, &AttentionContext, Option<&mut LayerCache>),
    ) -> Residual {
        let context = match &mut cache {
            Some(cache) => {
                assert_eq!(cache.layers.len(), self.layers.len(), "one cache per layer");
                assert_eq!(
                    layers,
                    0..self.layers.len(),
                    "a cached pass runs all layers"
                );
                let cached = cache.len();
                self.context(cache.extend(real), cached)
            }
            None => self.context(real, 0),
        };
        let mut x = Residual::new(x);
        for index in layers {
            let cache = cache.as_mut().map(|cache| &mut cache.layers[index]);
            block(index, &mut x, &context, cache);
        }
        x
    }

    /// [`Self::walk`] through the decoder's own blocks.
    pub(super) fn walk_dense(
        &self,
        x: Tensor<3>,
        real: Tensor<2, Bool>,
        layers: Range<usize>,
        cache: Option<&mut KvCache>,
    ) -> Residual {
        self.walk(x, real, layers, cache, |index, x, context, cache| {
            self.layers[index].forward(x, context, cache);
        })
    }
}
