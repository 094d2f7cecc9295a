//! Laws of the scheduler, on a decoder of a few thousand random weights that learns three toy tasks in seconds.

mod accumulation;
mod exchange;
mod living;
mod methods;
mod sparse;
mod stopping;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};
use moe_cl::{
    Base, Error, TaskModel,
    config::Experiment,
    directory::{Layout, Saved},
    events::{Event, Recorder},
    label_scores,
    training::{RunOptions, RunResult, Trained, train},
};
use moe_core::{config::ModelConfig, model::Decoder, tokenizer::Tokenizer};

const TASKS: [&str; 3] = ["colours", "sizes", "weather"];

/// A decoder of two layers over a vocabulary of twenty words.
fn base() -> Base {
    base_of(3)
}

/// The same with other weights.
fn base_of(seed: u64) -> Base {
    base_from(seed, &serde_json::json!({"model_type": "llama"}))
}

/// The same with four experts in each layer, of which a token goes through two.
fn sparse_base() -> Base {
    let sparse = serde_json::json!({
        "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2
    });
    base_from(3, &sparse)
}

/// With the keys of `kind` in its configuration.
fn base_from(seed: u64, kind: &serde_json::Value) -> Base {
    let words = [
        "<pad>", "<end>", "red", "blue", "big", "small", "sun", "rain", "the", "a", "is", "thing",
        "day", "very", "yes", "no", "Text:", "Options:", "Answer:", ",",
    ];
    let vocabulary: serde_json::Map<_, _> = words
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), id.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "thing"}
    });
    let mut config = serde_json::json!({
        "vocab_size": words.len(), "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": true, "max_position_embeddings": 64, "eos_token_id": 1,
        "pad_token_id": 0
    });
    for (key, value) in kind.as_object().expect("keys") {
        config[key] = value.clone();
    }
    let config = ModelConfig::from_json(&config.to_string(), Path::new("tiny"))
        .expect("a valid configuration");
    let tokenizer = Tokenizer::from_json(tokenizer.to_string().as_bytes());
    let decoder = Decoder::random(&config, seed, &Device::flex());
    Base::in_memory(decoder, tokenizer.expect("a valid tokenizer"), None).expect("a base")
}

fn write_data(root: &Path) {
    for (task, [yes, no]) in TASKS
        .iter()
        .zip([["red", "blue"], ["big", "small"], ["sun", "rain"]])
    {
        for (split, count) in [("train", 12), ("dev", 6), ("test", 6)] {
            let rows: String = (0..count)
                .map(|row| {
                    let (word, label) = if row % 2 == 0 {
                        (yes, "yes")
                    } else {
                        (no, "no")
                    };
                    let filler = ["the", "a very", "a day is", "the thing is very"][row % 4];
                    format!("{{\"text\": \"{filler} {word}\", \"label\": \"{label}\"}}\n")
                })
                .collect();
            let folder = root.join(task);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(format!("{split}.jsonl")), rows).expect("a file");
        }
    }
}

fn experiment(root: &Path, settings: &[&str]) -> Experiment {
    experiment_of(root, &TASKS, settings)
}

/// The experiment with some of the tasks.
fn experiment_of(root: &Path, tasks: &[&str], settings: &[&str]) -> Experiment {
    let mut text = format!(
        "name = \"toy\"\nseed = 5\n[data]\nroot = {:?}\n[adapters]\nrank = 2\n\
         [training]\nepochs = 2\nbatch_size = 4\nlearning_rate = 0.02\ncheckpoint_every = 2\n",
        root.display().to_string()
    );
    for task in tasks {
        text += &format!(
            "[[tasks]]\nname = {task:?}\ntrain = \"{task}/train.jsonl\"\ndev = \"{task}/dev.jsonl\"\ntest = \"{task}/test.jsonl\"\n"
        );
    }
    let settings: Vec<String> = settings
        .iter()
        .map(|setting| (*setting).to_owned())
        .collect();
    Experiment::parse(&text, Path::new("toy.toml"), &settings).expect("a valid experiment")
}

