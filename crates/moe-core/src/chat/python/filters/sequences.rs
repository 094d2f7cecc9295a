//! Filters that order values or put them together.

use std::collections::BTreeSet;

use minijinja::Error;
use minijinja::value::{Tuple, Value};

use super::Given;
use crate::chat::python::arguments::{Arguments, refuse};
use crate::chat::python::held::check_text;
use crate::chat::python::text::text;
use crate::chat::python::types::{Generator, Type};

/// Refuses values that Python does not put in an order.
pub(in crate::chat::python) fn check_order(values: &[&Value]) -> Result<(), Error> {
    let pairs = values.iter().skip(1).map(|value| (values[0], *value));
    match pairs.into_iter().all(|(a, b)| have_order(a, b)) {
        true => Ok(()),
        false => Err(refuse("values of these types have no order")),
    }
}

fn have_order(a: &Value, b: &Value) -> bool {
    use Type::{Bool, Float, Int, List, Text, Tuple};
    let items = |value: &Value| value.try_iter().into_iter().flatten();
    match (Type::of(a), Type::of(b)) {
        (Bool | Int | Float, Bool | Int | Float) | (Text, Text) => true,
        (List, List) | (Tuple, Tuple) => items(a).zip(items(b)).all(|(a, b)| have_order(&a, &b)),
        _ => false,
    }
}

/// What an item is ordered by: an attribute, or itself; in lower case unless case counts.
fn key(item: &Value, attribute: Option<&Value>, case: bool) -> Result<Value, Error> {
    let key = match attribute.filter(|it| !it.is_none()) {
        None => item.clone(),
        Some(attribute) => at(item, attribute)?,
    };
    Ok(match (Type::of(&key), key.as_str()) {
        (_, Some(text)) if !case => Value::from(text.to_lowercase()),
        // True is 1.
        (Type::Bool, _) => Value::from(i64::from(key.is_true())),
        _ => key,
    })
}

/// `item.a.b` for the attribute `a.b`, whose numbers are places; several attributes, with commas between, are one key together.
fn at(item: &Value, attribute: &Value) -> Result<Value, Error> {
    let Some(path) = attribute.as_str() else {
        return item.get_item(attribute);
    };
    if path.contains(',') {
        let parts = path.split(',').map(|part| at(item, &Value::from(part)));
        return Ok(Value::from(parts.collect::<Result<Vec<_>, _>>()?));
    }
    path.split('.')
        .try_fold(item.clone(), |item, part| match part.parse::<usize>() {
            Ok(place) => item.get_item(&Value::from(place)),
            Err(_) => item.get_attr(part),
        })
}

fn collect(value: &Value) -> Result<Vec<Value>, Error> {
    if value.is_none() {
        return Err(refuse("None cannot be gone through"));
    }
    value.try_iter()?.checked().collect()
}

/// `(key, item)` of all items, in an order that Python has too.
fn keyed(
    value: &Value,
    attribute: Option<&Value>,
    case: bool,
) -> Result<Vec<(Value, Value)>, Error> {
    let items = collect(value)?.into_iter();
    let keyed: Vec<(Value, Value)> = items
        .map(|item| Ok((key(&item, attribute, case)?, item)))
        .collect::<Result<_, Error>>()?;
    check_order(&keyed.iter().map(|(key, _)| key).collect::<Vec<_>>())?;
    Ok(keyed)
}

fn order(items: &mut [(Value, Value)], reverse: bool) {
    // Equal ones stay in their order, also in reverse.
    items.sort_by(|(a, _), (b, _)| if reverse { b.cmp(a) } else { a.cmp(b) });
}

/// `sort(reverse, case_sensitive, attribute)`.
pub(super) fn sort(value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let names = ["reverse", "case_sensitive", "attribute"];
    let arguments = Arguments::read("sort", &given, &names, 0)?;
    let mut items = keyed(value, arguments.get(2), arguments.truth(1, false))?;
    order(&mut items, arguments.truth(0, false));
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

/// `dictsort(case_sensitive, by, reverse)`.
pub(super) fn dictsort(value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let names = ["case_sensitive", "by", "reverse"];
    let arguments = Arguments::read("dictsort", &given, &names, 0)?;
    let place = match arguments.text(1)? {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(_) => return Err(refuse("dictsort: by must be 'key' or 'value'")),
    };
    if Type::of(value) != Type::Dict {
        return Err(refuse("dictsort takes a dict"));
    }
    let pair = |key: Value| {
        let item = value.get_item(&key)?;
        Ok(Value::from(Tuple::from([key, item])))
    };
    let pairs = collect(value)?.into_iter().map(pair);
    let pairs = Value::from(pairs.collect::<Result<Vec<_>, Error>>()?);
    let mut items = keyed(&pairs, Some(&Value::from(place)), arguments.truth(0, false))?;
    order(&mut items, arguments.truth(2, false));
    Ok(items.into_iter().map(|(_, pair)| pair).collect())
}

/// `unique(case_sensitive, attribute)`.
pub(super) fn unique(value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let arguments = Arguments::read("unique", &given, &["case_sensitive", "attribute"], 0)?;
    let (mut seen, mut items) = (BTreeSet::new(), Vec::new());
    for item in collect(value)? {
        if seen.insert(key(&item, arguments.get(1), arguments.truth(0, false))?) {
            items.push(item);
        }
    }
    Ok(Generator::of(items))
}

/// `min(case_sensitive, attribute)`, or `max` where `last` is set: the first of equals.
pub(super) fn extreme(name: &str, last: bool, value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let arguments = Arguments::read(name, &given, &["case_sensitive", "attribute"], 0)?;
    let mut items = keyed(value, arguments.get(1), arguments.truth(0, false))?;
    order(&mut items, last);
    Ok(items
        .into_iter()
        .next()
        .map_or(Value::UNDEFINED, |(_, item)| item))
}

/// `join(d, attribute)`.
pub(super) fn join(value: &Value, given: Given) -> Result<String, Error> {
    let given = given.into_values();
    let arguments = Arguments::read("join", &given, &["d", "attribute"], 0)?;
    let separator = arguments.get(0).map(text).unwrap_or_default();
    let part = |item: Value| match arguments.get(1).filter(|it| !it.is_none()) {
        None => Ok::<_, Error>(text(&item)),
        Some(attribute) => Ok(text(&at(&item, attribute)?)),
    };
    let mut length = 0;
    let parts = collect(value)?.into_iter().map(|item| {
        let part: String = part(item)?;
        length += separator.len() + part.len();
        check_text(length)?;
        Ok(part)
    });
    Ok(parts.collect::<Result<Vec<_>, Error>>()?.join(&separator))
}
