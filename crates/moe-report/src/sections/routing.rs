//! Where the router sends texts.

use super::{figure, section};
use crate::{
    colours::Palette,
    groups::Group,
    heat_map::{Cell, HeatMap, legend},
};

/// Confusion of the task router after the last task, with what inferring the task costs.
pub fn routing(groups: &[Group<'_>]) -> String {
    let figures: String = groups
        .iter()
        .enumerate()
        .filter_map(|(index, group)| Some(figure(&group.label, index, &confusion(group)?.svg())))
        .collect();
    if figures.is_empty() {
        return String::new();
    }
    section(
        "Task inferred: where the router sends texts",
        "Each row is a task, each column where its texts are sent, in % after the last task; the framed cell is right. \
         In the last column, texts taken for no known task, which the shared expert answers where there is one. \
         The router reads the frozen base, so it is the same for all methods with the same data.",
        &format!(
            "<div class=\"row\">{figures}</div>{}",
            legend(
                Palette::Sequential,
                (0.0, 1.0),
                ["0 %", "share of a task's texts", "100 %"]
            )
        ),
    )
}

fn confusion<'a>(group: &'a Group<'_>) -> Option<HeatMap<'a>> {
    let tasks = group.tasks();
    let learnt = group.runs.iter().find_map(|run| run.last_inferred())?;
    let known = learnt.confusion.len();
    let share = |row: usize, column: usize| {
        group.spread(|run| {
            let inferred = run.last_inferred()?;
            let texts = inferred.texts_of(row);
            let count = if column < known {
                inferred.sent(row, column)
            } else {
                *inferred.refused.get(row)?
            };
            (texts > 0).then_some(count as f64 / texts as f64)
        })
    };
    let row = |row: usize| -> Vec<Option<f64>> {
        let shares = (0..=known).map(|column| Some(share(row, column)?.mean));
        shares.collect()
    };
    let percents: Vec<Option<Vec<u32>>> = (0..known)
        .map(|task| {
            Some(percents(
                &row(task).into_iter().collect::<Option<Vec<f64>>>()?,
            ))
        })
        .collect();
    let cell = |row: usize, column: usize| {
        let value = share(row, column)?.mean;
        let text = match &percents[row] {
            Some(percents) => percents[column].to_string(),
            None => format!("{:.0}", value * 100.0),
        };
        Some(Cell {
            value,
            text,
            note: None,
            framed: row == column,
        })
    };
    let said: Vec<String> = (0..known)
        .filter_map(|task| {
            Some(format!(
                "{} {:.0} %",
                tasks[task],
                share(task, task)?.mean * 100.0
            ))
        })
        .collect();
    Some(HeatMap {
        alternative: format!(
            "Where the router sends texts with {}; sent to their own task: {}.",
            group.label,
            said.join(", ")
        ),
        row_axis: "task",
        rows: tasks[..known].to_vec(),
        column_axis: "sent to (% of the task's texts)",
        columns: tasks[..known]
            .iter()
            .cloned()
            .chain(["no known task".into()])
            .collect(),
        cells: (0..known)
            .map(|row| (0..=known).map(|column| cell(row, column)).collect())
            .collect(),
        palette: Palette::Sequential,
        range: (0.0, 1.0),
        size: (if known > 6 { 40.0 } else { 52.0 }, 30.0),
    })
}

/// Shares of 1 in whole percents whose sum is that of the shares: those that lose most by being cut are rounded up.
fn percents(shares: &[f64]) -> Vec<u32> {
    let exact: Vec<f64> = shares.iter().map(|share| share * 100.0).collect();
    let mut whole: Vec<u32> = exact.iter().map(|percent| percent.floor() as u32).collect();
    let sum = exact.iter().sum::<f64>().round() as u32;
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let lacking = sum.saturating_sub(whole.iter().sum()) as usize;
    for index in order.into_iter().take(lacking) {
        whole[index] += 1;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percents_of_a_row_sum_to_100() {
        for counts in [
            vec![1, 1, 1],
            vec![2, 2, 2, 1],
            vec![0, 7, 0],
            vec![1; 16],
            vec![995, 2, 1, 1, 1],
        ] {
            let total: u32 = counts.iter().sum();
            let shares: Vec<f64> = (counts.iter())
                .map(|&count| f64::from(count) / f64::from(total))
                .collect();
            let percents = percents(&shares);
            assert_eq!(percents.iter().sum::<u32>(), 100, "{counts:?}");
            let near =
                |(percent, share): (&u32, &f64)| (f64::from(*percent) - share * 100.0).abs() < 1.0;
            assert!(percents.iter().zip(&shares).all(near), "{percents:?}");
        }
    }
}
