//! One training step of a method on a small decoder, through the method's own `loss`.

use anyhow::Context;
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use moe_cl::config::{OLoraConfig, OLoraTest, SequentialConfig, Weights};
use moe_cl::data::{Batch, Collate};
use moe_cl::methods::{Method, Mocl, NewTask, OLora, PerTask, Place, Sequential, Step, overlap};
use moe_lora::{ExpertId, Mix, mean_of_tokens};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::base_gradients;
use super::super::case::Case;
use super::super::check::Check;
use super::super::device::{cpu, flat, values};
use super::super::moe_cl::experts::{PROJECTIONS, adapters};
use super::super::tensors::Tensors;
use super::activations;
use super::model::{Model, batch};

/// Compares logits, activations, losses and every gradient; says why where the method is not known.
///
/// # Errors
/// When the fixture cannot be read.
pub fn compare(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
) -> anyhow::Result<Option<String>> {
    let current = (case.setting("task_id")? as usize)
        .checked_sub(1)
        .context("task ids count from 1")?;
    let learnt: Vec<usize> = case.json["config"]["trained_task_ids"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|task| Some(task.as_u64()? as usize - 1))
        .collect();
    let mut first = Vec::new();
    let (method, task): (Box<dyn Method>, usize) = match case.json["config"]["adapter"].as_str() {
        Some("olora") => {
            // The project's tasks are numbered as they come.
            let task = learnt.len();
            first = learnt.clone();
            first.push(current);
            let options = OLoraConfig {
                lambda: 1.0,
                test: OLoraTest::Own,
            };
            (Box::new(OLora::new(options)), task)
        }
        Some("mocl") => (Box::new(Mocl::after(learnt.clone())), current),
        Some("sequential-ft-p") => (Box::new(PerTask), expert_with_gradient(tensors)?),
        Some("sequential-ft-f") => {
            let weights = Weights::All;
            (Box::new(Sequential::new(SequentialConfig { weights })), 0)
        }
        other => return Ok(Some(format!("unknown adapter {other:?}"))),
    };
    let mut model = Model::read(case, tensors, "", &first)?;
    let batch = batch(case, tensors, "", None)?;
    let mut learner = model.learner.clone();
    // The method looks for the head of its task.
    learner.heads = learner
        .heads
        .first()
        .map_or(Vec::new(), |head| vec![head.clone(); task + 1]);
    if case.json["config"]["adapter"] == "sequential-ft-f" {
        // It takes a copy of the base, and none of the fixture's experts.
        learner.tasks.clear();
        let first = NewTask {
            base: &model.base,
            task: 0,
            name: "fixture",
            lora: &adapters(case)?.lora,
            rng: ChaCha8Rng::seed_from_u64(0),
            device: cpu()?.autodiff(),
        };
        learner = method.prepare(learner, first);
    }
    let base = model.base.clone();
    let decoder = learner.decoder(&base);
    let mix = method.mix(decoder, &learner, task, &batch.texts);
    let mix = off_graph(mix);

    let forward = case.tolerance("forward")?;
    let plain = learner.valid();
    let plain_decoder = plain.decoder(&model.base);
    let hidden = plain
        .catalogue
        .forward_mixed(plain_decoder, &batch.texts, &mix, None);
    let logits = match plain.head(0) {
        Some(head) => head.score(flat(hidden)),
        None => plain_decoder.logits(flat(hidden)),
    };
    let real: Vec<bool> = batch
        .texts
        .real
        .clone()
        .into_data()
        .iter::<bool>()
        .collect();
    let logits = values(logits);
    let width = logits.len() / real.len();
    let want = tensors.f32("logits")?;
    check.close_where("logits", &logits, &want, forward, |index| {
        real[index / width]
    });
    if real.contains(&false) {
        // The reference numbers padding positions on, this project does not; neither is ever read.
        check.note("padding positions not compared");
    }
    activations::compare(check, tensors, &model, &plain, &batch, &mix, forward)?;

    let loss = method.loss(Step {
        base: decoder,
        learner: &learner,
        batch: &batch,
        place: Place::alone(&batch),
        task,
        collate: Collate::padding(0),
        dropout: None,
        rng: ChaCha8Rng::seed_from_u64(0),
    });
    let losses = case.tolerance("losses")?;
    for (name, got) in [("loss.task", &loss.task), ("loss.total", &loss.total)] {
        let got = got.clone().into_scalar::<f32>().into();
        check.scalar(name, got, tensors.f64(name)?[0], losses);
    }
    overlaps(check, case, tensors, &model, task)?;
    likeness(check, case, tensors, &model, current, &learnt, &batch)?;

    let gradients = loss.total.backward();
    let tolerance = case.tolerance("grads")?;
    for name in tensors
        .names()
        .filter_map(|name| name.strip_prefix("grad."))
    {
        let got = match name.strip_prefix("base.") {
            Some(name) => base_gradients::gradient(decoder, name, &gradients),
            None => {
                let (parameter, transposed) = model.parameter(name)?;
                let got = parameter.val().grad(&gradients);
                got.map(|got| values(if transposed { got.transpose() } else { got }))
            }
        };
        let name = format!("grad.{name}");
        match got {
            Some(got) => check.close(&name, &got, &tensors.f32(&name)?, tolerance),
            None => check.holds(false, || format!("tensor {name} got `no gradient`")),
        }
    }
    for name in case.json["parameters_without_gradient"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let name = name.as_str().context("a parameter's name is not a text")?;
        let none = match name.strip_prefix("base.") {
            Some(name) => base_gradients::gradient(decoder, name, &gradients).is_none(),
            None => model.parameter(name)?.0.val().grad(&gradients).is_none(),
        };
        check.holds(none, || {
            format!("tensor grad.{name} got `a gradient` want `none`")
        });
    }
    Ok(None)
}

