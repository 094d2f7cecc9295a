//! Special tokens as the files beside a tokenizer name them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::folder::read_text;
use crate::error::{Error, Result};
use crate::tokenizer::{Matching, NamedToken};

/// What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// By key (`eos_token`): the token, or that there is none.
    by_key: BTreeMap<String, Option<NamedToken>>,
    /// Every token that is named anywhere: in the order of their ids, as they were given; those without one come last.
    tokens: Vec<NamedToken>,
}

/// Keys that name one control token each.
const KEYS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
/// Keys that name several, as a list or by name (transformers 4 and 5).
const LISTS: [&str; 3] = [
    "additional_special_tokens",
    "extra_special_tokens",
    "model_specific_special_tokens",
];

impl Named {
    /// Reads the files that are there. As in transformers, the older two are passed over where the first lists its tokens by id, and
    /// what the first file says of a key holds.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut named = Self::default();
        let mut listed = Vec::new();
        let mut many: BTreeMap<&str, Vec<NamedToken>> = BTreeMap::new();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let file = dir.join(name);
            let Some(map) = object(&file)? else { continue };
            for key in KEYS {
                if let Some(value) = map.get(key) {
                    let token = token(value, &file, key)?;
                    named.by_key.entry(key.into()).or_insert(token);
                }
            }
            for key in LISTS {
                if let Some(value) = map.get(key) {
                    let tokens = several(value, &file, key)?;
                    many.entry(key).or_insert(tokens);
                }
            }
            if let Some(value) = map.get("added_tokens_decoder") {
                listed = by_id(value, &file)?;
                break;
            }
        }
        if listed.is_empty() {
            listed = ids(&dir.join("added_tokens.json"))?;
        }
        listed.sort_by_key(|token| token.id);
        listed.extend(named.by_key.values().flatten().cloned());
        listed.extend(many.into_values().flatten());
        named.tokens = listed;
        Ok(named)
    }

    /// Every token that is named.
    pub(super) fn tokens(&self) -> &[NamedToken] {
        &self.tokens
    }

    /// What is said of a key: a token, or that there is none.
    pub(super) fn get(&self, key: &str) -> Option<Option<&NamedToken>> {
        self.by_key.get(key).map(Option::as_ref)
    }
}

fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.exists() {
        return Ok(None);
    }
    match serde_json::from_str(&read_text(path)?) {
        Ok(Value::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(Error::file(path, "expected a JSON object")),
        Err(error) => Err(Error::file(path, format!("not valid JSON: {error}"))),
    }
}

/// A token is written as its text, or as an object that holds it; `null` and a blank one are none.
fn token(value: &Value, file: &Path, key: &str) -> Result<Option<NamedToken>> {
    let content = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.as_str(),
        value => value["content"].as_str().ok_or_else(|| {
            let message =
                format!("expected a token: its text, or an object with `content`; found {value}");
            Error::config(file, key, message)
        })?,
    };
    let flag = |name: &str| value[name].as_bool();
    Ok((!content.is_empty()).then(|| NamedToken {
        content: content.to_owned(),
        id: None,
        special: true,
        matching: Matching {
            single_word: flag("single_word"),
            lstrip: flag("lstrip"),
            rstrip: flag("rstrip"),
            normalized: flag("normalized"),
        },
        file: file.into(),
        key: key.into(),
    }))
}

/// A list of tokens, or an object of tokens by name.
fn several(value: &Value, file: &Path, key: &str) -> Result<Vec<NamedToken>> {
    let tokens: Vec<Option<NamedToken>> = match value {
        Value::Null => Vec::new(),
        Value::Array(tokens) => (tokens.iter())
            .map(|value| token(value, file, key))
            .collect::<Result<_>>()?,
        Value::Object(tokens) => (tokens.iter())
            .map(|(name, value)| token(value, file, &format!("{key}.{name}")))
            .collect::<Result<_>>()?,
        other => {
            let message = format!("expected a list of tokens, or an object of them; found {other}");
            return Err(Error::config(file, key, message));
        }
    };
    Ok(tokens.into_iter().flatten().collect())
}

/// `added_tokens_decoder`: tokens by their ids, which say themselves whether they are special.
fn by_id(value: &Value, file: &Path) -> Result<Vec<NamedToken>> {
    const KEY: &str = "added_tokens_decoder";
    let refuse = |key: &str, message: &str| Err(Error::config(file, key, message));
    let Value::Object(tokens) = value else {
        return refuse(KEY, "expected an object of tokens by their ids");
    };
    let mut listed = Vec::new();
    for (id, value) in tokens {
        let key = format!("{KEY}.{id}");
        let Ok(id) = id.parse() else {
            return refuse(&key, "expected a token's id as the key");
        };
        if let Some(token) = token(value, file, &key)? {
            listed.push(NamedToken {
                id: Some(id),
                special: value["special"].as_bool().unwrap_or(false),
                ..token
            });
        }
    }
    Ok(listed)
}

