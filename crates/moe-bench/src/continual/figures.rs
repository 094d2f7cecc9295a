//! The columns of the table.

use moe_cl::metrics::mean_open_set_auroc;

use super::{Outcome, ability::Abilities};

/// What some figures compare a run with: other methods on the same order with the same seed.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Scores of a model trained on all tasks jointly.
    pub joint: Option<Vec<Option<f64>>>,
    /// Scores of a model trained on each task alone.
    pub alone: Option<Vec<Option<f64>>>,
}

/// Which of the tables a figure stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The task of every text is given.
    Given,
    /// It is inferred.
    Inferred,
    /// What the model can do besides the tasks.
    Ability,
    /// What it costs.
    Cost,
}

/// One figure of a run.
pub struct Figure {
    /// Its name in the literature.
    pub name: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Where it stands.
    pub part: Part,
    /// Its value.
    pub value: fn(&Outcome, &References) -> Option<f64>,
    /// As text.
    pub format: fn(f64) -> String,
}

/// Every figure, in the order of the columns.
pub const FIGURES: [Figure; 26] = [
    Figure {
        name: "AvgAcc",
        meaning: "mean accuracy over all tasks after the last one",
        part: Part::Given,
        value: |run, _| run.matrix.summary().avg_acc,
        format: share,
    },
    Figure {
        name: "BWT",
        meaning: "mean change of earlier tasks since each was learnt (Lopez-Paz & Ranzato 2017); below 0 is forgetting",
        part: Part::Given,
        value: |run, _| run.matrix.summary().bwt,
        format: change,
    },
    Figure {
        name: "FWT",
        meaning: "mean gain over the untrained model on tasks not yet learnt (Lopez-Paz & Ranzato 2017)",
        part: Part::Given,
        value: |run, _| run.matrix.summary().fwt,
        format: change,
    },
    Figure {
        name: "FWT, alone",
        meaning: "mean of the accuracy right after learning a task, less that of `per_task` on the same order and seed",
        part: Part::Given,
        value: |run, references| {
            let apart = run
                .matrix
                .intransigence_per_task(references.alone.as_ref()?);
            mean_of_all(&apart).map(|apart| -apart)
        },
        format: change,
    },
    Figure {
        name: "Forgetting",
        meaning: "mean fall from the best accuracy since a task was learnt (Chaudhry 2018)",
        part: Part::Given,
        value: |run, _| run.matrix.summary().forgetting_since_learnt,
        format: share,
    },
    Figure {
        name: "Learning acc.",
        meaning: "mean accuracy on each task right after learning it",
        part: Part::Given,
        value: |run, _| run.matrix.summary().learning_accuracy,
        format: share,
    },
    Figure {
        name: "Intransigence",
        meaning: "mean accuracy of `joint` on the same order and seed, less that right after learning each task (Chaudhry 2018)",
        part: Part::Given,
        value: |run, references| {
            mean_of_all(
                &run.matrix
                    .intransigence_per_task(references.joint.as_ref()?),
            )
        },
        format: change,
    },
    Figure {
        name: "AvgAcc",
        meaning: "mean accuracy over all tasks after the last one, the task of every text inferred by the router",
        part: Part::Inferred,
        value: |run, _| run.inferred.last()?.avg_acc(),
        format: share,
    },
    Figure {
        name: "Price",
        meaning: "AvgAcc with the task given, less AvgAcc with the task inferred",
        part: Part::Inferred,
        value: |run, _| run.inferred.last()?.price_in(&run.matrix),
        format: change,
    },
    Figure {
        name: "Routing acc.",
        meaning: "mean share of each task's texts that the router gives to that task, after the last one",
        part: Part::Inferred,
        value: |run, _| run.inferred.last()?.routing_accuracy(),
        format: share,
    },
    Figure {
        name: "Open-set AUROC",
        meaning: "learnt tasks' texts against those of tasks to come, mean over the stages; 0.5 is chance",
        part: Part::Inferred,
        value: |run, _| mean_open_set_auroc(&run.inferred),
        format: share,
    },
    Figure {
        name: "Refused",
        meaning: "share of the learnt tasks' texts taken for no known task's, after the last one",
        part: Part::Inferred,
        value: |run, _| {
            let last = run.inferred.last()?;
            let texts: u64 = (0..last.confusion.len())
                .map(|task| last.texts_of(task))
                .sum();
            (texts > 0).then(|| last.refused.iter().sum::<u64>() as f64 / texts as f64)
        },
        format: share,
    },
    Figure {
        name: "Perplexity, base",
        meaning: "of the held text; less is better: the base before the first task",
        part: Part::Ability,
        value: |run, _| Some(ability(run)?.before.perplexity),
        format: |value| format!("{value:.2}"),
    },
    Figure {
        name: "Perplexity, task",
        meaning: "the same after the last task, answered as each task is, mean over the tasks",
        part: Part::Ability,
        value: |run, _| ability(run)?.mean(|ability| ability.perplexity),
        format: |value| format!("{value:.2}"),
    },
    Figure {
        name: "Perplexity, unknown",
        meaning: "the same, answered as a text of no known task is",
        part: Part::Ability,
        value: |run, _| Some(ability(run)?.unknown?.perplexity),
        format: |value| format!("{value:.2}"),
    },
    Figure {
        name: "Everyday, base",
        meaning: "share of everyday sentences whose right end is more probable than a wrong one; chance is 0.5: the base before the first task",
        part: Part::Ability,
        value: |run, _| Some(ability(run)?.before.everyday),
        format: share,
    },
    Figure {
        name: "Everyday, task",
        meaning: "the same after the last task, answered as each task is, mean over the tasks",
        part: Part::Ability,
        value: |run, _| ability(run)?.mean(|ability| ability.everyday),
        format: share,
    },
    Figure {
        name: "Everyday, unknown",
        meaning: "the same, answered as a text of no known task is",
        part: Part::Ability,
        value: |run, _| Some(ability(run)?.unknown?.everyday),
        format: share,
    },
    Figure {
        name: "Grammar, base",
        meaning: "share of pairs of sentences of which the well-formed one is more probable; chance is 0.5: the base before the first task",
        part: Part::Ability,
        value: |run, _| Some(ability(run)?.before.grammar),
        format: share,
    },
    Figure {
        name: "Grammar, task",
        meaning: "the same after the last task, answered as each task is, mean over the tasks",
        part: Part::Ability,
        value: |run, _| ability(run)?.mean(|ability| ability.grammar),
        format: share,
    },
    Figure {
        name: "Grammar, unknown",
        meaning: "the same, answered as a text of no known task is",
        part: Part::Ability,
        value: |run, _| Some(ability(run)?.unknown?.grammar),
        format: share,
    },
    Figure {
        name: "Trained / task",
        meaning: "parameters that move while a task is learnt, mean over the tasks",
        part: Part::Cost,
        value: |run, _| run.trainable,
        format: |count| format!("{:.3} M", count / 1e6),
    },
    Figure {
        name: "Stored / task",
        meaning: "bytes that a task adds to what is kept (experts, gates, discriminators, router, memory), mean over the tasks",
        part: Part::Cost,
        value: |run, _| run.bytes,
        format: |bytes| format!("{:.2} MB", bytes / 1e6),
    },
    Figure {
        name: "Seconds / task",
        meaning: "time in optimiser steps, mean over the tasks",
        part: Part::Cost,
        value: |run, _| run.seconds,
        format: |seconds| format!("{seconds:.1}"),
    },
    Figure {
        name: "Tokens / task",
        meaning: "tokens trained on, padding not counted, mean over the tasks",
        part: Part::Cost,
        value: |run, _| run.tokens,
        format: |tokens| format!("{tokens:.0}"),
    },
    Figure {
        name: "Peak memory",
        meaning: "largest resident memory of the run's own process",
        part: Part::Cost,
        value: |run, _| run.peak_memory,
        format: |bytes| format!("{:.2} GB", bytes / 1e9),
    },
];

