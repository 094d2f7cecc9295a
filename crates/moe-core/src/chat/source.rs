//! A template's source as this program's engine reads it.

/// `source` with the line ends of Unix, and with the blocks that mark what is learnt (`{% generation %}`, which transformers adds to
/// Jinja) as blocks that change nothing but white space.
pub(super) fn readable(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out += before;
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inside = &tag[2..tag.len() - 2];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out += &match word {
            "generation" => tag.replace(word, "if true"),
            "endgeneration" => tag.replace(word, "endif"),
            _ => tag.to_owned(),
        };
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::super::{ChatTemplate, Message, SpecialTokens};

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
        for end in ["\r\n", "\r"] {
            let source = "a\n{% if true %}\nb\n{% endif %}\nc".replace('\n', end);
            assert_eq!(render(&source), "a\nb\nc");
        }
    }
}
