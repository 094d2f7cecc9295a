//! What a variable may hold: texts and lists of a size, and no namespace that contains itself.

use minijinja::Error;
use minijinja::value::Value;

use super::arguments::refuse;
use super::types::Type;
use crate::chat::limits::{MAX_DEPTH, MAX_ITEMS, MAX_TEXT};

/// The filter that every value goes through before a variable holds it; `source` writes it.
pub(in crate::chat) const HELD: &str = "__held__";

/// `value` itself. One for a variable of a namespace holds none: what contains itself has no end when it is written or compared.
///
/// # Errors
/// It is beyond the limits.
pub(super) fn held(value: Value, of_namespace: bool) -> Result<Value, Error> {
    let mut items = 0;
    check(&value, of_namespace, 0, &mut items)?;
    Ok(value)
}

/// Refuses a text beyond its limit.
pub(super) fn check_text(length: usize) -> Result<(), Error> {
    match length > MAX_TEXT {
        true => Err(refuse(format!(
            "a text of {length} bytes; expected at most {MAX_TEXT}"
        ))),
        false => Ok(()),
    }
}

/// Refuses what is deeper or larger than a value may be.
pub(super) fn check_whole(value: &Value) -> Result<(), Error> {
    check(value, false, 0, &mut 0)
}

fn check(value: &Value, of_namespace: bool, depth: usize, items: &mut usize) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        *items += text.len() / 64;
        check_text(text.len())?;
    }
    let namespace = |value: &Value| {
        let object = value.as_object();
        object.is_some_and(|object| object.type_name().ends_with("Namespace"))
    };
    if of_namespace && namespace(value) {
        return Err(refuse("a namespace may not hold a namespace"));
    }
    let kind = Type::of(value);
    let inside = matches!(kind, Type::Dict | Type::List | Type::Tuple | Type::View);
    if *items > MAX_ITEMS {
        return Err(refuse(format!("a value of more than {MAX_ITEMS} items")));
    }
    if !inside {
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Err(refuse(format!("values nest deeper than {MAX_DEPTH}")));
    }
    for item in value.try_iter()?.checked() {
        let item = item?;
        *items += 1;
        if kind == Type::Dict {
            check(&value.get_item(&item)?, of_namespace, depth + 1, items)?;
        }
        check(&item, of_namespace, depth + 1, items)?;
    }
    Ok(())
}
