//! The figures by which runs are compared, for the page and the terminal alike.

use moe_cl::metrics::{Coverage, Over, mean_open_set_auroc};

use crate::{groups::Group, run_data::RunData};

/// One figure of a run.
pub struct Figure {
    /// Its name in the literature.
    pub name: &'static str,
    /// What it says, in a sentence.
    pub meaning: &'static str,
    /// Whether more is better; none where neither is.
    pub higher_is_better: Option<bool>,
    value: fn(&RunData) -> Option<f64>,
    /// Over what it is a mean, where it is read off the accuracy matrix.
    over: Option<fn(&Coverage) -> Over>,
    format: fn(f64) -> String,
}

/// Every figure, in the order of the columns.
pub const FIGURES: [Figure; 12] = [
    Figure {
        name: "AvgAcc",
        meaning: "mean accuracy over all tasks after the last one",
        higher_is_better: Some(true),
        value: |run| run.matrix.summary().avg_acc,
        over: Some(|coverage| coverage.avg_acc),
        format: share,
    },
    Figure {
        name: "BWT",
        meaning: "backward transfer: mean change of earlier tasks' accuracy since each was learnt; negative means forgetting (Lopez-Paz & Ranzato 2017)",
        higher_is_better: Some(true),
        value: |run| run.matrix.summary().bwt,
        over: Some(|coverage| coverage.bwt),
        format: change,
    },
    Figure {
        name: "FWT",
        meaning: "forward transfer: mean gain over the untrained model on tasks not yet learnt (Lopez-Paz & Ranzato 2017)",
        higher_is_better: Some(true),
        value: |run| run.matrix.summary().fwt,
        over: Some(|coverage| coverage.fwt),
        format: change,
    },
    Figure {
        name: "Forgetting",
        meaning: "mean fall from the best accuracy that each task had since it was learnt (Chaudhry 2018, without the stages before)",
        higher_is_better: Some(false),
        value: |run| run.matrix.summary().forgetting_since_learnt,
        over: Some(|coverage| coverage.forgetting_since_learnt),
        format: share,
    },
    Figure {
        name: "Learning acc.",
        meaning: "mean accuracy on each task right after learning it",
        higher_is_better: Some(true),
        value: |run| run.matrix.summary().learning_accuracy,
        over: Some(|coverage| coverage.learning_accuracy),
        format: share,
    },
    Figure {
        name: "Inferred acc.",
        meaning: "mean accuracy over all tasks after the last one, with the task of every text inferred by the router; all other accuracies are with the task given",
        higher_is_better: Some(true),
        value: |run| run.last_inferred()?.avg_acc(),
        over: None,
        format: share,
    },
    Figure {
        name: "Price",
        meaning: "mean accuracy lost because the task is inferred and not given",
        higher_is_better: Some(false),
        value: |run| run.last_inferred()?.price_in(&run.matrix),
        over: None,
        format: change,
    },
    Figure {
        name: "Routing acc.",
        meaning: "mean share of each task's texts for which the router's best-scoring task is the right one, after the last task",
        higher_is_better: Some(true),
        value: |run| run.last_inferred()?.routing_accuracy(),
        over: None,
        format: share,
    },
    Figure {
        name: "Open-set AUROC",
        meaning: "how well the router tells texts of learnt tasks from those of tasks still to come (0.5: not at all), mean over the stages",
        higher_is_better: Some(true),
        value: |run| mean_open_set_auroc(run.inferred.values()),
        over: None,
        format: share,
    },
    Figure {
        name: "Wall time",
        meaning: "training and evaluation together",
        higher_is_better: None,
        value: |run| Some(run.seconds),
        over: None,
        format: duration,
    },
    Figure {
        name: "Peak memory",
        meaning: "largest resident memory while the run went on",
        higher_is_better: None,
        value: |run| run.peak_memory.map(|bytes| bytes as f64),
        over: None,
        format: memory,
    },
    Figure {
        name: "Tokens/s",
        meaning: "tokens trained on per second of optimiser steps, padding not counted",
        higher_is_better: None,
        value: RunData::tokens_per_second,
        over: None,
        format: |rate| format!("{rate:.0}"),
    },
];

impl Figure {
    /// `mean ± deviation` of the group as text; none where no run has the figure.
    pub fn text(&self, group: &Group<'_>) -> Option<String> {
        let spread = group.spread(self.value)?;
        let mean = (self.format)(spread.mean);
        Some(match spread.deviation {
            Some(deviation) => format!(
                "{mean} ± {}",
                (self.format)(deviation).trim_start_matches('+')
            ),
            None => mean,
        })
    }

