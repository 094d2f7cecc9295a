//! Records as tokens: with a head the text alone, as an instruction a prompt and its answer.

use std::ops::Range;

use burn_dataset::Dataset;
use moe_core::{
    chat::{ChatTemplate, Message},
    tokenizer::Tokenizer,
};
use serde::{Deserialize, Serialize};

use super::question::{ANSWER, Question};
use super::{DataError, Record, Records, Role, TaskData};
use crate::{config::Objective, directory::TaskSettings};

/// A record as tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The text; as an instruction, prompt and answer.
    pub tokens: Vec<u32>,
    /// Its class, where the task has labels.
    pub label: Option<usize>,
    /// Where in `tokens` the answer stands, its end token included; empty with heads.
    pub answer: Range<usize>,
}

/// Turns records into examples of at most `data.max_tokens` tokens.
///
/// What does not fit is cut from the end of the text, never from the question, the options or the answer; how many texts
/// were cut is told by [`take_warnings`](Self::take_warnings). No record is dropped.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    chat: Option<&'a ChatTemplate>,
    end: u32,
    objective: Objective,
    max_tokens: usize,
    warnings: Vec<String>,
}

impl<'a> Encoder<'a> {
    /// An encoder for a task of these settings. `end` is the token that ends an answer; instructions are rendered by the chat
    /// template, or without one as `question / Text: … / Options: a, b / Answer:`.
    pub fn new(
        settings: &TaskSettings,
        tokenizer: &'a Tokenizer,
        chat: Option<&'a ChatTemplate>,
        end: u32,
    ) -> Self {
        Self {
            tokenizer,
            chat,
            end,
            objective: settings.training.objective,
            max_tokens: settings.data.max_tokens,
            warnings: Vec::new(),
        }
    }

    /// Encodes the records of one of the task's files, in their order.
    ///
    /// # Errors
    /// A text that the tokenizer or the template refuses, that has no token, or that does not fit even when it is cut to nothing.
    pub fn encode_all(
        &mut self,
        records: &Records,
        task: &TaskData,
    ) -> Result<Vec<Example>, DataError> {
        let room = self.answers(task)?.iter().map(Vec::len).max().unwrap_or(0);
        let (mut examples, mut cut) = (Vec::with_capacity(records.len()), 0);
        for record in records.iter() {
            let record = record.map_err(|error| refuse(task, error.to_string()))?;
            let (example, was_cut) = match self.objective {
                Objective::Heads => self.text(&record, task)?,
                Objective::Instruction => self.instruction(&record, task, room)?,
            };
            cut += usize::from(was_cut);
            examples.push(example);
        }
        if cut > 0 {
            let message = format!(
                "task `{}`: {cut} of {} texts are cut to data.max_tokens = {}",
                task.name,
                examples.len(),
                self.max_tokens
            );
            self.warnings.push(message);
        }
        Ok(examples)
    }

    /// The tokens of the bare texts, without what a task asks about them: what can be read before the task is known.
    ///
    /// # Errors
    /// A text that the tokenizer refuses or that has no token.
    pub fn bare_texts(
        &self,
        records: &Records,
        task: &TaskData,
    ) -> Result<Vec<Vec<u32>>, DataError> {
        let bare = |record: Result<Record, _>| match record {
            Ok(record) => self.bare_text(Question::new(&record, task).text, task),
            Err(error) => Err(refuse(task, format!("{error}"))),
        };
        records.iter().map(bare).collect()
    }

    fn bare_text(&self, text: &str, task: &TaskData) -> Result<Vec<u32>, DataError> {
        let mut tokens = self.tokens(text, true, task)?;
        if tokens.is_empty() {
            return Err(refuse(task, format!("the text {text:?} has no token")));
        }
        tokens.truncate(self.max_tokens);
        Ok(tokens)
    }

    /// A record of one task as another task would ask about it. Its class is none where that task has no such label.
    ///
    /// # Errors
    /// As [`Self::encode_all`].
    pub fn encode_as(&self, record: &Record, task: &TaskData) -> Result<Example, DataError> {
        let (example, _cut) = match self.objective {
            Objective::Heads => self.text(record, task)?,
            Objective::Instruction => {
                let room = self.answers(task)?.iter().map(Vec::len).max().unwrap_or(0);
                self.instruction(record, task, room)?
            }
        };
        Ok(example)
    }

    /// The tokens of each of the task's labels as an answer, end token included; none where answers are free text.
    ///
    /// # Errors
    /// A label that the tokenizer refuses.
    pub fn answers(&self, task: &TaskData) -> Result<Vec<Vec<u32>>, DataError> {
        match self.objective {
            Objective::Heads => Ok(Vec::new()),
            Objective::Instruction => task
                .labels
                .iter()
                .map(|label| self.answer(label, task))
                .collect(),
        }
    }

