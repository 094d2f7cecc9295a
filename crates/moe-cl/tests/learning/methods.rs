//! Laws of the methods, each through whole runs.

use burn::tensor::TensorData;
use moe_cl::{
    Learner,
    config::MethodConfig,
    data::Turn,
    methods::{Method, Own, method},
    metrics::TextMetric,
    probes::Probes,
    training::{Answering, Said},
};
use moe_lora::{ExpertId, router::Router};

use super::*;

/// A setting for every method, and for every option that changes what a method keeps.
pub const METHODS: [&str; 24] = [
    "{name='moe_cl'}",
    "{name='moe_cl',experts='shared'}",
    "{name='moe_cl',experts='dedicated'}",
    "{name='moe_cl',gate='uniform'}",
    "{name='moe_cl',gate='frozen'}",
    "{name='moe_cl',gate='shared',adversarial_weight=0}",
    "{name='moe_cl',mode='paper',experts='shared'}",
    "{name='sequential'}",
    "{name='sequential',weights='all'}",
    "{name='per_task'}",
    "{name='o_lora'}",
    "{name='o_lora',test='own'}",
    "{name='mocl'}",
    "{name='ewc'}",
    "{name='ewc',mode='online',decay=0.9}",
    "{name='lwf'}",
    "{name='replay',budget=5,batch_size=3}",
    "{name='a_gem',budget=5,batch_size=3}",
    "{name='slao'}",
    "{name='joint'}",
    "{name='mix_lora',experts=4}",
    "{name='mix_lora',experts=3,router={kind='bias_balanced',top_k=2,rate=0.1}}",
    "{name='mix_lora',experts=4,router={kind='switch',jitter=0.1,capacity={factor={factor=1.0,min=1}}}}",
    "{name='mix_lora',experts=3,router={kind='noisy_top_k'}}",
];

fn setting(method: &str) -> String {
    format!("method={method}")
}

/// The learner of the checkpoint after each task. Only the first checkpoint is one of no task, and it is not kept.
fn after_each_task(out: &Path, base: &Base) -> Vec<Learner> {
    let kept = checkpoints(out);
    let ends = &kept[kept.len() - TASKS.len()..];
    let open = |path: &PathBuf| Trained::open(path, base).expect("a checkpoint");
    ends.iter()
        .map(|path| open(path).learner().clone())
        .collect()
}

fn run_of(folder: &Path, base: &Base, method: &str) -> (PathBuf, RunResult) {
    let settings = [&setting(method)[..], "training.checkpoint_every=50"];
    let experiment = experiment(folder, &settings);
    let out = folder.join("run");
    let result = run(&experiment, base, &out, None).expect("a run");
    (out, result)
}

/// B on the down projection of an expert in the second layer.
fn expert(learner: &Learner, index: u64) -> TensorData {
    let expert = learner.catalogue.expert(ExpertId(index));
    let lora = expert.layers[1].down.as_ref().expect("a LoRA on down");
    lora.b.val().into_data()
}

#[test]
fn a_base_that_nothing_touches_keeps_its_general_ability() {
    let base = base();
    let probes = Probes::new(&base.tokenizer, 32).expect("probes");
    let before = probes.measure(&base.decoder, base.pad());
    let after = |method: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        write_data(folder.path());
        let (out, _) = run_of(folder.path(), &base, method);
        let trained = Trained::open(&out, &base).expect("a run");
        probes.measure(&trained.model(1, false), base.pad())
    };
    assert_eq!(after("{name='linear_probe'}"), before);
    let moved = after("{name='sequential',weights='all'}");
    assert!((moved.perplexity - before.perplexity).abs() > 1e-3);
}

fn resumes_bit_for_bit(settings: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    resumes_in(folder.path(), settings);
}

/// A run on the data in `folder` that is stopped thrice ends with the weights and scores of one that is not.
fn resumes_in(folder: &Path, settings: &[&str]) -> RunResult {
    resumes_on(&base(), folder, settings)
}

fn resumes_on(base: &Base, folder: &Path, settings: &[&str]) -> RunResult {
    let experiment = experiment(folder, settings);
    let (whole, broken) = (folder.join("whole"), folder.join("broken"));
    let result = run(&experiment, base, &whole, None).expect("an uninterrupted run");
    for stop in [5, 7, 13] {
        assert!(run(&experiment, base, &broken, Some(stop)).is_err());
    }
    let resumed = run(&experiment, base, &broken, None).expect("the rest of the run");
    assert_eq!(resumed.matrix, result.matrix, "{settings:?}");
    assert!(
        weights(&broken, base) == weights(&whole, base),
        "{settings:?}"
    );
    assert_eq!(resumed.answers, result.answers, "{settings:?}");
    result
}

