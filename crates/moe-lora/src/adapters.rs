use burn::module::Module;
use burn::tensor::Device;
use moe_core::config::ModelConfig;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::error::Result;
use crate::{AdapterConfig, ExpertBank, GateInit, LoraExpert, TokenGate};

/// The experts of a whole model: an [`ExpertBank`] for each adapted decoder layer.
///
/// Expert `i` of every bank together are "expert i" of the model, likewise the gates; both are
/// added as tasks arrive and never renumbered.
#[derive(Module, Debug)]
pub struct Adapters {
    /// One per adapted layer, lowest first.
    pub banks: Vec<ExpertBank>,
    #[module(skip)]
    config: AdapterConfig,
    #[module(skip)]
    base: ModelConfig,
}

impl Adapters {
    /// Banks without experts for the layers that `config` names.
    ///
    /// # Errors
    ///
    /// When a setting is out of range, no target is named, or the layers do not fit the base.
    pub fn new(config: &AdapterConfig, base: &ModelConfig) -> Result<Self> {
        config.check()?;
        let layers = config.layers.resolve(base.num_layers)?;
        Ok(Self {
            banks: layers.map(ExpertBank::new).collect(),
            config: config.clone(),
            base: base.clone(),
        })
    }

    /// How the experts are made.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// Number of experts.
    pub fn num_experts(&self) -> usize {
        self.banks.first().map_or(0, |bank| bank.experts.len())
    }

    /// Number of gates.
    pub fn num_gates(&self) -> usize {
        self.banks.first().map_or(0, |bank| bank.gates.len())
    }

    /// Adds a fresh expert, drawn from `seed`, and returns its number. To train it, `device` has
    /// to be an autodiff device.
    pub fn push_expert(&mut self, seed: u64, device: &Device) -> usize {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for bank in &mut self.banks {
            let expert = LoraExpert::new(&self.config, &self.base, &mut rng, device);
            bank.experts.push(expert);
        }
        self.num_experts() - 1
    }

    /// Adds an expert that starts with the weights of expert `source`, and returns its number.
    ///
    /// # Panics
    ///
    /// When there is no such expert.
    pub fn init_expert_from(&mut self, source: usize) -> usize {
        for bank in &mut self.banks {
            let copy = bank.experts[source].duplicate();
            bank.experts.push(copy);
        }
        self.num_experts() - 1
    }

    /// Adds a gate over `active` experts and returns its number.
    pub fn push_gate(&mut self, active: usize, init: GateInit, device: &Device) -> usize {
        for bank in &mut self.banks {
            let init = init.in_layer(bank.layer);
            let gate = TokenGate::new(self.base.d_model, active, init, device);
            bank.gates.push(gate);
        }
        self.num_gates() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, LayerRange, LoraConfig, LoraInit, Projection, tiny};

    fn with_experts(seeds: &[u64]) -> Adapters {
        let config = tiny::config(&Projection::ALL, LayerRange::Last(2));
        let mut adapters = Adapters::new(&config, &tiny::model()).unwrap();
        for &seed in seeds {
            adapters.push_expert(seed, &Device::flex().autodiff());
        }
        adapters
    }

    #[test]
    fn configurations_that_match_nothing_are_refused() {
        let base = tiny::model();
        let new = |targets: &[Projection], layers| {
            Adapters::new(&tiny::config(targets, layers), &base).map(|_| ())
        };
        assert_eq!(new(&[], LayerRange::All), Err(Error::NoTarget));
        let twice = [Projection::Up, Projection::Up];
        assert!(new(&twice, LayerRange::All).is_err());
        assert!(new(&[Projection::Up], LayerRange::Last(4)).is_err());
        assert!(new(&[Projection::Up], LayerRange::Last(3)).is_ok());

        let mut config = tiny::config(&[Projection::Up], LayerRange::All);
        config.lora = LoraConfig {
            rank: 0,
            alpha: 1.0,
            rslora: false,
            dropout: 0.0,
            init: LoraInit::Gaussian,
        };
        assert!(Adapters::new(&config, &base).is_err());
    }

    #[test]
    fn an_expert_is_a_function_of_its_seed() {
        let a = |adapters: &Adapters, expert: usize| {
            let expert = &adapters.banks[0].experts[expert];
            expert.lora(Projection::Query).unwrap().a.val().into_data()
        };
        let (one, two) = (with_experts(&[7, 8]), with_experts(&[7, 7]));
        assert_eq!(a(&one, 0), a(&two, 0));
        assert_eq!(a(&two, 0), a(&two, 1));
        assert_ne!(a(&one, 0), a(&one, 1));
    }

    #[test]
    fn a_copied_expert_has_the_weights_but_is_another_parameter() {
        let mut adapters = with_experts(&[1, 2]);
        tiny::train_by_hand(&mut adapters);
        assert_eq!(adapters.init_expert_from(0), 2);
        let experts = &adapters.banks[1].experts;
        let (from, copy) = (
            experts[0].lora(Projection::Down),
            experts[2].lora(Projection::Down),
        );
        let (from, copy) = (from.unwrap(), copy.unwrap());
        assert_eq!(from.b.val().into_data(), copy.b.val().into_data());
        assert_ne!(from.b.id, copy.b.id);
        assert!(copy.b.val().is_require_grad());
    }

    #[test]
    fn parameters_are_counted_from_the_configuration() {
        let adapters = with_experts(&[1, 2, 3]);
        let one = adapters.config().expert_parameters(&tiny::model());
        assert_eq!(adapters.num_params(), 3 * one.unwrap());
    }

    #[test]
    fn records_restore_experts_and_gates() {
        let device = Device::flex().autodiff();
        let mut trained = with_experts(&[1, 2]);
        tiny::train_by_hand(&mut trained);
        trained.push_gate(2, GateInit::Random { seed: 3 }, &device);
        let mut restored = with_experts(&[5, 6]);
        restored.push_gate(2, GateInit::Zeros, &device);
        let restored = restored.load_record(trained.clone().into_record());
        let read = |adapters: &Adapters| {
            let bank = &adapters.banks[1];
            let lora = bank.experts[1].lora(Projection::Up).unwrap();
            (
                lora.b.val().into_data(),
                bank.gates[0].weight.val().into_data(),
            )
        };
        assert_eq!(read(&trained), read(&restored));
        assert!(restored.banks[1].gates[0].weight.val().is_require_grad());
    }
}
