//! A frozen base model together with its tokenizer: what every run starts from.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use moe_core::{
    chat::ChatTemplate,
    checkpoint::{AnswerEnds, Checkpoint},
    model::{BaseDtype, Decoder},
    parameters::to_bytes,
    tokenizer::Tokenizer,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    config::Experiment,
    data::{Collate, Writer},
    error::{Error, Result},
    trunk::{Trunk, TrunkCache},
};

/// A loaded base model.
pub struct Base {
    /// Where it was read from.
    pub path: PathBuf,
    /// The frozen decoder, on the plain (not autodiff) device.
    pub decoder: Decoder,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, where it has one.
    pub chat: Option<ChatTemplate>,
    /// What ends an answer.
    pub ends: AnswerEnds,
    /// What is kept of its lower layers.
    pub trunk: Option<TrunkCache>,
    /// What tells it from other bases.
    pub identity: BaseIdentity,
    /// Its file has quantised blocks that were to stay as they are, and had to be widened: only products on the CPU read them.
    pub widened: bool,
}

/// What tells a base from others, wherever it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseIdentity {
    /// SHA-256 over its tensors: names, shapes, types and stored bytes ([`Checkpoint::fingerprint`]).
    pub weights: String,
    /// SHA-256 of its tokenizer.
    pub tokenizer: String,
    /// SHA-256 of its chat template, where it has one.
    pub chat_template: Option<String>,
}

impl BaseIdentity {
    /// In what `other` differs, for people; none where it is the same.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
        let template = |it: &Self| it.chat_template.as_deref().map_or("none".into(), short);
        let differs = |what: &str, was: String, is: String| {
            (was != is).then(|| format!("another {what} ({was} there, {is} here)"))
        };
        let differences: Vec<String> = [
            differs(
                "fingerprint of the weights",
                short(&self.weights),
                short(&other.weights),
            ),
            differs("tokenizer", short(&self.tokenizer), short(&other.tokenizer)),
            differs("chat template", template(self), template(other)),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!differences.is_empty()).then(|| differences.join(", "))
    }
}

impl Base {
    /// Loads a Hugging Face folder or a GGUF file onto `device`, its matrices as they are stored.
    ///
    /// # Errors
    /// When the checkpoint is damaged, of an architecture that is not supported, or has no tokenizer.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        Self::load_as(path, BaseDtype::default(), device)
    }

    /// As [`Self::load`], with the decoder's matrices in `dtype`.
    ///
    /// # Errors
    /// As [`Self::load`], and when the device has no such numbers.
    pub fn load_as(path: &Path, dtype: BaseDtype, device: &Device) -> Result<Self> {
        Self::load_known(path, dtype, device, Checkpoint::fingerprint)
    }

    /// As [`Self::load_as`], where the caller may know the fingerprint of the weights already.
    ///
    /// # Errors
    /// As [`Self::load_as`].
    pub fn load_known(
        path: &Path,
        dtype: BaseDtype,
        device: &Device,
        fingerprint: impl FnOnce(&Checkpoint) -> moe_core::Result<String>,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let tokenizer = checkpoint.tokenizer()?;
        let chat = checkpoint.chat(&tokenizer)?;
        let ends = checkpoint.answer_ends(&tokenizer, chat.as_ref())?;
        let identity = BaseIdentity {
            weights: fingerprint(&checkpoint)?,
            tokenizer: tokenizer.hash()?,
            chat_template: checkpoint
                .chat_template()
                .map(|source| sha256(source.as_bytes())),
        };
        let decoder = Decoder::load_as(&checkpoint, dtype, device)?;
        let has_blocks = checkpoint.bytes_in_memory(BaseDtype::Stored)
            < checkpoint.bytes_in_memory(BaseDtype::F32);
        Ok(Self {
            path: path.into(),
            widened: dtype == BaseDtype::Stored && has_blocks && decoder.dtype() != dtype,
            decoder,
            tokenizer,
            chat,
            ends,
            trunk: None,
            identity,
        })
    }

    /// A base that was never in a file. Its identity is that of the numbers it holds.
    ///
    /// # Errors
    /// When the tokenizer cannot be written down to be hashed.
    pub fn in_memory(
        decoder: Decoder,
        tokenizer: Tokenizer,
        chat: Option<ChatTemplate>,
    ) -> Result<Self> {
        let identity = BaseIdentity {
            weights: sha256(&to_bytes(&decoder)),
            tokenizer: tokenizer.hash()?,
            chat_template: None,
        };
        let template = chat.as_ref().map(|chat| chat.end_of_answer(&tokenizer));
        let template = template.transpose()?.flatten();
        let settings = decoder.config().eos_token_ids.iter().copied();
        Ok(Self {
            path: PathBuf::from("memory"),
            ends: AnswerEnds::new(template.into_iter().chain(settings)),
            decoder,
            tokenizer,
            chat,
            trunk: None,
            identity,
            widened: false,
        })
    }

    /// Refuses another base than `trained_on`.
    ///
    /// # Errors
    /// When weights, tokenizer or chat template differ; the error says which.
    pub fn check(&self, trained_on: &BaseIdentity) -> Result<()> {
        match trained_on.difference(&self.identity) {
            None => Ok(()),
            Some(difference) => Err(Error::AnotherBase {
                base: self.path.clone(),
                difference,
            }),
        }
    }

    /// Keeps below `root` what the layers below the experiment's first expert make of its texts, as `base.trunk_cache_mb` allows;
    /// nothing where the lowest layer has experts. Where the folder cannot be used, a run warns and does without it.
    pub fn keep_trunk(&mut self, experiment: &Experiment, root: &Path) {
        let adapted = experiment.adapters.layers;
        let layers = adapted.resolve(self.decoder.config().num_layers).start;
        let budget = experiment.base.trunk_cache_mb.saturating_mul(1_000_000);
        self.trunk = match (layers, budget) {
            (0, _) | (_, 0) => None,
            _ => Some(TrunkCache::open(&self.decoder, layers, root, budget)),
        };
    }

    /// How batches of its texts are made.
    pub fn collate(&self) -> Collate<'_> {
        Collate {
            pad: self.pad(),
            trunk: self.trunk.as_ref().map(|cache| Trunk {
                decoder: &self.decoder,
                cache,
            }),
        }
    }

    /// How conversations become its tokens.
    pub fn writer(&self) -> Writer<'_> {
        Writer {
            tokenizer: &self.tokenizer,
            chat: self.chat.as_ref(),
            ends: &self.ends,
        }
    }

    /// Token that fills short rows; its value never matters, since padding is masked.
    pub fn pad(&self) -> u32 {
        let config = self.decoder.config();
        config
            .pad_token_id
            .or(config.eos_token_ids.first().copied())
            .unwrap_or(0)
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
