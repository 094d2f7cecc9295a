//! Special tokens as the files beside a tokenizer name them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::Checkpoint;
use super::folder::read_text;
use crate::chat::{ChatTemplate, SpecialTokens};
use crate::error::{Error, Result};
use crate::tokenizer::{AddedToken, Tokenizer};

/// What a folder's `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// By key (`eos_token`): the spelling, or that there is none.
    tokens: BTreeMap<String, Option<String>>,
    /// Tokens that the tokenizer has besides those of `tokenizer.json`.
    pub(super) added: Vec<AddedToken>,
}

const KEYS: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];

impl Named {
    /// Reads the files that are there.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut named = Self::default();
        // What the first file says of a key holds.
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let Some(map) = object(&dir.join(name))? else {
                continue;
            };
            for key in KEYS {
                if let Some(value) = map.get(key) {
                    let token = spelling(value);
                    named.tokens.entry(key.into()).or_insert(token);
                }
            }
            if let Some(Value::Object(added)) = map.get("added_tokens_decoder") {
                named.added.extend(added.iter().filter_map(|(id, token)| {
                    Some(AddedToken {
                        content: token["content"].as_str()?.to_owned(),
                        id: Some(id.parse().ok()?),
                        special: token["special"].as_bool().unwrap_or(false),
                    })
                }));
            }
            for key in ["additional_special_tokens", "extra_special_tokens"] {
                let more: Vec<&Value> = match map.get(key) {
                    Some(Value::Array(list)) => list.iter().collect(),
                    // By the name of the attribute that transformers gives it.
                    Some(Value::Object(named)) => named.values().collect(),
                    _ => Vec::new(),
                };
                let more = more.into_iter().filter_map(spelling);
                named.added.extend(more.map(AddedToken::control));
            }
        }
        if let Some(map) = object(&dir.join("added_tokens.json"))? {
            named.added.extend(map.iter().filter_map(|(content, id)| {
                Some(AddedToken {
                    content: content.clone(),
                    id: Some(u32::try_from(id.as_u64()?).ok()?),
                    special: false,
                })
            }));
        }
        // In the order of their ids, as they were given; those without one come last.
        named
            .added
            .sort_by_key(|token| token.id.map_or(u64::MAX, u64::from));
        Ok(named)
    }

    /// Control tokens by their role (`eos_token`).
    pub(super) fn roles(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.tokens.iter();
        named.filter_map(|(key, token)| Some((key.as_str(), token.as_deref()?)))
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

/// A token is written as its text, or as an object that holds it.
fn spelling(value: &Value) -> Option<String> {
    let text = value.as_str().or(value["content"].as_str())?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// What ends an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerEnds {
    /// All tokens on which an answer stops; the first is the one that training writes.
    tokens: Vec<u32>,
}

impl AnswerEnds {
    /// Ends in this order, each once.
    pub fn new(tokens: impl IntoIterator<Item = u32>) -> Self {
        let mut ends = Self::default();
        for token in tokens {
            if !ends.tokens.contains(&token) {
                ends.tokens.push(token);
            }
        }
        ends
    }

    /// The token that training writes after an answer.
    ///
    /// # Errors
    /// There is none, and the message says the ways out.
    pub fn first(&self) -> Result<u32> {
        self.tokens.first().copied().ok_or_else(|| {
            let message = "nothing ends an answer: the base has no chat template that writes a special token after one, no eos_token in \
                           tokenizer_config.json and no eos_token_id in config.json; give it one of them";
            Error::Tokenizer(message.into())
        })
    }

    /// The tokens on which an answer stops.
    pub fn all(&self) -> &[u32] {
        &self.tokens
    }
}

impl Checkpoint {
    /// The special tokens, as the files beside the tokenizer spell them; of those that no file names, what the settings' ids spell.
    pub fn special_tokens(&self, tokenizer: &Tokenizer) -> SpecialTokens {
        let config = self.config();
        let token = |key: &str, id: Option<u32>| match self.named.tokens.get(key) {
            Some(named) => named.clone(),
            None => id.and_then(|id| tokenizer.token(id)),
        };
        SpecialTokens {
            bos: token("bos_token", config.bos_token_id),
            eos: token("eos_token", config.eos_token_ids.first().copied()),
            pad: token("pad_token", config.pad_token_id),
            unk: token("unk_token", None),
        }
    }

    /// What ends an answer: what the chat template writes after one, the tokenizer's end of text, the settings' ends.
    ///
    /// # Errors
    /// The tokenizer refuses what the template writes.
    pub fn answer_ends(
        &self,
        tokenizer: &Tokenizer,
        chat: Option<&ChatTemplate>,
    ) -> Result<AnswerEnds> {
        let template = chat.map(|chat| chat.end_of_answer(tokenizer)).transpose()?;
        let eos = self.special_tokens(tokenizer).eos;
        let eos = eos.and_then(|eos| tokenizer.token_id(&eos));
        let settings = self.config().eos_token_ids.iter().copied();
        Ok(AnswerEnds::new(
            template.flatten().into_iter().chain(eos).chain(settings),
        ))
    }

    /// The chat template with the tokens that it may write, where the checkpoint has one.
    ///
    /// # Errors
    /// It does not parse.
    pub fn chat(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>> {
        let special = self.special_tokens(tokenizer);
        let source = self.chat_template();
        source
            .map(|source| ChatTemplate::new(source, &special))
            .transpose()
    }
}
