//! `moe-cl init`

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;
use moe_cl::config::Experiment;
use moe_cl::data::{Record, Row, read};
use moe_cl::metrics::TextMetric;
use moe_hub::BaseSource;

use crate::failure::Failure;
use crate::terminal;

/// Which data, and where the experiment goes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A file of records for each task, or a folder with train, dev and test files; in the order in which they are to be learnt
    #[arg(required = true, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// The experiment file
    #[arg(long, value_name = "FILE", default_value = "experiment.toml")]
    out: PathBuf,
    /// Base model: a path, hf:owner/name[@revision] or pypi:package==version#file [default: SmolLM2-135M-Instruct]
    #[arg(long, value_name = "BASE")]
    base: Option<BaseSource>,
}

/// Optimiser steps below which a task stays near chance (docs/RESULTS.md).
const FEWEST_STEPS: usize = 64;
/// The batch size of an experiment that names none.
const BATCH: usize = 8;
/// The most passes over a small file that are worth their time.
const MOST_EPOCHS: usize = 16;

/// Writes an experiment file with a task per file, and the schema for editors beside it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let out = &arguments.out;
    if out.exists() {
        let message = format!("{}: the file is there already", out.display());
        bail!(Failure::new(message, "name another with --out"));
    }
    let mut tasks: Vec<Task> = Vec::new();
    for path in &arguments.data {
        let task = Task::find(path)?;
        ensure!(
            tasks.iter().all(|other| other.name != task.name),
            "{}: another file is called {} too, and so would be both tasks: rename one",
            path.display(),
            task.name
        );
        tasks.push(task);
    }
    let schema = out.with_extension("schema.json");
    let text = experiment(out, &schema, arguments.base.as_ref(), &tasks);
    // Whatever names and labels there are, what is written is what `train` reads.
    Experiment::parse(&text, out, &[])?;
    let schema_text = format!("{:#}\n", Experiment::schema());
    moe_core::atomic::write_file(&schema, schema_text.as_bytes())?;
    moe_core::atomic::write_file(out, text.as_bytes())?;
    let records: usize = tasks.iter().map(|task| task.rows.len()).sum();
    let (file, count) = (out.display(), tasks.len());
    let (preview, tokens) = (tasks[0].train.display(), max_tokens(&tasks));
    writeln!(
        terminal::out(),
        "{file}: {count} tasks, {records} records\nnext:\n  moe-cl data preview {preview} --max-tokens {tokens}\n  moe-cl train --config {file}"
    )?;
    Ok(())
}

/// A task to be, and its training records.
struct Task {
    name: String,
    train: PathBuf,
    dev: Option<PathBuf>,
    test: Option<PathBuf>,
    rows: Vec<Row>,
}

/// Names that files of records end in.
const EXTENSIONS: [&str; 5] = ["jsonl", "json", "csv", "tsv", "parquet"];

impl Task {
    /// The task of a file, or of a folder that holds one called `train`. Beside a file of that name, others are its dev and test parts.
    fn find(path: &Path) -> Result<Self> {
        let train = match path.is_dir() {
            false => path.to_path_buf(),
            true => part(path, &["train"]).ok_or_else(|| {
                let names = EXTENSIONS.map(|it| format!("train.{it}")).join(", ");
                Failure::new(
                    format!("{}: the folder holds no {names}", path.display()),
                    "name the files themselves",
                )
            })?,
        };
        let stem = train.file_stem().unwrap_or_default().to_string_lossy();
        let folder = train.parent().unwrap_or(Path::new("."));
        let (name, dev, test) = match stem.as_ref() {
            "train" => {
                let name = folder.canonicalize()?;
                let name = name.file_name().unwrap_or_default().to_string_lossy();
                let dev = part(folder, &["dev", "validation", "valid"]);
                (name.into_owned(), dev, part(folder, &["test"]))
            }
            stem => (stem.to_owned(), None, None),
        };
        let rows = read(&train, None)?;
        for other in [&dev, &test].into_iter().flatten() {
            read(other, None)?;
        }
        Ok(Self {
            name,
            train,
            dev,
            test,
            rows,
        })
    }

    /// Its labels, sorted; none where answers are free text.
    fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = Vec::new();
        for row in &self.rows {
            if let Record::Classification { label, .. } = &row.record {
                labels.push(label);
            }
        }
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// Characters of its longest records, but for two in a hundred.
    fn characters(&self) -> usize {
        let mut lengths: Vec<usize> = self.rows.iter().map(|row| length(&row.record)).collect();
        lengths.sort_unstable();
        lengths[(lengths.len() - 1) * 98 / 100]
    }
}

/// The file of one of these names, with any extension of a file of records.
fn part(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    let named = |name: &&str| EXTENSIONS.map(|it| folder.join(format!("{name}.{it}")));
    names.iter().flat_map(named).find(|path| path.is_file())
}

fn length(record: &Record) -> usize {
    match record {
        Record::Classification { text, .. } => text.chars().count(),
        Record::Instruction { prompt, answer } => {
            let turns = prompt.iter().map(|turn| turn.text.chars().count());
            turns.sum::<usize>() + answer.chars().count()
        }
    }
}

/// Room for the longest texts at three characters a token, and for what a chat template puts around them.
fn max_tokens(tasks: &[Task]) -> usize {
    let longest = tasks.iter().map(Task::characters).max().unwrap_or(0);
    (longest / 3 + 24).next_multiple_of(32).clamp(64, 1024)
}

