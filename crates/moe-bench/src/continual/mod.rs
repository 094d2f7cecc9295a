//! `bench continual`: methods on streams of tasks, over orders and seeds, in one table.
//!
//! Every (method, order, seed) is a run of its own, in a process of its own, below `OUT/<method>/order-N/seed-N/`. What is finished is
//! not run again, what was broken off goes on, and what fails has a line that says so.

mod ability;
mod bootstrap;
mod cell;
mod figures;
mod linear;
mod linear_runs;
mod outcome;
mod page;
mod stage;
mod steps;
mod stripping;
mod suite;
mod table;
mod train;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use moe_core::atomic;

pub use cell::{Cell, Method};
pub use outcome::{Outcome, Run};
pub use suite::{Budget, Suite};
pub use train::{child, fetch, train};

/// What is compared, and where it goes.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The stream of tasks
    #[arg(long, value_enum, default_value_t = Suite::Mtl5)]
    pub suite: Suite,
    /// Methods by their name in an experiment file; options follow after colons: moe_cl:mode=paper
    #[arg(long, value_name = "NAME[:KEY=VALUE],…", value_delimiter = ',', default_values_t = ["moe_cl", "moe_cl:mode=paper", "sequential", "per_task"].map(Method::from))]
    pub methods: Vec<Method>,
    /// Orders of the tasks [default: the suite's published ones]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub orders: Vec<usize>,
    /// Seeds of every method and order
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [0, 1, 2])]
    pub seeds: Vec<u64>,
    /// How much of the data is used
    #[arg(long, value_enum, default_value_t = Budget::Small)]
    pub budget: Budget,
    /// Directory of the runs and the table
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder with the suites' texts [default: where `moe-cl data fetch` puts them]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Base model: a path, hf:owner/name@revision or pypi:package==version#file; SmolLM2-135M-Instruct without one
    #[arg(long, value_name = "BASE")]
    pub base: Option<String>,
    /// Numbers of tasks at which a training step of each method is timed, on random texts; 0 for none
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32])]
    pub step_tasks: Vec<usize>,
    /// Change a setting of every run: training.epochs=1; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Options {
    /// Every (method, order, seed), methods slowest.
    ///
    /// # Errors
    /// When an order is not the suite's, or the same cell is named twice. A method whose settings are refused is a cell like any other:
    /// it fails when it is run.
    fn cells(&self) -> anyhow::Result<Vec<Cell>> {
        let orders = match self.orders.as_slice() {
            [] => self.suite.default_orders(),
            orders => orders.to_vec(),
        };
        for order in &orders {
            self.suite.experiment(*order, self.budget, &[])?;
        }
        let mut cells: Vec<Cell> = Vec::new();
        for method in &self.methods {
            for &order in &orders {
                for &seed in &self.seeds {
                    let cell = Cell {
                        method: method.clone(),
                        order,
                        seed,
                    };
                    ensure!(
                        cells.iter().all(|other| other.folder() != cell.folder()),
                        "{} is named twice",
                        cell.folder().display()
                    );
                    cells.push(cell);
                }
            }
        }
        ensure!(!cells.is_empty(), "no method or no seed is named");
        Ok(cells)
    }
}

/// Trains what is missing with `train` (given a cell, its resolved experiment and its folder), adds the linear baseline and writes
/// `table.md`, `table.json` and `table.html` below `options.out`. Returns the Markdown.
///
/// # Errors
/// When the options make no sense or the table cannot be written. A run that fails is no error: its line says so.
pub fn run(
    options: &Options,
    train: &mut dyn FnMut(&moe_cl::config::Experiment, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let cells = options.cells()?;
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let mut runs = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        eprintln!("[{}/{}] {cell}", index + 1, cells.len());
        runs.push(cell.run(options, train));
    }
    let steps = steps::step_times(options, &runs)?;
    runs.extend(linear_runs::runs(options, &cells));
    let table = table::Table::new(options, &runs, steps);
    let markdown = table.markdown();
    let out = &options.out;
    let write = |name: &str, text: &str| {
        let path = out.join(name);
        atomic::write_file(&path, text.as_bytes()).with_context(|| path.display().to_string())
    };
    write("table.md", &markdown)?;
    write("table.json", &serde_json::to_string_pretty(&table)?)?;
    page::write(&table, &runs, &out.join("table.html"))?;
    Ok(markdown)
}

#[cfg(test)]
mod tests {
    use moe_cl::{
        config::Experiment,
        events::{Event, JsonLog},
        metrics::AccuracyMatrix,
        probes::Ability,
        training::{RunResult, RunTimes, ScoredTexts, TextScores},
    };

    use super::{ability::Abilities, *};

