//! Exponential and logistic function without branches, for loops that the compiler vectorises.

const LOG2_E: f32 = std::f32::consts::LOG2_E;
// ln 2 in two parts, so that `x − n ln 2` keeps its low bits (Cody & Waite 1980).
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding it rounds to the nearest integer and leaves that in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `eˣ` to 2 ulp (polynomial of Cephes' `expf`). Arguments are cut to `[−87.3, 88]`, where the
/// result is a normal number: there is no zero and no infinity.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.3 { -87.3 } else { x };
    let rounded = x.mul_add(LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN2_HIGH, x);
    let r = n.mul_add(-LN2_LOW, r);
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let p = (p * r).mul_add(r, r) + 1.0;
    // 2ⁿ from n in the low bits of `rounded`.
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000));
    p * power
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let steps = 2_000_003;
        for step in 0..steps {
            let x = -87.3 + 175.3 * (step as f32 / steps as f32);
            let exact = f64::from(x).exp();
            let ulp = f64::from(f32::EPSILON) * 2f64.powf((exact.log2()).floor());
            let error = (f64::from(exp(x)) - exact).abs() / ulp;
            assert!(error <= 2.0, "exp({x}) is off by {error} ulp");
        }
    }

    #[test]
    fn far_arguments_stay_finite() {
        assert!(exp(1e30).is_finite() && exp(-1e30) > 0.0);
        assert!(sigmoid(-1e30) < 1e-30 && sigmoid(1e30) == 1.0);
    }
}
