//! Filters of jinja2 where the engine's own take other arguments or give other values.

mod escape;
mod numbers;
mod sequences;
mod texts;

use minijinja::value::{Rest, Value, ValueOrKwargs};
use minijinja::{Environment, Error, State, filters};

pub(super) use sequences::check_order;

use super::arguments::{Arguments, refuse};
use super::strings;
use super::text::text;
use super::types::{Generator, Type};

type Given = Rest<ValueOrKwargs>;

/// Filters that jinja2 does not have, or that go by what Python's objects are made of.
const FOREIGN: [&str; 7] = ["attr", "bool", "chain", "lines", "pprint", "split", "zip"];

pub(super) fn install(environment: &mut Environment<'static>) {
    for name in FOREIGN {
        environment.remove_filter(name);
    }
    for name in ["e", "escape"] {
        environment.add_filter(name, escape::escape);
    }
    environment.add_filter("forceescape", escape::force);
    environment.add_filter("int", numbers::int);
    environment.add_filter("float", numbers::float);
    environment.add_filter("indent", texts::indent);
    environment.add_filter("replace", texts::replace);
    environment.add_filter("join", sequences::join);
    environment.add_filter(
        "format",
        |state: &mut State<'_, '_>, value: &Value, given: Given| {
            let values: Vec<Value> = Rest(given.0.clone()).into_values();
            strings::check_widths(value.as_str().unwrap_or_default(), &values)?;
            filters::format(state, value, given)
        },
    );
    environment.add_filter("sort", sequences::sort);
    environment.add_filter("dictsort", sequences::dictsort);
    environment.add_filter("unique", sequences::unique);
    for (name, last) in [("min", false), ("max", true)] {
        environment.add_filter(name, move |value: Value, given: Given| {
            sequences::extreme(name, last, &value, given)
        });
    }
    environment.add_filter("string", |value: Value| match value.as_str() {
        Some(_) => value,
        None => Value::from(text(&value)),
    });
    environment.add_filter("upper", |value: Value| text(&value).to_uppercase());
    environment.add_filter("lower", |value: Value| text(&value).to_lowercase());
    for method in ["trim", "center"] {
        environment.add_filter(method, move |value: Value, given: Given| {
            texts::method(method, &value, given)
        });
    }
    for name in ["default", "d"] {
        environment.add_filter(name, default);
    }
    for name in ["length", "count"] {
        environment.add_filter(name, length);
    }
    environment.add_filter("items", items);
    environment.add_filter("first", |value: &Value| match value.is_undefined() {
        true => Ok(Value::UNDEFINED),
        false => filters::first(value),
    });
    environment.add_filter("last", last);
    environment.add_filter(
        "map",
        |state: &mut State<'_, '_>, value: Value, given: Given| {
            filters::map(state, value, given).map(Generator::of)
        },
    );
    generators(environment);
}

/// Filters that give values one after the other.
fn generators(environment: &mut Environment<'static>) {
    type Name<'a> = Option<std::borrow::Cow<'a, str>>;
    environment.add_filter(
        "select",
        |state: &mut State<'_, '_>, value: Value, test: Name<'_>, given: Given| {
            filters::select(state, value, test, given).map(Generator::of)
        },
    );
    environment.add_filter(
        "reject",
        |state: &mut State<'_, '_>, value: Value, test: Name<'_>, given: Given| {
            filters::reject(state, value, test, given).map(Generator::of)
        },
    );
    type Text<'a> = std::borrow::Cow<'a, str>;
    environment.add_filter(
        "selectattr",
        |state: &mut State<'_, '_>,
         value: Value,
         attribute: Text<'_>,
         test: Name<'_>,
         given: Given| {
            filters::selectattr(state, value, attribute, test, given).map(Generator::of)
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &mut State<'_, '_>,
         value: Value,
         attribute: Text<'_>,
         test: Name<'_>,
         given: Given| {
            filters::rejectattr(state, value, attribute, test, given).map(Generator::of)
        },
    );
    environment.add_filter(
        "batch",
        |state: &State<'_, '_>, value: Value, count: usize, fill: Option<Value>| {
            generator(&filters::batch(state, value, count, fill)?)
        },
    );
    environment.add_filter(
        "slice",
        |state: &State<'_, '_>, value: Value, count: usize, fill: Option<Value>| {
            generator(&filters::slice(state, value, count, fill)?)
        },
    );
    environment.add_filter("reverse", |value: &Value| match value.as_str() {
        Some(_) => filters::reverse(value),
        None => generator(&filters::reverse(value)?),
    });
}

fn generator(items: &Value) -> Result<Value, Error> {
    let items = items.try_iter()?.checked();
    Ok(Generator::of(items.collect::<Result<_, _>>()?))
}

/// `default(default_value, boolean)`.
fn default(value: &Value, given: Given) -> Result<Value, Error> {
    let given = given.into_values();
    let arguments = Arguments::read("default", &given, &["default_value", "boolean"], 0)?;
    let lacks = value.is_undefined() || (arguments.truth(1, false) && !value.is_true());
    Ok(match lacks {
        true => arguments.get(0).cloned().unwrap_or_else(|| Value::from("")),
        false => value.clone(),
    })
}

fn length(value: &Value) -> Result<usize, Error> {
    match value.is_undefined() {
        true => Ok(0),
        false => value.len().ok_or_else(|| {
            refuse(format!(
                "a value of the type {:?} has no length",
                Type::of(value)
            ))
        }),
    }
}

fn items(value: &Value) -> Result<Value, Error> {
    match value.is_undefined() {
        true => Ok(Generator::of(Vec::new())),
        false => generator(&filters::items(value)?),
    }
}

fn last(value: Value) -> Result<Value, Error> {
    match Type::of(&value) {
        Type::Generator => Err(refuse("last: put list before it")),
        Type::Dict | Type::View => Ok(value.try_iter()?.last().unwrap_or_default()),
        _ => filters::last(value),
    }
}