    /// `over 2 of 3` where the figure leaves out tasks whose scores were not measured: in the run of the group that leaves out most.
    pub fn coverage(&self, group: &Group<'_>) -> Option<String> {
        let over = self.over?;
        let runs = group
            .runs
            .iter()
            .map(|run| over(&run.matrix.summary().over));
        let partial = runs.filter(Over::is_partial);
        let missing = |over: &Over| over.possible - over.measured;
        Some(partial.max_by_key(missing)?.to_string())
    }

    /// For each group whether it has the best mean among several, to the digits shown; none where they learnt different streams.
    pub fn best(&self, groups: &[Group<'_>]) -> Vec<bool> {
        if groups.iter().any(|group| !groups[0].same_stream(group)) {
            return vec![false; groups.len()];
        }
        let shown = |group: &Group<'_>| Some((group.spread(self.value)?.mean * 1000.0).round());
        let values: Vec<Option<f64>> = groups.iter().map(shown).collect();
        let better = |a: f64, b: f64| {
            if self.higher_is_better == Some(true) {
                a.max(b)
            } else {
                a.min(b)
            }
        };
        let best = values.iter().flatten().copied().reduce(better);
        let contest = self.higher_is_better.is_some() && values.iter().any(|value| *value != best);
        values
            .iter()
            .map(|value| contest && value.is_some() && *value == best)
            .collect()
    }
}

/// A share of 1 with three digits.
pub fn share(value: f64) -> String {
    format!("{value:.3}")
}

/// A signed change with three digits; what rounds to nothing has no sign.
pub fn change(value: f64) -> String {
    let text = format!("{value:+.3}");
    if text.ends_with("0.000") {
        "0.000".into()
    } else {
        text
    }
}

/// Seconds as people say them.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// Bytes in binary units.
pub fn memory(bytes: f64) -> String {
    let mib = bytes / (1 << 20) as f64;
    if mib >= 1024.0 {
        format!("{:.2} GiB", mib / 1024.0)
    } else {
        format!("{mib:.0} MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{examples, groups::groups};

    #[test]
    fn several_seeds_are_shown_as_mean_and_deviation() {
        let runs = examples::runs(2);
        let groups = groups(&runs);
        assert!(FIGURES[0].text(&groups[0]).unwrap().contains(" ± "));
    }

    #[test]
    fn a_figure_that_leaves_tasks_out_says_so() {
        let mut runs = examples::runs(1);
        assert_eq!(FIGURES[0].coverage(&groups(&runs)[0]), None);
        runs[0].matrix.rows[3][1] = None;
        let groups = groups(&runs);
        assert_eq!(FIGURES[0].coverage(&groups[0]).unwrap(), "over 3 of 4");
        assert_eq!(FIGURES[1].coverage(&groups[0]).unwrap(), "over 2 of 3");
        assert_eq!(FIGURES[2].coverage(&groups[0]), None);
    }

    #[test]
    fn the_best_is_marked_only_where_there_is_a_contest() {
        let runs = examples::runs(1);
        let groups = groups(&runs);
        assert_eq!(
            FIGURES[1]
                .best(&groups)
                .iter()
                .filter(|best| **best)
                .count(),
            1
        );
        assert_eq!(FIGURES[1].best(&groups[..1]), [false]);
        let time = FIGURES
            .iter()
            .find(|figure| figure.name == "Wall time")
            .unwrap();
        assert!(time.best(&groups).iter().all(|best| !best));
    }

    #[test]
    fn nothing_is_the_best_of_different_streams() {
        let mut runs = examples::runs(1);
        let other = runs.len() - 1;
        runs[other].tasks.reverse();
        let groups = groups(&runs);
        for figure in &FIGURES {
            assert!(
                figure.best(&groups).iter().all(|best| !best),
                "{}",
                figure.name
            );
        }
    }

    #[test]
    fn units_are_those_that_people_say() {
        assert_eq!(duration(4.26), "4.3 s");
        assert_eq!(duration(272.0), "4 min 32 s");
        assert_eq!(duration(7320.0), "2 h 02 min");
        assert_eq!(memory(1.5 * (1u64 << 30) as f64), "1.50 GiB");
        assert_eq!(change(-0.0001), "0.000");
    }
}
