//! The data of one task: its labels and the records that are used of its three files.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
};

use burn_dataset::{Dataset, InMemDataset, transform::SelectionDataset};
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use super::{
    DataError, Form, Record, Row, odd, read,
    rows::{check_labels, read_with_keys},
    split::held_out,
};
use crate::{
    config::{Experiment, Objective, Split, TaskConfig},
    directory::{TaskSettings, TaskState},
    metrics::TextMetric,
    seeds::{Purpose, Seeds},
};

/// The records that are used of a file, in the order in which they are used.
pub type Records = SelectionDataset<InMemDataset<Row>, Row>;

/// The data of one task of the stream.
pub struct TaskData {
    /// Its name.
    pub name: String,
    /// Names of its labels; a label's index is its class. Empty where answers are free text.
    pub labels: Vec<String>,
    /// What is asked about each text, where the experiment says it.
    pub instruction: Option<String>,
    /// What its records are.
    pub form: Form,
    /// Tokens of its longest answer ([`Encoder::longest_answer`](super::Encoder::longest_answer)), once they are counted.
    pub room: usize,
    /// How answers in free text are scored; none where it has labels.
    pub metric: Option<TextMetric>,
    /// Records to learn from: all, or the first `data.train_examples` after a seeded shuffle.
    pub train: Records,
    /// Records to choose settings on: all, or the first `data.dev_examples`; empty where the task names no file.
    pub dev: Records,
    /// Records to report on: all, or the first `data.test_examples`; empty where the task names no file.
    pub test: Records,
    /// The training file, as it was named.
    pub train_file: PathBuf,
    /// What the user should know and that does not stop the run.
    pub warnings: Vec<String>,
}

impl TaskData {
    /// Reads task `index` of the experiment.
    ///
    /// Labels that the experiment does not declare are those of the whole training file, sorted.
    ///
    /// # Errors
    /// A file or record that is refused, a label of dev or test that training does not know, a task that has fewer than
    /// two labels to choose from, or records without labels where heads are trained.
    ///
    /// # Panics
    /// When the experiment has no task `index`.
    pub fn load(experiment: &Experiment, index: usize) -> Result<Self, DataError> {
        let config = &experiment.tasks[index];
        let settings = TaskSettings::of(experiment, config);
        let split = experiment.evaluation.split;
        Self::load_task(config, &settings, split, experiment.seed, index)
    }

