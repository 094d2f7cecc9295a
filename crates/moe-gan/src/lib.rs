//! The adversarial half of MoE-CL (arXiv 2509.18133, section 3.3), usable alone: a task
//! discriminator per layer, gradient reversal, and statistics of earlier tasks' features.
//!
//! Signs. The paper minimises `L_task − w · L_GAN` over everything before the discriminator and
//! `L_GAN` over the discriminator. Both come out of one backward pass over
//! `L_task + w · L_GAN`, when the features pass through [`reverse_gradient`] with λ = 1 first:
//! [`adversarial_loss`] does that.

mod discriminator;
mod memory;
mod reversal;

pub use discriminator::{Discriminator, DiscriminatorLoss, adversarial_loss};
pub use memory::FeatureMemory;
pub use reversal::reverse_gradient;

/// The README's example runs with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
