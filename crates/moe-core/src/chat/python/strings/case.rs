//! Upper and lower case of `str`.

/// `text` as a method without arguments changes it; none where it is no such method.
pub(super) fn change(text: &str, method: &str) -> Option<String> {
    Some(match method {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "capitalize" => {
            let mut chars = text.chars();
            let first = chars.next().map(title_case).unwrap_or_default();
            first + &chars.as_str().to_lowercase()
        }
        "title" => title(text),
        "swapcase" => {
            let swap = |c: char| -> String {
                match c.is_uppercase() {
                    true => c.to_lowercase().collect(),
                    false => c.to_uppercase().collect(),
                }
            };
            text.chars().map(swap).collect()
        }
        "casefold" => casefold(text),
        _ => return None,
    })
}

/// A letter that is upper, lower or title case.
pub(super) fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

/// The letters that stand for two, the first of them large.
pub(super) fn is_title(c: char) -> bool {
    matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
        | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

/// Words, in which every letter after something that is none begins one.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_cased) {
        let (before, word) = rest.split_at(start);
        out += before;
        let end = word.find(|c| !is_cased(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let mut letters = word.chars();
        out += &letters.next().map(title_case).unwrap_or_default();
        out += &letters.as_str().to_lowercase();
        rest = after;
    }
    out + rest
}

fn title_case(c: char) -> String {
    match c {
        '\u{149}' => "\u{2bc}N".into(),
        '\u{1c4}'..='\u{1c6}' => '\u{1c5}'.into(),
        '\u{1c7}'..='\u{1c9}' => '\u{1c8}'.into(),
        '\u{1ca}'..='\u{1cc}' => '\u{1cb}'.into(),
        '\u{1f1}'..='\u{1f3}' => '\u{1f2}'.into(),
        c => {
            let mut letters = c.to_uppercase();
            let first: String = letters.next().into_iter().collect();
            first + &letters.collect::<String>().to_lowercase()
        }
    }
}

/// For comparisons: as lower case, but for the letters whose upper case is several.
fn casefold(text: &str) -> String {
    let fold = |c: char| -> String {
        let upper: String = c.to_uppercase().collect();
        match c {
            'ς' => "σ".into(),
            _ if upper.chars().count() > 1 => upper.chars().flat_map(char::to_lowercase).collect(),
            c => c.to_lowercase().collect(),
        }
    };
    text.chars().map(fold).collect()
}
