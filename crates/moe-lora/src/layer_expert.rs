use burn::module::Module;
use burn::tensor::Device;
use moe_core::config::ModelConfig;
use rand::Rng;

use crate::{Lora, LoraConfig, Projection};

/// An expert in one decoder layer: a LoRA on each target, nothing elsewhere.
#[derive(Module, Debug, Default)]
pub struct LayerExpert {
    /// On `gate_proj`.
    pub gate: Option<Lora>,
    /// On `up_proj`.
    pub up: Option<Lora>,
    /// On `down_proj`.
    pub down: Option<Lora>,
    /// On `q_proj`.
    pub query: Option<Lora>,
    /// On `k_proj`.
    pub key: Option<Lora>,
    /// On `v_proj`.
    pub value: Option<Lora>,
    /// On `o_proj`.
    pub output: Option<Lora>,
}

impl LayerExpert {
    /// A fresh LoRA on each of `targets`.
    pub fn new(
        targets: &[Projection],
        config: &LoraConfig,
        base: &ModelConfig,
        rng: &mut impl Rng,
        device: &Device,
    ) -> Self {
        let mut expert = Self::default();
        for &target in targets {
            let lora = Lora::new(target.shape(base), config, rng, device);
            *expert.lora_mut(target) = Some(lora);
        }
        expert
    }

    /// The LoRA on `projection`.
    pub fn lora(&self, projection: Projection) -> Option<&Lora> {
        match projection {
            Projection::Gate => self.gate.as_ref(),
            Projection::Up => self.up.as_ref(),
            Projection::Down => self.down.as_ref(),
            Projection::Query => self.query.as_ref(),
            Projection::Key => self.key.as_ref(),
            Projection::Value => self.value.as_ref(),
            Projection::Output => self.output.as_ref(),
        }
    }

    /// Where the LoRA on `projection` is kept, to set or remove it.
    pub fn lora_mut(&mut self, projection: Projection) -> &mut Option<Lora> {
        match projection {
            Projection::Gate => &mut self.gate,
            Projection::Up => &mut self.up,
            Projection::Down => &mut self.down,
            Projection::Query => &mut self.query,
            Projection::Key => &mut self.key,
            Projection::Value => &mut self.value,
            Projection::Output => &mut self.output,
        }
    }

    /// The same weights as new parameters, trained apart from these.
    pub fn duplicate(&self) -> Self {
        self.map(|lora| Lora::from_tensors(lora.a.val(), lora.b.val(), lora.scaling))
    }

    /// An expert of this form that leaves the base as it is.
    pub(crate) fn silent(&self) -> Self {
        self.map(|lora| Lora::from_tensors(lora.a.val(), lora.b.val().zeros_like(), lora.scaling))
    }

    fn map(&self, change: impl Fn(&Lora) -> Lora) -> Self {
        let mut copy = Self::default();
        for projection in Projection::ALL {
            *copy.lora_mut(projection) = self.lora(projection).map(&change);
        }
        copy
    }
}
