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
    /// A target inside a layer whose feed-forward block is a mixture already.
    #[error(
        "the LoRA target `{target}` is not in layer {layer} of the base, whose feed-forward block is a sparse mixture; \
         name attention targets only (q, k, v, o), or leave that layer out with `layers`"
    )]
    SparseLayer {
        /// The target.
        target: &'static str,
        /// The decoder layer.
        layer: usize,
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
