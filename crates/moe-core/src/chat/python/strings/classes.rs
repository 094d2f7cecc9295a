//! What the characters of a `str` are.

use std::sync::LazyLock;

use minijinja::Error;
use regex::Regex;

use super::case::{is_cased, is_title};
use crate::chat::python::arguments::refuse;

/// Answers of a method `is…`; none where it is no such method.
pub(super) fn is(text: &str, method: &str) -> Option<Result<bool, Error>> {
    let filled = |answer: bool| Some(Ok(answer && !text.is_empty()));
    match method {
        "isspace" => filled(text.chars().all(is_space)),
        "isascii" => Some(Ok(text.is_ascii())),
        "isalpha" => filled(LETTERS.is_match(text)),
        "isprintable" => Some(Ok(text.chars().all(is_printable))),
        "isdecimal" => filled(DECIMALS.is_match(text)),
        "isalnum" => filled(LETTERS_AND_NUMBERS.is_match(text)),
        "isdigit" => Some(is_all(text, method, &DECIMALS, &OTHER_NUMBERS)),
        "isnumeric" => Some(is_all(text, method, &NUMBERS, &IDEOGRAPHS)),
        "islower" => {
            Some(Ok(text.chars().any(is_cased)
                && !text.chars().any(|c| c.is_uppercase() || is_title(c))))
        }
        "isupper" => {
            Some(Ok(text.chars().any(is_cased)
                && !text.chars().any(|c| c.is_lowercase() || is_title(c))))
        }
        "istitle" => Some(Ok(is_titled(text))),
        "isidentifier" => Some(Ok(IDENTIFIER.is_match(text))),
        _ => None,
    }
}

macro_rules! pattern {
    ($name:ident, $pattern:literal) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($pattern).expect("a pattern of ours"));
    };
}
pattern!(LETTERS, r"^\p{L}+\z");
pattern!(DECIMALS, r"^\p{Nd}+\z");
pattern!(NUMBERS, r"^\p{N}+\z");
pattern!(LETTERS_AND_NUMBERS, r"^[\p{L}\p{N}]+\z");
pattern!(OTHER_NUMBERS, r"^\p{No}+\z");
pattern!(IDEOGRAPHS, r"^\p{Han}+\z");
pattern!(UNPRINTABLE, r"^[\p{C}\p{Z}]\z");
pattern!(IDENTIFIER, r"^[\p{XIDS}_]\p{XIDC}*\z");

/// White space as Python sees it: Unicode's, and four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// Whether `repr` writes a character as it is.
pub(in crate::chat::python) fn is_printable(c: char) -> bool {
    match c.is_ascii() {
        true => c == ' ' || c.is_ascii_graphic(),
        false => !UNPRINTABLE.is_match(c.encode_utf8(&mut [0; 4])),
    }
}

/// Whether all characters are of a kind: those of `sure` are, and of `unsure` some are. Which (², but not ½; 三, but not 人), no table
/// here says: that is refused.
fn is_all(text: &str, method: &str, sure: &Regex, unsure: &Regex) -> Result<bool, Error> {
    let rest: String = (text.chars())
        .filter(|c| !sure.is_match(c.encode_utf8(&mut [0; 4])))
        .collect();
    match unsure.is_match(&rest) {
        true => Err(refuse(format!("{method} of {text:?} is not known here"))),
        false => Ok(rest.is_empty() && !text.is_empty()),
    }
}

fn is_titled(text: &str) -> bool {
    let (mut any, mut inside) = (false, false);
    for c in text.chars() {
        let large = c.is_uppercase() || is_title(c);
        if (large && inside) || (c.is_lowercase() && !inside) {
            return false;
        }
        inside = is_cased(c);
        any |= inside;
    }
    any
}
