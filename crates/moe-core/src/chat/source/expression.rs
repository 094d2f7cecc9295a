//! What stands between the braces of a tag, with what Python reads in it in another way.

use crate::chat::limits::MAX_BRACKETS;
use crate::chat::python::SLICE;

/// A bracket that is open: where it stands in what was written, and the colons in it.
struct Open {
    bracket: char,
    start: usize,
    colons: Vec<usize>,
}

/// `source` up to `end`, and what follows; none where the end is lacking. Slices become calls of the method that cuts as Python does,
/// and texts say what Python reads in them.
pub(super) fn rewritten<'a>(source: &'a str, end: &str) -> Option<(String, &'a str)> {
    let mut out = String::with_capacity(source.len());
    let mut open: Vec<Open> = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if open.is_empty() && rest.starts_with(end) {
            return Some((out, rest));
        }
        if c == '"' || c == '\'' {
            rest = literal(rest, c, &mut out);
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            // Deeper than the engine goes, so that it refuses what is left as it is.
            '[' | '(' | '{' if open.len() == MAX_BRACKETS => return None,
            '[' | '(' | '{' => open.push(Open {
                bracket: c,
                start: out.len(),
                colons: Vec::new(),
            }),
            ':' => {
                if let Some(open) = open.last_mut().filter(|open| open.bracket == '[') {
                    open.colons.push(out.len());
                }
            }
            ']' | ')' | '}' => {
                if let Some(closed) = open.pop().filter(|open| !open.colons.is_empty()) {
                    slice(&mut out, &closed);
                    continue;
                }
            }
            _ => {}
        }
        out.push(c);
    }
    None
}

/// Turns `[1:]`, which stands at the end of `out` without its bracket, into `.slice(1,none)`.
fn slice(out: &mut String, open: &Open) {
    let mut parts = Vec::new();
    let mut start = open.start + 1;
    for colon in open.colons.iter().chain([&out.len()]) {
        let part = &out[start..*colon];
        parts.push(if part.trim().is_empty() { "none" } else { part });
        start = colon + 1;
    }
    let call = format!(".{SLICE}({})", parts.join(","));
    out.truncate(open.start);
    *out += &call;
}

/// Copies the text in quotes that `source` begins with to `out`, and gives what follows it.
fn literal<'a>(source: &'a str, quote: char, out: &mut String) -> &'a str {
    out.push(quote);
    let mut chars = source[1..].chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            if c == quote {
                break;
            }
            continue;
        }
        match chars.next() {
            // Not an escape of Python's: the backslash stays.
            Some('/') => *out += "\\\\/",
            Some('a') => *out += "\\x07",
            Some('v') => *out += "\\x0b",
            // The line goes on.
            Some('\n') => {}
            Some('U') => long_escape(&mut chars, out),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    chars.as_str()
}

/// The eight digits after `\U`.
fn long_escape(chars: &mut std::str::Chars<'_>, out: &mut String) {
    let code = chars.as_str().get(..8);
    let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
    match code.and_then(char::from_u32) {
        Some(c) => {
            out.push(c);
            *chars = chars.as_str()[8..].chars();
        }
        None => *out += "\\U",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(source: &str) -> String {
        let whole = format!("{source}}}}}rest");
        let (out, rest) = rewritten(&whole, "}}").unwrap();
        assert_eq!(rest, "}}rest");
        out
    }

    #[test]
    fn slices_are_calls_and_everything_else_is_as_it_was() {
        for (source, expected) in [
            ("x[1:]", "x.slice(1,none)"),
            ("x[:-1]", "x.slice(none,-1)"),
            ("x[ : : -1 ].y", "x.slice(none,none, -1 ).y"),
            ("x[y[1:]:z['a:b']]", "x.slice(y.slice(1,none),z['a:b'])"),
            ("x[{'a': 1}['a']]", "x[{'a': 1}['a']]"),
            ("[{'a': [1, 2]}, (3)]", "[{'a': [1, 2]}, (3)]"),
            ("{'a': {'b': x[0:1]}}", "{'a': {'b': x.slice(0,1)}}"),
            ("'[1:]' ~ \"}}\"", "'[1:]' ~ \"}}\""),
        ] {
            let expected = expected.replace("slice", SLICE);
            assert_eq!(expression(source), expected);
        }
        assert!(rewritten("x[1:", "}}").is_none());
    }

    #[test]
    fn texts_say_what_python_reads() {
        assert_eq!(expression(r"'a\/\'b\\' ~ '\n\q'"), r"'a\\/\'b\\' ~ '\n\q'");
        assert_eq!(expression("'a\\\nb\\U0001F642'"), "'ab🙂'");
    }
}
