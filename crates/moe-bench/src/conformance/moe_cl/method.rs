//! The same batch through the training code's own `MoeCl::loss`, with the options that make it the authors' method.

use burn::tensor::Tensor;
use moe_cl::Learner;
use moe_cl::config::{DiscriminatorLoss, Mode, MoeClConfig};
use moe_cl::data::{Batch, Collate};
use moe_cl::methods::{DISCRIMINATOR_LOSS, Loss, Method, MoeCl, Place, Step};
use moe_lora::Texts;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::case::Case;
use super::super::check::{Check, Tolerance};
use super::super::device::{mask, tokens, values};
use super::super::tensors::Tensors;
use super::loss::next_tokens;
use super::model::Model;

/// What `MoeCl::loss` makes of the fixture's batch for `task` (1-based).
///
/// # Errors
/// When the fixture cannot be read.
pub fn loss(case: &Case, tensors: &Tensors, model: &Model, task: usize) -> anyhow::Result<Loss> {
    let options = MoeClConfig {
        adversarial_weight: case.setting("w")?,
        discriminator_loss: if has_logits(case) {
            DiscriminatorLoss::Logits
        } else {
            DiscriminatorLoss::Paper
        },
        ..MoeClConfig::of(Mode::Paper)
    };
    let tasks = case.setting("num_tasks")? as usize;
    let method = MoeCl::new(options, tasks);
    let batch = batch(tensors, model)?;
    // The method looks for the head of its task.
    let mut learner: Learner = model.learner.clone();
    if let Some(head) = model.head(tensors, "") {
        learner.heads = vec![Some(head.clone()); tasks];
    }
    Ok(method.loss(Step {
        base: &model.base,
        learner: &learner,
        batch: &batch,
        place: Place::alone(&batch),
        task: task - 1,
        collate: Collate::padding(0),
        dropout: model.dropout.clone(),
        rng: ChaCha8Rng::seed_from_u64(0),
    }))
}

fn has_logits(case: &Case) -> bool {
    case.json["config"]["aux_input"] == "logits"
}

/// Compares its losses and every gradient.
///
/// # Errors
/// When the fixture cannot be read.
pub fn compare(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    model: &Model,
    task: usize,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    if has_logits(case) && task == 1 {
        // Its discriminator has a class per task so far, and with one class there is no game.
        check.note("not through MoeCl::loss: the first task has no adversary there");
        return Ok(());
    }
    let loss = loss(case, tensors, model, task)?;
    let number = |loss: Tensor<1>| f64::from(loss.into_scalar::<f32>());
    let losses = case.tolerance("losses")?;
    let wanted = |name: &str| Ok::<f64, anyhow::Error>(tensors.f64(name)?[0]);
    let auxiliary = loss.figure(DISCRIMINATOR_LOSS);
    check.scalar(
        "MoeCl::loss task",
        number(loss.task),
        wanted("loss.task")?,
        losses,
    );
    match auxiliary {
        Some(auxiliary) => {
            check.scalar(
                "MoeCl::loss aux",
                number(auxiliary),
                wanted("loss.aux")?,
                losses,
            );
        }
        None => check.holds(false, || "MoeCl::loss has no adversary".into()),
    }
    let gradients = loss.total.backward();
    for name in tensors
        .names()
        .filter_map(|name| name.strip_prefix("grad."))
    {
        let want = tensors.f32(&format!("grad.{name}"))?;
        match model.parameter(name)?.val().grad(&gradients) {
            Some(gradient) => {
                let got = values(gradient.transpose());
                check.close(&format!("MoeCl::loss grad.{name}"), &got, &want, tolerance);
            }
            None => check.holds(false, || {
                format!("tensor grad.{name} got `none from MoeCl::loss`")
            }),
        }
    }
    Ok(())
}

/// The fixture's batch as the data pipeline would make it.
fn batch(tensors: &Tensors, model: &Model) -> anyhow::Result<Batch> {
    let device = model.base.device();
    let [rows, seq] = tensors.dims::<2>("tokens")?;
    let real = tensors.i64("attention_mask")?;
    let lengths: Vec<usize> = real
        .chunks(seq)
        .map(|row| row.iter().sum::<i64>() as usize)
        .collect();
    let labels = tensors.i64("labels")?;
    let classes = labels.len() == rows;
    let (positions, targets) = if classes {
        Default::default()
    } else {
        next_tokens(&labels, seq)
    };
    Ok(Batch {
        texts: Texts::new(
            tokens(tensors, "tokens", &device)?,
            mask(tensors, "attention_mask", &device)?,
        ),
        real_tokens: lengths.iter().sum(),
        lengths,
        labels: if classes {
            labels.iter().map(|&label| label as usize).collect()
        } else {
            Vec::new()
        },
        answer_positions: positions,
        answer_tokens: targets.into_iter().map(|token| token as u32).collect(),
    })
}
