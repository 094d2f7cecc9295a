mod described;
mod imported;
mod routers;

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Device;
use moe_core::config::ModelConfig;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::error::Result;
use crate::{
    AdapterConfig, Expert, ExpertBank, ExpertId, ExpertInfo, Gate, GateId, GateInfo, GateInit,
    LayerExpert, Lora, LoraConfig, Origin, Projection, Routing, TokenGate,
};

/// The experts and gates of a model, by id.
///
/// Ids are given in order and never again: what is removed leaves a gap, and nothing is renumbered. Only
/// a model that goes back to an earlier state, counts included, gives the ids after it anew.
#[derive(Module, Debug)]
pub struct Catalogue {
    /// In the order of their ids.
    experts: Vec<Expert>,
    /// In the order of their ids.
    gates: Vec<Gate>,
    #[module(skip)]
    next: NextIds,
    #[module(skip)]
    shape: Shape,
}

/// The ids that the next expert and the next gate will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextIds {
    /// Of the next expert.
    pub expert: ExpertId,
    /// Of the next gate.
    pub gate: GateId,
}

/// What of the base has experts.
#[derive(Clone, Debug)]
struct Shape {
    layers: Range<usize>,
    targets: Vec<Projection>,
    base: ModelConfig,
}

impl Catalogue {
    /// No expert yet, for the layers and matrices that `config` names.
    ///
    /// # Errors
    ///
    /// When a setting is out of range, no target is named, or no layer.
    pub fn new(config: &AdapterConfig, base: &ModelConfig) -> Result<Self> {
        config.check()?;
        let shape = Shape {
            layers: config.layers.resolve(base.num_layers),
            targets: config.targets.clone(),
            base: base.clone(),
        };
        Ok(Self::empty(shape))
    }

    /// One that no expert will ever be in, for what adapts nothing.
    pub fn of_none(base: &ModelConfig) -> Self {
        Self::empty(Shape {
            layers: base.num_layers..base.num_layers,
            targets: Vec::new(),
            base: base.clone(),
        })
    }

    fn empty(shape: Shape) -> Self {
        Self {
            experts: Vec::new(),
            gates: Vec::new(),
            next: NextIds {
                expert: ExpertId(0),
                gate: GateId(0),
            },
            shape,
        }
    }

    /// The decoder layers that have experts.
    pub fn layers(&self) -> Range<usize> {
        self.shape.layers.clone()
    }

    /// All experts, in the order of their ids.
    pub fn experts(&self) -> &[Expert] {
        &self.experts
    }

    /// All gates, in the order of their ids.
    pub fn gates(&self) -> &[Gate] {
        &self.gates
    }

    /// The ids that will be given next.
    pub fn next_ids(&self) -> NextIds {
        self.next
    }

