//! Inputs made from valid ones: a few small changes each, all drawn from one seed.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

/// Longest input: what grows goes on growing else.
const LONGEST: usize = 1 << 16;

/// Numbers at which sizes, counts and depths break.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e999",
    "-0.0",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "340282366920938463463374607431768211456",
];

/// What means something to a parser of some kind.
const PIECES: [&str; 28] = [
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "\"",
    "'",
    ",",
    ":",
    "\n",
    "\0",
    "\\u0000",
    "\\",
    "null",
    "true",
    "{{",
    "}}",
    "{%",
    "%}",
    "not ",
    "1+",
    "x[",
    ".x",
    "~",
    "..",
    "\u{feff}",
    "\u{10ffff}",
];

/// One to eight changes of `input`; `other` gives pieces.
pub(super) fn mutate(input: &[u8], other: &[u8], random: &mut impl Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..=8) {
        change(&mut bytes, other, random);
        bytes.truncate(LONGEST);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut impl Rng) {
    let place = random.random_range(0..=bytes.len());
    let length = random.random_range(0..=(bytes.len() - place).min(64));
    match random.random_range(0..10) {
        0 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = random.random();
            }
        }
        2 => drop(bytes.drain(place..place + length)),
        3 => {
            let piece = bytes[place..place + length].to_vec();
            let times = random.random_range(1..=4);
            bytes.splice(place..place, piece.repeat(times));
        }
        4 => {
            let piece = PIECES.choose(random).unwrap_or(&"");
            bytes.splice(place..place, piece.bytes());
        }
        5 => {
            let piece = PIECES.choose(random).unwrap_or(&"");
            let times = 1 << random.random_range(0..12);
            bytes.splice(place..place, piece.repeat(times).into_bytes());
        }
        6 => number(bytes, place, random),
        7 => {
            // A length, count or offset of a binary format.
            let value: u64 = 1u64 << random.random_range(0..64);
            let value = value.wrapping_sub(random.random_range(0..2));
            for (byte, new) in bytes.iter_mut().skip(place).zip(value.to_le_bytes()) {
                *byte = new;
            }
        }
        8 if !other.is_empty() => {
            let start = random.random_range(0..other.len());
            let end = (start + random.random_range(1..=256)).min(other.len());
            bytes.splice(place..place + length, other[start..end].iter().copied());
        }
        _ => bytes.truncate(place),
    }
}

/// Puts another number in place of the first one from `place` on.
fn number(bytes: &mut Vec<u8>, place: usize, random: &mut impl Rng) {
    let digits = |from: usize, bytes: &[u8], is: bool| {
        let found = bytes[from..]
            .iter()
            .position(|it| it.is_ascii_digit() == is);
        found.map_or(bytes.len(), |found| from + found)
    };
    let start = digits(place, bytes, true);
    let end = digits(start, bytes, false);
    let new = NUMBERS.choose(random).unwrap_or(&"");
    bytes.splice(start..end, new.bytes());
}
