use serde_json::{Map, Value, json};

use super::Tokenizer;
use super::limits;
use crate::checkpoint::gguf::GgufTokenizer;
use crate::error::{Error, Result};

/// Splitting rule of GPT-2.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Splitting rule of Llama 3; Qwen2's differs in the numbers only.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl GgufTokenizer {
    /// The same tokenizer as a `tokenizer.json`.
    pub(crate) fn to_json(&self) -> Result<Value> {
        if self.tokens.is_empty() {
            return Err(refused("the file holds no `tokenizer.ggml.tokens`"));
        }
        self.check_size()?;
        let (parts, bos_by_habit) = match self.model.as_str() {
            "gpt2" => self.byte_level()?,
            "llama" => (self.sentence_piece()?, true),
            other => {
                return Err(refused(format!(
                    "`tokenizer.ggml.model` is `{other}`; gpt2 and llama are supported. \
                     Put the model's own tokenizer.json beside the GGUF file: it is read instead"
                )));
            }
        };
        let mut json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_tokens(),
            "post_processor": self.post_processor(bos_by_habit)?,
        });
        for (key, value) in parts {
            json[key] = value;
        }
        Ok(json)
    }

    /// Byte-level BPE (GPT-2 and its descendants), and whether a begin token is its habit.
    fn byte_level(&self) -> Result<(Map<String, Value>, bool)> {
        let pre = self.pre.as_deref().unwrap_or("default");
        // Each is the `pre_tokenizer` of the Hugging Face model that llama.cpp named it after.
        let (steps, normalizer, whole_words, bos) = match pre {
            "gpt-2" => (vec![split(GPT2)], Value::Null, false, false),
            "smollm" => (
                vec![
                    json!({"type": "Digits", "individual_digits": true}),
                    split(GPT2),
                ],
                Value::Null,
                false,
                false,
            ),
            "llama-bpe" | "llama3" | "llama-v3" => (vec![split(LLAMA3)], Value::Null, true, true),
            "qwen2" => (vec![split(QWEN2)], json!({"type": "NFC"}), false, false),
            "default" => (
                [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"]
                    .map(split)
                    .to_vec(),
                Value::Null,
                false,
                false,
            ),
            other => {
                return Err(refused(format!(
                    "`tokenizer.ggml.pre` is `{other}`; gpt-2, smollm, llama-bpe, qwen2 and \
                     default are supported. Put the model's own tokenizer.json beside the GGUF \
                     file: it is read instead"
                )));
            }
        };
        let mut steps = steps;
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
        }));
        let parts = json!({
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": true, "trim_offsets": true, "use_regex": true
            },
            "model": {
                "type": "BPE",
                "vocab": self.vocab(),
                "merges": self.stored_merges()?,
                "ignore_merges": whole_words,
                "byte_fallback": false,
                "fuse_unk": false,
                "unk_token": null,
            },
        });
        Ok((object(parts), bos))
    }

    /// SentencePiece BPE (Llama 1 and 2, Mistral): the merges are all ways to put a token together
    /// from two others, the best-scored token first.
    fn sentence_piece(&self) -> Result<Map<String, Value>> {
        let merges = match self.merges.is_empty() {
            false => self.stored_merges()?,
            true => self.scored_merges()?,
        };
        let mut normalizers = vec![];
        if self.add_space_prefix.unwrap_or(true) {
            normalizers.push(json!({"type": "Prepend", "prepend": "▁"}));
        }
        normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}));
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.add_space_prefix.unwrap_or(true) {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(object(json!({
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE",
                "vocab": self.vocab(),
                "merges": merges,
                "ignore_merges": false,
                "byte_fallback": true,
                "fuse_unk": true,
                "unk_token": self.unknown.map(|id| self.spelling(id)).transpose()?,
            },
        })))
    }

    /// Refuses what no vocabulary of a model has, before anything is built from it.
    fn check_size(&self) -> Result<()> {
        let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
        let longest = self.tokens.iter().map(String::len).max().unwrap_or(0);
        for (what, found, most) in [
            ("the longest token has bytes", longest, limits::MAX_TOKEN),
            ("bytes of tokens", bytes(&self.tokens), limits::MAX_TEXT),
            ("bytes of merges", bytes(&self.merges), limits::MAX_TEXT),
            ("tokens", self.tokens.len(), limits::MAX_ID as usize + 1),
            ("merges", self.merges.len(), limits::MAX_MERGES),
        ] {
            if found > most {
                return Err(refused(format!(
                    "{what}: {found}; expected at most {most}: this is no vocabulary of a model"
                )));
            }
        }
        Ok(())
    }

    fn vocab(&self) -> Map<String, Value> {
        let ids = self.tokens.iter().enumerate();
        ids.map(|(id, token)| (token.clone(), json!(id))).collect()
    }

    /// Control tokens are special; user-defined ones are matched in text but kept when decoding.
    fn added_tokens(&self) -> Vec<Value> {
        let kinds = self.token_types.iter().flatten();
        (self.tokens.iter().zip(kinds).enumerate())
            .filter(|(_, (_, kind))| matches!(kind, 2..=4))
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "special": *kind != 4, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false,
                })
            })
            .collect()
    }

    fn post_processor(&self, bos_by_habit: bool) -> Result<Value> {
        let wanted = |wanted: bool, id: Option<u32>| match id {
            Some(id) if wanted => self.spelling(id).map(|token| Some((id, token))),
            _ => Ok(None),
        };
        let bos = wanted(self.add_bos.unwrap_or(bos_by_habit), self.bos)?;
        let eos = wanted(self.add_eos.unwrap_or(false), self.eos)?;
        if bos.is_none() && eos.is_none() {
            return Ok(Value::Null);
        }
        let around = |text: Value| {
            let special = |token: &Option<(u32, &str)>| {
                token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": 0}}))
            };
            [special(&bos), Some(text), special(&eos)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        let specials: Map<String, Value> = [bos, eos]
            .into_iter()
            .flatten()
            .map(|(id, token)| {
                let value = json!({"id": token, "ids": [id], "tokens": [token]});
                (token.to_string(), value)
            })
            .collect();
        let second = around(json!({"Sequence": {"id": "B", "type_id": 0}}));
        let mut pair = around(json!({"Sequence": {"id": "A", "type_id": 0}}));
        let single = pair.clone();
        pair.extend(second);
        Ok(json!({
            "type": "TemplateProcessing",
            "single": single, "pair": pair, "special_tokens": specials,
        }))
    }

    /// The first normal token that `other` spells otherwise. (Control tokens, and rows that are not used, go by several names.)
    pub(super) fn contradiction(&self, other: &Tokenizer) -> Option<Contradiction> {
        const NORMAL: i32 = 1;
        let kind = |id: usize| self.token_types.as_ref().map_or(NORMAL, |kinds| kinds[id]);
        let mut tokens = self.tokens.iter().enumerate();
        tokens.find_map(|(id, here)| {
            let id_there = u32::try_from(id).ok()?;
            let there = other.token(id_there);
            let differs = kind(id) == NORMAL && there.as_deref() != Some(here);
            differs.then(|| Contradiction {
                id: id_there,
                here: here.clone(),
                there,
            })
        })
    }

    fn spelling(&self, id: u32) -> Result<&str> {
        match self.tokens.get(id as usize) {
            Some(token) => Ok(token),
            None => Err(refused(format!(
                "special token {id} is beyond the {} tokens",
                self.tokens.len()
            ))),
        }
    }
}

/// A token that has two spellings.
pub(super) struct Contradiction {
    pub(super) id: u32,
    /// In the GGUF file.
    pub(super) here: String,
    /// In the other tokenizer, where that has one of this id.
    pub(super) there: Option<String>,
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

pub(super) fn refused(message: impl Into<String>) -> Error {
    Error::Tokenizer(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> GgufTokenizer {
        GgufTokenizer {
            model: String::new(),
            pre: None,
            tokens: vec![],
            scores: None,
            token_types: None,
            merges: vec![],
            bos: None,
            eos: None,
            unknown: None,
            padding: None,
            add_bos: None,
            add_eos: None,
            add_space_prefix: None,
        }
    }

    fn byte_level(pre: &str) -> GgufTokenizer {
        let mut tokens: Vec<String> = ["<|end|>", "<tool>"].map(String::from).to_vec();
        tokens.extend(('!'..='~').map(String::from));
        tokens.extend(["Ġ", "1", "Ġa", "ab", "12", "Ġab"].map(String::from));
        tokens.dedup();
        let mut token_types = vec![1; tokens.len()];
        (token_types[0], token_types[1]) = (3, 4);
        GgufTokenizer {
            model: "gpt2".into(),
            pre: Some(pre.into()),
            tokens,
            token_types: Some(token_types),
            merges: ["Ġ a", "a b", "1 2", "Ġa b"].map(String::from).to_vec(),
            bos: Some(0),
            ..empty()
        }
    }

    #[test]
    fn decoding_undoes_encoding_and_special_tokens_are_recognised() {
        for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2", "default"] {
            let tokenizer = Tokenizer::from_gguf(&byte_level(pre)).unwrap();
            let text = "ab ab<|end|> 12 c<tool>";
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{pre}");
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), "ab ab 12 c<tool>");
            assert!(ids.contains(&0) && ids.contains(&1));
        }
    }

    #[test]
    fn smollm_splits_digits_and_gpt2_does_not() {
        let digits = |pre| {
            let tokenizer = Tokenizer::from_gguf(&byte_level(pre)).unwrap();
            tokenizer.encode("12", false).unwrap().len()
        };
        assert_eq!((digits("smollm"), digits("gpt-2")), (2, 1));
    }

    #[test]
    fn the_begin_token_is_added_only_when_asked_for() {
        let mut vocabulary = byte_level("gpt-2");
        vocabulary.add_bos = Some(true);
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        let bare = tokenizer.encode("ab", false).unwrap();
        assert_eq!(
            tokenizer.encode("ab", true).unwrap(),
            [vec![0], bare].concat()
        );
    }

    #[test]
    fn sentence_piece_merges_by_score_and_falls_back_to_bytes() {
        let tokens = [
            "<unk>", "<s>", "▁", "a", "b", "ab", "▁ab", "<0xC3>", "<0xA9>",
        ];
        let tokenizer = Tokenizer::from_gguf(&GgufTokenizer {
            model: "llama".into(),
            tokens: tokens.map(String::from).to_vec(),
            token_types: Some(vec![2, 3, 1, 1, 1, 1, 1, 6, 6]),
            scores: Some(vec![0.0, 0.0, -3.0, -4.0, -5.0, -1.0, -2.0, 0.0, 0.0]),
            bos: Some(1),
            unknown: Some(0),
            ..empty()
        })
        .unwrap();
        let ids = tokenizer.encode("ab é", true).unwrap();
        assert_eq!(ids, [1, 6, 2, 7, 8]);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "ab é");
    }

    #[test]
    fn a_vocabulary_that_no_model_has_is_refused_before_it_is_built() {
        let scored = |tokens: Vec<String>| GgufTokenizer {
            model: "llama".into(),
            scores: Some(vec![0.0; tokens.len()]),
            tokens,
            ..empty()
        };
        let long = vec!["a".repeat(limits::MAX_TOKEN + 1)];
        let lengths = (1..=limits::MAX_TOKEN).rev().map(|it| "a".repeat(it));
        let each_in_all_ways = (1..2500).map(|it| "a".repeat(it));
        for (tokens, expected) in [
            (long, "the longest token has bytes"),
            (lengths.collect(), "comparisons"),
            (each_in_all_ways.take(1200).collect(), "ways"),
        ] {
            let start = std::time::Instant::now();
            let message = Tokenizer::from_gguf(&scored(tokens))
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{message}");
            assert!(start.elapsed().as_secs() < 5);
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_by_name() {
        for (model, pre) in [("gpt2", "tekken"), ("bert", "default")] {
            let vocabulary = GgufTokenizer {
                model: model.into(),
                ..byte_level(pre)
            };
            let message = Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string();
            assert!(
                message.contains("tekken") || message.contains("bert"),
                "{message}"
            );
        }
    }
}
