use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId,
};
use burn::tensor::{Device, Tensor};
use moe_kernels::{Blocks, Matrix};

/// A matrix of the decoder.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one value per matrix")]
pub enum Weight {
    /// Its numbers, `[d_in, d_out]`; an embedding's `[vocab_size, d_model]`.
    Float(Param<Tensor<2>>),
    /// The quantised blocks of a file as they lie there, `[d_out, d_in]`, or `[vocab_size, d_model]`. They are no parameter: nothing trains or stores them.
    Blocks(Blocks),
}

impl Weight {
    /// Of numbers `[d_in, d_out]`.
    pub fn new(numbers: Tensor<2>) -> Self {
        Self::Float(Param::initialized(ParamId::new(), numbers))
    }

    /// For a product.
    pub fn val(&self) -> Matrix {
        match self {
            Self::Float(numbers) => Matrix::Float(numbers.val()),
            Self::Blocks(blocks) => Matrix::Blocks(blocks.clone()),
        }
    }

    /// The parameter, where it is one.
    pub fn float(&self) -> Option<&Param<Tensor<2>>> {
        match self {
            Self::Float(numbers) => Some(numbers),
            Self::Blocks(_) => None,
        }
    }

    /// The same matrix of other numbers `[d_in, d_out]`.
    pub fn with(&self, numbers: Tensor<2>) -> Self {
        match self {
            Self::Float(was) => Self::Float(Param::initialized(was.id, numbers)),
            Self::Blocks(_) => Self::new(numbers),
        }
    }
}

/// By hand: a parameter's name is that of the field alone, as in models that people have stored.
impl Module for Weight {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Float(numbers) => numbers.collect_devices(devices),
            Self::Blocks(_) => devices,
        }
    }

    fn fork(self, device: &Device) -> Self {
        match self {
            Self::Float(numbers) => Self::Float(numbers.fork(device)),
            Self::Blocks(_) => self,
        }
    }

    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Float(numbers) => Self::Float(Module::to_device(numbers, device)),
            Self::Blocks(_) => self,
        }
    }

    fn train(self) -> Self {
        match self {
            Self::Float(numbers) => Self::Float(Module::train(numbers)),
            Self::Blocks(_) => self,
        }
    }

    fn valid(&self) -> Self {
        match self {
            Self::Float(numbers) => Self::Float(numbers.valid()),
            Self::Blocks(_) => self.clone(),
        }
    }

    fn materialize(self) -> Self {
        match self {
            Self::Float(numbers) => Self::Float(numbers.materialize()),
            Self::Blocks(_) => self,
        }
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        if let Self::Float(numbers) = self {
            Module::visit(numbers, visitor);
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        match self {
            Self::Float(numbers) => Self::Float(Module::map(numbers, mapper)),
            Self::Blocks(_) => self,
        }
    }
}

impl ModuleDisplay for Weight {}

impl ModuleDisplayDefault for Weight {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Float(numbers) => numbers.content(content),
            Self::Blocks(blocks) => content.add_debug_attribute("blocks", blocks).optional(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor, TensorData};
    use moe_kernels::{BlockFormat, Blocks};

    use super::super::load::assemble;
    use super::super::source::Source;
    use super::super::tests::tiny;
    use crate::config::ModelConfig;
    use crate::error::Result;
    use crate::generate::{Sampling, Side, generate, pad};
    use crate::model::{BaseDtype, Decoder};

    /// Matrices in blocks of arbitrary bits under small scales.
    struct Quantised {
        format: BlockFormat,
        /// Where a block has its scales.
        scales: &'static [usize],
    }

    impl Quantised {
        fn matrix(&self, name: &str, dims: [usize; 2]) -> Blocks {
            let count = dims[0] * dims[1] / self.format.elements() * self.format.bytes();
            let mut state = name.bytes().fold(1u32, |state, byte| {
                state.wrapping_mul(31).wrapping_add(byte.into())
            });
            let mut bytes: Vec<u8> = (0..count)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            for block in bytes.chunks_exact_mut(self.format.bytes()) {
                for at in self.scales {
                    block[at + 1] = 0x18;
                }
            }
            Blocks::new(self.format, bytes, dims).expect("whole blocks")
        }
    }

    impl Source for Quantised {
        fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
            match *shape {
                [rows, columns] => Ok(self.matrix(name, [rows, columns]).widened()),
                _ => Ok(vec![1.0; shape.iter().product()]),
            }
        }

        fn blocks(&mut self, name: &str, dims: [usize; 2]) -> Result<Option<Blocks>> {
            Ok(Some(self.matrix(name, dims)))
        }
    }

    const FORMATS: [(BlockFormat, &[usize]); 4] = [
        (BlockFormat::Q8_0, &[0]),
        (BlockFormat::Q4_1, &[0, 2]),
        (BlockFormat::Q5_0, &[0]),
        (BlockFormat::Q4_0, &[0]),
    ];

    fn both(tied: bool, (format, scales): (BlockFormat, &'static [usize])) -> [Decoder; 2] {
        let config = ModelConfig {
            d_model: 64,
            d_ff: 96,
            vocab_size: 101,
            tie_word_embeddings: tied,
            ..tiny()
        };
        [BaseDtype::Stored, BaseDtype::F32].map(|dtype| {
            let source = Quantised { format, scales };
            assemble(&config, dtype, source, &Device::flex()).unwrap()
        })
    }

    /// Hidden states, log-probabilities and the gradient of the embedded tokens.
    fn computed(model: &Decoder) -> Vec<TensorData> {
        let device = Device::flex();
        let rows: [Vec<u32>; 2] = [(0..20).map(|it| it * 5).collect(), (0..13).collect()];
        let (tokens, real) = pad(&rows, 0, Side::Right, &device);
        let embedded = model.embed(Tensor::<2, Int>::from_inner(tokens));
        let x = Tensor::from_inner(embedded.clone()).require_grad();
        let mut stream = model.walk(x.clone(), real, 0..2, None, |layer, x, context, cache| {
            model.layers[layer].forward(x, context, cache);
        });
        let hidden = stream.normed(&model.norm).reshape([40, 64]);
        let targets: Vec<usize> = (0..40).collect();
        let losses = model.log_probabilities(hidden.clone(), &targets);
        let gradients = losses.clone().sum().backward();
        let gradient = x.grad(&gradients).expect("on the way").into_data();
        let logits = model.logits(hidden.clone()).into_data();
        vec![
            embedded.into_data(),
            hidden.into_data(),
            losses.into_data(),
            logits,
            gradient,
        ]
    }

    #[test]
    fn a_base_in_blocks_computes_what_its_numbers_compute_to_the_last_bit() {
        for format in FORMATS {
            for tied in [true, false] {
                let [stored, wide] = both(tied, format);
                assert_eq!(
                    [stored.dtype(), wide.dtype()],
                    [BaseDtype::Stored, BaseDtype::F32]
                );
                assert_eq!(computed(&stored), computed(&wide), "{format:?}");
                let widened = stored.with_dtype(BaseDtype::F32);
                assert_eq!(widened.dtype(), BaseDtype::F32);
                assert_eq!(computed(&widened), computed(&wide));
            }
        }
    }

    #[test]
    fn it_writes_the_same_text() {
        for format in FORMATS {
            let [stored, wide] = both(true, format);
            let prompts = [vec![3, 17, 5], (0..12).collect()];
            let write = |model| generate(model, &prompts, 12, &Sampling::greedy(), &[]).unwrap();
            assert_eq!(write(&stored), write(&wide));
        }
    }
}
