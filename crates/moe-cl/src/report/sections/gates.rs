//! Gate shares.

use super::{figure, section};
use crate::report::{
    colours::Palette,
    groups::{Group, Spread},
    heat_map::{Cell, HeatMap, legend},
    run_data::RunData,
};

/// Share of the shared expert per layer, after each task.
pub fn gates(groups: &[Group<'_>]) -> String {
    let shares = |run: &RunData| {
        run.gate_shares
            .values()
            .flatten()
            .copied()
            .collect::<Vec<f64>>()
    };
    let all: Vec<f64> = groups
        .iter()
        .flat_map(|group| &group.runs)
        .flat_map(|run| shares(run))
        .collect();
    if all.is_empty() {
        return String::new();
    }
    let reach = all
        .iter()
        .map(|share| (share - 0.5).abs())
        .filter(|reach| reach.is_finite())
        .fold(0.05, f64::max);
    let reach = ((reach * 20.0).ceil() / 20.0).min(0.5);
    let range = (0.5 - reach, 0.5 + reach);
    let figures = groups.iter().enumerate().filter(|(_, group)| group.runs.iter().any(|run| !run.gate_shares.is_empty())).map(|(index, group)| {
        let tasks = group.tasks();
        let layers = group.runs.iter().flat_map(|run| run.gate_shares.values().map(Vec::len)).max().unwrap_or(0);
        let cell = |task: usize, layer: usize| {
            let share = group.spread(|run| run.gate_shares.get(&task)?.get(layer).copied())?.mean;
            Some(Cell { value: share, text: format!("{:.0}", share * 100.0), note: None, framed: false })
        };
        let mean = |task: usize| Some((task, Spread::of((0..layers).map(|layer| cell(task, layer).map(|cell| cell.value)))?.mean));
        let said: Vec<String> = (0..tasks.len()).filter_map(mean).map(|(task, mean)| format!("{} {:.0} %", tasks[task], mean * 100.0)).collect();
        let map = HeatMap {
            alternative: format!("Gate share of the shared expert of {} per layer and task; means over layers: {}.", group.label, said.join(", ")),
            row_axis: "task",
            rows: tasks.iter().enumerate().map(|(task, name)| format!("{} {name}", task + 1)).collect(),
            column_axis: "adapted layer, from the input to the output; share of the shared expert in %",
            columns: (1..=layers).map(|layer| layer.to_string()).collect(),
            cells: (0..tasks.len()).map(|task| (0..layers).map(|layer| cell(task, layer)).collect()).collect(),
            palette: Palette::Diverging,
            range,
            size: (if layers > 16 { 26.0 } else { 44.0 }, 26.0),
        };
        figure(&group.label, index, &map.svg())
    });
    let (dedicated, shared) = (
        format!("{:.0} % dedicated", range.0 * 100.0),
        format!("{:.0} % shared", range.1 * 100.0),
    );
    section(
        "Gates: which expert answers, layer by layer",
        "Mean weight that the gate gives to the shared expert on the task just learnt. Blue layers lean on what tasks share, orange ones on the task's own expert; 50 is even.",
        &format!(
            "{}{}",
            figures.collect::<String>(),
            legend(Palette::Diverging, range, [&dedicated, "50 %", &shared])
        ),
    )
}
