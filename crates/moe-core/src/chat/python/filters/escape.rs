//! Characters of HTML as markupsafe writes them.

use minijinja::value::Value;

use crate::chat::python::text::text;

/// `escape`: what is marked as safe stays as it is.
pub(super) fn escape(value: &Value) -> Value {
    match value.is_safe() {
        true => value.clone(),
        false => force(value),
    }
}

/// `forceescape`.
pub(super) fn force(value: &Value) -> Value {
    let mut out = String::new();
    for c in text(value).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '\'' => out += "&#39;",
            '"' => out += "&#34;",
            c => out.push(c),
        }
    }
    Value::from_safe_string(out)
}
