//! Predictions: the best class of a head, the label whose whole text is the most probable answer, or an answer in free text.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation::log_softmax};
use moe_core::{
    generate::{CausalLm, Sampling, Side, generate, pad as pad_rows},
    model::KvCache,
};

use crate::{
    base::Base,
    data::Example,
    error::Result,
    head::Head,
    learner::Learner,
    task_model::{TaskChoice, TaskModel},
};

/// Index of the predicted label for each example. `learner` is off the autodiff device.
///
/// `answers` holds the tokens of each label as an answer, where labels are written.
pub fn predict(
    base: &Base,
    learner: &Learner,
    choice: TaskChoice<'_>,
    examples: &[&Example],
    answers: &[Vec<u32>],
) -> Vec<usize> {
    argmax_rows(class_scores(base, learner, choice, examples, answers))
}

/// Scores of the task's labels for each example, `[examples, labels]`: the head's logits, or the log-probability of each label as
/// an answer. The softmax over a row is the distribution over the labels. Arguments as for [`predict`].
pub fn class_scores(
    base: &Base,
    learner: &Learner,
    choice: TaskChoice<'_>,
    examples: &[&Example],
    answers: &[Vec<u32>],
) -> Tensor<2> {
    match learner.head(choice.task) {
        Some(head) => head.score(text_features(base, learner, choice, head, examples)),
        None => {
            let model = TaskModel::new(learner.decoder(&base.decoder), learner, choice);
            label_scores(&model, &prompts(examples), answers, base.pad())
        }
    }
}

/// What is written after each example, of at most `room` tokens with its end: the most probable token each time, until one ends the
/// answer. `learner` is off the autodiff device.
///
/// # Errors
/// When the tokenizer cannot read what was written.
pub fn write_answers(
    base: &Base,
    learner: &Learner,
    choice: TaskChoice<'_>,
    examples: &[&Example],
    room: usize,
) -> Result<Vec<String>> {
    let model = TaskModel::new(learner.decoder(&base.decoder), learner, choice);
    let greedy = Sampling::greedy();
    let written = generate(&model, &prompts(examples), room, &greedy, base.ends.all())?;
    let text = |tokens: Vec<u32>| Ok(base.tokenizer.decode(&tokens, true)?.trim().to_owned());
    written.into_iter().map(text).collect()
}

fn prompts(examples: &[&Example]) -> Vec<Vec<u32>> {
    examples.iter().map(|it| it.tokens.clone()).collect()
}

/// What the `head` of the task reads of each text, `[examples, d_model]`, with the
/// experts of the choice. Arguments as for [`predict`].
fn text_features(
    base: &Base,
    learner: &Learner,
    choice: TaskChoice<'_>,
    head: &Head,
    examples: &[&Example],
) -> Tensor<2> {
    let decoder = learner.decoder(&base.decoder);
    let collate = learner.collate(base.collate());
    let batch = collate.batch(examples, &decoder.device());
    let mix = choice.mix(decoder, learner, &batch.texts);
    let hidden = learner
        .catalogue
        .forward_mixed(decoder, &batch.texts, &mix, None);
    head.features(hidden, &batch)
}

/// Log-probability of each whole answer after each prompt, `[prompts, answers]`.
///
/// The prompts run once, left-padded; every answer goes on from a copy of their keys and values.
pub fn label_scores(
    model: &impl CausalLm,
    prompts: &[Vec<u32>],
    answers: &[Vec<u32>],
    pad: u32,
) -> Tensor<2> {
    let (tokens, real) = pad_rows(prompts, pad, Side::Left, &model.device());
    let mut cache = KvCache::new(model.num_layers());
    let hidden = model.forward_cached(tokens, real, &mut cache);
    let [batch, seq, d_model] = hidden.dims();
    let last = hidden
        .slice([0..batch, seq - 1..seq])
        .reshape([batch, d_model]);
    let first = log_softmax(model.logits(last), 1);

    let scores = answers
        .iter()
        .map(|answer| {
            let start = first.clone().slice([0..batch, token_range(answer[0])]);
            match answer.len() {
                1 => start,
                _ => start + continuation(model, cache.clone(), batch, answer),
            }
        })
        .collect();
    Tensor::cat(scores, 1)
}

/// Log-probability of `answer[1..]` given the prompt and `answer[0]`, `[batch, 1]`.
fn continuation(
    model: &impl CausalLm,
    mut cache: KvCache,
    batch: usize,
    answer: &[u32],
) -> Tensor<2> {
    let device = model.device();
    let given = &answer[..answer.len() - 1];
    let tokens = token_row(given, &device).expand([batch, given.len()]);
    let real = Tensor::<2, Bool>::full([batch, given.len()], true, &device);
    let hidden = model.forward_cached(tokens, real, &mut cache);
    let [_, seq, d_model] = hidden.dims();
    let targets: Vec<usize> = answer[1..].iter().map(|&token| token as usize).collect();
    model
        .log_probabilities(
            hidden.reshape([batch * seq, d_model]),
            &targets.repeat(batch),
        )
        .reshape([batch, seq])
        .sum_dim(1)
}

fn token_range(token: u32) -> std::ops::Range<usize> {
    token as usize..token as usize + 1
}

/// `[1, tokens]`
fn token_row(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
    Tensor::from_data(TensorData::new(values, [1, tokens.len()]), device)
}

fn argmax_rows(scores: Tensor<2>) -> Vec<usize> {
    let [_rows, columns] = scores.dims();
    scores
        .into_data()
        .iter::<f32>()
        .collect::<Vec<_>>()
        .chunks(columns)
        .map(|row| {
            row.iter()
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))
                .map_or(0, |(index, _)| index)
        })
        .collect()
}
