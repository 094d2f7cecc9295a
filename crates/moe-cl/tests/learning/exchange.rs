//! Laws of experts that leave a model and enter it.

use moe_cl::{
    config::TaskConfig,
    training::{ExportOptions, Exported, LearnOptions, Made, Which, import, learn, remove},
};

use super::*;

const ANY_GAP: ExportOptions = ExportOptions {
    max_gap: 1.0,
    merged: false,
};

fn export(out: &Path, base: &Base, task: usize, to: &Path) -> Result<Exported, Error> {
    let trained = Trained::open(out, base).expect("a model");
    trained.export(task, to, &ANY_GAP, &mut StopAt(None))
}

fn as_task(name: &str, test: Option<PathBuf>) -> TaskConfig {
    TaskConfig {
        name: name.into(),
        train: "adapter".into(),
        dev: None,
        test,
        labels: None,
        instruction: None,
        objective: None,
        metric: None,
    }
}

/// Log-probabilities of three answers to two prompts, by the experts of a task.
fn answers(out: &Path, base: &Base, task: &str) -> Vec<f32> {
    let trained = Trained::open(out, base).expect("a model");
    let task = trained.task(task).expect("the task");
    let model: TaskModel<'_> = trained.model(task, false);
    let scores = label_scores(
        &model,
        &[vec![8, 2], vec![9, 13, 5]],
        &[vec![14], vec![15, 1], vec![3]],
        0,
    );
    scores.into_data().iter::<f32>().collect()
}

fn state(out: &Path) -> moe_cl::directory::State {
    let newest = checkpoints(out).pop().expect("a checkpoint");
    Saved::open(&newest).expect("a whole one").state
}

#[test]
fn an_expert_that_leaves_and_enters_answers_the_same_bit_for_bit_and_stays_while_more_is_learnt() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    for method in ["per_task", "o_lora", "mocl", "moe_cl"] {
        let name = format!("method.name={method}");
        let settings = [&name[..], "training.objective=instruction"];
        let out = root.join(method);
        run(
            &experiment_of(root, &TASKS[..2], &settings),
            &base,
            &out,
            None,
        )
        .expect("a run");
        let to = root.join(format!("{method}-adapter"));
        let first = state(&out).layout.experts[0].is.id;
        export(&out, &base, 0, &to).expect("an adapter");

        let before = state(&out);
        let test = root.join("colours/test.jsonl");
        let task = as_task("again", Some(test));
        let imported = import(&out, &base, &to, Some(&task), false).expect("an expert");
        assert_eq!(
            (imported.rows, imported.expert),
            (6, before.layout.next.expert)
        );
        let waiting = import(&out, &base, &to, None, false).expect("another");
        let now = state(&out);
        assert_eq!(now.tasks, before.tasks);
        assert_eq!(
            now.layout.experts[..before.layout.experts.len()],
            before.layout.experts
        );
        assert_eq!(now.layout.experts.len(), before.layout.experts.len() + 2);
        let alone = answers(&out, &base, "again");
        if method == "per_task" {
            assert_eq!(alone, answers(&out, &base, "colours"));
            // Its part is that of the expert that it was, by content.
            let [was, is] = [first, imported.expert].map(|id| {
                let mut all = now.layout.experts.iter();
                all.find(|it| it.is.id == id).expect("there").part.clone()
            });
            assert_eq!(was, is);
        }

        // It is scored, by its name and among all.
        let trained = Trained::open(&out, &base).expect("a model");
        let index = trained.task("again").expect("the task");
        assert!(trained.is_imported(index) && trained.answers(index));
        let (tasks, scores) = trained.evaluate(None, &mut StopAt(None)).expect("scores");
        assert!(scores.accuracies[index].is_some());
        if method == "per_task" {
            assert_eq!(scores.accuracies[index], scores.accuracies[0]);
        }
        let inferred = trained.evaluate_inferred(&tasks, &scores).expect("scores");
        assert_eq!(inferred.expect("learnt tasks").confusion.len(), 2);

        // What is learnt later takes it along, and learns what it would have learnt without it.
        let whole = root.join(format!("{method}-whole"));
        let config = experiment_of(root, &TASKS, &settings);
        run(&config, &base, &whole, None).expect("a run");
        let third = {
            let mut task = experiment_of(root, &TASKS[2..], &[]).tasks.remove(0);
            task.train = root.join(task.train);
            task
        };
        let options = LearnOptions::default();
        learn(&out, &base, &third, &options, &mut StopAt(None)).expect("a task learnt");
        assert_eq!(answers(&out, &base, "again"), alone, "{method}");
        for task in TASKS {
            assert_eq!(
                answers(&out, &base, task),
                answers(&whole, &base, task),
                "{method}: {task}"
            );
        }
        assert_eq!(state(&out).imported, now.imported);

        // Names are taken once, and what was learnt stays.
        for taken in ["again", "colours"] {
            let error = import(&out, &base, &to, Some(&as_task(taken, None)), false);
            assert!(matches!(error, Err(Error::NameTaken { .. })), "{error:?}");
        }
        let error = learn(
            &out,
            &base,
            &as_task("again", None),
            &options,
            &mut StopAt(None),
        );
        assert!(matches!(error, Err(Error::NameTaken { .. })), "{error:?}");
        for which in [
            Which::Expert(first.0),
            Which::OfTask("colours".into()),
            Which::Expert(99),
        ] {
            assert!(remove(&out, &which).is_err(), "{which:?}");
        }
        remove(&out, &Which::OfTask("again".into())).expect("removed");
        remove(&out, &Which::Expert(waiting.expert.0)).expect("removed");
        let after = state(&out);
        assert!(after.imported.is_empty());
        assert!(
            after
                .layout
                .experts
                .iter()
                .all(|it| it.is.origin.imported.is_none())
        );
        assert!(
            after.layout.next.expert.0 > waiting.expert.0,
            "its id is not given again"
        );
        for task in TASKS {
            assert_eq!(answers(&out, &base, task), answers(&whole, &base, task));
        }
    }
}

