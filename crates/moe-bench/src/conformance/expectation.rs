//! What the note next to a hostile file asks for.

/// What has to happen when a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It loads.
    Loads,
    /// It is refused with an error of ours.
    Refused,
    /// Either, as long as nothing crashes, hangs or asks for a lot of memory.
    Either,
}

/// Words by which a note leaves the choice to the reader.
const LENIENT: [&str; 15] = [
    "any outcome",
    "may load",
    "either",
    "tolerable",
    "error recommended",
    "error is fine",
    "unsupported is fine",
    "lenient readers load",
    "loads in the reference",
    "or a clear error",
    "or clear error",
    "or error",
    "error or",
    "or is refused",
    "keep or reject",
];

impl Expected {
    /// Reads a note such as `valid, must load`, `cut in the middle` or `100 extra bytes (may load)`.
    /// A note that says nothing of loading asks for an error.
    pub fn read(note: &str) -> Self {
        let note = note.trim().to_lowercase();
        if LENIENT.iter().any(|word| note.contains(word)) || note.starts_with("no rows") {
            Self::Either
        } else if note.starts_with("valid")
            || note.starts_with("loads")
            || note.contains("must load")
            || rows_only(&note)
        {
            Self::Loads
        } else {
            Self::Refused
        }
    }
}

/// `…: 5 rows` at the end of a note: the file loads with that many rows.
fn rows_only(note: &str) -> bool {
    note.rsplit(": ").next().is_some_and(|last| {
        last.strip_suffix(" rows")
            .or(last.strip_suffix(" row"))
            .is_some_and(is_number)
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number next to a word: `line 3: no text` and `line` → 3, `loads: 5 rows` and `rows` → 5.
pub fn number_near(note: &str, word: &str) -> Option<usize> {
    let words: Vec<&str> = note
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let at = words
        .iter()
        .position(|found| found.eq_ignore_ascii_case(word))?;
    let neighbour = |index: Option<usize>| {
        index
            .and_then(|index| words.get(index))
            .and_then(|word| word.parse().ok())
    };
    neighbour(Some(at + 1)).or_else(|| neighbour(at.checked_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_says_nothing_of_loading_asks_for_an_error() {
        for note in [
            "cut in the middle",
            "line 3: broken JSON",
            "",
            "arrays nested deep (a recursive reader may overflow its stack)",
        ] {
            assert_eq!(Expected::read(note), Expected::Refused, "{note}");
        }
    }

    #[test]
    fn valid_files_must_load() {
        for note in [
            "valid, must load",
            "loads: 5 rows",
            "authors' format: 5 rows",
            "valid file, one NaN in b: the file loads",
        ] {
            assert_eq!(Expected::read(note), Expected::Loads, "{note}");
        }
    }

    #[test]
    fn a_note_with_a_choice_leaves_it() {
        for note in [
            "100 extra bytes at the end (may load)",
            "random bytes changed: any outcome but a crash",
            "two tensors at the same place (error recommended; loading is tolerable)",
            "loads: 5 rows, blank lines skipped (or a clear error)",
            "no rows",
            "line 3: duplicate key (last wins or error)",
        ] {
            assert_eq!(Expected::read(note), Expected::Either, "{note}");
        }
    }

    #[test]
    fn numbers_are_found_on_either_side_of_their_word() {
        assert_eq!(number_near("line 3: no text", "line"), Some(3));
        assert_eq!(number_near("loads: 5 rows, blank", "rows"), Some(5));
        assert_eq!(number_near("broken", "line"), None);
    }
}
