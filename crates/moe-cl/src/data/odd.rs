//! What is odd about data and can be used all the same.

use std::{collections::BTreeSet, path::Path};

use super::Row;

/// Two labels that people would take for one: they differ in case, in spaces, or in how the same letters are encoded.
pub(super) fn alike(labels: &[String]) -> Option<(&str, &str)> {
    let look = |label: &str| -> String {
        let letters = label
            .chars()
            .filter(|c| !c.is_whitespace() && !is_invisible(*c));
        letters.flat_map(char::to_lowercase).collect()
    };
    labels.iter().enumerate().find_map(|(index, label)| {
        let earlier = labels[..index].iter();
        let twin = earlier
            .clone()
            .find(|earlier| look(earlier) == look(label))?;
        Some((twin.as_str(), label.as_str()))
    })
}

/// Joiners, marks of direction and the like.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{feff}')
}

/// What is to be said of `rows` that lack one of the labels.
pub(super) fn missing(labels: &[String], rows: &[Row]) -> Option<String> {
    let there: BTreeSet<&str> = rows.iter().map(|row| row.record.answer()).collect();
    let missing = labels
        .iter()
        .filter(|label| !there.contains(label.as_str()));
    let missing: Vec<String> = missing.map(|label| format!("`{label}`")).collect();
    if missing.is_empty() || there.is_empty() {
        return None;
    }
    let (first, missing) = (there.first()?, missing.join(", "));
    Some(match there.len() {
        1 => format!("are all `{first}`: a model that always says so scores 1; none is {missing}"),
        _ => format!("hold no {missing}: the score says nothing of it"),
    })
}

/// A note of the keys of a file that are passed over; none where every key is read.
pub(super) fn passed_over(path: &Path, keys: &BTreeSet<String>) -> Option<String> {
    let quoted: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    (!keys.is_empty()).then(|| format!("{}: not read: {}", path.display(), quoted.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_people_take_for_one_are_alike() {
        let pair = |a: &str, b: &str| alike(&[a.into(), "other".into(), b.into()]).is_some();
        for (a, b) in [
            ("x", "x "),
            ("Spam", "spam"),
            ("a b", "ab"),
            ("x", "x\u{200b}"),
        ] {
            assert!(pair(a, b), "{a:?} {b:?}");
        }
        assert!(!pair("x", "y") && !pair("not spam", "spam"));
    }
}
