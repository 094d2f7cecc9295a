//! What a run is judged by: the accuracy matrix and its figures, answers compared as text, classification scores, and the share of work a model takes off reviewers.

mod classification;
mod exact_match;
mod matrix;
mod stripping;

pub use classification::{Averages, Confusion, Scores};
pub use exact_match::{exact_matches, normalise, same_answer};
pub use matrix::{AccuracyMatrix, Summary};
pub use stripping::{Stripped, Stripping};

#[cfg(test)]
mod fixtures {
    use serde_json::Value;

    use super::*;

    fn cases(name: &str) -> Value {
        let path = format!(
            "{}/../../../shared/fixtures/metrics/{name}/cases.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("{path}: {error}: these tests need the fixtures in shared/")
        });
        serde_json::from_str(&text).expect("the fixture is JSON")
    }

    fn numbers(value: &Value) -> Vec<Option<f64>> {
        value
            .as_array()
            .expect("an array")
            .iter()
            .map(Value::as_f64)
            .collect()
    }

    fn close(name: &str, got: Option<f64>, want: &Value, tolerance: f64) {
        match (got, want.as_f64()) {
            (None, None) => {}
            (Some(got), Some(want)) if (got - want).abs() <= tolerance => {}
            (got, want) => panic!("{name}: got {got:?}, want {want:?}"),
        }
    }

    fn indexed(want: &Value, offset: usize, got: &[Option<f64>]) {
        for (task, want) in want.as_object().expect("task → value") {
            close(
                task,
                got[task.parse::<usize>().expect("a task index") - offset],
                want,
                1e-9,
            );
        }
    }

    #[test]
    fn accuracy_matrices_agree_with_avalanche_and_numpy() {
        for case in cases("accuracy_matrices").as_array().expect("cases") {
            let matrix = AccuracyMatrix {
                rows: case["R"]
                    .as_array()
                    .expect("rows")
                    .iter()
                    .map(numbers)
                    .collect(),
                baseline: numbers(&case["random_init_b"]),
            };
            let joint: Vec<f64> = numbers(&case["joint_reference"])
                .into_iter()
                .flatten()
                .collect();
            let (plain, avalanche, summary) = (
                &case["plain_formulas"],
                &case["avalanche"],
                matrix.summary(),
            );
            for (name, got) in [
                ("avg_acc_final", summary.avg_acc),
                ("bwt", summary.bwt),
                ("fwt", summary.fwt),
                ("forgetting_chaudhry_all_previous_rows", summary.forgetting),
                (
                    "forgetting_chaudhry_rows_from_learning_on",
                    summary.forgetting_since_learnt,
                ),
                ("learning_accuracy", summary.learning_accuracy),
                (
                    "average_incremental_accuracy",
                    summary.average_incremental_accuracy,
                ),
                ("intransigence_mean", matrix.intransigence(&joint)),
            ] {
                close(name, got, &plain[name], 1e-9);
            }
            for (name, got) in [
                ("avg_acc_after_each_task", matrix.avg_acc_after_each_task()),
                (
                    "intransigence_per_task",
                    matrix.intransigence_per_task(&joint),
                ),
            ] {
                for (got, want) in got
                    .into_iter()
                    .zip(plain[name].as_array().expect("per task"))
                {
                    close(name, got, want, 1e-9);
                }
            }
            indexed(
                &avalanche["forgetting_per_task"],
                0,
                &matrix.forgetting_avalanche_per_task(),
            );
            indexed(&avalanche["bwt_per_task"], 0, &matrix.bwt_per_task());
            if let Some(want) = avalanche.get("forward_transfer_per_task") {
                indexed(want, 1, &matrix.fwt_per_task());
            }
        }
    }

    #[test]
    fn stripping_rates_agree_with_the_authors() {
        for case in cases("stripping_rate").as_array().expect("cases") {
            let labels = case["label"].as_array().expect("labels");
            for (class, label) in [(0, "0"), (1, "1")] {
                let scores: Vec<f64> = numbers(&case[&format!("score_{label}")])
                    .into_iter()
                    .flatten()
                    .collect();
                let truth: Vec<bool> = labels.iter().map(|l| l.as_i64() == Some(class)).collect();
                let got = Stripping::choose(
                    &scores,
                    &truth,
                    case["target_precision"].as_f64().expect("a target"),
                );
                close(
                    "threshold",
                    got.threshold,
                    &case["result"][label]["threshold"],
                    1e-12,
                );
                close(
                    "rate",
                    Some(got.rate),
                    &case["result"][label]["lift_rate"],
                    1e-12,
                );
            }
        }
    }

    #[test]
    fn answers_and_classes_agree_with_the_authors_and_scikit_learn() {
        let case = cases("exact_match");
        let pairs = case["pairs"].as_array().expect("pairs");
        let texts = |key: &str| -> Vec<String> {
            pairs
                .iter()
                .map(|pair| pair[key].as_str().expect("text").to_owned())
                .collect()
        };
        let (predictions, references) = (texts("prediction"), texts("reference"));
        for (i, pair) in pairs.iter().enumerate() {
            assert_eq!(normalise(&predictions[i]), pair["normalised_prediction"]);
            assert_eq!(normalise(&references[i]), pair["normalised_reference"]);
            assert_eq!(same_answer(&predictions[i], &references[i]), pair["match"]);
        }
        assert_eq!(
            exact_matches(&predictions, &references),
            case["compute_metrics"]
        );

        let want = &case["classification"];
        let classes = |key: &str| -> Vec<usize> {
            numbers(&want[key])
                .into_iter()
                .flatten()
                .map(|c| c as usize)
                .collect()
        };
        let confusion = Confusion::new(
            want["confusion_matrix_rows_true"]
                .as_array()
                .expect("rows")
                .len(),
            &classes("y_true"),
            &classes("y_pred"),
        );
        close(
            "accuracy",
            Some(confusion.accuracy()),
            &want["accuracy"],
            1e-9,
        );
        close(
            "matthews",
            Some(confusion.matthews()),
            &want["matthews"],
            1e-9,
        );
        let averages = confusion.averages();
        for (name, got) in [
            ("macro", averages.macro_),
            ("micro", averages.micro),
            ("weighted", averages.weighted),
        ] {
            close(name, Some(got.precision), &want[name]["precision"], 1e-9);
            close(name, Some(got.recall), &want[name]["recall"], 1e-9);
            close(name, Some(got.f1), &want[name]["f1"], 1e-9);
        }
        for (class, f1) in numbers(&want["per_class"]["f1"]).into_iter().enumerate() {
            assert!((confusion.scores(class).f1 - f1.expect("a score")).abs() < 1e-9);
        }
    }
}
