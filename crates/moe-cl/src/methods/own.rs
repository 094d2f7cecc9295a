//! What one method trains besides experts, gates and heads.

use burn::module::Module;
use moe_core::{
    model::{BaseDtype, Decoder},
    parameters::identify,
};
use moe_gan::Discriminator;
use serde::{Deserialize, Serialize};

use crate::task_vectors::TaskVectors;

/// A method's own trained parts.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "one value per learner")]
pub enum Own {
    /// MoE-CL: a task discriminator per adapted layer.
    Discriminators(Vec<Discriminator>),
    /// MoCL: how like each task a text is.
    TaskVectors(TaskVectors),
    /// Full fine-tuning: a base of its own.
    Decoder(Decoder),
}

/// What is to be known of [`Own`] besides its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OwnForm {
    /// [`Own::Discriminators`].
    Discriminators {
        /// How many.
        layers: usize,
        /// Tasks that each tells apart.
        tasks: usize,
    },
    /// [`Own::TaskVectors`].
    TaskVectors {
        /// How many vectors.
        tasks: usize,
    },
    /// [`Own::Decoder`].
    Decoder,
}

impl Own {
    /// Its form.
    pub fn form(&self) -> OwnForm {
        match self {
            Self::Discriminators(all) => OwnForm::Discriminators {
                layers: all.len(),
                tasks: all.first().map_or(0, Discriminator::tasks),
            },
            Self::TaskVectors(vectors) => OwnForm::TaskVectors {
                tasks: vectors.tasks(),
            },
            Self::Decoder(_) => OwnForm::Decoder,
        }
    }

    /// Parts of that form, without their numbers, for a learner on `base` that trains: what stored numbers are read into.
    pub fn described(form: OwnForm, base: &Decoder) -> Self {
        let (d_model, device) = (base.config().d_model, base.device().autodiff());
        match form {
            OwnForm::Discriminators { layers, tasks } => {
                let one = |_| Discriminator::zeros(d_model, tasks, &device);
                Self::Discriminators((0..layers).map(one).collect()).identified()
            }
            OwnForm::TaskVectors { tasks } => {
                Self::TaskVectors(TaskVectors::zeros(d_model, tasks, &device)).identified()
            }
            OwnForm::Decoder => Self::copy_of(base),
        }
    }

    /// A copy of the base that trains. What is trained moves by less than bf16 can hold.
    pub fn copy_of(base: &Decoder) -> Self {
        let decoder = base.clone().with_dtype(BaseDtype::F32);
        Self::Decoder(decoder.set_require_grad(true).train()).identified()
    }

    /// With ids of its parameters that are the same in every process.
    pub fn identified(self) -> Self {
        identify(self, "own")
    }
}