/// `added_tokens.json`: ids by their tokens.
fn ids(file: &Path) -> Result<Vec<NamedToken>> {
    let tokens = object(file)?.unwrap_or_default().into_iter();
    let token = |(content, id): (String, Value)| {
        let Some(said) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
            let message = format!("expected a token's id, found {id}");
            return Err(Error::config(file, content, message));
        };
        Ok(NamedToken {
            id: Some(said),
            special: false,
            matching: Matching::default(),
            file: file.into(),
            key: content.clone(),
            content,
        })
    };
    tokens.map(token).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is named where these files are.
    fn read(files: &[(&str, &str)]) -> Result<Named> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Named::read(dir.path())
    }

    /// `content`, id and whether it is special, of all.
    fn tokens(named: &Named) -> Vec<(&str, Option<u32>, bool)> {
        let tokens = named.tokens().iter();
        tokens
            .map(|token| (token.content.as_str(), token.id, token.special))
            .collect()
    }

    #[test]
    fn a_token_that_is_named_by_any_key_is_special() {
        let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": true}, "unk_token": null, "pad_token": "",
            "additional_special_tokens": ["<a>", {"content": "<b>"}], "extra_special_tokens": {"image_token": "<i>"}, "model_max_length": 5}"#;
        let named = read(&[("tokenizer_config.json", config)]).unwrap();
        let special = |content| (content, None, true);
        assert_eq!(
            tokens(&named),
            ["<s>", "</s>", "<a>", "<b>", "<i>"].map(special)
        );
        assert_eq!(named.tokens()[1].matching.lstrip, Some(true));
        let content = |key| {
            named
                .get(key)
                .map(|token| token.map(|token| token.content.as_str()))
        };
        assert_eq!(content("eos_token"), Some(Some("</s>")));
        assert_eq!(
            content("unk_token"),
            Some(None),
            "it says that there is none"
        );
        assert_eq!(content("cls_token"), None, "it says nothing");
        let list = r#"{"extra_special_tokens": ["<v5>"]}"#;
        let named = read(&[("tokenizer_config.json", list)]).unwrap();
        assert_eq!(tokens(&named), [special("<v5>")]);
    }

    #[test]
    fn listed_tokens_come_in_the_order_of_their_ids_and_older_files_are_read_without_such_a_list() {
        let list = r#"{"eos_token": "</s>", "added_tokens_decoder": {"10": {"content": "<j>", "special": true}, "9": {"content": "<i>"}}}"#;
        let map = (
            "special_tokens_map.json",
            r#"{"eos_token": "<old>", "bos_token": "<s>"}"#,
        );
        let ids = ("added_tokens.json", r#"{"<k>": 7}"#);
        let named = read(&[("tokenizer_config.json", list), map, ids]).unwrap();
        let expected = [
            ("<i>", Some(9), false),
            ("<j>", Some(10), true),
            ("</s>", None, true),
        ];
        assert_eq!(tokens(&named), expected);
        let named = read(&[
            ("tokenizer_config.json", r#"{"eos_token": "</s>"}"#),
            map,
            ids,
        ])
        .unwrap();
        let expected = [
            ("<k>", Some(7), false),
            ("<s>", None, true),
            ("</s>", None, true),
        ];
        assert_eq!(
            tokens(&named),
            expected,
            "what the first file says of a key holds"
        );
    }

    #[test]
    fn what_is_no_token_is_refused_by_file_and_key() {
        for (text, place) in [
            (r#"{"eos_token": 5}"#, "tokenizer_config.json: `eos_token`"),
            (
                r#"{"extra_special_tokens": "<a>"}"#,
                "`extra_special_tokens`",
            ),
            (
                r#"{"extra_special_tokens": {"x": 5}}"#,
                "`extra_special_tokens.x`",
            ),
            (r#"{"added_tokens_decoder": []}"#, "`added_tokens_decoder`"),
            (
                r#"{"added_tokens_decoder": {"x": "<a>"}}"#,
                "`added_tokens_decoder.x`",
            ),
            ("[]", "expected a JSON object"),
        ] {
            let message = read(&[("tokenizer_config.json", text)])
                .unwrap_err()
                .to_string();
            assert!(message.contains(place), "{message}");
        }
        let message = read(&[("added_tokens.json", r#"{"<k>": -1}"#)])
            .unwrap_err()
            .to_string();
        assert!(message.contains("added_tokens.json: `<k>`"), "{message}");
    }
}