/// The second task as questions with answers, the third as conversations.
fn write_answers(root: &Path) {
    for split in ["train", "dev", "test"] {
        let rows: String = (0..8)
            .map(|row| {
                let (word, answer) = [("big", "yes very"), ("small", "no")][row % 2];
                format!("{{\"prompt\": \"is the thing {word}\", \"answer\": \"{answer}\"}}\n")
            })
            .collect();
        let file = root.join("sizes").join(format!("{split}.jsonl"));
        fs::write(file, rows).expect("a file");
        let rows: String = (0..8)
            .map(|row| {
                let (word, answer) = [("sun", "a day"), ("rain", "no day")][row % 2];
                let turns = [
                    ("user", "the day"),
                    ("assistant", "is a day"),
                    ("user", word),
                    ("assistant", answer),
                ];
                let turns: Vec<String> = turns
                    .iter()
                    .map(|(role, text)| {
                        format!("{{\"role\": \"{role}\", \"content\": \"{text}\"}}")
                    })
                    .collect();
                format!("{{\"messages\": [{}]}}\n", turns.join(", "))
            })
            .collect();
        let file = root.join("weather").join(format!("{split}.jsonl"));
        fs::write(file, rows).expect("a file");
    }
}

#[test]
fn heads_answers_and_conversations_live_in_one_stream_with_every_method() {
    for method in METHODS {
        let folder = tempfile::tempdir().expect("a folder");
        write_data(folder.path());
        write_answers(folder.path());
        let settings = [
            &setting(method),
            "tasks.1.objective=instruction",
            "tasks.1.metric=token_f1",
            "tasks.2.objective=instruction",
        ];
        let result = resumes_in(folder.path(), &settings);
        let metrics = [
            None,
            Some(TextMetric::TokenF1),
            Some(TextMetric::ExactMatch),
        ];
        assert_eq!(result.metrics, metrics, "{method}");
        for (answers, texts) in result.answers.iter().zip([6, 8, 8]) {
            assert_eq!(answers.given.0.len(), texts, "{method}");
        }
    }
}

#[test]
fn what_was_learnt_to_be_written_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    write_answers(folder.path());
    let settings = [
        "method={name='per_task'}",
        "tasks.1.objective=instruction",
        "tasks.2.objective=instruction",
        "training.epochs=40",
        "adapters.rank=8",
    ];
    let (base, out) = (base(), folder.path().join("run"));
    let experiment = experiment(folder.path(), &settings);
    let result = run(&experiment, &base, &out, None).expect("a run");
    let last = result.matrix.rows.last().expect("a row");
    assert!(last[1] > Some(0.9) && last[2] > Some(0.9), "{last:?}");
    let trained = Trained::open(&out, &base).expect("a trained learner");
    let ask = |task: usize, turns: &[&str]| {
        let turns = turns
            .iter()
            .enumerate()
            .map(|(index, text)| match index % 2 {
                0 => Turn::user((*text).into()),
                _ => Turn::answer((*text).into()),
            });
        let said = trained.say(&[Answering::given(task)], &[turns.collect()]);
        said.expect("an answer").pop().expect("one")
    };
    assert_eq!(ask(1, &["is the thing big"]), Said::Text("yes very".into()));
    assert_eq!(
        ask(2, &["the day", "is a day", "rain"]),
        Said::Text("no day".into())
    );
    let Said::Label { probabilities, .. } = ask(0, &["the red"]) else {
        panic!("a task with a head says a label")
    };
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-6);
}

#[test]
fn every_method_resumes_to_the_same_weights_bit_for_bit() {
    for method in METHODS {
        resumes_bit_for_bit(&[&setting(method), "adapters.dropout=0.1"]);
    }
    resumes_bit_for_bit(&["method={name='linear_probe'}"]);
    resumes_bit_for_bit(&["training.pooling=mean", "training.schedule=linear"]);
}

#[test]
fn methods_that_treat_answers_of_their_own_resume_too() {
    for method in [
        "sequential',weights='all",
        "o_lora",
        "mocl",
        "ewc",
        "lwf",
        "a_gem",
    ] {
        let method = format!("method={{name='{method}'}}");
        resumes_bit_for_bit(&[&method, "training.objective=instruction"]);
    }
}

