//! Conversations as the text a chat model was trained on.

mod answer;
mod clock;
mod limits;
mod python;
mod source;
mod tokens;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

pub use answer::Conversation;

use limits::Written;

use crate::error::{Error, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// Spellings of a tokenizer's special tokens, where it has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<String>,
    /// Ends a text.
    pub eos: Option<String>,
    /// Fills a batch up.
    pub pad: Option<String>,
    /// Stands for what has no token.
    pub unk: Option<String>,
}

/// A model's own Jinja template, rendered as Hugging Face's `apply_chat_template` does: blocks
/// take their line's white space with them, Python's methods exist, and so do
/// `raise_exception` and `strftime_now` (in UTC). What of Python is lacking is refused.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTokens,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Parses `source`; the `special` tokens are those that templates may write. Line ends are those of Unix, and the marks of what
    /// is learnt (`generation`) say nothing here.
    ///
    /// # Errors
    ///
    /// The template does not parse, or is beyond the limits of `docs/SECURITY.md`.
    pub fn new(source: &str, special: &SpecialTokens) -> Result<Self> {
        let readable = source::readable(source)?;
        Ok(Self {
            environment: limits::limited(move || Self::parsed(readable))?,
            special: special.clone(),
        })
    }

    fn parsed(source: String) -> Result<Environment<'static>> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("the default delimiters do not clash");
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        python::install(&mut environment);
        environment.add_function("strftime_now", |format: String| clock::format_now(&format));
        environment.set_fuel(Some(limits::MAX_FUEL));
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| Error::ChatTemplate(format!("{error:#}")))?;
        Ok(environment)
    }

    /// The text of a conversation; `add_generation_prompt` ends it where the assistant's next turn
    /// begins.
    ///
    /// # Errors
    ///
    /// The template refuses the conversation (an unknown role, turns out of order), or takes something of Python that is lacking.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let SpecialTokens { bos, eos, pad, unk } = &self.special;
        // A token that the tokenizer lacks is not defined there, and tools and documents are `None`, as transformers has it.
        let token = |token: &Option<String>| token.as_deref().map_or(Value::UNDEFINED, Value::from);
        let context = context! {
            messages => Value::from(Serde(messages)),
            tools => (),
            documents => (),
            add_generation_prompt,
            bos_token => token(bos),
            eos_token => token(eos),
            pad_token => token(pad),
            unk_token => token(unk),
        };
        let environment = self.environment.clone();
        let broken = |error: &dyn std::fmt::Display| Error::ChatTemplate(error.to_string());
        limits::limited(move || {
            let template = environment.get_template(NAME);
            let template = template.map_err(|error| broken(&error))?;
            let mut written = Written::default();
            template
                .render_captured_to(context, &mut written)
                .map_err(|error| limits::explained(&error))?;
            String::from_utf8(written.0).map_err(|error| broken(&error))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and \
        messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}\
        {% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + \
        '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}\
        {{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn the_generation_prompt_opens_the_assistants_turn() {
        let template = ChatTemplate::new(CHATML, &SpecialTokens::default()).unwrap();
        let messages = [Message::new("user", " hi ")];
        let closed = template.render(&messages, false).unwrap();
        assert_eq!(
            closed,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        );
        assert_eq!(
            template.render(&messages, true).unwrap(),
            closed + "<|im_start|>assistant\n"
        );
    }

    #[test]
    fn blocks_take_their_white_space_with_them() {
        let source =
            "{{ bos_token }}\n  {% for m in messages %}\n  {{- m.content }}\n  {% endfor %}\nend";
        let special = SpecialTokens {
            bos: Some("<s>".into()),
            ..SpecialTokens::default()
        };
        let template = ChatTemplate::new(source, &special).unwrap();
        let text = template
            .render(
                &[Message::new("user", "a"), Message::new("user", "b")],
                false,
            )
            .unwrap();
        assert_eq!(text, "<s>\na\nb\nend");
    }

    #[test]
    fn a_template_can_refuse_a_conversation() {
        let source = "{{ raise_exception('Conversation roles must alternate') }}";
        let template = ChatTemplate::new(source, &SpecialTokens::default()).unwrap();
        let error = template.render(&[], false).unwrap_err().to_string();
        assert!(error.contains("roles must alternate"), "{error}");
    }
}
