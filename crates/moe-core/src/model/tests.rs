//! Laws of the whole decoder, on tiny random models.

use burn::tensor::{Bool, Device, Distribution, Int, Tensor, Tolerance};

use super::{Decoder, KvCache, Residual};
use crate::config::{Architecture, ExpertNames, ModelConfig, QkNorm, RopeScaling, SparseConfig};
use crate::generate::{Side, pad};

pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        vocab_size: 23,
        d_model: 16,
        d_ff: 24,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 8,
        rope_theta: 100.0,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: false,
        sliding_window: None,
        attention_bias: true,
        qk_norm: QkNorm::Head,
        sparse: None,
        max_position_embeddings: 64,
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
    }
}

/// A dense layer, then a sparse one with a shared expert; norms over whole projections.
pub(crate) fn sparse() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen2Moe,
        qk_norm: QkNorm::Projection,
        sparse: Some(SparseConfig {
            names: ExpertNames::Qwen,
            num_experts: 5,
            top_k: 2,
            d_ff: 12,
            norm_topk_prob: true,
            shared_d_ff: Some(20),
            step: 2,
            dense_layers: vec![],
        }),
        ..tiny()
    }
}

fn variants() -> Vec<ModelConfig> {
    let tied = ModelConfig {
        tie_word_embeddings: true,
        ..tiny()
    };
    let window = ModelConfig {
        sliding_window: Some(3),
        ..tiny()
    };
    vec![tiny(), tied, window, sparse()]
}

fn assert_close<const D: usize>(got: Tensor<D>, want: Tensor<D>) {
    let tolerance = Tolerance::absolute(1e-4);
    got.into_data()
        .assert_approx_eq::<f32>(&want.into_data(), tolerance);
}

fn all_real(batch: usize, seq: usize) -> Tensor<2, Bool> {
    Tensor::<2, Int>::ones([batch, seq], &Device::flex()).bool()
}

const TOKENS: [u32; 6] = [3, 17, 5, 5, 9, 20];

#[test]
fn padding_on_either_side_changes_no_hidden_state() {
    let device = Device::flex();
    for config in variants() {
        let model = Decoder::random(&config, 1, &device);
        let (tokens, real) = pad(&[TOKENS.to_vec()], 0, Side::Left, &device);
        let alone = model.forward(tokens, real);
        let other = vec![1, 2, 3, 4, 5, 6, 7, 8, 9];
        for (side, start) in [(Side::Left, 3), (Side::Right, 0)] {
            let (tokens, real) = pad(&[other.clone(), TOKENS.to_vec()], 0, side, &device);
            let hidden = model.forward(tokens, real);
            let [_, _, d_model] = hidden.dims();
            let padded = hidden.clone().slice([1..2, start..start + 6, 0..d_model]);
            assert_close(padded, alone.clone());
            assert!(!hidden.is_nan().any().into_scalar::<bool>());
        }
    }
}

#[test]
fn feeding_through_the_cache_equals_one_forward() {
    let device = Device::flex();
    for config in variants() {
        let model = Decoder::random(&config, 2, &device);
        let rows = [TOKENS.to_vec(), vec![1, 2, 3, 4]];
        let (tokens, real) = pad(&rows, 0, Side::Left, &device);
        let whole = model.forward(tokens.clone(), real.clone());
        let mut cache = KvCache::new(config.num_layers);
        let mut parts = vec![];
        for range in [0..3, 3..4, 4..6] {
            parts.push(model.forward_cached(
                tokens.clone().slice([0..2, range.clone()]),
                real.clone().slice([0..2, range]),
                &mut cache,
            ));
        }
        assert_eq!(cache.len(), 6);
        // The two padding rows of the second text mean nothing.
        let parts = Tensor::cat(parts, 1);
        assert_close(parts.clone().narrow(0, 0, 1), whole.clone().narrow(0, 0, 1));
        assert_close(parts.slice([1..2, 2..6]), whole.slice([1..2, 2..6]));
    }
}

