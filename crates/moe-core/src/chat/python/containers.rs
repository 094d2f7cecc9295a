//! Methods of `dict`, `list` and `tuple`. Those that change one are refused, as in the sandbox of transformers.

use minijinja::value::{DynObject, Tuple, Value};
use minijinja::{Error, ErrorKind};

use super::arguments::{Arguments, refuse};
use super::types::View;

/// Calls `mapping.method(given)`.
pub(super) fn call_dict(mapping: &Value, method: &str, given: &[Value]) -> Result<Value, Error> {
    let pairs = || {
        let object = mapping.as_object().and_then(DynObject::try_iter_pairs);
        object.into_iter().flatten()
    };
    let view = |items: Vec<Value>| {
        Arguments::read(method, given, &[], 0)?;
        let kind = method.to_owned();
        Ok(Value::from_object(View { kind, items }))
    };
    match method {
        "keys" => view(pairs().map(|(key, _)| key).collect()),
        "values" => view(pairs().map(|(_, value)| value).collect()),
        "items" => view(
            pairs()
                .map(|(key, value)| Tuple::from([key, value]).into())
                .collect(),
        ),
        "copy" => {
            Arguments::read(method, given, &[], 0)?;
            Ok(Value::from_pairs(pairs()))
        }
        "get" => {
            let arguments = Arguments::read(method, given, &["/key", "/default"], 1)?;
            let key = arguments.get(0).cloned().unwrap_or_default();
            let found = mapping.as_object().and_then(|it| it.get_value(&key));
            let otherwise = || arguments.get(1).cloned().unwrap_or(Value::from(()));
            Ok(found.unwrap_or_else(otherwise))
        }
        "clear" | "pop" | "popitem" | "setdefault" | "update" => Err(unsafe_method(method)),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Calls `sequence.method(given)`, of a list or a tuple.
pub(super) fn call_list(sequence: &Value, method: &str, given: &[Value]) -> Result<Value, Error> {
    let items = || {
        sequence
            .try_iter()?
            .checked()
            .collect::<Result<Vec<_>, _>>()
    };
    match method {
        "count" => {
            let arguments = Arguments::read(method, given, &["/value"], 1)?;
            let same = items()?
                .into_iter()
                .filter(|it| Some(it) == arguments.get(0));
            Ok(Value::from(same.count()))
        }
        "index" => {
            let names = ["/value", "/start", "/stop"];
            let arguments = Arguments::read(method, given, &names, 1)?;
            let items = items()?;
            let place = |place: i64| {
                let from_end = usize::try_from(place.unsigned_abs()).unwrap_or(usize::MAX);
                usize::try_from(place).unwrap_or(items.len().saturating_sub(from_end))
            };
            let start = arguments.whole(1)?.map_or(0, place);
            let stop = arguments.whole(2)?.map_or(items.len(), place);
            let mut range =
                (start..stop.min(items.len())).filter(|it| Some(&items[*it]) == arguments.get(0));
            let found = range.next().map(Value::from);
            found.ok_or_else(|| refuse("the value is not in the list"))
        }
        "copy" if !sequence.is_tuple() => {
            Arguments::read(method, given, &[], 0)?;
            Ok(Value::from(items()?))
        }
        "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" => {
            Err(unsafe_method(method))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn unsafe_method(method: &str) -> Error {
    refuse(format!(
        "{method} would change a value, which templates must not"
    ))
}
