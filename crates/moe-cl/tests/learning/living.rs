//! Laws of a model that lives: what is learnt later is as if it had been known from the start, and nothing that is there is lost.

use std::collections::BTreeSet;

use moe_cl::{
    config::TaskConfig,
    training::{LearnOptions, Outcome, Rollback, learn},
};

use super::*;

/// Every method that does not need to know the number of tasks, and every option that changes what it keeps.
const OPEN: [&str; 19] = [
    "{name='moe_cl'}",
    "{name='moe_cl',experts='shared'}",
    "{name='moe_cl',experts='dedicated'}",
    "{name='moe_cl',gate='uniform'}",
    "{name='moe_cl',gate='frozen'}",
    "{name='moe_cl',mode='paper',adversarial_weight=0}",
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
    "{name='slao'}",
    "{name='mix_lora',experts=3}",
    "{name='mix_lora',experts=3,router={kind='bias_balanced',top_k=2,rate=0.1}}",
];

fn task(root: &Path, name: &str) -> TaskConfig {
    let mut tasks = experiment_of(root, &[name], &[]).tasks;
    let mut task = tasks.remove(0);
    task.train = root.join(task.train);
    task
}

fn learn_it(
    out: &Path,
    base: &Base,
    task: &TaskConfig,
    options: &LearnOptions,
) -> Result<Outcome, Error> {
    learn(out, base, task, options, &mut StopAt(None))
}

fn learnt(out: &Path, base: &Base, task: &TaskConfig) -> RunResult {
    match learn_it(out, base, task, &LearnOptions::default()).expect("a task learnt") {
        Outcome::Learnt(result) => *result,
        other => panic!("{other:?}"),
    }
}

/// All that a model consists of, as far as it is not of one session alone (times, and rows of tasks that were not known yet).
fn substance(out: &Path) -> String {
    let newest = checkpoints(out).pop().expect("a checkpoint");
    let state = Saved::open(&newest).expect("a whole one").state;
    let heads: Vec<_> = state
        .tasks
        .iter()
        .map(|task| (&task.experts, &task.head))
        .collect();
    format!("{:?} {heads:?} {}", state.layout, state.progress.step)
}

