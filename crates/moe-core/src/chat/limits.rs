//! What a template of a stranger may cost. The longest in use have 30,000 characters, and write little more than the messages.

use std::io;
use std::time::Duration;

use minijinja::ErrorKind;

use crate::bounded::{self, Failure};
use crate::error::{Error, Result};

/// Longest source, in bytes.
const MAX_SOURCE: usize = 256 << 10;
/// Most tags: `elif` and its like nest, whatever they look like.
pub(super) const MAX_TAGS: usize = 8192;
/// Longest tag, in bytes without what stands in quotes: `not not not` and `1+1+1` nest as well.
pub(super) const MAX_TAG: usize = 8192;
/// Most brackets within brackets of a tag, as the engine has it.
pub(super) const MAX_BRACKETS: usize = 150;
/// Most signs of a tag that put texts together, and most that repeat them.
pub(super) const MAX_SIGNS: [(&str, usize); 2] = [("~+*", 128), ("*", 4)];
/// Stack on which a template is parsed and rendered: a tag of [`MAX_TAG`] minus signs has to fit.
const STACK: usize = 128 << 20;
/// Longest time that a template may take to be parsed, or to be rendered once.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Instructions of the engine that a text may take.
pub(super) const MAX_FUEL: u64 = 2_000_000;
/// Longest text that a template may write, in bytes.
pub(super) const MAX_OUTPUT: usize = 16 << 20;
/// Longest text that a variable may hold, a method may make, or a value may be written as, in bytes.
pub(super) const MAX_TEXT: usize = 4 << 20;
/// Most items of a list that a variable may hold.
pub(super) const MAX_ITEMS: usize = 1 << 18;
/// Deepest that values may stand in values.
pub(super) const MAX_DEPTH: usize = 100;
/// Widest that a field may be formatted.
pub(super) const MAX_WIDTH: u64 = 1 << 16;

/// Does `work` with a stranger's template on a stack of a known size, for a time that is limited. Where the engine itself fails, that is
/// an error of the template. A thread that does not end in time is left to run out of fuel.
pub(super) fn limited<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    bounded::run(STACK, MAX_TIME, work).unwrap_or_else(|failure| {
        Err(refused(match failure {
            Failure::Panic => "the engine cannot render it".into(),
            Failure::Thread(error) => format!("no thread for it: {error}"),
            Failure::Time => format!("takes more than {} s; does it loop?", MAX_TIME.as_secs()),
        }))
    })
}

/// Refuses a source that is too long.
pub(super) fn check_source(source: &str) -> Result<()> {
    match source.len() > MAX_SOURCE {
        true => Err(refused(format!(
            "{} bytes; expected at most {MAX_SOURCE}",
            source.len()
        ))),
        false => Ok(()),
    }
}

/// Refuses a tag that the parser may not survive; `tag` is what stands in it.
pub(super) fn check_tag(tag: &str) -> Result<()> {
    let mut quote = None;
    let mut escaped = false;
    let code = tag.chars().filter(|c| {
        let inside = quote.is_some();
        match (quote, *c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(*c),
            _ => {}
        }
        !inside
    });
    let code: String = code.collect();
    if code.len() > MAX_TAG {
        return Err(refused(format!(
            "a tag of {} bytes without its texts; expected at most {MAX_TAG}",
            code.len()
        )));
    }
    for (signs, most) in MAX_SIGNS {
        let count = code.matches(|c| signs.contains(c)).count();
        if count > most {
            return Err(refused(format!(
                "{count} of the signs `{signs}` in one tag; expected at most {most}"
            )));
        }
    }
    Ok(())
}

/// What the engine says of a text that is not to be.
pub(super) fn explained(error: &minijinja::Error) -> Error {
    match error.kind() {
        ErrorKind::OutOfFuel => refused(format!(
            "takes more than {MAX_FUEL} instructions for one conversation; does it loop?"
        )),
        _ => refused(format!("{error}")),
    }
}

pub(super) fn refused(message: String) -> Error {
    Error::ChatTemplate(message)
}

