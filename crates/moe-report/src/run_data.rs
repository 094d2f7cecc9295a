//! A run as reports see it, read back from its directory.

use std::{collections::BTreeMap, fs, io, path::Path};

use moe_cl::{
    directory::newest_saved,
    events::{Event, LayerBalance, Logged, read_log},
    metrics::{AccuracyMatrix, Inferred},
};

/// What a run's log and configuration tell.
#[derive(Clone, Debug, Default)]
pub struct RunData {
    /// Name of the experiment.
    pub name: String,
    /// Method and mode, as shown.
    pub method: String,
    /// Seed of every random draw.
    pub seed: u64,
    /// Task names in the order in which they arrive.
    pub tasks: Vec<String>,
    /// Optimiser steps of the whole run, as far as it is known: more where the run goes on with further tasks.
    pub total_steps: usize,
    /// Training of each task begun so far, in order.
    pub spans: Vec<TaskSpan>,
    /// Optimiser steps done, in order.
    pub steps: Vec<StepPoint>,
    /// Scores so far.
    pub matrix: AccuracyMatrix,
    /// Scores with the task inferred, by index of the task after which they were measured.
    pub inferred: BTreeMap<usize, Inferred>,
    /// Figures of the adapted layers by name, then by index of the task after which they were measured.
    pub layer_figures: BTreeMap<String, BTreeMap<usize, Vec<f64>>>,
    /// Index of the lowest adapted layer in the decoder.
    pub first_layer: usize,
    /// How tokens were spread over the experts of a sparse base, by the optimiser step that was looked at.
    pub balance_of_steps: BTreeMap<usize, Vec<LayerBalance>>,
    /// The same of the scored texts, by index of the task, as they were scored last.
    pub balance_of_tasks: BTreeMap<usize, Vec<LayerBalance>>,
    /// Warnings in the order in which they came, each text once.
    pub warnings: Vec<String>,
    /// What is damaged and was passed over; it is among the warnings too.
    pub passed_over: Vec<String>,
    /// Whether the run came to its end.
    pub finished: bool,
    /// Wall-clock seconds, summed over the parts of a run that was stopped and resumed.
    pub seconds: f64,
    /// Largest resident memory of the process in bytes.
    pub peak_memory: Option<u64>,
    /// The configuration, as written into the run directory; empty where there is none.
    pub config: toml::Table,
}

/// The training of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSpan {
    /// Index of the task.
    pub task: usize,
    /// Training examples.
    pub examples: usize,
    /// Optimiser steps that the task takes.
    pub steps: usize,
    /// Parameters that move during this task.
    pub trainable: u64,
}

/// One optimiser step; the fields are those of [`Event::Step`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct StepPoint {
    pub task: usize,
    pub step: usize,
    pub loss: f64,
    pub figures: BTreeMap<String, f64>,
    pub real_tokens: usize,
    pub seconds: f64,
}