    /// What the user should know about the records encoded since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn tokens(
        &self,
        text: &str,
        add_special: bool,
        task: &TaskData,
    ) -> Result<Vec<u32>, DataError> {
        self.tokenizer
            .encode_text(text, add_special)
            .map_err(|error| DataError::Encoding {
                task: task.name.clone(),
                error,
            })
    }

    /// The answer as it follows a prompt: a template ends its prompt with white space, the plain prompt with a colon.
    fn answer(&self, answer: &str, task: &TaskData) -> Result<Vec<u32>, DataError> {
        let written = if self.chat.is_some() {
            answer.into()
        } else {
            format!(" {answer}")
        };
        let mut tokens = self.tokens(&written, false, task)?;
        tokens.push(self.end);
        Ok(tokens)
    }

    fn text(&self, record: &Record, task: &TaskData) -> Result<(Example, bool), DataError> {
        let Record::Classification { text, label } = record else {
            return Err(refuse(task, "a head needs a text and a label".into()));
        };
        let mut tokens = self.tokens(text, true, task)?;
        if tokens.is_empty() {
            return Err(refuse(task, format!("the text {text:?} has no token")));
        }
        let cut = tokens.len() > self.max_tokens;
        tokens.truncate(self.max_tokens);
        Ok((
            Example {
                tokens,
                label: class(task, label),
                answer: 0..0,
            },
            cut,
        ))
    }

    /// Prompt and answer; `room` is the length of the longest answer to choose from, so that the prompt is the same for all.
    fn instruction(
        &self,
        record: &Record,
        task: &TaskData,
        room: usize,
    ) -> Result<(Example, bool), DataError> {
        let answer = self.answer(record.answer(), task)?;
        let room = self.max_tokens.saturating_sub(room.max(answer.len()));
        let question = Question::new(record, task);
        let mut prompt = self.prompt(&question, question.text, task)?;
        let cut = prompt.len() > room;
        if cut {
            let text = self.tokens(question.text, false, task)?;
            let mut keep = text.len();
            // Cutting n tokens off the text may change how its neighbours are split, so the rest is measured again.
            while prompt.len() > room {
                if keep == 0 {
                    let message = format!(
                        "question and answer alone take {} tokens; raise data.max_tokens = {} or shorten the instruction and labels",
                        prompt.len() + self.max_tokens - room,
                        self.max_tokens
                    );
                    return Err(refuse(task, message));
                }
                keep = keep.saturating_sub(prompt.len() - room);
                let start = self
                    .tokenizer
                    .decode(&text[..keep], false)
                    .map_err(|error| DataError::Encoding {
                        task: task.name.clone(),
                        error,
                    })?;
                prompt = self.prompt(&question, start.trim_end_matches('\u{fffd}'), task)?;
            }
        }
        let mut tokens = prompt;
        let start = tokens.len();
        tokens.extend(answer);
        let answer = start..tokens.len();
        Ok((
            Example {
                tokens,
                label: class(task, record.answer()),
                answer,
            },
            cut,
        ))
    }

    fn prompt(
        &self,
        question: &Question<'_>,
        text: &str,
        task: &TaskData,
    ) -> Result<Vec<u32>, DataError> {
        let last = format!("{}{text}{}", question.before, question.after);
        let Some(chat) = self.chat else {
            let earlier: String = question
                .earlier
                .iter()
                .map(|turn| format!("{}\n", turn.text))
                .collect();
            return self.tokens(&format!("{earlier}{last}{ANSWER}"), true, task);
        };
        let earlier = question
            .earlier
            .iter()
            .map(|turn| Message::new(turn.role.name(), turn.text.clone()));
        let messages: Vec<Message> = earlier
            .chain([Message::new(Role::User.name(), last)])
            .collect();
        chat.encode(&messages, true, self.tokenizer)
            .map_err(|error| DataError::Encoding {
                task: task.name.clone(),
                error,
            })
    }
}

fn class(task: &TaskData, label: &str) -> Option<usize> {
    task.labels.iter().position(|known| known == label)
}