#[test]
fn one_adapter_for_a_mixture_is_measured_and_refused_above_the_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    for (method, objective, made) in [
        ("{name='moe_cl'}", "heads", None),
        ("{name='moe_cl',gate='uniform'}", "instruction", None),
        ("{name='mocl'}", "heads", None),
        ("{name='o_lora'}", "instruction", Some(Made::Summed)),
        ("{name='slao'}", "heads", Some(Made::Alone)),
        ("{name='sequential'}", "instruction", Some(Made::Alone)),
    ] {
        let out = root.join(format!(
            "run-{}",
            fs::read_dir(root).expect("a folder").count()
        ));
        let settings = [
            format!("method={method}"),
            format!("training.objective={objective}"),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        run(
            &experiment_of(root, &TASKS[..2], &settings),
            &base,
            &out,
            None,
        )
        .expect("a run");
        let to = out.join("adapter");
        let trained = Trained::open(&out, &base).expect("a model");
        let none = ExportOptions {
            max_gap: -1.0,
            merged: false,
        };
        let refused = trained.export(1, &to, &none, &mut StopAt(None));
        match made {
            Some(made) => {
                let exported = refused.expect("what is exact has no gap");
                assert_eq!((exported.made, exported.gap), (made, None), "{method}");
            }
            None => {
                let error = refused.expect_err("any gap is too large").to_string();
                assert!(
                    error.contains("--max-gap") && error.contains("logits differ"),
                    "{error}"
                );
                assert!(!to.exists());
                let exported = trained
                    .export(1, &to, &ANY_GAP, &mut StopAt(None))
                    .expect("an adapter");
                let gap = exported.gap.expect("a gap");
                assert_eq!(gap.texts, 6);
                assert!(gap.mean > 0.0 && gap.largest >= gap.mean, "{gap:?}");
            }
        }
        assert_eq!(to.join("head.safetensors").exists(), objective == "heads");
        let error = export(&out, &base, 0, &to)
            .expect_err("it is there")
            .to_string();
        assert!(error.contains("exists already"), "{error}");
    }
}

#[test]
fn what_cannot_leave_or_enter_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write_data(root);
    let base = base();
    let lone = root.join("lone");
    run(
        &experiment_of(root, &TASKS[..1], &["method.name=per_task"]),
        &base,
        &lone,
        None,
    )
    .expect("a run");
    let adapter = root.join("adapter");
    export(&lone, &base, 0, &adapter).expect("an adapter");

    // A base that was trained whole is no adapter, and takes none.
    let whole = root.join("whole");
    let settings = ["method={name='sequential',weights='all'}"];
    run(
        &experiment_of(root, &TASKS[..1], &settings),
        &base,
        &whole,
        None,
    )
    .expect("a run");
    let error = export(&whole, &base, 0, &root.join("x"))
        .expect_err("no adapter")
        .to_string();
    assert!(error.contains("--merged"), "{error}");
    let error = import(&whole, &base, &adapter, None, false)
        .expect_err("no experts")
        .to_string();
    assert!(error.contains("method without experts"), "{error}");

    // Another base, other layers, the middle of a task.
    let error = import(&lone, &base_of(4), &adapter, None, false);
    assert!(matches!(error, Err(Error::AnotherBase { .. })));
    let upper = root.join("upper");
    let settings = ["method.name=per_task", "adapters.layers=last:1"];
    run(
        &experiment_of(root, &TASKS[..1], &settings),
        &base,
        &upper,
        None,
    )
    .expect("a run");
    let error = import(&upper, &base, &adapter, None, false)
        .expect_err("other layers")
        .to_string();
    assert!(
        error.contains("layer 0") && error.contains("adapters.layers"),
        "{error}"
    );
    let broken = root.join("broken");
    assert!(
        run(
            &experiment(root, &["method.name=per_task"]),
            &base,
            &broken,
            Some(4)
        )
        .is_err()
    );
    let error = import(&broken, &base, &adapter, None, false)
        .expect_err("in the middle")
        .to_string();
    assert!(
        error.contains("in the middle of task \"colours\""),
        "{error}"
    );

    // One that nothing asks for costs nothing: the stream goes on as if it were not there.
    let begun = root.join("begun");
    let two = experiment_of(root, &TASKS[..2], &["method.name=per_task"]);
    let one = experiment_of(root, &TASKS[..1], &["method.name=per_task"]);
    run(&one, &base, &begun, None).expect("a run");
    import(&begun, &base, &adapter, Some(&as_task("free", None)), false).expect("an expert");
    let result = run(&two, &base, &begun, None).expect("the rest");
    assert_eq!(result.tasks, TASKS[..2]);
    let straight = root.join("straight");
    let want = run(&two, &base, &straight, None).expect("a run");
    assert_eq!(result.matrix.rows, want.matrix.rows);
    let mut clash = two.clone();
    clash.tasks.push(as_task("free", None));
    assert!(run(&clash, &base, &begun, None).is_err());
    let free = Trained::open(&begun, &base).expect("a model");
    assert!(free.is_imported(free.task("free").expect("it stays")));
}
