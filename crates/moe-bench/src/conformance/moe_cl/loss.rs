//! Losses of one batch.

use anyhow::Context;
use burn::tensor::{Int, Tensor, TensorData};
use moe_cl::cross_entropy;
use moe_gan::{DiscriminatorLoss, adversarial_loss};
use moe_lora::{ExpertId, GateId, Observe, Routing, Texts};

use super::super::case::Case;
use super::super::check::{Check, Tolerance};
use super::super::device::{flat, mask, tokens, values};
use super::super::tensors::Tensors;
use super::model::{Model, discriminators};

/// What one forward pass gives.
pub struct Losses {
    /// What is minimised: `L_task + w · L_GAN` behind the reversal.
    pub objective: Tensor<1>,
    /// Per-position outputs of the head, or of the vocabulary projection.
    pub logits: Vec<f32>,
    task: f64,
    auxiliary: f64,
    weight: f64,
}

/// The expert that all tasks share.
pub const SHARED: ExpertId = ExpertId(0);

/// The one gate.
pub const GATE: GateId = GateId(0);

/// The expert of `task` (1-based): the fixtures' numbers are the ids.
pub fn dedicated(task: usize) -> ExpertId {
    ExpertId(task as u64)
}

/// The shared expert and that of `task` (1-based) behind the one gate.
pub fn routing(task: usize) -> Routing {
    Routing::Gated {
        experts: vec![SHARED, dedicated(task)],
        gate: GATE,
    }
}

/// What the discriminator sees: the shared expert, nothing detached.
pub const OBSERVE: Observe = Observe {
    expert: SHARED,
    detach_upstream: false,
};

impl Losses {
    /// Runs the batch `PREFIXtokens`, `PREFIXattention_mask`, `PREFIXlabels` for `task` (1-based).
    ///
    /// # Errors
    /// When the fixture cannot be read.
    pub fn compute(
        case: &Case,
        tensors: &Tensors,
        model: &Model,
        prefix: &str,
        task: usize,
    ) -> anyhow::Result<Self> {
        let Model {
            base,
            learner,
            dropout,
            ..
        } = model;
        let device = base.device();
        let (ids, real) = (format!("{prefix}tokens"), format!("{prefix}attention_mask"));
        let [batch, seq] = tensors.dims::<2>(&ids)?;
        let forward = learner.catalogue.forward(
            base,
            &Texts::new(
                tokens(tensors, &ids, &device)?,
                mask(tensors, &real, &device)?,
            ),
            &routing(task),
            Some(&OBSERVE),
            dropout.as_ref(),
        );
        let hidden = flat(forward.hidden);
        let labels = tensors.i64(&format!("{prefix}labels"))?;
        // One label per row is a class, one per position a token to predict.
        let logits = match model
            .head(tensors, prefix)
            .filter(|_| labels.len() == batch)
        {
            Some(head) => head.score(hidden),
            None => base.logits(hidden),
        };
        let (positions, targets) = if labels.len() == batch {
            let pad = case.setting("pad")? as i64;
            (training_positions(&tensors.i64(&ids)?, seq, pad), labels)
        } else {
            next_tokens(&labels, seq)
        };
        let targets: Vec<usize> = targets.into_iter().map(|target| target as usize).collect();
        let task_loss = cross_entropy(pick(logits.clone(), &positions), &targets);

        let kind = match case.json["config"]["aux_input"].as_str() {
            Some("logits") => DiscriminatorLoss::Logits,
            Some("probs") | None => DiscriminatorLoss::Paper,
            Some(other) => anyhow::bail!("unknown aux_input {other}"),
        };
        let auxiliary = adversarial_loss(
            discriminators(learner).context("no discriminators")?,
            forward.pooled,
            &vec![task - 1; batch],
            kind,
        );
        let weight = case.setting("w")?;
        let number = |loss: &Tensor<1>| f64::from(loss.clone().into_scalar::<f32>());
        Ok(Self {
            task: number(&task_loss),
            auxiliary: number(&auxiliary),
            weight,
            objective: task_loss + auxiliary * weight,
            logits: values(logits),
        })
    }

    /// `loss.task`, `loss.aux` and `loss.total`, the paper's `L_task − w · L_GAN`.
    ///
    /// # Errors
    /// When the fixture has no such tensors.
    pub fn compare(
        &self,
        check: &mut Check,
        tensors: &Tensors,
        prefix: &str,
        tolerance: Tolerance,
    ) -> anyhow::Result<()> {
        let total = self.task - self.weight * self.auxiliary;
        for (name, got) in [
            ("task", self.task),
            ("aux", self.auxiliary),
            ("total", total),
        ] {
            let name = format!("{prefix}loss.{name}");
            check.scalar(&name, got, tensors.f64(&name)?[0], tolerance);
        }
        Ok(())
    }

    /// `eval.*`: outputs at the last real token of each row, and the class they name.
    ///
    /// # Errors
    /// When the fixture cannot be read.
    pub fn evaluation(
        &self,
        check: &mut Check,
        tensors: &Tensors,
        tolerance: Tolerance,
    ) -> anyhow::Result<()> {
        if !tensors.has("eval.pooled_logits") {
            return Ok(());
        }
        let [batch, classes] = tensors.dims::<2>("eval.pooled_logits")?;
        let real = tensors.i64("attention_mask")?;
        let seq = real.len() / batch;
        let rows: Vec<&[f32]> = (0..batch)
            .map(|row| {
                let count = real[row * seq..(row + 1) * seq].iter().sum::<i64>() as usize;
                let position = row * seq + count - 1;
                &self.logits[position * classes..(position + 1) * classes]
            })
            .collect();
        check.close(
            "eval.pooled_logits",
            &rows.concat(),
            &tensors.f32("eval.pooled_logits")?,
            tolerance,
        );
        let named: Vec<i64> = rows
            .iter()
            .map(|row| i64::from(moe_core::generate::argmax(row)))
            .collect();
        check.exact("eval.pred", &named, &tensors.i64("eval.pred")?);
        Ok(())
    }
}

/// Where the authors read the class while training: just before the first pad token, at the last position where there is none.
fn training_positions(ids: &[i64], seq: usize, pad: i64) -> Vec<usize> {
    let rows = ids.chunks(seq).enumerate();
    rows.map(|(row, ids)| {
        row * seq
            + ids
                .iter()
                .position(|&id| id == pad)
                .filter(|&first| first > 0)
                .unwrap_or(seq)
            - 1
    })
    .collect()
}

/// Positions that predict a label that counts (not −100), and these labels: position t predicts label t + 1.
pub fn next_tokens(labels: &[i64], seq: usize) -> (Vec<usize>, Vec<i64>) {
    let kept = labels
        .iter()
        .enumerate()
        .filter(|&(index, &label)| index % seq > 0 && label >= 0);
    kept.map(|(index, &label)| (index - 1, label)).unzip()
}

fn pick(logits: Tensor<2>, positions: &[usize]) -> Tensor<2> {
    let device = logits.device();
    let indices: Vec<i64> = positions.iter().map(|&position| position as i64).collect();
    let count = indices.len();
    logits.select(
        0,
        Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &device),
    )
}

/// The 1-based task of a step.
///
/// # Errors
/// When the fixture does not say it.
pub fn task_of_step(tensors: &Tensors, prefix: &str) -> anyhow::Result<usize> {
    let task = tensors.i64(&format!("{prefix}task_id"))?;
    task.first()
        .map(|&task| task as usize)
        .context("no task_id")
}
