//! Texts that are in no file of the model: who answers them, what they are asked, what is said of them.

use std::collections::BTreeMap;

use burn::tensor::activation::softmax;

use super::{stream::encoder, trained::Trained};
use crate::{
    data::{Encoder, Example, Record, TaskData, Turn},
    error::{Error, Result},
    predict::{class_scores, write_answers},
    recognizer::{Recognized, pooled_features},
    task_model::TaskChoice,
};

/// Who answers a text, and how that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answering {
    /// The task, or the nearest one.
    pub task: usize,
    /// Whether the text belongs to no known task, and experts that know of that write.
    pub shared: bool,
    /// What the recognizer said; none where the task was given.
    pub recognized: Option<Recognized>,
}

impl Answering {
    /// A task that was given.
    pub fn given(task: usize) -> Self {
        Self {
            task,
            shared: false,
            recognized: None,
        }
    }
}

/// What a model says of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// One of the task's labels, and the probability of each.
    Label {
        /// Its class.
        class: usize,
        /// Of every label of the task; they sum to one.
        probabilities: Vec<f64>,
    },
    /// An answer in free text.
    Text(String),
}

impl Trained<'_> {
    /// What a task asks about its texts, without any.
    pub fn task_data(&self, task: usize) -> TaskData {
        TaskData::kept(self.saved.state.task(task), Vec::new(), Vec::new())
    }

    /// Who answers each of these `bare` texts ([`Record::bare_text`]), as the recognizer sees it.
    ///
    /// # Errors
    /// When no task has been learnt yet, a text has no token, or the tokenizer refuses it.
    pub fn infer(&self, bare: &[String]) -> Result<Vec<Answering>> {
        if self.recognizer.tasks() == 0 {
            return Err(Error::NothingToInfer {
                problem: "no task has been learnt yet".into(),
            });
        }
        let tokens = |text: &String| {
            let mut tokens = self.base.tokenizer.encode_text(text, true)?;
            tokens.truncate(self.experiment.data.max_tokens);
            match tokens.is_empty() {
                true => Err(Error::NothingToInfer {
                    problem: "a text is empty".into(),
                }),
                false => Ok(tokens),
            }
        };
        let texts = bare.iter().map(tokens).collect::<Result<Vec<_>>>()?;
        let (decoder, layer) = (&self.base.decoder, self.recognizer.layer());
        let features = pooled_features(decoder, self.base.pad(), layer, &texts);
        let recognized = self.recognizer.recognize(&features).into_iter();
        let answering = recognized.map(|it| Answering {
            task: it.task,
            shared: !it.known && self.has_fallback(it.task),
            recognized: Some(it),
        });
        Ok(answering.collect())
    }

    /// The prompt of a conversation so far, as the task's training wrote it. A text of no known task is not asked a known task's
    /// question.
    ///
    /// # Errors
    /// When the template or the tokenizer refuses it.
    pub fn prompt(&self, who: Answering, turns: Vec<Turn>) -> Result<Vec<u32>> {
        match who.shared {
            true => Ok(self.base.writer().prompt(&turns)?),
            false => {
                let data = self.task_data(who.task);
                let record = data.record(turns);
                Ok(self.encoder(who.task).ask(&record, &data)?.tokens)
            }
        }
    }

    /// What is said of each conversation, a text being one turn of the user.
    ///
    /// # Errors
    /// As [`Self::prompt`].
    pub fn say(&self, who: &[Answering], texts: &[Vec<Turn>]) -> Result<Vec<Said>> {
        let mut groups: BTreeMap<(usize, bool), Vec<usize>> = BTreeMap::new();
        for (text, who) in who.iter().enumerate() {
            groups.entry((who.task, who.shared)).or_default().push(text);
        }
        let mut said = vec![None; texts.len()];
        for ((task, unknown), members) in groups {
            let (data, encoder) = (self.task_data(task), self.encoder(task));
            let choice = TaskChoice {
                method: self.method.as_ref(),
                task,
                unknown,
            };
            let labels = encoder.answers(&data)?;
            for members in members.chunks(self.experiment.evaluation.batch_size) {
                let ask = |&text: &usize| -> Result<Example> {
                    let record: Record = data.record(texts[text].clone());
                    Ok(encoder.ask(&record, &data)?)
                };
                let examples = members.iter().map(ask).collect::<Result<Vec<_>>>()?;
                let examples: Vec<&Example> = examples.iter().collect();
                let answers = self.say_one(choice, &data, &examples, &labels)?;
                for (&text, answer) in members.iter().zip(answers) {
                    said[text] = Some(answer);
                }
            }
        }
        Ok(said.into_iter().flatten().collect())
    }

    fn say_one(
        &self,
        choice: TaskChoice<'_>,
        data: &TaskData,
        examples: &[&Example],
        labels: &[Vec<u32>],
    ) -> Result<Vec<Said>> {
        let (base, learner) = (self.base, &self.learner);
        if data.labels.is_empty() {
            let answers = write_answers(base, learner, choice, examples, data.room)?;
            return Ok(answers.into_iter().map(Said::Text).collect());
        }
        let scores = softmax(class_scores(base, learner, choice, examples, labels), 1);
        let [_texts, classes] = scores.dims();
        let probabilities = scores.into_data();
        let probabilities: Vec<f64> = probabilities.iter::<f32>().map(f64::from).collect();
        let label = |row: &[f64]| {
            let best = row
                .iter()
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            Said::Label {
                class: best.map_or(0, |(class, _)| class),
                probabilities: row.to_vec(),
            }
        };
        Ok(probabilities.chunks(classes).map(label).collect())
    }

    fn encoder(&self, task: usize) -> Encoder<'_> {
        encoder(&self.saved.state.task(task).settings, self.base)
    }
}