    /// The expert of that id.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn expert(&self, id: ExpertId) -> &Expert {
        self.find(id).unwrap_or_else(|| panic!("no expert {id}"))
    }

    /// The expert of that id; none where there is none, or it is not in memory.
    pub fn find(&self, id: ExpertId) -> Option<&Expert> {
        let index = self.experts.binary_search_by_key(&id, Expert::id).ok()?;
        Some(&self.experts[index])
    }

    /// The expert of that id, to change it.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn expert_mut(&mut self, id: ExpertId) -> &mut Expert {
        match self.experts.binary_search_by_key(&id, Expert::id) {
            Ok(index) => &mut self.experts[index],
            Err(_) => panic!("no expert {id}"),
        }
    }

    /// The gate of that id.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn gate(&self, id: GateId) -> &Gate {
        match self.gates.binary_search_by_key(&id, Gate::id) {
            Ok(index) => &self.gates[index],
            Err(_) => panic!("no gate {id}"),
        }
    }

    /// Adds a fresh expert for `task`, drawn from `seed`, and returns its id. To train it, `device` has to be an autodiff device.
    pub fn add_expert(
        &mut self,
        lora: &LoraConfig,
        task: &str,
        seed: u64,
        device: &Device,
    ) -> ExpertId {
        let targets = self.shape.targets.clone();
        self.add_expert_on(targets, lora, task, seed, device)
    }

    /// As [`Self::add_expert`], on `targets` in place of the catalogue's.
    pub fn add_expert_on(
        &mut self,
        targets: Vec<Projection>,
        lora: &LoraConfig,
        task: &str,
        seed: u64,
        device: &Device,
    ) -> ExpertId {
        let origin = Origin {
            task: task.into(),
            parent: None,
            seed: Some(seed),
            imported: None,
        };
        let info = self.info(origin, lora.clone(), targets);
        let layers = self.fresh_layers(&info, seed, device);
        self.push(Expert::new(info, layers))
    }

    /// The matrices that experts have a LoRA on.
    pub fn targets(&self) -> &[Projection] {
        &self.shape.targets
    }

    /// Adds an expert for `task` that starts with the weights of expert `parent`, and returns its id. It has the parent's form.
    ///
    /// # Panics
    ///
    /// When there is no such expert.
    pub fn copy_expert(&mut self, parent: ExpertId, task: &str) -> ExpertId {
        let from = self.expert(parent);
        let origin = Origin {
            task: task.into(),
            parent: Some(parent),
            seed: None,
            imported: None,
        };
        let mut info = self.info(origin, from.info.lora.clone(), from.info.targets.clone());
        info.placed.clone_from(&from.info.placed);
        let layers = from.layers.iter().map(LayerExpert::duplicate).collect();
        self.push(Expert::new(info, layers))
    }

    /// Puts an expert in its place that was made before, and whose id was given then.
    ///
    /// # Panics
    ///
    /// When there is one of that id.
    pub fn insert(&mut self, expert: Expert) {
        match self.experts.binary_search_by_key(&expert.id(), Expert::id) {
            Ok(_) => panic!("expert {} is there already", expert.id()),
            Err(place) => self.experts.insert(place, expert),
        }
    }

    /// Takes an expert out; its id is not given again.
    ///
    /// # Panics
    ///
    /// When there is no such expert.
    pub fn remove_expert(&mut self, id: ExpertId) {
        let index = self.experts.binary_search_by_key(&id, Expert::id);
        self.experts
            .remove(index.unwrap_or_else(|_| panic!("no expert {id}")));
    }

    /// Adds a gate over `columns` experts for `task` and returns its id.
    pub fn add_gate(
        &mut self,
        columns: usize,
        init: GateInit,
        task: &str,
        device: &Device,
    ) -> GateId {
        let id = self.next.gate;
        let d_model = self.shape.base.d_model;
        let layers = self.layers().map(|layer| {
            let init = init.in_layer(layer);
            TokenGate::new(d_model, columns, init, device)
        });
        let info = GateInfo {
            id,
            task: task.into(),
            columns,
            router: None,
        };
        self.gates.push(Gate::new(info, layers.collect()));
        self.next.gate = GateId(id.0 + 1);
        id
    }

    /// The experts that `routing` names, in decoder layer `layer`; none where the layer is not adapted or the base answers alone.
    ///
    /// # Panics
    ///
    /// When `routing` names an expert or gate that is not there.
    pub fn bank(&self, layer: usize, routing: &Routing) -> Option<ExpertBank<'_>> {
        let place = layer.checked_sub(self.shape.layers.start)?;
        if !self.shape.layers.contains(&layer) || routing.experts().is_empty() {
            return None;
        }
        Some(ExpertBank::new(self, layer, place, routing))
    }

    /// A view with the experts that are given in place of its own.
    pub(crate) fn with_experts(&self, mut experts: Vec<Expert>) -> Self {
        experts.sort_by_key(Expert::id);
        Self {
            experts,
            ..self.clone()
        }
    }

    fn info(&self, origin: Origin, lora: LoraConfig, targets: Vec<Projection>) -> ExpertInfo {
        ExpertInfo {
            id: self.next.expert,
            origin,
            lora,
            targets,
            placed: None,
        }
    }

    fn fresh_layers(&self, info: &ExpertInfo, seed: u64, device: &Device) -> Vec<LayerExpert> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (base, first) = (&self.shape.base, self.shape.layers.start);
        let layer = |place| {
            if info.placed.is_none() {
                let (targets, lora) = (&info.targets, &info.lora);
                return LayerExpert::new(targets, lora, base, first + place, &mut rng, device);
            }
            let mut layer = LayerExpert::default();
            for placed in info.placed_in(place) {
                let (shape, lora) = (placed.target.shape(base), placed.sized(&info.lora));
                *layer.lora_mut(placed.target) = Some(Lora::new(shape, &lora, &mut rng, device));
            }
            layer
        };
        (0..self.layers().len()).map(layer).collect()
    }

    fn push(&mut self, expert: Expert) -> ExpertId {
        let id = expert.id();
        self.experts.push(expert);
        self.next.expert = ExpertId(id.0 + 1);
        id
    }
}

#[cfg(test)]
mod tests {
    use burn::module::list_param_ids;
    use moe_core::parameters::to_bytes;

    use super::*;
    use crate::{Error, LayerRange, LoraInit, tiny};

