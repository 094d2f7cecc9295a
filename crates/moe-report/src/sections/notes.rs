//! Warnings and settings of the runs.

use std::collections::BTreeSet;

use crate::{groups::Group, run_data::RunData, svg::escape};

/// Warnings, each text once with the methods that gave it.
pub fn warnings(runs: &[RunData]) -> String {
    let mut warned: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    for (run, warning) in runs
        .iter()
        .flat_map(|run| run.warnings.iter().map(move |text| (run, text)))
    {
        match warned.iter_mut().find(|(text, _)| text == warning) {
            Some((_, methods)) => drop(methods.insert(&run.method)),
            None => warned.push((warning, BTreeSet::from([run.method.as_str()]))),
        }
    }
    let items: String = warned
        .iter()
        .map(|(warning, methods)| {
            let methods = methods.iter().copied().collect::<Vec<_>>().join(", ");
            format!(
                "<li>{} <span class=\"how\">({})</span></li>",
                escape(warning),
                escape(&methods)
            )
        })
        .collect();
    if items.is_empty() {
        return String::new();
    }
    format!("<section><h2>Warnings</h2><ul class=\"warnings\">{items}</ul></section>")
}

/// Every setting, with a column per method where they differ.
pub fn settings(groups: &[Group<'_>]) -> String {
    let all: Vec<Vec<(String, String)>> = groups
        .iter()
        .map(|group| group.runs[0].settings())
        .collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in all.iter().flatten() {
        if !keys.contains(&key) && key != "seed" {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return String::new();
    }
    let rows: String = keys
        .iter()
        .map(|key| {
            let values: Vec<&str> = all
                .iter()
                .map(|settings| {
                    settings
                        .iter()
                        .find(|(name, _)| name == *key)
                        .map_or("–", |(_, value)| value)
                })
                .collect();
            let cells: String = if values.iter().all(|value| *value == values[0]) {
                format!(
                    "<td colspan=\"{}\">{}</td>",
                    values.len(),
                    escape(values[0])
                )
            } else {
                values
                    .iter()
                    .map(|value| format!("<td><strong>{}</strong></td>", escape(value)))
                    .collect()
            };
            format!(
                "<tr><th scope=\"row\"><code>{}</code></th>{cells}</tr>",
                escape(key)
            )
        })
        .collect();
    let heads: String = groups
        .iter()
        .map(|group| format!("<th scope=\"col\">{}</th>", escape(&group.label)))
        .collect();
    format!(
        "<section><h2>Settings</h2><details><summary>Every setting of the runs; those that differ between methods are bold</summary>\
         <div class=\"scroll\"><table class=\"settings\"><thead><tr><th scope=\"col\">Key</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details></section>"
    )
}
