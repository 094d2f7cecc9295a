//! Tests (`is …`) of jinja2 where the engine's go by its own types.

use minijinja::value::Value;
use minijinja::{Environment, Error};

use super::arguments::refuse;
use super::types::Type;

/// Tests that jinja2 does not have.
const FOREIGN: [&str; 4] = ["endingwith", "int", "safe", "startingwith"];

pub(super) fn install(environment: &mut Environment<'static>) {
    for name in FOREIGN {
        environment.remove_test(name);
    }
    environment.add_test("sequence", |value: &Value| {
        use Type::{Dict, List, Range, Text, Tuple, Undefined};
        matches!(
            Type::of(value),
            Undefined | Text | Tuple | List | Dict | Range
        )
    });
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    environment.add_test("divisibleby", divisible);
}

fn divisible(value: &Value, by: &Value) -> Result<bool, Error> {
    let wrong = || refuse("divisibleby takes two numbers, the second of which is not 0");
    let whole = |value: &Value| i128::try_from(value.clone()).ok();
    if let (Some(value), Some(by)) = (whole(value), whole(by)) {
        return value
            .checked_rem_euclid(by)
            .map(|rest| rest == 0)
            .ok_or_else(wrong);
    }
    let number = |value: &Value| f64::try_from(value.clone()).map_err(|_| wrong());
    match number(by)? {
        0.0 => Err(wrong()),
        by => Ok(number(value)? % by == 0.0),
    }
}