#[test]
fn a_finished_run_answers_as_it_did_when_it_was_scored() {
    for method in ["{name='mocl'}", "{name='o_lora'}", "{name='slao'}"] {
        let folder = tempfile::tempdir().expect("a folder");
        write_data(folder.path());
        let base = base();
        let (out, result) = run_of(folder.path(), &base, method);
        let trained = Trained::open(&out, &base).expect("a finished run");
        let (_, scores) = trained.evaluate(None, &mut StopAt(None)).expect("scores");
        assert_eq!(
            Some(&scores.accuracies),
            result.matrix.rows.last(),
            "{method}"
        );
    }
}

#[test]
fn adapters_inside_a_sparse_base_train_and_resume_with_every_kind_of_method() {
    let base = sparse_base();
    let before = moe_core::parameters::to_bytes(&base.decoder);
    for method in [
        "{name='sequential'}",
        "{name='moe_cl'}",
        "{name='o_lora'}",
        "{name='mocl'}",
        "{name='slao'}",
        "{name='mix_lora',experts=3}",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        write_data(folder.path());
        let dropout = "adapters.dropout=0.1";
        resumes_on(&base, folder.path(), &[&setting(method), dropout]);
        let trained = Trained::open(&folder.path().join("whole"), &base).expect("a run");
        let layer = &trained.learner().catalogue.experts()[0].layers[1];
        assert_eq!(layer.inside.len(), 4, "{method}");
        let moved: f32 = layer
            .loras()
            .map(|it| it.b.val().abs().sum().into_scalar::<f32>())
            .sum();
        assert!(moved > 0.0, "{method}");
        assert!(
            !trained.routings(None).is_ok_and(|it| it.is_empty()),
            "{method}"
        );
    }
    assert!(moe_core::parameters::to_bytes(&base.decoder) == before);
}

#[test]
fn a_mixture_says_its_router_moves_its_biases_and_leaves_the_attention_one_adapter() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    let method =
        setting("{name='mix_lora',experts=3,router={kind='bias_balanced',top_k=2,rate=0.5}}");
    let targets = "adapters.targets=['gate','up','down','q']";
    let experiment = experiment(folder.path(), &[&method, targets]);
    let out = folder.path().join("run");
    run(&experiment, &base, &out, None).expect("a run");
    let trained = Trained::open(&out, &base).expect("a finished run");
    let catalogue = &trained.learner().catalogue;
    let [gate] = catalogue.gates() else {
        panic!("one gate for all tasks");
    };
    let settings = &gate.info.router.as_ref().expect("a router").settings;
    assert_eq!(settings.name(), "bias_balanced");
    for router in &gate.routers {
        let Router::BiasBalanced(router) = router else {
            panic!("another router");
        };
        let bias: Vec<f32> = router.bias.val().into_data().iter().collect();
        assert!(bias.iter().any(|bias| *bias != 0.0), "{bias:?}");
    }
    let on_attention = catalogue
        .experts()
        .iter()
        .map(|expert| expert.layers[0].query.is_some());
    assert_eq!(on_attention.collect::<Vec<_>>(), [true, false, false]);
    // Two layers, and every text that is scored in batches of the evaluation.
    let records = trained.routings(Some(1)).expect("routings");
    assert_eq!(
        (records[0].layer, records[1].layer, records[0].experts),
        (0, 1, 3)
    );
}

#[test]
fn a_router_that_does_not_fit_is_refused_by_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    for (method, words) in [
        (
            "router={kind='expert_choice'}",
            "depends on the tokens after it",
        ),
        ("experts=2,router={kind='softmax_top_k',top_k=3}", "1 to 2"),
        (
            "router={kind='switch',top_k=1}",
            "unknown key `top_k` in [method.router]",
        ),
        ("router={kind='swich'}", "nearest: `switch`"),
        (
            "router={kind='random_routed',vocab_size=9,group_sizes=[4,4]}",
            "one group",
        ),
    ] {
        let text = "name = \"x\"\n[[tasks]]\nname = \"a\"\ntrain = \"a.jsonl\"\n";
        let sets = [setting(&format!("{{name='mix_lora',{method}}}"))];
        let refused = Experiment::parse(text, Path::new("x.toml"), &sets);
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains(words), "{refused}");
    }
    let few =
        "{name='mix_lora',experts=4,router={kind='random_routed',vocab_size=9,group_sizes=[4]}}";
    let experiment = experiment(folder.path(), &[&setting(few)]);
    let refused = run(&experiment, &base(), &folder.path().join("run"), None);
    let refused = refused.expect_err("too small a table").to_string();
    assert!(refused.contains("has 20 ids"), "{refused}");
}

