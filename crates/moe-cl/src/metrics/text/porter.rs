//! Stems of English words: Porter's algorithm (1980) with the extensions that NLTK makes by default, which `rouge-score` uses.

/// Words that the rules would get wrong, and their stems.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// The stem of a word in lower-case ASCII.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).into();
    }
    if word.len() <= 2 {
        return word.into();
    }
    let word = plural(word);
    let word = past(&word);
    let word = final_y(word);
    let word = double_suffix(&word);
    let word = suffix(&word);
    let word = last_suffix(&word);
    final_l(final_e(word))
}

fn is_consonant(word: &[u8], index: usize) -> bool {
    match word[index] {
        b'a' | b'e' | b'i' | b'o' | b'u' => false,
        b'y' => index == 0 || !is_consonant(word, index - 1),
        _ => true,
    }
}

/// How often vowels are followed by consonants.
fn measure(stem: &str) -> usize {
    let bytes = stem.as_bytes();
    let kinds: Vec<bool> = (0..bytes.len())
        .map(|index| is_consonant(bytes, index))
        .collect();
    kinds.windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn contains_vowel(stem: &str) -> bool {
    (0..stem.len()).any(|index| !is_consonant(stem.as_bytes(), index))
}

fn ends_double_consonant(word: &str) -> bool {
    let bytes = word.as_bytes();
    let length = bytes.len();
    length >= 2 && bytes[length - 1] == bytes[length - 2] && is_consonant(bytes, length - 1)
}

/// Consonant, vowel, consonant that is not w, x or y; or of two letters vowel and consonant.
fn ends_cvc(word: &str) -> bool {
    let (bytes, length) = (word.as_bytes(), word.len());
    let consonant = |back: usize| is_consonant(bytes, length - back);
    match length {
        0 | 1 => false,
        2 => !consonant(2) && consonant(1),
        _ => consonant(3) && !consonant(2) && consonant(1) && !b"wxy".contains(&bytes[length - 1]),
    }
}

/// The first rule whose suffix the word has decides, whether its condition holds or not.
fn apply(word: &str, rules: &[(&str, &str)], condition: impl Fn(&str, &str) -> bool) -> String {
    for (suffix, replacement) in rules {
        if let Some(stem) = word.strip_suffix(suffix) {
            return match condition(stem, suffix) {
                true => format!("{stem}{replacement}"),
                false => word.into(),
            };
        }
    }
    word.into()
}

/// Step 1a.
fn plural(word: &str) -> String {
    if word.len() == 4 && word.ends_with("ies") {
        return word[..3].into();
    }
    let rules = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];
    apply(word, &rules, |_, _| true)
}

/// Step 1b.
fn past(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        return format!("{stem}{}", if word.len() == 4 { "ie" } else { "i" });
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 {
            format!("{stem}ee")
        } else {
            word.into()
        };
    }
    let stems = ["ed", "ing"]
        .iter()
        .filter_map(|suffix| word.strip_suffix(suffix));
    let Some(stem) = stems.into_iter().find(|stem| contains_vowel(stem)) else {
        return word.into();
    };
    for (suffix, replacement) in [("at", "ate"), ("bl", "ble"), ("iz", "ize")] {
        if let Some(stem) = stem.strip_suffix(suffix) {
            return format!("{stem}{replacement}");
        }
    }
    if ends_double_consonant(stem) {
        let keeps = stem.ends_with(['l', 's', 'z']);
        return if keeps {
            stem.into()
        } else {
            stem[..stem.len() - 1].into()
        };
    }
    match measure(stem) == 1 && ends_cvc(stem) {
        true => format!("{stem}e"),
        false => stem.into(),
    }
}

/// Step 1c.
fn final_y(word: String) -> String {
    match word.strip_suffix('y') {
        Some(stem) if stem.len() > 1 && is_consonant(stem.as_bytes(), stem.len() - 1) => {
            format!("{stem}i")
        }
        _ => word,
    }
}

/// Step 2.
fn double_suffix(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("alli").filter(|stem| measure(stem) > 0) {
        return double_suffix(&format!("{stem}al"));
    }
    const RULES: [(&str, &str); 22] = [
        ("ational", "ate"),
        ("tional", "tion"),
        ("enci", "ence"),
        ("anci", "ance"),
        ("izer", "ize"),
        ("bli", "ble"),
        ("alli", "al"),
        ("entli", "ent"),
        ("eli", "e"),
        ("ousli", "ous"),
        ("ization", "ize"),
        ("ation", "ate"),
        ("ator", "ate"),
        ("alism", "al"),
        ("iveness", "ive"),
        ("fulness", "ful"),
        ("ousness", "ous"),
        ("aliti", "al"),
        ("iviti", "ive"),
        ("biliti", "ble"),
        ("fulli", "ful"),
        ("logi", "log"),
    ];
    apply(word, &RULES, |stem, suffix| match suffix {
        // The l belongs to the stem here.
        "logi" => measure(&word[..word.len() - 3]) > 0,
        _ => measure(stem) > 0,
    })
}

/// Step 3.
fn suffix(word: &str) -> String {
    const RULES: [(&str, &str); 7] = [
        ("icate", "ic"),
        ("ative", ""),
        ("alize", "al"),
        ("iciti", "ic"),
        ("ical", "ic"),
        ("ful", ""),
        ("ness", ""),
    ];
    apply(word, &RULES, |stem, _| measure(stem) > 0)
}

/// Step 4.
fn last_suffix(word: &str) -> String {
    const RULES: [(&str, &str); 19] = [
        ("al", ""),
        ("ance", ""),
        ("ence", ""),
        ("er", ""),
        ("ic", ""),
        ("able", ""),
        ("ible", ""),
        ("ant", ""),
        ("ement", ""),
        ("ment", ""),
        ("ent", ""),
        ("ion", ""),
        ("ou", ""),
        ("ism", ""),
        ("ate", ""),
        ("iti", ""),
        ("ous", ""),
        ("ive", ""),
        ("ize", ""),
    ];
    apply(word, &RULES, |stem, suffix| {
        measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't']))
    })
}

/// Step 5a.
fn final_e(word: String) -> String {
    match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || (measure(stem) == 1 && !ends_cvc(stem)) => stem.into(),
        _ => word,
    }
}

/// Step 5b.
fn final_l(word: String) -> String {
    match word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        true => word[..word.len() - 1].into(),
        false => word,
    }
}
