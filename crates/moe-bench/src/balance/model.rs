use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use moe_kernels::{Entries, sparse_ffn};
use moe_lora::router::{Dispatch, NoisyTopK, NoisyTopKConfig, Phase};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::stream::{Batch, CLASSES, D_MODEL};

/// Width inside an expert.
const D_FF: usize = 32;

/// A mixture beside the residual stream, and a head.
#[derive(Module, Debug)]
pub struct Model {
    router: NoisyTopK,
    /// `[experts, D_MODEL, D_FF]`.
    gate: Param<Tensor<3>>,
    /// `[experts, D_MODEL, D_FF]`.
    up: Param<Tensor<3>>,
    /// `[experts, D_FF, D_MODEL]`.
    down: Param<Tensor<3>>,
    /// `[D_MODEL, CLASSES]`.
    head: Param<Tensor<2>>,
}

impl Model {
    /// Of random weights, the same for the same seed, on an autodiff device.
    pub fn new(config: NoisyTopKConfig, experts: usize, seed: u64, device: &Device) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let mut draw = |count: usize, d_in: usize| -> Vec<f32> {
            let spread = (3.0 / d_in as f32).sqrt();
            (0..count)
                .map(|_| rng.random_range(-spread..=spread))
                .collect()
        };
        let mut stack = |d_in: usize, d_out: usize| {
            let numbers = draw(experts * d_in * d_out, d_in);
            let numbers = TensorData::new(numbers, [experts, d_in, d_out]);
            Param::from_tensor(Tensor::from_data(numbers, device))
        };
        let (gate, up, down) = (
            stack(D_MODEL, D_FF),
            stack(D_MODEL, D_FF),
            stack(D_FF, D_MODEL),
        );
        let head = TensorData::new(draw(D_MODEL * CLASSES, D_MODEL), [D_MODEL, CLASSES]);
        Self {
            router: NoisyTopK::new(config, D_MODEL, experts, device),
            gate,
            up,
            down,
            head: Param::from_tensor(Tensor::from_data(head, device)),
        }
    }

    /// Mean cross-entropy of what follows, `[1]`, and where the tokens went.
    pub fn loss(&self, batch: &Batch, phase: Phase) -> (Tensor<1>, Dispatch) {
        let x = Tensor::from_inner(batch.x.clone());
        let dispatch = self.router.forward(x.clone(), &batch.tokens(), phase);
        let entries = Entries {
            token: dispatch.entries.iter().map(|entry| entry.token).collect(),
            expert: dispatch.entries.iter().map(|entry| entry.expert).collect(),
        };
        let [gate, up, down] = [&self.gate, &self.up, &self.down].map(Param::val);
        let mixed = sparse_ffn(
            x.clone(),
            gate,
            up,
            down,
            &entries,
            dispatch.weights.clone(),
        );
        let logits = (x + mixed).matmul(self.head.val());
        let targets: Vec<i64> = batch.targets.iter().map(|&it| it as i64).collect();
        let targets = TensorData::new(targets, [batch.targets.len(), 1]);
        let targets = Tensor::<2, Int>::from_data(targets, &logits.device());
        let loss = log_softmax(logits, 1).gather(1, targets).mean().neg();
        (loss, dispatch)
    }
}
