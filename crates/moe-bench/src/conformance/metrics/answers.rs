//! Answers compared as text, and classification scores.

use anyhow::Context;
use moe_cl::metrics::{Confusion, Scores, exact_matches, normalise, same_answer};
use serde_json::Value;

use super::super::check::{Check, Tolerance};
use super::{list, number};

/// Normalised answers, matches, and classification scores.
pub fn compare(check: &mut Check, cases: &Value, tolerance: Tolerance) -> anyhow::Result<()> {
    let (mut predictions, mut references) = (Vec::new(), Vec::new());
    for (index, pair) in list(&cases["pairs"])?.iter().enumerate() {
        let (prediction, reference) = (text(&pair["prediction"])?, text(&pair["reference"])?);
        check.exact(
            &format!("pairs[{index}].normalised_prediction"),
            &[normalise(prediction)],
            &[text(&pair["normalised_prediction"])?.into()],
        );
        check.exact(
            &format!("pairs[{index}].normalised_reference"),
            &[normalise(reference)],
            &[text(&pair["normalised_reference"])?.into()],
        );
        check.exact(
            &format!("pairs[{index}].match"),
            &[Some(same_answer(prediction, reference))],
            &[pair["match"].as_bool()],
        );
        predictions.push(prediction);
        references.push(reference);
    }
    let matches = exact_matches(&predictions, &references) as u64;
    check.exact(
        "compute_metrics",
        &[Some(matches)],
        &[cases["compute_metrics"].as_u64()],
    );

    let want = &cases["classification"];
    let classes = |key: &str| -> anyhow::Result<Vec<usize>> {
        list(&want[key])?
            .iter()
            .map(|class| {
                class
                    .as_u64()
                    .map(|class| class as usize)
                    .context("not a class")
            })
            .collect()
    };
    let rows = list(&want["confusion_matrix_rows_true"])?;
    let confusion = Confusion::new(rows.len(), &classes("y_true")?, &classes("y_pred")?);
    let counts: Vec<Vec<u64>> = rows.iter().map(counts_of).collect::<anyhow::Result<_>>()?;
    check.exact("confusion", &confusion.counts, &counts);
    number(
        check,
        "accuracy",
        Some(confusion.accuracy()),
        want["accuracy"].as_f64(),
        tolerance,
    );
    number(
        check,
        "matthews",
        Some(confusion.matthews()),
        want["matthews"].as_f64(),
        tolerance,
    );
    let averages = confusion.averages();
    for (name, got) in [
        ("macro", averages.macro_),
        ("micro", averages.micro),
        ("weighted", averages.weighted),
    ] {
        for (key, got) in fields(got) {
            number(
                check,
                &format!("{name}.{key}"),
                Some(got),
                want[name][key].as_f64(),
                tolerance,
            );
        }
    }
    for class in 0..rows.len() {
        for (key, got) in fields(confusion.scores(class)) {
            number(
                check,
                &format!("per_class.{key}[{class}]"),
                Some(got),
                want["per_class"][key][class].as_f64(),
                tolerance,
            );
        }
        check.exact(
            &format!("support[{class}]"),
            &[Some(confusion.support(class))],
            &[want["per_class"]["support"][class].as_u64()],
        );
    }
    Ok(())
}

fn fields(scores: Scores) -> [(&'static str, f64); 3] {
    [
        ("precision", scores.precision),
        ("recall", scores.recall),
        ("f1", scores.f1),
    ]
}

fn counts_of(value: &Value) -> anyhow::Result<Vec<u64>> {
    list(value)?
        .iter()
        .map(|count| count.as_u64().context("not a count"))
        .collect()
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value
        .as_str()
        .with_context(|| format!("{value} is not a text"))
}
