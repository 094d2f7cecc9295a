//! All layers of a decoder that multiply with a matrix.

use super::{Decoder, DecoderLayer, FeedForward, FeedForwardBlock, Linear};

impl Decoder {
    /// The head, and those of every layer, without the stacked experts of a sparse one.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let layers = self.layers.iter().flat_map(|layer| {
            let attention = &layer.attention;
            let mut linears = vec![
                &attention.query,
                &attention.key,
                &attention.value,
                &attention.output,
            ];
            match &layer.feed_forward {
                FeedForwardBlock::Dense(ffn) => linears.extend([&ffn.gate, &ffn.up, &ffn.down]),
                FeedForwardBlock::Sparse(ffn) => {
                    linears.push(&ffn.router);
                    if let Some(shared) = &ffn.shared {
                        let FeedForward { gate, up, down } = &shared.feed_forward;
                        linears.extend([&shared.gate, gate, up, down]);
                    }
                }
            }
            linears
        });
        self.lm_head.iter().chain(layers)
    }

    /// The same, to be changed.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let layers = self.layers.iter_mut().flat_map(|layer| {
            let DecoderLayer {
                attention,
                feed_forward,
                ..
            } = layer;
            let mut linears = vec![
                &mut attention.query,
                &mut attention.key,
                &mut attention.value,
                &mut attention.output,
            ];
            match feed_forward {
                FeedForwardBlock::Dense(ffn) => {
                    linears.extend([&mut ffn.gate, &mut ffn.up, &mut ffn.down]);
                }
                FeedForwardBlock::Sparse(ffn) => {
                    linears.push(&mut ffn.router);
                    if let Some(shared) = &mut ffn.shared {
                        let FeedForward { gate, up, down } = &mut shared.feed_forward;
                        linears.extend([&mut shared.gate, gate, up, down]);
                    }
                }
            }
            linears
        });
        self.lm_head.iter_mut().chain(layers)
    }
}
