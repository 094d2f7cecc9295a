//! The range of a number, as the schema of experiment files has it: what is declared there is what is checked, shown and said.

use std::fmt;

use serde_json::Value as Json;
use toml::de::DeValue;

/// Between which numbers one has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    least: Option<Bound>,
    most: Option<Bound>,
}

/// One end of a range, and whether it belongs to it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound {
    value: f64,
    inclusive: bool,
}

impl Bounds {
    /// What a JSON schema says of a number (`minimum`, `exclusiveMinimum`, `maximum`, `exclusiveMaximum`).
    pub fn of(schema: &Json) -> Self {
        let end = |inclusive: &str, exclusive: &str| {
            let bound = |key: &str, inclusive| {
                let value = schema.get(key)?.as_f64()?;
                Some(Bound { value, inclusive })
            };
            bound(exclusive, false).or_else(|| bound(inclusive, true))
        };
        Self {
            least: end("minimum", "exclusiveMinimum"),
            most: end("maximum", "exclusiveMaximum"),
        }
    }

    /// Whether both ends are there.
    pub fn are_both(&self) -> bool {
        self.least.is_some() && self.most.is_some()
    }

    /// Whether `value` is in the range. What is no number is in none, but the one without ends.
    pub(super) fn hold(&self, value: f64) -> bool {
        let above = |least: Bound| value > least.value || (least.inclusive && value == least.value);
        let below = |most: Bound| value < most.value || (most.inclusive && value == most.value);
        self.least.is_none_or(above) && self.most.is_none_or(below)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.least.map(|it| {
            let word = if it.inclusive { "at least" } else { "above" };
            format!("{word} {}", number(it.value))
        });
        let most = self.most.map(|it| {
            let word = if it.inclusive { "at most" } else { "below" };
            format!("{word} {}", number(it.value))
        });
        let ends: Vec<String> = [least, most].into_iter().flatten().collect();
        f.write_str(&ends.join(" and "))
    }
}

/// As people write it: large and small ones with a power of ten.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e7 || (size < 1e-3 && size > 0.0) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

/// The number that a value of TOML is.
pub(super) fn number_of(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(integer) => {
            let digits = integer.as_str();
            let whole = i64::from_str_radix(digits, integer.radix()).ok();
            whole
                .map(|whole| whole as f64)
                .or_else(|| digits.parse().ok())
        }
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_range_is_said_as_it_is_checked() {
        for (schema, inside, outside, words) in [
            (
                json!({"minimum": 1, "maximum": 65536}),
                [1.0, 65536.0],
                [0.0, 65537.0],
                "at least 1 and at most 65536",
            ),
            (
                json!({"exclusiveMinimum": 0, "maximum": 1}),
                [1e-300, 1.0],
                [0.0, 1.1],
                "above 0 and at most 1",
            ),
            (
                json!({"minimum": 0, "exclusiveMaximum": 1}),
                [0.0, 0.999],
                [-1e-9, 1.0],
                "at least 0 and below 1",
            ),
            (
                json!({"minimum": 1e-6, "maximum": 1e30}),
                [1e-6, 1e30],
                [0.0, 2e30],
                "at least 1e-6 and at most 1e30",
            ),
        ] {
            let bounds = Bounds::of(&schema);
            assert!(inside.iter().all(|value| bounds.hold(*value)), "{schema}");
            assert!(!outside.iter().any(|value| bounds.hold(*value)), "{schema}");
            let none = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
            assert!(!none.iter().any(|value| bounds.hold(*value)), "{schema}");
            assert_eq!(bounds.to_string(), words);
        }
        let free = Bounds::of(&json!({"type": "number"}));
        assert!(free.hold(f64::NAN) && !free.are_both());
    }
}
