use burn::tensor::Device;

use super::*;
use crate::checkpoint::tests::zeros;
use crate::config::{QkNorm, RopeScaling};
use crate::generate::{Side, pad};
use crate::model::Decoder;
use crate::parameters::to_bytes;

fn upcycle(layers: Option<Range<usize>>) -> Upcycle {
    Upcycle {
        experts: 4,
        top_k: 2,
        layers,
        noise: 0.0,
        seed: 7,
    }
}

/// Small dense settings of a family, of three layers.
fn dense(architecture: Architecture) -> ModelConfig {
    ModelConfig {
        architecture,
        num_layers: 3,
        attention_bias: architecture == Architecture::Qwen2,
        qk_norm: QkNorm::of(architecture),
        ..crate::model::tests::tiny()
    }
}

/// A random checkpoint with these settings below `dir`.
fn stored(dir: &Path, config: &ModelConfig) -> Checkpoint {
    let base = zeros(&dir.join("zeros"));
    let to = dir.join("dense");
    let model = Decoder::random(config, 3, &Device::flex());
    model.save(&to, &base).unwrap();
    Checkpoint::open(&to).unwrap()
}

fn load(checkpoint: &Checkpoint) -> Decoder {
    Decoder::load(checkpoint, &Device::flex()).unwrap()
}

/// Logits of two texts, one of them padded, at their real tokens.
fn logits(model: &Decoder) -> Vec<f32> {
    let texts = [vec![3, 17, 5, 5, 9, 20, 1, 2], vec![4, 4, 22]];
    let (tokens, real) = pad(&texts, 0, Side::Left, &Device::flex());
    let hidden = model.forward(tokens, real);
    let [batch, seq, d_model] = hidden.dims();
    let logits = model.logits(hidden.reshape([batch * seq, d_model]));
    let numbers: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let vocab = model.config().vocab_size;
    numbers[..8 * vocab]
        .iter()
        .chain(&numbers[13 * vocab..])
        .copied()
        .collect()
}

fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    let differences = one.iter().zip(other).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn an_upcycled_model_is_the_dense_one_to_rounding_in_every_family() {
    use Architecture::*;
    let all = Some(0..3);
    for (architecture, layers, becomes) in [
        (Llama, all.clone(), Mixtral),
        (Llama, None, Qwen2Moe),
        (Mistral, all.clone(), Mixtral),
        (Mistral, Some(1..2), Qwen2Moe),
        (Qwen2, all.clone(), Qwen2Moe),
        (Qwen2, None, Qwen2Moe),
        (Qwen3, all.clone(), Qwen3Moe),
        (Qwen3, Some(0..2), Qwen3Moe),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = dense(architecture);
        // What is easily lost on the way.
        config.sliding_window = (architecture != Llama).then_some(3);
        config.tie_word_embeddings = layers.is_none();
        config.rope_scaling = RopeScaling::Linear { factor: 2.0 };
        let base = stored(dir.path(), &config);
        let to = dir.path().join("sparse");
        let made = upcycle(layers.clone())
            .save(&base, BaseDtype::F32, &to)
            .unwrap();
        assert_eq!(made.architecture, becomes);
        let sparse = Checkpoint::open(&to).unwrap();
        assert_eq!(sparse.config(), &made);
        let layers = layers.unwrap_or(2..3);
        for layer in 0..3 {
            assert_eq!(made.sparse_in(layer).is_some(), layers.contains(&layer));
        }
        let (was, is) = (logits(&load(&base)), logits(&load(&sparse)));
        let difference = largest_difference(&was, &is);
        assert!(difference < 2e-5, "{architecture:?} {difference}");
    }
}

#[test]
fn noise_moves_experts_apart_by_as_much_as_it_says_and_the_seed_decides_all() {
    let dir = tempfile::tempdir().unwrap();
    let base = stored(dir.path(), &dense(Architecture::Llama));
    let saved = |name: &str, noise, seed| {
        let to = dir.path().join(name);
        let upcycle = Upcycle {
            noise,
            seed,
            ..upcycle(None)
        };
        upcycle.save(&base, BaseDtype::F32, &to).unwrap();
        load(&Checkpoint::open(&to).unwrap())
    };
    let (noisy, again) = (saved("a", 0.1, 1), saved("b", 0.1, 1));
    assert_eq!(to_bytes(&noisy), to_bytes(&again));
    assert_ne!(to_bytes(&noisy), to_bytes(&saved("c", 0.1, 2)));
    let expert = |index: usize| {
        let name = format!("model.layers.2.mlp.experts.{index}.down_proj.weight");
        noisy.stored(&name).unwrap()
    };
    let was = base
        .read_f32("model.layers.2.mlp.down_proj.weight")
        .unwrap();
    let rms = |numbers: &[f32]| {
        let squares: f32 = numbers.iter().map(|x| x * x).sum();
        (squares / numbers.len() as f32).sqrt()
    };
    for index in 0..4 {
        let noise: Vec<f32> = expert(index).iter().zip(&was).map(|(a, b)| a - b).collect();
        let share = rms(&noise) / rms(&was);
        assert!((share - 0.1).abs() < 0.02, "{share}");
    }
    assert_ne!(expert(0), expert(1));
    let difference = largest_difference(&logits(&load(&base)), &logits(&noisy));
    assert!(difference > 1e-3, "{difference}");
}

#[test]
fn what_cannot_be_is_refused_by_name_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = stored(dir.path(), &dense(Architecture::Qwen3));
    let to = dir.path().join("sparse");
    let refused = |upcycle: Upcycle, base: &Checkpoint, words: &str| {
        let error = upcycle.save(base, BaseDtype::F32, &to).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    let ask = || upcycle(None);
    let none = Upcycle {
        layers: Some(2..4),
        ..ask()
    };
    refused(none, &base, "2..4 are not among the base's 3");
    let one = Upcycle {
        experts: 1,
        ..ask()
    };
    refused(one, &base, "at least 2 experts");
    let many = Upcycle { top_k: 5, ..ask() };
    refused(many, &base, "`num_experts_per_tok`: 5 is more than the 4");
    assert!(!to.exists());
    ask().save(&base, BaseDtype::F32, &to).unwrap();
    refused(ask(), &base, "exists already");
    let sparse = Checkpoint::open(&to).unwrap();
    refused(ask(), &sparse, "sparse already, with 4 experts");
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 3, "zeros, dense, sparse");
}

#[test]
fn the_upper_third_is_rounded_up() {
    assert_eq!(upper_third(30), 20..30);
    assert_eq!(upper_third(4), 2..4);
    assert_eq!(upper_third(1), 0..1);
}
