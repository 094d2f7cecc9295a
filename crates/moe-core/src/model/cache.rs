use burn::tensor::{Bool, Int, Tensor};

/// Keys and values of the tokens one layer has seen.
#[derive(Clone, Debug, Default)]
pub struct LayerCache {
    /// Key and value `[batch, kv_heads, cached, head_dim]`, keys already rotated.
    entries: Option<(Tensor<4>, Tensor<4>)>,
}

impl LayerCache {
    /// Appends `key` and `value` `[batch, kv_heads, seq, head_dim]`; returns all of them,
    /// `[batch, kv_heads, cached + seq, head_dim]`.
    pub fn append(&mut self, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = match self.entries.take() {
            Some((keys, values)) => (
                Tensor::cat(vec![keys, key], 2),
                Tensor::cat(vec![values, value], 2),
            ),
            None => (key, value),
        };
        self.entries = Some(all.clone());
        all
    }

    fn first(&self, len: usize) -> Self {
        let entries = self.entries.clone().filter(|_| len > 0);
        let first = |all: Tensor<4>| all.narrow(2, 0, len);
        Self {
            entries: entries.map(|(keys, values)| (first(keys), first(values))),
        }
    }

    fn select_rows(&self, rows: Tensor<1, Int>) -> Self {
        let entries = self
            .entries
            .clone()
            .map(|(keys, values)| (keys.select(0, rows.clone()), values.select(0, rows)));
        Self { entries }
    }
}

/// What generation remembers between steps: one [`LayerCache`] per layer, and which of the
/// remembered positions hold real tokens.
///
/// A clone shares the tensors until either side grows, so one prompt can be continued many ways.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// One per decoder layer.
    pub layers: Vec<LayerCache>,
    real: Option<Tensor<2, Bool>>,
}

impl KvCache {
    /// An empty cache for a decoder of `num_layers` layers.
    pub fn new(num_layers: usize) -> Self {
        Self {
            layers: vec![LayerCache::default(); num_layers],
            real: None,
        }
    }

    /// Number of cached positions, padding included.
    pub fn len(&self) -> usize {
        self.real.as_ref().map_or(0, |real| real.dims()[1])
    }

    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes the mask of the tokens about to be fed, `real [batch, seq]` (true = real token), and
    /// returns the mask of all positions `[batch, cached + seq]`.
    pub fn extend(&mut self, real: Tensor<2, Bool>) -> Tensor<2, Bool> {
        let all = match self.real.take() {
            Some(before) => Tensor::cat(vec![before, real], 1),
            None => real,
        };
        self.real = Some(all.clone());
        all
    }

    /// The cache of its first `len` positions alone.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn first(&self, len: usize) -> Self {
        assert!(len <= self.len(), "more positions than are cached");
        let real = self.real.clone().filter(|_| len > 0);
        Self {
            layers: self.layers.iter().map(|layer| layer.first(len)).collect(),
            real: real.map(|real| real.narrow(1, 0, len)),
        }
    }

    /// The cache whose batch rows are `rows` of this one; a row may be named more than once
    /// (to score several continuations of a prompt) or dropped (when it is finished).
    pub fn select_rows(&self, rows: Tensor<1, Int>) -> Self {
        Self {
            layers: self
                .layers
                .iter()
                .map(|layer| layer.select_rows(rows.clone()))
                .collect(),
            real: self
                .real
                .clone()
                .map(|real| real.int().select(0, rows.clone()).bool()),
        }
    }
}
