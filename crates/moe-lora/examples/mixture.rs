//! Two experts and a gate on a small random decoder learn which token follows which.
//!
//! One plays the shared expert, one that of a task; the base stays as it is.
//!
//! ```text
//! cargo run --release -p moe-lora --example mixture
//! ```

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use moe_core::config::{Architecture, ModelConfig, QkNorm, RopeScaling};
use moe_core::generate::{Sampling, generate};
use moe_core::model::Decoder;
use moe_lora::{
    Adapted, AdapterConfig, Catalogue, GateInit, LayerRange, LoraConfig, LoraInit, Projection,
    Routing, Texts,
};

const VOCAB: i64 = 32;
const SEQ: usize = 12;

fn model() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: VOCAB as usize,
        d_model: 48,
        d_ff: 96,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 12,
        rope_theta: 10000.0,
        rope_scaling: RopeScaling::None,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        sliding_window: None,
        attention_bias: false,
        qk_norm: QkNorm::None,
        sparse: None,
        max_position_embeddings: 64,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        pad_token_id: None,
    }
}

/// Rows that count up by five, modulo the vocabulary: what the experts have to learn.
fn rows(device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i64> = (0..VOCAB)
        .flat_map(|row| (0..SEQ as i64).map(move |at| (row + 5 * at) % VOCAB))
        .collect();
    Tensor::from_data(TensorData::new(tokens, [VOCAB as usize, SEQ]), device)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let base = Decoder::random(&model(), 0, &device);

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
    let mut catalogue = Catalogue::new(&config, base.config())?;
    let training = device.clone().autodiff();
    let shared = catalogue.add_expert(&config.lora, "counting", 1, &training);
    let task = catalogue.add_expert(&config.lora, "counting", 2, &training);
    let gate = catalogue.add_gate(2, GateInit::Zeros, "counting", &training);
    let routing = Routing::Gated {
        experts: vec![shared, task],
        gate,
    };
    println!(
        "base {} weights, frozen; experts and gate {}",
        base.num_params(),
        catalogue.num_params()
    );

    let tokens = rows(&device);
    let [batch, seq] = tokens.dims();
    let real = Tensor::<2, Bool>::full([batch, seq], true, &device);
    let texts = Texts::new(tokens.clone(), real);
    let next = tokens
        .clone()
        .narrow(1, 1, seq - 1)
        .reshape([batch * (seq - 1), 1]);
    let mut optimizer = AdamWConfig::new().init();
    for step in 0..=150 {
        let out = catalogue.forward(&base, &texts, &routing, None, None);
        let hidden = out.hidden.narrow(1, 0, seq - 1).flatten(0, 1);
        let loss = log_softmax(base.logits(hidden), 1)
            .gather(1, next.clone())
            .mean()
            .neg();
        if step % 30 == 0 {
            println!(
                "step {step:3}  loss {:.3}",
                loss.clone().into_scalar::<f32>()
            );
        }
        let grads = GradientsParams::from_grads(loss.backward(), &catalogue);
        catalogue = optimizer.step(0.01, catalogue, grads);
    }

    // Off the autodiff device to evaluate: no graph is recorded.
    let catalogue = catalogue.valid();
    let out = catalogue.forward(&base, &texts, &routing, None, None);
    for (layer, gates) in out.gates.into_iter().enumerate() {
        let share = gates.narrow(2, 0, 1).mean().into_scalar::<f32>();
        println!("layer {layer}: the shared expert weighs {share:.2} on average");
    }
    let model = Adapted::new(&base, &catalogue, &routing);
    let written = generate(&model, &[vec![3, 8, 13]], 6, &Sampling::greedy(), &[])?;
    println!("3 8 13 goes on {:?}", written[0]);
    Ok(())
}
