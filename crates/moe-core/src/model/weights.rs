//! All matrices of a decoder that a product reads whole.

use super::{Decoder, DecoderLayer, FeedForward, FeedForwardBlock, Weight};

impl Decoder {
    /// Embedding, head, and those of every layer, without the stacked experts of a sparse one.
    pub(super) fn weights(&self) -> impl Iterator<Item = &Weight> {
        let ends = [
            Some(&self.embedding.weight),
            self.lm_head.as_ref().map(|it| &it.weight),
        ];
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
            linears.into_iter().map(|linear| &linear.weight)
        });
        ends.into_iter().flatten().chain(layers)
    }

    /// The same, to be changed.
    pub(super) fn weights_mut(&mut self) -> impl Iterator<Item = &mut Weight> {
        let head = self.lm_head.as_mut().map(|it| &mut it.weight);
        let ends = [Some(&mut self.embedding.weight), head];
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
            linears.into_iter().map(|linear| &mut linear.weight)
        });
        ends.into_iter().flatten().chain(layers)
    }
}
