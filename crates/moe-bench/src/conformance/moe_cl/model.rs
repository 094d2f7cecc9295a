//! The project's model with a fixture's weights.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use moe_cl::config::Pooling;
use moe_cl::methods::Own;
use moe_cl::{Head, Learner, TaskExperts};
use moe_core::checkpoint::Checkpoint;
use moe_core::model::Decoder;
use moe_gan::Discriminator;
use moe_lora::{ExpertId, Gate, GateInit, LoraDropout, Site, TokenGate};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;

use super::super::case::Case;
use super::super::device::{cpu, floats};
use super::super::tensors::Tensors;
use super::experts::{PROJECTIONS, TASK, experts_of};
use super::loss::{GATE, routing};

/// Frozen base and trained part. The fixture's matrices are `[out, in]`, the project's `[in, out]`.
pub struct Model {
    /// On the plain device.
    pub base: Decoder,
    /// On the autodiff device.
    pub learner: Learner,
    /// The fixture's names of `learner.heads`.
    head_names: Vec<String>,
    /// Dropout with the fixture's masks, where it has them.
    pub dropout: Option<LoraDropout>,
}

impl Model {
    /// Builds the base from `base.*` and the trained part from `param.*`.
    ///
    /// # Errors
    /// When a tensor or setting is missing.
    pub fn read(case: &Case, tensors: &Tensors) -> anyhow::Result<Self> {
        let plain = cpu()?;
        let base = base(case, tensors, &plain)?;
        let device = plain.clone().autodiff();
        let experts = case.setting("num_experts")? as usize;
        let numbers: Vec<usize> = (0..experts).collect();
        let mut catalogue = experts_of(case, tensors, "", &numbers, &base)?;
        catalogue.add_gate(2, GateInit::Zeros, TASK, &device);
        let catalogue = catalogue.try_map(Ok::<_, anyhow::Error>, |gate| {
            let layers = (0..gate.layers.len()).map(|layer| {
                let name = format!("param.layers.{layer}.moe.gate");
                let weight = floats::<2>(tensors, &name, &device)?.transpose();
                Ok(TokenGate::from_weight(weight))
            });
            let layers = layers.collect::<anyhow::Result<_>>()?;
            Ok(Gate::new(gate.info, layers))
        })?;
        let discriminators = catalogue.layers().map(|layer| {
            let name = format!("param.layers.{layer}.moe.task_classifier");
            let weight = floats::<2>(tensors, &name, &device)?.transpose();
            Ok(Discriminator::from_weight(weight))
        });
        let discriminators = discriminators.collect::<anyhow::Result<_>>()?;
        let mut heads = BTreeMap::new();
        for name in tensors
            .names()
            .filter(|name| name.starts_with("param.head."))
        {
            let weight = floats::<2>(tensors, name, &device)?.transpose();
            let head = Head::new(weight, Pooling::Last);
            heads.insert(name["param.".len()..].to_string(), head);
        }
        let head_names = heads.keys().cloned().collect();
        let heads = heads.into_values().map(Some).collect();
        let dropout = given_masks(case, tensors, &plain)?;
        Ok(Self {
            base,
            learner: Learner {
                heads,
                own: Some(Own::Discriminators(discriminators)),
                tasks: (1..experts)
                    .map(|task| TaskExperts::of(routing(task)))
                    .collect(),
                ..Learner::new(catalogue)
            },
            head_names,
            dropout,
        })
    }

    /// The head that the batch at `prefix` is classified with: the one that has a gradient there.
    pub fn head(&self, tensors: &Tensors, prefix: &str) -> Option<&Head> {
        let has_gradient = |name: &String| tensors.has(&format!("{prefix}grad.{name}"));
        let index = self.head_names.iter().position(has_gradient)?;
        self.learner.head(index)
    }

    /// The parameter that the fixture calls `name`, transposed against it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn parameter(&self, name: &str) -> anyhow::Result<&Param<Tensor<2>>> {
        let index = self.head_names.iter().position(|head| head == name);
        if let Some(head) = index.and_then(|index| self.learner.head(index)) {
            return Ok(&head.weight);
        }
        find(&self.learner, name).with_context(|| {
            format!("the fixture's parameter {name} has no place in the project's model")
        })
    }
}

