//! The GPU back end against the CPU on tiny shapes: logits, generation, gradients and a training step.
//! Runs on any Vulkan driver, a software one included: `cargo xtask test gpu`.
#![cfg(feature = "wgpu")]

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use moe_cl::config::Experiment;
use moe_cl::data::{Collate, Example};
use moe_cl::directory::TaskSettings;
use moe_cl::methods::method;
use moe_cl::training::{StepInput, TaskForm, fresh_optimizer, optimizer_step, prepare, untrained};
use moe_core::config::ModelConfig;
use moe_core::device::DeviceChoice;
use moe_core::generate::{Sampling, generate};
use moe_core::model::Decoder;
use moe_lora::{Expert, Projection, Routing, Texts};
use rand::{RngExt, SeedableRng};

/// Largest difference between the two back ends, relative to the largest entry.
const TOLERANCE: f32 = 5e-5;

fn cpu() -> Device {
    DeviceChoice::Cpu.open().expect("the CPU is in this build")
}

fn gpu() -> Device {
    DeviceChoice::Wgpu.open().expect("wgpu is in this build")
}

fn config() -> ModelConfig {
    let json = r#"{"model_type": "llama", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "hidden_act": "silu"}"#;
    ModelConfig::from_json(json, Path::new("tiny")).expect("the settings are sound")
}

fn tokens(device: &Device) -> Tensor<2, Int> {
    Tensor::from_data([[3, 14, 15, 9, 2], [6, 5, 35, 0, 0]], device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

#[track_caller]
fn assert_close(what: &str, gpu: &[f32], cpu: &[f32]) {
    assert_eq!(gpu.len(), cpu.len(), "{what}");
    let scale = cpu
        .iter()
        .fold(1e-6f32, |largest, value| largest.max(value.abs()));
    for (index, (gpu, cpu)) in gpu.iter().zip(cpu).enumerate() {
        assert!(
            (gpu - cpu).abs() <= TOLERANCE * scale,
            "{what}[{index}]: {gpu} on the GPU, {cpu} on the CPU"
        );
    }
}

#[test]
fn logits_of_padded_rows_are_those_of_the_cpu() {
    let logits = |device: Device| {
        let decoder = Decoder::random(&config(), 1, &device);
        let ids = tokens(&device);
        let hidden = decoder.forward(ids.clone(), ids.greater_elem(0));
        let hidden = hidden.slice([0..2, 0..3, 0..32]).reshape([6, 32]);
        values(decoder.logits(hidden))
    };
    assert_close("logits", &logits(gpu()), &logits(cpu()));
}

#[test]
fn greedy_text_is_that_of_the_cpu() {
    let text = |device: Device| {
        let decoder = Decoder::random(&config(), 1, &device);
        generate(
            &decoder,
            &[vec![3, 14, 15], vec![9]],
            6,
            &Sampling::greedy(),
            &[],
        )
        .unwrap()
    };
    assert_eq!(text(gpu()), text(cpu()));
}

#[test]
fn a_training_step_moves_every_weight_as_on_the_cpu() {
    assert_steps_agree("name = \"moe_cl\"\nmode = \"improved\"");
    assert_steps_agree("name = \"moe_cl\"\nmode = \"paper\"");
}

#[track_caller]
fn assert_steps_agree(method_table: &str) {
    let (loss, weights) = two_steps(method_table, &gpu());
    let (loss_cpu, weights_cpu) = two_steps(method_table, &cpu());
    assert_close("loss", &[loss as f32], &[loss_cpu as f32]);
    for (index, (gpu, cpu)) in weights.iter().zip(&weights_cpu).enumerate() {
        assert_close(&format!("output {index}"), gpu, cpu);
    }
}

/// Loss of the second of two steps, and the hidden states that the trained experts then give.
fn two_steps(method_table: &str, device: &Device) -> (f64, Vec<Vec<f32>>) {
    let text = format!(
        "name = \"gpu\"\n[adapters]\nrank = 2\nalpha = 4.0\n[method]\n{method_table}\n[training]\nobjective = \"heads\"\n\
         [[tasks]]\nname = \"a\"\ntrain = \"a\"\ntest = \"a\"\n[[tasks]]\nname = \"b\"\ntrain = \"b\"\ntest = \"b\"\n"
    );
    let experiment =
        Experiment::parse(&text, Path::new("gpu.toml"), &[]).expect("the experiment is sound");
    let base = Decoder::random(&config(), 1, device);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut learner = untrained(&experiment, &base).expect("the adapters fit");
    let (method, settings) = (
        method(&experiment.method, 2),
        TaskSettings::of(&experiment, &experiment.tasks[0]),
    );
    for (task, config) in experiment.tasks.iter().enumerate() {
        let form = TaskForm {
            task,
            name: &config.name,
            classes: 3,
            settings: &settings,
        };
        learner = prepare(method.as_ref(), experiment.seed, &base, learner, form);
    }
    // Fresh experts all answer as the base does: no gate has a gradient but for rounding, and AdamW makes whole steps of that.
    let ids: Vec<_> = learner.catalogue.experts().iter().map(Expert::id).collect();
    assert!(!ids.is_empty());
    for id in ids {
        for layer in &mut learner.catalogue.expert_mut(id).layers {
            for projection in Projection::ALL {
                let Some(lora) = layer.lora_mut(projection) else {
                    continue;
                };
                let [rank, d_out] = lora.b.dims();
                let drawn = (0..rank * d_out).map(|_| rng.random_range(-0.2..0.2));
                let drawn = TensorData::new(drawn.collect::<Vec<f32>>(), [rank, d_out]);
                let b = Tensor::from_data(drawn, &device.clone().autodiff());
                lora.set(lora.a.val(), b);
            }
        }
    }
    let examples = [
        Example {
            tokens: vec![3, 14, 15, 9, 2],
            label: Some(0),
            answers: Vec::new(),
        },
        Example {
            tokens: vec![6, 5, 35],
            label: Some(2),
            answers: Vec::new(),
        },
    ];
    let micro_batches = [examples.iter().collect::<Vec<_>>()];
    let mut optimizer = fresh_optimizer(&settings.training);
    let mut loss = 0.0;
    for step in 1..=2 {
        let input = StepInput {
            settings: &settings,
            seed: experiment.seed,
            base: &base,
            method: method.as_ref(),
            task: 1,
            micro_batches: &micro_batches,
            step,
            learning_rate: 1e-2,
            collate: Collate::padding(0),
        };
        let figures;
        (learner, figures) = optimizer_step(&input, learner, &mut optimizer)
            .expect("a loss and gradients that are finite");
        loss = figures.loss;
    }
    let catalogue = learner.valid().catalogue;
    let ids = tokens(device);
    let outputs = catalogue.experts().iter().map(|expert| {
        let texts = Texts::new(ids.clone(), ids.clone().greater_elem(0));
        let hidden = catalogue
            .forward(&base, &texts, &Routing::Single(expert.id()), None, None)
            .hidden;
        values(hidden.slice([0..2, 0..3, 0..32]))
    });
    (loss, outputs.collect())
}
