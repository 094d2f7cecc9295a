use std::{path::Path, sync::OnceLock};

use burn_dataset::{InMemDataset, transform::SelectionDataset};
use moe_core::{chat::ChatTemplate, checkpoint::AnswerEnds, tokenizer::Tokenizer};

use super::*;
use crate::{
    config::Experiment,
    data::{Form, Format},
};

const WORDS: [&str; 16] = [
    "?",
    "Which",
    "Text:",
    "Options:",
    "yes,",
    "no",
    "Answer:",
    "yes",
    "one",
    "two",
    "three",
    "<user>",
    "<assistant>",
    "very",
    "<system>",
    "four",
];
const END: u32 = 99;
static ENDS: OnceLock<AnswerEnds> = OnceLock::new();
const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}";

fn tokenizer() -> Tokenizer {
    let vocabulary: serde_json::Map<_, _> = WORDS
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).into(), id.into()))
        .collect();
    let json = serde_json::json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"}
    });
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

fn written(tokens: &[u32]) -> String {
    let word = |&token: &u32| {
        if token == END {
            "<end>"
        } else {
            WORDS[token as usize]
        }
    };
    tokens.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn records(rows: &[&str]) -> Records {
    let rows = rows.iter().map(|json| {
        let serde_json::Value::Object(map) = serde_json::from_str(json).unwrap() else {
            panic!("an object")
        };
        Row::kept(Format::detect(&map).unwrap().read(&map).unwrap())
    });
    SelectionDataset::new_select_all(InMemDataset::new(rows.collect()))
}

fn task(labels: &[&str], train: &[&str]) -> TaskData {
    let train = records(train);
    let form = match train.get(0).ok().map(|row| row.record) {
        Some(Record::Instruction { .. }) => Form::Conversation,
        _ => Form::Text,
    };
    TaskData {
        name: "t".into(),
        labels: labels.iter().map(|label| (*label).into()).collect(),
        instruction: Some("Which".into()),
        form,
        room: 0,
        metric: None,
        train,
        dev: records(&[]),
        test: records(&[]),
        train_file: "train".into(),
        warnings: Vec::new(),
    }
}

fn settings(objective: &str, max_tokens: usize) -> TaskSettings {
    let text = format!(
        "name='x'\ndata.max_tokens={max_tokens}\ntraining.objective='{objective}'\n[[tasks]]\nname='t'\ntrain='a'\ntest='b'"
    );
    let experiment = Experiment::parse(&text, Path::new("x.toml"), &[]).unwrap();
    TaskSettings::of(&experiment, &experiment.tasks[0])
}

fn writer<'a>(tokenizer: &'a Tokenizer, chat: Option<&'a ChatTemplate>) -> Writer<'a> {
    Writer {
        tokenizer,
        chat,
        ends: ENDS.get_or_init(|| AnswerEnds::new([END])),
    }
}

/// The training examples of a task, its room counted first.
fn learnt(task: &mut TaskData, max_tokens: usize, chat: Option<&ChatTemplate>) -> Vec<Example> {
    let tokenizer = tokenizer();
    let mut encoder = Encoder::new(
        &settings("instruction", max_tokens),
        writer(&tokenizer, chat),
    );
    task.room = encoder.longest_answer(task).unwrap();
    encoder.learnt(task).unwrap()
}

const ONE: &str = r#"{"text": "one two", "label": "no"}"#;
const CHAT: &str = r#"{"messages": [{"role": "system", "content": "very"}, {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"}, {"role": "assistant", "content": "four"}]}"#;

#[test]
fn a_head_reads_the_start_of_a_text_that_is_too_long_and_cuts_are_counted() {
    let rows = [
        r#"{"text": "one two three", "label": "yes"}"#,
        r#"{"text": "two one", "label": "no"}"#,
    ];
    let (tokenizer, task) = (tokenizer(), task(&["no", "yes"], &rows));
    let mut encoder = Encoder::new(&settings("heads", 2), writer(&tokenizer, None));
    let examples = encoder.learnt(&task).unwrap();
    assert_eq!(
        examples[0],
        Example {
            tokens: vec![8, 9],
            label: Some(1),
            answers: Vec::new(),
        }
    );
    assert_eq!((examples[1].tokens.len(), examples[1].label), (2, Some(0)));
    let warnings = encoder.take_warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("1 of 2 texts"),
        "{warnings:?}"
    );
    assert!(encoder.take_warnings().is_empty(), "warnings are told once");
}

