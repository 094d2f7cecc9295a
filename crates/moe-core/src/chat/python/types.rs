//! Which type of Python's a value of the engine stands for.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};

/// The types that templates meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Undefined,
    None,
    Bool,
    Int,
    Float,
    Text,
    Tuple,
    List,
    Dict,
    Range,
    /// What `dict.items()` and its like give.
    View,
    /// What `map`, `select` and their like give.
    Generator,
    /// Functions, macros, loops.
    Other,
}

impl Type {
    pub(super) fn of(value: &Value) -> Self {
        match value.kind() {
            ValueKind::Undefined => Self::Undefined,
            ValueKind::None => Self::None,
            ValueKind::Bool => Self::Bool,
            ValueKind::Number if value.is_integer() => Self::Int,
            ValueKind::Number => Self::Float,
            ValueKind::String => Self::Text,
            ValueKind::Map => Self::Dict,
            // A group of `groupby` is a tuple with names.
            ValueKind::Seq if value.is_tuple() || is_group(value) => Self::Tuple,
            ValueKind::Seq if value.downcast_object_ref::<Range>().is_some() => Self::Range,
            ValueKind::Seq => Self::List,
            ValueKind::Iterable if value.downcast_object_ref::<View>().is_some() => Self::View,
            // Slices of lists have a length.
            ValueKind::Iterable if value.len().is_some() => Self::List,
            ValueKind::Iterable => Self::Generator,
            _ => Self::Other,
        }
    }
}

fn is_group(value: &Value) -> bool {
    value.len() == Some(2) && value.get_attr("grouper").is_ok_and(|it| !it.is_undefined())
}

/// `dict_items` and its like: it has a length and can be gone through, and has no places.
#[derive(Debug)]
pub(super) struct View {
    pub(super) kind: String,
    pub(super) items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    /// Nothing is found by place or name.
    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::UNDEFINED)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = super::text::text(&Value::from(self.items.clone()));
        write!(f, "dict_{}({items})", self.kind)
    }
}

/// Values that can be gone through once. It counts as true, whatever it holds, and has neither length nor places.
#[derive(Debug)]
pub(super) struct Generator(Items);

/// What is left of them, for all that go through them.
#[derive(Clone, Debug)]
struct Items(Arc<Mutex<std::vec::IntoIter<Value>>>);

impl Iterator for Items {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Exact, so that a loop knows its last round.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        items.size_hint()
    }
}

impl Generator {
    pub(super) fn of(items: Vec<Value>) -> Value {
        Value::from_object(Self(Items(Arc::new(Mutex::new(items.into_iter())))))
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::UNDEFINED)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Iter(Box::new(self.0.clone()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// `range(start, stop, step)`.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) stop: i64,
    pub(super) step: i64,
}

impl Range {
    pub(super) fn count(&self) -> u64 {
        let (span, step) = match self.step > 0 {
            true => (self.stop.saturating_sub(self.start), self.step),
            false => (
                self.start.saturating_sub(self.stop),
                self.step.saturating_neg(),
            ),
        };
        u64::try_from(span)
            .unwrap_or(0)
            .div_ceil(u64::try_from(step).unwrap_or(1))
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let place = key
            .as_i64()
            .filter(|place| (0..self.count().cast_signed()).contains(place))?;
        Some(Value::from(self.start + place * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(usize::try_from(self.count()).unwrap_or(usize::MAX))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, stop, step } = self.as_ref();
        match step {
            1 => write!(f, "range({start}, {stop})"),
            step => write!(f, "range({start}, {stop}, {step})"),
        }
    }
}
