//! Synthetic runs for the tests of this module: numbers made up to look like a small experiment, not measured.

use moe_cl::events::{BalanceFigures, Event, LayerBalance, Logged};

use super::*;

const TASKS: [&str; 4] = ["tweets", "amazon", "movies", "nyt"];
const STEPS: usize = 64;

/// Three methods over `seeds` seeds.
pub fn runs(seeds: u64) -> Vec<RunData> {
    let methods = [
        ("moe_cl (improved)", 0.0),
        ("moe_cl (paper)", 0.25),
        ("sequential", 1.0),
    ];
    methods
        .into_iter()
        .flat_map(|(method, loss)| (0..seeds).map(move |seed| run(method, loss, seed)))
        .collect()
}

/// A made-up run that loses `fade` × 0.3 of a task's accuracy as the others are learnt.
fn run(method: &str, fade: f64, seed: u64) -> RunData {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ method.len() as u64;
    let mut noise = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64 - 0.5
    };
    let mut time = 1_000.0;
    let mut log = Vec::new();
    let mut put = |time: f64, event| log.push(Logged { time, event });
    let tasks: Vec<String> = TASKS.map(str::to_owned).to_vec();
    let total_steps = STEPS * TASKS.len();
    put(
        time,
        Event::RunStarted {
            name: "synthetic".into(),
            method: method.into(),
            seed,
            tasks,
            total_steps,
            resumed_at: None,
        },
    );
    put(time, Event::Warning { message: "task 'nyt': 3 of 256 texts were cut to 96 tokens; raise data.max_tokens to keep them whole".into() });
    let mut scores = |after: usize| {
        let score = |task: usize| match after.checked_sub(task + 1) {
            None => 0.5 + 0.03 * after as f64 + 0.04 * noise(),
            Some(since) => {
                0.84 + 0.03 * task as f64 - fade * 0.15 * (since as f64).sqrt() + 0.03 * noise()
            }
        };
        Event::Evaluated {
            after,
            scores: (0..TASKS.len()).map(score).map(Some).collect(),
            examples_per_second: 20.0,
        }
    };
    let adversarial = method.starts_with("moe_cl");
    put(time, scores(0));
    for (task, name) in TASKS.iter().enumerate() {
        put(
            time,
            Event::TaskStarted {
                task,
                name: (*name).into(),
                examples: 256,
                steps: STEPS,
                trainable: 1_234_560,
            },
        );
        for step in 1..=STEPS {
            time += 0.6;
            let far = step as f64 / STEPS as f64;
            let wave =
                ((step * 37 + task * 11 + seed as usize * 5 + method.len()) as f64 * 1.7).sin();
            put(
                time,
                Event::Step {
                    task,
                    step: task * STEPS + step,
                    loss: (0.2
                        + 0.08 * fade
                        + (0.9 - 0.2 * fade) * (-(4.0 + fade) * far).exp()
                        + 0.12 * wave)
                        .abs(),
                    figures: adversarial
                        .then(|| {
                            let chance = 1.0 / (task + 1) as f64;
                            let accuracy = (chance + 0.3 * fade + 0.08 * wave).clamp(0.0, 1.0);
                            [
                                ("discriminator/accuracy".to_owned(), accuracy),
                                ("discriminator/loss".to_owned(), 1.0),
                            ]
                        })
                        .into_iter()
                        .flatten()
                        .collect(),
                    learning_rate: 1e-3,
                    gradient_norm: 1.0,
                    real_tokens: 400,
                    balance: Vec::new(),
                    seconds: 0.58,
                },
            );
        }
        time += 8.0;
        put(time, scores(task + 1));
        let row = |own: usize| {
            let sent = |other: usize| if own == other { 55 } else { 2 };
            (0..=task).map(|other| (other, sent(other))).collect()
        };
        put(
            time,
            Event::Inferred {
                after: task + 1,
                scores: moe_cl::metrics::Inferred {
                    accuracies: (0..TASKS.len())
                        .map(|other| (other <= task).then_some(0.7 - 0.05 * fade))
                        .collect(),
                    confusion: (0..=task).map(row).collect(),
                    refused: vec![3; task + 1],
                    open_set_auroc: (task + 1 < TASKS.len()).then_some(0.8),
                },
            },
        );
        if adversarial {
            let share = |layer: usize| {
                0.5 + 0.16 * (layer as f64 / 29.0 - 0.4) - 0.05 * fade
                    + 0.03 * ((layer * 7 + task) as f64).sin()
            };
            put(
                time,
                Event::LayerFigures {
                    task,
                    name: "gate/shared".into(),
                    first: 0,
                    layers: (0..30).map(share).collect(),
                },
            );
        }
    }
    put(
        time,
        Event::RunFinished {
            summary: Default::default(),
            seconds: time - 1_000.0,
            peak_memory: Some((1_400 + 80 * seed) << 20),
        },
    );
    let mode = method.split(['(', ')']).nth(1).unwrap_or("-");
    let config = format!(
        "seed = {seed}\nname = \"synthetic\"\n[base]\nsource = \"(none: made-up numbers)\"\n[adapters]\nrank = 8\n[method]\nmode = \"{mode}\"\n[training]\nobjective = \"instruction\"\nlearning_rate = 0.001\n"
    );
    RunData::from_log(&log, config.parse().expect("a table")).expect("a run was started")
}

/// A look at a layer of four experts.
pub fn look(layer: usize, load_cv_squared: f64, load: [u64; 4]) -> LayerBalance {
    LayerBalance {
        layer,
        figures: BalanceFigures {
            tokens: load.iter().sum(),
            importance: load.map(|it| it as f64).to_vec(),
            load_cv_squared,
            importance_cv_squared: 0.5,
            max_over_mean: 2.0,
            dropped: 0.0,
            entropy: None,
            dead: load.iter().filter(|&&it| it == 0).count(),
            load: load.to_vec(),
        },
    }
}

/// Adds looks at two sparse layers of four experts, of which one is left alone by and by, to the first steps of a run and to its tasks.
pub fn with_routers(run: &mut RunData, looks: usize) {
    for step in 1..=looks {
        let cv = if step < looks { 1.0 } else { 0.5 };
        let layers = vec![look(20, cv, [4, 2, 1, 1]), look(21, cv, [2; 4])];
        run.balance_of_steps.insert(step, layers);
    }
    for task in 0..TASKS.len() {
        let layers = vec![look(20, 1.0, [8, 0, 0, 8]), look(21, 0.0, [4; 4])];
        run.balance_of_tasks.insert(task, layers);
    }
}

/// The page and the table over synthetic runs. For people to look at: with `MOE_CL_PAGE=page.html` the page stays,
/// and `MOE_CL_SEEDS=3` gives each method three seeds.
#[test]
fn a_page_and_a_table_come_of_every_kind_of_run() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        std::env::var_os("MOE_CL_PAGE").map_or_else(|| folder.path().join("page.html"), Into::into);
    let seeds = std::env::var("MOE_CL_SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    write(&runs(seeds), &path).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("</html>"));
    println!("{}", table(&runs(seeds)));
}
