use burn::tensor::Tensor;

/// Returns `x` unchanged and hands back its gradient times `−lambda`
/// (Ganin and Lempitsky 2015, "Unsupervised Domain Adaptation by Backpropagation", equation 18).
///
/// Exact in the forward direction for finite `x`: what is added to `x` is a number minus itself.
pub fn reverse_gradient<const D: usize>(x: Tensor<D>, lambda: f64) -> Tensor<D> {
    if !x.is_tracked() {
        return x;
    }
    let reversed = x.clone() * -lambda;
    x.detach() + (reversed.clone() - reversed.detach())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;

    #[test]
    fn reversal_is_exact_forward_and_minus_lambda_backward() {
        let device = Device::flex().autodiff();
        let x =
            Tensor::<2>::random([5, 7], Distribution::Normal(0.0, 30.0), &device).require_grad();
        let weight = Tensor::<2>::random([5, 7], Distribution::Default, &device);

        let y = reverse_gradient(x.clone(), 0.25);
        assert_eq!(y.to_data(), x.to_data());

        let grads = (y * weight.clone()).sum().backward();
        let grad = x.grad(&grads).expect("x is a leaf");
        assert_eq!(grad.into_data(), (weight * -0.25).into_data());
    }

    #[test]
    fn reversal_off_the_graph_is_the_identity() {
        let x = Tensor::<1>::from_floats([1.0, -2.0], &Device::flex());
        assert_eq!(reverse_gradient(x.clone(), 1.0).into_data(), x.into_data());
    }
}
