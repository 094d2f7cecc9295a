//! Where a conversation's answers are, and what ends them.

use std::ops::Range;

use super::tokens::Hidden;
use super::{ChatTemplate, Message};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// A conversation as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// All of it.
    pub tokens: Vec<u32>,
    /// Where in `tokens` each answer of the assistant stands, the token that ends it included.
    pub answers: Vec<Range<usize>>,
}

/// Stands for an answer where only what is around it matters.
const PROBE: &str = "\u{F8FE}";

impl ChatTemplate {
    /// The first special token that the template writes after an answer; none where it writes none.
    ///
    /// # Errors
    /// The tokenizer refuses what the template writes.
    pub fn end_of_answer(&self, tokenizer: &Tokenizer) -> Result<Option<u32>> {
        let after = self.after_answer().unwrap_or_default();
        let tokens = tokenizer.encode(&after, false)?;
        Ok(tokens.into_iter().find(|id| tokenizer.is_special(*id)))
    }

    /// Tokens of `answer` as the template writes it after a prompt, without what ends it.
    ///
    /// # Errors
    /// The template or the tokenizer refuses it.
    pub fn encode_answer(&self, answer: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let messages = self.exchange(answer);
        let hidden = Hidden::new(&messages, tokenizer);
        let [asked @ .., said] = hidden.messages.as_slice() else {
            unreachable!("an exchange ends with its answer")
        };
        let prompt = self.render(asked, true)?;
        let whole = self.render(&hidden.messages, false)?;
        let after = self.after_answer().unwrap_or_default();
        let written = whole
            .strip_prefix(&prompt)
            .and_then(|it| it.strip_suffix(&after));
        let answer = written.unwrap_or(&said.content);
        let before_end = &after[..first_special(&after, tokenizer).start];
        hidden.encode(&format!("{answer}{before_end}"), tokenizer)
    }

    /// A conversation that ends with an answer. None where the template writes earlier turns otherwise once later ones are there, or
    /// ends answers with no token: each answer then has to be written after its own prompt.
    ///
    /// # Errors
    /// The template or the tokenizer refuses it.
    pub fn encode_conversation(
        &self,
        messages: &[Message],
        tokenizer: &Tokenizer,
    ) -> Result<Option<Conversation>> {
        let hidden = Hidden::new(messages, tokenizer);
        let text = self.render(&hidden.messages, false)?;
        let answers = self.answers(&hidden.messages, &text, tokenizer)?;
        let Some(answers) = answers.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        if self.end_of_answer(tokenizer)?.is_none() {
            return Ok(None);
        }
        let mut conversation = Conversation::default();
        let Conversation {
            tokens,
            answers: places,
        } = &mut conversation;
        let mut start = 0;
        for answer in answers {
            tokens.extend(hidden.encode(&text[start..answer.start], tokenizer)?);
            let first = tokens.len();
            tokens.extend(hidden.encode(&text[answer.clone()], tokenizer)?);
            places.push(first..tokens.len());
            start = answer.end;
        }
        Ok(Some(conversation))
    }

