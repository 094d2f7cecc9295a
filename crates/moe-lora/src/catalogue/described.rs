//! A catalogue made from what is written of it, to read stored weights into.

use burn::tensor::Device;

use super::{Catalogue, NextIds};
use crate::error::Result;
use crate::{Expert, ExpertInfo, Gate, GateInfo, GateInit, TokenGate};

impl Catalogue {
    /// An expert of that description without its weights, on `device`: what stored weights are read into.
    pub fn described_expert(&self, info: &ExpertInfo, device: &Device) -> Expert {
        Expert::new(info.clone(), self.fresh_layers(info, 0, device))
    }

    /// The catalogue of the experts and gates that `experts` and `gates` describe, without their weights, on `device`: what stored
    /// weights are read into. `next` are the ids to be given from then on.
    ///
    /// # Errors
    /// When a router's settings do not fit.
    pub fn described(
        mut self,
        experts: &[ExpertInfo],
        gates: &[GateInfo],
        next: NextIds,
        device: &Device,
    ) -> Result<Self> {
        let expert = |info| self.described_expert(info, device);
        let experts = experts.iter().map(expert).collect();
        let d_model = self.shape.base.d_model;
        let gate = |info: &GateInfo| {
            if info.router.is_some() {
                let routers = self.fresh_routers(info, device)?;
                return Ok(Gate::of_routers(info.clone(), routers));
            }
            let layer = |_| TokenGate::new(d_model, info.columns, GateInit::Zeros, device);
            Ok(Gate::new(info.clone(), self.layers().map(layer).collect()))
        };
        let gates = gates.iter().map(gate).collect::<Result<_>>()?;
        self.experts = experts;
        self.gates = gates;
        self.next = next;
        Ok(self)
    }

    /// With `change` on every expert and `change_gate` on every gate.
    ///
    /// # Errors
    /// The first that one of them gives.
    pub fn try_map<E>(
        mut self,
        change: impl FnMut(Expert) -> std::result::Result<Expert, E>,
        change_gate: impl FnMut(Gate) -> std::result::Result<Gate, E>,
    ) -> std::result::Result<Self, E> {
        self.experts = self
            .experts
            .into_iter()
            .map(change)
            .collect::<std::result::Result<_, E>>()?;
        self.gates = self
            .gates
            .into_iter()
            .map(change_gate)
            .collect::<std::result::Result<_, E>>()?;
        Ok(self)
    }
}
