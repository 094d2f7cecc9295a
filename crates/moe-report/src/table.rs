//! Runs side by side as plain text, for a terminal.

use super::{
    figures::FIGURES,
    groups::{Group, groups},
    run_data::RunData,
};

/// Widest line, where more than one matrix is to stand in it.
const WIDTH: usize = 100;

/// Accuracy matrices and figures of `runs` as aligned text: matrices next to one another as far as they fit, below
/// them a line per figure with a column per method. Runs that differ only in their seed are taken together. Empty
/// where there is no run.
pub fn table(runs: &[RunData]) -> String {
    let groups = groups(runs);
    if groups.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "Accuracy after each task (rows) on each task (columns); [..] just learnt\n\n",
    );
    let blocks: Vec<Vec<String>> = groups.iter().map(matrix).collect();
    let width = |block: &[String]| {
        block
            .iter()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widest = blocks.iter().map(|block| width(block)).max().unwrap_or(0);
    let abreast = ((WIDTH + 3) / (widest + 3)).max(1);
    for row in blocks.chunks(abreast) {
        for line in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
            let parts = row
                .iter()
                .map(|block| padded(block.get(line).map_or("", String::as_str), widest));
            text.push_str(parts.collect::<Vec<_>>().join("   ").trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    text.push_str(&figures(&groups));
    let warnings: usize = runs.iter().map(|run| run.warnings.len()).sum();
    if warnings > 0 {
        text.push_str(&format!(
            "\n{warnings} warning{} in the log\n",
            if warnings == 1 { "" } else { "s" }
        ));
    }
    text
}

fn matrix(group: &Group<'_>) -> Vec<String> {
    let tasks = group.tasks();
    let names: Vec<String> = std::iter::once("untrained".to_owned())
        .chain(
            tasks
                .iter()
                .enumerate()
                .map(|(task, name)| format!("{} {name}", task + 1)),
        )
        .map(|name| shortened(&name, 14))
        .collect();
    let columns: Vec<String> = tasks.iter().map(|name| shortened(name, 9)).collect();
    let left = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    let width = columns
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .max(6);
    let mut lines = vec![group.label.clone()];
    let heads: String = columns
        .iter()
        .map(|name| format!(" {name:>width$}"))
        .collect();
    lines.push(format!("{:left$}{heads}", ""));
    for (after, name) in names.iter().enumerate() {
        let cells: String = (0..tasks.len())
            .map(|task| {
                let score = group.spread(|run| run.score(after, task));
                let text = score.map_or("-".into(), |spread| {
                    format!("{:.3}", spread.mean)
                        .trim_start_matches('0')
                        .to_owned()
                });
                let text = if after == task + 1 {
                    format!("[{text}]")
                } else {
                    format!("{text} ")
                };
                format!(" {text:>width$}")
            })
            .collect();
        lines.push(format!("{}{}", padded(name, left), cells.trim_end()));
    }
    lines
}

fn figures(groups: &[Group<'_>]) -> String {
    let mut rows = vec![
        std::iter::once(String::new())
            .chain(groups.iter().map(|group| group.label.clone()))
            .collect::<Vec<_>>(),
    ];
    let mut starred = false;
    for figure in &FIGURES {
        let best = figure.best(groups);
        starred |= best.contains(&true);
        let cells = groups.iter().zip(best).map(|(group, best)| {
            let over = figure.coverage(group);
            format!(
                "{}{}{}",
                figure.text(group).unwrap_or("-".into()),
                over.map_or_else(String::new, |over| format!(" {over}")),
                if best { " *" } else { "  " }
            )
        });
        rows.push(
            std::iter::once(figure.name.to_owned())
                .chain(cells)
                .collect(),
        );
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].trim_end().chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=groups.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = padded(&row[0], widths[0]);
        for (cell, width) in row[1..].iter().zip(&widths[1..]) {
            line.push_str("   ");
            line.push_str(&padded(cell.trim_end(), *width));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if starred {
        text.push_str("* best\n");
    }
    text
}

fn padded(text: &str, width: usize) -> String {
    format!(
        "{text}{}",
        " ".repeat(width.saturating_sub(text.chars().count()))
    )
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn matrices_stand_side_by_side_and_lines_stay_short() {
        let table = table(&examples::runs(1));
        assert!(
            table.lines().all(|line| line.chars().count() <= WIDTH),
            "{table}"
        );
        assert!(
            table
                .lines()
                .any(|line| line.matches("untrained").count() == 2),
            "{table}"
        );
        assert!(table.contains("AvgAcc"));
    }

    #[test]
    fn no_run_gives_no_table() {
        assert_eq!(table(&[]), "");
    }
}
