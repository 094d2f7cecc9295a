//! Methods of Python's strings that the engine's own set lacks.

use minijinja::value::{Kwargs, Value, from_args};
use minijinja::{Error, ErrorKind, State};

/// Answers for a method of a text; the engine's set answers for all others.
///
/// # Errors
/// When the arguments are others than Python's, or there is no such method.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.as_str().map(|text| own(text, name, args)) {
        Some(Some(said)) => said,
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn own(text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match name {
        "removeprefix" => one(args).map(|it| text.strip_prefix(it).unwrap_or(text).into()),
        "removesuffix" => one(args).map(|it| text.strip_suffix(it).unwrap_or(text).into()),
        "swapcase" => from_args::<()>(args).map(|()| swap_case(text).into()),
        "zfill" => from_args(args).map(|(width,)| zero_fill(text, width).into()),
        "rsplit" => rsplit(text, args),
        "partition" => separator(args).map(|it| match text.split_once(it) {
            Some((before, after)) => texts(&[before, it, after]),
            None => texts(&[text, "", ""]),
        }),
        "rpartition" => separator(args).map(|it| match text.rsplit_once(it) {
            Some((before, after)) => texts(&[before, it, after]),
            None => texts(&["", "", text]),
        }),
        "ljust" | "rjust" | "center" => justify(text, name, args),
        _ => return None,
    })
}

/// A list of texts.
fn texts(texts: &[&str]) -> Value {
    texts.iter().copied().map(Value::from).collect()
}

fn one(args: &[Value]) -> Result<&str, Error> {
    from_args::<(&str,)>(args).map(|(text,)| text)
}

fn separator(args: &[Value]) -> Result<&str, Error> {
    match one(args)? {
        "" => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        separator => Ok(separator),
    }
}

fn swap_case(text: &str) -> String {
    let swap = |c: char| -> Vec<char> {
        match c.is_uppercase() {
            true => c.to_lowercase().collect(),
            false => c.to_uppercase().collect(),
        }
    };
    text.chars().flat_map(swap).collect()
}

/// Zeros between a sign and the digits.
fn zero_fill(text: &str, width: usize) -> String {
    let zeros = "0".repeat(width.min(MOST).saturating_sub(text.chars().count()));
    match text.strip_prefix(['+', '-']) {
        Some(digits) => format!("{}{zeros}{digits}", &text[..1]),
        None => format!("{zeros}{text}"),
    }
}

/// No template needs wider texts.
const MOST: usize = 10_000;

fn justify(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<char>) = from_args(args)?;
    let missing = width.min(MOST).saturating_sub(text.chars().count());
    // As Python: of an odd number of fillers one more stands before the text where the width is odd.
    let before = match name {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    let filler = |count: usize| fill.unwrap_or(' ').to_string().repeat(count);
    Ok(format!("{}{text}{}", filler(before), filler(missing - before)).into())
}

/// The last `maxsplit` cuts.
fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, cuts, named): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let cuts = match cuts {
        Some(cuts) => cuts,
        None => named.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    named.assert_all_used()?;
    let most = usize::try_from(cuts).map_or(usize::MAX, |cuts| cuts.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => text.rsplitn(most, separator).collect(),
        None => by_spaces(text, most),
    };
    parts.reverse();
    Ok(texts(&parts))
}

/// Words from the last on; the one that would be beyond `most` has all that is left.
fn by_spaces(text: &str, most: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim_end());
    while !rest.is_empty() {
        let cut = rest.rfind(char::is_whitespace);
        match cut.filter(|_| parts.len() + 1 < most) {
            Some(cut) => {
                let space = rest[cut..].chars().next().map_or(0, char::len_utf8);
                parts.push(&rest[cut + space..]);
                rest = rest[..cut].trim_end();
            }
            None => {
                parts.push(rest);
                break;
            }
        }
    }
    parts
}
