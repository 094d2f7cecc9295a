//! The table as Markdown and as a page.

use std::{io, path::Path};

use anyhow::Context;
use moe_report::{RunData, escape};

use super::{
    Run,
    figures::{FIGURES, Part, change, share},
    steps::StepTimes,
    table::{Row, Table, Value},
};

/// One of the tables, as text: heading, what it says, heads of the columns, rows.
struct Sheet {
    title: &'static str,
    how: String,
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table<'_> {
    /// The tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}, budget {}\n", self.suite, self.budget);
        for sheet in self.sheets() {
            let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ").replace('\n', " "));
            let rule: String = sheet.heads.iter().map(|_| "---|").collect();
            text += &format!("\n## {}\n\n{}\n\n", sheet.title, sheet.how);
            text += &format!("{}|{rule}\n", line(&sheet.heads));
            text.extend(sheet.rows.iter().map(|row| line(row)));
        }
        text
    }

    fn html(&self) -> String {
        let sheet = |sheet: &Sheet| {
            let cells = |row: &[String], tag: &str| -> String {
                let cells = row
                    .iter()
                    .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
                format!("<tr>{}</tr>", cells.collect::<String>())
            };
            let rows: String = sheet.rows.iter().map(|row| cells(row, "td")).collect();
            format!(
                "<section><h2>{}</h2><p class=\"how\">{}</p><div class=\"scroll\"><table><thead>{}</thead><tbody>{rows}</tbody></table></div></section>",
                escape(sheet.title),
                escape(&sheet.how),
                cells(&sheet.heads, "th")
            )
        };
        self.sheets().iter().map(sheet).collect()
    }

    fn sheets(&self) -> Vec<Sheet> {
        let mut sheets = vec![
            self.figures("Accuracy, the task of every text given", Part::Given),
            self.figures("Accuracy, the task of every text inferred", Part::Inferred),
            self.figures("General ability", Part::Ability),
            self.figures("Cost", Part::Cost),
            self.steps(),
            self.per_order(),
            self.differences(),
            self.stripping(),
            self.failures(),
        ];
        sheets.retain(|sheet| !sheet.rows.is_empty());
        sheets
    }

    fn figures(&self, title: &'static str, part: Part) -> Sheet {
        let columns: Vec<usize> = (0..FIGURES.len())
            .filter(|&column| FIGURES[column].part == part)
            .collect();
        let meanings: Vec<String> = columns
            .iter()
            .map(|&column| format!("{}: {}", FIGURES[column].name, FIGURES[column].meaning))
            .collect();
        let cell = |row: &Row, column: usize| match row.values[column] {
            Some(value) => with_deviation(value, FIGURES[column].format),
            None if row.finished == 0 => "failed".into(),
            None => "–".into(),
        };
        let row = |row: &Row| {
            let method = match row.asked - row.finished {
                0 => row.method.clone(),
                failed => format!("{} ({failed} of {} runs failed)", row.method, row.asked),
            };
            let cells = columns.iter().map(|&column| cell(row, column));
            std::iter::once(method).chain(cells).collect()
        };
        Sheet {
            title,
            how: format!(
                "Mean ± standard deviation over seeds, each seed the mean over its orders. {}.",
                meanings.join("; ")
            ),
            heads: std::iter::once("method".into())
                .chain(columns.iter().map(|&column| FIGURES[column].name.into()))
                .collect(),
            rows: self.rows.iter().map(row).collect(),
        }
    }

    fn per_order(&self) -> Sheet {
        let mut orders: Vec<usize> = self.runs.iter().map(|run| run.order).collect();
        orders.sort_unstable();
        orders.dedup();
        let row = |row: &Row| {
            let cells = orders.iter().map(|order| {
                let value = row.per_order.get(order);
                value.map_or("–".into(), |value| with_deviation(*value, share))
            });
            std::iter::once(row.method.clone()).chain(cells).collect()
        };
        Sheet {
            title: "AvgAcc by order",
            how: "The task given; mean ± standard deviation over seeds.".into(),
            heads: std::iter::once("method".into())
                .chain(orders.iter().map(|order| format!("order {order}")))
                .collect(),
            rows: if orders.len() > 1 {
                self.rows.iter().map(row).collect()
            } else {
                Vec::new()
            },
        }
    }

    fn differences(&self) -> Sheet {
        let rows = self.differences.iter().map(|pair| {
            let difference = pair.difference;
            vec![
                pair.first.clone(),
                pair.second.clone(),
                change(difference.mean),
                format!("[{}, {}]", change(difference.low), change(difference.high)),
                if difference.is_clear() { "yes" } else { "no" }.into(),
                pair.runs.to_string(),
            ]
        });
        Sheet {
            title: "Differences between methods",
            how: "AvgAcc of the first less that of the second, the task given, with the 95 % interval of a paired bootstrap over the test texts. The interval speaks of texts, not of seeds.".into(),
            heads: ["first", "second", "difference", "95 % interval", "clear of 0", "runs"].map(String::from).to_vec(),
            rows: rows.collect(),
        }
    }

    fn stripping(&self) -> Sheet {
        let rows = self.stripping.iter().flat_map(|stripped| {
            stripped.targets.iter().map(|values| {
                let [asked, before, after, end, precision] = *values;
                let gain = after.zip(before).map(|(after, before)| after - before);
                let cell = |value: Option<f64>, format: fn(f64) -> String| {
                    value.map_or("–".into(), format)
                };
                vec![
                    stripped.method.clone(),
                    stripped.task.clone(),
                    cell(asked, share),
                    cell(before, share),
                    cell(after, share),
                    cell(gain, change),
                    cell(end, share),
                    cell(precision, share),
                ]
            })
        });
        Sheet {
            title: "Stripping rate",
            how: "Share of the test texts that need no reviewer, at a precision asked for. Thresholds are chosen on dev and applied to test, so the precision reached may differ.".into(),
            heads: ["method", "task", "precision asked", "A: before the task", "B: after it", "B − A", "at the end", "precision reached at the end"].map(String::from).to_vec(),
            rows: rows.collect(),
        }
    }

    fn steps(&self) -> Sheet {
        let mut counts: Vec<usize> = self
            .steps
            .iter()
            .flat_map(|times| times.timed.iter().map(|timed| timed.tasks))
            .collect();
        counts.sort_unstable();
        counts.dedup();
        let row = |times: &StepTimes| {
            let own = [times.first, times.last]
                .map(|value| value.map_or("–".into(), |value| format!("{value:.0}")));
            let timed = counts.iter().map(|count| {
                let timed = times.timed.iter().find(|timed| timed.tasks == *count);
                timed.map_or("–".into(), |timed| format!("{:.3}", timed.seconds))
            });
            std::iter::once(times.method.clone())
                .chain(own)
                .chain(timed)
                .collect()
        };
        Sheet {
            title: "Time per step as tasks come",
            how: "µs per token: the runs' own steps on their first and their last task, padding not counted. Seconds per step by the number of tasks: median of a step on random texts, batch 8 × 96 tokens, all 30 layers of SmolLM2-135M's shapes, rank 8, without what a method remembers of earlier tasks' texts.".into(),
            heads: ["method", "first task, µs/token", "last task, µs/token"]
                .map(String::from)
                .into_iter()
                .chain(counts.iter().map(|count| match count {
                    1 => "1 task".into(),
                    count => format!("{count} tasks"),
                }))
                .collect(),
            rows: self.steps.iter().map(row).collect(),
        }
    }

    fn failures(&self) -> Sheet {
        let rows = self.runs.iter().filter_map(|run| {
            let reason = run.outcome.as_ref().err()?.replace('|', "/");
            Some(vec![
                run.method.clone(),
                run.order.to_string(),
                run.seed.to_string(),
                reason,
            ])
        });
        Sheet {
            title: "Runs that failed",
            how: "They count in no mean. The same command tries them again.".into(),
            heads: ["method", "order", "seed", "why"]
                .map(String::from)
                .to_vec(),
            rows: rows.collect(),
        }
    }
}

fn with_deviation(value: Value, format: fn(f64) -> String) -> String {
    let mean = format(value.mean);
    match value.std {
        Some(std) => format!("{mean} ± {}", format(std).trim_start_matches('+')),
        None => mean,
    }
}

/// Writes the page: the tables, then the report over the runs with its pictures.
///
/// # Errors
/// When a run's log cannot be read or the page cannot be written.
pub fn write(table: &Table<'_>, runs: &[Run], path: &Path) -> anyhow::Result<()> {
    let logs = runs
        .iter()
        .filter_map(|run| RunData::load(run.outcome.as_ref().ok()?.folder.as_ref()?).into())
        .collect::<io::Result<Vec<_>>>()?;
    let front = table.html();
    if logs.is_empty() {
        let page = format!(
            "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{}</title>\n{front}\n",
            table.suite
        );
        return moe_core::atomic::write_file(path, page.as_bytes())
            .with_context(|| path.display().to_string());
    }
    Ok(moe_report::write_with(&logs, &front, path)?)
}
