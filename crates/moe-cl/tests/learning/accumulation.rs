//! However the texts of a step are cut into micro-batches, it is the same step.

use std::collections::BTreeMap;

use burn::optim::GradientsParams;
use moe_cl::{
    Learner, Purpose, Seeds,
    data::Example,
    directory::TaskSettings,
    methods::{LearntTask, Method, method},
    training::{
        StepFigures, StepInput, TaskForm, fresh_optimizer, gradients, optimizer::map_gradients,
        optimizer_step, prepare, untrained,
    },
};

use super::{methods::METHODS, *};

/// Texts of many lengths, whose answers have one to five tokens.
fn examples(task: u32) -> Vec<Example> {
    let example = |row: u32| {
        let (length, answer) = (4 + row % 5 * 2, 1 + row as usize * 3 % 5);
        let tokens: Vec<u32> = (0..length)
            .map(|place| 2 + (place * 7 + row * 3 + task * 5) % 18)
            .chain(std::iter::repeat_n(14, answer))
            .collect();
        Example {
            label: Some((row % 2) as usize),
            answers: std::iter::once(length as usize..tokens.len()).collect(),
            tokens,
        }
    };
    (0..8).map(example).collect()
}

/// A learner in the middle of its second task, so that a method has all that it ever looks at.
struct Middle {
    base: Base,
    settings: TaskSettings,
    method: Box<dyn Method>,
    learner: Learner,
    examples: Vec<Example>,
}

impl Middle {
    fn of(experiment: &Experiment) -> Self {
        let base = base();
        let settings = TaskSettings::of(experiment, &experiment.tasks[0]);
        let mut method = method(&experiment.method, 2);
        let prepared = |method: &dyn Method, learner, task| {
            let (name, settings) = (TASKS[task], &settings);
            let form = TaskForm {
                task,
                name,
                classes: 2,
                settings,
            };
            prepare(method, experiment.seed, &base.decoder, learner, form)
        };
        let empty = untrained(experiment, &base.decoder).expect("experts that fit");
        let mut learner = prepared(method.as_ref(), empty, 0);
        let mut step = 0;
        for task in 0..2 {
            let examples = examples(task as u32);
            let mut optimizer = fresh_optimizer(&settings.training);
            for _ in 0..3 {
                step += 1;
                let batch = [examples.iter().collect::<Vec<_>>()];
                let input = input(&settings, &base, method.as_ref(), (task, step), &batch);
                let stepped = optimizer_step(&input, learner, &mut optimizer);
                (learner, _) = stepped.expect("finite numbers");
            }
            if task == 0 {
                let before = learner.clone();
                let learnt = LearntTask {
                    base: before.decoder(&base.decoder),
                    task,
                    examples: &examples,
                    batch_size: 4,
                    collate: before.collate(base.collate()),
                    rng: Seeds(1).rng(Purpose::Memory, task, 0),
                };
                learner = method.finish(learner, learnt);
                learner = prepared(method.as_ref(), learner, 1);
            }
        }
        Self {
            base,
            settings,
            method,
            learner,
            examples: examples(7),
        }
    }

    /// Gradients, by the number of their parameter, and figures of a step in micro-batches of `size` texts.
    fn step(&self, size: usize) -> (BTreeMap<u64, Vec<f32>>, StepFigures) {
        let micro_batches: Vec<Vec<&Example>> = self
            .examples
            .chunks(size)
            .map(|chunk| chunk.iter().collect())
            .collect();
        let method = self.method.as_ref();
        let input = input(&self.settings, &self.base, method, (1, 7), &micro_batches);
        let (gradients, figures) = gradients(&input, &self.learner).expect("finite numbers");
        (numbers(&self.learner, &gradients), figures)
    }
}

fn input<'a>(
    settings: &'a TaskSettings,
    base: &'a Base,
    method: &'a dyn Method,
    (task, step): (usize, usize),
    micro_batches: &'a [Vec<&'a Example>],
) -> StepInput<'a> {
    StepInput {
        settings,
        seed: 5,
        base: &base.decoder,
        method,
        task,
        micro_batches,
        step,
        learning_rate: 0.02,
        collate: base.collate(),
    }
}

fn numbers(learner: &Learner, gradients: &GradientsParams) -> BTreeMap<u64, Vec<f32>> {
    let mut all = BTreeMap::new();
    map_gradients(learner, gradients, |id, gradient| {
        let numbers = gradient?.into_data().iter::<f32>().collect();
        all.insert(id.val(), numbers);
        None
    });
    all
}

#[test]
fn accumulated_micro_batches_are_the_large_batch_with_every_method() {
    let folder = tempfile::tempdir().expect("a folder");
    for objective in ["heads", "instruction"] {
        // Routers balance and draw for each micro-batch by itself: without that, a mixture is held to the law too.
        let evened = "{name='mix_lora',experts=3,router={kind='softmax_top_k',balance=0.0}}";
        let methods = METHODS.iter().filter(|it| !it.contains("mix_lora"));
        for name in methods.chain(&["{name='linear_probe'}", evened]) {
            if *name == "{name='linear_probe'}" && objective == "instruction" {
                continue;
            }
            let settings = [
                &format!("method={name}")[..],
                &format!("training.objective={objective}"),
            ];
            let middle = Middle::of(&experiment(folder.path(), &settings));
            let (want, figures) = middle.step(8);
            for size in [4, 3, 1] {
                let what = format!("{name}, {objective}, {size} texts at a time");
                let (got, of_parts) = middle.step(size);
                let close = |name: &str, a: f64, b: f64| {
                    assert!((a - b).abs() < 1e-5, "{what}: {name} {a} is not {b}");
                };
                close("loss", of_parts.loss, figures.loss);
                assert_eq!(of_parts.real_tokens, figures.real_tokens);
                assert!(of_parts.figures.keys().eq(figures.figures.keys()));
                for (name, figure) in &of_parts.figures {
                    close(name, *figure, figures.figures[name]);
                }
                assert!(got.keys().eq(want.keys()), "{what}");
                for (id, numbers) in &got {
                    for (a, b) in numbers.iter().zip(&want[id]) {
                        close("a gradient", f64::from(*a), f64::from(*b));
                    }
                }
            }
        }
    }
}

#[test]
fn accumulated_runs_draw_the_texts_of_the_large_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = base();
    let steps = |size: usize, accumulation: usize| -> Vec<(f64, usize)> {
        let settings = [
            &format!("training.batch_size={size}")[..],
            &format!("training.accumulation={accumulation}"),
            "training.objective=instruction",
        ];
        let out = folder.path().join(format!("{size}"));
        run(&experiment(folder.path(), &settings), &base, &out, None).expect("a run");
        let log = moe_cl::events::read_log(&out.join("events.jsonl"))
            .expect("a log")
            .lines;
        let steps = log.into_iter().filter_map(|line| match line.event {
            Event::Step {
                loss, real_tokens, ..
            } => Some((loss, real_tokens)),
            _ => None,
        });
        steps.collect()
    };
    let whole = steps(8, 1);
    let tokens = |steps: &[(f64, usize)]| steps.iter().map(|it| it.1).collect::<Vec<usize>>();
    assert_eq!(
        whole.len(),
        12,
        "two steps an epoch, the second a smaller one"
    );
    for (size, accumulation) in [(4, 2), (1, 8)] {
        let cut = steps(size, accumulation);
        assert_eq!(tokens(&cut), tokens(&whole));
        assert!((cut[0].0 - whole[0].0).abs() < 1e-5);
    }
}
