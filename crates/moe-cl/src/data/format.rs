//! The forms in which files write their records.

use serde_json::{Map, Value};

use super::{
    Record, Role, Turn,
    conversation::{answered, conversation},
};

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

    /// Keys that are read.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Classification => &["text", "sentence", "label"],
            Self::Alpaca => &["instruction", "input", "output", "system", "history"],
            Self::ShareGpt => &["conversations", "system"],
            Self::Messages => &["messages", "system"],
            Self::Trace => &["prompt", "answer", "system", "history"],
        }
    }

    /// Keys of `record` that are passed over: names, sources and the like.
    pub fn passed_over(self, record: &Map<String, Value>) -> impl Iterator<Item = &str> {
        let read = self.keys();
        let keys = record.keys().map(String::as_str);
        keys.filter(move |key| !read.contains(key) && !CHANGES_THE_MEANING.contains(key))
    }

    /// Reads a record of this format. Keys that would change what is learnt and that nothing here uses are refused, others are
    /// passed over ([`Self::passed_over`]).
    ///
    /// # Errors
    /// A message that names the key that is missing, empty, not a text or not used.
    pub fn read(self, record: &Map<String, Value>) -> Result<Record, String> {
        let prompt = self.question(record)?;
        let answer = match self {
            Self::Classification => {
                let label = text(record, "label")?;
                return Ok(Record::Classification {
                    text: last_text(prompt),
                    label,
                });
            }
            Self::Alpaca => text(record, "output")?,
            Self::Trace => text(record, "answer")?,
            Self::ShareGpt | Self::Messages => return answered(prompt, self.keys()[0]),
        };
        Ok(Record::Instruction { prompt, answer })
    }

    /// As [`Self::read`], of a record that need not have a label or an answer: what is asked.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_unanswered(self, record: &Map<String, Value>) -> Result<Record, String> {
        let mut prompt = self.question(record)?;
        let answer = String::new();
        if self == Self::Classification {
            let (text, label) = (last_text(prompt), answer);
            return Ok(Record::Classification { text, label });
        }
        let asked = prompt.iter().rposition(|turn| turn.role == Role::User);
        let asked = asked.ok_or("no turn of the user asks anything")?;
        prompt.truncate(asked + 1);
        Ok(Record::Instruction { prompt, answer })
    }

    /// All turns of the record, without the answer where that has a key of its own.
    fn question(self, record: &Map<String, Value>) -> Result<Vec<Turn>, String> {
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        let not_read = |(key, value): &(&String, &Value)| {
            CHANGES_THE_MEANING.contains(&key.as_str())
                && !self.keys().contains(&key.as_str())
                && !empty(value)
        };
        if let Some((key, _)) = record.iter().find(not_read) {
            return Err(format!(
                "`{key}` is not used here, and what is learnt without it would be something else: take it out of the record"
            ));
        }
        let mut turns = Vec::new();
        if let Some(system) = optional(record, "system")? {
            turns.push(Turn::system(system.into()));
        }
        match self {
            Self::Classification => {
                let sentence = record.contains_key("sentence") && !record.contains_key("text");
                let key = if sentence { "sentence" } else { "text" };
                turns.push(Turn::user(text(record, key)?));
            }
            Self::Alpaca => {
                turns.extend(history(record)?);
                let mut prompt = text(record, "instruction")?;
                if let Some(input) = optional(record, "input")? {
                    prompt = format!("{prompt}\n\n{input}");
                }
                turns.push(Turn::user(prompt));
            }
            Self::Trace => {
                turns.extend(history(record)?);
                turns.push(Turn::user(text(record, "prompt")?));
            }
            Self::ShareGpt => turns.extend(conversation(record, "conversations", "from", "value")?),
            Self::Messages => turns.extend(conversation(record, "messages", "role", "content")?),
        }
        let late = turns
            .iter()
            .skip(1)
            .position(|turn| turn.role == Role::System);
        match late {
            Some(place) => Err(format!(
                "turn {} is the system's, whose place is before all others, once",
                place + 2
            )),
            None => Ok(turns),
        }
    }
}

/// Keys that other tools give a meaning to which nothing here has.
pub(super) const CHANGES_THE_MEANING: [&str; 15] = [
    "system",
    "history",
    "tools",
    "functions",
    "tool_calls",
    "function_call",
    "images",
    "image",
    "videos",
    "video",
    "audios",
    "audio",
    "chosen",
    "rejected",
    "weight",
];

