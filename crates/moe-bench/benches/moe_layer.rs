//! One feed-forward layer: the frozen one alone, with one expert, and with a gated mixture, forward and with its backward pass.

use burn::tensor::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moe_bench::shapes::{device, matrix, smollm2};
use moe_core::model::Decoder;
use moe_lora::{
    AdapterConfig, Catalogue, ExpertId, GateId, GateInit, LayerRange, LoraConfig, LoraInit,
    Observe, Projection, Routing,
};
use std::hint::black_box;

const TOKENS: [usize; 2] = [8, 96];
const EXPERTS: u64 = 4;

fn catalogue(device: &Device) -> Catalogue {
    let config = AdapterConfig {
        lora: LoraConfig {
            rank: 8,
            alpha: 16.0,
            rslora: false,
            dropout: 0.0,
            init: LoraInit::Kaiming,
        },
        targets: vec![Projection::Gate, Projection::Up, Projection::Down],
        layers: LayerRange::All,
    };
    let mut catalogue = Catalogue::new(&config, &smollm2(1)).expect("the settings above are sound");
    for seed in 0..EXPERTS {
        catalogue.add_expert(&config.lora, "benchmark", seed, device);
    }
    for columns in [2, EXPERTS as usize] {
        catalogue.add_gate(columns, GateInit::Zeros, "benchmark", device);
    }
    catalogue
}

fn moe_layer(criterion: &mut Criterion) {
    let device = device();
    let decoder = Decoder::random(&smollm2(1), 1, &device);
    let feed_forward = &decoder.layers[0].feed_forward;
    let [batch, seq] = TOKENS;
    let d_model = decoder.config().d_model;
    let x: Tensor<3> = matrix(batch * seq, d_model, &device).reshape([batch, seq, d_model]);
    let mut group = criterion.benchmark_group("moe_layer");
    group
        .throughput(Throughput::Elements((batch * seq) as u64))
        .sample_size(20);

    group.bench_function("frozen forward", |bencher| {
        bencher.iter(|| {
            black_box(
                feed_forward
                    .forward(x.clone())
                    .slice([0..1, 0..1, 0..1])
                    .into_data(),
            )
        });
    });
    let observe = Observe {
        expert: ExpertId(0),
        detach_upstream: false,
    };
    let shares = Tensor::<2>::ones([batch, seq], &device) / seq as f64;
    let routings = [
        ("one expert", Routing::Single(ExpertId(0))),
        (
            "two experts, gated",
            Routing::Gated {
                experts: vec![ExpertId(0), ExpertId(1)],
                gate: GateId(0),
            },
        ),
        (
            "four experts, gated",
            Routing::Gated {
                experts: (0..EXPERTS).map(ExpertId).collect(),
                gate: GateId(1),
            },
        ),
    ];
    let (plain, tracked) = (catalogue(&device), catalogue(&device.clone().autodiff()));
    for (name, routing) in &routings {
        let bank = |catalogue| Catalogue::bank(catalogue, 0, routing).expect("an adapted layer");
        let (plain, tracked) = (bank(&plain), bank(&tracked));
        group.bench_function(format!("{name}, forward"), |bencher| {
            bencher.iter(|| {
                let output = plain
                    .forward_block(feed_forward, x.clone(), None, None)
                    .output;
                black_box(output.slice([0..1, 0..1, 0..1]).into_data())
            });
        });
        group.bench_function(format!("{name}, forward and backward"), |bencher| {
            bencher.iter(|| {
                // As in the middle of a model: the input has a graph of its own.
                let x = Tensor::from_inner(x.clone()).require_grad();
                let out = tracked.forward_block(
                    feed_forward,
                    x.clone(),
                    Some((&observe, shares.clone())),
                    None,
                );
                let pooled = out.pooled.expect("an expert is observed");
                let gradients = (out.output.sum() + pooled.sum()).backward();
                black_box(
                    x.grad(&gradients)
                        .expect("the input has a gradient")
                        .slice([0..1, 0..1, 0..1])
                        .into_data(),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, moe_layer);
criterion_main!(benches);