/// Names of the files in the folder of parts.
fn parts(out: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(out.join("parts")).expect("parts");
    files
        .map(|it| {
            it.expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// Those that some checkpoint names.
fn named_parts(out: &Path) -> BTreeSet<String> {
    let states = checkpoints(out).into_iter();
    let states = states.map(|path| Saved::open(&path).expect("a whole one").state);
    states
        .flat_map(|state| {
            let names = state.parts().map(|part| part.sha256().to_owned());
            names.collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_task_learnt_later_is_learnt_as_in_one_stream_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    let mut settings: Vec<Vec<String>> = OPEN
        .iter()
        .map(|method| vec![format!("method={method}"), "adapters.dropout=0.1".into()])
        .collect();
    settings.push(vec!["method={name='linear_probe'}".into()]);
    settings.push(vec!["training.objective=instruction".into()]);
    settings.push(vec!["method={name='a_gem',budget=5,batch_size=3}".into()]);
    for (index, settings) in settings.iter().enumerate() {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let (stream, later) = (
            root.join(format!("s{index}")),
            root.join(format!("l{index}")),
        );
        let whole = experiment(root, &settings);
        let result = run(&whole, &base, &stream, None).expect("a stream of three");
        let first = experiment_of(root, &TASKS[..1], &settings);
        run(&first, &base, &later, None).expect("a stream of one");
        learnt(&later, &base, &task(root, TASKS[1]));
        let last = learnt(&later, &base, &task(root, TASKS[2]));
        assert_eq!(substance(&later), substance(&stream), "{settings:?}");
        // What was measured in both is the same; what could not be measured is empty.
        assert_eq!(last.matrix.rows[2], result.matrix.rows[2], "{settings:?}");
        assert_eq!(last.matrix.rows[1], result.matrix.rows[1], "{settings:?}");
        assert_eq!(last.matrix.baseline.len(), 1);
        assert_eq!(last.answers, result.answers, "{settings:?}");
        assert_eq!(last.inferred.last(), result.inferred.last(), "{settings:?}");
    }
}

#[test]
fn methods_that_are_laid_out_for_a_number_of_tasks_say_why_they_learn_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    for (index, (method, why)) in [
        ("{name='joint'}", "all tasks' data at once"),
        ("{name='moe_cl',mode='paper'}", "as wide as the stream"),
    ]
    .iter()
    .enumerate()
    {
        let setting = format!("method={method}");
        let out = root.join(format!("run{index}"));
        let two = experiment_of(root, &TASKS[..2], &[&setting]);
        run(&two, &base, &out, None).expect("a stream of two");
        let before = substance(&out);
        let later = learn_it(&out, &base, &task(root, TASKS[2]), &LearnOptions::default());
        let error = later.expect_err("a sealed stream").to_string();
        assert!(error.contains(why), "{error}");
        let three = experiment(root, &[&setting]);
        let error = run(&three, &base, &out, None).expect_err("a sealed stream");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(substance(&out), before);
    }
}

#[test]
fn a_resumed_stream_may_have_more_tasks() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    let (stream, grown) = (root.join("stream"), root.join("grown"));
    run(&experiment(root, &[]), &base, &stream, None).expect("a stream of three");
    run(&experiment_of(root, &TASKS[..2], &[]), &base, &grown, None).expect("two");
    run(&experiment(root, &[]), &base, &grown, None).expect("a third");
    assert_eq!(substance(&grown), substance(&stream));
}

#[test]
fn who_is_stopped_while_learning_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    let (whole, broken) = (root.join("whole"), root.join("broken"));
    for out in [&whole, &broken] {
        run(&experiment_of(root, &TASKS[..2], &[]), &base, out, None).expect("two tasks");
    }
    let third = task(root, TASKS[2]);
    learnt(&whole, &base, &third);
    let options = LearnOptions::default();
    for stop in [13, 15, 17] {
        let stopped = learn(&broken, &base, &third, &options, &mut StopAt(Some(stop)));
        assert!(stopped.is_err());
    }
    // Nobody else gets in between, and the model is still what it was.
    let other = TaskConfig {
        name: "other".into(),
        ..third.clone()
    };
    let error = learn_it(&broken, &base, &other, &options).expect_err("another task");
    assert!(
        error
            .to_string()
            .contains("in the middle of task \"weather\""),
        "{error}"
    );
    assert_eq!(Trained::open(&broken, &base).expect("a model").learnt, 2);
    let set = LearnOptions {
        set: vec!["training.learning_rate=0.5".into()],
        ..options
    };
    let error = learn_it(&broken, &base, &third, &set).expect_err("other settings");
    assert!(
        error.to_string().contains("training.learning_rate"),
        "{error}"
    );
    learnt(&broken, &base, &third);
    assert_eq!(substance(&broken), substance(&whole));
}

#[test]
fn a_name_is_learnt_once_and_other_data_under_it_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let (base, out) = (base(), root.join("run"));
    run(&experiment_of(root, &TASKS[..2], &[]), &base, &out, None).expect("two tasks");
    let before = fs::read(out.join("result.json")).expect("a result");
    let log = fs::read(out.join("events.jsonl")).expect("a log");
    let again = learn_it(&out, &base, &task(root, TASKS[1]), &LearnOptions::default());
    assert_eq!(again.expect("nothing to do"), Outcome::Already);
    let other = TaskConfig {
        name: TASKS[1].into(),
        ..task(root, TASKS[2])
    };
    let error = learn_it(&out, &base, &other, &LearnOptions::default()).expect_err("other data");
    assert!(error.to_string().contains("other data"), "{error}");
    assert_eq!(fs::read(out.join("result.json")).expect("a result"), before);
    assert_eq!(fs::read(out.join("events.jsonl")).expect("a log"), log);
}

#[test]
fn a_task_has_settings_of_its_own_and_the_model_keeps_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let (base, out) = (base(), root.join("run"));
    run(&experiment_of(root, &TASKS[..2], &[]), &base, &out, None).expect("two tasks");
    let own = [
        "training.epochs=1",
        "adapters.rank=3",
        "adapters.alpha=9",
        "adapters.dropout=0.2",
    ];
    let options = |set: &[&str]| LearnOptions {
        set: set.iter().map(|it| (*it).to_owned()).collect(),
        ..LearnOptions::default()
    };
    learn_it(&out, &base, &task(root, TASKS[2]), &options(&own)).expect("a task learnt");
    let newest = checkpoints(&out).pop().expect("a checkpoint");
    let state = Saved::open(&newest).expect("a whole one").state;
    assert_eq!(state.tasks[2].settings.training.epochs, 1);
    assert_eq!(state.tasks[1].settings.training.epochs, 2);
    let ranks: Vec<usize> = state
        .layout
        .experts
        .iter()
        .map(|it| it.is.lora.rank)
        .collect();
    // The shared expert goes on from a copy, which has its parent's form.
    assert_eq!(ranks, [2, 2, 2, 2, 2, 3]);
    let trained = Trained::open(&out, &base).expect("a model");
    let (_, scores) = trained.evaluate(None, &mut StopAt(None)).expect("scores");
    let result: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("result.json")).expect("a result"))
            .expect("JSON");
    let last = result["matrix"]["rows"][2].clone();
    assert_eq!(serde_json::json!(scores.accuracies), last);
    let wrong = options(&["seed=3"]);
    let error = learn_it(&out, &base, &task(root, TASKS[2]), &wrong).expect_err("not a task's");
    assert!(
        error.to_string().contains("`seed` is 5 there, now 3"),
        "{error}"
    );
}

