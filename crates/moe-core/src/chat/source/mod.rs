//! A template's source as this program's engine reads it.

mod expression;
mod set;

use super::limits;
use crate::error::Result;

/// `source` with the line ends of Unix, with the blocks that mark what is learnt (`{% generation %}`, which transformers adds to
/// Jinja) as blocks that change nothing but white space, and with what Python reads otherwise than the engine rewritten.
///
/// # Errors
/// It is longer, or its tags are more or longer, than those of a template of a model.
pub(super) fn readable(source: &str) -> Result<String> {
    limits::check_source(source)?;
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut tags = 0;
    while let Some((start, end)) = next_tag(rest) {
        tags += 1;
        if tags > limits::MAX_TAGS {
            let most = limits::MAX_TAGS;
            return Err(limits::refused(format!("more than {most} tags")));
        }
        let (before, tag) = rest.split_at(start + 2);
        out += before;
        let read = match end {
            "#}" => tag
                .find(end)
                .map(|end| (tag[..end].to_owned(), &tag[end..])),
            _ => expression::rewritten(tag, end),
        };
        // What has no end is for the engine to refuse.
        let Some((inside, after)) = read else {
            limits::check_tag(tag)?;
            rest = tag;
            break;
        };
        rest = after;
        if end != "#}" {
            limits::check_tag(&inside)?;
        }
        if end != "%}" {
            out += &inside;
            continue;
        }
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out += &match word {
            "generation" => inside.replace(word, "with"),
            "endgeneration" => inside.replace(word, "endwith"),
            _ => set::bounded(&inside).unwrap_or_else(|| inside.clone()),
        };
        if word == "raw" {
            let (raw, after) = rest.split_at(end_of_raw(rest));
            out += raw;
            rest = after;
        }
    }
    Ok(out + rest)
}

/// Where the next tag begins, and what ends it.
fn next_tag(source: &str) -> Option<(usize, &'static str)> {
    let tags = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];
    let places = tags
        .iter()
        .filter_map(|(start, end)| Some((source.find(start)?, *end)));
    places.min_by_key(|(place, _)| *place)
}

/// Where the tag begins that ends what is not read at all.
fn end_of_raw(source: &str) -> usize {
    let is_end = |place: &usize| {
        let tag = source[place + 2..]
            .trim_start_matches(['-', '+'])
            .trim_start();
        tag.starts_with("endraw")
    };
    let mut tags = source.match_indices("{%").map(|(place, _)| place);
    tags.find(is_end).unwrap_or(source.len())
}

#[cfg(test)]
mod tests {
    use crate::chat::{ChatTemplate, Message, SpecialTokens};

    fn render(source: &str) -> String {
        let template = ChatTemplate::new(source, &SpecialTokens::default()).unwrap();
        template
            .render(&[Message::new("user", "a")], false)
            .unwrap()
    }

    #[test]
    fn marks_of_what_is_learnt_change_nothing_but_white_space() {
        let plain = render("{% for m in messages %}{{ m.content }}{% endfor %} z");
        for source in [
            "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %} z",
            "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration -%}{% endfor %} z",
        ] {
            assert_eq!(render(source), plain, "{source}");
        }
        assert_eq!(
            render("{{ 'generation' }}{# {% generation #}"),
            "generation"
        );
    }

    #[test]
    fn line_ends_are_those_of_unix() {
        assert_eq!(
            render("a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc"),
            "a\nb\nc"
        );
        assert_eq!(
            render("a\r{% if true %}\rb\r{% endif %}\r\n\rc{{ 'd\re' }}{{ '\\r' }}"),
            "a\nb\n\nc".to_owned() + "d\ne\r"
        );
    }
}
