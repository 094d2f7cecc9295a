//! Distillation of outputs: a new model held to what the old one says.

use burn::tensor::{Tensor, activation::log_softmax};

/// `KL(softmax(p / T) ‖ softmax(q / T))` of each row of logits `[n, classes]`, `[n]`.
pub fn divergence(p: Tensor<2>, q: Tensor<2>, temperature: f64) -> Tensor<1> {
    let (p, q) = (
        log_softmax(p / temperature, 1),
        log_softmax(q / temperature, 1),
    );
    (p.clone().exp() * (p - q)).sum_dim(1).squeeze_dim(1)
}

/// Mean over rows of `T² KL(softmax(old / T) ‖ softmax(new / T))`, shape `[1]` (Hinton et al., arXiv 1503.02531: T² keeps the
/// gradients' size). `old [n, classes]` is a constant.
pub fn distillation(old: Tensor<2>, new: Tensor<2>, temperature: f64) -> Tensor<1> {
    divergence(old.detach(), new, temperature).mean() * temperature.powi(2)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_model_that_says_the_same_costs_nothing_and_any_other_costs_something() {
        let device = Device::flex();
        let old = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]], &device);
        // Logits are the same up to a constant per row.
        let same = distillation(old.clone(), old.clone() + 7.0, 2.0);
        assert!(same.into_scalar::<f32>().abs() < 1e-6);
        let other = distillation(old.clone(), old.flip([1]), 2.0);
        assert!(other.into_scalar::<f32>() > 0.1);
    }
}