fn ability(run: &Outcome) -> Option<&Abilities> {
    run.ability.as_ref()
}

/// Mean over the tasks; none where one is missing.
fn mean_of_all(values: &[Option<f64>]) -> Option<f64> {
    let values: Vec<f64> = values.iter().copied().collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A share of 1 with three digits.
pub fn share(value: f64) -> String {
    format!("{value:.3}")
}

/// A signed change with three digits.
pub fn change(value: f64) -> String {
    let text = format!("{value:+.3}");
    if text.ends_with("0.000") {
        "0.000".into()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use moe_cl::metrics::AccuracyMatrix;

    use super::*;

    #[test]
    fn figures_against_other_methods_are_hand_worked() {
        let run = Outcome {
            matrix: AccuracyMatrix {
                rows: vec![vec![Some(0.8), None], vec![Some(0.6), Some(0.5)]],
                baseline: vec![Some(0.5), Some(0.5)],
            },
            ..Outcome::default()
        };
        let references = References {
            joint: Some(vec![Some(0.9), Some(0.7)]),
            alone: Some(vec![Some(0.8), Some(0.4)]),
        };
        let value = |name: &str, references: &References| {
            let figure = FIGURES.iter().find(|figure| figure.name == name).unwrap();
            (figure.value)(&run, references)
        };
        let close = |got: Option<f64>, want: f64| assert!((got.unwrap() - want).abs() < 1e-12);
        close(value("Intransigence", &references), 0.15);
        close(value("FWT, alone", &references), 0.05);
        assert_eq!(value("Intransigence", &References::default()), None);
    }
}