#[test]
fn a_rolled_back_model_is_what_it_was_and_learns_the_same_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let (base, out, two) = (base(), root.join("run"), root.join("two"));
    for out in [&out, &two] {
        run(&experiment_of(root, &TASKS[..2], &[]), &base, out, None).expect("two tasks");
    }
    let third = task(root, TASKS[2]);
    learnt(&out, &base, &third);
    let three = substance(&out);
    let back = Rollback::plan(&out, TASKS[1]).expect("a way back");
    assert_eq!(
        (back.lost.as_slice(), back.steps),
        (&["weather".to_owned()][..], 6)
    );
    back.apply().expect("gone back");
    assert_eq!(substance(&out), substance(&two));
    let result: RunResult =
        serde_json::from_slice(&fs::read(out.join("result.json")).expect("a result"))
            .expect("JSON");
    assert_eq!((result.tasks.len(), result.matrix.rows.len()), (2, 2));
    // No part of the third task is left.
    assert_eq!(parts(&out), named_parts(&out));
    learnt(&out, &base, &third);
    assert_eq!(substance(&out), three);
    assert!(Rollback::plan(&out, "absent").is_err());
    let first = Rollback::plan(&out, TASKS[0]).expect("a way back");
    assert_eq!(first.lost, ["sizes", "weather"]);
    first.apply().expect("gone back");
    learnt(&out, &base, &task(root, TASKS[1]));
    assert_eq!(substance(&out), substance(&two));
}

