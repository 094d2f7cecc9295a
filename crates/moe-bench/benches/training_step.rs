//! A whole training step on SmolLM2-135M's shapes, per method. `cargo xtask bench step` says how near it comes to its own matrix products.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moe_bench::shapes::device;
use moe_bench::step::{Setting, Workload};

const BATCH: usize = 8;
const TOKENS: usize = 96;
const METHODS: [(&str, &str); 4] = [
    ("sequential", r#"name = "sequential""#),
    ("mix_lora", r#"name = "mix_lora""#),
    ("moe_cl paper", r#"name = "moe_cl", mode = "paper""#),
    ("moe_cl improved", r#"name = "moe_cl", mode = "improved""#),
];

fn training_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("training_step {BATCH}x{TOKENS}"));
    group
        .sample_size(10)
        .throughput(Throughput::Elements((BATCH * TOKENS) as u64));
    for (name, method) in METHODS {
        let setting = Setting {
            method: method.into(),
            batch: BATCH,
            len: TOKENS,
            layers: 30,
            rank: 8,
            base_dtype: moe_core::model::BaseDtype::F32,
            dropout: 0.05,
            // The second: there are two tasks to tell apart, so the adversary runs.
            tasks: 2,
        };
        let mut workload = Workload::new(&setting, &device()).expect("the setting is sound");
        group.bench_function(name, |bencher| bencher.iter(|| workload.step()));
    }
    group.finish();
}

criterion_group!(benches, training_step);
criterion_main!(benches);
