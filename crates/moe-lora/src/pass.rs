use burn::tensor::Tensor;

use crate::Texts;
use crate::error::{Error, Result};
use crate::router::{Dispatch, Phase, Recorded, Router, Tokens};

/// What routers are told of a pass over texts, besides the tokens' states.
#[derive(Clone, Debug)]
pub struct Pass {
    pub(crate) tokens: Tokens,
    phase: Phase,
    /// What takes the place of the routers' choices.
    recorded: Vec<Recorded>,
}

impl Pass {
    /// Over `texts`. While training they are one group, of which capacity is counted and balance is taken; an answer is to depend on its
    /// own text alone, so that every text is a group then.
    ///
    /// # Panics
    /// When every token is padding.
    pub fn new(texts: &Texts, phase: Phase) -> Self {
        let [batch, _seq] = texts.tokens.dims();
        let ids: Vec<u32> = texts.tokens.clone().into_data().iter::<u32>().collect();
        let domains = vec![0; ids.len()];
        let tokens = texts.routed_tokens().with_ids(ids, domains);
        let tokens = match phase {
            Phase::Train { .. } => tokens,
            Phase::Evaluate => tokens.in_groups(batch),
        };
        Self {
            tokens,
            phase,
            recorded: Vec::new(),
        }
    }

    /// An evaluation of `texts` in which every layer in `layers` does what was recorded of it.
    ///
    /// # Errors
    /// When a layer has no record, or one of other tokens or another number of experts.
    pub(crate) fn of_recorded(
        texts: &Texts,
        recorded: &[Recorded],
        layers: std::ops::Range<usize>,
        experts: usize,
    ) -> Result<Self> {
        let mut pass = Self::new(texts, Phase::Evaluate);
        let tokens = pass.tokens.count();
        for layer in layers {
            let found = recorded.iter().find(|it| it.layer == layer);
            let Some(found) = found else {
                return Err(Error::NoRecord { layer });
            };
            if (found.tokens, found.experts) != (tokens, experts) {
                return Err(Error::OtherRecord {
                    layer,
                    found: (found.tokens, found.experts),
                    expected: (tokens, experts),
                });
            }
            pass.recorded.push(found.clone());
        }
        Ok(pass)
    }

    /// Of one layer, which draws numbers of its own.
    pub(crate) fn phase(&self, layer: usize) -> Phase {
        match self.phase {
            Phase::Train { seed } => Phase::Train {
                seed: seed.wrapping_add((layer as u64) << 32),
            },
            Phase::Evaluate => Phase::Evaluate,
        }
    }

    /// What the router of a layer chooses for tokens `x [tokens, d_model]`, or what was recorded of it.
    pub(crate) fn choice(&self, layer: usize, router: &Router, x: &Tensor<2>) -> Dispatch {
        match self.recorded.iter().find(|it| it.layer == layer) {
            Some(recorded) => recorded.replay(&x.device()),
            None => router.forward(x.clone(), &self.tokens, self.phase(layer)),
        }
    }
}
