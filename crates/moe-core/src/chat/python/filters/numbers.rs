//! Numbers from what is written, with a default where it is none.

use minijinja::Error;
use minijinja::value::Value;

use super::Given;
use crate::chat::python::arguments::{Arguments, refuse};
use crate::chat::python::types::Type;

/// `int(default, base)`.
pub(super) fn int(value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let arguments = Arguments::read("int", &given, &["default", "base"], 0)?;
    let base = arguments.whole(1)?.unwrap_or(10);
    let base = u32::try_from(base)
        .ok()
        .filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| refuse("int: the base must be from 2 to 36"))?;
    let truncated = |x: f64| x.is_finite().then(|| Value::from(x.trunc() as i128));
    let number = match Type::of(value) {
        Type::Undefined => return Err(refuse("int: the value is not defined")),
        Type::Int => Some(value.clone()),
        Type::Bool => Some(Value::from(i64::from(value.is_true()))),
        Type::Float => f64::try_from(value.clone()).ok().and_then(truncated),
        Type::Text => {
            let text = ascii(value)?;
            whole(text, base)
                .map(Value::from)
                .or_else(|| real(text).and_then(truncated))
        }
        _ => None,
    };
    let otherwise = || arguments.get(0).cloned().unwrap_or(Value::from(0));
    Ok(number.unwrap_or_else(otherwise))
}

/// `float(default)`.
pub(super) fn float(value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let arguments = Arguments::read("float", &given, &["default"], 0)?;
    let number = match Type::of(value) {
        Type::Undefined => return Err(refuse("float: the value is not defined")),
        Type::Bool => Some(f64::from(u8::from(value.is_true()))),
        Type::Int | Type::Float => f64::try_from(value.clone()).ok(),
        Type::Text => real(ascii(value)?),
        _ => None,
    };
    let otherwise = || arguments.get(0).cloned().unwrap_or(Value::from(0.0));
    Ok(number.map_or_else(otherwise, Value::from))
}

/// A text whose digits are those of ASCII; Python knows others.
fn ascii(value: &Value) -> Result<&str, Error> {
    let text = value.as_str().unwrap_or_default();
    match text.chars().any(|c| c.is_numeric() && !c.is_ascii()) {
        true => Err(refuse(format!(
            "{text:?} has digits that are not read here"
        ))),
        false => Ok(text),
    }
}

/// Underscores may stand between digits.
fn without_underscores(text: &str) -> Option<String> {
    let mut pieces = text.split('_');
    pieces
        .all(|piece| !piece.is_empty())
        .then(|| text.replace('_', ""))
}

fn whole(text: &str, base: u32) -> Option<i128> {
    let text = without_underscores(text.trim())?;
    let unsigned = text.trim_start_matches(['+', '-']);
    let sign = text.len() - unsigned.len();
    if sign > 1 {
        return None;
    }
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let lower = unsigned.to_lowercase();
    let digits = lower.strip_prefix(prefix).unwrap_or(&lower);
    i128::from_str_radix(&format!("{}{digits}", &text[..sign]), base).ok()
}

fn real(text: &str) -> Option<f64> {
    without_underscores(text.trim())?.parse().ok()
}