/// Weights as constants.
fn off_graph(mix: Mix) -> Mix {
    match mix {
        Mix::Weighted { experts, weights } => Mix::Weighted {
            experts,
            weights: weights.inner(),
        },
        mix => mix,
    }
}

/// The expert of the one adapter that the fixture trains.
fn expert_with_gradient(tensors: &Tensors) -> anyhow::Result<usize> {
    let expert = tensors.names().find_map(|name| {
        let (_, rest) = name.strip_prefix("grad.")?.split_once(".expert")?;
        rest.split('.').next()?.parse().ok()
    });
    expert.context("no expert has a gradient")
}

/// `loss.aux` of O-LoRA and its parts `olora.sq.layers.L.PROJECTION.vs_taskT`.
fn overlaps(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    model: &Model,
    task: usize,
) -> anyhow::Result<()> {
    let losses = case.tolerance("losses")?;
    let mut total = 0.0;
    let catalogue = &model.learner.catalogue;
    for layer in catalogue.layers() {
        for (projection_name, projection) in PROJECTIONS {
            for old in 0..task {
                let place = model.order[old] + 1;
                let name = format!("olora.sq.layers.{layer}.{projection_name}.vs_task{place}");
                let lora = |task: usize| {
                    let expert = catalogue.expert(ExpertId(task as u64));
                    expert.layers[layer].lora(projection)
                };
                let pair = (lora(task), lora(old));
                if let (true, (Some(new), Some(old))) = (tensors.has(&name), pair) {
                    let got = f64::from(overlap(new, old).into_scalar::<f32>());
                    total += got;
                    check.scalar(&name, got, tensors.f64(&name)?[0], losses);
                }
            }
        }
    }
    if total > 0.0 {
        check.scalar("loss.aux", total, tensors.f64("loss.aux")?[0], losses);
    }
    Ok(())
}

/// `mocl.*`: the texts' mean embeddings, their cosines to the tasks, the weights that follow, and the loss on them.
fn likeness(
    check: &mut Check,
    case: &Case,
    tensors: &Tensors,
    model: &Model,
    current: usize,
    learnt: &[usize],
    batch: &Batch,
) -> anyhow::Result<()> {
    if !tensors.has("mocl.cosines") {
        return Ok(());
    }
    let forward = case.tolerance("forward")?;
    let mean = mean_of_tokens(
        model.base.embed(batch.texts.tokens.clone()),
        batch.texts.real.clone(),
    );
    let name = "mocl.mean_embedding";
    check.close(name, &values(mean), &tensors.f32(name)?, forward);
    let method = Mocl::after(learnt.to_vec());
    let (cosines, mix) = method.weigh(&model.base, &model.learner, current, &batch.texts);
    let [_, tasks] = cosines.dims();
    let unlikeness = 1.0
        - f64::from(
            cosines
                .clone()
                .narrow(1, current, 1)
                .mean()
                .into_scalar::<f32>(),
        );
    check.scalar(
        "loss.aux",
        unlikeness,
        tensors.f64("loss.aux")?[0],
        case.tolerance("losses")?,
    );
    let Mix::Weighted { experts, weights } = mix else {
        anyhow::bail!("MoCL weighs its experts");
    };
    let [_, columns] = tensors.dims::<2>("mocl.cosines")?;
    let cosines = if columns == tasks {
        cosines
    } else {
        // The fixture lists the active tasks only.
        let active: Vec<i64> = experts.iter().map(|expert| expert.0 as i64).collect();
        let count = active.len();
        let active =
            Tensor::<1, Int>::from_data(TensorData::new(active, [count]), &cosines.device());
        cosines.select(1, active)
    };
    for (name, got) in [("mocl.cosines", cosines), ("mocl.weights", weights)] {
        check.close(name, &values(got), &tensors.f32(name)?, forward);
    }
    Ok(())
}
