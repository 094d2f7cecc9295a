//! `value[start:stop:step]`, which the engine cuts otherwise backwards, and of an empty value not without a panic.

use minijinja::Error;
use minijinja::value::{Tuple, Value};

use super::arguments::{Arguments, refuse};
use super::types::Type;

/// The method that a slice is written as for the engine.
pub(in crate::chat) const SLICE: &str = "__slice__";

/// Cuts `value`.
pub(super) fn slice(value: &Value, given: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::read("a slice", given, &["/start", "/stop", "/step"], 0)?;
    let [start, stop, step] = [0, 1, 2].map(|place| arguments.whole(place));
    let (start, stop, step) = (start?, stop?, step?);
    if step == Some(0) {
        return Err(refuse("the step of a slice must not be 0"));
    }
    let cut = |length: usize| places(length, start, stop, step.unwrap_or(1));
    match Type::of(value) {
        Type::Text => {
            let chars: Vec<char> = value.as_str().unwrap_or_default().chars().collect();
            let places = cut(chars.len());
            Ok(Value::from(
                places.map(|place| chars[place]).collect::<String>(),
            ))
        }
        kind @ (Type::List | Type::Tuple | Type::Range) => {
            let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
            let items: Vec<Value> = cut(items.len()).map(|place| items[place].clone()).collect();
            Ok(match kind {
                Type::Tuple => Value::from(Tuple::from(items)),
                _ => Value::from(items),
            })
        }
        kind => Err(refuse(format!(
            "a value of the type {kind:?} cannot be cut"
        ))),
    }
}

/// The places below `length` that a slice takes, in its order (CPython's `PySlice_AdjustIndices`).
fn places(
    length: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> impl Iterator<Item = usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    // Backwards one may stand before the first place, forwards behind the last.
    let (least, most) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let place = |place: i64| {
        let place = if place < 0 {
            place.saturating_add(length)
        } else {
            place
        };
        place.clamp(least, most)
    };
    let (first, last) = if step > 0 {
        (least, most)
    } else {
        (most, least)
    };
    let start = start.map_or(first, place);
    let stop = stop.map_or(last, place);
    let inside = move |place: &i64| {
        if step > 0 {
            *place < stop
        } else {
            *place > stop
        }
    };
    let next = move |place: &i64| place.checked_add(step);
    std::iter::successors(Some(start), next)
        .take_while(inside)
        .filter_map(|place| usize::try_from(place).ok())
}