fn refuse(task: &TaskData, message: String) -> DataError {
    DataError::Task {
        task: task.name.clone(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Experiment;
    use burn_dataset::{InMemDataset, transform::SelectionDataset};

    use super::*;
    use crate::data::prompt_tokens;

    const WORDS: [&str; 14] = [
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
    ];
    const END: u32 = 99;

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

    fn records(rows: &[(&str, &str)]) -> Records {
        let rows = rows.iter().map(|(text, label)| Record::Classification {
            text: (*text).into(),
            label: (*label).into(),
        });
        SelectionDataset::new_select_all(InMemDataset::new(rows.collect()))
    }

    fn task(labels: &[&str]) -> TaskData {
        TaskData {
            name: "t".into(),
            labels: labels.iter().map(|label| (*label).into()).collect(),
            instruction: Some("Which".into()),
            train: records(&[]),
            dev: records(&[]),
            test: records(&[]),
            train_file: "train".into(),
            warnings: Vec::new(),
        }
    }

    fn experiment(objective: &str, max_tokens: usize) -> Experiment {
        let text = format!(
            "name='x'\ndata.max_tokens={max_tokens}\ntraining.objective='{objective}'\n[[tasks]]\nname='t'\ntrain='a'\ntest='b'"
        );
        Experiment::parse(&text, std::path::Path::new("x.toml"), &[]).unwrap()
    }

    #[test]
    fn a_head_reads_the_start_of_a_text_that_is_too_long_and_cuts_are_counted() {
        let (tokenizer, task) = (tokenizer(), task(&["no", "yes"]));
        let mut encoder = Encoder::new(
            &TaskSettings::of(&experiment("heads", 2)),
            &tokenizer,
            None,
            END,
        );
        let examples = encoder
            .encode_all(
                &records(&[("one two three", "yes"), ("two one", "no")]),
                &task,
            )
            .unwrap();
        assert_eq!(
            examples[0],
            Example {
                tokens: vec![8, 9],
                label: Some(1),
                answer: 0..0
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
        let (tokenizer, task) = (tokenizer(), task(&["yes", "no"]));
        let mut encoder = Encoder::new(
            &TaskSettings::of(&experiment("instruction", 20)),
            &tokenizer,
            None,
            END,
        );
        let examples = encoder
            .encode_all(&records(&[("one two", "no")]), &task)
            .unwrap();
        let Example {
            tokens,
            label,
            answer,
        } = &examples[0];
        assert_eq!(
            written(tokens),
            "Which Text: one two Options: yes, no Answer: no <end>"
        );
        assert_eq!(
            (written(&tokens[answer.clone()]).as_str(), *label),
            ("no <end>", Some(1))
        );
        assert_eq!(
            encoder.answers(&task).unwrap()[1],
            tokens[answer.clone()],
            "the answer that is scored is the one that is learnt"
        );
    }

    #[test]
    fn a_chat_template_is_used_where_there_is_one() {
        let source = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}";
        let (tokenizer, task, chat) = (
            tokenizer(),
            task(&["yes", "no"]),
            ChatTemplate::new(source, "", "").unwrap(),
        );
        let mut encoder = Encoder::new(
            &TaskSettings::of(&experiment("instruction", 20)),
            &tokenizer,
            Some(&chat),
            END,
        );
        let examples = encoder
            .encode_all(&records(&[("one", "yes")]), &task)
            .unwrap();
        assert_eq!(
            written(&examples[0].tokens),
            "<user> Which Text: one Options: yes, no <assistant> yes <end>"
        );
    }

    #[test]
    fn a_new_text_is_asked_about_in_the_words_of_training() {
        let source = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}";
        let chat = ChatTemplate::new(source, "", "").unwrap();
        let (tokenizer, task) = (tokenizer(), task(&["yes", "no"]));
        for chat in [None, Some(&chat)] {
            let mut encoder = Encoder::new(
                &TaskSettings::of(&experiment("instruction", 20)),
                &tokenizer,
                chat,
                END,
            );
            let learnt = encoder
                .encode_all(&records(&[("one", "yes")]), &task)
                .unwrap();
            let instruction = task.instruction.as_deref();
            let prompt = prompt_tokens(&tokenizer, chat, instruction, &task.labels, "one").unwrap();
            assert_eq!(prompt, learnt[0].tokens[..learnt[0].answer.start]);
        }
    }

    #[test]
    fn only_the_text_is_cut_and_all_answers_have_room_for_the_same_prompt() {
        let (tokenizer, task) = (tokenizer(), task(&["yes", "no very"]));
        let rows = records(&[("one two three", "yes"), ("one two three", "no very")]);
        let mut encoder = Encoder::new(
            &TaskSettings::of(&experiment("instruction", 13)),
            &tokenizer,
            None,
            END,
        );
        let examples = encoder.encode_all(&rows, &task).unwrap();
        let prompts: Vec<String> = examples
            .iter()
            .map(|example| written(&example.tokens[..example.answer.start]))
            .collect();
        assert_eq!(
            prompts[0],
            "Which Text: one two three Options: yes, no very Answer:"
        );
        assert_eq!(prompts[0], prompts[1]);
        let mut encoder = Encoder::new(
            &TaskSettings::of(&experiment("instruction", 11)),
            &tokenizer,
            None,
            END,
        );
        let examples = encoder.encode_all(&rows, &task).unwrap();
        assert!(
            written(&examples[0].tokens).starts_with("Which Text: one Options:"),
            "{}",
            written(&examples[0].tokens)
        );
        assert_eq!(examples[1].tokens.len(), 11);
        assert!(encoder.take_warnings()[0].contains("2 of 2"));
    }

    #[test]
    fn a_question_that_fits_not_even_without_text_is_refused() {
        let (tokenizer, task) = (tokenizer(), task(&["yes", "no"]));
        let mut encoder = Encoder::new(
            &TaskSettings::of(&experiment("instruction", 7)),
            &tokenizer,
            None,
            END,
        );
        let message = encoder
            .encode_all(&records(&[("one", "yes")]), &task)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("take 8 tokens; raise data.max_tokens = 7"),
            "{message}"
        );
    }
}
