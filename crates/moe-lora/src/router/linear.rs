use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// A logit per expert and token, `x W + b`, in f32 whatever the input is (GShard §2.2, Switch Transformers §2.4).
#[derive(Module, Debug)]
pub struct RouterLinear {
    /// `[d_model, experts]`, a column per expert.
    pub weight: Param<Tensor<2>>,
    /// `[experts]`.
    pub bias: Option<Param<Tensor<1>>>,
}

/// Start of a router's weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RouterInit {
    /// All experts are alike at first (Shazeer et al. 2017, appendix A).
    Zeros,
    /// Normal with `σ = √(scale / d_model)`, cut at 2σ (Switch Transformers §2.4, where the scale is 0.1).
    TruncatedNormal {
        /// Of the variance.
        scale: f64,
        /// Of the draw.
        seed: u64,
    },
}

impl RouterLinear {
    /// Weights without bias, for tokens of `d_model` numbers.
    pub fn new(d_model: usize, experts: usize, init: RouterInit, device: &Device) -> Self {
        let shape = [d_model, experts];
        let weight = match init {
            RouterInit::Zeros => Tensor::zeros(shape, device),
            RouterInit::TruncatedNormal { scale, seed } => {
                let sigma = (scale / d_model as f64).sqrt() as f32;
                let normal = Normal::new(0.0, sigma).expect("a finite deviation");
                let values = normal
                    .sample_iter(ChaCha8Rng::seed_from_u64(seed))
                    .filter(|value| value.abs() <= 2.0 * sigma)
                    .take(d_model * experts)
                    .collect::<Vec<f32>>();
                Tensor::from_data(TensorData::new(values, shape), device)
            }
        };
        Self::from_weight(weight)
    }

    /// From `weight [d_model, experts]`, trained from there on.
    pub fn from_weight(weight: Tensor<2>) -> Self {
        Self {
            weight: Param::from_tensor(weight.detach()),
            bias: None,
        }
    }

    /// With a bias `[experts]`, trained too.
    ///
    /// # Panics
    /// When there is not one number per expert.
    #[must_use]
    pub fn with_bias(mut self, bias: Tensor<1>) -> Self {
        assert_eq!(bias.dims(), [self.experts()], "one bias per expert");
        self.bias = Some(Param::from_tensor(bias.detach()));
        self
    }

    /// `x [tokens, d_model]` → logits `[tokens, experts]`.
    pub fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match x.dtype() {
            burn::tensor::DType::F32 => x,
            _ => x.cast(FloatDType::F32),
        };
        let logits = x.matmul(self.weight.val());
        match &self.bias {
            None => logits,
            Some(bias) => logits + bias.val().unsqueeze_dim::<2>(0),
        }
    }

    /// How many experts it weighs.
    pub fn experts(&self) -> usize {
        self.weight.val().dims()[1]
    }
}
