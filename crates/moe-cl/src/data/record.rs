//! One record of a data file: what is learnt from, or asked about.

use serde::{Deserialize, Serialize};

/// Something to learn from or to be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A text with one of the task's labels.
    Classification {
        /// The text, as the source has it.
        text: String,
        /// Name of its label.
        label: String,
    },
    /// A conversation with the answer that is to be given.
    Instruction {
        /// What was said before, the question last. Its answers are learnt too, where they say so.
        prompt: Vec<Turn>,
        /// The last answer that is learnt.
        answer: String,
    },
}

impl Record {
    /// The label or the answer: what is to be predicted.
    pub fn answer(&self) -> &str {
        match self {
            Self::Classification { label, .. } => label,
            Self::Instruction { answer, .. } => answer,
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub text: String,
    /// Whether the model learns to say it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learnt: bool,
}

impl Turn {
    /// The rules of a conversation.
    pub fn system(text: String) -> Self {
        Self::of(Role::System, text)
    }

    /// What is asked.
    pub fn user(text: String) -> Self {
        Self::of(Role::User, text)
    }

    /// What is answered, to be learnt.
    pub fn answer(text: String) -> Self {
        Self::of(Role::Assistant, text)
    }

    fn of(role: Role, text: String) -> Self {
        Self {
            role,
            text,
            learnt: role == Role::Assistant,
        }
    }
}

/// Who speaks in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The rules of the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates know.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    /// By the names that data files have for it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "system" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" | "gpt" => Some(Self::Assistant),
            _ => None,
        }
    }
}
