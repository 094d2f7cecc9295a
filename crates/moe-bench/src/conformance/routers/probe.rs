//! What every case of routers has: input and weights with gradients, and a loss that is a projection of what was routed.

use anyhow::Context;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use moe_lora::router::{Dispatch, LossKind, RouterLinear};

use super::super::case::Case;
use super::super::check::{Check, Tolerance};
use super::super::device::{cpu, floats, values};
use super::super::tensors::Tensors;

/// What a case is computed from.
pub struct Probe {
    /// The autodiff CPU.
    pub device: Device,
    /// `[tokens, d_model]`, with a gradient.
    pub x: Tensor<2>,
    /// From the stored `[experts, d_model]`.
    pub linear: RouterLinear,
}

impl Probe {
    /// Reads `x`, of two or three axes, and the router's weights from the tensor `weight`.
    pub fn read(tensors: &Tensors, weight: &str) -> anyhow::Result<Self> {
        let device = cpu()?.autodiff();
        let weight = floats::<2>(tensors, weight, &device)?;
        Ok(Self {
            x: rows(tensors, "x", &device)?.require_grad(),
            linear: RouterLinear::from_weight(weight.transpose()),
            device,
        })
    }

    /// `x W`, compared with the tensor `logits`.
    pub fn logits(
        &self,
        check: &mut Check,
        case: &Case,
        tensors: &Tensors,
    ) -> anyhow::Result<Tensor<2>> {
        let logits = self.linear.logits(self.x.clone());
        let tolerance = case.tolerance("forward")?;
        close(check, tensors, "logits", &logits, tolerance)?;
        Ok(logits)
    }

    /// Compares the loss with `probe_loss`, and gradients of `x` and the router's weights with the tensors of these names.
    pub fn backward(
        &self,
        check: &mut Check,
        case: &Case,
        tensors: &Tensors,
        loss: Tensor<1>,
        [x, weight]: [&str; 2],
    ) -> anyhow::Result<Gradients> {
        close(
            check,
            tensors,
            "probe_loss",
            &loss,
            case.tolerance("forward")?,
        )?;
        self.gradients(check, case, tensors, loss, [x, weight])
    }

    /// As [`Self::backward`], the loss itself aside.
    pub fn gradients(
        &self,
        check: &mut Check,
        case: &Case,
        tensors: &Tensors,
        loss: Tensor<1>,
        [x, weight]: [&str; 2],
    ) -> anyhow::Result<Gradients> {
        let tolerance = gradient_tolerance(case)?;
        let gradients = loss.backward();
        let got = self.x.grad(&gradients).context("no gradient reached x")?;
        close(check, tensors, x, &got, tolerance)?;
        let got = self.linear.weight.val().grad(&gradients);
        let got = got.context("no gradient reached the router's weights")?;
        close(check, tensors, weight, &got.transpose(), tolerance)?;
        Ok(gradients)
    }
}

/// A float array of two or more axes as rows of its last one.
pub fn rows(tensors: &Tensors, name: &str, device: &Device) -> anyhow::Result<Tensor<2>> {
    let last = *tensors
        .shape(name)?
        .last()
        .context("an array without axes")?;
    let values = tensors.f32(name)?;
    let shape = [values.len() / last, last];
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Tolerance of gradients: the case's own, or that of the forward pass.
pub fn gradient_tolerance(case: &Case) -> anyhow::Result<Tolerance> {
    match case.json["tolerance"]["grads"].is_object() {
        true => case.tolerance("grads"),
        false => case.tolerance("forward"),
    }
}

/// Compares a tensor with the array of that name, whatever axes that has.
pub fn close<const D: usize>(
    check: &mut Check,
    tensors: &Tensors,
    name: &str,
    got: &Tensor<D>,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    check.close(name, &values(got.clone()), &tensors.f32(name)?, tolerance);
    Ok(())
}

/// The value of a loss, times `factor` to be in the convention of the case, against the array of that name.
pub fn loss(
    check: &mut Check,
    tensors: &Tensors,
    name: &str,
    dispatch: &Dispatch,
    (kind, factor): (LossKind, f64),
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let loss = dispatch.losses.iter().find(|loss| loss.kind == kind);
    let loss = loss.with_context(|| format!("the router returned no {} loss", kind.name()))?;
    close(
        check,
        tensors,
        name,
        &(loss.value.clone() * factor),
        tolerance,
    )
}

/// [`loss`] of the balance and of z, as they are.
pub fn balance_and_z(
    check: &mut Check,
    tensors: &Tensors,
    dispatch: &Dispatch,
    tolerance: Tolerance,
) -> anyhow::Result<()> {
    let (balance, z) = ((LossKind::Balance, 1.0), (LossKind::Z, 1.0));
    loss(check, tensors, "loss_balance", dispatch, balance, tolerance)?;
    loss(check, tensors, "loss_z", dispatch, z, tolerance)
}

/// `Σ weights · R` over the entries plus the router's losses times their coefficients; `probe_R` has an axis of slots where
/// it is longer than tokens × experts.
pub fn projected(tensors: &Tensors, dispatch: &Dispatch) -> anyhow::Result<Tensor<1>> {
    let projection = tensors.f32("probe_R")?;
    let slots = projection.len() / (dispatch.tokens * dispatch.experts);
    let at: Vec<f32> = dispatch
        .entries
        .iter()
        .map(|entry| {
            let place = entry.token as usize * dispatch.experts + entry.expert as usize;
            projection[place * slots + if slots > 1 { entry.slot as usize } else { 0 }]
        })
        .collect();
    let at = Tensor::<1>::from_data(at.as_slice(), &dispatch.weights.device());
    let sum = (dispatch.weights.clone() * at).sum();
    Ok(match dispatch.auxiliary() {
        None => sum,
        Some(losses) => sum + losses,
    })
}
