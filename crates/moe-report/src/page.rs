//! The page: what was run, the figures side by side, the pictures, the warnings and the settings.

use std::collections::BTreeSet;

use super::{
    colours,
    figures::{FIGURES, duration},
    groups::{Group, groups},
    run_data::RunData,
    sections,
    svg::escape,
};

/// The whole report as one HTML document; `front`, sections of the caller's, stands before the figures.
pub fn html(runs: &[RunData], front: &str) -> String {
    let groups = groups(runs);
    let names: BTreeSet<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = format!(
        "Continual learning: {}",
        names.into_iter().collect::<Vec<_>>().join(", ")
    );
    let parts = [
        header(&title, runs, &groups),
        front.to_owned(),
        figures(&groups),
        sections::matrices(&groups),
        sections::forgetting(&groups),
        sections::routing(&groups),
        sections::losses(&groups),
        sections::layer_figures(&groups),
        sections::step_figures(&groups),
        sections::balance(&groups),
        sections::warnings(runs),
        sections::settings(&groups),
    ];
    let (title, style) = (escape(&title), style());
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{style}</style>\n</head>\n<body>\n<main>\n{}\n<footer>Written by moe-cl {version}.</footer>\n</main>\n</body>\n</html>\n",
        parts.join("\n")
    )
}

fn style() -> String {
    let dark_surfaces = "--page:#15171b;--card:#1b1e23;--ink:#e9eaed;--quiet:#a3a8b2;--rule:#383c44;--grid:#2a2d34;--tint:#1f2228;";
    format!(
        "{}\n:root{{{}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark_surfaces}{}}}}}\n{}",
        include_str!("style.css"),
        colours::variables(false),
        colours::variables(true),
        colours::rules(),
    )
}

fn header(title: &str, runs: &[RunData], groups: &[Group<'_>]) -> String {
    let first = &runs[0];
    let count = |n: usize, what: &str| {
        if n == 1 {
            format!("one {what}")
        } else {
            format!("{n} {what}s")
        }
    };
    let seeds: BTreeSet<u64> = runs.iter().map(|run| run.seed).collect();
    let several_seeds = groups.iter().any(|group| group.runs.len() > 1);
    let lead = format!(
        "{} learnt one after the other by {}, {}.",
        capitalised(&count(first.tasks.len(), "task")),
        count(groups.len(), "method"),
        if several_seeds {
            format!(
                "{}; figures are mean ± standard deviation over seeds",
                count(seeds.len(), "seed")
            )
        } else {
            count(seeds.len(), "seed")
        },
    );
    let mut facts = vec![("Stream", first.tasks.join(" → "))];
    let setting = |key: &str| {
        first
            .settings()
            .into_iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    };
    facts.extend(setting("base.source").map(|base| ("Base model", base)));
    facts.extend(setting("training.objective").map(|objective| ("Objective", objective)));
    let per_task: Vec<String> = first
        .spans
        .iter()
        .map(|span| format!("{} / {}", span.examples, span.steps))
        .collect();
    if !per_task.is_empty() {
        facts.push(("Examples / steps per task", once_if_alike(&per_task)));
    }
    let trained: Vec<String> = groups
        .iter()
        .filter_map(|group| {
            let most = group.runs[0]
                .spans
                .iter()
                .map(|span| span.trainable)
                .max()?;
            Some(thousands(most))
        })
        .collect();
    if !trained.is_empty() {
        facts.push(("Parameters trained at a time", once_if_alike(&trained)));
    }
    facts.push((
        "Seeds",
        seeds
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    ));
    let facts: String = facts
        .iter()
        .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(value)))
        .collect();
    let unfinished: String = runs
        .iter()
        .filter(|run| !run.finished)
        .map(|run| {
            let done = run.steps.last().map_or(0, |step| step.step);
            let place = format!(
                "{} (seed {}) is not finished: step {done} of {}",
                run.method, run.seed, run.total_steps
            );
            format!(
                "<p class=\"notice\">{}, after {}.</p>",
                escape(&place),
                duration(run.seconds)
            )
        })
        .collect();
    format!(
        "<header><h1>{}</h1><p class=\"lead\">{}</p><dl class=\"facts\">{facts}</dl>{unfinished}</header>",
        escape(title),
        escape(&lead)
    )
}

