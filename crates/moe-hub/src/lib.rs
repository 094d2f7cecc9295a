#![doc = include_str!("../README.md")]

#[cfg(any(test, not(feature = "hub")))]
mod absent;
mod base;
mod cache;
pub mod data;
mod error;
mod file;
mod fingerprints;
#[cfg(feature = "hub")]
mod hub;
#[cfg(test)]
mod loopback;
mod pip;
mod progress;
mod tarball;
#[cfg(feature = "hub")]
mod web;
mod weights;
mod wheel;

/// What reads files from elsewhere, for those who attack it.
#[doc(hidden)]
pub mod attacked {
    pub use crate::{tarball::files as tarball, wheel::unpack as wheel};
}

#[cfg(not(feature = "hub"))]
pub(crate) use absent::REMEDY;
#[cfg(not(feature = "hub"))]
pub use absent::{Hub, Web};
pub use base::{BaseSource, fetch_default, smollm2};
pub use cache::{CACHE_VARIABLE, Cache};
pub use error::{Result, SourceError};
pub use fingerprints::Fingerprints;
#[cfg(feature = "hub")]
pub use hub::Hub;
pub use pip::{Distribution, Pip};
pub use progress::Progress;
#[cfg(feature = "hub")]
pub(crate) use web::REMEDY;
#[cfg(feature = "hub")]
pub use web::Web;
