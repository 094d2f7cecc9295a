//! `{% set name = value %}`: what a variable holds goes through a filter that refuses what has no bounds.

use crate::chat::python::HELD;

/// What stands in such a tag, with the filter put behind its value; none for other tags, and for one that takes its value from a block.
pub(super) fn bounded(inside: &str) -> Option<String> {
    let names = inside.trim_start_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
    let names = names.strip_prefix("set")?;
    if !names.starts_with(char::is_whitespace) {
        return None;
    }
    let (names, value) = names.split_once('=')?;
    if names.contains('|') {
        return None;
    }
    let start = &inside[..inside.len() - value.len()];
    let of_namespace = names.contains('.');
    let end = value.trim_end_matches(['-', '+']);
    let mark = &value[end.len()..];
    Some(format!("{start} ({end})|{HELD}({of_namespace}) {mark}"))
}
