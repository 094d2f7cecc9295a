//! What people read: on standard output and standard error, texts from elsewhere only stand there. A label or a file's name that holds
//! an escape sequence moves no cursor, changes no title and hides no line.

use std::borrow::Cow;
use std::io::{self, Stderr, Stdout, Write};

/// Standard output, for what a command answers.
pub fn out() -> Harmless<Stdout> {
    Harmless::new(io::stdout())
}

/// Standard error, for what is said beside it.
pub fn err() -> Harmless<Stderr> {
    Harmless::new(io::stderr())
}

/// A line on standard error. Nobody may be there to read it: a command goes on without.
macro_rules! tell {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(
            &mut $crate::terminal::err(),
            format_args!("{}\n", format_args!($($words)*)),
        );
    }};
}
pub(crate) use tell;

/// `text` with what a terminal would obey written out: `\u001b`, as JSON writes it.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_obeyed(c) {
            true => shown += &format!("\\u{:04x}", u32::from(c)),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal does something else with it than to show it: control characters but the ends of lines and tabs, and what turns
/// the direction of writing.
fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && !matches!(c, '\n' | '\t')) || turns
}

/// Writes texts as [`harmless`] does.
pub struct Harmless<W: Write> {
    inner: W,
    /// The first bytes of a character whose last are still to come.
    begun: Vec<u8>,
}

impl<W: Write> Harmless<W> {
    fn new(inner: W) -> Self {
        let begun = Vec::new();
        Self { inner, begun }
    }
}

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.begun) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let text = String::from_utf8_lossy(&self.begun);
        let written = self.inner.write_all(harmless(&text).as_bytes());
        self.begun = rest;
        written.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\x1b]0;title\x07b\u{9b}2Jc\rd\u{202e}e\u{7f}";
    const SHOWN: &str = "a\\u001b]0;title\\u0007b\\u009b2Jc\\u000dd\\u202ee\\u007f";

    #[test]
    fn what_a_terminal_obeys_is_written_out_and_nothing_else_changes() {
        assert_eq!(harmless(EVIL), SHOWN);
        let plain = "läßt\t字\n👍🏽 «x» e\u{301}";
        assert!(matches!(harmless(plain), Cow::Borrowed(text) if text == plain));
    }

    #[test]
    fn json_stays_json_of_the_same_text() {
        let json = serde_json::to_string(EVIL).unwrap();
        let shown = harmless(&json);
        assert!(!shown.chars().any(is_obeyed));
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), EVIL);
    }

    #[test]
    fn a_text_that_comes_in_pieces_is_the_same() {
        let text = format!("{EVIL}läßt 字 👍🏽");
        for size in 1..6 {
            let mut out = Harmless::new(Vec::new());
            for piece in text.as_bytes().chunks(size) {
                out.write_all(piece).unwrap();
            }
            assert_eq!(String::from_utf8(out.inner).unwrap(), harmless(&text));
        }
    }
}
