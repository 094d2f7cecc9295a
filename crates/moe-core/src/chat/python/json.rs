//! `tojson` as transformers gives it to templates: Python's `json.dumps` with what is not ASCII left as it is.

use std::fmt::Write;

use minijinja::Error;
use minijinja::value::{Rest, Value, ValueOrKwargs};

use super::arguments::{Arguments, refuse};
use super::filters::check_order;
use super::held::{check_text, check_whole};
use super::text::float;
use super::types::Type;
use crate::chat::limits::MAX_WIDTH;

/// `value | tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn to_json(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let arguments = Arguments::read("tojson", &given.into_values(), &names, 0)?;
    let indent = match arguments.get(1) {
        Some(text) if text.as_str().is_some() => arguments.text(1)?.map(str::to_owned),
        _ => match arguments.whole(1)?.map(u64::try_from) {
            None => None,
            Some(Ok(width)) if width > MAX_WIDTH => {
                return Err(refuse(format!("tojson: an indent of {width} is too large")));
            }
            Some(width) => Some(" ".repeat(usize::try_from(width.unwrap_or(0)).unwrap_or(0))),
        },
    };
    let comma = if indent.is_some() { "," } else { ", " };
    let [item, key] = match arguments.get(2).filter(|it| !it.is_none()) {
        Some(two) => separators(two)?,
        None => [comma.into(), ": ".into()],
    };
    check_whole(value)?;
    let mut writer = Writer {
        out: String::new(),
        indent,
        item,
        key,
        ascii: arguments.truth(0, false),
        sorted: arguments.truth(3, false),
        depth: 0,
    };
    writer.write(value)?;
    Ok(Value::from(writer.out))
}

fn separators(value: &Value) -> Result<[String; 2], Error> {
    let wrong = || refuse("tojson: separators are two texts, (item, key)");
    let text = |value: Value| value.as_str().map(str::to_owned);
    let texts: Option<Vec<String>> = value.try_iter()?.map(text).collect();
    let texts = texts.and_then(|texts| texts.try_into().ok());
    texts.ok_or_else(wrong)
}

/// Deeper values are refused before they cost the stack.
const DEEPEST: usize = 500;

struct Writer {
    out: String,
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
    depth: usize,
}

impl Writer {
    fn write(&mut self, value: &Value) -> Result<(), Error> {
        match Type::of(value) {
            Type::None => self.out += "null",
            Type::Bool => self.out += if value.is_true() { "true" } else { "false" },
            Type::Int => self.out += &value.to_string(),
            Type::Float => self.out += &number(value),
            Type::Text => self.text(value.as_str().unwrap_or_default()),
            Type::List | Type::Tuple => {
                let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
                self.all("[", "]", &items, Self::write)?;
            }
            Type::Dict => {
                let mut pairs = Vec::new();
                for key in value.try_iter()?.checked() {
                    let key = key?;
                    let item = value.get_item(&key)?;
                    pairs.push((name(&key)?, key, item));
                }
                if self.sorted {
                    let keys: Vec<&Value> = pairs.iter().map(|(_, key, _)| key).collect();
                    check_order(&keys)?;
                    pairs.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
                }
                self.all("{", "}", &pairs, |writer, (name, _, item)| {
                    writer.text(name);
                    writer.out += &writer.key.clone();
                    writer.write(item)
                })?;
            }
            other => {
                return Err(refuse(format!(
                    "tojson: a value of the type {other:?} has no JSON"
                )));
            }
        }
        Ok(())
    }

    fn all<T>(
        &mut self,
        open: &str,
        close: &str,
        items: &[T],
        write: impl Fn(&mut Self, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.depth == DEEPEST {
            return Err(refuse(format!(
                "tojson: a value is nested deeper than {DEEPEST}"
            )));
        }
        self.out += open;
        self.depth += 1;
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.out += &self.item.clone();
            }
            self.line();
            write(self, item)?;
            check_text(self.out.len())?;
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.line();
        }
        self.out += close;
        Ok(())
    }

    fn line(&mut self) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out += &indent.repeat(self.depth);
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out += "\\\"",
                '\\' => self.out += "\\\\",
                '\n' => self.out += "\\n",
                '\r' => self.out += "\\r",
                '\t' => self.out += "\\t",
                '\x08' => self.out += "\\b",
                '\x0c' => self.out += "\\f",
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let written = write!(self.out, "\\u{unit:04x}");
                        written.expect("a text takes whatever is written");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(x) if x.is_infinite() && x > 0.0 => "Infinity".into(),
        Ok(x) if x.is_infinite() => "-Infinity".into(),
        Ok(x) if !x.is_nan() => float(x),
        _ => "NaN".into(),
    }
}

/// A key as JSON names it, which has texts alone.
fn name(key: &Value) -> Result<String, Error> {
    Ok(match Type::of(key) {
        Type::Text => key.as_str().unwrap_or_default().to_owned(),
        Type::None => "null".into(),
        Type::Bool => (if key.is_true() { "true" } else { "false" }).into(),
        Type::Float => number(key),
        Type::Int => key.to_string(),
        other => {
            return Err(refuse(format!(
                "tojson: a key of the type {other:?} has no JSON"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::chat::{ChatTemplate, Message, SpecialTokens};

    /// What `json.dumps([{"role": "user", "content": "<é>&"}], ensure_ascii=False, …)` gives in Python 3.11.
    #[test]
    fn json_is_what_python_writes() {
        for (arguments, expected) in [
            ("", r#"[{"role": "user", "content": "<é>&"}]"#),
            (
                "(ensure_ascii=true)",
                r#"[{"role": "user", "content": "<\u00e9>&"}]"#,
            ),
            (
                "(sort_keys=true)",
                r#"[{"content": "<é>&", "role": "user"}]"#,
            ),
            (
                "(separators=(',', ':'))",
                r#"[{"role":"user","content":"<é>&"}]"#,
            ),
            (
                "(indent=2)",
                "[\n  {\n    \"role\": \"user\",\n    \"content\": \"<é>&\"\n  }\n]",
            ),
        ] {
            let source = format!("{{{{ messages | tojson{arguments} }}}}");
            let template = ChatTemplate::new(&source, &SpecialTokens::default()).unwrap();
            let text = template
                .render(&[Message::new("user", "<é>&")], false)
                .unwrap();
            assert_eq!(text, expected, "{arguments}");
        }
    }
}
