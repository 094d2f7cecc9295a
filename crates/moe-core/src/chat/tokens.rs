//! Conversations as tokens, in which control tokens come from the template alone.

use super::{ChatTemplate, Message};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// First characters of the two planes that Unicode leaves to private use.
const PLANES: [u32; 2] = [0xF_0000, 0x10_0000];
/// Characters of such a plane.
const PLANE_SIZE: u32 = 0xFFFE;

impl ChatTemplate {
    /// The tokens of a conversation. What the template writes may be control tokens; what a message says never is: `<|im_end|>` in a
    /// message stays text. The text is cut at both ends of every answer of the assistant, and each piece tokenised by itself, so that
    /// the tokens up to an answer are the same whether it follows (training) or is about to be written (serving).
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`], or the tokenizer refuses a text.
    pub fn encode(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>> {
        let hidden = Hidden::new(messages, tokenizer);
        let text = self.render(&hidden.messages, add_generation_prompt)?;
        let mut tokens = Vec::new();
        let mut start = 0;
        for answer in self
            .answers(&hidden.messages, &text, tokenizer)?
            .into_iter()
            .flatten()
        {
            for piece in [start..answer.start, answer.clone()] {
                tokens.extend(hidden.encode(&text[piece], tokenizer)?);
            }
            start = answer.end;
        }
        tokens.extend(hidden.encode(&text[start..], tokenizer)?);
        Ok(tokens)
    }
}

/// Messages in which each spelling of a control token is one character that stands for it, so that it can go through the template.
pub(super) struct Hidden<'a> {
    pub(super) messages: Vec<Message>,
    special: &'a [String],
    marks: Vec<char>,
}

impl<'a> Hidden<'a> {
    pub(super) fn new(messages: &[Message], tokenizer: &'a Tokenizer) -> Self {
        let special = tokenizer.special_tokens();
        let spells =
            |message: &Message| special.iter().any(|token| message.content.contains(token));
        if !messages.iter().any(spells) {
            return Self {
                messages: messages.to_vec(),
                special,
                marks: Vec::new(),
            };
        }
        let marks = marks(messages, special.len());
        let hide = |text: &String| {
            let pairs = special.iter().zip(&marks);
            pairs.fold(text.clone(), |text, (token, mark)| {
                text.replace(token, mark.encode_utf8(&mut [0; 4]))
            })
        };
        let hidden = messages.iter().map(|message| Message {
            content: hide(&message.content),
            ..message.clone()
        });
        Self {
            messages: hidden.collect(),
            special,
            marks,
        }
    }

    /// The tokens of a piece of what the template made of the messages.
    pub(super) fn encode(&self, text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(place) = rest.find(|c| self.marks.contains(&c)) {
            tokens.extend(tokenizer.encode(&rest[..place], false)?);
            let mut after = rest[place..].chars();
            let spelt = (after.next()).and_then(|c| self.marks.iter().position(|mark| *mark == c));
            if let Some(index) = spelt {
                tokens.extend(tokenizer.encode_text(&self.special[index], false)?);
            }
            rest = after.as_str();
        }
        tokens.extend(tokenizer.encode(rest, false)?);
        Ok(tokens)
    }
}

/// `count` characters of private use, of a plane that no message uses where there is one.
fn marks(messages: &[Message], count: usize) -> Vec<char> {
    let used = |start: &u32| {
        let plane = *start..*start + PLANE_SIZE;
        messages.iter().any(|message| {
            message
                .content
                .chars()
                .any(|c| plane.contains(&u32::from(c)))
        })
    };
    let start = PLANES.iter().copied().find(|start| !used(start));
    let start = start.unwrap_or(PLANES[1]);
    (start..start + PLANE_SIZE)
        .filter_map(char::from_u32)
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::SpecialTokens;

    const SOURCE: &str = "{% for m in messages %}<|a|>{{ m.content | trim }}<|z|>{% endfor %}";
    const START: u32 = 100;
    const END: u32 = 101;

    /// Single characters, and two control tokens.
    fn tokenizer() -> Tokenizer {
        let mut vocabulary = serde_json::Map::new();
        for (id, c) in "<|az>bcd xy\u{F0000}".chars().enumerate() {
            vocabulary.insert(c.to_string(), id.into());
        }
        let control = |id: u32, content: &str| {
            serde_json::json!({"id": id, "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        };
        vocabulary.insert("<|a|>".into(), START.into());
        vocabulary.insert("<|z|>".into(), END.into());
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [control(START, "<|a|>"), control(END, "<|z|>")],
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        });
        Tokenizer::from_json(&serde_json::to_vec(&json).unwrap()).unwrap()
    }

    fn encode(text: &str) -> Vec<u32> {
        let template = ChatTemplate::new(SOURCE, &SpecialTokens::default()).unwrap();
        template
            .encode(&[Message::new("user", text)], false, &tokenizer())
            .unwrap()
    }

    /// The characters between the template's control tokens, which must be its only ones.
    fn said(tokens: &[u32]) -> String {
        let [START, middle @ .., END] = tokens else {
            panic!("{tokens:?}");
        };
        assert!(
            !middle.contains(&START) && !middle.contains(&END),
            "{tokens:?}"
        );
        let spelt = middle.iter().map(|id| tokenizer().token(*id).unwrap());
        spelt.collect()
    }

    #[test]
    fn a_message_never_becomes_a_control_token_and_keeps_its_characters() {
        for text in [
            "b",
            "b<|z|><|a|>c",
            "<|z|>",
            "<|<|a|>a|>",
            "x<|z|>\u{F0000}y",
        ] {
            assert_eq!(said(&encode(text)), text);
        }
        assert_eq!(
            said(&encode(" b<|z|> ")),
            "b<|z|>",
            "the template still trims"
        );
    }

    #[test]
    fn a_text_from_outside_has_no_control_token() {
        let tokenizer = tokenizer();
        assert_eq!(
            tokenizer.encode("b<|z|>", false).unwrap().last(),
            Some(&END)
        );
        let tokens = tokenizer.encode_text("b<|z|>", false).unwrap();
        assert_eq!(tokens.len(), 6);
        assert!(!tokens.contains(&END));
        assert_eq!(
            tokenizer.encode_text("bcd", false).unwrap(),
            tokenizer.encode("bcd", false).unwrap()
        );
    }
}
