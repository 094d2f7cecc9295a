//! A module's parameters by name: how parts of a model are stored, read back and told apart.
//!
//! A parameter's name is its path in the module, `layers.3.gate.a`. Its id, by which optimisers and gradients know it, can be
//! made a function of a name too ([`identify`]), so that the same parameter has the same id in every process.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

/// Why stored parameters do not fit a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The bytes are no safetensors file of f32 tensors.
    #[error("not a safetensors file of f32 tensors: {0}")]
    Unreadable(String),
    /// A parameter of the module is not among the stored ones.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// A stored tensor has another shape than the parameter.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// As stored.
        found: Vec<usize>,
        /// As the module has it.
        expected: Vec<usize>,
    },
    /// A stored tensor that the module has no parameter for.
    #[error("tensor `{0}` belongs to nothing")]
    Unknown(String),
}

/// The module's parameters as a safetensors file, f32, in the order of their names: the same numbers give the same bytes.
pub fn to_bytes(module: &impl Module) -> Vec<u8> {
    let mut read = Read::default();
    module.visit(&mut read);
    let views: BTreeMap<&str, TensorView<'_>> = read
        .tensors
        .iter()
        .map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (name.as_str(), view.expect("four bytes per number"))
        })
        .collect();
    safetensors::serialize(views, None).expect("names and shapes that fit a header")
}

/// The module with the values that [`to_bytes`] gave, its structure, devices and ids as they are.
///
/// # Errors
/// When names or shapes differ.
pub fn from_bytes<M: Module>(module: M, bytes: &[u8]) -> Result<M, Mismatch> {
    let stored =
        SafeTensors::deserialize(bytes).map_err(|error| Mismatch::Unreadable(error.to_string()))?;
    let mut write = Write {
        path: Vec::new(),
        left: stored.tensors().into_iter().collect(),
        problem: None,
    };
    let module = module.map(&mut write);
    match (write.problem, write.left.into_keys().next()) {
        (Some(problem), _) => Err(problem),
        (None, Some(left)) => Err(Mismatch::Unknown(left)),
        (None, None) => Ok(module),
    }
}

/// The module with ids that are a function of `name` and each parameter's path in it.
pub fn identify<M: Module>(module: M, name: &str) -> M {
    module.map(&mut Identify {
        path: vec![name.to_owned()],
    })
}

/// The id of the parameter at `path`.
fn id(path: &[String]) -> ParamId {
    let hash = Sha256::digest(path.join("."));
    let (first, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    ParamId::from(u64::from_le_bytes(*first))
}

#[derive(Default)]
struct Read {
    path: Vec<String>,
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl ModuleVisitor for Read {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().into_data().convert_dtype(DType::F32);
        let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
        let shape = param.val().dims().to_vec();
        self.tensors.insert(self.path.join("."), (shape, bytes));
    }
}

struct Write<'a> {
    path: Vec<String>,
    left: BTreeMap<String, TensorView<'a>>,
    problem: Option<Mismatch>,
}

impl Write<'_> {
    /// The numbers stored for the present parameter.
    fn take(&mut self, expected: &[usize]) -> Result<TensorData, Mismatch> {
        let name = self.path.join(".");
        let Some(stored) = self.left.remove(&name) else {
            return Err(Mismatch::Missing(name));
        };
        if stored.dtype() != Dtype::F32 {
            let message = format!("tensor `{name}` is in {:?}", stored.dtype());
            return Err(Mismatch::Unreadable(message));
        }
        if stored.shape() != expected {
            return Err(Mismatch::Shape {
                name,
                found: stored.shape().to_vec(),
                expected: expected.to_vec(),
            });
        }
        let (words, _) = stored.data().as_chunks();
        let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Ok(TensorData::new(numbers, expected.to_vec()))
    }
}

impl ModuleMapper for Write<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (shape, device) = (param.val().dims(), param.val().device());
        match self.take(&shape) {
            Ok(data) => {
                let trained = param.val().is_require_grad();
                let value = Tensor::from_data(data, &device).set_require_grad(trained);
                Param::initialized(param.id, value)
            }
            Err(problem) => {
                self.problem.get_or_insert(problem);
                param
            }
        }
    }
}

struct Identify {
    path: Vec<String>,
}

impl ModuleMapper for Identify {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, value, mapper) = param.consume();
        Param::from_mapped_value(id(&self.path), value, mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    fn layers(count: usize, width: usize) -> Vec<Linear> {
        let device = Device::flex();
        let layer = |seed: usize| {
            let mut layer = LinearConfig::new(width, 2).with_bias(false).init(&device);
            let numbers: Vec<f32> = (0..2 * width).map(|i| (i + seed) as f32).collect();
            let values = Tensor::from_data(TensorData::new(numbers, [width, 2]), &device);
            layer.weight = Param::from_tensor(values);
            layer
        };
        (0..count).map(layer).collect()
    }

    #[test]
    fn what_is_written_is_read_back_by_name() {
        let bytes = to_bytes(&layers(2, 3));
        let mut other = layers(2, 3);
        other.swap(0, 1);
        let read = from_bytes(other, &bytes).unwrap();
        assert_eq!(to_bytes(&read), bytes);
    }

    #[test]
    fn another_structure_is_refused_by_name() {
        let bytes = to_bytes(&layers(2, 3));
        let refused = |module: Vec<Linear>| from_bytes(module, &bytes).unwrap_err();
        assert!(matches!(refused(layers(1, 3)), Mismatch::Unknown(name) if name == "1.weight"));
        assert!(matches!(refused(layers(3, 3)), Mismatch::Missing(name) if name == "2.weight"));
        assert!(matches!(refused(layers(2, 4)), Mismatch::Shape { .. }));
        let torn = from_bytes(layers(2, 3), &bytes[..bytes.len() - 1]);
        assert!(matches!(torn, Err(Mismatch::Unreadable(_))));
    }

    #[test]
    fn an_id_is_a_function_of_the_name() {
        let ids = |name: &str| burn::module::list_param_ids(&identify(layers(2, 3), name));
        assert_eq!(ids("a"), ids("a"));
        assert_ne!(ids("a"), ids("b"));
        assert_ne!(ids("a")[0], ids("a")[1]);
    }
}
