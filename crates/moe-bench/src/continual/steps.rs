//! Whether a training step takes longer the more tasks there are.

use std::path::Path;

use moe_core::model::BaseDtype;
use serde::{Deserialize, Serialize};

use super::{Method, Options, Outcome, Run};
use crate::step::{Mode, Setting, times};

/// Name of the file in a method's folder.
const FILE: &str = "steps.json";

/// Steps that are timed, after one that is not.
const ROUNDS: usize = 5;

/// Time of a method's steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepTimes {
    /// The method as it was named.
    pub method: String,
    /// Microseconds per token in the runs' own steps on the first task, mean over the runs.
    pub first: Option<f64>,
    /// The same on the last.
    pub last: Option<f64>,
    /// Seconds per step on random texts.
    pub timed: Vec<Timed>,
}

/// The median of some steps with a number of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Tasks learnt so far, the one at work included.
    pub tasks: usize,
    /// Seconds.
    pub seconds: f64,
}

/// The step times of every method that is named, timing what an earlier call has not.
///
/// # Errors
/// When a figure cannot be kept. A method that is none has no times: its runs say why.
pub fn step_times(options: &Options, runs: &[Run]) -> anyhow::Result<Vec<StepTimes>> {
    let times = options.methods.iter().map(|method| {
        let name = method.to_string();
        let outcomes: Vec<&Outcome> = runs
            .iter()
            .filter(|run| run.method == name)
            .filter_map(|run| run.outcome.as_ref().ok())
            .collect();
        let of = |pick: fn(&[Option<f64>]) -> Option<f64>| {
            let values: Vec<f64> = outcomes
                .iter()
                .filter_map(|outcome| pick(&outcome.seconds_per_token))
                .collect();
            (!values.is_empty()).then(|| 1e6 * values.iter().sum::<f64>() / values.len() as f64)
        };
        Ok(StepTimes {
            first: of(|tasks| *tasks.first()?),
            last: of(|tasks| *tasks.last()?),
            timed: match outcomes.is_empty() {
                true => Vec::new(),
                false => timed(method, &options.out, &options.step_tasks)?,
            },
            method: name,
        })
    });
    times.collect()
}

fn timed(method: &Method, out: &Path, tasks: &[usize]) -> anyhow::Result<Vec<Timed>> {
    let path = out.join(method.folder()).join(FILE);
    let mut known: Vec<Timed> = std::fs::read(&path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let asked: Vec<usize> = tasks.iter().copied().filter(|&tasks| tasks > 0).collect();
    for &tasks in &asked {
        if known.iter().any(|timed| timed.tasks == tasks) {
            continue;
        }
        eprintln!("timing a step of {method} with {tasks} tasks");
        let setting = Setting {
            method: method.toml(),
            batch: 8,
            len: 96,
            layers: 30,
            rank: 8,
            dropout: 0.0,
            base_dtype: BaseDtype::F32,
            tasks,
        };
        known.push(Timed {
            tasks,
            seconds: times(&setting, Mode::Train, ROUNDS)?.median(),
        });
        moe_core::atomic::write_file(&path, &serde_json::to_vec(&known)?)?;
    }
    let find = |tasks: &usize| known.iter().find(|timed| timed.tasks == *tasks).copied();
    Ok(asked.iter().filter_map(find).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Budget, Suite};
    use super::*;

    #[test]
    fn runs_own_steps_are_averaged_and_what_was_timed_is_not_timed_again() {
        let out = tempfile::tempdir().unwrap();
        let options = Options {
            suite: Suite::Demo,
            methods: ["sequential", "no_such_method"].map(Method::from).into(),
            orders: Vec::new(),
            seeds: vec![0],
            budget: Budget::Small,
            out: out.path().into(),
            data: None,
            base: None,
            step_tasks: vec![0, 1, 32],
            set: Vec::new(),
        };
        let known = [(1, 1.5), (32, 1.6)].map(|(tasks, seconds)| Timed { tasks, seconds });
        let folder = out.path().join("sequential");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(FILE), serde_json::to_vec(&known).unwrap()).unwrap();
        let run = |seconds_per_token| Run {
            method: "sequential".into(),
            order: 1,
            seed: 0,
            outcome: Ok(Outcome {
                seconds_per_token,
                ..Outcome::default()
            }),
        };
        let runs = [
            run(vec![Some(1e-3), None, Some(2e-3)]),
            run(vec![Some(3e-3), Some(1.0), None]),
        ];
        let times = step_times(&options, &runs).unwrap();
        assert!((times[0].first.unwrap() - 2000.0).abs() < 1e-9);
        assert!((times[0].last.unwrap() - 2000.0).abs() < 1e-9);
        assert_eq!(times[0].timed, known);
        assert_eq!((times[1].first, times[1].timed.len()), (None, 0));
    }
}
