//! The one way in which a conversation becomes tokens: to learn from, to be scored, to be served.

use std::ops::Range;

use moe_core::{
    chat::{ChatTemplate, Message},
    checkpoint::AnswerEnds,
    tokenizer::Tokenizer,
};

use super::{Role, Turn};

/// Ends a prompt that no chat template ends.
const ANSWER: &str = "Answer:";

/// Writes conversations as a base reads them: through its chat template, or without one turn after turn,
/// `what is said / Answer:` and the answer. What stands before an answer is the same whether the answer follows (training) or is
/// about to be written (serving).
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The base's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat template, where it has one.
    pub chat: Option<&'a ChatTemplate>,
    /// What ends an answer.
    pub ends: &'a AnswerEnds,
}

/// A conversation with its answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// All of it.
    pub tokens: Vec<u32>,
    /// Where in `tokens` each turn of the assistant stands, the token that ends it included.
    pub answers: Vec<Range<usize>>,
}

impl Writer<'_> {
    /// The tokens of `turns`, the last of which is to be answered.
    ///
    /// # Errors
    /// When the template refuses the turns, or the tokenizer a text.
    pub fn prompt(&self, turns: &[Turn]) -> moe_core::Result<Vec<u32>> {
        match self.chat {
            Some(chat) => chat.encode(&messages(turns), true, self.tokenizer),
            None => Ok(self.plain(turns, ANSWER)?.tokens),
        }
    }

    /// The tokens of an answer as it follows a prompt, the token that ends it included.
    ///
    /// # Errors
    /// When the tokenizer refuses the text, or nothing ends an answer.
    pub fn answer(&self, text: &str) -> moe_core::Result<Vec<u32>> {
        let mut tokens = match self.chat {
            Some(chat) => chat.encode_answer(text, self.tokenizer)?,
            // A plain prompt ends with a colon.
            None => self.tokenizer.encode_text(&format!(" {text}"), false)?,
        };
        tokens.push(self.ends.first()?);
        Ok(tokens)
    }

    /// A whole conversation, its last turn an answer; none where the template writes earlier turns in other words once later ones
    /// are there, so that no single text holds every answer after its own prompt.
    ///
    /// # Errors
    /// As [`Self::prompt`].
    pub fn conversation(&self, turns: &[Turn]) -> moe_core::Result<Option<Written>> {
        let Some(chat) = self.chat else {
            return self.plain(turns, "").map(Some);
        };
        let written = chat.encode_conversation(&messages(turns), self.tokenizer)?;
        Ok(written.map(|it| Written {
            tokens: it.tokens,
            answers: it.answers,
        }))
    }

    fn plain(&self, turns: &[Turn], last: &str) -> moe_core::Result<Written> {
        let mut written = Written::default();
        let mut said = String::new();
        let say = |written: &mut Written, said: &mut String, last: &str| {
            let text = std::mem::take(said) + last;
            let first = written.tokens.is_empty();
            if first || !text.is_empty() {
                let tokens = self.tokenizer.encode_text(&text, first)?;
                written.tokens.extend(tokens);
            }
            moe_core::Result::Ok(())
        };
        for turn in turns {
            match turn.role {
                Role::System | Role::User => said += &format!("{}\n", turn.text),
                Role::Assistant => {
                    say(&mut written, &mut said, ANSWER)?;
                    let start = written.tokens.len();
                    written.tokens.extend(self.answer(&turn.text)?);
                    written.answers.push(start..written.tokens.len());
                }
            }
        }
        say(&mut written, &mut said, last)?;
        Ok(written)
    }
}

fn messages(turns: &[Turn]) -> Vec<Message> {
    let message = |turn: &Turn| Message::new(turn.role.name(), turn.text.clone());
    turns.iter().map(message).collect()
}
