//! Gates that are routers.

use burn::tensor::Device;

use super::Catalogue;
use crate::error::Result;
use crate::router::{Attention, Place, Rebalance, Router};
use crate::{Gate, GateId, GateInfo, GateRouter, Routing};

impl Catalogue {
    /// Adds a gate over `columns` experts for `task` that picks some of them for each token, a router in every adapted layer, and
    /// returns its id.
    ///
    /// # Errors
    /// When the router's settings do not fit: more choices than experts, no capacity, experts that choose their tokens.
    pub fn add_router(
        &mut self,
        columns: usize,
        router: GateRouter,
        task: &str,
        device: &Device,
    ) -> Result<GateId> {
        let id = self.next.gate;
        let info = GateInfo {
            id,
            task: task.into(),
            columns,
            router: Some(router),
        };
        let routers = self.fresh_routers(&info, device)?;
        self.gates.push(Gate::of_routers(info, routers));
        self.next.gate = GateId(id.0 + 1);
        Ok(id)
    }

    /// The routers of the gate that `routing` names, where it is one of routers.
    pub fn routers(&self, routing: &Routing) -> Option<&[Router]> {
        let gate = self.gate(routing.gate()?);
        (!gate.routers.is_empty()).then_some(&gate.routers[..])
    }

    /// The routers of a gate of that description, as they were drawn; none where it has none.
    pub(super) fn fresh_routers(&self, info: &GateInfo, device: &Device) -> Result<Vec<Router>> {
        let Some(router) = &info.router else {
            return Ok(Vec::new());
        };
        let layer = |layer| {
            let place = Place {
                d_model: self.shape.base.d_model,
                experts: info.columns,
                layer,
                attention: Attention::Causal,
                device,
            };
            router.settings.init(&place, router.seed)
        };
        self.layers().map(layer).collect()
    }

    /// Moves the biases of gate `id`, where its routers balance by one, against the choices of an optimiser step: `wanted [experts]` of
    /// each adapted layer.
    ///
    /// # Panics
    /// When there is no such gate, or no count for one of its layers.
    pub fn rebalance(&mut self, id: GateId, wanted: &[(usize, Vec<u64>)]) {
        let first = self.layers().start;
        let Ok(index) = self.gates.binary_search_by_key(&id, Gate::id) else {
            panic!("no gate {id}");
        };
        for (place, router) in self.gates[index].routers.iter_mut().enumerate() {
            let Router::BiasBalanced(balanced) = router else {
                continue;
            };
            let counts = wanted.iter().find(|(layer, _)| *layer == first + place);
            let (_, counts) = counts.expect("counts of every adapted layer");
            let load: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
            *router = Router::BiasBalanced(balanced.rebalanced(&load, Rebalance::Paper));
        }
    }
}
