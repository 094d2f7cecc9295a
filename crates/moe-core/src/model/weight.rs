use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId,
};
use burn::tensor::{DType, Device, Tensor};
use moe_kernels::{Blocks, Matrix};

/// A matrix of the decoder.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Its numbers, `[d_in, d_out]`.
    Float(Param<Tensor<2>>),
    /// The quantised blocks of a file as they lie there, `[d_out, d_in]`. They are no parameter: nothing trains or stores them.
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

    /// The same matrix as numbers in `dtype`, on `device` where it is in blocks.
    pub(super) fn in_dtype(&self, dtype: DType, device: &Device) -> Self {
        match self {
            Self::Float(numbers) => Self::Float(numbers.clone().map(|it| it.cast(dtype))),
            Self::Blocks(_) => self.with(self.val().to_tensor(dtype, device)),
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
