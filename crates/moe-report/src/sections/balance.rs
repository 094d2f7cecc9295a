//! How the tokens of sparse layers are spread over their experts: over the steps of training, and task by task.

use std::collections::BTreeSet;

use moe_cl::events::LayerBalance;

use super::{figure, section};
use crate::{
    colours::Palette,
    groups::Group,
    heat_map::{Cell, HeatMap, legend},
    run_data::RunData,
};

/// Most steps that are shown side by side.
const COLUMNS: usize = 24;
/// Ends of the colours of a load: nothing, and twice as much as if all were even.
const LOADS: (f64, f64) = (0.0, 2.0);
/// Where the colours of an unevenness end.
const UNEVEN: (f64, f64) = (0.0, 1.0);

/// A section for the course of the unevenness, and one for the load of every expert on every task.
pub fn balance(groups: &[Group<'_>]) -> String {
    let over_steps: String = groups
        .iter()
        .enumerate()
        .filter_map(|(index, group)| Some(figure(&group.label, index, &course(group)?.svg())))
        .collect();
    let by_task: String = groups
        .iter()
        .enumerate()
        .flat_map(|(index, group)| {
            (0..group.tasks().len()).filter_map(move |task| {
                let name = format!("{}: {}", group.label, group.tasks()[task]);
                Some(figure(&name, index, &loads(group, task)?.svg()))
            })
        })
        .collect();
    let mut sections = String::new();
    if !over_steps.is_empty() {
        let legend = legend(
            Palette::Sequential,
            UNEVEN,
            ["0: even", "CV² of the load", "1 and more"],
        );
        sections += &section(
            "Experts of the base: how evenly the tokens are spread, step by step",
            "Squared coefficient of variation of the tokens per expert (Shazeer et al. 2017), per sparse layer, at the steps that were looked at: 0 where all experts have as many, experts − 1 where one has all.",
            &format!("{over_steps}{legend}"),
        );
    }
    if !by_task.is_empty() {
        let legend = legend(
            Palette::Diverging,
            LOADS,
            ["0", "share of the tokens, 1: as if even", "2 and more"],
        );
        sections += &section(
            "Experts of the base: which task uses which",
            "Tokens of a task's scored texts per expert, over what each would have if all were even, when the task was last scored.",
            &format!("<div class=\"row\">{by_task}</div>{legend}"),
        );
    }
    sections
}

/// CV² of the load per layer and step.
fn course<'a>(group: &'a Group<'_>) -> Option<HeatMap<'a>> {
    let looks = |run: &RunData| run.balance_of_steps.clone();
    let steps: BTreeSet<usize> = (group.runs.iter())
        .flat_map(|run| looks(run).into_keys())
        .collect();
    let steps: Vec<usize> = steps.into_iter().collect();
    let every = steps.len().div_ceil(COLUMNS).max(1);
    // The last is among them.
    let shown: Vec<usize> = steps.iter().rev().step_by(every).rev().copied().collect();
    let layers = layers_of(
        group
            .runs
            .iter()
            .flat_map(|run| run.balance_of_steps.values()),
    );
    let cell = |layer: usize, step: usize| {
        let value = |run: &RunData| {
            Some(
                of(run.balance_of_steps.get(&step)?, layer)?
                    .figures
                    .load_cv_squared,
            )
        };
        Some(number(group.spread(value)?.mean))
    };
    let mean = |step: usize| {
        let values: Vec<f64> = layers
            .iter()
            .filter_map(|&layer| Some(cell(layer, step)?.value))
            .collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    };
    let (first, last) = (*shown.first()?, *shown.last()?);
    Some(HeatMap {
        alternative: format!(
            "CV² of the load of {} per sparse layer and step; mean over layers {:.2} at step {first}, {:.2} at step {last}.",
            group.label,
            mean(first),
            mean(last)
        ),
        row_axis: "layer",
        rows: layers.iter().map(usize::to_string).collect(),
        column_axis: "optimiser step",
        columns: shown.iter().map(usize::to_string).collect(),
        cells: layers
            .iter()
            .map(|&layer| shown.iter().map(|&step| cell(layer, step)).collect())
            .collect(),
        palette: Palette::Sequential,
        range: UNEVEN,
        size: (44.0, 26.0),
    })
}

/// The load of every expert of every sparse layer on a task.
fn loads<'a>(group: &'a Group<'_>, task: usize) -> Option<HeatMap<'a>> {
    let of_task = |run: &'a RunData| run.balance_of_tasks.get(&task);
    let layers = layers_of(group.runs.iter().filter_map(|run| of_task(run)));
    let experts = (group.runs.iter().filter_map(|run| of_task(run)))
        .flatten()
        .map(|it| it.figures.load.len())
        .max()?;
    let cell = |layer: usize, expert: usize| {
        let value = |run: &RunData| {
            let load = &of(run.balance_of_tasks.get(&task)?, layer)?.figures.load;
            let all: u64 = load.iter().sum();
            (all > 0)
                .then(|| *load.get(expert).unwrap_or(&0) as f64 * load.len() as f64 / all as f64)
        };
        Some(number(group.spread(value)?.mean))
    };
    let dead = layers
        .iter()
        .flat_map(|&layer| (0..experts).map(move |expert| (layer, expert)));
    let dead =
        dead.filter(|&(layer, expert)| cell(layer, expert).is_some_and(|cell| cell.value == 0.0));
    Some(HeatMap {
        alternative: format!(
            "Load of {experts} experts of {} in {} sparse layers on {}, over an even one; {} of them get no token.",
            group.label,
            layers.len(),
            group.tasks()[task],
            dead.count()
        ),
        row_axis: "layer",
        rows: layers.iter().map(usize::to_string).collect(),
        column_axis: "expert",
        columns: (0..experts).map(|expert| expert.to_string()).collect(),
        cells: layers
            .iter()
            .map(|&layer| (0..experts).map(|expert| cell(layer, expert)).collect())
            .collect(),
        palette: Palette::Diverging,
        range: LOADS,
        size: (if experts > 16 { 26.0 } else { 40.0 }, 26.0),
    })
}

/// The layers that are in any of these looks.
fn layers_of<'a>(looks: impl Iterator<Item = &'a Vec<LayerBalance>>) -> Vec<usize> {
    let layers: BTreeSet<usize> = looks.flatten().map(|it| it.layer).collect();
    layers.into_iter().collect()
}

fn of(layers: &[LayerBalance], layer: usize) -> Option<&LayerBalance> {
    layers.iter().find(|it| it.layer == layer)
}

fn number(value: f64) -> Cell {
    let text = match value {
        value if value < 9.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    };
    Cell {
        value,
        text: match text.strip_prefix("0.") {
            Some("0") => "0".into(),
            Some(digit) => format!(".{digit}"),
            None => text,
        },
        note: None,
        framed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{examples, groups::groups};

    #[test]
    fn every_expert_of_every_layer_has_a_cell_per_task_and_every_layer_one_per_step() {
        let mut runs = examples::runs(2);
        assert_eq!(balance(&groups(&runs)), "");
        examples::with_routers(&mut runs[0], 60);
        let page = balance(&groups(&runs));
        // Two layers at the 20 shown of 60 looks; two layers of four experts on four tasks.
        assert_eq!(page.matches("class=\"cell ").count(), 2 * 20 + 4 * 2 * 4);
        assert!(
            page.contains("mean over layers 1.00 at step 3, 0.50 at step 60"),
            "{page}"
        );
        assert!(page.contains("on nyt, over an even one; 2 of them get no token"));
        assert!(!page.contains("NaN"));
    }
}
