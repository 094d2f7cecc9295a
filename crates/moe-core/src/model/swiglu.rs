use burn::tensor::Tensor;

/// `silu(gate) ⊙ up`, of equal shapes (Shazeer 2020, "GLU Variants Improve Transformer").
///
/// The numbers of `activation::silu(gate) * up` in less than half the time on the CPU, where
/// Burn's sigmoid branches on the sign of every number. With autodiff the derivative of silu is
/// computed here, off the graph, and the graph sees `gate ⊙ slope + offset`, which has the value
/// and the derivative of silu at this `gate`.
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let x = gate.clone().inner();
    let sigmoid = (x.clone().neg().exp() + 1.0).recip();
    if !gate.is_tracked() {
        return x * sigmoid * up;
    }
    let slope = ((sigmoid.clone().neg() + 1.0) * x.clone() + 1.0) * sigmoid.clone();
    let offset = (sigmoid - slope.clone()) * x;
    (gate * slope + offset) * up
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor, Tolerance, activation};

    use super::swiglu;

    #[test]
    fn values_and_gradients_are_those_of_silu_times_up() {
        let device = Device::flex();
        let far = Tensor::<1>::from_data([0.0, -90.0, 90.0, -1e4, 1e4], &device);
        let near = Tensor::<1>::random([200], Distribution::Normal(0.0, 5.0), &device);
        let gate = Tensor::cat(vec![far, near], 0);
        let [size] = gate.dims();
        let up = Tensor::<1>::random([size], Distribution::Normal(0.0, 1.0), &device);
        let run = |product: &dyn Fn(Tensor<1>, Tensor<1>) -> Tensor<1>| {
            let (x, y) = (gate.clone().autodiff(), up.clone().autodiff());
            let (x, y) = (x.require_grad(), y.require_grad());
            let out = product(x.clone(), y.clone());
            let grads = out.clone().sum().backward();
            let plain = product(gate.clone(), up.clone());
            let grad = |leaf: Tensor<1>| leaf.grad(&grads).expect("leaf of the product");
            [out.inner(), plain, grad(x), grad(y)]
        };
        let ours = run(&swiglu);
        let burns = run(&|gate, up| activation::silu(gate) * up);
        for (ours, burns) in ours.into_iter().zip(burns) {
            let tolerance = Tolerance::rel_abs(1e-5, 1e-5);
            ours.into_data()
                .assert_approx_eq::<f32>(&burns.into_data(), tolerance);
        }
    }
}
