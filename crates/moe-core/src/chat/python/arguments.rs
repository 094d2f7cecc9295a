//! Arguments of a Python function, by place or by name.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// The error of a call that Python refuses too.
pub(super) fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// What a function was called with.
pub(super) struct Arguments<'a> {
    function: &'a str,
    names: &'a [&'a str],
    values: Vec<Option<Value>>,
}

impl<'a> Arguments<'a> {
    /// `given` as the parameters `names`, those from `required` on being optional. A parameter whose name begins with `/` is given
    /// by place alone.
    pub(super) fn read(
        function: &'a str,
        given: &[Value],
        names: &'a [&'a str],
        required: usize,
    ) -> Result<Self, Error> {
        let (places, named) = match given.split_last() {
            Some((last, places)) if last.is_kwargs() => {
                (places, Some(Kwargs::try_from(last.clone())?))
            }
            _ => (given, None),
        };
        if places.len() > names.len() {
            let message = format!("{function} takes at most {} arguments", names.len());
            return Err(refuse(message));
        }
        let mut values: Vec<Option<Value>> = places.iter().cloned().map(Some).collect();
        values.resize(names.len(), None);
        for name in named.iter().flat_map(Kwargs::args) {
            let place = names.iter().position(|known| *known == name);
            match place.filter(|place| values[*place].is_none()) {
                Some(place) => {
                    let value = named.as_ref().map(|named| named.get(name));
                    values[place] = value.transpose()?;
                }
                None => return Err(refuse(format!("{function} takes no argument {name}"))),
            }
        }
        match values[..required].iter().position(Option::is_none) {
            None => Ok(Self {
                function,
                names,
                values,
            }),
            Some(place) => {
                let name = names[place].trim_start_matches('/');
                Err(refuse(format!("{function} lacks its argument {name}")))
            }
        }
    }

    fn wrong(&self, place: usize, expected: &str) -> Error {
        let name = self.names[place].trim_start_matches('/');
        let function = self.function;
        refuse(format!(
            "{function}: the argument {name} must be {expected}"
        ))
    }

    /// What was given, `None` of Python's included.
    pub(super) fn get(&self, place: usize) -> Option<&Value> {
        self.values[place].as_ref()
    }

    /// What was given but for `None`.
    fn some(&self, place: usize) -> Option<&Value> {
        self.get(place).filter(|value| !value.is_none())
    }

    /// A text; none where it was left out or is `None`.
    pub(super) fn text(&self, place: usize) -> Result<Option<&str>, Error> {
        let value = self.some(place);
        let text = |value: &'_ Value| value.as_str().map(str::len).is_some();
        match value {
            Some(value) if !text(value) => Err(self.wrong(place, "a text")),
            value => Ok(value.and_then(Value::as_str)),
        }
    }

    /// A text that was not left out.
    pub(super) fn needed_text(&self, place: usize) -> Result<&str, Error> {
        self.text(place)?.ok_or_else(|| self.wrong(place, "a text"))
    }

    /// A whole number; none where it was left out or is `None`.
    pub(super) fn whole(&self, place: usize) -> Result<Option<i64>, Error> {
        let whole = |value: &Value| match value.kind() {
            ValueKind::Bool => Some(i64::from(value.is_true())),
            _ if value.is_integer() => value.as_i64(),
            _ => None,
        };
        match self.some(place) {
            None => Ok(None),
            Some(value) => {
                let wrong = || self.wrong(place, "a whole number");
                whole(value).map(Some).ok_or_else(wrong)
            }
        }
    }

    /// Whether it counts as true; `otherwise` where it was left out.
    pub(super) fn truth(&self, place: usize, otherwise: bool) -> bool {
        self.get(place).map_or(otherwise, Value::is_true)
    }
}
