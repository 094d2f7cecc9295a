//! Experts that were trained elsewhere.

use super::Catalogue;
use crate::error::{Error, Result};
use crate::peft::PeftAdapter;
use crate::{Expert, ExpertId, Origin, Projection};

impl Catalogue {
    /// Adds the expert that `adapter` is, for `task`, and returns its id.
    ///
    /// # Errors
    ///
    /// When it has a LoRA in a layer that has no experts here.
    pub fn import(&mut self, adapter: &PeftAdapter, task: &str) -> Result<ExpertId> {
        let layers = self.layers();
        let outside = adapter.placed.iter().enumerate();
        let mut outside = outside.filter(|(layer, it)| !it.is_empty() && !layers.contains(layer));
        if let Some((layer, _)) = outside.next() {
            return Err(Error::NotAdapted { layer, layers });
        }
        let origin = Origin {
            task: task.into(),
            parent: None,
            seed: None,
            imported: Some(adapter.sha256.clone()),
        };
        let placed = adapter.placed[layers.clone()].to_vec();
        let has = |target: &Projection| placed.iter().flatten().any(|it| it.target == *target);
        let targets = Projection::ALL.into_iter().filter(has).collect();
        let mut info = self.info(origin, adapter.lora.clone(), targets);
        let alike = (0..layers.len()).all(|place| info.placed_in(place) == placed[place]);
        info.placed = (!alike).then_some(placed);
        let weights = adapter.layers[layers].iter().map(|it| it.duplicate());
        let weights = weights.collect();
        Ok(self.push(Expert::new(info, weights)))
    }
}
