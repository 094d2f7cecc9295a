//! Records as tokens: with a head the text alone, as an instruction a conversation with its answers.

use burn_dataset::Dataset;

use super::{
    DataError, Example, Record, Records, Row, TaskData, Turn, Writer,
    problem::{At, Problem},
    question::Question,
};
use crate::{config::Objective, directory::TaskSettings};

/// Turns records into examples of at most `data.max_tokens` tokens.
///
/// A conversation that does not fit loses what was said first, and then the end of its last text: never the question, the options or
/// the answer. How many were cut is told by [`take_warnings`](Self::take_warnings). No record is dropped.
///
/// What a prompt may take is the same whatever its answer is: all but the room for the task's longest answer, which is at most
/// half. An answer that is longer cuts its own prompt once more.
pub struct Encoder<'a> {
    writer: Writer<'a>,
    objective: Objective,
    max_tokens: usize,
    warnings: Vec<String>,
}

impl<'a> Encoder<'a> {
    /// An encoder for a task of these settings.
    pub fn new(settings: &TaskSettings, writer: Writer<'a>) -> Self {
        Self {
            writer,
            objective: settings.training.objective,
            max_tokens: settings.data.max_tokens,
            warnings: Vec::new(),
        }
    }

    /// What is learnt from the task's training records, in their order: an example each, or one per answer of a conversation
    /// that the base's template cannot write as one text.
    ///
    /// # Errors
    /// A record whose text the tokenizer or the template refuses, that has no token, or that does not fit even when its text is cut
    /// to nothing; the error names its place.
    pub fn learnt(&mut self, task: &TaskData) -> Result<Vec<Example>, DataError> {
        let mut examples = Vec::with_capacity(task.train.len());
        let mut cut = 0;
        for row in rows(&task.train) {
            let before = examples.len();
            let was_cut = match self.objective {
                Objective::Heads => {
                    let (example, was_cut) = self.text(&row.record, task).at(&row, task)?;
                    examples.push(example);
                    was_cut
                }
                Objective::Instruction => self
                    .conversation(&row.record, task, &mut examples)
                    .at(&row, task)?,
            };
            debug_assert!(examples.len() > before, "no record is dropped");
            cut += usize::from(was_cut);
        }
        self.warn_of_cuts(cut, task.train.len(), task);
        Ok(examples)
    }

    /// Records that are scored, as the task asks about them, in their order.
    ///
    /// # Errors
    /// As [`Self::learnt`].
    pub fn asked(&mut self, records: &Records, task: &TaskData) -> Result<Vec<Example>, DataError> {
        let mut examples = Vec::with_capacity(records.len());
        let mut cut = 0;
        for row in rows(records) {
            let (example, was_cut) = self.question(&row.record, task).at(&row, task)?;
            cut += usize::from(was_cut);
            examples.push(example);
        }
        self.warn_of_cuts(cut, records.len(), task);
        Ok(examples)
    }

    /// A record as the task asks about it, of whatever task the record is: the tokens that its experts go on from. The class is
    /// none where the task has no such label. A question that does not fit even without the text is longer than
    /// `data.max_tokens`.
    ///
    /// # Errors
    /// When the tokenizer or the template refuses it.
    pub fn ask(&self, record: &Record, task: &TaskData) -> Result<Example, DataError> {
        self.question(record, task)
            .map(|(example, _cut)| example)
            .map_err(|problem| problem.of_task(task))
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
        rows(records)
            .map(|row| self.bare_text(&row.record.bare_text()).at(&row, task))
            .collect()
    }

    /// The tokens of each of the task's labels as an answer, end token included; none with heads, and where answers are free text.
    ///
    /// # Errors
    /// A label that the tokenizer refuses.
    pub fn answers(&self, task: &TaskData) -> Result<Vec<Vec<u32>>, DataError> {
        match self.objective {
            Objective::Heads => Ok(Vec::new()),
            Objective::Instruction => {
                let labels = task.labels.iter().map(|label| self.answer(label));
                let answers: Result<_, Problem> = labels.collect();
                answers.map_err(|problem| problem.of_task(task))
            }
        }
    }

    /// Tokens of the longest answer, its end included: of the labels, or where answers are free text of the training records.
    ///
    /// # Errors
    /// An answer that the tokenizer refuses.
    pub fn longest_answer(&self, task: &TaskData) -> Result<usize, DataError> {
        if self.objective == Objective::Heads {
            return Ok(0);
        }
        if !task.labels.is_empty() {
            let answers = self.answers(task)?;
            return Ok(answers.iter().map(Vec::len).max().unwrap_or(0));
        }
        let mut longest = 0;
        for row in rows(&task.train) {
            longest = longest.max(self.answer(row.record.answer()).at(&row, task)?.len());
        }
        Ok(longest)
    }

