//! Elastic weight consolidation: on a small perceptron over several tasks, and on the adapters and head of a decoder.

use anyhow::Context;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use moe_cl::config::{EwcConfig, EwcMode};
use moe_cl::cross_entropy;
use moe_cl::data::Collate;
use moe_cl::methods::{Ewc, Importance, Method, Place, Step, fisher};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::case::Case;
use super::super::check::{Check, Tolerance};
use super::super::device::{cpu, floats, values};
use super::super::tensors::Tensors;
use super::model::{Model, batch};

const LAYERS: [&str; 2] = ["fc1", "fc2"];

/// `fc2(tanh(fc1(x)))`.
#[derive(Module, Debug)]
struct Perceptron {
    layers: Vec<Linear>,
}

impl Perceptron {
    fn read(tensors: &Tensors, prefix: &str, device: &Device) -> anyhow::Result<Self> {
        let layers = LAYERS.iter().map(|layer| {
            let weight = floats::<2>(tensors, &format!("{prefix}.{layer}.weight"), device)?;
            let bias = floats::<1>(tensors, &format!("{prefix}.{layer}.bias"), device)?;
            Ok(Linear {
                weight: Param::from_tensor(weight.transpose().detach()),
                bias: Some(Param::from_tensor(bias)),
            })
        });
        Ok(Self {
            layers: layers.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The same parameters with the values of `other`.
    fn with_values_of(mut self, other: Self) -> Self {
        for (layer, other) in self.layers.iter_mut().zip(other.layers) {
            layer.weight = Param::initialized(layer.weight.id, other.weight.val());
            layer.bias = layer
                .bias
                .as_ref()
                .zip(other.bias)
                .map(|(bias, other)| Param::initialized(bias.id, other.val()));
        }
        self
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [first, second] = [&self.layers[0], &self.layers[1]];
        second.forward(first.forward(x).tanh())
    }

    /// Mean cross-entropy of rows of `PREFIX.x` against `PREFIX.y`.
    fn loss(
        &self,
        tensors: &Tensors,
        prefix: &str,
        rows: std::ops::Range<usize>,
    ) -> anyhow::Result<Tensor<1>> {
        let [_, width] = tensors.dims::<2>(&format!("{prefix}.x"))?;
        let x = tensors.f32(&format!("{prefix}.x"))?;
        let x = x[rows.start * width..rows.end * width].to_vec();
        let x = Tensor::<2>::from_data(TensorData::new(x, [rows.len(), width]), &cpu()?);
        let y = tensors.i64(&format!("{prefix}.y"))?;
        let y: Vec<usize> = y[rows].iter().map(|&class| class as usize).collect();
        Ok(cross_entropy(self.forward(x), &y))
    }

    /// Every parameter: its name, what `weight` and `bias` make of it, in the fixture's orientation.
    fn each(
        &self,
        weight: impl Fn(&Param<Tensor<2>>) -> Option<Tensor<2>>,
        bias: impl Fn(&Param<Tensor<1>>) -> Option<Tensor<1>>,
    ) -> Vec<(String, Option<Vec<f32>>)> {
        let layers = self.layers.iter().zip(LAYERS);
        layers
            .flat_map(|(layer, name)| {
                let rows = weight(&layer.weight).map(|x| values(x.transpose()));
                let offset = layer.bias.as_ref().and_then(&bias).map(values);
                [
                    (format!("{name}.weight"), rows),
                    (format!("{name}.bias"), offset),
                ]
            })
            .collect()
    }
}

fn options(case: &Case) -> anyhow::Result<EwcConfig> {
    let config = &case.json["config"];
    Ok(EwcConfig {
        lambda: case.setting("ewc_lambda")?,
        mode: match config["mode"].as_str() {
            Some("online") => EwcMode::Online,
            Some("separate") | None => EwcMode::Separate,
            Some(other) => anyhow::bail!("unknown mode {other}"),
        },
        decay: config["decay"].as_f64().unwrap_or(1.0),
        ..EwcConfig::default()
    })
}

/// The perceptron after each of its tasks, and while it learns the next.
///
/// # Errors
/// When the fixture cannot be read.
pub fn perceptron(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let size = case.setting("batch_size")? as usize;
    let device = cpu()?.autodiff();
    let mut method = Ewc::new(options(case)?);
    let mut model = Perceptron::read(tensors, "task0.param", &device)?;
    for task in (0..).take_while(|task| tensors.has(&format!("task{task}.x"))) {
        let prefix = format!("task{task}");
        let read = Perceptron::read(tensors, &format!("{prefix}.param"), &device)?;
        model = model.with_values_of(read);
        let [samples, _] = tensors.dims::<2>(&format!("{prefix}.x"))?;
        let mut importance = Importance::default();
        for start in (0..samples).step_by(size.max(1)) {
            let loss = model.loss(tensors, &prefix, start..samples.min(start + size))?;
            importance.add(
                &model,
                &GradientsParams::from_grads(loss.backward(), &model),
            );
        }
        method.keep(importance.anchor(&model));
        let anchor = method.anchors().last().context("an anchor was just kept")?;
        let plain = cpu()?;
        let got = model.each(
            |weight| {
                let stored = anchor.importance(weight.id)?.to_vec();
                Some(Tensor::from_data(
                    TensorData::new(stored, weight.dims()),
                    &plain,
                ))
            },
            |bias| Some(Tensor::from_data(anchor.importance(bias.id)?, &plain)),
        );
        against(
            check,
            tensors,
            &format!("{prefix}.importance"),
            got,
            tolerance,
        )?;
    }

    let read = Perceptron::read(tensors, "train.param", &device)?;
    model = model.with_values_of(read);
    let [samples, _] = tensors.dims::<2>("train.x")?;
    let loss = model.loss(tensors, "train", 0..samples)?;
    let penalty = method.penalty(&model).context("no task was kept")?;
    let number = |loss: &Tensor<1>| f64::from(loss.clone().into_scalar::<f32>());
    let total = loss.clone() + penalty.clone();
    for (name, got) in [
        ("loss_ce", &loss),
        ("penalty_times_lambda", &penalty),
        ("loss_total", &total),
    ] {
        let name = format!("train.{name}");
        check.scalar(&name, number(got), tensors.f64(&name)?[0], tolerance);
    }
    let gradients = total.backward();
    let got = model.each(
        |weight| weight.val().grad(&gradients),
        |bias| bias.val().grad(&gradients),
    );
    against(check, tensors, "train.grad", got, tolerance)
}

fn against(
    check: &mut Check,
    tensors: &Tensors,
    prefix: &str,
    got: Vec<(String, Option<Vec<f32>>)>,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    for (name, got) in got {
        let name = format!("{prefix}.{name}");
        let got = got.unwrap_or_default();
        check.close(&name, &got, &tensors.f32(&name)?, tolerance);
    }
    Ok(())
}

/// Adapters and head of a decoder after one task, and one step of the next through `Ewc::loss`.
///
/// # Errors
/// When the fixture cannot be read.
pub fn decoder(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let mut method = Ewc::new(options(case)?);
    let mut model = Model::read(case, tensors, "old.", &[])?;
    let [samples, _] = tensors.dims::<2>("old.tokens")?;
    let size = case.setting("batch_size")? as usize;
    let mut batches = Vec::new();
    for start in (0..samples).step_by(size.max(1)) {
        let rows = start..samples.min(start + size);
        batches.push(batch(case, tensors, "old.", Some(rows))?);
    }
    let train = batch(case, tensors, "train.", None)?;
    let importance = fisher(&model.base, &model.learner, 0, batches);
    method.keep(importance.anchor(&model.learner));
    let anchor = method.anchors().last().context("an anchor was just kept")?;
    for name in names(tensors, "old.importance.") {
        let (parameter, _) = model.parameter(name)?;
        let got = anchor.importance(parameter.id).unwrap_or_default();
        let got = Tensor::<2>::from_data(TensorData::new(got.to_vec(), parameter.dims()), &cpu()?);
        let name = format!("old.importance.{name}");
        let tolerance = case.tolerance("importance")?;
        check.close(
            &name,
            &values(got.transpose()),
            &tensors.f32(&name)?,
            tolerance,
        );
    }

    model.put(tensors, "train.")?;
    let loss = method.loss(Step {
        base: &model.base,
        learner: &model.learner,
        batch: &train,
        place: Place::alone(&train),
        task: 0,
        collate: Collate::padding(0),
        dropout: None,
        rng: ChaCha8Rng::seed_from_u64(0),
    });
    let forward = case.tolerance("forward")?;
    for (name, got) in [
        ("train.loss_ce", &loss.task),
        ("train.loss_total", &loss.total),
    ] {
        let got = got.clone().into_scalar::<f32>().into();
        check.scalar(name, got, tensors.f64(name)?[0], forward);
    }
    let gradients = loss.total.backward();
    for name in names(tensors, "train.grad.") {
        let (parameter, _) = model.parameter(name)?;
        let got = parameter.val().grad(&gradients);
        let got = got.map(|x| values(x.transpose())).unwrap_or_default();
        let name = format!("train.grad.{name}");
        check.close(&name, &got, &tensors.f32(&name)?, case.tolerance("grads")?);
    }
    Ok(())
}

fn names<'a>(tensors: &'a Tensors, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    tensors
        .names()
        .filter_map(move |name| name.strip_prefix(prefix))
}