    /// Leaves behind what a run that trained would: every text but the first answered rightly.
    fn pretend(experiment: &Experiment, folder: &Path) -> anyhow::Result<()> {
        use moe_cl::events::Recorder;
        let tasks: Vec<String> = experiment
            .tasks
            .iter()
            .map(|task| task.name.clone())
            .collect();
        let row = |after: usize| {
            (0..tasks.len())
                .map(|task| (task <= after).then_some(0.9))
                .collect()
        };
        let matrix = AccuracyMatrix {
            rows: (0..tasks.len()).map(row).collect(),
            baseline: vec![Some(0.5); tasks.len()],
        };
        let digits: TextScores = serde_json::from_str("\"0111111111\"")?;
        let answers = ScoredTexts {
            given: digits.clone(),
            inferred: digits,
        };
        let result = RunResult {
            name: experiment.name.clone(),
            method: moe_cl::methods::method(&experiment.method, experiment.tasks.len()).name(),
            method_memory: 0,
            seed: experiment.seed,
            summary: matrix.summary(),
            matrix,
            inferred: Vec::new(),
            metrics: vec![None; tasks.len()],
            answers: vec![answers; tasks.len()],
            steps: 1,
            real_tokens: 10,
            times: RunTimes {
                training_seconds: 1.0,
                seconds: 1.0,
                peak_memory: None,
            },
            tasks: tasks.clone(),
        };
        JsonLog::create(&folder.join("events.jsonl"))?.record(&Event::RunStarted {
            name: result.name.clone(),
            method: result.method.clone(),
            seed: result.seed,
            tasks,
            total_steps: 1,
            resumed_at: None,
        })?;
        std::fs::write(folder.join("config.toml"), experiment.to_toml())?;
        let ability = |perplexity| Ability {
            perplexity,
            everyday: 0.9,
            grammar: 0.8,
        };
        let abilities = Abilities {
            before: ability(20.0),
            tasks: vec![ability(21.0), ability(24.0)],
            unknown: None,
        };
        let path = folder.join(ability::FILE);
        std::fs::write(path, serde_json::to_vec(&abilities)?)?;
        Ok(std::fs::write(
            folder.join("result.json"),
            serde_json::to_vec(&result)?,
        )?)
    }

    fn options(out: &Path, methods: &[&str]) -> Options {
        Options {
            suite: Suite::Demo,
            methods: methods.iter().map(|method| Method::from(*method)).collect(),
            orders: vec![1, 2],
            seeds: vec![0, 1],
            budget: Budget::Small,
            out: out.into(),
            data: Some(out.join("no texts here")),
            base: None,
            step_tasks: vec![0],
            set: Vec::new(),
        }
    }

    #[test]
    fn finished_runs_are_not_run_again_and_failed_ones_are() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), &["moe_cl", "sequential"]);
        let mut trained = Vec::new();
        let mut fails = true;
        let mut train = |experiment: &Experiment, folder: &Path| {
            trained.push(folder.to_path_buf());
            if std::mem::take(&mut fails) {
                anyhow::bail!("the disk is full");
            }
            pretend(experiment, folder)
        };
        let first = run(&options, &mut train).unwrap();
        assert!(first.contains("moe_cl (1 of 4 runs failed)"), "{first}");
        assert!(first.contains("the disk is full"), "{first}");
        let second = run(&options, &mut train).unwrap();
        assert_eq!(trained.len(), 9);
        assert_eq!(trained[8], trained[0]);
        assert!(!second.contains("the disk is full"), "{second}");
    }

    #[test]
    fn no_run_is_dropped_and_identical_methods_do_not_differ() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("not there yet");
        let options = options(&out, &["no_such_method", "moe_cl", "per_task"]);
        let table = run(&options, &mut pretend).unwrap();
        // A method that nobody knows and a baseline without texts have their lines.
        assert!(
            table.contains("no_such_method (4 of 4 runs failed) | failed"),
            "{table}"
        );
        assert!(
            table.contains("linear (TF-IDF) (4 of 4 runs failed)"),
            "{table}"
        );
        assert!(
            table.contains("| moe_cl | per_task | 0.000 | [0.000, 0.000] | no | 4 |"),
            "{table}"
        );
        assert!(table.contains("| moe_cl | 0.900 ± 0.000 |"), "{table}");
        assert!(
            table.contains("| moe_cl | 20.00 ± 0.00 | 22.50 ± 0.00 | – | 0.900"),
            "perplexity before and, mean over the tasks, after: {table}"
        );
        for file in ["table.md", "table.json", "table.html"] {
            assert!(out.join(file).is_file(), "{file}");
        }
    }

    #[test]
    fn the_same_run_twice_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path(), &["moe_cl", "moe_cl"]);
        let error = run(&options, &mut pretend).unwrap_err().to_string();
        assert!(error.contains("named twice"), "{error}");
    }
}
