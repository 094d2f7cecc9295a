use burn::nn::RmsNorm;
use burn::tensor::Tensor;

use super::rms_norm;

/// The residual stream of a decoder: each block reads it through a norm, and adds its output.
///
/// The last output is summed where the next norm reads it, which is one pass over memory in place of two.
#[derive(Clone, Debug)]
pub struct Residual {
    /// `[batch, seq, d_model]`.
    sum: Tensor<3>,
    /// Still to be added.
    last: Option<Tensor<3>>,
}

impl Residual {
    /// Begins with `x [batch, seq, d_model]`.
    pub fn new(x: Tensor<3>) -> Self {
        Self { sum: x, last: None }
    }

    /// What the next block reads: the stream under `norm`, `[batch, seq, d_model]`.
    pub fn normed(&mut self, norm: &RmsNorm) -> Tensor<3> {
        let Some(last) = self.last.take() else {
            return rms_norm(norm, self.sum.clone());
        };
        let (gamma, epsilon) = (norm.gamma.val(), norm.epsilon);
        let (sum, normed) = moe_kernels::add_rms_norm(self.sum.clone(), last, gamma, epsilon);
        self.sum = sum;
        normed
    }

    /// Adds a block's output, `[batch, seq, d_model]`.
    pub fn add(&mut self, output: Tensor<3>) {
        self.last = Some(match self.last.take() {
            Some(last) => last + output,
            None => output,
        });
    }

    /// The stream as it is, `[batch, seq, d_model]`.
    pub fn into_sum(self) -> Tensor<3> {
        match self.last {
            Some(last) => last + self.sum,
            None => self.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::RmsNormConfig;
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    #[test]
    fn norms_read_the_sum_of_all_that_was_added() {
        let device = Device::flex();
        let random = || Tensor::<3>::random([2, 3, 8], Distribution::Normal(0.0, 1.0), &device);
        let norm = RmsNormConfig::new(8).init(&device);
        let [x, first, second, third] = [(); 4].map(|()| random());
        let mut stream = Residual::new(x.clone());
        let same = |got: Tensor<3>, want: Tensor<3>| {
            got.into_data()
                .assert_approx_eq::<f32>(&want.into_data(), Tolerance::default());
        };
        same(stream.normed(&norm), norm.forward(x.clone()));
        stream.add(first.clone());
        stream.add(second.clone());
        let sum = x + first + second;
        same(stream.normed(&norm), norm.forward(sum.clone()));
        same(stream.normed(&norm), norm.forward(sum.clone()));
        stream.add(third.clone());
        same(stream.into_sum(), sum + third);
    }
}
