//! A run ends where it is asked to, and where its numbers make no sense; what it has learnt is kept.

use super::*;

/// Asks the run to stop at the event that it waits for.
struct AskAt(fn(&Event) -> bool);

impl Recorder for AskAt {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        match (self.0)(event) {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }
}

fn is_step(event: &Event, wanted: usize) -> bool {
    matches!(event, Event::Step { step, .. } if *step == wanted)
}

#[test]
fn a_run_that_is_asked_to_stop_loses_no_step() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    for method in ["moe_cl", "slao", "ewc", "joint"] {
        let settings = [
            &format!("method.name={method}")[..],
            "training.checkpoint_every=100",
            "adapters.dropout=0.1",
        ];
        let experiment = experiment(folder.path(), &settings);
        let whole = folder.path().join(format!("{method}-whole"));
        let result = run(&experiment, &base, &whole, None).expect("an uninterrupted run");
        let out = folder.path().join(method);
        let stopped_at = |ask: AskAt| {
            let options = RunOptions::new(out.clone(), true);
            let mut ask = ask;
            match train(&experiment, &base, &options, &mut ask) {
                Err(Error::Stopped { step }) => step,
                other => panic!("{other:?}"),
            }
        };
        let scoring = |event: &Event| matches!(event, Event::EvaluationStep { .. });
        // Before the first step, in the middle of a task, at its last step, and while it is scored.
        assert_eq!(stopped_at(AskAt(scoring)), 0);
        assert_eq!(stopped_at(AskAt(|event| is_step(event, 2))), 2);
        let newest = |step: usize| {
            let newest = checkpoints(&out).pop().expect("a checkpoint");
            assert!(newest.ends_with(format!("step-{step:08}")), "{newest:?}");
        };
        newest(2);
        assert_eq!(stopped_at(AskAt(|event| is_step(event, 6))), 6);
        newest(6);
        if method != "joint" {
            assert_eq!(stopped_at(AskAt(scoring)), 6);
            newest(6);
        }
        let resumed = run(&experiment, &base, &out, None).expect("the rest of the run");
        assert_eq!(resumed.matrix, result.matrix, "{method}");
        assert_eq!(layout(&out), layout(&whole), "{method}");
        let rows = |out: &Path| {
            let log = moe_cl::events::read_log(&out.join("events.jsonl"))
                .expect("a log")
                .lines;
            let steps = log.iter().filter_map(|line| match line.event {
                Event::Step { step, .. } => Some(step),
                _ => None,
            });
            steps.collect::<Vec<usize>>()
        };
        assert_eq!(rows(&out), rows(&whole), "{method}");
    }
}

#[test]
fn what_is_not_finite_is_named_and_the_checkpoint_before_it_stays_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    for method in ["sequential", "moe_cl"] {
        let settings = [
            &format!("method.name={method}")[..],
            "training.learning_rate=1e30",
            "training.checkpoint_every=1",
        ];
        let experiment = experiment(folder.path(), &settings);
        let out = folder.path().join(method);
        let error = run(&experiment, &base, &out, None).expect_err("divergence");
        let Error::Diverged { step, task, what } = &error else {
            panic!("{error}");
        };
        assert_eq!(task, TASKS[0]);
        let (name, norm) = what.culprit.as_ref().expect("a gradient to blame");
        assert!(!norm.is_finite() && name.contains("experts"), "{error}");
        let said = error.to_string();
        for word in [
            &format!("step {step} of task"),
            &name[..],
            "training.learning_rate",
            "training.clip_norm",
            "bf16",
        ] {
            assert!(said.contains(word), "{word} in {said}");
        }
        let newest = checkpoints(&out).pop().expect("a checkpoint");
        assert!(newest.ends_with(format!("step-{:08}", step - 1)));
        Trained::open(&newest, &base).expect("a whole checkpoint");
    }
}