fn figures(groups: &[Group<'_>]) -> String {
    let heads: String = FIGURES
        .iter()
        .map(|figure| {
            let arrow = match figure.higher_is_better {
                Some(true) => " ↑",
                Some(false) => " ↓",
                None => "",
            };
            format!(
                "<th scope=\"col\" title=\"{}\">{}{arrow}</th>",
                escape(figure.meaning),
                figure.name
            )
        })
        .collect();
    let best: Vec<Vec<bool>> = FIGURES.iter().map(|figure| figure.best(groups)).collect();
    let rows: String = groups
        .iter()
        .enumerate()
        .map(|(row, group)| {
            let cells: String = FIGURES
                .iter()
                .zip(&best)
                .map(|(figure, best)| {
                    let class = if best[row] { " class=\"best\"" } else { "" };
                    let text = escape(&figure.text(group).unwrap_or("–".into()).replace('-', "−"));
                    let over = figure
                        .coverage(group)
                        .map_or_else(String::new, |over| format!("<small> {over}</small>"));
                    match text.split_once(" ± ") {
                        Some((mean, deviation)) => {
                            format!("<td{class}>{mean}<small> ± {deviation}</small>{over}</td>")
                        }
                        None => format!("<td{class}>{text}{over}</td>"),
                    }
                })
                .collect();
            format!(
                "<tr><th scope=\"row\">{}</th>{cells}</tr>",
                escape(&group.label)
            )
        })
        .collect();
    let meanings: String = FIGURES
        .iter()
        .map(|figure| {
            format!(
                "<dt>{}</dt><dd>{}</dd>",
                figure.name,
                escape(figure.meaning)
            )
        })
        .collect();
    format!(
        "<section><h2>The figures side by side</h2><p class=\"how\">★ marks the best mean; ↑ more is better, ↓ less is better. A figure that says over how many leaves out what was not measured.</p>\
         <div class=\"scroll\"><table class=\"figures\"><thead><tr><th scope=\"col\">Method</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>\
         <details><summary>What the figures mean</summary><dl class=\"facts\">{meanings}</dl>\
         <p>Unless a figure says that the task is inferred, methods with an expert per task are told which task a text belongs to, in training and in evaluation.</p></details></section>"
    )
}

fn once_if_alike(texts: &[String]) -> String {
    match texts {
        [first, rest @ ..] if rest.iter().all(|text| text == first) => first.clone(),
        texts => texts.join(", "),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    let texts = groups.into_iter().map(String::from_utf8_lossy);
    texts.collect::<Vec<_>>().join("\u{202f}")
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(characters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn the_page_stands_alone() {
        let page = html(&examples::runs(2), "");
        for outside in [
            "http:", "https:", "<script", "src=", "url(", "@import", "<link",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf\""));
    }

    #[test]
    fn a_figure_that_nobody_has_heard_of_is_drawn_under_its_name() {
        let mut run = examples::runs(1).remove(0);
        for step in &mut run.steps {
            step.figures = [("surprise/level".to_owned(), -0.5)].into();
        }
        let layers = run.layer_figures.remove("gate/shared").unwrap();
        run.layer_figures.insert("norm/own".into(), layers);
        let page = html(&[run], "");
        assert!(page.contains("<h2>surprise</h2>") && page.contains("<h2>norm/own</h2>"));
        assert!(!page.contains("iscriminator") && !page.contains("NaN"));
    }

    #[test]
    fn every_picture_says_in_words_what_it_shows() {
        let page = html(&examples::runs(1), "");
        assert!(page.matches("<svg ").count() > 8);
        assert_eq!(
            page.matches("<svg ").count(),
            page.matches("<svg role=\"img\" aria-label=\"").count()
        );
        assert!(!page.contains("aria-label=\"\""));
    }

    #[test]
    fn every_name_is_escaped() {
        let mut runs = examples::runs(1);
        for run in &mut runs {
            run.name = "<i>name".into();
            run.method = format!("<i>{}", run.method);
            run.tasks[0] = "<i>task".into();
            run.warnings = vec!["<i>warning".into()];
            run.config = "[a]\n\"<i>key\" = \"<i>value\"".parse().unwrap();
        }
        let page = html(&runs, "");
        assert!(!page.contains("<i>"));
        assert!(page.contains("&lt;i&gt;key") && page.contains("&lt;i&gt;warning"));
    }

    #[test]
    fn a_run_that_has_only_begun_can_be_shown() {
        let mut run = examples::runs(1).remove(0);
        run.steps.clear();
        run.spans.clear();
        run.matrix = Default::default();
        run.layer_figures.clear();
        run.finished = false;
        let page = html(&[run], "");
        assert!(page.contains("is not finished: step 0 of "));
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(thousands(12), "12");
    }
}
