//! Conversations as the text a chat model was trained on.

mod answer;
mod clock;
mod json;
mod source;
mod strings;
mod tokens;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

pub use answer::Conversation;

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
/// take their line's white space with them, Python's string methods exist, and so do
/// `raise_exception` and `strftime_now` (in UTC).
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
    /// The template does not parse.
    pub fn new(source: &str, special: &SpecialTokens) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("the default delimiters do not clash");
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(strings::method);
        environment.add_function("raise_exception", |message: String| {
            Err::<Value, _>(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| clock::format_now(&format));
        environment.add_filter("tojson", json::to_json);
        environment
            .add_template_owned(NAME, source::readable(source))
            .map_err(|error| Error::ChatTemplate(format!("{error:#}")))?;
        Ok(Self {
            environment,
            special: special.clone(),
        })
    }

    /// The text of a conversation; `add_generation_prompt` ends it where the assistant's next turn
    /// begins.
    ///
    /// # Errors
    ///
    /// The template refuses the conversation (an unknown role, turns out of order).
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = (self.environment.get_template(NAME)).expect("added when it was made");
        template
            .render(context! {
                messages => Value::from(Serde(messages)),
                add_generation_prompt,
                bos_token => self.special.bos.as_deref().unwrap_or_default(),
                eos_token => self.special.eos.as_deref().unwrap_or_default(),
                pad_token => self.special.pad.as_deref().unwrap_or_default(),
                unk_token => self.special.unk.as_deref().unwrap_or_default(),
            })
            .map_err(|error| Error::ChatTemplate(error.to_string()))
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

    /// What is not done here is an error, and a template that needs it is refused; numbers beyond 1e16 alone are written otherwise.
    const NOT_DONE: [&str; 3] = ["'%s is %d' %", "| wordcount", "1e16"];

    /// The fixture is what Jinja2 makes of each template; see its `make.py`.
    #[test]
    fn templates_say_what_jinja2_makes_of_them() {
        #[derive(serde::Deserialize)]
        struct Case {
            template: String,
            want: Option<String>,
        }
        let cases: Vec<Case> = serde_json::from_str(include_str!("fixtures/jinja.json")).unwrap();
        let messages = [
            Message::new("user", "  Héllo, World\n"),
            Message::new("assistant", "a,b,,c"),
        ];
        let mut other = Vec::new();
        for Case { template, want } in &cases {
            let made = ChatTemplate::new(template, &SpecialTokens::default())
                .and_then(|it| it.render(&messages, false));
            let said = match (&made, want) {
                (Ok(made), Some(want)) if made == want => continue,
                (Err(_), None) => continue,
                _ if NOT_DONE.iter().any(|it| template.contains(it)) => continue,
                (Ok(made), _) => made.clone(),
                (Err(error), _) => error.to_string(),
            };
            other.push(format!("{template}\n  wanted {want:?}\n  got    {said:?}"));
        }
        assert!(
            other.is_empty(),
            "{} of {}:\n{}",
            other.len(),
            cases.len(),
            other.join("\n")
        );
    }
}
