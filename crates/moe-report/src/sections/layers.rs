//! What methods say of each adapted layer.

use std::collections::BTreeSet;

use super::{captions::caption, figure, section};
use crate::{
    colours::Palette,
    groups::{Group, Spread},
    heat_map::{Cell, HeatMap, legend},
    run_data::RunData,
};

/// A section per figure of the layers: each layer's value after each task.
pub fn layer_figures(groups: &[Group<'_>]) -> String {
    let runs = groups.iter().flat_map(|group| &group.runs);
    let names: BTreeSet<&String> = runs.flat_map(|run| run.layer_figures.keys()).collect();
    names.into_iter().map(|name| one(groups, name)).collect()
}

fn one(groups: &[Group<'_>], name: &str) -> String {
    let caption = caption(name);
    let (low, high) = range(groups, name, caption.and_then(|caption| caption.middle));
    let palette = match caption.and_then(|caption| caption.middle) {
        Some(_) => Palette::Diverging,
        None => Palette::Sequential,
    };
    let maps: String = groups
        .iter()
        .enumerate()
        .filter_map(|(index, group)| {
            let map = map(group, name, palette, (low, high))?;
            Some(figure(&group.label, index, &map.svg()))
        })
        .collect();
    let ends = [format!("{low:.2}"), format!("{high:.2}")];
    section(
        caption.map_or(name, |caption| caption.title),
        caption.map_or("Each adapted layer on the task just learnt.", |caption| {
            caption.how
        }),
        &format!(
            "{maps}{}",
            legend(palette, (low, high), [&ends[0], name, &ends[1]])
        ),
    )
}

/// The values of a figure in a run, by index of the task and by layer.
fn values<'a>(run: &'a RunData, name: &str) -> impl Iterator<Item = (&'a usize, &'a Vec<f64>)> {
    run.layer_figures.get(name).into_iter().flatten()
}

/// The two ends of the colours, even about `middle` where there is one.
fn range(groups: &[Group<'_>], name: &str, middle: Option<f64>) -> (f64, f64) {
    let runs = groups.iter().flat_map(|group| &group.runs);
    let all = runs.flat_map(|run| values(run, name).flat_map(|(_, layers)| layers));
    let finite: Vec<f64> = all.copied().filter(|value| value.is_finite()).collect();
    let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
    let high = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match middle {
        Some(middle) => {
            let reach = (middle - low).max(high - middle).max(0.05);
            let reach = (reach * 20.0).ceil() / 20.0;
            (middle - reach, middle + reach)
        }
        None if low < high => (low, high),
        None => (0.0, 1.0),
    }
}

fn map<'a>(
    group: &'a Group<'_>,
    name: &str,
    palette: Palette,
    range: (f64, f64),
) -> Option<HeatMap<'a>> {
    let tasks = group.tasks();
    let runs = group.runs.iter();
    let layers = runs
        .flat_map(|run| values(run, name).map(|(_, layers)| layers.len()))
        .max()?;
    let first = group.runs[0].first_layer;
    let cell = |task: usize, layer: usize| {
        let value = |run: &RunData| {
            let layers = run.layer_figures.get(name)?.get(&task)?;
            layers.get(layer).copied().filter(|value| value.is_finite())
        };
        let value = group.spread(value)?.mean;
        let text = format!("{value:.2}").replacen("0.", ".", 1);
        Some(Cell {
            value,
            text,
            note: None,
            framed: false,
        })
    };
    let said = |task: usize| {
        let values = (0..layers).map(|layer| cell(task, layer).map(|cell| cell.value));
        let mean = Spread::of(values)?.mean;
        Some(format!("{} {mean:.2}", tasks[task]))
    };
    let said: Vec<String> = (0..tasks.len()).filter_map(said).collect();
    Some(HeatMap {
        alternative: format!(
            "{name} of {} per layer and task; means over layers: {}.",
            group.label,
            said.join(", ")
        ),
        row_axis: "task",
        rows: tasks
            .iter()
            .enumerate()
            .map(|(task, name)| format!("{} {name}", task + 1))
            .collect(),
        column_axis: "layer of the decoder, counted from 0 at the input",
        columns: (first..first + layers)
            .map(|layer| layer.to_string())
            .collect(),
        cells: (0..tasks.len())
            .map(|task| (0..layers).map(|layer| cell(task, layer)).collect())
            .collect(),
        palette,
        range,
        size: (if layers > 16 { 26.0 } else { 44.0 }, 26.0),
    })
}