fn last_text(mut turns: Vec<Turn>) -> String {
    turns.pop().map(|turn| turn.text).unwrap_or_default()
}

/// A text that may be missing or empty.
fn optional<'a>(record: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match record.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let text = value.as_str().ok_or_else(|| wrong_type(key, value))?;
            Ok((!text.trim().is_empty()).then_some(text))
        }
    }
}

/// `history`: pairs of a question and its answer, which is learnt as every turn of the assistant is.
fn history(record: &Map<String, Value>) -> Result<Vec<Turn>, String> {
    let pairs = match record.get("history") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(pairs)) => pairs,
        Some(_) => return Err("`history` must be a list of pairs [question, answer]".into()),
    };
    let mut turns = Vec::with_capacity(2 * pairs.len());
    for (index, pair) in pairs.iter().enumerate() {
        let texts = pair.as_array().map(|pair| pair.iter().map(Value::as_str));
        let texts: Option<Vec<&str>> = texts.and_then(Iterator::collect);
        let Some([question, answer]) = texts.as_deref() else {
            return Err(format!(
                "`history` entry {}: expected two texts, [question, answer]",
                index + 1
            ));
        };
        turns.push(Turn::user((*question).into()));
        turns.push(Turn::answer((*answer).into()));
    }
    Ok(turns)
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

/// A text that must be there and not be empty.
pub(super) fn text(record: &Map<String, Value>, key: &str) -> Result<String, String> {
    let value = record
        .get(key)
        .ok_or_else(|| format!("the record has no `{key}`"))?;
    let text = value.as_str().ok_or_else(|| wrong_type(key, value))?;
    if text.trim().is_empty() {
        return Err(format!("`{key}` is empty"));
    }
    Ok(text.into())
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
            prompt: vec![Turn::user("What?\n\nThis".into())],
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
    fn all_answers_of_a_conversation_are_learnt_but_those_of_weight_0() {
        let Ok(Record::Instruction { prompt, answer }) = read(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "weight": 0}, {"role": "user", "content": "e"},
                {"role": "assistant", "content": [{"type": "text", "text": "f"}], "weight": 1}, {"role": "user", "content": "g"},
                {"role": "assistant", "content": "h", "weight": 0}]}"#,
        ) else {
            panic!("a conversation")
        };
        let learnt: Vec<&str> = prompt
            .iter()
            .filter(|it| it.learnt)
            .map(|it| it.text.as_str())
            .collect();
        assert_eq!((prompt.len(), learnt, answer.as_str()), (6, vec!["b"], "f"));
    }

    #[test]
    fn system_and_history_come_first() {
        let want = vec![
            Turn::system("s".into()),
            Turn::user("a".into()),
            Turn::answer("b".into()),
            Turn::user("c".into()),
        ];
        for json in [
            r#"{"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]}"#,
            r#"{"prompt": "c", "answer": "d", "system": "s", "history": [["a", "b"]]}"#,
            r#"{"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}]}"#,
        ] {
            let Ok(Record::Instruction { prompt, .. }) = read(json) else {
                panic!("{json}")
            };
            assert_eq!(prompt, want, "{json}");
        }
    }

    #[test]
    fn a_question_needs_no_answer_to_be_asked() {
        for json in [
            r#"{"text": "c"}"#,
            r#"{"instruction": "c"}"#,
            r#"{"prompt": "c", "answer": "d"}"#,
            r#"{"messages": [{"role": "user", "content": "c"}]}"#,
        ] {
            let Value::Object(map) = serde_json::from_str(json).unwrap() else {
                panic!()
            };
            let record = Format::detect(&map).unwrap().read_unanswered(&map).unwrap();
            assert_eq!(record.bare_text(), "c", "{json}");
        }
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
            (r#"{"conversations": []}"#, "must hold"),
            (
                r#"{"prompt": "a", "answer": "b", "tools": [{}]}"#,
                "`tools`",
            ),
            (r#"{"text": "a", "label": "b", "system": "s"}"#, "`system`"),
            (
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
                "turn 2",
            ),
            (
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}]}"#,
                "`weight`",
            ),
            (
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [1]}]}"#,
                "`tool_calls`",
            ),
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