/// Passes over the data with which the smallest task has enough steps.
fn epochs(tasks: &[Task]) -> usize {
    let fewest = tasks.iter().map(|task| task.rows.len()).min().unwrap_or(1);
    let steps = fewest.div_ceil(BATCH).max(1);
    FEWEST_STEPS.div_ceil(steps).clamp(2, MOST_EPOCHS)
}

fn experiment(out: &Path, schema: &Path, base: Option<&BaseSource>, tasks: &[Task]) -> String {
    let name = out.file_stem().unwrap_or_default().to_string_lossy();
    let schema = schema.file_name().unwrap_or_default().to_string_lossy();
    let base = match base {
        Some(base) => format!("source = {}", quoted(&base.to_string())),
        None => "# source = \"path/to/a/model\"   # a Hugging Face folder or a .gguf file; without it SmolLM2-135M-Instruct".into(),
    };
    let (max_tokens, epochs) = (max_tokens(tasks), epochs(tasks));
    let mut text = format!(
        "#:schema ./{schema}
# Written by `moe-cl init`. What is left out has a default: `moe-cl schema --guide` lists every key.
#   moe-cl data preview FILE                   the records as they are learnt
#   moe-cl train --config FILE --dry-run       what would be trained, in how many steps, with how much memory
name = {}

[base]
{base}

[data]
root = \".\"                  # the files below are relative to it, and it to the folder that moe-cl is started in
max_tokens = {max_tokens}             # longer texts are cut, and counted; estimated from yours at three characters a token

[method]
name = \"moe_cl\"             # `moe-cl methods` lists the others

[training]
epochs = {epochs}                  # so that the smallest task has some {FEWEST_STEPS} steps; fewer leave it near chance
# learning_rate = 2e-3      # the largest of a rate that falls in a straight line
",
        quoted(&name)
    );
    for task in tasks {
        write_task(&mut text, task).expect("a text can be written to");
    }
    text
}

fn write_task(text: &mut String, task: &Task) -> std::fmt::Result {
    let labels = task.labels();
    let kind = match labels.is_empty() {
        true => "answers in free text",
        false => "texts with a label",
    };
    writeln!(text, "\n[[tasks]]")?;
    writeln!(
        text,
        "name = {}   # {} records: {kind}",
        quoted(&task.name),
        task.rows.len()
    )?;
    writeln!(text, "train = {}", quoted_path(&task.train))?;
    match &task.dev {
        Some(dev) => writeln!(text, "dev = {}", quoted_path(dev))?,
        None => writeln!(text, "# dev = \"…\"     # to choose settings on")?,
    }
    match &task.test {
        Some(test) => writeln!(text, "test = {}", quoted_path(test))?,
        None => writeln!(
            text,
            "# test = \"…\"    # without one, a tenth of the records is kept out of training and scored"
        )?,
    }
    if labels.is_empty() {
        let answers = task.rows.iter().map(|row| row.record.answer());
        let metric = TextMetric::default_for(answers).name();
        writeln!(
            text,
            "objective = \"instruction\"   # the model writes the answer"
        )?;
        return writeln!(text, "metric = \"{metric}\"   # how answers are scored");
    }
    let labels: Vec<String> = labels.into_iter().map(quoted).collect();
    writeln!(text, "labels = [{}]", labels.join(", "))?;
    writeln!(
        text,
        "# objective = \"instruction\"              # the model writes the label; without this line a head chooses it"
    )?;
    writeln!(
        text,
        "# instruction = \"Is the text good or bad?\"   # what it is asked then"
    )
}

/// A text as TOML has it. (What JSON escapes, TOML escapes in the same way; it also escapes the delete character.)
fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn task(folder: &Path, file: &str, text: &str) -> Task {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        Task::find(&path).unwrap()
    }

    #[test]
    fn what_is_written_reads_back_as_the_tasks_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let row = r#"{"text": "x", "label": "a"}
{"text": "x \"y\"", "label": "b\\ \u007f\n"}"#;
        let answers = r#"{"prompt": "q", "answer": "a rather long answer of more words"}"#;
        fs::create_dir_all(folder.join("films")).unwrap();
        fs::write(folder.join("films/validation.csv"), "text,label\nx,a\n").unwrap();
        let tasks = [
            task(folder, "films/train.jsonl", row),
            task(folder, "it's \"q\".jsonl", answers),
        ];
        let text = experiment(
            Path::new("a b.toml"),
            Path::new("a b.schema.json"),
            None,
            &tasks,
        );
        let read = Experiment::parse(&text, Path::new("x"), &[]).unwrap();
        assert_eq!(read.name, "a b");
        let [films, answered] = &read.tasks[..] else {
            panic!("two tasks")
        };
        assert_eq!(films.name, "films");
        assert_eq!(films.dev, Some(folder.join("films/validation.csv")));
        assert_eq!(
            films.labels,
            Some(vec!["a".to_owned(), "b\\ \u{7f}\n".to_owned()])
        );
        assert_eq!(answered.name, "it's \"q\"");
        assert_eq!(answered.metric, Some(TextMetric::RougeL));
        assert_eq!((read.training.epochs, read.data.max_tokens), (16, 64));
        assert_eq!(read.training.batch_size, BATCH);
    }

    #[test]
    fn a_folder_without_training_texts_is_refused_with_the_names_that_are_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = Task::find(folder.path()).err().unwrap();
        assert!(
            error.to_string().contains("train.jsonl")
                && error.to_string().contains("train.parquet")
        );
    }
}
