use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::Weight;

/// A layer of the decoder: `x W + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_in, d_out]`, as numbers or as blocks.
    pub weight: Weight,
    /// `[d_out]`, in f32.
    pub bias: Option<Param<Tensor<1>>>,
}

/// `x [batch, seq, d_in]` → `x W + b` as `[batch, seq, d_out]`, as one product of `batch · seq` rows.
///
/// # Panics
///
/// When the last axis of `x` is not the weight's `d_in`.
pub fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    add_bias(layer, moe_kernels::linear(x, layer.weight.val()))
}

/// [`linear()`] of one `x` with three layers.
///
/// # Panics
///
/// When the last axis of `x` is not their weights' `d_in`.
pub fn linears(layers: [&Linear; 3], x: Tensor<3>) -> [Tensor<3>; 3] {
    let [first, second, third] = moe_kernels::linears(x, layers.map(|layer| layer.weight.val()));
    let [one, two, three] = layers;
    [
        add_bias(one, first),
        add_bias(two, second),
        add_bias(three, third),
    ]
}

fn add_bias(layer: &Linear, y: Tensor<3>) -> Tensor<3> {
    match &layer.bias {
        Some(bias) => y + bias.val().unsqueeze(),
        None => y,
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::{Device, Distribution, Tensor, Tolerance};

    #[test]
    fn one_product_of_all_rows_equals_burns_linear() {
        let device = Device::flex();
        let theirs = LinearConfig::new(6, 5).init(&device);
        let ours = super::Linear {
            weight: super::Weight::Float(theirs.weight.clone()),
            bias: theirs.bias.clone(),
        };
        let x = Tensor::<3>::random([3, 4, 6], Distribution::Default, &device);
        super::linear(&ours, x.clone())
            .into_data()
            .assert_approx_eq::<f32>(&theirs.forward(x).into_data(), Tolerance::default());
    }
}
