//! What templates know of Python: methods of its types, filters and tests that go by them, and how it writes values. The engine has
//! Jinja; its values are not Python's.
//!
//! `fixtures/make.py` renders a thousand templates with transformers, and a test compares. What a template has to do without is
//! refused when it is met:
//! - `text % values` (the filter `format` has it), conversions, nested fields and `%` in `str.format`;
//! - the filters `attr filesizeformat pprint random striptags truncate urlencode urlize wordcount wordwrap xmlattr`, the test
//!   `callable`, `cycler`, `joiner`, `lipsum`, `varargs` and `kwargs` of macros;
//! - `str.encode`, `str.maketrans`, `str.translate`, and digits that are not decimal ones of ASCII where a table would be needed.
//!
//! The engine reads otherwise, and nothing here can tell: values of two types are put in an order (`'a' > 1`) and found in a text
//! (`1 in '1'`), `None` is gone through as an empty list, `True` and `1` are two keys of a dict, a default of a macro knows no
//! other argument, `+` escapes nothing beside a text marked `safe`, names of Python's own that are no calls (`message.items`,
//! `1.real`, `self`) are not defined, a loop or a namespace prints as a dict, and inside `~` a number of 16 digits or of five
//! zeros has no exponent.

mod arguments;
mod checks;
mod containers;
mod filters;
mod functions;
mod held;
mod json;
mod slice;
mod strings;
mod text;
mod types;

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, escape_formatter};

use arguments::refuse;
pub(super) use held::HELD;
pub(super) use slice::SLICE;
use types::Type;

/// Gives an environment what jinja2 has from Python.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(call_method);
    environment.set_formatter(write);
    environment.add_filter("tojson", json::to_json);
    environment.add_filter(HELD, held::held);
    filters::install(environment);
    checks::install(environment);
    functions::install(environment);
}

fn call_method(
    _: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    given: &[Value],
) -> Result<Value, Error> {
    if method == SLICE {
        return slice::slice(value, given);
    }
    match Type::of(value) {
        Type::Text => {
            let made = strings::call(value.as_str().unwrap_or_default(), method, given)?;
            held::check_text(made.as_str().map_or(0, str::len))?;
            Ok(made)
        }
        Type::Dict => containers::call_dict(value, method, given),
        Type::List | Type::Tuple | Type::Range => containers::call_list(value, method, given),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Prints what `{{ value }}` is.
fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if Type::of(value) == Type::Generator {
        // Python would write its address.
        return Err(refuse("a generator is printed, put list before it"));
    }
    if value.as_str().is_none() {
        held::check_whole(value)?;
    }
    match value.as_str() {
        None if !matches!(state.auto_escape(), AutoEscape::None) => {
            escape_formatter(out, state, &Value::from(text::text(value)))
        }
        None => Ok(out.write_str(&text::text(value))?),
        Some(_) => escape_formatter(out, state, value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::chat::{ChatTemplate, Message, SpecialTokens};

    /// Made by `fixtures/make.py`: what transformers' jinja2 makes of templates.
    const FIXTURE: &str = include_str!("../fixtures/templates.json");

    /// Each stands in templates that are refused here although Python renders them.
    const REFUSED: [&str; 26] = [
        "' % ",
        "!r}",
        "!s:",
        "{:>{w}}",
        "{:%}",
        "__class__}",
        ".real}",
        ".encode(",
        ".translate(",
        "'²'.isdigit",
        "'½'.isdigit",
        "'١٢' | int",
        "| striptags",
        "| wordcount",
        "| truncate",
        "| wordwrap",
        "| urlencode",
        "| xmlattr",
        "| filesizeformat",
        "| attr(",
        "| pprint",
        "is callable",
        "joiner(",
        "cycler(",
        "varargs }}{{ kwargs",
        "{{ +1",
    ];
    /// Templates that the engine reads otherwise.
    const OTHERWISE: [&str; 13] = [
        "{{ ('<b>' | safe) + '<i>' }}",
        "{{ lipsum is defined }}",
        "{{ cycler is defined }}",
        "{{ joiner is defined }}",
        "{{ namespace() }}",
        "{{ self is defined }}",
        "{{ 'a' > 1 }}",
        "{{ {} < {} }}",
        "{{ 1.real }}",
        "{{ 1 in 'abc1' }}",
        "{% for c in none %}{{ c }}{% endfor %}",
        "{% for m in messages %}{{ loop }}{% endfor %}",
        "{% macro m(x, y=x) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}",
    ];

    /// Templates that the engine reads one way or the other, as the keys' hashes fall: 1 and true, which Python takes for one key, are
    /// equal to it and hashed apart.
    const BY_CHANCE: [&str; 2] = [
        "{{ {1: 'a', true: 'b'} }}",
        "{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}",
    ];

    #[test]
    fn templates_give_what_python_gives() {
        let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
        let messages: Vec<Message> = serde_json::from_value(fixture["messages"].clone()).unwrap();
        let special = SpecialTokens {
            bos: Some("<s>".into()),
            eos: Some("</s>".into()),
            pad: None,
            unk: Some("<unk>".into()),
        };
        let (mut wrong, mut unused) = (Vec::new(), Vec::from(REFUSED));
        for case in fixture["cases"].as_array().unwrap() {
            let source = case["template"].as_str().unwrap();
            let template = ChatTemplate::new(source, &special);
            let got = template.and_then(|template| template.render(&messages, true));
            let expected = case["text"].as_str();
            let reason = REFUSED.iter().find(|part| source.contains(**part));
            let right = match (&got, expected) {
                (got, _) if BY_CHANCE.contains(&source) => got.is_ok(),
                _ if OTHERWISE.contains(&source) => got.as_deref().ok() != expected,
                (Err(_), Some(_)) => reason.is_some(),
                (got, expected) => got.as_deref().ok() == expected,
            };
            if got.is_err() && expected.is_some() {
                unused.retain(|part| Some(part) != reason);
            }
            if !right {
                wrong.push(format!(
                    "{source}\n    expected {expected:?}\n    got      {got:?}"
                ));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} cases:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
        assert!(unused.is_empty(), "refused no more: {unused:?}");
    }
}
