//! Every random draw of a run is a pure function of the configured seed and of what it is for.
//!
//! No generator is carried from step to step, so a resumed run draws exactly what the uninterrupted one draws.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a random draw is for. The discriminant is part of the key: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights of the parts that a task adds (`index` = task).
    Weights = 1,
    /// Dropout masks (`index` = optimiser step, `part` = micro-batch).
    Dropout = 2,
    /// Stand-ins of earlier tasks for the discriminator (`index` = optimiser step, `part` = micro-batch).
    StandIns = 3,
    /// Order of the training examples (`index` = task, `part` = epoch).
    Order = 4,
    /// Which training examples are used at all (`index` = task).
    Selection = 5,
    /// The fixed random map of the task router; its seed is the router's own.
    RandomFeatures = 16,
    /// What a method keeps of a finished task (`index` = task).
    Memory = 6,
    /// Earlier examples that a step's gradient is compared with (`index` = optimiser step).
    Rehearsal = 7,
    /// Order of the steps of a stage that learns several tasks (`index` = stage, `part` = epoch).
    Stage = 8,
    /// First weights of a task's classification head (`index` = task).
    Head = 9,
    /// Which training records are kept out to be scored, where a task names no file for that (`index` = task).
    Split = 10,
}

/// The configured seed of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds(pub u64);

impl Seeds {
    /// A generator for one purpose at one place of the run.
    pub fn rng(self, purpose: Purpose, index: usize, part: usize) -> ChaCha8Rng {
        let mut key = [0; 32];
        for (slot, word) in
            key.chunks_exact_mut(8)
                .zip([self.0, purpose as u64, index as u64, part as u64])
        {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn a_draw_depends_on_its_place_and_on_nothing_else() {
        let draw = |purpose, index, part| Seeds(7).rng(purpose, index, part).next_u64();
        assert_eq!(draw(Purpose::Dropout, 3, 0), draw(Purpose::Dropout, 3, 0));
        assert_ne!(draw(Purpose::Dropout, 3, 0), draw(Purpose::Dropout, 4, 0));
        assert_ne!(draw(Purpose::Dropout, 3, 0), draw(Purpose::Dropout, 3, 1));
        assert_ne!(draw(Purpose::Dropout, 3, 0), draw(Purpose::Weights, 3, 0));
    }
}
