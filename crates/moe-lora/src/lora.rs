use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::{LoraConfig, LoraInit};

/// A low-rank update of a frozen matrix: `W + scaling · A B` (Hu et al. 2021, equation 3; Burn
/// stores matrices `[d_in, d_out]`, so A comes first).
#[derive(Module, Debug)]
pub struct Lora {
    /// `[d_in, rank]`.
    pub a: Param<Tensor<2>>,
    /// `[rank, d_out]`.
    pub b: Param<Tensor<2>>,
    /// `alpha / rank`, or `alpha / √rank`.
    pub scaling: f64,
}

impl Lora {
    /// A is drawn from `rng`. B starts at zero so that a new expert leaves the frozen model
    /// unchanged.
    pub fn new(
        [d_in, d_out]: [usize; 2],
        config: &LoraConfig,
        rng: &mut impl Rng,
        device: &Device,
    ) -> Self {
        let rank = config.rank;
        let bound = 1.0 / (d_in as f64).sqrt();
        let mut draw = || match config.init {
            LoraInit::Kaiming => rng.random_range(-bound..bound),
            LoraInit::Gaussian => rng.sample::<f64, _>(StandardNormal) / rank as f64,
        };
        let values: Vec<f32> = (0..d_in * rank).map(|_| draw() as f32).collect();
        Self::from_tensors(
            Tensor::from_data(TensorData::new(values, [d_in, rank]), device),
            Tensor::zeros([rank, d_out], device),
            config.scaling(),
        )
    }

    /// From `a [d_in, rank]` and `b [rank, d_out]`, trained from there on.
    ///
    /// # Panics
    ///
    /// When their ranks differ.
    pub fn from_tensors(a: Tensor<2>, b: Tensor<2>, scaling: f64) -> Self {
        assert_eq!(a.dims()[1], b.dims()[0], "A and B of different rank");
        Self {
            a: Param::from_tensor(a.detach()),
            b: Param::from_tensor(b.detach()),
            scaling,
        }
    }

    /// Gives A and B other values, as the same parameters.
    ///
    /// # Panics
    ///
    /// When their ranks differ.
    pub fn set(&mut self, a: Tensor<2>, b: Tensor<2>) {
        assert_eq!(a.dims()[1], b.dims()[0], "A and B of different rank");
        for (param, value) in [(&mut self.a, a), (&mut self.b, b)] {
            let trained = param.val().is_require_grad();
            let value = value.detach().set_require_grad(trained);
            *param = Param::initialized(param.id, value);
        }
    }

    /// `x [n, d_in]` → `scaling · x A`, `[n, rank]`. What comes after is linear, so a mixture can
    /// weigh and pool these few numbers instead of the output.
    pub fn reduce(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.a.val()) * self.scaling
    }

    /// `x [n, d_in]` → `scaling · x A B`, `[n, d_out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.reduce(x).matmul(self.b.val())
    }

    /// What is added to the frozen matrix, `scaling · A B`, `[d_in, d_out]`.
    pub fn delta(&self) -> Tensor<2> {
        self.a.val().matmul(self.b.val()) * self.scaling
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn config(init: LoraInit) -> LoraConfig {
        LoraConfig {
            rank: 8,
            alpha: 16.0,
            rslora: false,
            dropout: 0.0,
            init,
        }
    }

    #[test]
    fn fresh_lora_adds_nothing() {
        let device = Device::flex();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let lora = Lora::new([6, 5], &config(LoraInit::Kaiming), &mut rng, &device);
        let x = Tensor::random([3, 6], Distribution::Default, &device);
        assert_eq!(lora.forward(x).abs().sum().into_scalar::<f32>(), 0.0);
    }

    #[test]
    fn starts_have_pefts_spread() {
        let device = Device::flex();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut spread = |init| {
            let lora = Lora::new([400, 2], &config(init), &mut rng, &device);
            let a = lora.a.val();
            let deviation = (a.clone() * a.clone()).mean().sqrt().into_scalar::<f32>();
            (deviation, a.abs().max().into_scalar::<f32>())
        };
        let (deviation, largest) = spread(LoraInit::Kaiming);
        assert!((deviation - 0.05 / 3f32.sqrt()).abs() < 1e-3 && largest <= 0.05);
        let (deviation, _) = spread(LoraInit::Gaussian);
        assert!((deviation - 0.125).abs() < 5e-3);
    }

    #[test]
    fn forward_is_the_product_with_delta() {
        let device = Device::flex();
        let random = |shape: [usize; 2]| Tensor::random(shape, Distribution::Default, &device);
        let lora = Lora::from_tensors(random([6, 2]), random([2, 5]), 0.5);
        let x: Tensor<2> = random([3, 6]);
        lora.forward(x.clone())
            .into_data()
            .assert_approx_eq::<f32>(&x.matmul(lora.delta()).into_data(), Tolerance::default());
    }
}
