//! The project's model with a fixture's weights.

use anyhow::{Context, ensure};
use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use moe_cl::config::{Objective, Pooling};
use moe_cl::data::Batch;
use moe_cl::{Head, Learner, TaskVectors};
use moe_core::model::Decoder;
use moe_lora::{
    AdapterConfig, Adapters, LayerRange, Lora, LoraConfig, LoraExpert, LoraInit, Texts,
};

use super::super::case::Case;
use super::super::device::{cpu, floats};
use super::super::moe_cl::loss::next_tokens;
use super::super::moe_cl::model::{PROJECTIONS, base};
use super::super::tensors::Tensors;

/// Frozen base and trained part. The fixture's matrices are `[out, in]`, the project's `[in, out]`.
pub struct Model {
    /// On the plain device.
    pub base: Decoder,
    /// On the autodiff device; one head.
    pub learner: Learner,
    /// The fixture's number of the expert at each place of the banks.
    pub order: Vec<usize>,
    /// The fixture's name of the head.
    head: Option<String>,
}

impl Model {
    /// Builds the base from `base.*` and the trained part from `PREFIXparam.*`, experts in the fixture's order but for those
    /// of `first`, which come first.
    ///
    /// # Errors
    /// When a tensor or setting is missing.
    pub fn read(
        case: &Case,
        tensors: &Tensors,
        prefix: &str,
        first: &[usize],
    ) -> anyhow::Result<Self> {
        let plain = cpu()?;
        let device = plain.clone().autodiff();
        let base = base(case, tensors, &plain)?;
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
        let scaling = config.lora.scaling();
        ensure!(
            (scaling - case.setting("scaling")?).abs() < 1e-6,
            "config.scaling does not follow from alpha and r"
        );
        let experts = (0..)
            .take_while(|expert| {
                let name = format!("{prefix}param.layers.0.mlp.up_proj.expert{expert}.A");
                tensors.has(&name)
            })
            .count();
        let rest = (0..experts).filter(|expert| !first.contains(expert));
        let order: Vec<usize> = first.iter().copied().chain(rest).collect();
        let mut adapters = Adapters::new(&config, base.config())?;
        for bank in &mut adapters.banks {
            for expert in &order {
                let mut loras = LoraExpert::default();
                for (name, projection) in PROJECTIONS {
                    let layer = bank.layer;
                    let name = format!("{prefix}param.layers.{layer}.mlp.{name}.expert{expert}");
                    let a = floats::<2>(tensors, &format!("{name}.A"), &device)?;
                    let b = floats::<2>(tensors, &format!("{name}.B"), &device)?;
                    *loras.lora_mut(projection) =
                        Some(Lora::from_tensors(a.transpose(), b.transpose(), scaling));
                }
                bank.experts.push(loras);
            }
        }
        let mut learner = Learner::new(adapters);
        let prefix = format!("{prefix}param.");
        let head = tensors
            .names()
            .filter_map(|name| name.strip_prefix(&prefix))
            .find(|name| name.starts_with("head."))
            .map(str::to_string);
        if let Some(head) = &head {
            let weight = floats::<2>(tensors, &format!("{prefix}{head}"), &device)?.transpose();
            learner.heads.push(Head::new(weight, Pooling::Last));
        }
        if tensors.has("param.mocl.proj_network") {
            let projection = floats::<2>(tensors, "param.mocl.proj_network", &device)?.transpose();
            let vectors = floats::<2>(tensors, "param.mocl.task_embedding", &device)?;
            learner.task_vectors = Some(TaskVectors::from_tensors(projection, vectors));
        }
        Ok(Self {
            base,
            learner,
            order,
            head,
        })
    }

    /// Puts the values of `PREFIXparam.*` into the parameters, which stay the same ones.
    ///
    /// # Errors
    /// When the fixture names a parameter that has no place here.
    pub fn put(&mut self, tensors: &Tensors, prefix: &str) -> anyhow::Result<()> {
        let device = cpu()?.autodiff();
        let prefix = format!("{prefix}param.");
        for name in tensors.names() {
            if let Some(parameter) = name.strip_prefix(&prefix) {
                let value = floats::<2>(tensors, name, &device)?.transpose();
                let place = self.parameter_mut(parameter)?;
                let id: ParamId = place.id;
                *place = Param::initialized(id, value.require_grad());
            }
        }
        Ok(())
    }

