use moe_kernels::Blocks;

use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// Where tensors come from, in Hugging Face names.
pub(super) trait Source {
    /// A tensor of a shape, row-major.
    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;

    /// The same matrix `[rows, columns]` as it is stored, where products can read that.
    fn blocks(&mut self, _name: &str, _dims: [usize; 2]) -> Result<Option<Blocks>> {
        Ok(None)
    }
}

impl<F: FnMut(&str, &[usize]) -> Result<Vec<f32>>> Source for F {
    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self(name, shape)
    }
}

impl Source for &Checkpoint {
    fn numbers(&mut self, name: &str, _shape: &[usize]) -> Result<Vec<f32>> {
        self.read_f32(name)
    }

    fn blocks(&mut self, name: &str, _dims: [usize; 2]) -> Result<Option<Blocks>> {
        self.read_blocks(name)
    }
}
