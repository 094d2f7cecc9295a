//! `kill -9` at moments of nobody's choosing, then `--resume`: the weights are those of a run that nobody touched.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};
use moe_cl::{Base, training::Trained};
use moe_core::config::ModelConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WORDS: [&str; 8] = [
    "<pad>", "<end>", "red", "blue", "sun", "rain", "the", "very",
];

/// A base of random weights with a tokenizer of eight words.
fn write_base(folder: &Path) {
    let config = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "eos_token_id": 1, "pad_token_id": 0, "hidden_act": "silu"}"#;
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    let vocabulary: serde_json::Map<_, _> = WORDS
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), id.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "the"}
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, shape) in ModelConfig::from_json(config, folder)
        .unwrap()
        .parameter_shapes()
    {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            data.extend(rng.random_range(-0.4f32..0.4).to_le_bytes());
        }
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

fn write_experiment(folder: &Path) {
    let mut config = String::from(
        "name = \"killed\"\nseed = 3\n[data]\nroot = \".\"\n[adapters]\nrank = 2\ndropout = 0.1\n\
         [training]\nepochs = 20\nbatch_size = 2\nlearning_rate = 0.01\ncheckpoint_every = 3\n",
    );
    for (task, [one, other]) in [("colours", ["red", "blue"]), ("weather", ["sun", "rain"])] {
        let rows: String = (0..8)
            .map(|row| {
                let (word, label) = if row % 2 == 0 {
                    (one, "a")
                } else {
                    (other, "b")
                };
                let filler = ["the", "very", "the very", "very the"][row % 4];
                format!("{{\"text\": \"{filler} {word}\", \"label\": \"{label}\"}}\n")
            })
            .collect();
        fs::write(folder.join(format!("{task}.jsonl")), rows).unwrap();
        config += &format!(
            "[[tasks]]\nname = \"{task}\"\ntrain = \"{task}.jsonl\"\ntest = \"{task}.jsonl\"\n"
        );
    }
    fs::write(folder.join("killed.toml"), config).unwrap();
}

fn train(folder: &Path, out: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moe-cl"));
    command
        .current_dir(folder)
        .args([
            "train",
            "--config",
            "killed.toml",
            "--base",
            "base",
            "--resume",
            "--out",
            out,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The bits of every trained number.
fn weights(run: &Path, base: &Base) -> Vec<u32> {
    struct Bits(Vec<u32>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0
                .extend(param.val().into_data().iter::<f32>().map(f32::to_bits));
        }
    }
    let mut bits = Bits(Vec::new());
    Trained::open(run, base).unwrap().learner().visit(&mut bits);
    bits.0
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_weights_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    write_base(&folder.path().join("base"));
    write_experiment(folder.path());
    assert!(train(folder.path(), "whole").status().unwrap().success());

    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut killed = 0;
    for _ in 0..12 {
        let mut run = train(folder.path(), "broken").spawn().unwrap();
        sleep(Duration::from_millis(rng.random_range(20..400)));
        if run.try_wait().unwrap().is_none() {
            run.kill().unwrap();
            killed += 1;
        }
        run.wait().unwrap();
    }
    assert!(killed > 0, "every run was over before it could be killed");
    assert!(train(folder.path(), "broken").status().unwrap().success());

    let base = Base::load(&folder.path().join("base"), &Device::flex()).unwrap();
    let [whole, broken] = ["whole", "broken"].map(|run| weights(&folder.path().join(run), &base));
    assert!(whole == broken, "{killed} kills changed the weights");
}