/// A discriminator per layer, where the learner has them.
pub fn discriminators(learner: &Learner) -> Option<&[Discriminator]> {
    match &learner.own {
        Some(Own::Discriminators(all)) => Some(all),
        _ => None,
    }
}

/// A parameter inside the layers.
fn find<'a>(learner: &'a Learner, name: &str) -> Option<&'a Param<Tensor<2>>> {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        ["layers", layer, "moe", "gate"] => {
            let gate = learner.catalogue.gate(GATE);
            Some(&gate.layers.get(layer.parse::<usize>().ok()?)?.weight)
        }
        ["layers", layer, "moe", "task_classifier"] => {
            let discriminators = discriminators(learner)?;
            Some(&discriminators.get(layer.parse::<usize>().ok()?)?.weight)
        }
        ["layers", layer, "mlp", projection, expert, side] => {
            let expert = expert.strip_prefix("expert")?.parse::<usize>().ok()?;
            let expert = learner.catalogue.experts().get(expert)?;
            let (_, projection) = PROJECTIONS.iter().find(|(name, _)| name == projection)?;
            let layer = expert.layers.get(layer.parse::<usize>().ok()?)?;
            let lora = layer.lora(*projection)?;
            match *side {
                "A" => Some(&lora.a),
                "B" => Some(&lora.b),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Writes `base.*` as a Hugging Face folder and loads that, as any base is loaded; or loads the folder that `base` of case.json names.
pub fn base(case: &Case, tensors: &Tensors, device: &Device) -> anyhow::Result<Decoder> {
    if let Some(folder) = case.json["base"].as_str() {
        return Ok(Decoder::load(
            &Checkpoint::open(Path::new(folder))?,
            device,
        )?);
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let embedding: [usize; 2] = tensors.dims("base.model.embed_tokens.weight")?;
    let gate: [usize; 2] = tensors.dims("base.model.layers.0.mlp.gate_proj.weight")?;
    let heads = case.setting("H")? as usize;
    let config = json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "vocab_size": embedding[0],
        "hidden_size": embedding[1],
        "intermediate_size": gate[0],
        "num_hidden_layers": case.setting("L")? as usize,
        "num_attention_heads": heads,
        "num_key_value_heads": case.setting("KV")? as usize,
        "head_dim": tensors.dims::<2>("base.model.layers.0.self_attn.q_proj.weight")?[0] / heads.max(1),
        "rms_norm_eps": case.setting("eps")?,
        "rope_theta": case.setting("theta")?,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": !tensors.has("base.lm_head.weight"),
    });
    std::fs::write(folder.path().join("config.json"), config.to_string())?;
    let mut stored = Vec::new();
    for name in tensors.names().filter(|name| name.starts_with("base.")) {
        let bytes: Vec<u8> = tensors
            .f32(name)?
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect();
        stored.push((
            name["base.".len()..].to_string(),
            tensors.shape(name)?.to_vec(),
            bytes,
        ));
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &stored {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    serialize_to_file(views, None, &folder.path().join("model.safetensors"))?;
    Ok(Decoder::load(&Checkpoint::open(folder.path())?, device)?)
}

/// `dropout_mask.layers.I.mlp.PROJECTION.expertE`, with the probability of case.json.
fn given_masks(
    case: &Case,
    tensors: &Tensors,
    device: &Device,
) -> anyhow::Result<Option<LoraDropout>> {
    let mut masks = Vec::new();
    for name in tensors
        .names()
        .filter(|name| name.starts_with("dropout_mask."))
    {
        let parts: Vec<&str> = name.split('.').collect();
        let site = match parts.as_slice() {
            [_, "layers", layer, "mlp", projection, expert] => Site {
                layer: layer.parse()?,
                projection: PROJECTIONS
                    .iter()
                    .find(|(known, _)| known == projection)
                    .context("unknown projection")?
                    .1,
                expert: ExpertId(
                    expert
                        .strip_prefix("expert")
                        .context("no expert")?
                        .parse()?,
                ),
            },
            _ => bail!("cannot tell what {name} is a mask of"),
        };
        masks.push((site, floats::<3>(tensors, name, device)?));
    }
    Ok(if masks.is_empty() {
        None
    } else {
        Some(LoraDropout::given(case.setting("dropout")?, masks))
    })
}
