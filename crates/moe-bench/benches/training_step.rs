//! A whole training step on SmolLM2-135M's shapes, per method; and how near it comes to its own matrix products.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use burn::optim::ModuleOptimizer;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moe_bench::lower_bound::base_products;
use moe_bench::shapes::{device, smollm2};
use moe_cl::config::Experiment;
use moe_cl::data::Example;
use moe_cl::methods::{Method, method};
use moe_cl::training::{StepInput, fresh_optimizer, optimizer_step, prepare};
use moe_cl::{Learner, head};
use moe_core::model::Decoder;
use moe_lora::Adapters;
use rand::SeedableRng;

const BATCH: usize = 8;
const TOKENS: usize = 96;
const CLASSES: usize = 4;
/// The second task: there are two tasks to tell apart, so the adversary runs.
const TASK: usize = 1;
const METHODS: [(&str, &str); 3] = [
    ("sequential", "name = \"sequential\""),
    ("moe_cl paper", "name = \"moe_cl\"\nmode = \"paper\""),
    ("moe_cl improved", "name = \"moe_cl\"\nmode = \"improved\""),
];

/// A learner in the middle of its stream.
struct Run {
    experiment: Experiment,
    method: Box<dyn Method>,
    learner: Option<Learner>,
    optimizer: ModuleOptimizer,
    examples: Vec<Example>,
}

impl Run {
    fn new(method_table: &str, base: &Decoder) -> Self {
        let text = format!(
            "name = \"bench\"\n[adapters]\nrank = 8\nalpha = 16.0\n[method]\n{method_table}\n[training]\nobjective = \"heads\"\nbatch_size = {BATCH}\n\
             [[tasks]]\nname = \"a\"\ntrain = \"a\"\ntest = \"a\"\n[[tasks]]\nname = \"b\"\ntrain = \"b\"\ntest = \"b\"\n"
        );
        let experiment = Experiment::parse(&text, Path::new("bench.toml"), &[])
            .expect("the experiment above is sound");
        let device = base.device().autodiff();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let d_model = base.config().d_model;
        let adapters = Adapters::new(&(&experiment.adapters).into(), base.config())
            .expect("the adapters fit the base");
        let mut learner = Learner {
            heads: (0..=TASK)
                .map(|_| head(d_model, CLASSES, &mut rng, &device))
                .collect(),
            ..Learner::new(adapters)
        };
        let method = method(&experiment.method, TASK + 1);
        for task in 0..=TASK {
            learner = prepare(method.as_ref(), &experiment, base, learner, task);
        }
        let examples = (0..BATCH)
            .map(|row| Example {
                tokens: (0..TOKENS)
                    .map(|index| (17 + 31 * (row * TOKENS + index) as u32) % 49152)
                    .collect(),
                label: Some(row % CLASSES),
                answer: 0..0,
            })
            .collect();
        let optimizer = fresh_optimizer(&experiment);
        Self {
            experiment,
            method,
            learner: Some(learner),
            optimizer,
            examples,
        }
    }

    fn step(&mut self, base: &Decoder) {
        let micro_batches = [self.examples.iter().collect::<Vec<_>>()];
        let input = StepInput {
            experiment: &self.experiment,
            base,
            method: self.method.as_ref(),
            task: TASK,
            micro_batches: &micro_batches,
            step: 1,
            learning_rate: 1e-4,
            pad: 0,
        };
        let learner = self.learner.take().expect("a step puts the learner back");
        let (learner, figures) = optimizer_step(&input, learner, &mut self.optimizer);
        black_box(figures.loss);
        self.learner = Some(learner);
    }
}

fn training_step(criterion: &mut Criterion) {
    let config = smollm2(30);
    let device = device();
    let base = Decoder::random(&config, 1, &device);
    let mut group = criterion.benchmark_group(format!("training_step {BATCH}x{TOKENS}"));
    group
        .sample_size(10)
        .throughput(Throughput::Elements((BATCH * TOKENS) as u64));
    for (name, table) in METHODS {
        let mut run = Run::new(table, &base);
        group.bench_function(name, |bencher| bencher.iter(|| run.step(&base)));
    }
    group.finish();
    if !std::env::args().any(|argument| argument == "--test") {
        against_the_bound(&base);
    }
}

/// Tokens per second of each method, and the share of its time that its matrix products alone would take.
fn against_the_bound(base: &Decoder) {
    let device = base.device();
    let (mut bound, mut flops) = (0.0, 0.0);
    println!(
        "\n{:<24}{:>28}{:>8}{:>10}{:>10}",
        "product", "shape", "count", "GFLOP/s", "ms"
    );
    for product in base_products(base.config(), BATCH, TOKENS) {
        let seconds = product.seconds(&device);
        let shape = format!(
            "{}x[{}x{}]x[{}x{}]",
            product.batch, product.rows, product.inner, product.inner, product.columns
        );
        let (rate, total) = (
            product.flops() / seconds / 1e9,
            1e3 * seconds * product.count as f64,
        );
        println!(
            "{:<24}{shape:>28}{:>8}{rate:>10.0}{total:>10.1}",
            product.name, product.count
        );
        bound += seconds * product.count as f64;
        flops += product.flops() * product.count as f64;
    }
    println!(
        "bound: {:.3} s, {:.0} GFLOP/s on average",
        bound,
        flops / bound / 1e9
    );
    for (name, table) in METHODS {
        let mut run = Run::new(table, base);
        run.step(base);
        const STEPS: usize = 5;
        let start = Instant::now();
        (0..STEPS).for_each(|_| run.step(base));
        let seconds = start.elapsed().as_secs_f64() / STEPS as f64;
        let rate = (BATCH * TOKENS) as f64 / seconds;
        println!(
            "{name:<18} {seconds:.3} s per step, {rate:.0} real tokens/s, {:.0} % of the bound's speed",
            100.0 * bound / seconds
        );
    }
}

criterion_group!(benches, training_step);
criterion_main!(benches);
