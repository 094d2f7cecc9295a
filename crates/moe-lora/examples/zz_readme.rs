//! Temporary.
#![allow(missing_docs)]
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use moe_core::config::ModelConfig;
use moe_core::model::Decoder;
use moe_lora::{
    AdapterConfig, Catalogue, GateInit, LayerRange, LoraConfig, LoraInit, Projection, Routing, Texts,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = r#"{"model_type": "llama", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": true, "hidden_act": "silu"}"#;
    let device = Device::flex();
    let base = Decoder::random(&ModelConfig::from_json(settings, "tiny".as_ref())?, 0, &device);

    let lora = LoraConfig { rank: 4, alpha: 8.0, rslora: false, dropout: 0.0, init: LoraInit::Kaiming };
    let targets = vec![Projection::Gate, Projection::Up, Projection::Down];
    let config = AdapterConfig { lora, targets, layers: LayerRange::All };
    let mut catalogue = Catalogue::new(&config, base.config())?;
    let training = device.clone().autodiff();
    let shared = catalogue.add_expert(&config.lora, "reviews", 1, &training);
    let own = catalogue.add_expert(&config.lora, "reviews", 2, &training);
    let gate = catalogue.add_gate(2, GateInit::Zeros, "reviews", &training);
    let routing = Routing::Gated { experts: vec![shared, own], gate };

    // `[batch, seq]`; padding is anywhere where `real` is false.
    let tokens = Tensor::from_data([[3, 14, 15], [9, 26, 0]], &device);
    let texts = Texts::new(tokens.clone(), tokens.greater_elem(0));
    let hidden = catalogue.forward(&base, &texts, &routing, None, None).hidden;
    let gradients = hidden.mean().backward();
    let down = catalogue.expert(own).layers[0].lora(Projection::Down).ok_or("no such target")?;
    assert!(down.b.grad(&gradients).is_some());

    // A fresh expert leaves the base as it is. Evaluate off the autodiff device: no graph is recorded.
    let catalogue = catalogue.valid();
    let [alone, mixed] = [Routing::Base, routing]
        .map(|routing| catalogue.forward(&base, &texts, &routing, None, None).hidden);
    assert!((alone - mixed).abs().max().into_scalar::<f32>() < 1e-5);
    Ok(())
}
