use burn::nn::Linear;
use burn::tensor::Tensor;

/// `x [batch, seq, d_in]` → `x W + b` as `[batch, seq, d_out]`: [`Linear::forward`], as one product of `batch · seq` rows.
///
/// # Panics
///
/// When the last axis of `x` is not the weight's `d_in`.
pub fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [batch, seq, d_in] = x.dims();
    let y = moe_kernels::linear(x.reshape([batch * seq, d_in]), layer.weight.val());
    let y = match &layer.bias {
        Some(bias) => y + bias.val().unsqueeze(),
        None => y,
    };
    let [_, d_out] = y.dims();
    y.reshape([batch, seq, d_out])
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::{Device, Distribution, Tensor, Tolerance};

    #[test]
    fn one_product_of_all_rows_equals_burns_linear() {
        let device = Device::flex();
        let layer = LinearConfig::new(6, 5).init(&device);
        let x = Tensor::<3>::random([3, 4, 6], Distribution::Default, &device);
        super::linear(&layer, x.clone())
            .into_data()
            .assert_approx_eq::<f32>(&layer.forward(x).into_data(), Tolerance::default());
    }
}
