//! The experts of a fixture, by its numbers.

use anyhow::ensure;
use moe_core::model::Decoder;
use moe_lora::{
    AdapterConfig, Catalogue, Expert, LayerExpert, LayerRange, Lora, LoraConfig, LoraInit,
    Projection,
};

use super::super::case::Case;
use super::super::device::floats;
use super::super::tensors::Tensors;

/// The fixtures' names of the adapted projections.
pub const PROJECTIONS: [(&str, Projection); 3] = [
    ("gate_proj", Projection::Gate),
    ("up_proj", Projection::Up),
    ("down_proj", Projection::Down),
];

/// The task that a fixture's experts and gates are said to be for: it numbers them and names none.
pub const TASK: &str = "fixture";

/// What case.json says of its adapters, which are in every layer.
///
/// # Errors
/// When a setting is missing, or the scaling does not follow from the others.
pub fn adapters(case: &Case) -> anyhow::Result<AdapterConfig> {
    let config = AdapterConfig {
        lora: LoraConfig {
            rank: case.setting("r")? as usize,
            alpha: case.setting("alpha")?,
            rslora: case.json["config"]["use_rslora"].as_bool().unwrap_or(false),
            dropout: 0.0,
            init: LoraInit::Kaiming,
        },
        targets: PROJECTIONS.map(|(_, projection)| projection).to_vec(),
        layers: LayerRange::All,
    };
    ensure!(
        (config.lora.scaling() - case.setting("scaling")?).abs() < 1e-6,
        "config.scaling does not follow from alpha and r"
    );
    Ok(config)
}

/// Experts on the autodiff device with the weights `PREFIXparam.layers.*.mlp.*.expertN.*`: that of `numbers[i]` is expert i.
///
/// # Errors
/// When a setting or a tensor is missing.
pub fn experts_of(
    case: &Case,
    tensors: &Tensors,
    prefix: &str,
    numbers: &[usize],
    base: &Decoder,
) -> anyhow::Result<Catalogue> {
    let (config, device) = (adapters(case)?, base.device().autodiff());
    let mut catalogue = Catalogue::new(&config, base.config())?;
    for _ in numbers {
        catalogue.add_expert(&config.lora, TASK, 0, &device);
    }
    let with_weights = |expert: Expert| {
        let number = numbers[expert.id().0 as usize];
        let layers = (0..expert.layers.len()).map(|layer| {
            let mut loras = LayerExpert::default();
            for (name, projection) in PROJECTIONS {
                let name = format!("{prefix}param.layers.{layer}.mlp.{name}.expert{number}");
                let a = floats::<2>(tensors, &format!("{name}.A"), &device)?;
                let b = floats::<2>(tensors, &format!("{name}.B"), &device)?;
                let scaling = config.lora.scaling();
                *loras.lora_mut(projection) =
                    Some(Lora::from_tensors(a.transpose(), b.transpose(), scaling));
            }
            Ok(loras)
        });
        let layers = layers.collect::<anyhow::Result<_>>()?;
        Ok(Expert::new(expert.info, layers))
    };
    catalogue.try_map(with_weights, Ok)
}