/// What a template writes, up to [`MAX_OUTPUT`].
#[derive(Default)]
pub(super) struct Written(pub(super) Vec<u8>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            let message = format!("writes more than {MAX_OUTPUT} bytes");
            return Err(io::Error::other(message));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::chat::{ChatTemplate, Message, SpecialTokens};

    /// A template of a stranger, the pieces that are repeated in it, and how often.
    fn render(source: &str) -> String {
        let start = Instant::now();
        let template = ChatTemplate::new(source, &SpecialTokens::default());
        let text = template.and_then(|it| it.render(&[Message::new("user", "a")], true));
        assert!(start.elapsed() < Duration::from_secs(8), "{source:.80}");
        match text {
            Ok(text) => text,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_nests_without_end_is_refused_before_it_is_parsed() {
        for piece in [
            "not ",
            "-",
            "1+",
            "[",
            "(",
            "{1:",
            "a.",
            "a[",
            "a|d(",
            "1 if 1 else ",
            "1~",
            "f(",
        ] {
            for times in [200, 3_000, 100_000] {
                for tag in ["{{ ", "{% if ", "{% set x = "] {
                    let message = render(&format!("{tag}{}", piece.repeat(times)));
                    assert!(message.starts_with("chat template: "), "{piece} {message}");
                    render(&format!("{tag}{}1 }}}}", piece.repeat(times)));
                    render(&format!("{tag}{}1 %}}{{% endif %}}", piece.repeat(times)));
                }
            }
        }
        for (piece, end) in [
            ("{% if 1 %}", "{% endif %}"),
            ("{% elif 1 %}", ""),
            ("{% for x in [1] %}", "{% endfor %}"),
            ("{% macro f() %}", "{% endmacro %}"),
        ] {
            for times in [200, 8_000, 20_000] {
                let nested = piece.repeat(times) + &end.repeat(times);
                render(&nested);
                render(&format!("{{% if 1 %}}{nested}{{% endif %}}"));
            }
        }
    }

    #[test]
    fn what_runs_or_writes_without_end_is_stopped() {
        let doubled = "{% set x = x ~ x %}".repeat(60);
        let lists = "{% set x = x + x %}".repeat(60);
        let deep = "{% set x = [x, x] %}".repeat(60);
        for source in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
            "{% for a in range(1000000000) %}{% endfor %}",
            "{{ 'x' * 1000000000 }}",
            "{% set x = 'x' * 90000000 %}{{ x }}",
            "{{ '%1000000000d' | format(1) }}",
            "{{ '%*d' | format(1000000000, 1) }}",
            "{{ '%.1000000000f' | format(1) }}",
            "{{ '{:1000000000}'.format(1) }}",
            "{{ 'a' | indent(1000000000) }}",
            "{{ [1] | tojson(indent=1000000000) }}",
            "{{ 'a'.ljust(1000000000) }}",
            "{{ ('x' * 3000000).replace('', 'y' * 3000000) }}",
            "{{ ('x' * 3000000).join(['', '', '', '', '', '', '', '', '', '']) }}",
            "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
            "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
            "{% set ns = namespace() %}{% set ns.x = [{'a': ns}] %}{{ ns | tojson }}",
            "{% set ns = namespace() %}{%- set ns.x = (ns, 1) -%}{{ ns == ns.x }}",
            &format!("{{% set x = 'abcdefgh' %}}{doubled}{{{{ x }}}}"),
            &format!("{{% set x = [1] %}}{lists}{{{{ x }}}}"),
            &format!("{{% set x = [1] %}}{deep}{{{{ x }}}}"),
            &format!("{{% set x = [1] %}}{deep}{{{{ x | tojson }}}}"),
        ] {
            let message = render(source);
            assert!(
                message.starts_with("chat template: "),
                "{source:.99}: {message:.99}"
            );
        }
    }

    #[test]
    fn variables_are_what_they_were() {
        for (source, expected) in [
            ("{% set a, b = 1, 'x=y' %}{{ a }}{{ b }}", "1x=y"),
            ("{% set x = messages %}{{ x[0].role }}", "user"),
            (
                "{%- set ns = namespace(a=1) -%}{%- set ns.a = ns.a + 1 -%} {{ ns.a }}",
                "2",
            ),
            ("{% set x | replace('a', 'b') %}a{% endset %}{{ x }}", "b"),
            (
                "{% set x = [1, 2] | map('string') %}{{ x | list }}",
                "['1', '2']",
            ),
            ("{% set x = 'a' if false %}{{ x is defined }}", "False"),
        ] {
            assert_eq!(render(source), expected, "{source}");
        }
    }
}
