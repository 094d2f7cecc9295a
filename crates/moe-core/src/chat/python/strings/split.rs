//! `str` taken apart.

use super::classes::is_space;

/// Pieces between `separator`, at most `most` cuts, from the end on where `last` is set.
pub(super) fn at<'a>(
    text: &'a str,
    separator: &str,
    most: Option<i64>,
    last: bool,
) -> Vec<&'a str> {
    // A negative number of cuts is no limit.
    let most = most.and_then(|most| usize::try_from(most).ok());
    let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
    if !last {
        return text.splitn(most, separator).collect();
    }
    let mut pieces: Vec<&str> = text.rsplitn(most, separator).collect();
    pieces.reverse();
    pieces
}

/// Words between white space. What is left after `most` cuts keeps its own, but for that at the cut and at the far end.
pub(super) fn at_space(text: &str, most: Option<i64>, last: bool) -> Vec<&str> {
    let most = most.and_then(|most| usize::try_from(most).ok());
    let most = most.unwrap_or(usize::MAX);
    let near = |text: &'_ str| -> usize {
        match last {
            false => text.len() - text.trim_start_matches(is_space).len(),
            true => text.trim_end_matches(is_space).len(),
        }
    };
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let edge = near(rest);
        rest = if last { &rest[..edge] } else { &rest[edge..] };
        if rest.is_empty() {
            break;
        }
        let cut = match last {
            _ if pieces.len() == most => None,
            false => rest.find(is_space).map(|place| rest.split_at(place)),
            true => rest
                .char_indices()
                .rfind(|(_, c)| is_space(*c))
                .map(|(place, c)| {
                    let (before, word) = rest.split_at(place + c.len_utf8());
                    (word, before)
                }),
        };
        let Some((word, more)) = cut else {
            pieces.push(rest);
            break;
        };
        pieces.push(word);
        rest = more;
    }
    if last {
        pieces.reverse();
    }
    pieces
}

/// Lines, with what ends them where `keep` is set.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find(ends) {
        let end = match rest[place..].starts_with("\r\n") {
            true => 2,
            false => rest[place..].chars().next().map_or(0, char::len_utf8),
        };
        lines.push(&rest[..if keep { place + end } else { place }]);
        rest = &rest[place + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// What stands before and after the first (or last) `separator`, and that between them.
pub(super) fn partition<'a>(text: &'a str, separator: &'a str, last: bool) -> [&'a str; 3] {
    let parts = match last {
        true => text.rsplit_once(separator),
        false => text.split_once(separator),
    };
    match (parts, last) {
        (Some((before, after)), _) => [before, separator, after],
        (None, true) => ["", "", text],
        (None, false) => [text, "", ""],
    }
}
