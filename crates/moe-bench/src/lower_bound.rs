//! What a training step cannot be faster than: its matrix products alone, each measured by itself on this machine.

use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Tensor};
use moe_core::config::ModelConfig;
use moe_core::model::BaseDtype;

use crate::shapes::matrix;
use crate::step::processor_seconds;

/// A family of equal products `[rows, inner] · [inner, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// What it is, for a table.
    pub name: &'static str,
    /// Independent products in one call (heads of an attention, 1 elsewhere).
    pub batch: usize,
    /// Rows of the left factor.
    pub rows: usize,
    /// Shared axis.
    pub inner: usize,
    /// Columns of the right factor.
    pub columns: usize,
    /// How often it runs in one step, forward and backward together.
    pub count: usize,
}

impl Product {
    /// The factors' sizes, for a table.
    pub fn shape(&self) -> String {
        let Self {
            batch,
            rows,
            inner,
            columns,
            ..
        } = self;
        format!("{batch}x[{rows}x{inner}]x[{inner}x{columns}]")
    }

    /// Floating-point operations of one call.
    pub fn flops(&self) -> f64 {
        2.0 * (self.batch * self.rows * self.inner * self.columns) as f64
    }

    /// Times several calls; a frozen right factor is in `dtype`.
    pub fn speed(&self, dtype: BaseDtype, device: &Device) -> Speed {
        let left = matrix(self.batch * self.rows, self.inner, device)
            .reshape([self.batch, self.rows, self.inner]);
        let right = matrix(self.batch * self.inner, self.columns, device).reshape([
            self.batch,
            self.inner,
            self.columns,
        ]);
        let right = match (self.batch, dtype) {
            (1, BaseDtype::Bf16) => right.cast(DType::BF16),
            _ => right,
        };
        let once = || {
            let start = Instant::now();
            run(self.batch, left.clone(), right.clone());
            start.elapsed()
        };
        let warm = once();
        let repeats = (Duration::from_millis(200).as_secs_f64() / warm.as_secs_f64().max(1e-6))
            .clamp(3.0, 50.0) as usize;
        let before = processor_seconds();
        let best = (0..repeats).map(|_| once()).min().unwrap_or(warm);
        Speed {
            wall: best.as_secs_f64(),
            processor: processor_seconds()
                .zip(before)
                .map(|(after, before)| (after - before) / repeats as f64),
        }
    }
}

/// Seconds of one call.
pub struct Speed {
    /// By the clock, the best of several.
    pub wall: f64,
    /// Of all threads together, on average, where the system tells.
    pub processor: Option<f64>,
}

/// One product, in the form in which the model runs it: a plain one with a frozen right factor where there is no batch.
fn run(batch: usize, left: Tensor<3>, right: Tensor<3>) {
    if batch == 1 {
        let product = moe_kernels::linear::<2>(left.squeeze_dim(0), right.squeeze_dim(0));
        // Reading one entry back waits for an asynchronous device.
        let _ = product.slice([0..1, 0..1]).into_data();
    } else {
        let _ = left.matmul(right).slice([0..1, 0..1, 0..1]).into_data();
    }
}

/// The products of one training step on `batch · seq` tokens: the frozen base's own, forward, and backward with respect to activations
/// only (frozen weights need no gradient). Low-rank products and everything element-wise come on top: they are not in the bound.
///
/// The lowest layer's projections have no backward product, since nothing below them is trained; that is left out, in favour of the step.
pub fn base_products(config: &ModelConfig, batch: usize, seq: usize) -> Vec<Product> {
    let (tokens, layers) = (batch * seq, config.num_layers);
    let (queries, keys) = (
        config.num_heads * config.head_dim,
        config.num_kv_heads * config.head_dim,
    );
    let group = config.num_heads / config.num_kv_heads;
    let product = |name, batch, rows, inner, columns, count| Product {
        name,
        batch,
        rows,
        inner,
        columns,
        count,
    };
    let heads = batch * config.num_kv_heads;
    vec![
        product("query", 1, tokens, config.d_model, queries, layers),
        product(
            "query, backward",
            1,
            tokens,
            queries,
            config.d_model,
            layers,
        ),
        product("key, value", 1, tokens, config.d_model, keys, 2 * layers),
        product(
            "key, value, backward",
            1,
            tokens,
            keys,
            config.d_model,
            2 * layers,
        ),
        product("scores", heads, group * seq, config.head_dim, seq, layers),
        product(
            "scores, backward",
            heads,
            group * seq,
            seq,
            config.head_dim,
            2 * layers,
        ),
        product("mixing", heads, group * seq, seq, config.head_dim, layers),
        product(
            "mixing, backward",
            heads,
            group * seq,
            config.head_dim,
            seq,
            2 * layers,
        ),
        product("output", 1, tokens, queries, config.d_model, layers),
        product(
            "output, backward",
            1,
            tokens,
            config.d_model,
            queries,
            layers,
        ),
        product(
            "gate, up",
            1,
            tokens,
            config.d_model,
            config.d_ff,
            2 * layers,
        ),
        product(
            "gate, up, backward",
            1,
            tokens,
            config.d_ff,
            config.d_model,
            2 * layers,
        ),
        product("down", 1, tokens, config.d_ff, config.d_model, layers),
        product(
            "down, backward",
            1,
            tokens,
            config.d_model,
            config.d_ff,
            layers,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::smollm2;

    #[test]
    fn backward_runs_as_many_operations_as_forward_where_weights_are_frozen() {
        let products = base_products(&smollm2(2), 3, 5);
        let flops = |backward: bool, names: &[&str]| -> f64 {
            let chosen = products.iter().filter(|product| {
                product.name.ends_with("backward") == backward
                    && names.iter().any(|name| product.name.starts_with(name))
            });
            chosen
                .map(|product| product.flops() * product.count as f64)
                .sum()
        };
        let weights = ["query", "key", "output", "gate", "down"];
        assert_eq!(flops(true, &weights), flops(false, &weights));
        // Neither factor of an attention product is frozen: both need a gradient.
        assert_eq!(
            flops(true, &["scores", "mixing"]),
            2.0 * flops(false, &["scores", "mixing"])
        );
    }
}
