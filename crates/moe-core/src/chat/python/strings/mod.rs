//! Methods of `str`.

mod case;
mod classes;
mod pad;
mod search;
mod split;

pub(super) use classes::is_printable;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::arguments::{Arguments, refuse};
use super::held;
use crate::chat::limits::MAX_WIDTH;

/// Lines, without what ends them.
pub(super) fn lines(text: &str) -> Vec<&str> {
    split::lines(text, false)
}

/// `text` in `width` characters, as `center`, `ljust` or `rjust` has it.
pub(super) fn padded(text: &str, method: &str, width: i64) -> Result<String, Error> {
    pad::pad(text, method, width, None)
}

/// Calls `text.method(given)`.
pub(super) fn call(text: &str, method: &str, given: &[Value]) -> Result<Value, Error> {
    let read =
        |names: &'static [&'static str], required| Arguments::read(method, given, names, required);
    let nothing = || read(&[], 0).map(drop);
    Ok(match method {
        "strip" | "lstrip" | "rstrip" => {
            let arguments = read(&["/chars"], 0)?;
            Value::from(strip(text, arguments.text(0)?, method))
        }
        "split" | "rsplit" => {
            let arguments = read(&["sep", "maxsplit"], 0)?;
            let most = arguments.whole(1)?;
            let pieces = match arguments.text(0)? {
                Some("") => return Err(refuse("empty separator")),
                Some(separator) => split::at(text, separator, most, method == "rsplit"),
                None => split::at_space(text, most, method == "rsplit"),
            };
            pieces.into_iter().collect()
        }
        "splitlines" => {
            let keep = read(&["keepends"], 0)?.truth(0, false);
            split::lines(text, keep).into_iter().collect()
        }
        "partition" | "rpartition" => {
            let arguments = read(&["/sep"], 1)?;
            let separator = arguments.needed_text(0)?;
            if separator.is_empty() {
                return Err(refuse("empty separator"));
            }
            let parts = split::partition(text, separator, method == "rpartition");
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "startswith" | "endswith" => {
            let arguments = read(&["/prefix", "/start", "/end"], 1)?;
            let window = search::window(text, arguments.whole(1)?, arguments.whole(2)?);
            let affixes = affixes(method, arguments.get(0))?;
            let fits = |affix: &String| match (&window, method) {
                (None, _) => false,
                (Some(window), "startswith") => window.text.starts_with(affix.as_str()),
                (Some(window), _) => window.text.ends_with(affix.as_str()),
            };
            Value::from(affixes.iter().any(fits))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let arguments = read(&["/sub", "/start", "/end"], 1)?;
            let part = arguments.needed_text(0)?;
            let window = search::window(text, arguments.whole(1)?, arguments.whole(2)?);
            if method == "count" {
                return Ok(Value::from(window.map_or(0, |it| it.count(part))));
            }
            let last = method.starts_with('r');
            match (window.and_then(|it| it.find(part, last)), method) {
                (Some(place), _) => Value::from(place),
                (None, "find" | "rfind") => Value::from(-1),
                (None, _) => return Err(refuse("substring not found")),
            }
        }
        "replace" => {
            let arguments = read(&["/old", "/new", "/count"], 2)?;
            let (old, new) = (arguments.needed_text(0)?, arguments.needed_text(1)?);
            let count = arguments.whole(2)?;
            held::check_text(search::replaced_length(text, old, new, count))?;
            Value::from(search::replace(text, old, new, count))
        }
        "removeprefix" | "removesuffix" => {
            let arguments = read(&["/affix"], 1)?;
            let affix = arguments.needed_text(0)?;
            let rest = match method {
                "removeprefix" => text.strip_prefix(affix),
                _ => text.strip_suffix(affix),
            };
            Value::from(rest.unwrap_or(text))
        }
        "join" => {
            let arguments = read(&["/iterable"], 1)?;
            Value::from(join(text, arguments.get(0))?)
        }
        "format" => {
            check_widths(text, given)?;
            Value::from(format(FormatStyle::StrFormat, text, given)?)
        }
        "center" | "ljust" | "rjust" => {
            let arguments = read(&["/width", "/fillchar"], 1)?;
            let width = arguments.whole(0)?.unwrap_or(0);
            Value::from(pad::pad(text, method, width, arguments.text(1)?)?)
        }
        "zfill" => {
            let arguments = read(&["/width"], 1)?;
            Value::from(pad::zeros(text, arguments.whole(0)?.unwrap_or(0))?)
        }
        "expandtabs" => {
            let size = read(&["tabsize"], 0)?.whole(0)?.unwrap_or(8);
            Value::from(pad::tabs(text, size)?)
        }
        _ => {
            if let Some(changed) = case::change(text, method) {
                nothing()?;
                return Ok(Value::from(changed));
            }
            match classes::is(text, method) {
                Some(answer) => {
                    nothing()?;
                    Value::from(answer?)
                }
                None => return Err(Error::from(ErrorKind::UnknownMethod)),
            }
        }
    })
}

/// Refuses a format with a width that would cost the memory: one that it says, or one that is `given` for a `*`.
pub(super) fn check_widths(format: &str, given: &[Value]) -> Result<(), Error> {
    let wide = |digits: &str| {
        let digits = digits.trim_start_matches('0');
        !digits.is_empty() && digits.parse().map_or(true, |width: u64| width > MAX_WIDTH)
    };
    let mut said = format.split(|c: char| !c.is_ascii_digit());
    let starred = format.contains('*')
        && given.iter().any(|value| {
            let width = i128::try_from(value.clone()).unwrap_or(0);
            width.unsigned_abs() > u128::from(MAX_WIDTH)
        });
    match starred || said.any(wide) {
        true => Err(refuse(format!(
            "a format with a number above {MAX_WIDTH}, which would be a width"
        ))),
        false => Ok(()),
    }
}

fn strip<'a>(text: &'a str, chars: Option<&str>, method: &str) -> &'a str {
    let goes = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => classes::is_space(c),
    };
    match method {
        "strip" => text.trim_matches(goes),
        "lstrip" => text.trim_start_matches(goes),
        _ => text.trim_end_matches(goes),
    }
}

/// One text, or a tuple of them.
fn affixes(method: &str, value: Option<&Value>) -> Result<Vec<String>, Error> {
    let wrong = || refuse(format!("{method} takes a text or a tuple of texts"));
    let value = value.ok_or_else(wrong)?;
    if let Some(text) = value.as_str() {
        return Ok(vec![text.into()]);
    }
    if !value.is_tuple() {
        return Err(wrong());
    }
    let text = |value: Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    value.try_iter()?.map(text).collect()
}

fn join(separator: &str, values: Option<&Value>) -> Result<String, Error> {
    let values = values.cloned().unwrap_or_default();
    let (mut texts, mut length) = (Vec::new(), 0usize);
    for value in values.try_iter()?.checked() {
        let value = value?;
        length += separator.len() + value.as_str().map_or(0, str::len);
        held::check_text(length)?;
        if value.kind() != ValueKind::String {
            return Err(refuse(format!("join takes texts, found {}", value.kind())));
        }
        texts.push(value.as_str().unwrap_or_default().to_owned());
    }
    Ok(texts.join(separator))
}