#[test]
fn a_guard_refuses_what_costs_too_much_and_leaves_the_model_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    let strong = [
        "training.epochs=30",
        "training.learning_rate=0.01",
        "adapters.rank=4",
    ];
    for (method, forgets) in [("sequential", true), ("per_task", false)] {
        let out = root.join(method);
        let method = format!("method.name={method}");
        let settings = [&strong[..], &[&method]].concat();
        run(
            &experiment_of(root, &TASKS[..2], &settings),
            &base,
            &out,
            None,
        )
        .expect("two tasks");
        let before = (
            substance(&out),
            fs::read(out.join("events.jsonl")).expect("a log"),
        );
        let guard = |most| LearnOptions {
            guard: Some(most),
            // Another question about the same words: what answers the first task is overwritten.
            set: vec!["training.learning_rate=0.1".into()],
            ..LearnOptions::default()
        };
        let mut turned = task(root, TASKS[0]);
        turned.name = "turned".into();
        turned.train = root.join("turned.jsonl");
        let rows = fs::read_to_string(root.join("colours/train.jsonl")).expect("rows");
        let rows = rows
            .replace("\"yes\"", "\"?\"")
            .replace("\"no\"", "\"yes\"");
        let rows = rows.replace("\"?\"", "\"no\"");
        fs::write(&turned.train, &rows).expect("a file");
        for file in [&mut turned.dev, &mut turned.test] {
            *file = Some(root.join("turned.jsonl"));
        }
        let strict = learn_it(&out, &base, &turned, &guard(0.0)).expect("an outcome");
        // The same texts cannot be told apart by their task: with the task inferred, something is lost by either method.
        let Outcome::Refused(refusal) = strict else {
            panic!("{strict:?}");
        };
        assert!(refusal.lost > 0.0, "{refusal:?}");
        assert!(refusal.inferred || forgets, "{refusal:?}");
        let after = (
            substance(&out),
            fs::read(out.join("events.jsonl")).expect("a log"),
        );
        assert_eq!(after.0, before.0);
        assert!(!String::from_utf8_lossy(&after.1).contains("turned"));
        let loose = learn_it(&out, &base, &turned, &guard(1.0)).expect("an outcome");
        assert!(matches!(loose, Outcome::Learnt(_)), "{loose:?}");
    }
}

#[test]
fn a_guard_needs_the_dev_parts_of_earlier_tasks() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let (base, out) = (base(), root.join("run"));
    let mut two = experiment_of(root, &TASKS[..2], &[]);
    two.tasks[1].dev = None;
    run(&two, &base, &out, None).expect("two tasks");
    let guarded = LearnOptions {
        guard: Some(0.1),
        ..LearnOptions::default()
    };
    let error = learn_it(&out, &base, &task(root, TASKS[2]), &guarded).expect_err("no dev part");
    assert!(error.to_string().contains("'sizes'"), "{error}");
}

#[test]
fn files_of_tasks_that_are_left_to_learn_may_have_moved() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    write_data(&old);
    let (base, out) = (base(), folder.path().join("out"));
    run(&experiment(&old, &[]), &base, &out, Some(5)).expect_err("stopped");
    fs::rename(&old, &new).expect("moved");
    run(&experiment(&new, &[]), &base, &out, None).expect("it goes on");
    let whole = folder.path().join("whole");
    run(&experiment(&new, &[]), &base, &whole, None).expect("a run");
    assert!(weights(&whole, &base) == weights(&out, &base));
}

#[test]
fn another_base_is_refused_and_a_moved_directory_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let (base, out) = (base(), root.join("run"));
    let two = experiment_of(root, &TASKS[..2], &[]);
    run(&two, &base, &out, None).expect("two tasks");
    let other = base_of(4);
    let third = task(root, TASKS[2]);
    let errors = [
        Trained::open(&out, &other).err().expect("another base"),
        run(&two, &other, &out, None).expect_err("another base"),
        learn_it(&out, &other, &third, &LearnOptions::default()).expect_err("another base"),
    ];
    for error in errors {
        assert!(matches!(error, Error::AnotherBase { .. }), "{error}");
    }
    let moved = root.join("moved");
    fs::rename(&out, &moved).expect("moved");
    for split in ["train", "dev", "test"] {
        fs::remove_file(root.join(format!("colours/{split}.jsonl"))).expect("gone");
    }
    let trained = Trained::open(&moved, &base).expect("a model");
    let (_, scores) = trained.evaluate(None, &mut StopAt(None)).expect("scores");
    assert!(scores.accuracies.iter().all(Option::is_some));
    learnt(&moved, &base, &third);
}

