//! Elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796): what mattered to earlier tasks is held where it was.

use std::io;

use burn::{module::Module, optim::GradientsParams, tensor::Tensor};
use moe_core::model::Decoder;
use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Card, Importance, LearntTask, Loss, Method, Options, Piece, Place, Step, importance::Anchor,
    penalty, routed_loss,
};
use crate::{
    data::{Batch, Collate},
    learner::Learner,
};

/// How EWC keeps the importances of several tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EwcMode {
    /// Importances and anchor of every task: memory grows with the tasks.
    #[default]
    Separate,
    /// One importance, `F ← decay · F + F_task`, and the newest anchor.
    Online,
}

/// Options of EWC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EwcConfig {
    /// Weight λ of `Σ F (θ − θ*)²`, without the ½ of the paper.
    #[schemars(range(min = 0, max = 1e12))]
    pub lambda: f64,
    /// How the importances of several tasks are kept.
    pub mode: EwcMode,
    /// Factor on the older importance, in [0, 1]; online mode only.
    #[schemars(range(min = 0, max = 1))]
    pub decay: f64,
    /// Examples of a finished task that its importance is measured on, each a batch of its own.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub fisher_examples: usize,
}

impl Default for EwcConfig {
    fn default() -> Self {
        Self {
            lambda: 100.0,
            mode: EwcMode::Separate,
            decay: 1.0,
            fisher_examples: 128,
        }
    }
}

impl Options for EwcConfig {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(Ewc::new(self.clone()))
    }
}

/// Begins the name of a stored anchor.
const ANCHOR: &str = "anchor/";

/// One expert with a spring on every parameter.
#[derive(Clone, Debug)]
pub struct Ewc {
    options: EwcConfig,
    /// One per finished task, or in online mode one for all.
    anchors: Vec<Anchor>,
}

impl Ewc {
    /// The method with its options, before its first task.
    pub fn new(options: EwcConfig) -> Self {
        Self {
            options,
            anchors: Vec::new(),
        }
    }

    /// Takes the anchor of another finished task.
    pub fn keep(&mut self, mut anchor: Anchor) {
        if self.options.mode == EwcMode::Online {
            for older in self.anchors.drain(..) {
                anchor.add_decayed(&older, self.options.decay);
            }
        }
        self.anchors.push(anchor);
    }

    /// `λ Σ_i Σ_k F_ik (θ_k − θ*_ik)²` over the parameters of `module` that are held, shape `[1]`; none where there are none.
    pub fn penalty(&self, module: &impl Module) -> Option<Tensor<1>> {
        let parts = self
            .anchors
            .iter()
            .filter_map(|anchor| penalty(module, anchor));
        let sum = parts.reduce(|sum, part| sum + part)?;
        Some(sum * self.options.lambda)
    }

    /// What is held so far: an anchor per task, or in online mode one for all.
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }
}

/// Importance of the learner's parameters to `task`, a mean over `batches`. `learner` is on the autodiff device.
pub fn fisher(
    base: &Decoder,
    learner: &Learner,
    task: usize,
    batches: impl IntoIterator<Item = Batch>,
) -> Importance {
    let mut importance = Importance::default();
    for batch in batches {
        let step = Step {
            base,
            learner,
            batch: &batch,
            place: Place::alone(&batch),
            task,
            // Reads no further batch.
            collate: Collate::padding(0),
            dropout: None,
            rng: ChaCha8Rng::seed_from_u64(0), // draws nothing
        };
        let loss = routed_loss(&step, learner.answering(task)).total;
        let gradients = GradientsParams::from_grads(loss.backward(), learner);
        importance.add(learner, &gradients);
    }
    importance
}

impl Method for Ewc {
    fn name(&self) -> String {
        match self.options.mode {
            EwcMode::Separate => "ewc".into(),
            EwcMode::Online => "ewc (online)".into(),
        }
    }

    fn card(&self) -> Card {
        Card {
            what: "one adapter, held where it matters to earlier tasks",
            needs: "nothing",
            stores: "two numbers per parameter (online: in all)",
            source: "arXiv 1612.00796",
            strength: "lambda 100 without the paper's ½ (its 200); no value is published for LoRA, the literature tunes it per benchmark; not tuned here",
        }
    }

    /// `L = L_task + λ Σ_i Σ_k F_ik (θ_k − θ*_ik)²` over the parameters that this task trains: heads of earlier tasks have no
    /// gradient and stay where they are.
    fn loss(&self, step: Step<'_>) -> Loss {
        let Step { learner, task, .. } = step;
        let loss = routed_loss(&step, learner.answering(task));
        if !step.place.first {
            return loss;
        }
        let head = learner.head(task).cloned();
        let trained = (learner.catalogue.clone(), head);
        match self.penalty(&trained) {
            Some(penalty) => loss.plus(penalty),
            None => loss,
        }
    }

    fn finish(&mut self, learner: Learner, learnt: LearntTask<'_>) -> Learner {
        let LearntTask {
            base,
            task,
            examples,
            collate,
            mut rng,
            ..
        } = learnt;
        let amount = self.options.fisher_examples.min(examples.len());
        let picked = index::sample(&mut rng, examples.len(), amount);
        let alone = picked
            .iter()
            .map(|index| collate.batch(&[&examples[index]], &base.device().inner()));
        let importance = fisher(base, &learner, task, alone);
        self.keep(importance.anchor(&learner));
        learner
    }

    /// A piece per anchor, in its binary form.
    fn memory(&self) -> io::Result<Vec<Piece>> {
        let pieces = self
            .anchors
            .iter()
            .enumerate()
            .map(|(index, anchor)| Piece {
                name: format!("{ANCHOR}{index}"),
                bytes: anchor.to_bytes(),
                settled: self.options.mode == EwcMode::Separate,
            });
        Ok(pieces.collect())
    }

    fn restore(&mut self, memory: &[Piece]) -> io::Result<()> {
        let anchors = memory
            .iter()
            .map(|piece| match piece.name.starts_with(ANCHOR) {
                true => Anchor::from_bytes(&piece.bytes),
                false => Err(piece.foreign()),
            });
        self.anchors = anchors.collect::<io::Result<_>>()?;
        Ok(())
    }
}
