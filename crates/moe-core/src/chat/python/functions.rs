//! Functions of Python that templates call.

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error};

use super::arguments::refuse;
use super::types::{Range, Type};

/// As many elements may a range have in the sandbox.
const MOST: u64 = 100_000;

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.remove_global("debug");
    environment.add_function("raise_exception", |message: String| {
        Err::<Value, _>(refuse(message))
    });
    environment.add_function("range", range);
    environment.add_function("dict", dict);
}

fn range(first: i64, stop: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, stop) = match stop {
        Some(stop) => (first, stop),
        None => (0, first),
    };
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(refuse("range: the step must not be 0"));
    }
    let range = Range { start, stop, step };
    match range.count() {
        count if count <= MOST => Ok(Value::from_object(range)),
        count => Err(refuse(format!(
            "range: {count} elements are more than {MOST}"
        ))),
    }
}

/// A dict of another one or of pairs, with what is named.
fn dict(first: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let wrong = || refuse("dict takes a dict or pairs");
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    for item in first
        .iter()
        .map(Value::try_iter)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
    {
        pairs.push(match first.as_ref().map(Type::of) {
            Some(Type::Dict) => {
                let value = first.as_ref().ok_or_else(wrong)?.get_item(&item)?;
                (item, value)
            }
            _ => {
                let pair: Vec<Value> = item.try_iter()?.collect();
                let [key, value] = <[Value; 2]>::try_from(pair).map_err(|_| wrong())?;
                (key, value)
            }
        });
    }
    for name in named.args() {
        pairs.push((Value::from(name), named.get(name)?));
    }
    Ok(Value::from_pairs(pairs))
}