    /// As [`Self::load`], for a task of its own settings that is the `index`-th to be learnt in a run of that `seed`. Where the part that
    /// is `scored` has no file, a tenth of the training records is kept out for it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_task(
        config: &TaskConfig,
        settings: &TaskSettings,
        scored: Split,
        seed: u64,
        index: usize,
    ) -> Result<Self, DataError> {
        let (data, objective) = (&settings.data, settings.training.objective);
        let train_path = data.root.join(&config.train);
        let (mut train, keys) = read_with_keys(&train_path, config.labels.as_deref())?;
        let labels = config
            .labels
            .clone()
            .unwrap_or_else(|| collect_labels(&train));
        let mut task = Self {
            name: config.name.clone(),
            labels,
            instruction: config.instruction.clone(),
            form: form(&train),
            room: 0,
            metric: None,
            train: select(Vec::new(), Vec::new()),
            dev: select(Vec::new(), Vec::new()),
            test: select(Vec::new(), Vec::new()),
            train_file: train_path.clone(),
            warnings: Vec::new(),
        };
        task.check(&train, objective)?;
        task.metric = task.metric_of(config, &train)?;

        task.warnings.extend(odd::passed_over(&train_path, &keys));
        if let Some((one, other)) = odd::alike(&task.labels) {
            task.warn(format!(
                "the labels {one:?} and {other:?} look alike; are they one? `labels = [...]` of the task says which there are"
            ));
        }
        let (name, file, limit) = match scored {
            Split::Dev => ("dev", &config.dev, data.dev_examples),
            Split::Test => ("test", &config.test, data.test_examples),
        };
        if file.is_none() {
            let mut rng = Seeds(seed).rng(Purpose::Split, index, 0);
            let rows = held_out(&mut train, &mut rng);
            task.warn(format!(
                "no `{name}` is named: {} of the {} records of {} are kept out of training and scored",
                rows.len(),
                rows.len() + train.len(),
                train_path.display()
            ));
            let count = task.limit(name, rows.len(), limit);
            *task.part(scored) = select(rows, (0..count).collect());
        }

        let trained_on: HashSet<Record> = train.iter().map(|row| row.record.clone()).collect();
        for (split, name, file, limit) in [
            (Split::Dev, "dev", &config.dev, data.dev_examples),
            (Split::Test, "test", &config.test, data.test_examples),
        ] {
            let Some(file) = file else { continue };
            let path = data.root.join(file);
            let rows = read(&path, None)?;
            task.check(&rows, objective)?;
            let count = task.limit(name, rows.len(), limit);
            let known = rows[..count]
                .iter()
                .filter(|row| trained_on.contains(&row.record))
                .count();
            if known > 0 {
                task.warn(format!(
                    "{known} of the {count} {name} records are also in the training file"
                ));
            }
            if let Some(message) = odd::missing(&task.labels, &rows[..count]) {
                task.warn(format!("the {count} {name} records {message}"));
            }
            *task.part(split) = select(rows, (0..count).collect());
        }

        let mut order: Vec<usize> = (0..train.len()).collect();
        order.shuffle(&mut Seeds(seed).rng(Purpose::Selection, index, 0));
        order.truncate(task.limit("training", train.len(), data.train_examples));
        let used: HashSet<&str> = order.iter().map(|&i| train[i].record.answer()).collect();
        for label in task
            .labels
            .clone()
            .iter()
            .filter(|label| !used.contains(label.as_str()))
        {
            task.warn(format!(
                "no example of the label `{label}` among the {} that are trained on",
                order.len()
            ));
        }
        task.train = select(train, order);
        Ok(task)
    }

    /// A task that was learnt before: its questions, and the rows that are scored.
    pub fn kept(stored: &TaskState, dev: Vec<Record>, test: Vec<Record>) -> Self {
        let config = &stored.config;
        let all = |records: Vec<Record>| {
            let order = (0..records.len()).collect();
            select(records.into_iter().map(Row::kept).collect(), order)
        };
        Self {
            name: config.name.clone(),
            labels: stored.labels.clone(),
            instruction: config.instruction.clone(),
            form: stored.form,
            room: stored.room,
            metric: stored.metric,
            train: all(Vec::new()),
            dev: all(dev),
            test: all(test),
            train_file: config.train.clone(),
            warnings: Vec::new(),
        }
    }

    /// The first so many of some records.
    pub fn first(records: &Records, count: usize) -> Records {
        let rows: Vec<Row> = records.iter().flatten().take(count).collect();
        let order = (0..rows.len()).collect();
        select(rows, order)
    }

    /// SHA-256 of what is learnt from: the training records in their order, the question and the labels.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |value: serde_json::Value| hash.update(value.to_string() + "\n");
        add(serde_json::json!([self.instruction, self.labels]));
        for row in self.train.iter().flatten() {
            add(serde_json::json!(row.record));
        }
        hex::encode(hash.finalize())
    }

    fn part(&mut self, split: Split) -> &mut Records {
        match split {
            Split::Dev => &mut self.dev,
            Split::Test => &mut self.test,
        }
    }

    fn warn(&mut self, message: String) {
        self.warnings
            .push(format!("task `{}`: {message}", self.name));
    }

    /// How many of `there` records are used.
    fn limit(&mut self, name: &str, there: usize, limit: Option<usize>) -> usize {
        let wanted = limit.unwrap_or(there);
        if wanted > there {
            self.warn(format!(
                "{wanted} {name} records are asked for, the file has {there}"
            ));
        }
        wanted.min(there)
    }

    /// How its answers are scored: as the experiment says, else by what the training answers are.
    fn metric_of(
        &self,
        config: &TaskConfig,
        train: &[Row],
    ) -> Result<Option<TextMetric>, DataError> {
        match (config.metric, self.labels.is_empty()) {
            (metric, true) => {
                let answers = train.iter().map(|row| row.record.answer());
                Ok(Some(
                    metric.unwrap_or_else(|| TextMetric::default_for(answers)),
                ))
            }
            (None, false) => Ok(None),
            (Some(metric), false) => Err(DataError::Task {
                task: self.name.clone(),
                message: format!(
                    "metric = \"{}\" scores answers in free text, and this task chooses among labels, which are right or wrong: leave it out",
                    metric.name()
                ),
            }),
        }
    }

    fn check(&self, rows: &[Row], objective: Objective) -> Result<(), DataError> {
        let refuse = |message: &str| DataError::Task {
            task: self.name.clone(),
            message: message.into(),
        };
        let free = rows
            .iter()
            .find(|row| matches!(row.record, Record::Instruction { .. }));
        if let Some(row) = free.filter(|_| objective == Objective::Heads) {
            let message = "a head chooses among labels: write text and label, or set `objective = \"instruction\"` for this task (or training.objective for all)";
            return Err(row.refuse(message.into(), &self.name));
        }
        match self.labels.as_slice() {
            [] => Ok(()),
            [only] => Err(refuse(&format!(
                "`{only}` is the only label; there must be at least two to choose from"
            ))),
            labels => check_labels(rows, labels),
        }
    }
}

/// What most records of a task are is what its first one is: a file has one format.
fn form(train: &[Row]) -> Form {
    match train.first().map(|row| &row.record) {
        Some(Record::Instruction { .. }) => Form::Conversation,
        _ => Form::Text,
    }
}

fn collect_labels(rows: &[Row]) -> Vec<String> {
    let labels = rows.iter().filter_map(|row| match &row.record {
        Record::Classification { label, .. } => Some(label.clone()),
        Record::Instruction { .. } => None,
    });
    labels.collect::<BTreeSet<String>>().into_iter().collect()
}

