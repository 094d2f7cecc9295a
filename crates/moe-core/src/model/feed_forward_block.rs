use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Tensor};

use super::{FeedForward, Routed, SparseFeedForward};

/// What follows the attention of a layer: one network for all tokens, or several among which a router picks for each.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one value per layer")]
pub enum FeedForwardBlock {
    /// One network for all tokens.
    Dense(FeedForward),
    /// A mixture of experts.
    Sparse(SparseFeedForward),
}

impl FeedForwardBlock {
    /// `x [batch, seq, d_model]` → `[batch, seq, d_model]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_routed(x).0
    }

    /// As [`Self::forward`], with what a router chose, where there is one.
    pub fn forward_routed(&self, x: Tensor<3>) -> (Tensor<3>, Option<Routed>) {
        match self {
            Self::Dense(ffn) => (ffn.forward(x), None),
            Self::Sparse(ffn) => {
                let (output, routed) = ffn.forward_routed(x);
                (output, Some(routed))
            }
        }
    }

    /// The one network, where it is dense.
    pub fn dense(&self) -> Option<&FeedForward> {
        match self {
            Self::Dense(ffn) => Some(ffn),
            Self::Sparse(_) => None,
        }
    }

    /// The mixture, where it is sparse.
    pub fn sparse(&self) -> Option<&SparseFeedForward> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse(ffn) => Some(ffn),
        }
    }
}

/// By hand, since Burn's derived one puts the variant into every parameter's name: a dense layer's are `feed_forward.gate.weight`
/// in models that people have stored.
impl Module for FeedForwardBlock {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Dense(ffn) => ffn.collect_devices(devices),
            Self::Sparse(ffn) => ffn.collect_devices(devices),
        }
    }

    fn fork(self, device: &Device) -> Self {
        match self {
            Self::Dense(ffn) => Self::Dense(ffn.fork(device)),
            Self::Sparse(ffn) => Self::Sparse(ffn.fork(device)),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Dense(ffn) => Self::Dense(ffn.to_device(device)),
            Self::Sparse(ffn) => Self::Sparse(ffn.to_device(device)),
        }
    }

    fn train(self) -> Self {
        match self {
            Self::Dense(ffn) => Self::Dense(ffn.train()),
            Self::Sparse(ffn) => Self::Sparse(ffn.train()),
        }
    }

    fn valid(&self) -> Self {
        match self {
            Self::Dense(ffn) => Self::Dense(ffn.valid()),
            Self::Sparse(ffn) => Self::Sparse(ffn.valid()),
        }
    }

    fn materialize(self) -> Self {
        match self {
            Self::Dense(ffn) => Self::Dense(ffn.materialize()),
            Self::Sparse(ffn) => Self::Sparse(ffn.materialize()),
        }
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        match self {
            Self::Dense(ffn) => ffn.visit(visitor),
            Self::Sparse(ffn) => ffn.visit(visitor),
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        match self {
            Self::Dense(ffn) => Self::Dense(ffn.map(mapper)),
            Self::Sparse(ffn) => Self::Sparse(ffn.map(mapper)),
        }
    }
}

impl ModuleDisplay for FeedForwardBlock {}

impl ModuleDisplayDefault for FeedForwardBlock {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Dense(ffn) => ffn.content(content),
            Self::Sparse(ffn) => ffn.content(content),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::Device;

    use super::super::tests::{sparse, tiny};
    use crate::model::Decoder;
    use crate::parameters::{from_bytes, to_bytes};

    #[test]
    fn a_dense_layers_parameters_keep_their_stored_names() {
        let bytes = to_bytes(&Decoder::random(&tiny(), 1, &Device::flex()));
        let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert!(
            stored
                .names()
                .contains(&"layers.1.feed_forward.down.weight")
        );
    }

    #[test]
    fn a_sparse_decoder_is_stored_and_read_back() {
        let device = Device::flex();
        let bytes = to_bytes(&Decoder::random(&sparse(), 1, &device));
        let other = Decoder::random(&sparse(), 2, &device).train();
        assert_ne!(to_bytes(&other), bytes);
        assert_eq!(to_bytes(&from_bytes(other, &bytes).unwrap()), bytes);
    }
}
