//! What the base could do before the first task, and can do after the last.

use std::path::Path;

use moe_cl::{
    Base,
    probes::{Ability, HELD_TEXT, Probes},
    training::Trained,
};
use serde::{Deserialize, Serialize};

/// Name of the file in a run's folder.
pub const FILE: &str = "ability.json";

/// Tokens of the held text that are read in one piece.
const WINDOW: usize = 256;

/// General ability before and after a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Abilities {
    /// The base alone.
    pub before: Ability,
    /// After the last task, as each task is answered.
    pub tasks: Vec<Ability>,
    /// After the last task, as a text of no known task is answered; none where the method has nothing else for it.
    pub unknown: Option<Ability>,
}

impl Abilities {
    /// Measures a finished run.
    ///
    /// # Errors
    /// When its last checkpoint cannot be read, or the tokenizer refuses a text.
    pub fn measure(run: &Path, base: &Base) -> anyhow::Result<Self> {
        let window = base.decoder.config().max_position_embeddings.min(WINDOW);
        let probes = Probes::new(&base.tokenizer, window)?;
        let trained = Trained::open(run, base)?;
        let after = |task, unknown| probes.measure(&trained.model(task, unknown), base.pad());
        // The texts of the probes stand for those of no known task; the router says which is nearest.
        let nearest = trained.infer(&[HELD_TEXT.into()])?;
        let nearest = nearest.first().map_or(0, |who| who.task);
        let mut tasks: Vec<Ability> = Vec::with_capacity(trained.learnt);
        for task in 0..trained.learnt {
            // The same experts can do the same.
            let routing = trained.routing(task);
            let same = (0..task).find(|&earlier| trained.routing(earlier) == routing);
            tasks.push(same.map_or_else(|| after(task, false), |earlier| tasks[earlier]));
        }
        Ok(Self {
            before: probes.measure(&base.decoder, base.pad()),
            tasks,
            unknown: trained.has_fallback(nearest).then(|| after(nearest, true)),
        })
    }

    /// Mean over the tasks; none where there is none.
    pub fn mean(&self, value: fn(&Ability) -> f64) -> Option<f64> {
        let sum: f64 = self.tasks.iter().map(value).sum();
        (!self.tasks.is_empty()).then(|| sum / self.tasks.len() as f64)
    }
}