#[test]
fn a_copied_cache_row_continues_like_the_original() {
    let device = Device::flex();
    let model = Decoder::random(&tiny(), 3, &device);
    let mut cache = KvCache::new(2);
    let (tokens, real) = pad(&[TOKENS.to_vec(), vec![1, 2, 3]], 0, Side::Left, &device);
    model.forward_cached(tokens, real, &mut cache);
    let rows = Tensor::<1, Int>::from_data([1, 1, 0], &device);
    let mut copies = cache.select_rows(rows);
    let next = Tensor::<2, Int>::from_data([[7], [8], [9]], &device);
    let copied = model.forward_cached(next, all_real(3, 1), &mut copies);
    let next = Tensor::<2, Int>::from_data([[9], [8]], &device);
    let original = model.forward_cached(next, all_real(2, 1), &mut cache);
    assert_close(
        copied.clone().narrow(0, 1, 1),
        original.clone().narrow(0, 1, 1),
    );
    assert_close(copied.narrow(0, 2, 1), original.narrow(0, 0, 1));
}

#[test]
fn an_earlier_token_does_not_see_a_later_one() {
    let device = Device::flex();
    let model = Decoder::random(&tiny(), 4, &device);
    let forward = |tokens: [u32; 4]| {
        let (tokens, real) = pad(&[tokens.to_vec()], 0, Side::Right, &device);
        model.forward(tokens, real).slice([0..1, 0..3])
    };
    assert_close(forward([1, 2, 3, 4]), forward([1, 2, 3, 5]));
}

#[test]
fn a_tied_head_is_the_embedding() {
    let device = Device::flex();
    let config = ModelConfig {
        tie_word_embeddings: true,
        ..tiny()
    };
    let model = Decoder::random(&config, 5, &device);
    let hidden = Tensor::<2>::random([3, 16], Distribution::Default, &device);
    let embedding = model.embedding.weight.float().unwrap().val();
    let expected = embedding.matmul(hidden.clone().transpose()).transpose();
    assert_close(model.logits(hidden), expected);
}

/// The slope of a random projection of the output along a random direction, by the backward pass
/// and by a central difference.
#[test]
fn gradients_flow_through_frozen_layers() {
    let device = Device::flex();
    let model = Decoder::random(&tiny(), 6, &device);
    let context = model.context(all_real(2, 5), 0);
    let shape = [2, 5, 16];
    let random = || Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let (x, direction, probe) = (random(), random(), random());
    let loss = |x: Tensor<3>| {
        let mut x = Residual::new(x);
        for layer in &model.layers {
            layer.forward(&mut x, &context, None);
        }
        (model.norm.forward(x.into_sum()) * probe.clone()).sum()
    };

    let tracked = Tensor::<3>::from_data(x.to_data(), &device.clone().autodiff()).require_grad();
    let gradients = loss(tracked.clone()).backward();
    let gradient = tracked
        .grad(&gradients)
        .expect("x is on the path to the loss");
    let slope = (gradient * direction.clone()).sum().into_scalar::<f32>();

    let step = 1e-2;
    let at = |sign: f64| loss(x.clone() + direction.clone() * (sign * step)).into_scalar::<f32>();
    let difference = (at(1.0) - at(-1.0)) / (2.0 * step as f32);
    assert!(
        (slope - difference).abs() < 1e-2 * slope.abs().max(1.0),
        "{slope} against {difference}"
    );
    assert!(slope.abs() > 1e-3);
}

#[test]
fn the_same_seed_draws_the_same_weights() {
    let weights = |seed| {
        let model = Decoder::random(&tiny(), seed, &Device::flex());
        let dense = model.layers[1].feed_forward.dense().unwrap();
        let weight = dense.down.weight.float().unwrap().val();
        weight.into_data().iter::<f32>().collect::<Vec<_>>()
    };
    assert_eq!(weights(7), weights(7));
    assert_ne!(weights(7), weights(8));
}
