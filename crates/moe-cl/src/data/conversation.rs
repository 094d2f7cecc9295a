//! Lists of turns as files write them.

use serde_json::{Map, Value};

use super::{
    Record, Role, Turn,
    format::{CHANGES_THE_MEANING, text},
};

/// A list of turns.
pub(super) fn conversation(
    record: &Map<String, Value>,
    key: &str,
    role_key: &str,
    text_key: &str,
) -> Result<Vec<Turn>, String> {
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
        one_turn(turn, role_key, text_key).map_err(at)
    };
    turns.iter().enumerate().map(turn).collect()
}

fn one_turn(turn: &Map<String, Value>, role_key: &str, text_key: &str) -> Result<Turn, String> {
    for key in turn.keys().map(String::as_str) {
        let read = [role_key, text_key, "weight"].contains(&key);
        if !read && CHANGES_THE_MEANING.contains(&key) && !turn[key].is_null() {
            return Err(format!("`{key}` is not used here: take it out"));
        }
    }
    let name = text(turn, role_key)?;
    let role = Role::parse(&name).ok_or_else(|| {
        format!("`{role_key}` is system, user (human) or assistant (gpt), not `{name}`")
    })?;
    let said = match turn.get(text_key) {
        Some(Value::Array(parts)) => parts_of_text(parts, text_key)?,
        _ => text(turn, text_key)?,
    };
    let learnt = match turn.get("weight") {
        None | Some(Value::Null) => true,
        Some(weight) if weight.as_f64() == Some(1.0) => true,
        Some(weight) if weight.as_f64() == Some(0.0) => false,
        Some(weight) => {
            return Err(format!(
                "`weight` is 0 (not learnt) or 1 (learnt), not {weight}"
            ));
        }
    };
    Ok(Turn {
        role,
        text: said,
        learnt: learnt && role == Role::Assistant,
    })
}

/// `[{"type": "text", "text": …}, …]` as one text.
fn parts_of_text(parts: &[Value], key: &str) -> Result<String, String> {
    let texts = parts.iter().map(|part| match part["type"].as_str() {
        Some("text") => part["text"]
            .as_str()
            .ok_or("a part of it has no `text`".to_owned()),
        Some(other) => Err(format!(
            "a part of it is of type `{other}`, and only text is read"
        )),
        None => Err("a part of it has no `type`".to_owned()),
    });
    let texts: Result<Vec<&str>, String> = texts.collect();
    let text = texts
        .map_err(|problem| format!("`{key}`: {problem}"))?
        .concat();
    match text.trim().is_empty() {
        true => Err(format!("`{key}` is empty")),
        false => Ok(text),
    }
}

/// A conversation up to the last answer that is learnt. The user and the assistant take turns.
pub(super) fn answered(mut turns: Vec<Turn>, key: &str) -> Result<Record, String> {
    let asked = |turns: &[Turn]| turns.last().is_some_and(|turn| turn.role == Role::User);
    let first = turns.iter().position(|turn| turn.role != Role::System);
    for index in first.map_or(0..0, |first| first..turns.len()) {
        let expected = match turns[..index].last().map(|turn| turn.role) {
            Some(Role::User) => Role::Assistant,
            _ => Role::User,
        };
        if turns[index].role != expected {
            return Err(format!(
                "`{key}`: the {} where the {}'s turn was expected (turn {}): user and assistant take turns, the user first",
                turns[index].role.name(),
                expected.name(),
                index + 1
            ));
        }
    }
    let last = turns.iter().rposition(|turn| turn.learnt);
    turns.truncate(last.map_or(0, |last| last + 1));
    match turns.pop() {
        Some(Turn { text, .. }) if asked(&turns) => Ok(Record::Instruction {
            prompt: turns,
            answer: text,
        }),
        _ => Err(format!(
            "`{key}` must hold a turn of the user and an answer of the assistant that is learnt (`weight` 0 is not)"
        )),
    }
}
