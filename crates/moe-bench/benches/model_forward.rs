//! Forward pass of the decoder: hidden states of a batch, and one generated token through the cache.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moe_bench::shapes::{device, smollm2, tokens};
use moe_core::generate::{Sampling, generate};
use moe_core::model::Decoder;
use std::hint::black_box;

fn model_forward(criterion: &mut Criterion) {
    let (config, device) = (smollm2(30), device());
    let decoder = Decoder::random(&config, 1, &device);
    let mut group = criterion.benchmark_group("model_forward");
    group.sample_size(10);
    for (batch, seq) in [(8, 64), (8, 96), (32, 96)] {
        let ids = tokens(batch, seq, &config, &device);
        group.throughput(Throughput::Elements((batch * seq) as u64));
        group.bench_function(format!("hidden states {batch}x{seq}"), |bencher| {
            bencher.iter(|| {
                let real = ids.clone().greater_equal_elem(0);
                let hidden = decoder.forward(ids.clone(), real);
                black_box(hidden.slice([0..1, 0..1, 0..1]).into_data())
            });
        });
    }
    let prompt: Vec<u32> = (0..64).map(|index| 17 + 31 * index).collect();
    group.throughput(Throughput::Elements(16));
    group.bench_function("16 greedy tokens after 64", |bencher| {
        bencher.iter(|| {
            let prompts = std::slice::from_ref(&prompt);
            let written = generate(&decoder, prompts, 16, &Sampling::greedy(), &[]);
            black_box(written.expect("greedy is a choice"))
        });
    });
    group.finish();
}

criterion_group!(benches, model_forward);
criterion_main!(benches);
