//! What a task asks about a record: the turns of a conversation, the last of which is to be answered.

use serde::{Deserialize, Serialize};

use super::{Record, Role, TaskData, Turn};

/// What the records of a task are, as its training file has them: a text that comes later is asked about in the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Texts with a label each.
    #[default]
    Text,
    /// Questions or conversations that say themselves what is wanted.
    Conversation,
}

/// Stands before a text that is to be classified, and not before one that is itself a question.
const TEXT: &str = "Text: ";

impl Turn {
    /// Whether it is the model's.
    pub fn is_answer(&self) -> bool {
        self.role == Role::Assistant
    }
}

impl Record {
    /// What is said before its answer.
    pub fn turns(&self) -> Vec<Turn> {
        match self {
            Self::Classification { text, .. } => vec![Turn::user(text.clone())],
            Self::Instruction { prompt, .. } => prompt.clone(),
        }
    }

    /// What is known of it before its task is: its text, or what its user says, turn after turn.
    pub fn bare_text(&self) -> String {
        match self {
            Self::Classification { text, .. } => text.clone(),
            Self::Instruction { prompt, .. } => {
                let said = prompt.iter().filter(|turn| turn.role == Role::User);
                let said: Vec<&str> = said.map(|turn| turn.text.as_str()).collect();
                said.join("\n")
            }
        }
    }
}

/// A record as a task asks about it. Where it is too long, the text of its last turn is what is cut.
pub(super) struct Question {
    /// Its turns, the task's words included.
    turns: Vec<Turn>,
    /// What the last turn says before the text, and after it.
    frame: (String, String),
    /// The text of the last turn.
    pub(super) text: String,
}

impl Question {
    /// The task's instruction stands before what the user says first, its labels after what the user says last.
    pub(super) fn new(record: &Record, task: &TaskData) -> Self {
        let instruction = task.instruction.as_ref();
        let mut before = instruction.map(|it| format!("{it}\n")).unwrap_or_default();
        let after = match task.labels.as_slice() {
            [] => String::new(),
            labels => format!("\nOptions: {}", labels.join(", ")),
        };
        let mut turns = record.turns();
        let text = match turns.last_mut() {
            Some(last) => std::mem::take(&mut last.text),
            None => String::new(),
        };
        let first = turns.iter().position(|turn| turn.role == Role::User);
        if let Some(first) = first.filter(|&first| first + 1 < turns.len()) {
            turns[first].text = std::mem::take(&mut before) + &turns[first].text;
        }
        if matches!(record, Record::Classification { .. }) {
            before += TEXT;
        }
        Self {
            turns,
            frame: (before, after),
            text,
        }
    }

    /// Its turns with the first `keep` bytes of the text.
    pub(super) fn turns(&self, text: &str) -> Vec<Turn> {
        let mut turns = self.turns.clone();
        let (before, after) = &self.frame;
        if let Some(last) = turns.last_mut() {
            last.text = format!("{before}{text}{after}");
        }
        turns
    }

    /// Leaves out what was said first, a turn of the user and its answer; false where there is nothing to leave out.
    pub(super) fn forget_first(&mut self) -> bool {
        let first = self.turns.iter().position(|turn| turn.role == Role::User);
        let Some(first) = first.filter(|&first| first + 1 < self.turns.len()) else {
            return false;
        };
        let next = self.turns.iter().skip(first + 1);
        let next = next.clone().position(|turn| turn.role == Role::User);
        let end = next.map_or(self.turns.len() - 1, |next| first + 1 + next);
        self.turns.drain(first..end);
        true
    }
}

impl TaskData {
    /// A text that is in no file, or the turns of a conversation so far, as a record of this task's form without an answer.
    pub fn record(&self, mut turns: Vec<Turn>) -> Record {
        let answer = String::new();
        match self.form {
            Form::Conversation => Record::Instruction {
                prompt: turns,
                answer,
            },
            Form::Text => Record::Classification {
                text: turns.pop().map(|turn| turn.text).unwrap_or_default(),
                label: answer,
            },
        }
    }
}
