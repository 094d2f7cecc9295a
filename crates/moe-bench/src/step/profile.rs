//! Where a step's time goes: its kinds of operation one by one, on the step's shapes.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use moe_core::config::ModelConfig;
use moe_core::model::BaseDtype;
use moe_kernels::dropout::Mask;
use moe_kernels::{AttentionShape, Dropout, Loras, MoeFfn, Observed};
use moe_kernels::{add_rms_norm, attention, linear, linears, moe_ffn, token_gate};

use super::Setting;

/// The shared expert and the task's own.
const EXPERTS: usize = 2;
const ROUNDS: usize = 5;

/// One kind of operation.
pub struct Kind {
    /// What it is, for a table.
    pub name: &'static str,
    /// How often it runs in one forward pass.
    pub count: usize,
    /// Seconds of one forward, the middle of several.
    pub forward: f64,
    /// Seconds of one backward.
    pub backward: f64,
}

/// Times a decoder layer's kinds of operation, tracked as in training. What is not listed (embedding, heads, discriminators,
/// clipping, AdamW) is what the step takes beyond their sum.
pub fn profile(setting: &Setting, device: &Device) -> Vec<Kind> {
    let config = setting.model();
    let (batch, seq, layers) = (setting.batch, setting.len, config.num_layers);
    let tokens = batch * seq;
    let ModelConfig {
        d_model,
        d_ff,
        num_heads,
        num_kv_heads,
        head_dim,
        ..
    } = config;
    let (queries, keys) = (num_heads * head_dim, num_kv_heads * head_dim);
    let tracked =
        |rows: usize, columns: usize| random([rows, columns], device).autodiff().require_grad();
    let frozen = |d_in: usize, d_out: usize| match setting.base_dtype {
        BaseDtype::F32 | BaseDtype::Stored => random([d_in, d_out], device),
        BaseDtype::Bf16 => random([d_in, d_out], device).cast(burn::tensor::DType::BF16),
    };

    let projections = [queries, keys, keys].map(|d_out| frozen(d_model, d_out));
    let (attended_values, projection) = (tracked(tokens, queries), frozen(queries, d_model));
    let gamma = random([1, d_model], device).reshape([d_model]);
    let [stream, output] = [(); 2].map(|()| tracked(tokens, d_model));
    let router = tracked(d_model, EXPERTS);

    let heads = |width: usize| {
        let x = random([tokens, width], device).reshape([batch, seq, width]);
        x.autodiff().require_grad()
    };
    let attended = [heads(queries), heads(keys), heads(keys)];
    let angles = random([tokens, head_dim / 2], device).reshape([batch, seq, head_dim / 2]);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let real = Tensor::ones([batch, seq], device);
    let shape = AttentionShape {
        kv_heads: num_kv_heads,
        head_dim,
        window: None,
    };

    let codes = EXPERTS * setting.rank;
    let loras = [(d_model, d_ff), (d_model, d_ff), (d_ff, d_model)];
    let loras = loras.map(|(d_in, d_out)| Loras {
        a: tracked(d_in, codes),
        b: tracked(codes, d_out),
    });
    let base = [(d_model, d_ff), (d_model, d_ff), (d_ff, d_model)];
    let base = base.map(|(d_in, d_out)| frozen(d_in, d_out));
    let (x, weights) = (tracked(tokens, d_model), tracked(tokens, EXPERTS));
    let shares = Tensor::full([batch, seq], 1.0 / seq as f64, device);
    let mask = |key: usize| Mask::new(key as u64, setting.dropout);
    let masks = (0..EXPERTS).map(|expert| [0, 1, 2].map(|side| mask(3 * expert + side)));
    let settings = MoeFfn {
        experts: EXPERTS,
        rank: setting.rank,
        scaling: 2.0,
        observed: Some(Observed {
            expert: 0,
            detached: false,
        }),
        dropout: (setting.dropout > 0.0).then(|| Dropout {
            masks: masks.collect(),
        }),
    };

    vec![
        time("q, k, v, output", layers, || {
            let [query, key, value] = linears(x.clone(), projections.clone());
            let output = linear(attended_values.clone(), projection.clone());
            query.sum() + key.sum() + value.sum() + output.sum()
        }),
        time("attention", layers, || {
            let [query, key, value] = attended.clone();
            attention(
                query,
                key,
                value,
                cos.clone(),
                sin.clone(),
                real.clone(),
                shape,
            )
            .sum()
        }),
        time("residual sum and norm", 2 * layers, || {
            let (x, y) = (stream.clone(), output.clone());
            let (sum, normed) = add_rms_norm(x, y, gamma.clone(), 1e-5);
            sum.sum() + normed.sum()
        }),
        time("token gate", layers, || {
            token_gate(x.clone(), router.clone()).sum()
        }),
        time("feed-forward, experts", layers, || {
            let (output, pooled) = moe_ffn(
                x.clone(),
                weights.clone(),
                loras.clone(),
                base.clone(),
                shares.clone(),
                settings.clone(),
            );
            output.sum() + pooled.expect("one is observed").sum()
        }),
    ]
}

fn random(shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), device)
}

/// `operation` ends in a sum, whose own time is small beside it.
fn time(name: &'static str, count: usize, operation: impl Fn() -> Tensor<1>) -> Kind {
    let once = || {
        let start = Instant::now();
        let loss = operation();
        let forward = start.elapsed().as_secs_f64();
        black_box(loss.backward());
        (forward, start.elapsed().as_secs_f64() - forward)
    };
    once();
    let (mut forward, mut backward): (Vec<f64>, Vec<f64>) = (0..ROUNDS).map(|_| once()).unzip();
    let middle = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    Kind {
        name,
        count,
        forward: middle(&mut forward),
        backward: middle(&mut backward),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_timed_in_both_directions() {
        for base_dtype in [BaseDtype::F32, BaseDtype::Bf16] {
            let setting = Setting {
                method: r#"name = "moe_cl""#.into(),
                batch: 2,
                len: 4,
                layers: 1,
                rank: 2,
                dropout: 0.1,
                base_dtype,
                tasks: 2,
            };
            let kinds = profile(&setting, &Device::flex());
            assert!(kinds.iter().all(|it| it.forward > 0.0 && it.backward > 0.0));
        }
    }
}