#[test]
fn an_instruction_is_question_text_options_and_answer() {
    let mut task = task(&["yes", "no"], &[ONE]);
    let examples = learnt(&mut task, 20, None);
    let Example {
        tokens,
        label,
        answers,
    } = &examples[0];
    assert_eq!(
        written(tokens),
        "Which Text: one two Options: yes, no Answer: no <end>"
    );
    assert_eq!(
        (written(&tokens[answers[0].clone()]).as_str(), *label),
        ("no <end>", Some(1))
    );
    let tokenizer = tokenizer();
    let encoder = Encoder::new(&settings("instruction", 20), writer(&tokenizer, None));
    assert_eq!(
        encoder.answers(&task).unwrap()[1],
        tokens[answers[0].clone()],
        "the answer that is scored is the one that is learnt"
    );
}

#[test]
fn all_answers_of_a_conversation_are_learnt_each_after_its_own_prompt() {
    let mut task = task(&[], &[CHAT]);
    let examples = learnt(&mut task, 40, None);
    let Example {
        tokens, answers, ..
    } = &examples[0];
    assert_eq!(
        written(tokens),
        "very Which one Answer: two <end> three Answer: four <end>"
    );
    let said: Vec<String> = answers
        .iter()
        .map(|range| written(&tokens[range.clone()]))
        .collect();
    assert_eq!(said, ["two <end>", "four <end>"]);
}

/// Whatever the record, what stands before an answer in training is what is asked when the answer is wanted.
#[test]
fn what_is_asked_is_what_was_learnt() {
    let chat = ChatTemplate::new(TEMPLATE, &Default::default()).unwrap();
    let tokenizer = tokenizer();
    for chat in [None, Some(&chat)] {
        for labels in [&["no", "yes"][..], &[]] {
            for row in [
                ONE,
                r#"{"instruction": "one", "input": "two", "output": "no"}"#,
                r#"{"prompt": "one", "answer": "no", "system": "very"}"#,
                r#"{"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "no"}], "system": "very"}"#,
                r#"{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two", "weight": 0}, {"role": "user", "content": "three"},
                    {"role": "assistant", "content": "no"}]}"#,
                r#"{"prompt": "one one one one one one one one one one one one one one one one one one one one", "answer": "no"}"#,
            ] {
                let mut task = task(labels, &[row]);
                let learnt = learnt(&mut task, 24, chat);
                let last = learnt.last().unwrap();
                let prompt = &last.tokens[..last.answers.last().unwrap().start];
                let encoder = Encoder::new(&settings("instruction", 24), writer(&tokenizer, chat));
                // As a row that is scored, and as a text that comes from outside.
                let record = task.train.get(0).unwrap().record;
                let turns = record.turns();
                for record in [record, task.record(turns)] {
                    let asked = encoder.ask(&record, &task).unwrap();
                    assert_eq!(written(&asked.tokens), written(prompt), "{row}");
                }
            }
        }
    }
}

#[test]
fn only_the_text_is_cut_and_all_answers_have_room_for_the_same_prompt() {
    let rows = [
        r#"{"text": "one two three", "label": "yes"}"#,
        r#"{"text": "one two three", "label": "no very"}"#,
    ];
    let mut task = task(&["yes", "no very"], &rows);
    let prompts: Vec<String> = learnt(&mut task, 13, None)
        .iter()
        .map(|example| written(&example.tokens[..example.answers[0].start]))
        .collect();
    assert_eq!(
        prompts[0],
        "Which Text: one two three Options: yes, no very Answer:"
    );
    assert_eq!(prompts[0], prompts[1]);
    let examples = learnt(&mut task, 11, None);
    assert!(
        written(&examples[0].tokens).starts_with("Which Text: one Options:"),
        "{}",
        written(&examples[0].tokens)
    );
    assert_eq!(examples[1].tokens.len(), 11);
}

#[test]
fn a_conversation_that_is_too_long_loses_what_was_said_first() {
    let mut task = task(&[], &[CHAT]);
    let examples = learnt(&mut task, 9, None);
    assert_eq!(
        written(&examples[0].tokens),
        "very three Answer: four <end>"
    );
}

#[test]
fn what_fits_not_even_without_text_is_refused_to_learn_and_can_still_be_asked() {
    let mut task = task(&["yes", "no"], &[r#"{"text": "one", "label": "yes"}"#]);
    let tokenizer = tokenizer();
    let mut encoder = Encoder::new(&settings("instruction", 7), writer(&tokenizer, None));
    task.room = encoder.longest_answer(&task).unwrap();
    let message = encoder.learnt(&task).err().unwrap().to_string();
    assert!(
        message.contains("take 8 tokens; raise data.max_tokens = 7"),
        "{message}"
    );
    let record = task.train.get(0).unwrap().record;
    assert_eq!(encoder.ask(&record, &task).unwrap().tokens.len(), 6);
}
