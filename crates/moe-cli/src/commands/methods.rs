//! `moe-cl methods`

use std::io::Write;

use anyhow::Result;
use clap::Args;
use moe_cl::config::MethodConfig;
use moe_cl::methods::{Card, method};
use serde_json::json;

use super::print_json;

use crate::terminal;

/// How they are shown.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// Prints a line for every method, under the name that `method.name` takes.
pub fn run(arguments: &Arguments) -> Result<()> {
    let rows: Vec<(String, Card)> = MethodConfig::all()
        .iter()
        .map(|config| Ok((name(config)?, method(config, 1).card())))
        .collect::<Result<_>>()?;
    if arguments.json {
        let row = |(name, card): &(String, Card)| {
            json!({
                "method": name, "what": card.what, "needs": card.needs, "stores": card.stores,
                "source": card.source, "strength": card.strength,
            })
        };
        return print_json(&rows.iter().map(row).collect::<Vec<_>>());
    }
    let width = |column: &dyn Fn(&(String, Card)) -> usize, title: &str| {
        let widest = rows.iter().map(column).max().unwrap_or(0);
        widest.max(title.len())
    };
    let (name, what, needs, stores) = (
        width(&|(name, _)| name.chars().count(), "method"),
        width(&|(_, card)| card.what.chars().count(), "what it is"),
        width(
            &|(_, card)| card.needs.chars().count(),
            "needs at test time",
        ),
        width(&|(_, card)| card.stores.chars().count(), "stores per task"),
    );
    let mut out = terminal::out();
    writeln!(
        out,
        "{:name$}  {:what$}  {:needs$}  {:stores$}  source",
        "method", "what it is", "needs at test time", "stores per task"
    )?;
    for (method, card) in &rows {
        writeln!(
            out,
            "{method:name$}  {:what$}  {:needs$}  {:stores$}  {}",
            card.what, card.needs, card.stores, card.source
        )?;
    }
    writeln!(out, "\nDefault strengths")?;
    for (method, card) in rows.iter().filter(|(_, card)| !card.strength.is_empty()) {
        writeln!(out, "{method:name$}  {}", card.strength)?;
    }
    Ok(writeln!(
        out,
        "\nEvery method has a classification head per task besides, with training.objective = \"heads\", and then needs the task id\n\
         to choose it. Options of a method: moe-cl schema."
    )?)
}

/// The value of `method.name`.
fn name(config: &MethodConfig) -> Result<String> {
    let table = serde_json::to_value(config)?;
    Ok(table["name"].as_str().unwrap_or_default().to_string())
}
