use burn::nn::RmsNorm;
use burn::tensor::Tensor;

/// `norm` of `x` over the last axis: [`RmsNorm::forward`], as one operation.
pub fn rms_norm<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    moe_kernels::rms_norm(x, norm.gamma.val(), norm.epsilon)
}

#[cfg(test)]
mod tests {
    use burn::nn::RmsNormConfig;
    use burn::tensor::{Device, Distribution, Tensor, Tolerance};

    #[test]
    fn it_is_burns_norm() {
        let device = Device::flex();
        let mut norm = RmsNormConfig::new(7).with_epsilon(1e-6).init(&device);
        let gamma = Tensor::random([7], Distribution::Default, &device);
        norm.gamma = burn::module::Param::from_tensor(gamma);
        let x = Tensor::<3>::random([2, 3, 7], Distribution::Normal(0.0, 3.0), &device);
        super::rms_norm(&norm, x.clone())
            .into_data()
            .assert_approx_eq::<f32>(&norm.forward(x).into_data(), Tolerance::default());
    }
}