#[test]
fn experts_of_other_tasks_do_not_move() {
    let base = base();
    for method in [
        "{name='per_task'}",
        "{name='o_lora'}",
        "{name='o_lora',test='own'}",
        "{name='mocl'}",
        "{name='moe_cl',experts='dedicated'}",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        write_data(folder.path());
        let (out, _) = run_of(folder.path(), &base, method);
        let after = after_each_task(&out, &base);
        assert_eq!(expert(&after[0], 0), expert(&after[2], 0), "{method}");
        assert_eq!(expert(&after[1], 1), expert(&after[2], 1), "{method}");
        assert_ne!(expert(&after[0], 1), expert(&after[1], 1), "{method}");
    }
}

#[test]
fn joint_training_learns_everything_in_the_first_stage() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let (out, result) = run_of(folder.path(), &base(), "{name='joint'}");
    let rows = &result.matrix.rows;
    assert!(rows.len() == 3 && rows[0] == rows[1] && rows[1] == rows[2]);
    assert_eq!(result.summary.bwt, Some(0.0));
    // Three tasks of twelve examples, two epochs, batches of four.
    assert_eq!(result.steps, 18);
    let log = fs::read_to_string(out.join("events.jsonl")).expect("a log");
    assert!(log.contains("\"examples\":36") && log.contains("\"examples\":0"));
}

#[test]
fn a_linear_probe_has_heads_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    let (out, _) = run_of(folder.path(), &base, "{name='linear_probe'}");
    let trained = Trained::open(&out, &base).expect("a finished run");
    assert!(trained.learner().catalogue.experts().is_empty());
    assert_eq!(trained.learner().num_params(), TASKS.len() * 16 * 2);
    let refused = std::panic::catch_unwind(|| {
        let settings = [
            "method={name='linear_probe'}",
            "training.objective=instruction",
        ];
        experiment(folder.path(), &settings)
    });
    assert!(refused.is_err());
}

#[test]
fn full_fine_tuning_moves_a_copy_and_leaves_the_base() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    let down = |decoder: &Decoder| {
        let dense = decoder.layers[1].feed_forward.dense();
        let down = &dense.expect("a dense layer").down.weight;
        down.float().expect("numbers").val()
    };
    let before = down(&base.decoder);
    let (out, _) = run_of(folder.path(), &base, "{name='sequential',weights='all'}");
    let now = down(&base.decoder);
    assert_eq!(now.into_data(), before.clone().into_data());
    let trained = Trained::open(&out, &base).expect("a finished run");
    let Some(Own::Decoder(decoder)) = &trained.learner().own else {
        panic!("its own decoder");
    };
    let moved = down(decoder);
    assert_ne!(moved.into_data(), before.into_data());
}

#[test]
fn without_an_adversary_there_is_no_discriminator_and_no_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    let (out, result) = run_of(folder.path(), &base, "{name='moe_cl',adversarial_weight=0}");
    let trained = Trained::open(&out, &base).expect("a finished run");
    assert!(trained.learner().own.is_none());
    assert_eq!(result.method_memory, 0);
    assert_eq!(result.method, "moe_cl (improved, no discriminator)");
}

#[test]
fn a_frozen_gate_moves_with_the_first_task_only() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    let (out, _) = run_of(folder.path(), &base, "{name='moe_cl',gate='frozen'}");
    let after = after_each_task(&out, &base);
    let gate = |learner: &Learner| {
        let [only] = learner.catalogue.gates() else {
            panic!("one gate");
        };
        only.layers[0].weight.val().into_data()
    };
    assert_eq!(gate(&after[0]), gate(&after[2]));
    let still = tempfile::tempdir().expect("a folder");
    write_data(still.path());
    let settings = [
        "method={name='moe_cl',gate='frozen'}",
        "training.learning_rate=1e-30",
    ];
    let out = still.path().join("run");
    run(&experiment(still.path(), &settings), &base, &out, None).expect("a run");
    let untrained = gate(Trained::open(&out, &base).expect("a run").learner());
    assert_ne!(gate(&after[0]), untrained);
}

#[test]
fn what_a_method_keeps_is_weighed() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let (_, result) = run_of(folder.path(), &base(), "{name='replay',budget=7}");
    assert!(result.method_memory > 7 * 20, "{}", result.method_memory);
    assert_eq!(result.method, "replay (7)");
}

#[test]
fn every_method_has_a_name_of_its_own_and_says_what_it_costs() {
    let all: Vec<Box<dyn Method>> = MethodConfig::all()
        .iter()
        .map(|config| method(config, 3))
        .collect();
    let mut names: Vec<String> = all.iter().map(|method| method.name()).collect();
    assert!(names.len() >= 12, "{names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|method| !method.card().source.is_empty()));
}
