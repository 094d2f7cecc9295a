//! How much each parameter matters to a task: the diagonal of the empirical Fisher information, and the penalty made of it.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{Tensor, TensorData},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Mean of squared gradients over batches. With one example per batch this is the usual diagonal of the empirical Fisher
/// information, with the true labels; with larger batches it is not.
#[derive(Default)]
pub struct Importance {
    /// Per parameter, flat.
    squares: BTreeMap<u64, Tensor<1>>,
    batches: usize,
}

impl Importance {
    /// Adds the gradients of the mean loss of one batch, of whatever parameters of `module` have one.
    pub fn add(&mut self, module: &impl Module, gradients: &GradientsParams) {
        self.batches += 1;
        module.visit(&mut Squares {
            gradients,
            squares: &mut self.squares,
        });
    }

    /// The importances, with the values of `module`'s parameters to hold on to.
    pub fn anchor(self, module: &impl Module) -> Anchor {
        let mut values = Values(BTreeMap::new());
        module.visit(&mut values);
        let batches = self.batches.max(1) as f64;
        let parameters = self.squares.into_iter().filter_map(|(id, squares)| {
            let value = values.0.remove(&id)?;
            let importance = Numbers(read(squares / batches));
            Some((id, Held { importance, value }))
        });
        Anchor {
            parameters: parameters.collect(),
        }
    }
}

/// What a module was when a task ended, and how much each number mattered to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anchor {
    /// By parameter id.
    parameters: BTreeMap<u64, Held>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Held {
    importance: Numbers,
    value: Numbers,
}

impl Anchor {
    /// Adds `decay` times an older importance to this one; the values held on to stay.
    pub fn add_decayed(&mut self, older: &Self, decay: f64) {
        for (id, older_held) in &older.parameters {
            match self.parameters.get_mut(id) {
                Some(held) => {
                    let pairs = held.importance.0.iter_mut().zip(&older_held.importance.0);
                    pairs.for_each(|(new, old)| *new += decay as f32 * old);
                }
                None => {
                    let mut held = older_held.clone();
                    held.importance
                        .0
                        .iter_mut()
                        .for_each(|old| *old *= decay as f32);
                    self.parameters.insert(*id, held);
                }
            }
        }
    }

    /// Importance of a parameter, flat; none where it had no gradient.
    pub fn importance(&self, id: ParamId) -> Option<&[f32]> {
        let held = self.parameters.get(&id.val())?;
        Some(&held.importance.0)
    }
}

/// `Σ_k F_k (θ_k − θ*_k)²` over the parameters of `module` that `anchor` knows, shape `[1]`; none where it knows none.
pub fn penalty(module: &impl Module, anchor: &Anchor) -> Option<Tensor<1>> {
    let mut penalty = Penalty {
        anchor,
        total: None,
    };
    module.visit(&mut penalty);
    penalty.total
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    squares: &'a mut BTreeMap<u64, Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square = flat(gradient).square();
            let id = param.id.val();
            let sum = match self.squares.remove(&id) {
                Some(sum) => sum + square,
                None => square,
            };
            self.squares.insert(id, sum);
        }
    }
}

struct Values(BTreeMap<u64, Numbers>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0
            .insert(param.id.val(), Numbers(read(flat(param.val()))));
    }
}

struct Penalty<'a> {
    anchor: &'a Anchor,
    total: Option<Tensor<1>>,
}

impl ModuleVisitor for Penalty<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(held) = self.anchor.parameters.get(&param.id.val()) else {
            return;
        };
        let value = flat(param.val());
        let device = value.device().inner();
        let constant = |numbers: &Numbers| {
            let count = numbers.0.len();
            Tensor::<1>::from_data(TensorData::new(numbers.0.clone(), [count]), &device)
        };
        let moved = value - constant(&held.value);
        let part = (moved.square() * constant(&held.importance)).sum();
        self.total = Some(match self.total.take() {
            Some(total) => total + part,
            None => part,
        });
    }
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.shape().num_elements();
    x.reshape([count])
}

fn read(x: Tensor<1>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// Numbers that are written as the eight hexadecimal digits of their bits: exact, and one JSON value instead of millions.
#[derive(Clone, Debug, PartialEq)]
struct Numbers(Vec<f32>);

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        let mut text = String::with_capacity(8 * self.0.len());
        for number in &self.0 {
            write!(text, "{:08x}", number.to_bits()).map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let numbers = text.as_bytes().chunks(8).map(|digits| {
            let digits = str::from_utf8(digits).map_err(D::Error::custom)?;
            let bits = u32::from_str_radix(digits, 16).map_err(D::Error::custom)?;
            Ok(f32::from_bits(bits))
        });
        numbers.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use burn::{nn::Linear, tensor::Device};

    use super::*;

    fn linear() -> Linear {
        let device = Device::flex().autodiff();
        let weight = Tensor::from_data([[0.1, -0.2], [0.3, 1e-30]], &device);
        Linear {
            weight: Param::from_tensor(weight),
            bias: None,
        }
    }

    fn anchor(linear: &Linear) -> Anchor {
        let input = Tensor::<2>::from_data([[1.0, 2.0]], &Device::flex());
        let loss = linear.forward(input).square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), linear);
        let mut importance = Importance::default();
        importance.add(linear, &gradients);
        importance.anchor(linear)
    }

    #[test]
    fn at_the_anchor_the_penalty_and_its_gradient_are_zero() {
        let linear = linear();
        let anchor = anchor(&linear);
        let penalty = penalty(&linear, &anchor).expect("a weight with a gradient");
        assert_eq!(penalty.clone().into_scalar::<f32>(), 0.0);
        let gradient = linear.weight.grad(&penalty.backward()).expect("tracked");
        assert_eq!(gradient.abs().max().into_scalar::<f32>(), 0.0);
    }

    #[test]
    fn anchors_survive_json_bit_for_bit() {
        let anchor = anchor(&linear());
        let text = serde_json::to_string(&anchor).expect("plain text");
        let read: Anchor = serde_json::from_str(&text).expect("what was written");
        assert_eq!(read, anchor);
        let value = serde_json::to_value(&anchor).expect("plain text");
        assert_eq!(
            serde_json::from_value::<Anchor>(value).expect("as written"),
            anchor
        );
    }
}
