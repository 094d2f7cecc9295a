//! One step of the PyTorch program against ours, from the same weights and batch, without dropout.

use std::fmt::{self, Display};
use std::path::Path;

use anyhow::{bail, ensure};
use burn::tensor::Tensor;
use serde::Serialize;
use serde_json::json;

use moe_cl::methods::DISCRIMINATOR_LOSS;

use crate::conformance::case::Case;
use crate::conformance::moe_cl::{method, model::Model};
use crate::conformance::tensors::Tensors;
use moe_core::model::BaseDtype;

/// How far apart two steps are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Relative difference of the task's loss, then of the classifiers'.
    pub losses: [f64; 2],
    /// Relative difference of all gradients together, ‖theirs − ours‖ / ‖ours‖.
    pub gradients: f64,
    /// The greatest such difference of one parameter's gradient, and the parameter.
    pub worst: (f64, String),
}

impl Agreement {
    /// Refuses a program that computes something else.
    ///
    /// In f32 only rounding may differ. A bf16 step rounds every product and sum to 8 bits, 30 layers deep, and is held against our
    /// f32 step: all gradients together move by a few per cent, and that of a gate, a small difference of large numbers, by tens.
    /// What is computed is told by f32; here, that nothing is lost on the way: a gradient that is missing differs by 1.
    ///
    /// # Errors
    /// When losses or gradients differ by more.
    pub fn hold(&self, dtype: BaseDtype) -> anyhow::Result<()> {
        let (losses, gradients, worst) = match dtype {
            BaseDtype::F32 | BaseDtype::Stored => (1e-4, 1e-3, 1e-2),
            BaseDtype::Bf16 => (2e-2, 0.1, 0.6),
        };
        let largest = self.losses[0].max(self.losses[1]);
        let close = largest <= losses && self.gradients <= gradients && self.worst.0 <= worst;
        ensure!(
            close,
            "PyTorch's step in {} is not ours, so that nothing is timed: {self}; allowed are {losses:.0e}, {gradients:.0e} and {worst:.0e}",
            dtype
        );
        Ok(())
    }
}

impl Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            losses: [task, aux],
            gradients,
            worst: (worst, name),
        } = self;
        write!(
            f,
            "losses differ by {task:.1e} (task) and {aux:.1e} (classifiers), gradients by {gradients:.1e}, at most by {worst:.1e} ({name})"
        )
    }
}

/// Runs the step that `file` holds through the training code, on the base in `folder`.
///
/// # Errors
/// When the file cannot be read, or has a gradient where ours has none or the other way round.
pub fn compare(file: &Path, folder: &Path) -> anyhow::Result<Agreement> {
    let tensors = Tensors::read(file)?;
    let [rank, _] = tensors.dims::<2>("param.layers.0.mlp.gate_proj.expert0.A")?;
    let [tasks, _] = tensors.dims::<2>("param.layers.0.moe.task_classifier")?;
    // The defaults of torch_tuned.py, and what its file says.
    let case = Case {
        name: "peers".into(),
        dir: folder.into(),
        json: json!({
            "base": folder,
            "config": {
                "r": rank, "alpha": 16.0, "scaling": 16.0 / rank as f64, "w": 0.1,
                "num_experts": tasks + 1, "num_tasks": tasks,
            },
        }),
    };
    let model = Model::read(&case, &tensors)?;
    let loss = method::loss(&case, &tensors, &model, tasks)?;
    let Some(auxiliary) = loss.figure(DISCRIMINATOR_LOSS) else {
        bail!("our step has no adversary");
    };
    let number = |loss: Tensor<1>| f64::from(loss.into_scalar::<f32>());
    let apart = |name: &str, ours: f64| {
        let theirs = tensors.f64(name)?[0];
        anyhow::Ok((theirs - ours).abs() / ours.abs())
    };
    let losses = [
        apart("loss.task", number(loss.task))?,
        apart("loss.aux", number(auxiliary))?,
    ];
    let gradients = loss.total.backward();
    let (mut all, mut worst) = (Difference::default(), (0.0, String::new()));
    for name in tensors
        .names()
        .filter_map(|name| name.strip_prefix("param."))
    {
        let has_theirs = tensors.has(&format!("grad.{name}"));
        let Some(ours) = model.parameter(name)?.val().grad(&gradients) else {
            ensure!(
                !has_theirs,
                "PyTorch has a gradient of {name}, ours has none"
            );
            continue;
        };
        ensure!(
            has_theirs,
            "PyTorch has no gradient of {name}, ours has one"
        );
        let theirs = tensors.f32(&format!("grad.{name}"))?;
        let ours: Vec<f32> = ours.transpose().into_data().iter::<f32>().collect();
        ensure!(
            ours.len() == theirs.len(),
            "the gradients of {name} have different sizes"
        );
        let one = Difference::of(&theirs, &ours);
        if one.relative() > worst.0 {
            worst = (one.relative(), name.to_string());
        }
        all = all.and(one);
    }
    Ok(Agreement {
        losses,
        gradients: all.relative(),
        worst,
    })
}

/// Sums of squares, of a difference and of what it is relative to.
#[derive(Clone, Copy, Default)]
struct Difference {
    apart: f64,
    size: f64,
}

impl Difference {
    fn of(theirs: &[f32], ours: &[f32]) -> Self {
        let square = |x: f64| x * x;
        let pairs = theirs.iter().zip(ours);
        Self {
            apart: pairs
                .map(|(a, b)| square(f64::from(*a) - f64::from(*b)))
                .sum(),
            size: ours.iter().map(|x| square(f64::from(*x))).sum(),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            apart: self.apart + other.apart,
            size: self.size + other.size,
        }
    }

    /// A missing number is infinitely far from any other.
    fn relative(self) -> f64 {
        let relative = (self.apart / self.size.max(f64::MIN_POSITIVE)).sqrt();
        if relative.is_nan() {
            f64::INFINITY
        } else {
            relative
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(losses: [f64; 2], gradients: f64, worst: f64) -> Agreement {
        Agreement {
            losses,
            gradients,
            worst: (worst, "gate".into()),
        }
    }

    #[test]
    fn differences_are_relative_to_our_size() {
        let difference = Difference::of(&[3.0, 4.4], &[3.0, 4.0]);
        assert!((difference.relative() - 0.08).abs() < 1e-6);
        assert_eq!(
            Difference::of(&[f32::NAN], &[1.0]).relative(),
            f64::INFINITY
        );
        let all = difference.and(Difference::of(&[0.0; 2], &[0.0; 2]));
        assert!((all.relative() - 0.08).abs() < 1e-6);
    }

    #[test]
    fn a_step_that_is_not_ours_is_not_timed() {
        assert!(
            agreement([1e-6, 1e-6], 1e-5, 1e-4)
                .hold(BaseDtype::F32)
                .is_ok()
        );
        // A sign that was not turned.
        let other = agreement([1e-6, 1e-6], 1e-5, 2.0);
        let error = other.hold(BaseDtype::F32).expect_err("refused").to_string();
        assert!(
            error.contains("gate") && error.contains("nothing is timed"),
            "{error}"
        );
        assert!(
            agreement([0.1, 0.0], 0.0, 0.0)
                .hold(BaseDtype::Bf16)
                .is_err()
        );
        assert!(
            agreement([1e-3, 1e-4], 0.02, 0.39)
                .hold(BaseDtype::Bf16)
                .is_ok()
        );
    }
}
