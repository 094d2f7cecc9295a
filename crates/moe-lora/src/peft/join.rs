//! Several adapters as one, by joining their ranks (PEFT's `add_weighted_adapter(combination_type="cat")`).

use burn::tensor::Tensor;

use super::PeftAdapter;
use crate::{LayerExpert, Lora, LoraConfig, Placed, Projection};

/// An adapter and how much of it counts.
#[derive(Clone, Debug)]
pub struct Share<'a> {
    /// The adapter.
    pub adapter: &'a PeftAdapter,
    /// Per layer of the base: the weight of its LoRAs on the feed-forward network. Those on attention have `attention`.
    pub weights: Vec<f64>,
    /// The weight of its LoRAs on attention.
    pub attention: f64,
}

impl PeftAdapter {
    /// `ΔW = Σ_e w_e s_e B_e A_e` as one adapter: `A = [w_1 s_1 A_1; …; w_n s_n A_n]`, `B = [B_1 … B_n]`, scaled by one.
    ///
    /// It is what the experts are beside each other where one matrix follows no other. Of feed-forward networks whose outputs a gate
    /// weighs for each token it is an approximation, whose cost is to be measured.
    ///
    /// # Panics
    ///
    /// When there is no share, or they are of bases with different numbers of layers.
    pub fn joined(shares: &[Share<'_>]) -> Self {
        let layers = shares[0].adapter.layers.len();
        let (mut placed, mut joined) = (Vec::new(), Vec::new());
        for layer in 0..layers {
            let (mut sizes, mut expert) = (Vec::new(), LayerExpert::default());
            for target in Projection::ALL {
                let Some(lora) = join(shares, layer, target) else {
                    continue;
                };
                let [_, rank] = lora.a.dims();
                let alpha = rank as f64;
                sizes.push(Placed {
                    target,
                    rank,
                    alpha,
                });
                *expert.lora_mut(target) = Some(lora);
            }
            placed.push(sizes);
            joined.push(expert);
        }
        let rank = placed.iter().flatten().map(|it| it.rank).max().unwrap_or(1);
        Self {
            lora: LoraConfig {
                rank,
                alpha: rank as f64,
                rslora: false,
                ..shares[0].adapter.lora.clone()
            },
            placed,
            layers: joined,
            sha256: String::new(),
        }
    }
}

fn join(shares: &[Share<'_>], layer: usize, target: Projection) -> Option<Lora> {
    let (mut a, mut b): (Vec<Tensor<2>>, Vec<Tensor<2>>) = (Vec::new(), Vec::new());
    for share in shares {
        let Some(lora) = share.adapter.layers[layer].lora(target) else {
            continue;
        };
        let weight = match target {
            Projection::Gate | Projection::Up | Projection::Down => share.weights[layer],
            _ => share.attention,
        };
        a.push(lora.a.val() * (weight * lora.scaling));
        b.push(lora.b.val());
    }
    (!a.is_empty()).then(|| Lora::from_tensors(Tensor::cat(a, 1), Tensor::cat(b, 0), 1.0))
}
