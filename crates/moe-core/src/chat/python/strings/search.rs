//! Places in a `str`, which Python counts in characters.

/// The part of a text that is searched.
pub(super) struct Window<'a> {
    pub(super) text: &'a str,
    /// Characters before it.
    before: usize,
}

/// `text[start:end]`; none where that begins beyond its end, in which not even an empty text is found.
pub(super) fn window(text: &str, start: Option<i64>, end: Option<i64>) -> Option<Window<'_>> {
    let length = text.chars().count();
    let place = |place: i64| match usize::try_from(place) {
        Ok(place) => place,
        Err(_) => length.saturating_sub(usize::try_from(place.unsigned_abs()).unwrap_or(length)),
    };
    let start = start.map_or(0, place);
    let end = end.map_or(length, place).min(length);
    if start > end {
        return None;
    }
    let byte = |place: usize| {
        text.char_indices()
            .nth(place)
            .map_or(text.len(), |(byte, _)| byte)
    };
    Some(Window {
        text: &text[byte(start)..byte(end)],
        before: start,
    })
}

impl Window<'_> {
    /// Where `part` first (or last) stands in the whole text.
    pub(super) fn find(&self, part: &str, last: bool) -> Option<usize> {
        let byte = match last {
            true => self.text.rfind(part),
            false => self.text.find(part),
        };
        Some(self.before + self.text[..byte?].chars().count())
    }

    /// How often `part` stands in it, without overlaps.
    pub(super) fn count(&self, part: &str) -> usize {
        self.text.matches(part).count()
    }
}

/// `text` with the first `count` of `old` (all where that is negative) as `new`.
pub(super) fn replace(text: &str, old: &str, new: &str, count: Option<i64>) -> String {
    match count.map(usize::try_from) {
        Some(Ok(count)) => text.replacen(old, new, count),
        None | Some(Err(_)) => text.replace(old, new),
    }
}

/// How long [`replace`] makes a text, at most.
pub(super) fn replaced_length(text: &str, old: &str, new: &str, count: Option<i64>) -> usize {
    let count = count.and_then(|count| usize::try_from(count).ok());
    let places = text.matches(old).take(count.unwrap_or(usize::MAX)).count();
    text.len().saturating_add(places.saturating_mul(new.len()))
}
