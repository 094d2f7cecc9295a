//! How a task asks about a text.

use moe_core::{
    chat::{ChatTemplate, Message},
    tokenizer::Tokenizer,
};

use super::{Record, Role, TaskData, Turn};

/// A prompt in its parts, of which only `text` may be cut.
pub(super) struct Question<'a> {
    /// Turns before the last.
    pub(super) earlier: &'a [Turn],
    pub(super) before: String,
    pub(super) text: &'a str,
    pub(super) after: String,
}

impl<'a> Question<'a> {
    pub(super) fn new(record: &'a Record, task: &TaskData) -> Self {
        let (before, after) = frame(task.instruction.as_deref(), &task.labels);
        match record {
            Record::Classification { text, .. } => Self {
                earlier: &[],
                before: before + TEXT,
                text,
                after,
            },
            Record::Instruction { prompt, .. } => {
                let (last, earlier) = prompt
                    .split_last()
                    .map_or(("", &[][..]), |(last, earlier)| {
                        (last.text.as_str(), earlier)
                    });
                Self {
                    earlier,
                    before,
                    text: last,
                    after,
                }
            }
        }
    }
}

/// Stands before a text that is to be classified, and not before one that is itself a question.
const TEXT: &str = "Text: ";
/// Ends a prompt that no chat template ends.
pub(super) const ANSWER: &str = "\nAnswer:";

/// What stands before and after the text.
fn frame(instruction: Option<&str>, labels: &[String]) -> (String, String) {
    let before = instruction
        .map(|instruction| format!("{instruction}\n"))
        .unwrap_or_default();
    let after = if labels.is_empty() {
        String::new()
    } else {
        format!("\nOptions: {}", labels.join(", "))
    };
    (before, after)
}

/// The prompt of a text that is in no file, as training writes it for a task with that `instruction` and those `labels`.
///
/// # Errors
/// When the template or the tokenizer refuses the text.
pub fn prompt_tokens(
    tokenizer: &Tokenizer,
    chat: Option<&ChatTemplate>,
    instruction: Option<&str>,
    labels: &[String],
    text: &str,
) -> moe_core::Result<Vec<u32>> {
    let (before, after) = frame(instruction, labels);
    let mark = if labels.is_empty() { "" } else { TEXT };
    let question = format!("{before}{mark}{text}{after}");
    match chat {
        Some(chat) => chat.encode(
            &[Message::new(Role::User.name(), question)],
            true,
            tokenizer,
        ),
        None => tokenizer.encode_text(&(question + ANSWER), true),
    }
}
