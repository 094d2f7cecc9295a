//! AdamW with PyTorch's constants, and what is done with gradients before it.

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::{GradientsParams, ModuleOptimizer},
    tensor::{Bytes, DType, Tensor},
};
use burn_pack::{Reader, Writer};
use moe_kernels::AdamW;

/// AdamW as `torch.optim.AdamW`: ε = 1e-8 outside the square root, decay decoupled from the step
/// (Loshchilov & Hutter, arXiv 1711.05101). Burn's own defaults differ in ε and decay.
pub fn adamw(betas: (f64, f64), epsilon: f64, weight_decay: f64) -> ModuleOptimizer {
    let betas = [betas.0 as f32, betas.1 as f32];
    AdamW::new(betas, epsilon as f32, weight_decay as f32).into()
}

/// An optimiser's state in the order of its names: Burn gives the tensors in another order in every process.
///
/// # Errors
/// When the state cannot be written.
pub fn state_bytes(optimizer: &ModuleOptimizer) -> Result<Bytes, burn_pack::Error> {
    let record = optimizer.into_bytes().map_err(|error| {
        burn_pack::Error::IoError(format!("Burn's record of the optimizer: {error}"))
    })?;
    let reader = Reader::from_bytes(record)?;
    let (scalars, texts) = (reader.scalars().clone(), reader.metadata().clone());
    let mut tensors = reader.into_tensors()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let writer = Writer::new(tensors);
    let writer = scalars.iter().fold(writer, |writer, (name, value)| {
        writer.with_scalar(name, *value)
    });
    let writer = texts.iter().fold(writer, |writer, (name, text)| {
        writer.with_metadata(name, text)
    });
    writer.into_bytes()
}

/// The optimiser whose state [`state_bytes`] gave, for the parameters of `module`.
///
/// # Errors
/// When it is no such state, or one of other parameters.
pub fn with_state<M: Module>(
    fresh: ModuleOptimizer,
    module: &M,
    bytes: Vec<u8>,
) -> Result<ModuleOptimizer, String> {
    let bytes = Bytes::from_bytes_vec(bytes);
    let mut shapes = Shapes::default();
    module.visit(&mut shapes);
    // Burn takes it for granted that a record is its own.
    let read = || {
        shapes.check(Reader::from_bytes(bytes.clone()).map_err(|error| error.to_string())?)?;
        let read = fresh.from_bytes(bytes);
        read.map_err(|error| error.to_string())
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("no optimizer's state".into()))
}

/// The shape of each parameter.
#[derive(Default)]
struct Shapes(HashMap<u64, Vec<usize>>);

impl ModuleVisitor for Shapes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id.val(), param.shape().to_vec());
    }
}

impl Shapes {
    /// Refuses a record of anything else.
    fn check(&self, record: Reader) -> Result<(), String> {
        for (name, value) in record.scalars() {
            let Some(id) = name.strip_suffix(".__rank") else {
                continue;
            };
            let shape = id.parse().ok().and_then(|id| self.0.get(&id));
            let rank = usize::try_from(*value).ok();
            if shape.map(Vec::len) != rank || rank.is_none() {
                return Err(format!("{name} is of no parameter that is there"));
            }
        }
        for tensor in record.into_tensors().map_err(|error| error.to_string())? {
            let shape = tensor.param_id.and_then(|id| self.0.get(&id));
            if shape != Some(&tensor.shape.to_vec()) || tensor.dtype != DType::F32 {
                return Err(format!("{} is of no parameter that is there", tensor.name));
            }
        }
        Ok(())
    }
}

/// √Σ‖g‖² over every gradient of `module` that is there.
pub fn gradient_norm<M: Module>(module: &M, gradients: &GradientsParams) -> f64 {
    sum_over(module, gradients, |_, gradient| {
        Some(gradient.square().sum())
    })
    .sqrt()
}