/// Refuses the event of one step, as a full disk would, so that the run stops there.
struct StopAt(Option<usize>);

impl Recorder for StopAt {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Step { step, .. } if Some(*step) == self.0 => {
                Err(io::Error::other("stopped by the test"))
            }
            _ => Ok(()),
        }
    }
}

fn run(
    experiment: &Experiment,
    base: &Base,
    out: &Path,
    stop: Option<usize>,
) -> Result<RunResult, Error> {
    train(
        experiment,
        base,
        &RunOptions::new(out.into(), true),
        &mut StopAt(stop),
    )
}

/// Checkpoint directories, oldest first.
fn checkpoints(out: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(out.join("checkpoints"))
        .expect("checkpoints")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

/// What the newest checkpoint consists of, every part by the hash of its content.
fn layout(out: &Path) -> Layout {
    let newest = checkpoints(out).pop().expect("a checkpoint");
    Saved::open(&newest).expect("a whole one").state.layout
}

/// The bits of every number of the final learner, in the order of the module.
fn weights(out: &Path, base: &Base) -> Vec<u32> {
    struct Bits(Vec<u32>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0
                .extend(param.val().into_data().iter::<f32>().map(f32::to_bits));
        }
    }
    let trained = Trained::open(out, base).expect("a trained learner");
    let mut bits = Bits(Vec::new());
    trained.learner().visit(&mut bits);
    bits.0
}

#[test]
fn a_stopped_run_resumes_to_the_same_weights_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    for mode in ["paper", "improved"] {
        for objective in ["heads", "instruction"] {
            let settings = [
                &format!("method={{name='moe_cl',mode='{mode}'}}")[..],
                &format!("training.objective={objective}"),
                "adapters.dropout=0.1",
            ];
            let experiment = experiment(folder.path(), &settings);
            let whole = folder.path().join(format!("{mode}-{objective}-whole"));
            let result = run(&experiment, &base, &whole, None).expect("an uninterrupted run");
            // In the middle of a task, right after a checkpoint, and at the first step of a task.
            let broken = folder.path().join(format!("{mode}-{objective}-broken"));
            for stop in [4, 5, 7, 13] {
                assert!(run(&experiment, &base, &broken, Some(stop)).is_err());
            }
            let resumed = run(&experiment, &base, &broken, None).expect("the rest of the run");
            assert_eq!(resumed.matrix, result.matrix);
            assert_eq!(resumed.inferred, result.inferred);
            assert_eq!(resumed.answers, result.answers);
            assert_eq!(layout(&broken), layout(&whole), "{mode}, {objective}");
        }
    }
}

#[test]
fn a_kept_trunk_changes_nothing_between_runs_and_resumes() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    for method in ["moe_cl", "replay", "lwf", "ewc", "linear_probe"] {
        let settings = [
            &format!("method.name={method}")[..],
            "adapters.layers=last:1",
        ];
        let experiment = experiment(folder.path(), &settings);
        let mut base = base();
        base.keep_trunk(&experiment, &folder.path().join("trunks"));
        let out = |name: &str| folder.path().join(format!("{method}-{name}"));
        // Nothing kept; everything kept; broken off, with what was kept gone in between.
        let cold = run(&experiment, &base, &out("cold"), None).expect("a run");
        let warm = run(&experiment, &base, &out("warm"), None).expect("a run");
        assert!(run(&experiment, &base, &out("broken"), Some(7)).is_err());
        fs::remove_dir_all(folder.path().join("trunks")).expect("the cache");
        base.keep_trunk(&experiment, &folder.path().join("trunks"));
        let resumed = run(&experiment, &base, &out("broken"), None).expect("the rest");
        for (name, result) in [("warm", warm), ("broken", resumed)] {
            assert_eq!(result.matrix, cold.matrix, "{method}, {name}");
            assert!(
                weights(&out(name), &base) == weights(&out("cold"), &base),
                "{method}, {name}"
            );
        }
    }
}