    /// What the user should know about the records encoded since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn warn_of_cuts(&mut self, cut: usize, of: usize, task: &TaskData) {
        if cut > 0 {
            self.warnings.push(format!(
                "task `{}`: {cut} of {of} texts are cut to data.max_tokens = {}",
                task.name, self.max_tokens
            ));
        }
    }

    /// Tokens that a prompt may take, whatever its answer is.
    fn prompt_room(&self, task: &TaskData) -> usize {
        self.max_tokens - task.room.min(self.max_tokens / 2)
    }

    fn bare_text(&self, text: &str) -> Result<Vec<u32>, Problem> {
        let mut tokens = self.writer.tokenizer.encode_text(text, true)?;
        if tokens.is_empty() {
            return Err(Problem::Says(format!("the text {text:?} has no token")));
        }
        tokens.truncate(self.max_tokens);
        Ok(tokens)
    }

    fn answer(&self, answer: &str) -> Result<Vec<u32>, Problem> {
        Ok(self.writer.answer(answer)?)
    }

    fn question(&self, record: &Record, task: &TaskData) -> Result<(Example, bool), Problem> {
        if self.objective == Objective::Heads {
            return self.text(record, task);
        }
        let mut question = Question::new(record, task);
        let (tokens, cut) = self.fit(&mut question, self.prompt_room(task))?;
        let example = Example {
            tokens,
            label: class(task, record),
            answers: Vec::new(),
        };
        Ok((example, cut != Cut::Nothing))
    }

    fn text(&self, record: &Record, task: &TaskData) -> Result<(Example, bool), Problem> {
        let text = record.bare_text();
        let mut tokens = self.writer.tokenizer.encode_text(&text, true)?;
        if tokens.is_empty() {
            return Err(Problem::Says(format!("the text {text:?} has no token")));
        }
        let cut = tokens.len() > self.max_tokens;
        tokens.truncate(self.max_tokens);
        let example = Example {
            tokens,
            label: class(task, record),
            answers: Vec::new(),
        };
        Ok((example, cut))
    }

    /// A record with all its answers that are learnt; whether something of it was cut.
    fn conversation(
        &self,
        record: &Record,
        task: &TaskData,
        examples: &mut Vec<Example>,
    ) -> Result<bool, Problem> {
        let answer = self.answer(record.answer())?;
        let room = self.prompt_room(task);
        let room = room.min(self.max_tokens.saturating_sub(answer.len()));
        let mut question = Question::new(record, task);
        let (prompt, cut) = self.fit(&mut question, room)?;
        if prompt.len() > room {
            return Err(Problem::Says(format!(
                "question and answer alone take {} tokens; raise data.max_tokens = {} or shorten the instruction, the labels or the answer",
                prompt.len() + answer.len(),
                self.max_tokens
            )));
        }
        let label = class(task, record);
        let earlier = match cut {
            Cut::Text => Vec::new(),
            _ => question.turns(&question.text),
        };
        let earlier_learnt = earlier.iter().any(|turn| turn.learnt);
        if earlier_learnt {
            let mut turns = earlier.clone();
            turns.push(Turn::answer(record.answer().into()));
            if let Some(written) = self.writer.conversation(&turns)? {
                let answers = turns.iter().filter(|turn| turn.is_answer());
                let learnt = answers.zip(written.answers).filter(|(turn, _)| turn.learnt);
                examples.push(Example {
                    tokens: written.tokens,
                    label,
                    answers: learnt.map(|(_, range)| range).collect(),
                });
                return Ok(cut != Cut::Nothing);
            }
            for (index, turn) in earlier.iter().enumerate().filter(|(_, it)| it.learnt) {
                let prompt = self.writer.prompt(&earlier[..index])?;
                examples.push(Example::of_answer(prompt, self.answer(&turn.text)?, None));
            }
        }
        examples.push(Example::of_answer(prompt, answer, label));
        Ok(cut != Cut::Nothing)
    }

    /// The tokens of a question that is cut until it takes at most `room`, or until nothing is left to cut.
    fn fit(&self, question: &mut Question, room: usize) -> Result<(Vec<u32>, Cut), Problem> {
        let written = |question: &Question, text: &str| self.writer.prompt(&question.turns(text));
        let mut prompt = written(question, &question.text)?;
        let mut cut = Cut::Nothing;
        while prompt.len() > room && question.forget_first() {
            prompt = written(question, &question.text)?;
            cut = Cut::Turns;
        }
        if prompt.len() <= room {
            return Ok((prompt, cut));
        }
        let text = self.writer.tokenizer.encode_text(&question.text, false)?;
        let mut keep = text.len();
        // Cutting n tokens off the text may change how its neighbours are split, so the rest is measured again.
        while prompt.len() > room && keep > 0 {
            keep = keep.saturating_sub(prompt.len() - room);
            let start = self.writer.tokenizer.decode(&text[..keep], false)?;
            prompt = written(question, start.trim_end_matches('\u{fffd}'))?;
        }
        Ok((prompt, Cut::Text))
    }
}

/// What was left out of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Nothing,
    /// What was said first.
    Turns,
    /// The end of the last text.
    Text,
}

fn class(task: &TaskData, record: &Record) -> Option<usize> {
    let answer = record.answer();
    task.labels.iter().position(|known| known == answer)
}

/// The rows of a part. Memory has no row that cannot be read.
fn rows(records: &Records) -> impl Iterator<Item = Row> + '_ {
    records.iter().flatten()
}

#[cfg(test)]
mod tests;
