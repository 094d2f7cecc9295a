//! MixLoRA (Li et al., arXiv 2404.15159): one sparse mixture of LoRA experts, trained through all tasks without any protection.

use moe_core::config::ModelConfig;
use moe_lora::router::{Attention, RouterConfig};
use moe_lora::{GateRouter, Projection, Routing};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Card, Loss, Method, NewTask, Options, Step, loss_of};
use crate::learner::{Learner, TaskExperts};

/// Options of a mixture of LoRA experts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MixLoraConfig {
    /// LoRA experts on the feed-forward network of every adapted layer. `q`, `k`, `v` and `o` among `adapters.targets` have one LoRA, not
    /// a mixture.
    #[schemars(range(min = 1, max = 1024))]
    pub experts: usize,
    /// What picks some of them for each token: its `kind`, and its options beside it.
    pub router: RouterConfig,
}

/// Eight experts, two for each token, as in the paper.
impl Default for MixLoraConfig {
    fn default() -> Self {
        Self {
            experts: 8,
            router: RouterConfig::default(),
        }
    }
}

impl MixLoraConfig {
    /// What is wrong with the router, whatever the base; nothing where it fits.
    pub fn fault(&self) -> Option<String> {
        if let RouterConfig::RandomRouted(groups) = &self.router
            && groups.group_sizes.len() != 1
        {
            return Some(
                "a token belongs to no domain: group_sizes must be one group of all experts".into(),
            );
        }
        let checked = self.router.check(self.experts, Attention::Causal);
        checked.err().map(|error| error.to_string())
    }
}

impl Options for MixLoraConfig {
    fn method(&self, _tasks: usize) -> Box<dyn Method> {
        Box::new(MixLora {
            options: self.clone(),
        })
    }
}

/// One mixture for the whole stream.
#[derive(Clone, Debug)]
pub struct MixLora {
    options: MixLoraConfig,
}

impl MixLora {
    /// The experts, of which the first alone is on the attention as well, and the router over them.
    fn mixture(&self, learner: &mut Learner, new: &mut NewTask<'_>) -> Routing {
        let catalogue = &mut learner.catalogue;
        let inside = [Projection::Gate, Projection::Up, Projection::Down];
        let all = catalogue.targets().to_vec();
        let own: Vec<Projection> = all
            .iter()
            .copied()
            .filter(|it| inside.contains(it))
            .collect();
        let experts = (0..self.options.experts).map(|index| {
            let targets = if index == 0 { &all } else { &own };
            let seed = new.rng.next_u64();
            catalogue.add_expert_on(targets.clone(), new.lora, new.name, seed, &new.device)
        });
        let experts = experts.collect();
        let router = GateRouter {
            seed: new.rng.next_u64(),
            settings: self.options.router.clone(),
        };
        let gate = catalogue
            .add_router(self.options.experts, router, new.name, &new.device)
            .expect("the settings were checked when they were read");
        Routing::Gated { experts, gate }
    }
}

impl Method for MixLora {
    fn name(&self) -> String {
        "mix_lora".into()
    }

    fn card(&self) -> Card {
        Card {
            what: "one sparse mixture of adapters trained through all tasks",
            needs: "nothing",
            stores: "nothing",
            source: "arXiv 2404.15159",
            strength: "8 experts, 2 per token; method.router.balance 0.01 (Switch's)",
        }
    }

    fn check(&self, base: &ModelConfig) -> moe_lora::Result<()> {
        match &self.options.router {
            RouterConfig::RandomRouted(groups) if groups.vocab_size < base.vocab_size => {
                Err(moe_lora::Error::Router {
                    router: self.options.router.name(),
                    message: format!(
                        "vocab_size = {}; the vocabulary of the base has {} ids",
                        groups.vocab_size, base.vocab_size
                    ),
                })
            }
            _ => Ok(()),
        }
    }

    fn prepare(&self, mut learner: Learner, mut new: NewTask<'_>) -> Learner {
        let routing = match learner.tasks.first() {
            Some(first) => first.answering.clone(),
            None => self.mixture(&mut learner, &mut new),
        };
        learner.tasks.push(TaskExperts::of(routing));
        learner
    }

    /// `L = L_task + Σ_layers Σ_i α_i L_i` over the losses of each layer's router, which are means over the real tokens of a micro-batch.
    fn loss(&self, mut step: Step<'_>) -> Loss {
        let seed = step.rng.next_u64();
        let routing = step.learner.answering(step.task);
        let forward = step.learner.catalogue.forward_training(
            step.base,
            &step.batch.texts,
            routing,
            seed,
            step.dropout.as_ref(),
        );
        loss_of(&step, forward)
    }
}
