use thiserror::Error;

/// What an adapter or router configuration can get wrong.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Error {
    /// No target at all.
    #[error("no LoRA target is named; give at least one of {}", crate::Projection::NAMES.join(", "))]
    NoTarget,
    /// A name that is no projection of the decoder.
    #[error("`{name}` matches no projection of the decoder; a target is one of {}", crate::Projection::NAMES.join(", "))]
    UnknownTarget {
        /// What was given.
        name: String,
    },
    /// A target named twice.
    #[error("the LoRA target `{name}` is named twice; name it once")]
    RepeatedTarget {
        /// The target.
        name: &'static str,
    },
    /// A layer range that cannot be read.
    #[error("layers = `{given}` is no layer range; write `all` or `last:N`, N at least 1")]
    UnknownLayers {
        /// What was given.
        given: String,
    },
    /// A LoRA setting outside its range.
    #[error("LoRA {key} = {value} is out of range; it must be {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        expected: &'static str,
    },
    /// A PEFT folder that cannot be read, written, or be what its settings say.
    #[error("{}: {message}", path.display())]
    Adapter {
        /// The file, or the folder.
        path: std::path::PathBuf,
        /// The key or tensor, what is wrong and what to do.
        message: String,
    },
    /// An expert that PEFT's plain LoRA cannot say.
    #[error(
        "the expert has LoRAs inside the feed-forward block of layer {layer}, a sparse mixture, and PEFT has no plain LoRA for such matrices; \
         one with attention targets alone (q, k, v, o) can be written"
    )]
    InsideMixture {
        /// The decoder layer.
        layer: usize,
    },
    /// An adapter for layers that have no experts.
    #[error(
        "the adapter has LoRAs in layer {layer}, and this model's experts are in layers {} to {} alone; \
         a model whose `adapters.layers` is \"all\" takes it", layers.start, layers.end.saturating_sub(1)
    )]
    NotAdapted {
        /// The layer.
        layer: usize,
        /// Those that have experts.
        layers: std::ops::Range<usize>,
    },
    /// A layer that a replayed routing says nothing of.
    #[error(
        "no routing was recorded of layer {layer}; replay a record of the same model and texts"
    )]
    NoRecord {
        /// The decoder layer.
        layer: usize,
    },
    /// A recorded routing that is of something else.
    #[error(
        "the routing recorded of layer {layer} is of {} tokens and {} experts, expected {} and {}; replay a record of the same model and texts",
        found.0, found.1, expected.0, expected.1
    )]
    OtherRecord {
        /// The decoder layer.
        layer: usize,
        /// Tokens and experts as recorded.
        found: (usize, usize),
        /// As they are.
        expected: (usize, usize),
    },
    /// A router that cannot be what its settings say.
    #[error("router `{router}`: {message}")]
    Router {
        /// Its name.
        router: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
