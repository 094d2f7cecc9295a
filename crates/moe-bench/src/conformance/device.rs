//! Between a fixture's arrays and tensors on the CPU.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use moe_core::device::DeviceChoice;

use super::tensors::Tensors;

/// The plain CPU device.
///
/// # Errors
/// When this build has none.
pub fn cpu() -> moe_core::Result<Device> {
    DeviceChoice::Cpu.open()
}

/// A fixture's float array as a tensor on `device`.
///
/// # Errors
/// When the fixture has no such array of that rank.
pub fn floats<const D: usize>(
    tensors: &Tensors,
    name: &str,
    device: &Device,
) -> anyhow::Result<Tensor<D>> {
    let dims = tensors.dims::<D>(name)?;
    Ok(Tensor::from_data(
        TensorData::new(tensors.f32(name)?, dims),
        device,
    ))
}

/// A fixture's integers as a `[batch, seq]` tensor.
///
/// # Errors
/// When the fixture has no such array of rank 2.
pub fn tokens(tensors: &Tensors, name: &str, device: &Device) -> anyhow::Result<Tensor<2, Int>> {
    let dims = tensors.dims::<2>(name)?;
    Ok(Tensor::from_data(
        TensorData::new(tensors.i64(name)?, dims),
        device,
    ))
}

/// A fixture's 0/1 mask as a `[batch, seq]` tensor, true = real token.
///
/// # Errors
/// When the fixture has no such array of rank 2.
pub fn mask(tensors: &Tensors, name: &str, device: &Device) -> anyhow::Result<Tensor<2, Bool>> {
    Ok(tokens(tensors, name, device)?.equal_elem(1))
}

/// A mask of real tokens only.
pub fn all_real([batch, seq]: [usize; 2], device: &Device) -> Tensor<2, Bool> {
    Tensor::<2, Int>::ones([batch, seq], device).equal_elem(1)
}

/// The values of a tensor, row-major.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// `[batch, seq, d_model]` → `[batch · seq, d_model]`.
pub fn flat(hidden: Tensor<3>) -> Tensor<2> {
    let [batch, seq, d_model] = hidden.dims();
    hidden.reshape([batch * seq, d_model])
}