#[test]
fn a_trunk_that_cannot_be_kept_is_said_once_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let experiment = experiment(folder.path(), &["adapters.layers=last:1"]);
    let mut base = base();
    base.keep_trunk(&experiment, &folder.path().join("trunks"));
    let kept = folder.path().join("kept");
    run(&experiment, &base, &kept, None).expect("a run");
    // Below a file there is no folder, whoever asks.
    fs::write(folder.path().join("file"), "").expect("a file");
    base.keep_trunk(&experiment, &folder.path().join("file/trunks"));
    let without = folder.path().join("without");
    run(&experiment, &base, &without, None).expect("a run without it");
    assert!(weights(&without, &base) == weights(&kept, &base));
    let log = fs::read_to_string(without.join("events.jsonl")).expect("the log");
    assert_eq!(log.matches("trunk_cache_mb").count(), 1, "{log}");
}

#[test]
fn a_trunk_of_its_own_is_not_taken_for_the_frozen_one() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let settings = [
        "method={name='sequential',weights='all'}",
        "adapters.layers=last:1",
    ];
    let experiment = experiment(folder.path(), &settings);
    let mut base = base();
    let plain = run(&experiment, &base, &folder.path().join("plain"), None).expect("a run");
    base.keep_trunk(&experiment, &folder.path().join("trunks"));
    let kept = run(&experiment, &base, &folder.path().join("kept"), None).expect("a run");
    assert_eq!(plain.matrix, kept.matrix);
    assert!(
        weights(&folder.path().join("plain"), &base) == weights(&folder.path().join("kept"), &base)
    );
}

#[test]
fn a_torn_checkpoint_is_passed_over_for_the_one_before() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let (base, experiment) = (base(), experiment(folder.path(), &[]));
    let (whole, torn) = (folder.path().join("whole"), folder.path().join("torn"));
    run(&experiment, &base, &whole, None).expect("an uninterrupted run");
    assert!(run(&experiment, &base, &torn, Some(6)).is_err());
    let expert = layout(&torn).experts.pop().expect("an expert").part;
    let newest = torn.join("parts").join(expert.sha256());
    let bytes = fs::read(&newest).expect("weights");
    fs::write(&newest, &bytes[..bytes.len() / 2]).expect("a torn file");
    run(&experiment, &base, &torn, None).expect("the rest of the run");
    assert!(weights(&torn, &base) == weights(&whole, &base));
    let log = fs::read_to_string(torn.join("events.jsonl")).expect("a log");
    assert!(
        log.contains("were written; the one before it is used"),
        "{log}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    let of = |seed: &str, out: &str| {
        let experiment = experiment(folder.path(), &[&format!("seed={seed}")]);
        let out = folder.path().join(out);
        run(&experiment, &base, &out, None).expect("a run");
        weights(&out, &base)
    };
    let first = of("1", "a");
    assert!(first == of("1", "b"));
    assert!(first != of("2", "c"));
}

#[test]
fn in_improved_mode_what_a_task_answers_with_never_moves_again() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let (base, experiment) = (base(), experiment(folder.path(), &[]));
    let result = run(&experiment, &base, &folder.path().join("run"), None).expect("a run");
    assert_eq!(result.summary.bwt, Some(0.0));
    assert_eq!(result.summary.forgetting_since_learnt, Some(0.0));
}

#[test]
fn a_toy_task_is_learnt() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    for objective in ["heads", "instruction"] {
        let experiment = experiment(
            folder.path(),
            &[
                "training.epochs=30",
                "training.learning_rate=0.01",
                "adapters.rank=4",
                &format!("training.objective={objective}"),
            ],
        );
        let result = run(&experiment, &base, &folder.path().join(objective), None).expect("a run");
        assert!(
            result.summary.learning_accuracy > Some(0.9),
            "{objective}: {:?}",
            result.matrix
        );
    }
}