/// Scales all gradients by `max_norm / (norm + 1e-6)` where that is below one, as `clip_grad_norm_` does.
/// `norm` comes from [`gradient_norm`].
pub fn clip_by_global_norm<M: Module>(
    module: &M,
    gradients: GradientsParams,
    norm: f64,
    max_norm: f64,
) -> GradientsParams {
    let coefficient = max_norm / (norm + 1e-6);
    if coefficient >= 1.0 {
        return gradients;
    }
    map_gradients(module, &gradients, |_, gradient| {
        Some(gradient?.mul_scalar(coefficient))
    })
}

/// Ids of the parameters of `module` that have a gradient.
pub fn with_gradient<M: Module>(module: &M, gradients: &GradientsParams) -> HashSet<ParamId> {
    let mut ids = HashSet::new();
    map_gradients(module, gradients, |id, gradient| {
        ids.extend(gradient.map(|_| id));
        None
    });
    ids
}

/// The parameter of `module` whose gradient is not finite, or else the one with the largest gradient, by its path, and the norm of
/// that gradient. Reads every gradient back.
pub fn largest_gradient<M: Module>(
    module: &M,
    gradients: &GradientsParams,
) -> Option<(String, f64)> {
    let mut norms = Norms {
        gradients,
        path: Vec::new(),
        all: Vec::new(),
    };
    module.visit(&mut norms);
    let size = |norm: f64| match norm.is_finite() {
        true => norm,
        false => f64::INFINITY,
    };
    let by_size = |a: &(String, f64), b: &(String, f64)| size(a.1).total_cmp(&size(b.1));
    // Of several, the first in the order of the module.
    norms.all.into_iter().rev().max_by(by_size)
}

/// The norm of every gradient, in f64 so that a finite gradient has a finite norm, with the path of its parameter.
struct Norms<'a> {
    gradients: &'a GradientsParams,
    path: Vec<String>,
    all: Vec<(String, f64)>,
}

impl ModuleVisitor for Norms<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let data = gradient.into_data();
            let norm = data.iter::<f64>().map(|x| x * x).sum::<f64>().sqrt();
            self.all.push((self.path.join("."), norm));
        }
    }
}

/// Σ of what `f` makes of each gradient of `module` that is there, flat, to a sum of shape `[1]`; read back once.
pub fn sum_over<M: Module>(
    module: &M,
    gradients: &GradientsParams,
    mut f: impl FnMut(ParamId, Tensor<1>) -> Option<Tensor<1>>,
) -> f64 {
    let mut total: Option<Tensor<1>> = None;
    map_gradients(module, gradients, |id, gradient| {
        if let Some(part) = gradient.and_then(|gradient| f(id, gradient)) {
            total = Some(match total.take() {
                Some(total) => total + part,
                None => part,
            });
        }
        None
    });
    total.map_or(0.0, |total| f64::from(total.into_scalar::<f32>()))
}

/// What `f` makes of the gradient of each parameter of `module`, flat, none where there is none.
pub fn map_gradients<M: Module>(
    module: &M,
    gradients: &GradientsParams,
    f: impl FnMut(ParamId, Option<Tensor<1>>) -> Option<Tensor<1>>,
) -> GradientsParams {
    let mut visitor = Gradients {
        gradients,
        mapped: GradientsParams::new(),
        f,
    };
    module.visit(&mut visitor);
    visitor.mapped
}

/// The one visitor of gradients.
struct Gradients<'a, F> {
    gradients: &'a GradientsParams,
    mapped: GradientsParams,
    f: F,
}

