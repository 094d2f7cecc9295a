//! LoRA experts on a frozen decoder, mixed per token by a gate: the architecture of MoE-CL
//! (arXiv 2509.18133), with any number of experts.
//!
//! [`Adapters`] hold one [`ExpertBank`] per adapted decoder layer. A [`Routing`] says which
//! experts answer; [`Adapters::forward`] runs base and experts in one pass, for training on the
//! autodiff device or, after `adapters.valid()`, on the plain one. [`Adapted`] is the same thing
//! as a language model to generate with.
//!
//! The base is never trained and never copied: its weights live on the plain device and take
//! part in autodiff as constants.

mod adapters;
mod attention;
mod bank;
mod config;
mod dropout;
mod error;
mod expert;
mod forward;
mod gate;
mod hidden;
mod lora;
mod merge;
mod mix;
mod per_text;
mod routing;
mod stacked;
mod texts;
#[cfg(test)]
mod tiny;

pub use adapters::Adapters;
pub use bank::{BankOutput, ExpertBank, Observe};
pub use config::{AdapterConfig, LayerRange, LoraConfig, LoraInit, Projection};
pub use dropout::{LoraDropout, Site};
pub use error::{Error, Result};
pub use expert::LoraExpert;
pub use forward::{Adapted, Forward, mean_of_tokens, pool_shares};
pub use gate::{GateInit, TokenGate};
pub use lora::Lora;
pub use mix::{Mix, Mixed};
pub use routing::Routing;
pub use texts::{States, Texts};