impl RunData {
    /// Reads `events.jsonl` of a run directory, and its settings: from the newest checkpoint, which is known to be whole, and before
    /// there is one from `config.toml`, where that is there.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or the log does not begin a run.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let saved = newest_saved(directory, |_| true).ok().flatten();
        let (text, passed_over) = match saved {
            Some(saved) => (saved.state.whole_experiment().to_toml(), saved.passed_over),
            None => (written_config(directory)?, Vec::new()),
        };
        let config = text
            .parse()
            .map_err(|error| invalid(&directory.join("config.toml"), &error))?;
        let path = directory.join("events.jsonl");
        let log = read_log(&path)?;
        let run = Self::from_log(&log.lines, config).map(|mut run| {
            run.passed_over = log.passed_over.into_iter().chain(passed_over).collect();
            run.warnings.extend(run.passed_over.iter().cloned());
            run
        });
        run.ok_or_else(|| {
            invalid(
                &path,
                &"no run was started here; give a directory below runs/",
            )
        })
    }

    /// Reads a run from its log; none where it does not begin one.
    pub fn from_log(log: &[Logged], config: toml::Table) -> Option<Self> {
        let mut run = Self {
            config,
            ..Self::default()
        };
        let mut part = None; // begin and end of the part of the run that is being read
        for Logged { time, event } in log {
            if matches!(event, Event::RunStarted { .. }) {
                run.close_part(part.replace((*time, *time)));
            }
            part = part.map(|(begin, _)| (begin, *time));
            run.take(event);
        }
        part?;
        run.close_part(part);
        Some(run)
    }

    fn close_part(&mut self, part: Option<(f64, f64)>) {
        self.seconds += part.map_or(0.0, |(begin, end)| (end - begin).max(0.0));
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::RunStarted {
                name,
                method,
                seed,
                tasks,
                total_steps,
                ..
            } => {
                self.name.clone_from(name);
                self.method.clone_from(method);
                self.seed = *seed;
                self.tasks.clone_from(tasks);
                self.total_steps = *total_steps;
                self.finished = false;
            }
            Event::TaskStarted {
                task,
                examples,
                steps,
                trainable,
                ..
            } => {
                self.spans.retain(|span| span.task != *task);
                let (task, examples, steps, trainable) = (*task, *examples, *steps, *trainable);
                self.spans.push(TaskSpan {
                    task,
                    examples,
                    steps,
                    trainable,
                });
            }
            Event::Step {
                task,
                step,
                loss,
                figures,
                real_tokens,
                balance,
                seconds,
                ..
            } => {
                if !balance.is_empty() {
                    self.balance_of_steps.insert(*step, balance.clone());
                }
                self.steps.push(StepPoint {
                    task: *task,
                    step: *step,
                    loss: *loss,
                    figures: figures.clone(),
                    real_tokens: *real_tokens,
                    seconds: *seconds,
                });
            }
            // Scores after more tasks than there are would make room for as many.
            Event::Evaluated { after, .. } | Event::Inferred { after, .. }
                if *after > self.tasks.len() =>
            {
                let count = self.tasks.len();
                self.warnings.push(format!(
                    "scores after {after} tasks are left out: the log speaks of {count}"
                ));
            }
            Event::Evaluated { after, scores, .. } => self.matrix.merge(*after, scores),
            Event::Inferred { after, scores } => {
                self.inferred
                    .insert(after.saturating_sub(1), scores.clone());
            }
            Event::LayerFigures {
                task,
                name,
                first,
                layers,
            } => {
                self.first_layer = *first;
                let of_tasks = self.layer_figures.entry(name.clone()).or_default();
                of_tasks.insert(*task, layers.clone());
            }
            Event::Balance { task, layers, .. } => {
                self.balance_of_tasks.insert(*task, layers.clone());
            }
            Event::Warning { message } => {
                if !self.warnings.contains(message) {
                    self.warnings.push(message.clone());
                }
            }
            Event::RunFinished { peak_memory, .. } => {
                self.finished = true;
                self.peak_memory = self.peak_memory.max(*peak_memory);
            }
            Event::EvaluationStarted { .. }
            | Event::EvaluationStep { .. }
            | Event::CheckpointSaved { .. } => {}
        }
    }

    /// Accuracy on `task` after `after` tasks, 0 being the untrained model.
    pub fn score(&self, after: usize, task: usize) -> Option<f64> {
        *self.matrix.after(after).get(task)?
    }

    /// Scores with the task inferred after the last task learnt; none where they were not measured.
    pub fn last_inferred(&self) -> Option<&Inferred> {
        self.inferred.get(&self.matrix.learnt().checked_sub(1)?)
    }

    /// Real (not padding) tokens trained on per second of optimiser steps.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds: f64 = self.steps.iter().map(|step| step.seconds).sum();
        let tokens: usize = self.steps.iter().map(|step| step.real_tokens).sum();
        (seconds > 0.0).then(|| tokens as f64 / seconds)
    }

    /// Settings as `section.key` → value, in the order of the file; sequences of tables (the tasks) are left out.
    pub fn settings(&self) -> Vec<(String, String)> {
        fn walk(prefix: &str, table: &toml::Table, settings: &mut Vec<(String, String)>) {
            for (key, value) in table {
                let name = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                match value {
                    toml::Value::Table(table) => walk(&name, table, settings),
                    toml::Value::Array(values) if values.iter().any(toml::Value::is_table) => {}
                    toml::Value::String(text) => settings.push((name, text.clone())),
                    value => settings.push((name, value.to_string())),
                }
            }
        }
        let mut settings = Vec::new();
        walk("", &self.config, &mut settings);
        settings
    }
}

