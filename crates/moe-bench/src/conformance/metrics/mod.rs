//! Accuracy-matrix figures, exact match, classification scores and stripping rates.

mod answers;

use anyhow::{Context, bail};
use moe_cl::metrics::{AccuracyMatrix, Stripping};
use serde_json::Value;

use super::case::Case;
use super::check::{Check, Tolerance, Verdict};

/// Runs a case, told apart by what its cases.json holds.
///
/// # Errors
/// When the fixture cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let cases = case.json_file("cases.json")?;
    let mut check = Check::default();
    if !cases["pairs"].is_null() {
        answers::compare(&mut check, &cases, case.tolerance("values")?)?;
    } else if !cases[0]["R"].is_null() {
        for (index, one) in list(&cases)?.iter().enumerate() {
            matrix(
                &mut check,
                &format!("{index}"),
                one,
                case.tolerance("values")?,
            )?;
        }
    } else if !cases[0]["target_precision"].is_null() {
        for (index, one) in list(&cases)?.iter().enumerate() {
            stripping(&mut check, &format!("{index}"), one, case)?;
        }
    } else {
        return Ok(Verdict::Skip("unknown kind of metrics case".into()));
    }
    Ok(check.verdict())
}

/// Everything that `plain_formulas` and `avalanche` list for one accuracy matrix.
fn matrix(check: &mut Check, at: &str, case: &Value, tolerance: Tolerance) -> anyhow::Result<()> {
    let rows = list(&case["R"])?
        .iter()
        .map(optional)
        .collect::<anyhow::Result<_>>()?;
    let matrix = AccuracyMatrix {
        rows,
        baseline: optional(&case["random_init_b"])?,
    };
    let intransigence = matrix.intransigence_per_task(&optional(&case["joint_reference"])?);
    let summary = matrix.summary();
    for (key, want) in case["plain_formulas"]
        .as_object()
        .context("no plain_formulas")?
    {
        let name = format!("{at}.{key}");
        let got = match key.as_str() {
            "avg_acc_after_each_task" => {
                per_task(
                    check,
                    &name,
                    &matrix.avg_acc_after_each_task(),
                    &optional(want)?,
                    tolerance,
                );
                continue;
            }
            "intransigence_per_task" => {
                per_task(check, &name, &intransigence, &optional(want)?, tolerance);
                continue;
            }
            "avg_acc_final" => summary.avg_acc,
            "bwt" => summary.bwt,
            "fwt" => summary.fwt,
            "forgetting_chaudhry_all_previous_rows" => summary.forgetting,
            "forgetting_chaudhry_rows_from_learning_on" => summary.forgetting_since_learnt,
            "learning_accuracy" => summary.learning_accuracy,
            "intransigence_mean" => {
                let defined: Vec<f64> = intransigence.iter().copied().flatten().collect();
                Some(defined.iter().sum::<f64>() / defined.len() as f64)
            }
            "average_incremental_accuracy" => summary.average_incremental_accuracy,
            _ => {
                check.note(format!("not compared: {name}"));
                continue;
            }
        };
        number(check, &name, got, want.as_f64(), tolerance);
    }
    for (key, want) in case["avalanche"]
        .as_object()
        .context("no avalanche figures")?
    {
        let name = format!("{at}.avalanche.{key}");
        // Avalanche counts tasks from 0; our forward transfer starts with the second task. Its forgetting is no maximum over rows.
        let (got, first) = match key.as_str() {
            "forgetting_per_task" => {
                let bwt = matrix.bwt_per_task().into_iter();
                (bwt.map(|bwt| bwt.map(|bwt| -bwt)).collect(), 0)
            }
            "bwt_per_task" => (matrix.bwt_per_task(), 0),
            "forward_transfer_per_task" => (matrix.fwt_per_task(), 1),
            "bwt_mean" => {
                number(check, &name, summary.bwt, want.as_f64(), tolerance);
                continue;
            }
            "forward_transfer_mean" => {
                number(check, &name, summary.fwt, want.as_f64(), tolerance);
                continue;
            }
            _ => {
                check.note(format!("not compared: {name}"));
                continue;
            }
        };
        for (task, want) in want.as_object().context("not a table of tasks")? {
            let index = task
                .parse::<usize>()
                .ok()
                .and_then(|task| task.checked_sub(first));
            let got = index.and_then(|index| got.get(index).copied().flatten());
            number(
                check,
                &format!("{name}.{task}"),
                got,
                want.as_f64(),
                tolerance,
            );
        }
    }
    Ok(())
}

/// Thresholds and rates of every label that `result` lists.
fn stripping(check: &mut Check, at: &str, one: &Value, case: &Case) -> anyhow::Result<()> {
    let target = one["target_precision"]
        .as_f64()
        .context("no target_precision")?;
    for (label, want) in one["result"].as_object().context("no result")? {
        let scores: Vec<f64> = optional(&one[&format!("score_{label}")])?
            .into_iter()
            .flatten()
            .collect();
        let truth: Vec<bool> = list(&one["label"])?
            .iter()
            .map(|found| found.as_i64() == label.parse().ok())
            .collect();
        let got = Stripping::choose(&scores, &truth, target);
        number(
            check,
            &format!("{at}.{label}.threshold"),
            got.threshold,
            want["threshold"].as_f64(),
            case.tolerance("threshold")?,
        );
        number(
            check,
            &format!("{at}.{label}.lift_rate"),
            Some(got.rate),
            want["lift_rate"].as_f64(),
            case.tolerance("lift_rate")?,
        );
    }
    Ok(())
}

fn per_task(
    check: &mut Check,
    name: &str,
    got: &[Option<f64>],
    want: &[Option<f64>],
    tolerance: Tolerance,
) {
    check.holds(got.len() == want.len(), || {
        format!("{name} got {} values want {}", got.len(), want.len())
    });
    for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
        number(check, &format!("{name}[{index}]"), got, want, tolerance);
    }
}

/// A figure that may be undefined on both sides, but not on one.
fn number(
    check: &mut Check,
    name: &str,
    got: Option<f64>,
    want: Option<f64>,
    tolerance: Tolerance,
) {
    match (got, want) {
        (Some(got), Some(want)) => check.scalar(name, got, want, tolerance),
        (got, want) => check.exact(name, &[got], &[want]),
    }
}

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    match value.as_array() {
        Some(values) => Ok(values),
        None => bail!("{value} is not a list"),
    }
}

fn optional(value: &Value) -> anyhow::Result<Vec<Option<f64>>> {
    Ok(list(value)?.iter().map(Value::as_f64).collect())
}
