//! `moe-cl classify`

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use moe_cl::data::{Record, Turn, new_texts};
use moe_cl::training::{Answering, Said, Trained};
use moe_core::device::DeviceChoice;
use serde_json::{Map, Value, json};

use crate::model::{BaseArguments, ModelPath, TaskName};
use crate::terminal;

/// Which texts, and who says what they are.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelPath,
    /// Texts: a line each, JSON Lines or CSV; `-` is standard input
    #[arg(value_name = "FILE|-", default_value = "-")]
    file: PathBuf,
    /// Task whose labels are given, or `auto`: the one that each text seems to belong to
    #[arg(long, value_name = "NAME|auto", default_value = "auto")]
    task: TaskName,
    #[command(flatten)]
    base: BaseArguments,
}

/// Texts that are read, answered and written together.
const AT_ONCE: usize = 256;

/// Writes a JSON object per text, in their order.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    let texts = new_texts(&arguments.file)?;
    let (saved, base) = arguments.base.open(arguments.model.path(), device)?;
    let trained = Trained::on_base(saved, &base)?;
    let mut out = BufWriter::new(terminal::out());
    for texts in texts.chunks(AT_ONCE) {
        let bare: Vec<String> = texts.iter().map(Record::bare_text).collect();
        let who = arguments.task.answering(&trained, &bare)?;
        let turns: Vec<Vec<Turn>> = texts.iter().map(Record::turns).collect();
        let said = trained.say(&who, &turns)?;
        for ((bare, who), said) in bare.iter().zip(who).zip(said) {
            writeln!(out, "{}", row(&trained, bare, who, said))?;
        }
        out.flush()?;
    }
    Ok(())
}

/// What is said of a text.
fn row(trained: &Trained<'_>, text: &str, who: Answering, said: Said) -> Value {
    let mut row = Map::new();
    row.insert("text".into(), text.into());
    let task = &trained.experiment.tasks[who.task].name;
    row.insert("task".into(), task.as_str().into());
    if let Some(recognized) = who.recognized {
        // A text of no known task is answered by what is nearest, and says so.
        row.insert("known_task".into(), recognized.known.into());
        row.insert("confidence".into(), recognized.confidence.into());
    }
    match said {
        Said::Label {
            class,
            probabilities,
        } => {
            let labels = trained.labels(who.task);
            row.insert("label".into(), labels[class].as_str().into());
            let named = labels
                .iter()
                .cloned()
                .zip(probabilities.into_iter().map(Value::from));
            row.insert("probabilities".into(), Value::Object(named.collect()));
        }
        Said::Text(text) => {
            row.insert("answer".into(), json!(text));
        }
    }
    Value::Object(row)
}
