//! LoRA experts on a frozen decoder, mixed per token by a gate: the architecture of MoE-CL
//! (arXiv 2509.18133), with any number of experts.
//!
//! A [`Catalogue`] holds experts and gates by id: an [`Expert`] is a thing with an origin, a rank and weights in every adapted
//! layer, and its [`ExpertId`] is never given again. A [`Routing`] says which experts answer; [`Catalogue::forward`] runs base and
//! experts in one pass, for training on the autodiff device or, after `catalogue.valid()`, on the plain one. [`Adapted`] is the
//! same thing as a language model to generate with.
//!
//! [`peft`] reads and writes experts as folders of Hugging Face PEFT.
//!
//! [`router`] has what sends the tokens of a sparse mixture to its experts.
//!
//! The base is never trained and never copied: its weights live on the plain device and take
//! part in autodiff as constants.

mod attention;
mod bank;
mod catalogue;
mod config;
mod dropout;
mod error;
mod expert;
mod forward;
mod gate;
mod hidden;
mod inside;
mod layer_expert;
mod lora;
mod merge;
mod mix;
mod pass;
pub mod peft;
mod per_text;
mod routed;
pub mod router;
mod routing;
mod stacked;
mod texts;
#[cfg(test)]
mod tiny;

pub use bank::{BankOutput, ExpertBank, Observe};
pub use catalogue::{Catalogue, NextIds};
pub use config::{AdapterConfig, LayerRange, LoraConfig, LoraInit, Projection};
pub use dropout::{LoraDropout, Site};
pub use error::{Error, Result};
pub use expert::{Expert, ExpertId, ExpertInfo, Origin, Placed};
pub use forward::{Adapted, Forward, mean_of_tokens, pool_shares};
pub use gate::{Gate, GateId, GateInfo, GateInit, GateRouter, TokenGate};
pub use layer_expert::{InsideExpert, LayerExpert};
pub use lora::Lora;
pub use mix::{Mix, Mixed};
pub use pass::Pass;
pub use routing::Routing;
pub use texts::{States, Texts};

/// The README's example runs with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