impl<F: FnMut(ParamId, Option<Tensor<1>>) -> Option<Tensor<1>>> ModuleVisitor for Gradients<'_, F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self.gradients.get::<D>(param.id);
        let flat = gradient.map(|gradient| {
            let count = gradient.shape().num_elements();
            gradient.reshape([count])
        });
        if let Some(mapped) = (self.f)(param.id, flat) {
            let shape = param.lazy_shape();
            self.mapped
                .register(param.id, mapped.reshape::<D, _>(shape));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Pair {
        first: Param<Tensor<1>>,
        second: Param<Tensor<1>>,
    }

    fn pair() -> (Pair, GradientsParams) {
        let device = Device::flex().autodiff();
        let pair = Pair {
            first: Param::from_data([1.0, 2.0], &device),
            second: Param::from_data([3.0], &device),
        };
        let plain = Device::flex();
        let mut gradients = GradientsParams::new();
        gradients.register(pair.first.id, Tensor::<1>::from_data([3.0, 0.0], &plain));
        gradients.register(pair.second.id, Tensor::<1>::from_data([4.0], &plain));
        (pair, gradients)
    }

    #[test]
    fn the_norm_runs_over_all_parameters_together() {
        let (pair, gradients) = pair();
        assert!((gradient_norm(&pair, &gradients) - 5.0).abs() < 1e-6);
    }

    #[test]
    fn clipping_keeps_the_direction_and_caps_the_norm() {
        let (pair, gradients) = pair();
        let clipped = clip_by_global_norm(&pair, gradients, 5.0, 1.0);
        assert!((gradient_norm(&pair, &clipped) - 1.0).abs() < 1e-5);
        let second = clipped.get::<1>(pair.second.id).expect("still there");
        assert!((second.into_scalar::<f32>() - 0.8).abs() < 1e-5);
    }

    #[test]
    fn the_first_gradient_that_is_no_number_is_to_blame_and_else_the_largest() {
        let (pair, mut gradients) = pair();
        let blamed = |gradients: &GradientsParams| largest_gradient(&pair, gradients);
        assert_eq!(blamed(&gradients), Some(("second".into(), 4.0)));
        let plain = Device::flex();
        for bad in [f32::NAN, f32::INFINITY] {
            let bad = Tensor::<1>::from_data([bad, 0.0], &plain);
            gradients.register(pair.first.id, bad);
            let (name, norm) = blamed(&gradients).expect("there are gradients");
            assert!(name == "first" && !norm.is_finite());
        }
    }

    #[test]
    fn a_parameter_without_gradient_does_not_move() {
        let (pair, mut gradients) = pair();
        gradients.remove::<1>(pair.second.id);
        let before = pair.second.val().into_data();
        let mut optimizer = adamw((0.9, 0.999), 1e-8, 0.1);
        let after = optimizer.step(0.1, pair, gradients);
        assert_eq!(after.second.val().into_data(), before);
    }

    #[test]
    fn the_same_state_is_the_same_bytes_and_is_read_back() {
        let pair = || {
            let device = Device::flex().autodiff();
            let pair = Pair {
                first: Param::from_data([1.0, 2.0], &device),
                second: Param::from_data([3.0], &device),
            };
            moe_core::parameters::identify(pair, "pair")
        };
        let stepped = || {
            let pair = pair();
            let plain = Device::flex();
            let mut gradients = GradientsParams::new();
            gradients.register(pair.first.id, Tensor::<1>::from_data([3.0, 0.0], &plain));
            gradients.register(pair.second.id, Tensor::<1>::from_data([4.0], &plain));
            let mut optimizer = adamw((0.9, 0.999), 1e-8, 0.1);
            let _ = optimizer.step(0.1, pair, gradients);
            optimizer
        };
        let bytes = || state_bytes(&stepped()).expect("written");
        let first = bytes();
        // Several, since an order may be right by chance.
        assert!((0..8).all(|_| *bytes() == *first));
        let fresh = || adamw((0.9, 0.999), 1e-8, 0.1);
        let read = with_state(fresh(), &pair(), first.to_vec()).expect("read");
        assert!(*state_bytes(&read).expect("written") == *first);
        // Of other parameters, or none of these bytes.
        assert!(with_state(fresh(), &self::pair().0, first.to_vec()).is_err());
        let cut = first[..first.len() / 2].to_vec();
        assert!(with_state(fresh(), &pair(), cut).is_err());
    }
}