    fn with_experts(seeds: &[u64]) -> Catalogue {
        let config = tiny::config(&Projection::ALL, LayerRange::Last(2));
        let mut catalogue = Catalogue::new(&config, &tiny::model()).unwrap();
        for &seed in seeds {
            catalogue.add_expert(&config.lora, "task", seed, &Device::flex().autodiff());
        }
        catalogue
    }

    #[test]
    fn configurations_that_match_nothing_are_refused() {
        let base = tiny::model();
        let new = |targets: &[Projection], layers| {
            Catalogue::new(&tiny::config(targets, layers), &base).map(|_| ())
        };
        assert_eq!(new(&[], LayerRange::All), Err(Error::NoTarget));
        let twice = [Projection::Up, Projection::Up];
        assert!(new(&twice, LayerRange::All).is_err());
        assert!(new(&[Projection::Up], LayerRange::Last(0)).is_err());
        assert!(new(&[Projection::Up], LayerRange::Last(4)).is_ok());

        let mut config = tiny::config(&[Projection::Up], LayerRange::All);
        config.lora = LoraConfig {
            rank: 0,
            alpha: 1.0,
            rslora: false,
            dropout: 0.0,
            init: LoraInit::Gaussian,
        };
        assert!(Catalogue::new(&config, &base).is_err());
    }

    #[test]
    fn an_expert_is_a_function_of_its_seed() {
        let of = |catalogue: &Catalogue, id| to_bytes(catalogue.expert(ExpertId(id)));
        let (one, two) = (with_experts(&[7, 8]), with_experts(&[7, 7]));
        assert_eq!(of(&one, 0), of(&two, 0));
        assert_eq!(of(&two, 0), of(&two, 1));
        assert_ne!(of(&one, 0), of(&one, 1));
    }

    #[test]
    fn a_copied_expert_has_the_weights_but_is_another_parameter() {
        let mut catalogue = with_experts(&[1, 2]);
        tiny::train_by_hand(&mut catalogue);
        let id = catalogue.copy_expert(ExpertId(0), "next");
        let (from, copy) = (catalogue.expert(ExpertId(0)), catalogue.expert(id));
        assert_eq!(to_bytes(from), to_bytes(copy));
        assert_ne!(list_param_ids(from), list_param_ids(copy));
        assert_eq!(copy.info.origin.parent, Some(ExpertId(0)));
        let down = copy.layers[1].lora(Projection::Down).unwrap();
        assert!(down.b.val().is_require_grad());
    }

    #[test]
    fn an_id_is_never_given_again_and_names_the_parameters() {
        let mut catalogue = with_experts(&[1, 2, 3]);
        let before = list_param_ids(catalogue.expert(ExpertId(2)));
        catalogue.remove_expert(ExpertId(1));
        catalogue.remove_expert(ExpertId(2));
        let id = catalogue.copy_expert(ExpertId(0), "next");
        assert_eq!(id, ExpertId(3));
        assert_eq!(catalogue.experts().len(), 2);
        let same = with_experts(&[9, 9, 9]);
        assert_eq!(list_param_ids(same.expert(ExpertId(2))), before);
    }

    #[test]
    fn parameters_are_counted_from_the_configuration() {
        let config = tiny::config(&Projection::ALL, LayerRange::Last(2));
        let one = config.expert_parameters(&tiny::model());
        assert_eq!(with_experts(&[1, 2, 3]).num_params(), 3 * one);
    }

    #[test]
    fn a_described_catalogue_takes_the_stored_weights() {
        let device = Device::flex().autodiff();
        let mut trained = with_experts(&[1, 2]);
        let wide = LoraConfig {
            rank: 5,
            ..tiny::config(&[], LayerRange::All).lora
        };
        trained.add_expert(&wide, "wide", 3, &device);
        tiny::train_by_hand(&mut trained);
        trained.add_gate(2, GateInit::Random { seed: 3 }, "task", &device);
        let router = crate::GateRouter {
            seed: 4,
            settings: crate::router::RouterConfig::default(),
        };
        trained.add_router(3, router, "task", &device).unwrap();
        let experts: Vec<_> = trained.experts().iter().map(|it| it.info.clone()).collect();
        let gates: Vec<_> = trained.gates().iter().map(|it| it.info.clone()).collect();
        let empty = with_experts(&[]);
        let described = empty.described(&experts, &gates, trained.next_ids(), &device);
        let described = described.unwrap();
        let read = moe_core::parameters::from_bytes(described, &to_bytes(&trained)).unwrap();
        assert_eq!(to_bytes(&read), to_bytes(&trained));
        assert_eq!(list_param_ids(&read), list_param_ids(&trained));
        assert!(read.gates()[0].layers[0].weight.val().is_require_grad());
    }
}