#[test]
fn a_finished_run_is_left_as_it_is_and_changed_data_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let (base, out) = (base(), root.join("run"));
    let all = experiment(root, &[]);
    let result = run(&all, &base, &out, None).expect("a run");
    let files = ["result.json", "events.jsonl", "config.toml"];
    let read = || files.map(|file| fs::read(out.join(file)).expect("a file"));
    let before = read();
    assert_eq!(run(&all, &base, &out, None).expect("nothing to do"), result);
    // Where it is computed, and how often it is saved, are free.
    let elsewhere = ["evaluation.batch_size=3", "training.checkpoint_every=7"];
    run(&experiment(root, &elsewhere), &base, &out, None).expect("nothing to do");
    assert!(read() == before);
    let train = root.join("colours/train.jsonl");
    let rows = fs::read_to_string(&train).expect("rows");
    fs::write(&train, rows.replace("red", "blue")).expect("other rows");
    let error = run(&all, &base, &out, None).expect_err("other data");
    assert!(error.to_string().contains("colours"), "{error}");
    fs::write(&train, rows).expect("the rows");
    fs::remove_file(out.join("config.toml")).expect("gone");
    let error = run(&all, &base, &out, None).expect_err("no settings");
    assert!(error.to_string().contains("config.toml"), "{error}");
}

#[test]
fn only_so_many_tasks_are_kept_to_go_back_to_and_nothing_else_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let (base, out) = (base(), root.join("run"));
    let settings = ["training.keep=2", "method.name=sequential"];
    run(&experiment(root, &settings), &base, &out, None).expect("a run");
    let kept: Vec<usize> = checkpoints(&out)
        .iter()
        .map(|path| Saved::open(path).expect("whole").state)
        .filter(|state| state.is_between_tasks())
        .map(|state| state.progress.task)
        .collect();
    assert_eq!(kept, [2, 3]);
    let error = Rollback::plan(&out, TASKS[0]).expect_err("not kept");
    assert!(error.to_string().contains("training.keep"), "{error}");
    assert_eq!(parts(&out), named_parts(&out));
}

#[test]
fn evaluation_costs_what_it_is_allowed_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    let rows = |name: &str, settings: &[&str]| {
        let out = root.join(name);
        let result = run(&experiment(root, settings), &base, &out, None).expect("a run");
        let measured = |row: &Vec<Option<f64>>| row.iter().map(Option::is_some).collect();
        result
            .matrix
            .rows
            .iter()
            .map(measured)
            .collect::<Vec<Vec<bool>>>()
    };
    let sequential = "method.name=sequential";
    let seldom = rows("every", &[sequential, "evaluation.every=5"]);
    assert_eq!(seldom[0], [true, false, false]);
    assert_eq!(seldom[1], [false, true, false]);
    assert_eq!(seldom[2], [true, true, true]);
    let few = rows("tasks", &[sequential, "evaluation.tasks=1"]);
    let counts: Vec<usize> = few
        .iter()
        .map(|row| row.iter().filter(|it| **it).count())
        .collect();
    assert_eq!(counts, [2, 2, 2]);
}

#[test]
fn two_writers_do_not_meet() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let (base, out) = (base(), root.join("run"));
    let all = experiment(root, &[]);
    run(&all, &base, &out, None).expect("a run");
    let lock = moe_cl::directory::Lock::take(&out).expect("the lock");
    let error = run(&all, &base, &out, None).expect_err("locked");
    assert!(
        error.to_string().contains("is being written by process"),
        "{error}"
    );
    let error = Rollback::plan(&out, TASKS[0]).and_then(Rollback::apply);
    assert!(error.is_err());
    Trained::open(&out, &base).expect("readers take no lock");
    drop(lock);
    run(&all, &base, &out, None).expect("unlocked");
}
