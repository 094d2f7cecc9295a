//! Special tokens by what they are for: which a template may write, and which end an answer.

use super::Checkpoint;
use crate::chat::{ChatTemplate, SpecialTokens};
use crate::error::{Error, Result};
use crate::tokenizer::{NamedToken, Tokenizer};

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
        let token = |key: &str, id: Option<u32>| match self.named.get(key) {
            Some(named) => named.map(|token| token.content.clone()),
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
    /// The tokenizer refuses what the template writes, or has not the token that its files name as the end of a text.
    pub fn answer_ends(
        &self,
        tokenizer: &Tokenizer,
        chat: Option<&ChatTemplate>,
    ) -> Result<AnswerEnds> {
        let template = chat.map(|chat| chat.end_of_answer(tokenizer)).transpose()?;
        let named = self.named.get("eos_token").flatten();
        let id = |token: &NamedToken| {
            let lacking = || token.refuse(format!("{:?} is not in the vocabulary", token.content));
            tokenizer.token_id(&token.content).ok_or_else(lacking)
        };
        let eos = named.map(id).transpose()?;
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

#[cfg(test)]
mod tests {
    use super::AnswerEnds;

    #[test]
    fn each_end_is_there_once_and_the_first_is_the_one_that_is_written() {
        let ends = AnswerEnds::new([2, 5, 2, 1]);
        assert_eq!(ends.all(), [2, 5, 1]);
        assert_eq!(ends.first().unwrap(), 2);
        let message = AnswerEnds::default().first().unwrap_err().to_string();
        assert!(message.contains("eos_token"), "{message}");
    }
}
