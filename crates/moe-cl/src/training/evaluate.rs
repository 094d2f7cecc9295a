//! Accuracy of a learner on every task of the stream, off the autodiff device.

use std::time::Instant;

use burn::module::Module;

use crate::{
    answering::Answerer,
    base::Base,
    config::Experiment,
    data::Example,
    error::Result,
    events::{Event, Recorder},
    learner::Learner,
    methods::Method,
    predict::predict,
    training::stream::Task,
};

/// Scores of a learner on a stream.
pub struct Scores {
    /// Accuracy per task, in [0, 1].
    pub accuracies: Vec<Option<f64>>,
    /// The predicted class of every text, per task in the order of its evaluation examples.
    pub predictions: Vec<Vec<usize>>,
    /// Texts per second.
    pub examples_per_second: f64,
}

/// Evaluates `learner` on all of `tasks` with the task given (oracle). The learner must be prepared for all of them; `after` tasks have been learnt.
///
/// Runs on `learner.valid()`: a forward on the autodiff device without a backward would keep its graph.
///
/// # Errors
/// When an event cannot be recorded.
pub fn evaluate(
    experiment: &Experiment,
    base: &Base,
    method: &dyn Method,
    learner: &Learner,
    tasks: &[Task],
    after: usize,
    recorder: &mut dyn Recorder,
) -> Result<Scores> {
    let learner = learner.valid();
    let examples: usize = tasks.iter().map(|task| task.evaluation.len()).sum();
    recorder.record(&Event::EvaluationStarted { after, examples })?;
    let start = Instant::now();
    let mut done = 0;
    let mut accuracies = Vec::with_capacity(tasks.len());
    let mut all_predictions = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        let mut predicted = vec![0; task.evaluation.len()];
        for batch in task.evaluation_batches(experiment.evaluation.batch_size) {
            let examples: Vec<&Example> = batch.iter().map(|&i| &task.evaluation[i]).collect();
            let predictions = predict(
                experiment.training.objective,
                base,
                &learner,
                Answerer::of(method, index),
                &examples,
                &task.answers,
            );
            for (index, prediction) in batch.into_iter().zip(predictions) {
                predicted[index] = prediction;
            }
            done += examples.len();
            recorder.record(&Event::EvaluationStep { done })?;
        }
        accuracies.push(share(&task.right(&predicted)));
        all_predictions.push(predicted);
    }
    Ok(Scores {
        accuracies,
        predictions: all_predictions,
        examples_per_second: examples as f64 / start.elapsed().as_secs_f64().max(1e-9),
    })
}

/// The share that is true; none of nothing.
pub(super) fn share(right: &[bool]) -> Option<f64> {
    let count = right.iter().filter(|right| **right).count();
    (!right.is_empty()).then(|| count as f64 / right.len() as f64)
}

/// Texts of a task from which the gate's share is read.
const GATE_TEXTS: usize = 64;

/// Mean weight of the first active expert (in MoE-CL the shared one) per adapted layer, over the real tokens of some texts of `task`;
/// none where the method has no gate.
pub fn gate_share(
    base: &Base,
    method: &dyn Method,
    learner: &Learner,
    task: &Task,
    index: usize,
) -> Option<Vec<f64>> {
    let learner = learner.valid();
    let texts: Vec<&Example> = task.evaluation.iter().take(GATE_TEXTS).collect();
    if texts.is_empty() {
        return None;
    }
    let collate = learner.collate(base.collate());
    let batch = collate.batch(&texts, &base.decoder.device());
    let real = batch.texts.real.clone().float();
    let forward = learner.adapters.forward(
        learner.trunk(&base.decoder),
        &batch.texts,
        &method.routing(index),
        None,
        None,
    );
    let shares: Vec<f64> = forward
        .gates
        .into_iter()
        .map(|gate| {
            let [rows, seq, _active] = gate.dims();
            let first = gate.slice([0..rows, 0..seq, 0..1]).reshape([rows, seq]);
            f64::from((first * real.clone()).sum().into_scalar::<f32>()) / batch.real_tokens as f64
        })
        .collect();
    (!shares.is_empty()).then_some(shares)
}
