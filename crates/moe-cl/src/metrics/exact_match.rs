//! Answers compared as text, as the MoE-CL authors' evaluation does.

/// The authors' normalisation of an answer: lower case, ASCII punctuation removed, white space collapsed.
///
/// White space is what Python's `str.split` takes for it: Unicode's, and the four separators U+001C to U+001F.
/// Typographic quotes and accents stay.
pub fn normalise(answer: &str) -> String {
    let bare: String = answer
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let words = bare.split(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c));
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether two answers are the same after [`normalise`].
pub fn same_answer(prediction: &str, reference: &str) -> bool {
    normalise(prediction) == normalise(reference)
}

/// Number of predictions that are the [`same_answer`] as the reference at their place.
///
/// # Panics
/// When there are not as many predictions as references.
pub fn exact_matches<P: AsRef<str>, R: AsRef<str>>(predictions: &[P], references: &[R]) -> usize {
    assert_eq!(
        predictions.len(),
        references.len(),
        "a prediction for every reference"
    );
    predictions
        .iter()
        .zip(references)
        .filter(|(p, r)| same_answer(p.as_ref(), r.as_ref()))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_and_spacing_do_not_matter() {
        assert!(same_answer("  Very\u{a0} negative!\u{1c}", "very negative"));
        assert!(same_answer("a-b", "ab"));
    }

    #[test]
    fn words_and_accents_do_matter() {
        assert_eq!(
            exact_matches(&["naïve", "the answer is x", "x."], &["naive", "x", "x"]),
            1
        );
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for text in ["", " A  b. ", "“Quoted”", "tab\there"] {
            assert_eq!(normalise(&normalise(text)), normalise(text));
        }
    }
}
