//! Scores of a learner on tasks of the stream, off the autodiff device.

use std::time::Instant;

use burn::module::Module;

use crate::{
    base::Base,
    data::Example,
    error::Result,
    events::{Event, LayerBalance, Recorder},
    learner::Learner,
    methods::Method,
    metrics::TextScore,
    predict::{predict, write_answers},
    task_model::TaskChoice,
    training::{balance::Balances, stream::Task},
};

/// A learner that is asked about the texts of its tasks.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    /// Texts per forward pass.
    pub batch_size: usize,
    /// The frozen base.
    pub base: &'a Base,
    /// Which experts answer.
    pub method: &'a dyn Method,
    /// What was trained, prepared for all tasks that it is asked about, off the autodiff device: a forward pass on it without a
    /// backward would keep its graph.
    pub learner: &'a Learner,
    /// The stream.
    pub tasks: &'a [Task],
}

/// Scores on some tasks of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Per task: its score, in [0, 1]; none where it was not asked about or has no texts.
    pub accuracies: Vec<Option<f64>>,
    /// Per task: how each of its texts is answered, in their order; none where it was not asked about.
    pub texts: Vec<Option<Vec<TextScore>>>,
    /// Texts per second.
    pub examples_per_second: f64,
}

impl Evaluation<'_> {
    /// Scores on the tasks `which` with the task given (oracle); `after` tasks have been learnt.
    ///
    /// # Errors
    /// When an event cannot be recorded.
    pub fn given(
        &self,
        which: &[usize],
        after: usize,
        recorder: &mut dyn Recorder,
    ) -> Result<Scores> {
        let examples = which
            .iter()
            .map(|&task| self.tasks[task].evaluation.len())
            .sum();
        recorder.record(&Event::EvaluationStarted { after, examples })?;
        let start = Instant::now();
        let mut done = 0;
        let mut scores = Scores {
            accuracies: vec![None; self.tasks.len()],
            texts: vec![None; self.tasks.len()],
            examples_per_second: 0.0,
        };
        for &index in which {
            let task = &self.tasks[index];
            let mut texts = vec![TextScore::Share(0.0); task.evaluation.len()];
            for batch in task.evaluation_batches(self.batch_size) {
                let examples: Vec<&Example> = batch.iter().map(|&i| &task.evaluation[i]).collect();
                let choice = TaskChoice::of(self.method, index);
                let answers = self.answers(choice, &examples)?;
                done += examples.len();
                for (text, answer) in batch.into_iter().zip(answers) {
                    texts[text] = task.score(text, &answer);
                }
                recorder.record(&Event::EvaluationStep { done })?;
            }
            scores.accuracies[index] = task.total(&texts);
            scores.texts[index] = Some(texts);
        }
        scores.examples_per_second = examples as f64 / start.elapsed().as_secs_f64().max(1e-9);
        Ok(scores)
    }

    /// What the experts of the choice answer to each example, in words: the name of a label, or what they write.
    ///
    /// # Errors
    /// When the tokenizer cannot read what was written.
    pub(super) fn answers(
        &self,
        choice: TaskChoice<'_>,
        examples: &[&Example],
    ) -> Result<Vec<String>> {
        let (base, learner, task) = (self.base, self.learner, &self.tasks[choice.task]);
        if task.labels.is_empty() {
            return write_answers(base, learner, choice, examples, task.data.room);
        }
        let classes = predict(base, learner, choice, examples, &task.answers);
        let label = |class: usize| task.labels[class].clone();
        Ok(classes.into_iter().map(label).collect())
    }
}

/// Texts of a task from which the gate's share is read, and the load of a sparse base's experts.
const GATE_TEXTS: usize = 64;

/// Mean weight of the first active expert (in MoE-CL the shared one) per adapted layer, over the real tokens of some texts of the task
/// `index`; none where the method has no gate.
pub(super) fn gate_share(
    base: &Base,
    learner: &Learner,
    task: &Task,
    index: usize,
) -> Option<Vec<f64>> {
    let routing = learner.answering(index);
    routing.gate()?;
    // A router has no first expert that stands out.
    if learner.catalogue.routers(routing).is_some() {
        return None;
    }
    let texts: Vec<&Example> = task.evaluation.iter().take(GATE_TEXTS).collect();
    if texts.is_empty() {
        return None;
    }
    let collate = learner.collate(base.collate());
    let batch = collate.batch(&texts, &base.decoder.device());
    let real = batch.texts.real.clone().float();
    let decoder = learner.decoder(&base.decoder);
    let catalogue = learner.catalogue.valid();
    let forward = catalogue.forward(decoder, &batch.texts, routing, None, None);
    let shares = forward.gates.into_iter().map(|gate| {
        let [rows, seq, _active] = gate.dims();
        let first = gate.slice([0..rows, 0..seq, 0..1]).reshape([rows, seq]);
        f64::from((first * real.clone()).sum().into_scalar::<f32>()) / batch.real_tokens as f64
    });
    Some(shares.collect())
}

/// How the tokens of some texts of the task `index` are spread over the experts of each sparse layer of the base; nothing where it is dense.
pub(super) fn balance_of(
    base: &Base,
    learner: &Learner,
    task: &Task,
    index: usize,
) -> Vec<LayerBalance> {
    let decoder = learner.decoder(&base.decoder);
    let texts: Vec<&Example> = task.evaluation.iter().take(GATE_TEXTS).collect();
    if decoder.config().sparse.is_none() || texts.is_empty() {
        return Vec::new();
    }
    let batch = learner
        .collate(base.collate())
        .batch(&texts, &decoder.device());
    let routing = learner.answering(index);
    let catalogue = learner.catalogue.valid();
    let forward = catalogue.forward(decoder, &batch.texts, routing, None, None);
    let mut balances = Balances::default();
    balances.add(&forward.dispatched, &forward.routed, &batch);
    balances.figures()
}
