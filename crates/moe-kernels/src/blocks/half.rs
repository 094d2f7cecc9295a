use crate::cpu::simd::Simd;

/// A half-precision number, exactly; written so that a loop over many of them becomes vector instructions.
#[inline(always)]
pub(crate) fn wide(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // Its exponent begins at −15, that of a 32-bit number at −127: subnormal numbers become normal on the way.
    let number = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = if magnitude >= 0x0f80_0000 {
        0x7f80_0000
    } else {
        0
    };
    f32::from_bits(number.to_bits() | special | u32::from(bits & 0x8000) << 16)
}

/// The half-precision number at `at`.
///
/// # Safety
///
/// The processor has the instructions.
#[inline(always)]
pub(super) unsafe fn at<S: Simd>(block: &[u8], at: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { S::half(u16::from_le_bytes([block[at], block[at + 1]])) }
}

#[cfg(test)]
mod tests {
    use burn::tensor::f16;

    use crate::{BlockFormat, widen};

    #[test]
    fn a_scale_is_widened_alike_on_every_level() {
        for bits in 0..=u16::MAX {
            let d = super::wide(bits);
            let mut block = [1; 34];
            block[..2].copy_from_slice(&bits.to_le_bytes());
            let mut out = [0.0; 32];
            widen(BlockFormat::Q8_0, &block, &mut out);
            let same = out[7].to_bits() == d.to_bits() || out[7].is_nan() && d.is_nan();
            assert!(same, "{bits:#06x}: {} {d}", out[7]);
        }
    }

    #[test]
    fn every_half_is_widened_as_the_standard_says() {
        for bits in 0..=u16::MAX {
            let (got, want) = (super::wide(bits), f16::from_bits(bits).to_f32());
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "{bits:#06x}: {got} {want}");
        }
    }
}