fn select(rows: Vec<Row>, order: Vec<usize>) -> Records {
    SelectionDataset::from_indices_checked(InMemDataset::new(rows), order)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use burn_dataset::Dataset;

    use super::*;

    fn experiment(
        extra: &str,
        files: &[(&str, &[(&str, &str)])],
    ) -> (tempfile::TempDir, Experiment) {
        let folder = tempfile::tempdir().unwrap();
        for (name, rows) in files {
            let lines: Vec<String> = rows
                .iter()
                .map(|(text, label)| serde_json::json!({"text": text, "label": label}).to_string())
                .collect();
            fs::write(folder.path().join(name), lines.join("\n")).unwrap();
        }
        let text =
            format!("name = 'x'\n[[tasks]]\nname = 't'\ntrain = 'train'\ntest = 'test'\n{extra}");
        let set = format!("data.root='{}'", folder.path().display());
        let experiment = Experiment::parse(&text, Path::new("x.toml"), &[set]).unwrap();
        (folder, experiment)
    }

    fn texts(records: &Records) -> Vec<String> {
        let text = |record| match record {
            Ok(Row {
                record: Record::Classification { text, .. },
                ..
            }) => text,
            other => panic!("{other:?}"),
        };
        records.iter().map(text).collect()
    }

    const TRAIN: (&str, &[(&str, &str)]) = (
        "train",
        &[("1", "b"), ("2", "a"), ("3", "b"), ("4", "a"), ("5", "a")],
    );

    #[test]
    fn the_same_seed_selects_the_same_training_records_and_test_rows_keep_their_order() {
        let test: (&str, &[(&str, &str)]) = ("test", &[("9", "a"), ("8", "b"), ("7", "a")]);
        let (_folder, mut experiment) = experiment("", &[TRAIN, test]);
        experiment.data.train_examples = Some(3);
        experiment.data.test_examples = Some(2);
        let (first, again) = (
            TaskData::load(&experiment, 0).unwrap(),
            TaskData::load(&experiment, 0).unwrap(),
        );
        assert_eq!(
            (texts(&first.train), first.labels),
            (texts(&again.train), vec!["a".into(), "b".into()])
        );
        assert_eq!(
            (first.train.len(), texts(&first.test)),
            (3, vec!["9".into(), "8".into()])
        );
        let selections: HashSet<Vec<String>> = (0..20)
            .map(|seed| {
                texts(
                    &TaskData::load(
                        &Experiment {
                            seed,
                            ..experiment.clone()
                        },
                        0,
                    )
                    .unwrap()
                    .train,
                )
            })
            .collect();
        assert!(selections.len() > 5, "the seed selects");
    }

    #[test]
    fn a_label_that_training_does_not_know_is_refused_with_its_line() {
        let (_folder, experiment) = experiment("", &[TRAIN, ("test", &[("9", "a"), ("8", "c")])]);
        let message = TaskData::load(&experiment, 0).err().unwrap().to_string();
        assert!(message.contains("test:2: unknown label `c`"), "{message}");
    }

    #[test]
    fn what_is_odd_but_usable_is_said() {
        let (_folder, mut experiment) = experiment(
            "labels = ['b', 'a', 'never']",
            &[TRAIN, ("test", &[("1", "b")])],
        );
        experiment.data.train_examples = Some(9);
        let task = TaskData::load(&experiment, 0).unwrap();
        assert_eq!(task.labels, ["b", "a", "never"]);
        for word in [
            "`never`",
            "9 training records are asked for, the file has 5",
            "1 of the 1 test records",
        ] {
            assert!(
                task.warnings.iter().any(|warning| warning.contains(word)),
                "{:?} lack {word}",
                task.warnings
            );
        }
    }

    #[test]
    fn a_task_with_nothing_to_choose_is_refused() {
        let (_folder, mut experiment) = experiment(
            "",
            &[
                ("train", &[("1", "a"), ("2", "a")]),
                ("test", &[("1", "a")]),
            ],
        );
        let message = TaskData::load(&experiment, 0).err().unwrap().to_string();
        assert!(message.contains("`a` is the only label"), "{message}");
        experiment.tasks[0].train = "absent".into();
        assert!(matches!(
            TaskData::load(&experiment, 0),
            Err(DataError::Unreadable { .. })
        ));
    }

    #[test]
    fn free_answers_need_the_instruction_objective() {
        let (folder, mut experiment) = experiment("", &[TRAIN, ("test", &[])]);
        let row = r#"{"prompt": "q", "answer": "w"}"#;
        fs::write(folder.path().join("train"), row).unwrap();
        fs::write(folder.path().join("test"), row).unwrap();
        let message = TaskData::load(&experiment, 0).err().unwrap().to_string();
        assert!(
            message.contains("train:1: ") && message.contains("objective"),
            "{message}"
        );
        experiment.training.objective = Objective::Instruction;
        assert_eq!(
            TaskData::load(&experiment, 0).unwrap().labels,
            Vec::<String>::new()
        );
    }
}
