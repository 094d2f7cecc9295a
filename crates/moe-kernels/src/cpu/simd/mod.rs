//! Vectors of 32-bit floats, by what processors have: kernels are written once over [`Simd`], and compiled for each.

/// What the kernels ask of a processor's vectors.
///
/// The functions are those of one instruction. They are sound to call where the processor has it, and become one where they are inlined
/// into a function that is compiled for it.
pub(crate) trait Simd: Copy {
    /// Some floats.
    type Floats: Copy;
    /// The first so many lanes of a vector.
    type Mask: Copy;
    /// Floats in a vector.
    const LANES: usize;
    /// There is one instruction for `x · y + z`.
    const FUSED: bool;
    /// Rows of a tile whose sums stay in registers, with [`Self::VECTORS`] vectors each.
    const ROWS: usize;
    /// Vectors of a row of such a tile.
    const VECTORS: usize;

    /// The first `lanes`, all of them where there are more.
    unsafe fn mask(lanes: usize) -> Self::Mask;
    /// All lanes the same.
    unsafe fn splat(x: f32) -> Self::Floats;
    /// All lanes from memory, where there is no need of alignment.
    unsafe fn load(from: *const f32) -> Self::Floats;
    /// The masked lanes from memory, zero in the others, of which nothing is read.
    unsafe fn load_some(from: *const f32, mask: Self::Mask) -> Self::Floats;
    /// All lanes to memory.
    unsafe fn store(to: *mut f32, x: Self::Floats);
    /// The masked lanes to memory; of the others nothing is written.
    unsafe fn store_some(to: *mut f32, mask: Self::Mask, x: Self::Floats);
    /// `x · y + z`, rounded once where the processor can.
    unsafe fn multiply_add(x: Self::Floats, y: Self::Floats, z: Self::Floats) -> Self::Floats;
    /// `x + y`.
    unsafe fn add(x: Self::Floats, y: Self::Floats) -> Self::Floats;
    /// `x · y`.
    unsafe fn multiply(x: Self::Floats, y: Self::Floats) -> Self::Floats;
    /// As many signed bytes.
    unsafe fn of_bytes(from: *const i8) -> Self::Floats;
    /// The half-precision number of these bits.
    unsafe fn half(bits: u16) -> f32;
}

/// Of any processor: the compiler makes of it what it can.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type Floats = [f32; 8];
    type Mask = usize;
    const LANES: usize = 8;
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    const ROWS: usize = 4;
    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn mask(lanes: usize) -> usize {
        lanes.min(Self::LANES)
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 8] {
        [x; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, mask: usize) -> [f32; 8] {
        let mut floats = [0.0; 8];
        for (lane, float) in floats.iter_mut().enumerate().take(mask) {
            // SAFETY: the caller's promise.
            *float = unsafe { *from.wrapping_add(lane) };
        }
        floats
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [f32; 8]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn store_some(to: *mut f32, mask: usize, x: [f32; 8]) {
        for (lane, float) in x.into_iter().enumerate().take(mask) {
            // SAFETY: the caller's promise.
            unsafe { *to.wrapping_add(lane) = float };
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(x: [f32; 8], y: [f32; 8], z: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| fused(x[lane], y[lane], z[lane]))
    }

    #[inline(always)]
    unsafe fn add(x: [f32; 8], y: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| x[lane] + y[lane])
    }

    #[inline(always)]
    unsafe fn multiply(x: [f32; 8], y: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| x[lane] * y[lane])
    }

    #[inline(always)]
    unsafe fn of_bytes(from: *const i8) -> [f32; 8] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[i8; 8]>().read_unaligned() };
        bytes.map(f32::from)
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        crate::blocks::half::wide(bits)
    }
}

/// `x · y + z`: rounded once where the build's processors have an instruction for that. Elsewhere it would be a call of a function for
/// each number.
#[inline(always)]
pub(crate) fn fused(x: f32, y: f32, z: f32) -> f32 {
    match Portable::FUSED {
        true => x.mul_add(y, z),
        false => x * y + z,
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86;
