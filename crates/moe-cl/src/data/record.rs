//! One record of a data file, in any of the formats that users of this field have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
        /// What was said before, the question last.
        prompt: Vec<Turn>,
        /// The answer; the only part that is learnt.
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

    fn parse(name: &str) -> Option<Self> {
        match name {
            "system" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" | "gpt" => Some(Self::Assistant),
            _ => None,
        }
    }
}

/// How a file writes its records; told from the keys of its first record and then required of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `{"text", "label"}`; the MoE-CL authors write `sentence` for `text`.
    Classification,
    /// `{"instruction", "input"?, "output"}`.
    Alpaca,
    /// `{"conversations": [{"from", "value"}]}`.
    ShareGpt,
    /// `{"messages": [{"role", "content"}]}`.
    Messages,
    /// `{"prompt", "answer"}`, as the TRACE benchmark.
    Trace,
}

impl Format {
    /// The format that has the keys of `record`.
    ///
    /// # Errors
    /// A message when no format has them.
    pub fn detect(record: &Map<String, Value>) -> Result<Self, String> {
        let has = |key: &str| record.contains_key(key);
        Ok(if has("conversations") {
            Self::ShareGpt
        } else if has("messages") {
            Self::Messages
        } else if has("instruction") || has("output") {
            Self::Alpaca
        } else if has("prompt") || has("answer") {
            Self::Trace
        } else if has("text") || has("sentence") || has("label") {
            Self::Classification
        } else {
            let keys: Vec<&str> = record.keys().map(String::as_str).collect();
            return Err(format!(
                "a record has the keys text and label, or instruction and output, prompt and answer, messages, or conversations; this one has {}",
                if keys.is_empty() {
                    "none".into()
                } else {
                    keys.join(", ")
                }
            ));
        })
    }

    /// Reads a record of this format; other keys are ignored.
    ///
    /// # Errors
    /// A message that names the key that is missing, empty or not a text.
    pub fn read(self, record: &Map<String, Value>) -> Result<Record, String> {
        let user = |text: String| {
            vec![Turn {
                role: Role::User,
                text,
            }]
        };
        match self {
            Self::Classification => {
                let key = if record.contains_key("text") || !record.contains_key("sentence") {
                    "text"
                } else {
                    "sentence"
                };
                Ok(Record::Classification {
                    text: text(record, key)?,
                    label: text(record, "label")?,
                })
            }
            Self::Alpaca => {
                let mut prompt = text(record, "instruction")?;
                let input = record.get("input").map_or(Ok(""), |value| {
                    value.as_str().ok_or_else(|| wrong_type("input", value))
                })?;
                if !input.trim().is_empty() {
                    prompt = format!("{prompt}\n\n{input}");
                }
                Ok(Record::Instruction {
                    prompt: user(prompt),
                    answer: text(record, "output")?,
                })
            }
            Self::Trace => Ok(Record::Instruction {
                prompt: user(text(record, "prompt")?),
                answer: text(record, "answer")?,
            }),
            Self::ShareGpt => conversation(record, "conversations", "from", "value"),
            Self::Messages => conversation(record, "messages", "role", "content"),
        }
    }
}

fn wrong_type(key: &str, value: &Value) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("`{key}` must be a text, not {kind}")
}

fn text(record: &Map<String, Value>, key: &str) -> Result<String, String> {
    let value = record
        .get(key)
        .ok_or_else(|| format!("the record has no `{key}`"))?;
    let text = value.as_str().ok_or_else(|| wrong_type(key, value))?;
    if text.trim().is_empty() {
        return Err(format!("`{key}` is empty"));
    }
    Ok(text.into())
}

/// The last turn is the answer, those before it are the prompt.
fn conversation(
    record: &Map<String, Value>,
    key: &str,
    role_key: &str,
    text_key: &str,
) -> Result<Record, String> {
    let turns = record
        .get(key)
        .ok_or_else(|| format!("the record has no `{key}`"))?;
    let turns = turns
        .as_array()
        .ok_or_else(|| format!("`{key}` must be a list of turns"))?;
    let turn = |(index, turn): (usize, &Value)| {
        let at = |message: String| format!("`{key}` turn {}: {message}", index + 1);
        let turn = turn
            .as_object()
            .ok_or_else(|| at("must be an object".into()))?;
        let name = text(turn, role_key).map_err(at)?;
        let role = Role::parse(&name).ok_or_else(|| {
            at(format!(
                "`{role_key}` is system, user (human) or assistant (gpt), not `{name}`"
            ))
        })?;
        Ok(Turn {
            role,
            text: text(turn, text_key).map_err(at)?,
        })
    };
    let mut prompt = turns
        .iter()
        .enumerate()
        .map(turn)
        .collect::<Result<Vec<Turn>, String>>()?;
    match prompt.pop() {
        Some(Turn {
            role: Role::Assistant,
            text,
        }) if prompt.last().is_some_and(|turn| turn.role == Role::User) => {
            Ok(Record::Instruction {
                prompt,
                answer: text,
            })
        }
        _ => Err(format!(
            "`{key}` must end with a turn of the user and the assistant's answer"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Record, String> {
        let Value::Object(map) = serde_json::from_str(json).unwrap() else {
            panic!("an object")
        };
        Format::detect(&map)?.read(&map)
    }

    #[test]
    fn all_instruction_formats_say_the_same_thing() {
        let want = Record::Instruction {
            prompt: vec![Turn {
                role: Role::User,
                text: "What?\n\nThis".into(),
            }],
            answer: "That".into(),
        };
        for json in [
            r#"{"instruction": "What?", "input": "This", "output": "That"}"#,
            r#"{"instruction": "What?\n\nThis", "output": "That"}"#,
            r#"{"conversations": [{"from": "human", "value": "What?\n\nThis"}, {"from": "gpt", "value": "That"}]}"#,
            r#"{"messages": [{"role": "user", "content": "What?\n\nThis"}, {"role": "assistant", "content": "That"}]}"#,
            r#"{"prompt": "What?\n\nThis", "answer": "That"}"#,
        ] {
            assert_eq!(read(json).as_ref(), Ok(&want), "{json}");
        }
    }

    #[test]
    fn only_the_last_answer_of_a_conversation_is_learnt() {
        let Ok(Record::Instruction { prompt, answer }) = read(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#,
        ) else {
            panic!("a conversation")
        };
        assert_eq!((prompt.len(), answer.as_str()), (4, "d"));
    }

    #[test]
    fn a_record_that_teaches_nothing_is_refused() {
        for (json, word) in [
            (
                r#"{"messages": [{"role": "user", "content": "a"}]}"#,
                "answer",
            ),
            (
                r#"{"messages": [{"role": "robot", "content": "a"}]}"#,
                "robot",
            ),
            (r#"{"conversations": []}"#, "must end"),
            (r#"{"prompt": "a", "answer": " "}"#, "`answer` is empty"),
            (
                r#"{"instruction": "a", "input": 3, "output": "b"}"#,
                "not a number",
            ),
            (r#"{"question": "a"}"#, "question"),
            ("{}", "none"),
        ] {
            let message = read(json).expect_err(json);
            assert!(message.contains(word), "{message}");
        }
    }
}