/// What `config.toml` says; nothing where it is not there.
fn written_config(directory: &Path) -> io::Result<String> {
    let path = directory.join("config.toml");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(invalid(&path, &error)),
    }
}

fn invalid(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: f64, event: Event) -> Logged {
        Logged { time, event }
    }

    fn started(resumed_at: Option<usize>) -> Event {
        let (name, method, tasks) = ("x".into(), "m".into(), vec!["a".into(), "b".into()]);
        Event::RunStarted {
            name,
            method,
            seed: 3,
            tasks,
            total_steps: 4,
            resumed_at,
        }
    }

    #[test]
    fn the_wall_clock_stands_still_between_a_stop_and_the_resumption() {
        let log = [
            at(100.0, started(None)),
            at(110.0, Event::CheckpointSaved { step: 2, after: 0 }),
            at(500.0, started(Some(2))),
            at(503.0, Event::CheckpointSaved { step: 4, after: 0 }),
        ];
        assert_eq!(
            RunData::from_log(&log, toml::Table::new()).unwrap().seconds,
            13.0
        );
    }

    #[test]
    fn rows_of_the_matrix_find_their_place() {
        let scores = |a, b| vec![Some(a), Some(b)];
        let row = |after, scores| Event::Evaluated {
            after,
            scores,
            examples_per_second: 1.0,
        };
        let log = [
            at(0.0, started(None)),
            at(1.0, row(0, scores(0.5, 0.4))),
            at(2.0, row(2, scores(0.8, 0.9))),
        ];
        let run = RunData::from_log(&log, toml::Table::new()).unwrap();
        assert_eq!(run.score(0, 1), Some(0.4));
        assert_eq!(run.score(1, 0), None);
        assert_eq!(run.score(2, 1), Some(0.9));
    }

    #[test]
    fn a_run_that_goes_on_with_more_tasks_is_one_run() {
        let start = |tasks: &[&str], total_steps| Event::RunStarted {
            name: "x".into(),
            method: "m".into(),
            seed: 3,
            tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
            total_steps,
            resumed_at: None,
        };
        let row = |after, scores: &[Option<f64>]| Event::Evaluated {
            after,
            scores: scores.to_vec(),
            examples_per_second: 1.0,
        };
        let log = [
            start(&["a"], 2),
            row(0, &[Some(0.5)]),
            row(1, &[Some(0.9)]),
            start(&["a", "b"], 4),
            row(0, &[None, Some(0.4)]),
            row(1, &[None, Some(0.3)]),
            row(2, &[Some(0.8), Some(0.7)]),
        ];
        let log: Vec<Logged> = log.into_iter().map(|event| at(0.0, event)).collect();
        let run = RunData::from_log(&log, toml::Table::new()).unwrap();
        assert_eq!((run.tasks.len(), run.total_steps), (2, 4));
        assert_eq!((run.score(1, 0), run.score(1, 1)), (Some(0.9), Some(0.3)));
        assert_eq!(run.matrix.summary().over.fwt.to_string(), "over 1 of 1");
    }

    #[test]
    fn settings_are_named_by_section_and_key() {
        let config = "seed = 1\n[method]\nname = \"moe_cl\"\n[[tasks]]\nname = \"a\"\n"
            .parse()
            .unwrap();
        let run = RunData {
            config,
            ..RunData::default()
        };
        let expected = [("seed", "1"), ("method.name", "moe_cl")];
        let mut settings = run.settings();
        settings.sort_by_key(|(key, _)| key != "seed");
        assert_eq!(
            settings,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn scores_after_tasks_that_are_not_there_are_left_out_and_said() {
        let log = [
            at(0.0, started(None)),
            at(
                1.0,
                Event::Evaluated {
                    after: 1 << 40,
                    scores: vec![Some(0.5)],
                    examples_per_second: 1.0,
                },
            ),
        ];
        let run = RunData::from_log(&log, toml::Table::new()).unwrap();
        assert!(run.matrix.rows.is_empty());
        assert!(run.warnings[0].contains("the log speaks of 2"));
    }
}
