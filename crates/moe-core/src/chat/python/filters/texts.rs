//! Filters of texts that take more arguments than the engine's.

use minijinja::Error;
use minijinja::value::Value;

use super::{Given, strings};
use crate::chat::python::arguments::{Arguments, refuse};
use crate::chat::python::held::check_text;
use crate::chat::python::text::text;

/// `indent(width, first, blank)`.
pub(super) fn indent(value: &Value, given: Given) -> Result<String, Error> {
    let given = given.into_values();
    let arguments = Arguments::read("indent", &given, &["width", "first", "blank"], 0)?;
    let text = value
        .as_str()
        .ok_or_else(|| refuse("indent takes a text"))?;
    let width = match arguments.get(0).and_then(Value::as_str) {
        Some(width) => width.to_owned(),
        None => {
            let width = arguments.whole(0)?.unwrap_or(4);
            strings::padded("", "ljust", width)?
        }
    };
    let mut out = String::new();
    // Of a text that ends with a line end, the empty line after it counts.
    let whole = format!("{text}\n");
    for (place, line) in strings::lines(&whole).into_iter().enumerate() {
        let indented = match place {
            0 => arguments.truth(1, false),
            _ => arguments.truth(2, false) || !line.is_empty(),
        };
        if place > 0 {
            out.push('\n');
        }
        check_text(out.len() + width.len())?;
        if indented {
            out += &width;
        }
        out += line;
    }
    Ok(out)
}

/// `replace(old, new, count)`.
pub(super) fn replace(value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let arguments = Arguments::read("replace", &given, &["old", "new", "count"], 2)?;
    let argument = |place| Value::from(arguments.get(place).map(text).unwrap_or_default());
    let count = Value::from(arguments.whole(2)?.unwrap_or(-1));
    strings::call(&text(value), "replace", &[argument(0), argument(1), count])
}

/// `trim(chars)` or `center(width)`.
pub(super) fn method(filter: &str, value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let (method, names, otherwise) = match filter {
        "trim" => ("strip", ["chars"], Value::from(())),
        _ => ("center", ["width"], Value::from(80)),
    };
    let arguments = Arguments::read(filter, &given, &names, 0)?;
    let argument = arguments.get(0).cloned().unwrap_or(otherwise);
    strings::call(&text(value), method, &[argument])
}
