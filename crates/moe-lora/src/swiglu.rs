use burn::tensor::Tensor;

/// `silu(gate) ⊙ up`, both `[n, d_ff]`.
///
/// The same numbers as `activation::silu(gate) * up` at less than half the time on the CPU:
/// Burn's sigmoid branches on the sign of every number and is computed again in the backward
/// pass. Here silu's derivative is computed once, off the graph, and the graph sees
/// `gate ⊙ slope + offset`, which has silu's value and silu's derivative at this `gate`.
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
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
    use burn::tensor::{Device, Distribution, Tolerance, activation};

    use super::*;

    #[test]
    fn swiglu_and_its_gradients_are_those_of_silu_times_up() {
        let device = Device::flex();
        let gate = Tensor::<2>::random([30, 20], Distribution::Normal(0.0, 5.0), &device);
        let far = Tensor::<2>::from_floats([[0.0, -90.0, 90.0, -1e4, 1e4]], &device);
        let gate = Tensor::cat(vec![gate, far.repeat(&[1, 4])], 0);
        let up = Tensor::<2>::random([31, 20], Distribution::Normal(0.0, 1.0), &device);
        let probe = Tensor::<2>::random([31, 20], Distribution::Normal(0.0, 1.0), &device);
        let run = |f: &dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
            let gate = gate.clone().autodiff().require_grad();
            let up = up.clone().autodiff().require_grad();
            let y = f(gate.clone(), up.clone());
            let grads = (y.clone() * probe.clone()).sum().backward();
            [
                y.inner(),
                gate.grad(&grads).expect("leaf"),
                up.grad(&grads).expect("leaf"),
                f(gate.inner(), up.inner()),
            ]
        };
        let ours = run(&swiglu);
        let burns = run(&|gate, up| activation::silu(gate) * up);
        for (ours, burns) in ours.into_iter().zip(burns) {
            ours.into_data()
                .assert_approx_eq::<f32>(&burns.into_data(), Tolerance::rel_abs(1e-5, 1e-5));
        }
    }
}
