//! The project's model with a fixture's weights.

use anyhow::Context;
use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use moe_cl::config::Pooling;
use moe_cl::data::Batch;
use moe_cl::methods::Own;
use moe_cl::{Head, Learner, TaskExperts, TaskVectors};
use moe_core::model::Decoder;
use moe_lora::{Expert, ExpertId, Routing, Texts};

use super::super::case::Case;
use super::super::device::{cpu, floats};
use super::super::moe_cl::experts::{PROJECTIONS, experts_of};
use super::super::moe_cl::loss::next_tokens;
use super::super::moe_cl::model::base;
use super::super::tensors::Tensors;

/// Frozen base and trained part. The fixture's matrices are `[out, in]`, the project's `[in, out]`.
pub struct Model {
    /// On the plain device.
    pub base: Decoder,
    /// On the autodiff device; one head, and a task for every expert, in the order of their ids.
    pub learner: Learner,
    /// The fixture's number of each expert, by id.
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
        let experts = (0..)
            .take_while(|expert| {
                let name = format!("{prefix}param.layers.0.mlp.up_proj.expert{expert}.A");
                tensors.has(&name)
            })
            .count();
        let rest = (0..experts).filter(|expert| !first.contains(expert));
        let order: Vec<usize> = first.iter().copied().chain(rest).collect();
        let catalogue = experts_of(case, tensors, prefix, &order, &base)?;
        let ids = catalogue.experts().iter().map(Expert::id);
        let mut learner = Learner {
            tasks: ids.map(|id| TaskExperts::of(Routing::Single(id))).collect(),
            ..Learner::new(catalogue)
        };
        let prefix = format!("{prefix}param.");
        let head = tensors
            .names()
            .filter_map(|name| name.strip_prefix(&prefix))
            .find(|name| name.starts_with("head."))
            .map(str::to_string);
        if let Some(head) = &head {
            let weight = floats::<2>(tensors, &format!("{prefix}{head}"), &device)?.transpose();
            learner.heads.push(Some(Head::new(weight, Pooling::Last)));
        }
        if tensors.has("param.mocl.proj_network") {
            let projection = floats::<2>(tensors, "param.mocl.proj_network", &device)?.transpose();
            let vectors = floats::<2>(tensors, "param.mocl.task_embedding", &device)?;
            let vectors = TaskVectors::from_tensors(projection, vectors);
            learner.own = Some(Own::TaskVectors(vectors));
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
            return Some(&mut self.learner.heads.first_mut()?.as_mut()?.weight);
        }
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["mocl", part] => {
                let Some(Own::TaskVectors(vectors)) = &mut self.learner.own else {
                    return None;
                };
                match *part {
                    "proj_network" => Some(&mut vectors.projection),
                    "task_embedding" => Some(&mut vectors.vectors),
                    _ => None,
                }
            }
            ["layers", layer, "mlp", projection, expert, side] => {
                let expert = expert.strip_prefix("expert")?.parse::<usize>().ok()?;
                let place = self.order.iter().position(|&known| known == expert)?;
                let expert = self.learner.catalogue.expert_mut(ExpertId(place as u64));
                let layer = expert.layers.get_mut(layer.parse::<usize>().ok()?)?;
                let (_, projection) = PROJECTIONS.iter().find(|(name, _)| name == projection)?;
                let lora = layer.lora_mut(*projection).as_mut()?;
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
) -> anyhow::Result<Batch> {
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
    Ok(Batch {
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
    })
}
