use burn::module::Module;
use burn::tensor::Device;
use moe_core::config::ModelConfig;
use rand::Rng;

use crate::{Lora, LoraConfig, Projection};

/// An expert in one decoder layer: a LoRA on each target, nothing elsewhere.
#[derive(Module, Debug, Default)]
pub struct LayerExpert {
    /// On `gate_proj`. In a layer whose feed-forward block is sparse, this, `up` and `down` are on the network that every token goes
    /// through besides, where there is one.
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
    /// On each of the base's own experts, where the layer's feed-forward block is sparse and gate, up or down are targets.
    pub inside: Vec<InsideExpert>,
}

/// An expert's LoRAs inside one expert of a sparse base, which the base's router chooses together with it.
#[derive(Module, Debug, Default)]
pub struct InsideExpert {
    /// On its gate matrix.
    pub gate: Option<Lora>,
    /// On its up matrix.
    pub up: Option<Lora>,
    /// On its down matrix.
    pub down: Option<Lora>,
}

impl InsideExpert {
    /// The LoRA on `projection`; none on those of the attention.
    pub fn lora(&self, projection: Projection) -> Option<&Lora> {
        match projection {
            Projection::Gate => self.gate.as_ref(),
            Projection::Up => self.up.as_ref(),
            Projection::Down => self.down.as_ref(),
            _ => None,
        }
    }

    fn map(&self, change: &impl Fn(&Lora) -> Lora) -> Self {
        let [gate, up, down] =
            [&self.gate, &self.up, &self.down].map(|lora| lora.as_ref().map(change));
        Self { gate, up, down }
    }
}

impl LayerExpert {
    /// A fresh LoRA on each of `targets` in decoder layer `layer`.
    pub fn new(
        targets: &[Projection],
        config: &LoraConfig,
        base: &ModelConfig,
        layer: usize,
        rng: &mut impl Rng,
        device: &Device,
    ) -> Self {
        let mut expert = Self::default();
        let sparse = base.sparse_in(layer);
        for &target in targets {
            if let Some(shape) = target.shape_in(base, layer) {
                *expert.lora_mut(target) = Some(Lora::new(shape, config, rng, device));
            }
        }
        let inside: Vec<Projection> = targets
            .iter()
            .copied()
            .filter(|it| it.is_inside())
            .collect();
        if let Some(sparse) = sparse.filter(|_| !inside.is_empty()) {
            let one = |_| {
                let mut lora = |target: Projection| {
                    let shape = target.shape_of_width(base, sparse.d_ff);
                    let there = inside.contains(&target);
                    there.then(|| Lora::new(shape, config, rng, device))
                };
                InsideExpert {
                    gate: lora(Projection::Gate),
                    up: lora(Projection::Up),
                    down: lora(Projection::Down),
                }
            };
            expert.inside = (0..sparse.num_experts).map(one).collect();
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

    /// Every LoRA, those inside the base's experts included, in an order that is the same for experts of the same form.
    pub fn loras(&self) -> impl Iterator<Item = &Lora> {
        let outer = Projection::ALL.into_iter().filter_map(|it| self.lora(it));
        let inside = self.inside.iter();
        outer.chain(inside.flat_map(|it| [&it.gate, &it.up, &it.down].into_iter().flatten()))
    }

    /// As [`Self::loras`], to change them.
    pub fn loras_mut(&mut self) -> impl Iterator<Item = &mut Lora> {
        let Self {
            gate,
            up,
            down,
            query,
            key,
            value,
            output,
            inside,
        } = self;
        let outer = [gate, up, down, query, key, value, output];
        let inside = inside.iter_mut();
        let inside = inside.flat_map(|it| [&mut it.gate, &mut it.up, &mut it.down]);
        outer.into_iter().chain(inside).flatten()
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
        let mut copy = Self {
            inside: self.inside.iter().map(|it| it.map(&change)).collect(),
            ..Self::default()
        };
        for projection in Projection::ALL {
            *copy.lora_mut(projection) = self.lora(projection).map(&change);
        }
        copy
    }
}
