//! This crate's numbers against those of transformers, from the golden fixtures.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its fixture stops"
)]

use std::path::{Path, PathBuf};

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use moe_core::checkpoint::Checkpoint;
use moe_core::generate::{self, Sampling, generate};
use moe_core::model::Decoder;
use moe_core::tokenizer::Tokenizer;
use safetensors::SafeTensors;

struct Fixture {
    folder: PathBuf,
    bytes: Vec<u8>,
}

impl Fixture {
    fn open(case: &str) -> Self {
        let folder = folder(case);
        let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
        Self { folder, bytes }
    }

    fn data(&self, name: &str) -> TensorData {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors.tensor(name).unwrap();
        let shape = view.shape().to_vec();
        match view.dtype() {
            safetensors::Dtype::F32 => {
                let values = view.data().chunks_exact(4);
                let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                TensorData::new(values.collect::<Vec<_>>(), shape)
            }
            safetensors::Dtype::I64 => {
                let values = view.data().chunks_exact(8);
                let values = values.map(|b| i64::from_le_bytes(b.try_into().unwrap()));
                TensorData::new(values.collect::<Vec<_>>(), shape)
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    fn float<const D: usize>(&self, name: &str) -> Tensor<D> {
        Tensor::from_data(self.data(name), &Device::flex())
    }

    fn int(&self, name: &str) -> Tensor<2, Int> {
        Tensor::from_data(self.data(name), &Device::flex())
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.data(name).iter::<i64>().map(|id| id as u32).collect()
    }
}

fn folder(case: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    let folder = root.join(case);
    assert!(
        folder.exists(),
        "this test reads the golden fixtures, which are not part of the repository; {} is missing",
        folder.display()
    );
    folder
}

/// |got − want| ≤ atol + rtol |want| in every entry.
fn close<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>, rtol: f32, atol: f32) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (got.into_data(), want.into_data());
    for (place, (got, want)) in got.iter::<f32>().zip(want.iter::<f32>()).enumerate() {
        assert!(
            (got - want).abs() <= atol + rtol * want.abs(),
            "{what}: entry {place} is {got}, expected {want}"
        );
    }
}

fn logits(model: &Decoder, hidden: Tensor<3>) -> Tensor<3> {
    let [batch, seq, d_model] = hidden.dims();
    let logits = model.logits(hidden.reshape([batch * seq, d_model]));
    let [_, vocab] = logits.dims();
    logits.reshape([batch, seq, vocab])
}

const CASES: [&str; 12] = [
    "llama_bf16",
    "llama_gqa",
    "llama_headdim",
    "llama_mha",
    "llama_rope1e5",
    "llama_rope_llama3",
    "llama_sharded",
    "llama_tied",
    "mistral",
    "mistral_swa",
    "qwen2",
    "qwen3",
];

fn for_all(check: impl Fn(&str, &Fixture, &Decoder)) {
    for case in CASES {
        let fixture = Fixture::open(&format!("llama/{case}"));
        let checkpoint = Checkpoint::open(&fixture.folder.join("model")).unwrap();
        let model = Decoder::load(&checkpoint, &Device::flex()).unwrap();
        check(case, &fixture, &model);
    }
}

#[test]
fn hidden_states_and_logits_are_those_of_transformers() {
    for_all(|case, fixture, model| {
        let tokens = fixture.int("full.input_ids");
        let real = tokens.clone().greater_equal_elem(0);
        let context = model.context(real.clone(), 0);
        let mut x = model.embed(tokens.clone());
        for (index, layer) in model.layers.iter().enumerate() {
            let name = format!("full.hidden.{index}");
            close(
                &format!("{case} {name}"),
                x.clone(),
                fixture.float(&name),
                2e-4,
                2e-4,
            );
            x = layer.forward(x, &context, None);
        }
        let hidden = model.forward(tokens, real);
        let last = fixture.float(&format!("full.hidden.{}", model.layers.len()));
        close(case, hidden.clone(), last, 2e-4, 2e-4);
        close(
            case,
            logits(model, hidden),
            fixture.float("full.logits"),
            2e-4,
            2e-4,
        );
    });
}

#[test]
fn padded_batches_are_those_of_transformers() {
    for_all(|case, fixture, model| {
        for side in ["left", "right"] {
            let mask = fixture.int(&format!("{side}.attention_mask"));
            let real: Tensor<2, Bool> = mask.clone().bool();
            let hidden = model.forward(fixture.int(&format!("{side}.input_ids")), real);
            let [batch, seq] = mask.dims();
            let shown = mask.float().reshape([batch, seq, 1]);
            let got = logits(model, hidden.clone()) * shown.clone();
            let want = fixture.float(&format!("{side}.logits_mask_positions"));
            close(&format!("{case} {side}"), got, want, 2e-4, 2e-4);
            let want = fixture.float(&format!("{side}.final_hidden_mask_positions"));
            close(&format!("{case} {side}"), hidden * shown, want, 2e-4, 2e-4);
        }
    });
}

#[test]
fn rotary_tables_are_those_of_transformers() {
    for_all(|case, fixture, model| {
        let cos: Tensor<2> = fixture.float("rope.cos");
        let [seq, head_dim] = cos.dims();
        let positions = Tensor::<1, Int>::arange(0..seq as i64, &Device::flex());
        let (got_cos, got_sin) = model.rope().tables(positions.reshape([1, seq]));
        close(case, got_cos.reshape([seq, head_dim]), cos, 1e-5, 1e-5);
        let sin = fixture.float("rope.sin");
        close(case, got_sin.reshape([seq, head_dim]), sin, 1e-5, 1e-5);
        let frequencies = model.rope().inverse_frequencies();
        let frequencies = Tensor::<1>::from_data(frequencies, &Device::flex());
        close(
            case,
            frequencies,
            fixture.float("rope.inv_freq"),
            1e-5,
            1e-8,
        );
    });
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for_all(|case, fixture, model| {
        let greedy = Sampling::greedy();
        let prompt = fixture.ids("gen.prompt");
        let ids = fixture.ids("gen.ids");
        let got = generate(model, &[prompt], ids.len(), &greedy, &[]);
        assert_eq!(got[0], ids, "{case}");

        let rows = fixture.int("genbatch.prompt").dims()[1];
        let mask = fixture.ids("genbatch.attention_mask");
        let prompts: Vec<Vec<u32>> = (fixture.ids("genbatch.prompt").chunks(rows))
            .zip(mask.chunks(rows))
            .map(|(row, mask)| {
                let real = row.iter().zip(mask).filter(|(_, real)| **real == 1);
                real.map(|(id, _)| *id).collect()
            })
            .collect();
        let ids = fixture.ids("genbatch.ids");
        let steps = ids.len() / prompts.len();
        let got = generate(model, &prompts, steps, &greedy, &[]);
        assert_eq!(got.concat(), ids, "{case}");
    });
}

#[test]
fn sampling_filters_are_those_of_transformers() {
    type Filter<'a> = (&'a str, Box<dyn Fn(&mut [f32], &[u32])>);
    let fixture = Fixture::open("train_utils/sampling_filters");
    let logits: Tensor<2> = fixture.float("logits");
    let [rows, vocab] = logits.dims();
    let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let ids = fixture.ids("input_ids");
    let filters: Vec<Filter> = vec![
        (
            "temperature_0.7",
            Box::new(|x, _| generate::temperature(x, 0.7)),
        ),
        ("top_k_3", Box::new(|x, _| generate::top_k(x, 3))),
        ("top_p_0.6", Box::new(|x, _| generate::top_p(x, 0.6))),
        ("top_p_0.05", Box::new(|x, _| generate::top_p(x, 0.05))),
        ("min_p_0.1", Box::new(|x, _| generate::min_p(x, 0.1))),
        (
            "repetition_1.3",
            Box::new(|x, ids| generate::penalise_repetition(x, ids, 1.3)),
        ),
    ];
    for (name, filter) in filters {
        let mut got = values.clone();
        for (row, ids) in got.chunks_mut(vocab).zip(ids.chunks(ids.len() / rows)) {
            filter(row, ids);
        }
        let got: Vec<f32> = got.iter().map(|x| x.max(-1e30)).collect();
        let got = Tensor::from_data(TensorData::new(got, [rows, vocab]), &Device::flex());
        close::<2>(name, got, fixture.float(name), 1e-4, 1e-5);
    }
}

#[test]
fn token_ids_are_those_of_the_tokenizers_library() {
    let folder = folder("llama/tokenizer_bpe");
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json")).unwrap();
    let text = std::fs::read_to_string(folder.join("encodings.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = cases["single"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(case[key].clone()).unwrap() };
        let special = tokenizer.encode(text, true).unwrap();
        assert_eq!(special, ids("ids"), "{text:?}");
        assert_eq!(
            tokenizer.encode(text, false).unwrap(),
            ids("ids_no_special"),
            "{text:?}"
        );
        for (key, skip) in [
            ("decoded_skip_special", true),
            ("decoded_keep_special", false),
        ] {
            let decoded = tokenizer.decode(&special, skip).unwrap();
            assert_eq!(decoded, case[key].as_str().unwrap());
        }
    }
}
