//! `tojson` as transformers gives it to templates: Python's `json.dumps` with what is not ASCII left as it is.

use std::io;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// `value | tojson(indent, ensure_ascii, separators, sort_keys)`.
pub(super) fn to_json(value: &Value, arguments: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = arguments.get("indent")?;
    let indent = match indent {
        Some(it) if it.kind() == ValueKind::Number => {
            Some(" ".repeat(usize::try_from(it).unwrap_or(0)))
        }
        Some(it) => it.as_str().map(str::to_owned),
        None => None,
    };
    let separators: Option<Vec<String>> = arguments.get("separators")?;
    let ascii = arguments
        .get::<Option<bool>>("ensure_ascii")?
        .unwrap_or(false);
    let sorted = arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    arguments.assert_all_used()?;
    let comma = if indent.is_some() { "," } else { ", " };
    let separators = separators.unwrap_or_else(|| vec![comma.into(), ": ".into()]);
    let [item, key] = <[String; 2]>::try_from(separators).map_err(|_| {
        Error::new(
            ErrorKind::InvalidOperation,
            "separators are two texts, (item, key)",
        )
    })?;
    let failed =
        |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut tree = serde_json::to_value(value).map_err(failed)?;
    if sorted {
        tree.sort_all_objects();
    }
    let mut bytes = Vec::new();
    let style = Style {
        indent,
        item,
        key,
        ascii,
        depth: 0,
        filled: Vec::new(),
    };
    tree.serialize(&mut Serializer::with_formatter(&mut bytes, style))
        .map_err(failed)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// Python's spacing.
struct Style {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    depth: usize,
    /// Per open list or object: whether it holds something.
    filled: Vec<bool>,
}

impl Style {
    fn line<W: ?Sized + io::Write>(&self, out: &mut W) -> io::Result<()> {
        match &self.indent {
            Some(indent) => write!(out, "\n{}", indent.repeat(self.depth)),
            None => Ok(()),
        }
    }

    fn open<W: ?Sized + io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled.push(false);
        out.write_all(bracket)
    }

    fn next<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if let Some(filled) = self.filled.last_mut() {
            *filled = true;
        }
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.line(out)
    }

    fn close<W: ?Sized + io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled.pop() == Some(true) {
            self.line(out)?;
        }
        out.write_all(bracket)
    }
}

impl Formatter for Style {
    fn begin_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(out, first)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if c.is_ascii() {
                write!(out, "{c}")?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChatTemplate, Message, SpecialTokens};

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
