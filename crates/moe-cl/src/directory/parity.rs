//! A flipped bit is found and flipped back (Hamming, "Error detecting and error correcting codes", 1950).

use serde::{Deserialize, Serialize};

/// The exclusive or of the positions of all bits that are set, each with the highest bit set besides: where one bit changes, the
/// difference is its position. Sixteen hexadecimal digits, since not every reader of JSON has integers of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Parity(u64);

/// What tells an odd number of differences from an even one.
const ODD: u64 = 1 << 63;

/// Per byte: the parity of its bits, as if it were the first.
const OF_BYTE: [u64; 256] = {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                table[byte] ^= ODD | bit as u64;
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

impl Parity {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let fold = |parity: u64, (place, byte): (usize, &u8)| {
            let own = OF_BYTE[usize::from(*byte)];
            // The place counts where the number of its bits is odd.
            let odd = (own >> 63).wrapping_neg();
            parity ^ own ^ (odd & (place as u64) << 3)
        };
        Self(bytes.iter().enumerate().fold(0, fold))
    }

    /// Flips the bit back that makes `bytes` other than those whose parity this is; whether there may be such a one.
    pub(super) fn mend(self, bytes: &mut [u8]) -> bool {
        let difference = self.0 ^ Self::of(bytes).0;
        let place = (difference & !ODD) as usize;
        match bytes.get_mut(place >> 3) {
            Some(byte) if difference & ODD != 0 => {
                *byte ^= 1 << (place & 7);
                true
            }
            _ => false,
        }
    }
}

impl From<Parity> for String {
    fn from(parity: Parity) -> Self {
        format!("{:016x}", parity.0)
    }
}

impl TryFrom<String> for Parity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(parity) if digits => Ok(Self(parity)),
            _ => Err(format!(
                "{text:?} is no parity of sixteen hexadecimal digits"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_bit_is_mended_and_two_are_not_taken_for_one() {
        let whole: Vec<u8> = (0..=255).chain([0, 0, 7]).collect();
        let parity = Parity::of(&whole);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parity.mend(&mut bytes), "bit {bit}");
            assert_eq!(bytes, whole, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes[3] ^= 1 << 2;
            assert!(bytes == whole || !parity.mend(&mut bytes), "bit {bit}");
        }
        assert!(!parity.mend(&mut whole.clone()));
        assert_eq!(Parity::of(&[0b101]).0, 2);
        let text = String::from(parity);
        assert_eq!(Parity::try_from(text), Ok(parity));
        assert!(Parity::try_from("+00000000000001f".to_owned()).is_err());
    }
}
