//! A-GEM's projection of a gradient against a reference gradient.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use moe_cl::methods::{dot, project};

use super::super::case::Case;
use super::super::check::Check;
use super::super::device::{cpu, values};
use super::super::tensors::Tensors;

/// Parameters of any shape, as vectors: only inner products over all of them count.
#[derive(Module, Debug)]
struct Vectors {
    all: Vec<Param<Tensor<1>>>,
}

/// Compares `KIND.dot` and `KIND.projected.*` from `KIND.g.*` and `KIND.g_ref.*`.
///
/// # Errors
/// When the fixture cannot be read.
pub fn compare(check: &mut Check, case: &Case, tensors: &Tensors) -> anyhow::Result<()> {
    let tolerance = case.tolerance("forward")?;
    let device = cpu()?;
    let kinds = tensors.names().filter_map(|name| name.strip_suffix(".dot"));
    for kind in kinds {
        let prefix = format!("{kind}.g.");
        let names: Vec<&str> = tensors
            .names()
            .filter_map(|name| name.strip_prefix(&prefix))
            .collect();
        let read = |part: &str| -> anyhow::Result<Vec<Vec<f32>>> {
            let all = names.iter();
            all.map(|name| tensors.f32(&format!("{kind}.{part}.{name}")))
                .collect()
        };
        let (gradient, reference) = (read("g")?, read("g_ref")?);
        let all = gradient.iter().map(|values| {
            let zeros = Tensor::zeros([values.len()], &device.clone().autodiff());
            Param::from_tensor(zeros)
        });
        let module = Vectors { all: all.collect() };
        let gradient = gradients(&module, &gradient, &device);
        let reference = gradients(&module, &reference, &device);
        let name = format!("{kind}.dot");
        let along = dot(&module, &gradient, &reference);
        check.scalar(&name, along, tensors.f64(&name)?[0], tolerance);
        let projected = project(&module, gradient, &reference);
        for (param, name) in module.all.iter().zip(&names) {
            let name = format!("{kind}.projected.{name}");
            let got = projected.get::<1>(param.id).map(values).unwrap_or_default();
            check.close(&name, &got, &tensors.f32(&name)?, tolerance);
        }
    }
    Ok(())
}

fn gradients(module: &Vectors, values: &[Vec<f32>], device: &Device) -> GradientsParams {
    let mut gradients = GradientsParams::new();
    for (param, values) in module.all.iter().zip(values) {
        gradients.register(param.id, Tensor::<1>::from_data(&values[..], device));
    }
    gradients
}
