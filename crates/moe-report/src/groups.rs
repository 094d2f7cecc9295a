//! Runs that differ only in their seed, taken together.

use super::run_data::RunData;

/// Runs of one method with one configuration, over seeds.
pub struct Group<'a> {
    /// What the method is called in the report; no two groups have the same.
    pub label: String,
    /// Its runs.
    pub runs: Vec<&'a RunData>,
}

/// Mean and sample standard deviation over the runs of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Mean over the runs that have a value.
    pub mean: f64,
    /// Standard deviation (n − 1); none for a single value.
    pub deviation: Option<f64>,
}

impl Spread {
    /// The spread of the values that are there; none where there is none.
    pub fn of(values: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().flatten().collect();
        let n = values.len() as f64;
        let mean = (n > 0.0).then(|| values.iter().sum::<f64>() / n)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (n > 1.0).then(|| (squares / (n - 1.0)).sqrt());
        Some(Self { mean, deviation })
    }
}

impl Group<'_> {
    /// Spread of a figure over the runs.
    pub fn spread(&self, figure: impl Fn(&RunData) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().map(|run| figure(run)))
    }

    /// Whether the other's tasks are the same, in the same order, with as many texts of each.
    pub fn same_stream(&self, other: &Self) -> bool {
        let stream = |group: &Self| {
            let run = group.runs[0];
            let mut data = run.config.get("data").and_then(|it| it.as_table()).cloned();
            if let Some(data) = &mut data {
                data.remove("root");
                data.remove("suite");
            }
            let split = run
                .config
                .get("evaluation")
                .and_then(|it| it.get("split").cloned());
            (run.tasks.clone(), data, split)
        };
        stream(self) == stream(other)
    }

    /// Names of the tasks.
    pub fn tasks(&self) -> &[String] {
        &self.runs[0].tasks
    }
}

/// Groups `runs` in the order in which their first runs come.
pub fn groups(runs: &[RunData]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        match groups
            .iter_mut()
            .find(|group| differ_only_in_seed(group.runs[0], run))
        {
            Some(group) => group.runs.push(run),
            None => groups.push(Group {
                label: run.method.clone(),
                runs: vec![run],
            }),
        }
    }
    let methods: Vec<String> = groups.iter().map(|group| group.label.clone()).collect();
    for group in &mut groups {
        if methods
            .iter()
            .filter(|method| **method == group.label)
            .count()
            > 1
        {
            group.label = format!("{}: {}", group.label, group.runs[0].name);
        }
    }
    for index in 1..groups.len() {
        let taken = |label: &str| groups[..index].iter().any(|group| group.label == label);
        let label = groups[index].label.clone();
        let numbered = (1..).map(|n| {
            if n == 1 {
                label.clone()
            } else {
                format!("{label} #{n}")
            }
        });
        let free = numbered.into_iter().find(|label| !taken(label));
        groups[index].label = free.expect("there are more numbers than groups");
    }
    groups
}

fn differ_only_in_seed(a: &RunData, b: &RunData) -> bool {
    let configuration = |run: &RunData| {
        let mut config = run.config.clone();
        config.remove("seed");
        config.remove("name");
        config
    };
    let alike = a.method == b.method && a.tasks == b.tasks && a.total_steps == b.total_steps;
    alike && a.seed != b.seed && configuration(a) == configuration(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(method: &str, seed: u64, config: &str) -> RunData {
        let config = config.parse().unwrap();
        RunData {
            method: method.into(),
            name: "n".into(),
            seed,
            config,
            ..RunData::default()
        }
    }

    #[test]
    fn only_the_seed_may_differ_within_a_group() {
        let runs = [
            run("a", 0, "seed = 0\nrank = 8"),
            run("a", 1, "seed = 1\nrank = 8"),
            run("a", 2, "seed = 2\nrank = 4"),
            run("b", 0, "seed = 0\nrank = 8"),
        ];
        let groups = groups(&runs);
        let sizes: Vec<usize> = groups.iter().map(|group| group.runs.len()).collect();
        assert_eq!(sizes, [2, 1, 1]);
        let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
        assert_eq!(labels, ["a: n", "a: n #2", "b"]);
    }

    #[test]
    fn a_spread_skips_missing_values() {
        let spread = Spread::of([Some(1.0), None, Some(3.0)]).unwrap();
        assert_eq!(
            spread,
            Spread {
                mean: 2.0,
                deviation: Some(2_f64.sqrt())
            }
        );
        assert_eq!(Spread::of([Some(1.0)]).unwrap().deviation, None);
        assert_eq!(Spread::of([None]), None);
    }
}
