//! Values as Python writes them.

use minijinja::value::Value;

use super::strings::is_printable;
use super::types::Type;

/// `str(value)`.
pub(super) fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => repr(value),
    }
}

/// `repr(value)`.
fn repr(value: &Value) -> String {
    let items = |open: &str, close: &str| {
        let items = value.try_iter().into_iter().flatten();
        let items: Vec<String> = items.map(|item| repr(&item)).collect();
        format!("{open}{}{close}", items.join(", "))
    };
    match Type::of(value) {
        Type::Undefined => "Undefined".into(),
        Type::Float => float(f64::try_from(value.clone()).unwrap_or(f64::NAN)),
        Type::Text => quoted(value.as_str().unwrap_or_default()),
        Type::Tuple if value.len() == Some(1) => items("(", ",)"),
        Type::Tuple => items("(", ")"),
        Type::List => items("[", "]"),
        Type::Dict => {
            let keys = value.try_iter().into_iter().flatten();
            let pair = |key: Value| {
                let value = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", repr(&key), repr(&value))
            };
            format!("{{{}}}", keys.map(pair).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

/// The shortest number that reads back as `x`, with an exponent where that is below -4 or from 16 on.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    let shortest = format!("{x:e}");
    let exponent = shortest.split_once('e').and_then(|(digits, exponent)| {
        let exponent: i32 = exponent.parse().ok()?;
        Some((digits, exponent))
    });
    match exponent {
        Some((digits, exponent)) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        Some(_) => format!("{x:?}"),
        // Infinite.
        None => x.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\\' => out += "\\\\",
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => {
                out += &match u32::from(c) {
                    code @ 0..=0xff => format!("\\x{code:02x}"),
                    code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                    code => format!("\\U{code:08x}"),
                }
            }
        }
    }
    out.push(quote);
    out
}