#[test]
fn a_directory_with_another_run_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    let out = folder.path().join("run");
    let first = experiment(folder.path(), &[]);
    assert!(run(&first, &base, &out, Some(1)).is_err());
    let again = RunOptions::new(out.clone(), false);
    let error = train(&first, &base, &again, &mut StopAt(None)).expect_err("no --resume");
    assert!(error.to_string().contains("--resume"), "{error}");
    let error = run(&experiment(folder.path(), &["seed=9"]), &base, &out, None)
        .expect_err("other settings");
    assert!(
        error.to_string().contains("`seed` is 5 there, now 9"),
        "{error}"
    );
}

#[test]
fn a_rate_that_is_far_too_large_ends_in_an_error_and_not_in_nonsense() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let experiment = experiment(folder.path(), &["training.learning_rate=1e30"]);
    let error =
        run(&experiment, &base(), &folder.path().join("run"), None).expect_err("divergence");
    assert!(
        error.to_string().contains("training.learning_rate"),
        "{error}"
    );
}

#[test]
fn the_task_need_not_be_given() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    for (method, objective) in [
        ("moe_cl", "heads"),
        ("moe_cl", "instruction"),
        ("per_task", "instruction"),
    ] {
        let experiment = experiment(
            folder.path(),
            &[
                &format!("method.name={method}"),
                &format!("training.objective={objective}"),
                "router.layer=1",
                "router.ridge=0.1",
            ],
        );
        let out = folder.path().join(format!("{method}-{objective}"));
        let result = run(&experiment, &base, &out, None).expect("a run");
        assert_eq!(result.inferred.len(), TASKS.len());
        for (learnt, stage) in result.inferred.iter().enumerate() {
            assert_eq!(stage.confusion.len(), learnt + 1);
            assert_eq!(stage.open_set_auroc.is_some(), learnt + 1 < TASKS.len());
        }
        let last = result.inferred.last().expect("a stage");
        assert!(last.routing_accuracy() > Some(0.8), "{last:?}");
        // A text that is sent to its task and known is answered as when the task is given.
        for (task, answers) in result.answers.iter().enumerate() {
            if last.refused[task] == 0 && last.routing_accuracy_of(task) == Some(1.0) {
                assert_eq!(answers.given, answers.inferred);
            }
            assert_eq!(answers.given.0.len(), 6);
        }

        let trained = Trained::open(&out, &base).expect("a trained learner");
        let routed = trained
            .infer(&["the thing is very rain".into()])
            .expect("tokens");
        assert_eq!(routed[0].task, 2);
        let has_shared = trained.has_fallback(0);
        assert_eq!(has_shared, method == "moe_cl");
    }
}

#[test]
fn an_expert_folded_into_the_base_writes_what_it_wrote_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    for method in ["sequential", "per_task", "o_lora", "mocl", "moe_cl"] {
        let settings = [
            &format!("method.name={method}")[..],
            "training.objective=instruction",
        ];
        let experiment = experiment(folder.path(), &settings);
        let out = folder.path().join(method);
        run(&experiment, &base, &out, None).expect("a run");
        let trained = Trained::open(&out, &base).expect("a trained learner");
        let prompts = [vec![8, 2, 10], vec![9, 4]];
        for task in 0..TASKS.len() {
            let scores = |model: TaskModel<'_>| -> Vec<f32> {
                let scores = label_scores(&model, &prompts, &[vec![14, 1], vec![15]], 0);
                scores.into_data().iter().collect()
            };
            let beside = scores(trained.model(task, false));
            let folded = scores(trained.model(task, false).folded());
            for (a, b) in beside.iter().zip(&folded) {
                assert!((a - b).abs() < 1e-4, "{method}: {beside:?} {folded:?}");
            }
        }
    }
}
