//! How much each parameter matters to a task: the diagonal of the empirical Fisher information, and the penalty made of it.

use std::{collections::BTreeMap, io};

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{Tensor, TensorData},
};

use crate::training::optimizer::map_gradients;

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
        map_gradients(module, gradients, |id, gradient| {
            let square = gradient?.square();
            let sum = match self.squares.remove(&id.val()) {
                Some(sum) => sum + square,
                None => square,
            };
            self.squares.insert(id.val(), sum);
            None
        });
    }

    /// The importances, with the values of `module`'s parameters to hold on to.
    pub fn anchor(self, module: &impl Module) -> Anchor {
        let mut values = Values(BTreeMap::new());
        module.visit(&mut values);
        let batches = self.batches.max(1) as f64;
        let parameters = self.squares.into_iter().filter_map(|(id, squares)| {
            let value = values.0.remove(&id)?;
            let importance = read(squares / batches);
            Some((id, Anchored { importance, value }))
        });
        Anchor {
            parameters: parameters.collect(),
        }
    }
}

/// What a module was when a task ended, and how much each number mattered to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Anchor {
    /// By parameter id.
    parameters: BTreeMap<u64, Anchored>,
}

#[derive(Clone, Debug, PartialEq)]
struct Anchored {
    importance: Vec<f32>,
    value: Vec<f32>,
}

impl Anchor {
    /// Adds `decay` times an older importance to this one; the values held on to stay.
    pub fn add_decayed(&mut self, older: &Self, decay: f64) {
        for (id, older_held) in &older.parameters {
            match self.parameters.get_mut(id) {
                Some(held) => {
                    let pairs = held.importance.iter_mut().zip(&older_held.importance);
                    pairs.for_each(|(new, old)| *new += decay as f32 * old);
                }
                None => {
                    let mut held = older_held.clone();
                    held.importance
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
        Some(&held.importance)
    }

    /// As bytes: the number of parameters, then each one's id and length, its importances and its values; integers of 64 bits and
    /// numbers of 32, little end first.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let integer = |bytes: &mut Vec<u8>, value: u64| bytes.extend(value.to_le_bytes());
        integer(&mut bytes, self.parameters.len() as u64);
        for (id, held) in &self.parameters {
            integer(&mut bytes, *id);
            integer(&mut bytes, held.value.len() as u64);
            for number in held.importance.iter().chain(&held.value) {
                bytes.extend(number.to_le_bytes());
            }
        }
        bytes
    }

    /// From what [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// When they end too soon or too late.
    pub(super) fn from_bytes(mut bytes: &[u8]) -> io::Result<Self> {
        let bytes = &mut bytes;
        let mut parameters = BTreeMap::new();
        for _ in 0..integer(bytes)? {
            let (id, count) = (integer(bytes)?, integer(bytes)?);
            let importance = numbers(bytes, count)?;
            let value = numbers(bytes, count)?;
            parameters.insert(id, Anchored { importance, value });
        }
        match bytes.is_empty() {
            true => Ok(Self { parameters }),
            false => Err(too_short()),
        }
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

struct Values(BTreeMap<u64, Vec<f32>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id.val(), read(flat(param.val())));
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
        let constant = |numbers: &[f32]| {
            Tensor::<1>::from_data(TensorData::new(numbers.to_vec(), [numbers.len()]), &device)
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

fn integer(bytes: &mut &[u8]) -> io::Result<u64> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(too_short)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*first))
}

fn numbers(bytes: &mut &[u8], count: u64) -> io::Result<Vec<f32>> {
    let length = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(size_of::<f32>()));
    let (own, rest) = length
        .and_then(|length| bytes.split_at_checked(length))
        .ok_or_else(too_short)?;
    *bytes = rest;
    let (words, _) = own.as_chunks();
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

fn too_short() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the anchor ends in the middle of a parameter, or goes on after the last",
    )
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
    fn anchors_survive_their_binary_form_bit_for_bit_and_never_in_part() {
        let anchor = anchor(&linear());
        let bytes = anchor.to_bytes();
        assert_eq!(
            bytes.len(),
            8 + 16 + 2 * 4 * 4,
            "8 bytes a number and little more"
        );
        assert_eq!(
            Anchor::from_bytes(&bytes).expect("what was written"),
            anchor
        );
        for length in 0..bytes.len() {
            assert!(Anchor::from_bytes(&bytes[..length]).is_err());
        }
        assert!(Anchor::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        let lies = [1u64, 7, u64::MAX].map(u64::to_le_bytes).concat();
        assert!(Anchor::from_bytes(&lies).is_err());
    }
}
