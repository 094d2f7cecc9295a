use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::module;

/// `x [batch, seq, d_in]` → `x W + b` as `[batch, seq, d_out]`.
///
/// The same numbers as [`Linear::forward`], but always as one product of `batch · seq` rows:
/// a product per batch entry would pack the weight matrix once per entry.
///
/// # Panics
///
/// When the last axis of `x` is not the weight's `d_in`.
pub fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [batch, seq, d_in] = x.dims();
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let y = module::linear(x.reshape([batch * seq, d_in]), layer.weight.val(), bias);
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