    /// Where in `text`, which the template has made of `messages` and perhaps of more, each answer of the assistant stands with the
    /// special token that ends it; none for one that does not stand there as it does at the end of a conversation.
    pub(super) fn answers(
        &self,
        messages: &[Message],
        text: &str,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Option<Range<usize>>>> {
        let said = messages.iter().enumerate();
        let places: Vec<usize> = said
            .filter(|(_, message)| message.role == "assistant")
            .map(|(place, _)| place)
            .collect();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let after = self.after_answer();
        let places = places.into_iter().map(|place| {
            let prompt = self.render(&messages[..place], true)?;
            let whole = self.render(&messages[..=place], false)?;
            Ok(after.as_ref().and_then(|after| {
                let stands = text.starts_with(&whole) && whole.starts_with(&prompt);
                let end =
                    whole.strip_suffix(after.as_str())?.len() + first_special(after, tokenizer).end;
                (stands && end >= prompt.len()).then_some(prompt.len()..end)
            }))
        });
        places.collect()
    }

    /// A question and its answer, after rules where the template demands some.
    fn exchange(&self, answer: &str) -> Vec<Message> {
        let mut messages = vec![Message::new("user", "?"), Message::new("assistant", answer)];
        if self.render(&messages, false).is_err() {
            messages.insert(0, Message::new("system", "?"));
        }
        messages
    }

    /// What the template writes after an answer at the end of a conversation; none where it refuses so short a one.
    fn after_answer(&self) -> Option<String> {
        let text = self.render(&self.exchange(PROBE), false).ok()?;
        let (_, after) = text.rsplit_once(PROBE)?;
        Some(after.to_owned())
    }
}

/// Where the first special token of `after` stands; nowhere at its beginning where it has none.
fn first_special(after: &str, tokenizer: &Tokenizer) -> Range<usize> {
    let places = tokenizer.special_tokens().iter().filter_map(|token| {
        let start = after.find(token.as_str())?;
        Some(start..start + token.len())
    });
    // Of two that begin at the same place, the longer one is the token.
    let first = places.min_by_key(|place| (place.start, usize::MAX - place.end));
    first.unwrap_or(0..0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::SpecialTokens;

    const CHATML: &str = "{% for m in messages %}{{ '<|a|>' + m['role'] + '\n' + m['content'] + '<|z|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|a|>assistant\n' }}{% endif %}";
    const LLAMA: &str = "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|a|>[I] ' + m['content'] + ' [/I]' }}{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}";
    const TRIMS: &str = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] | trim + '<|z|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    const PLAIN: &str = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    /// Earlier answers lose what they begin with.
    const FORGETS: &str = "{% for m in messages %}{{ m['role'] + ': ' }}{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'][1:] }}{% else %}{{ m['content'] }}{% endif %}{{ '<|z|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";

    /// As Zephyr's: what ends an answer is the tokenizer's end of text.
    const ZEPHYR: &str = "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ 'u\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'assistant' %}\n{{ 'a\n' + m['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ 'a' }}\n{% endif %}\n{% endfor %}";
    /// Refuses a conversation that does not begin with rules.
    const RULED: &str = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('rules first') }}{% endif %}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|z|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";

    fn template(source: &str) -> ChatTemplate {
        let special = SpecialTokens {
            eos: Some("<|z|>".into()),
            ..SpecialTokens::default()
        };
        ChatTemplate::new(source, &special).unwrap()
    }

    /// Letters, pairs of letters that merge across the border of an answer, and two control tokens.
    fn tokenizer() -> Tokenizer {
        let mut vocabulary = serde_json::Map::new();
        let letters = "abcdefghijklmnopqrstuvwxyz<|>[]/I: \n?";
        for (id, c) in letters.chars().enumerate() {
            vocabulary.insert(c.to_string(), id.into());
        }
        vocabulary.insert(" x".into(), 60.into());
        vocabulary.insert("\nx".into(), 61.into());
        let control = |id: u32, content: &str| {
            serde_json::json!({"id": id, "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        };
        vocabulary.insert("<|a|>".into(), 100.into());
        vocabulary.insert("<|z|>".into(), 101.into());
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [control(100, "<|a|>"), control(101, "<|z|>")],
            "model": {"type": "BPE", "vocab": vocabulary, "merges": [[" ", "x"], ["\n", "x"]]},
        });
        Tokenizer::from_json(&serde_json::to_vec(&json).unwrap()).unwrap()
    }

    fn messages() -> Vec<Message> {
        ["user", "assistant", "user", "assistant"]
            .into_iter()
            .zip(["a b", "x y", "c", "x<|z|>z "])
            .map(|(role, content)| Message::new(role, content))
            .collect()
    }

    #[test]
    fn what_stands_before_an_answer_is_the_same_whether_it_follows_or_not() {
        let tokenizer = tokenizer();
        for source in [CHATML, LLAMA, TRIMS, ZEPHYR, RULED] {
            let template = template(source);
            let mut messages = messages();
            let mut places = vec![1, 3];
            if source == RULED {
                messages.insert(0, Message::new("system", "r"));
                places = vec![2, 4];
            }
            let whole = template.encode_conversation(&messages, &tokenizer).unwrap();
            let whole = whole.expect("one text holds all answers");
            for (answer, place) in whole.answers.iter().zip(places) {
                let prompt = template
                    .encode(&messages[..place], true, &tokenizer)
                    .unwrap();
                assert_eq!(whole.tokens[..answer.start], prompt, "{source}");
                let said = &messages[place].content;
                let mut written = template.encode_answer(said, &tokenizer).unwrap();
                written.extend(template.end_of_answer(&tokenizer).unwrap());
                assert_eq!(whole.tokens[answer.clone()], written, "{source}");
                assert_eq!(written.last(), Some(&101));
                assert_eq!(
                    written.iter().filter(|id| **id == 101).count(),
                    1,
                    "spelt, not meant"
                );
            }
        }
    }

    #[test]
    fn a_template_that_rewrites_or_ends_with_no_token_has_no_whole() {
        let tokenizer = tokenizer();
        for (source, end) in [(PLAIN, None), (FORGETS, Some(101))] {
            let template = template(source);
            assert_eq!(template.end_of_answer(&tokenizer).unwrap(), end, "{source}");
            let whole = template
                .encode_conversation(&messages(), &tokenizer)
                .unwrap();
            assert_eq!(whole, None, "{source}");
            let answer = template.encode_answer("x", &tokenizer).unwrap();
            assert_eq!(answer, tokenizer.encode("x", false).unwrap(), "{source}");
        }
    }
}