    /// The parameter that the fixture calls `name`, and whether it is transposed against it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn parameter(&mut self, name: &str) -> anyhow::Result<(&Param<Tensor<2>>, bool)> {
        let transposed = name != "mocl.task_embedding";
        Ok((self.parameter_mut(name)?, transposed))
    }

    fn parameter_mut(&mut self, name: &str) -> anyhow::Result<&mut Param<Tensor<2>>> {
        self.find(name)
            .with_context(|| format!("the fixture's parameter {name} has no place here"))
    }

    fn find(&mut self, name: &str) -> Option<&mut Param<Tensor<2>>> {
        if self.head.as_deref() == Some(name) {
            return Some(&mut self.learner.heads.first_mut()?.weight);
        }
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["mocl", "proj_network"] => Some(&mut self.learner.task_vectors.as_mut()?.projection),
            ["mocl", "task_embedding"] => Some(&mut self.learner.task_vectors.as_mut()?.vectors),
            ["layers", layer, "mlp", projection, expert, side] => {
                let expert = expert.strip_prefix("expert")?.parse::<usize>().ok()?;
                let place = self.order.iter().position(|&known| known == expert)?;
                let layer = layer.parse::<usize>().ok()?;
                let bank = self.learner.adapters.banks.get_mut(layer)?;
                let (_, projection) = PROJECTIONS.iter().find(|(name, _)| name == projection)?;
                let lora = bank.experts[place].lora_mut(*projection).as_mut()?;
                match *side {
                    "A" => Some(&mut lora.a),
                    "B" => Some(&mut lora.b),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// The batch `PREFIXtokens`, `PREFIXlabels` as the data pipeline would make it; `rows` of it, all where none are named.
/// A row ends with its mask, or where there is none with its last token that is no pad.
///
/// # Errors
/// When the fixture cannot be read.
pub fn batch(
    case: &Case,
    tensors: &Tensors,
    prefix: &str,
    rows: Option<std::ops::Range<usize>>,
) -> anyhow::Result<(Batch, Objective)> {
    let device = cpu()?;
    let name = |part: &str| format!("{prefix}{part}");
    let [all, seq] = tensors.dims::<2>(&name("tokens"))?;
    let rows = rows.unwrap_or(0..all);
    let ids = tensors.i64(&name("tokens"))?[rows.start * seq..rows.end * seq].to_vec();
    let lengths: Vec<usize> = if tensors.has(&name("attention_mask")) {
        tensors
            .i64(&name("attention_mask"))?
            .chunks(seq)
            .skip(rows.start)
            .take(rows.len())
            .map(|row| row.iter().sum::<i64>() as usize)
            .collect()
    } else {
        let pad = case.setting("pad")? as i64;
        ids.chunks(seq)
            .map(|row| {
                row.iter()
                    .rposition(|&id| id != pad)
                    .map_or(1, |last| last + 1)
            })
            .collect()
    };
    let real: Vec<bool> = lengths
        .iter()
        .flat_map(|&length| (0..seq).map(move |column| column < length))
        .collect();
    let labels = tensors.i64(&name("labels"))?;
    let classes = labels.len() == all;
    let width = labels.len() / all;
    let labels = &labels[rows.start * width..rows.end * width];
    let (positions, targets) = match classes {
        true => Default::default(),
        false => next_tokens(labels, seq),
    };
    let shape = [rows.len(), seq];
    let batch = Batch {
        texts: Texts::new(
            Tensor::from_data(TensorData::new(ids, shape), &device),
            Tensor::from_data(TensorData::new(real, shape), &device),
        ),
        real_tokens: lengths.iter().sum(),
        lengths,
        labels: match classes {
            true => labels.iter().map(|&label| label as usize).collect(),
            false => Vec::new(),
        },
        answer_positions: positions,
        answer_tokens: targets.into_iter().map(|token| token as u32).collect(),
    };
    let objective = match classes {
        true => Objective::Heads,
        false => Objective::Instruction,
    };
    Ok((batch, objective))
}
