//! The words of BLEU: mteval's `13a`, as `sacrebleu` splits them.

/// The tokens of a text.
pub(super) fn words_13a(text: &str) -> Vec<String> {
    let mut line = text
        .trim_end()
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    for (entity, character) in [
        ("&quot;", "\""),
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ] {
        line = line.replace(entity, character);
    }
    let mut line: Vec<char> = format!(" {line} ").chars().collect();
    line = line
        .into_iter()
        .flat_map(|c| {
            if is_sign(c) {
                vec![' ', c, ' ']
            } else {
                vec![c]
            }
        })
        .collect();
    let point = |c: char| c == '.' || c == ',';
    let digit = |c: char| c.is_ascii_digit();
    line = pairs(&line, |a, b| {
        (!digit(a) && point(b)).then(|| vec![a, ' ', b, ' '])
    });
    line = pairs(&line, |a, b| {
        (point(a) && !digit(b)).then(|| vec![' ', a, ' ', b])
    });
    line = pairs(&line, |a, b| {
        (digit(a) && b == '-').then(|| vec![a, ' ', b, ' '])
    });
    let line: String = line.into_iter().collect();
    line.split_whitespace().map(str::to_owned).collect()
}

fn is_sign(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

/// Replaces pairs of neighbours from left to right; what was replaced is not looked at again.
fn pairs(line: &[char], replace: impl Fn(char, char) -> Option<Vec<char>>) -> Vec<char> {
    let mut out = Vec::with_capacity(line.len() + 8);
    let mut rest = line;
    while let [first, more @ ..] = rest {
        match more.first().and_then(|second| replace(*first, *second)) {
            Some(replaced) => {
                out.extend(replaced);
                rest = &more[1..];
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}
