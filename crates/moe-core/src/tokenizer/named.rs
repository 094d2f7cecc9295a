//! Tokens that the files beside a tokenizer name: which it has besides its own, and which are control tokens.

use std::collections::HashMap;
use std::path::PathBuf;

use tokenizers::AddedToken;

use super::{Tokenizer, failed};
use crate::error::{Error, Result};

/// A token as a file beside the tokenizer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedToken {
    /// Its spelling.
    pub(crate) content: String,
    /// Its id, where it is said.
    pub(crate) id: Option<u32>,
    /// Whether it is a control token.
    pub(crate) special: bool,
    /// How it is found in a text.
    pub(crate) matching: Matching,
    /// The file that names it, and under which key.
    pub(crate) file: PathBuf,
    pub(crate) key: String,
}

/// How a token is found in a text, where a file says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matching {
    pub(crate) single_word: Option<bool>,
    pub(crate) lstrip: Option<bool>,
    pub(crate) rstrip: Option<bool>,
    pub(crate) normalized: Option<bool>,
}

impl NamedToken {
    /// Whether texts cannot be read or written without it: not so the tokens for padding, unknown words and tasks of encoders.
    pub(crate) fn is_needed(&self) -> bool {
        const SPARE: [&str; 5] = [
            "unk_token",
            "sep_token",
            "pad_token",
            "cls_token",
            "mask_token",
        ];
        !SPARE.contains(&self.key.as_str())
    }

    /// The error that `message` is about it.
    pub(crate) fn refuse(&self, message: String) -> Error {
        Error::config(&self.file, &self.key, message)
    }

    /// What is said here, put into `token`. How a token of the tokenizer's own is matched is changed by a list of ids alone, as
    /// transformers has it: a mere name (`bos_token`) is not meant to.
    fn change(&self, token: &mut AddedToken, own: bool) {
        token.special |= self.special;
        if own && self.id.is_none() {
            return;
        }
        let Matching {
            single_word,
            lstrip,
            rstrip,
            normalized,
        } = self.matching;
        token.single_word = single_word.unwrap_or(token.single_word);
        token.lstrip = lstrip.unwrap_or(token.lstrip);
        token.rstrip = rstrip.unwrap_or(token.rstrip);
        token.normalized = normalized.unwrap_or(token.normalized);
    }
}

impl Tokenizer {
    /// With the tokens that are `named`: those that it lacks are added in this order, as transformers adds them, and a token that is
    /// named as a control token is one, whatever `tokenizer.json` says of it.
    ///
    /// # Errors
    ///
    /// A token has, or would get, another id than it says.
    pub(super) fn with(mut self, named: &[NamedToken]) -> Result<Self> {
        let decoder = self.inner.get_added_tokens_decoder();
        let own: HashMap<&str, &AddedToken> = decoder
            .values()
            .map(|token| (token.content.as_str(), token))
            .collect();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut tokens: Vec<AddedToken> = Vec::new();
        for name in named {
            let own = own.get(name.content.as_str()).copied();
            let place = *places.entry(&name.content).or_insert_with(|| {
                let fresh = || AddedToken::from(name.content.clone(), name.special);
                tokens.push(own.cloned().unwrap_or_else(fresh));
                tokens.len() - 1
            });
            name.change(&mut tokens[place], own.is_some());
        }
        tokens.retain(|token| own.get(token.content.as_str()) != Some(&token));
        if !tokens.is_empty() {
            self.inner.add_tokens(tokens).map_err(failed)?;
            let json = self.inner.to_string(false).map_err(failed)?;
            self = Self::from_json(json.as_bytes())?;
        }
        for name in named {
            let (said, has) = (name.id, self.token_id(&name.content));
            if said.is_some() && has != said {
                let has = has.map_or("none".into(), |id| id.to_string());
                return Err(name.refuse(format!(
                    "the token {:?} is to have this id, and in the tokenizer it has {has} (tokens that tokenizer.json lacks get the ids after its last, without a gap): the files are not of one model",
                    name.content
                )));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [{"id": 2, "content": "<z>", "special": false, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": true}],
            "model": {"type": "BPE", "vocab": {"a": 0, "<": 1, "<z>": 2, "z": 3, ">": 4, "<s>": 5, "s": 6}, "merges": []},
        });
        Tokenizer::from_json(&serde_json::to_vec(&json).unwrap()).unwrap()
    }

    fn named(content: &str, id: Option<u32>, special: bool) -> NamedToken {
        NamedToken {
            content: content.into(),
            id,
            special,
            matching: Matching::default(),
            file: "tokenizer_config.json".into(),
            key: "some_key".into(),
        }
    }

    #[test]
    fn a_token_that_any_file_calls_special_is_special() {
        let before = tokenizer();
        assert!(!before.is_special(2));
        assert!(before.encode_text("<z>", false).unwrap() == [2]);
        for tokens in [
            vec![named("<z>", Some(2), true)],
            vec![named("<z>", None, true)],
            vec![named("<z>", Some(2), false), named("<z>", None, true)],
            vec![named("<z>", None, true), named("<z>", Some(2), false)],
        ] {
            let after = before.clone().with(&tokens).unwrap();
            assert!(after.is_special(2), "{tokens:?}");
            assert_eq!(after.encode("<z>", false).unwrap(), [2]);
            assert_eq!(after.encode_text("<z>", false).unwrap(), [1, 3, 4]);
            assert_eq!(after.decode(&[0, 2], true).unwrap(), "a");
        }
        let after = before.with(&[named("<s>", None, true)]).unwrap();
        assert!(
            after.is_special(5),
            "a token of the vocabulary that no list names"
        );
        assert_eq!(after.encode("<s>", false).unwrap(), [5]);
        assert_eq!(after.vocab_size(), 7);
    }

    #[test]
    fn what_changes_nothing_leaves_the_hash_as_it_is() {
        let before = tokenizer();
        let hash = before.hash().unwrap();
        let same = before
            .clone()
            .with(&[named("<z>", Some(2), false)])
            .unwrap();
        assert_eq!(same.hash().unwrap(), hash);
        let other = before.with(&[named("<z>", None, true)]).unwrap();
        assert_ne!(other.hash().unwrap(), hash);
    }

    #[test]
    fn tokens_that_are_lacking_get_the_next_ids_and_a_gap_is_refused_by_file_and_key() {
        let tokens = [named("<p>", Some(7), false), named("<q>", None, true)];
        let after = tokenizer().with(&tokens).unwrap();
        assert_eq!(after.token_id("<p>"), Some(7));
        assert_eq!(after.token_id("<q>"), Some(8));
        assert!(after.is_special(8) && !after.is_special(7));
        for token in [named("<p>", Some(9), false), named("a", Some(3), false)] {
            let message = tokenizer().with(&[token]).unwrap_err().to_string();
            assert!(
                message.contains("tokenizer_config.json: `some_key`"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_list_of_ids_says_how_a_token_is_matched_and_a_name_does_not() {
        let strips = |id| {
            let mut token = named("<z>", id, true);
            token.matching.rstrip = Some(true);
            let tokenizer = tokenizer().with(&[token]).unwrap();
            tokenizer.inner.get_added_tokens_decoder()[&2].rstrip
        };
        assert!(strips(Some(2)) && !strips(None));
    }
}
