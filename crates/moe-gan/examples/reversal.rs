//! A shared feature extractor on toy data becomes task-blind.
//!
//! Two tasks ask the same yes/no question, but their inputs carry a mark of the task. Trained
//! with the adversarial loss the features keep the answer and lose the mark: a fresh
//! discriminator, trained on the frozen features, falls to guessing.
//!
//! ```text
//! cargo run --release -p moe-gan --example reversal
//! ```

use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use moe_gan::{Discriminator, DiscriminatorLoss, adversarial_loss};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const INPUTS: usize = 8;
const FEATURES: usize = 6;
const BATCH: usize = 128;

#[derive(Module, Debug)]
struct Model {
    /// `[INPUTS, FEATURES]`, the shared part.
    extractor: Param<Tensor<2>>,
    /// The answer is read with the same linear map and cross-entropy as the task.
    answer: Discriminator,
    tasks: Discriminator,
}

/// Inputs `[BATCH, INPUTS]`, answers and tasks. The first input holds the answer, the second the
/// task, the rest is noise.
fn draw(rng: &mut impl Rng, device: &Device) -> (Tensor<2>, Vec<usize>, Vec<usize>) {
    let mut pick = || {
        (0..BATCH)
            .map(|_| rng.random_range(0..2))
            .collect::<Vec<usize>>()
    };
    let (answers, tasks) = (pick(), pick());
    let mut values: Vec<f32> = (0..BATCH * INPUTS)
        .map(|_| rng.random_range(-0.5..0.5))
        .collect();
    for (row, (answer, task)) in values.chunks_mut(INPUTS).zip(answers.iter().zip(&tasks)) {
        row[0] += *answer as f32 * 2.0 - 1.0;
        row[1] += *task as f32 * 2.0 - 1.0;
    }
    let x = Tensor::from_data(TensorData::new(values, [BATCH, INPUTS]), device);
    (x, answers, tasks)
}

fn accuracy(discriminator: &Discriminator, features: Tensor<2>, labels: &[usize]) -> f64 {
    let best: Tensor<2, Int> = discriminator.logits(features).argmax(1);
    let best: Vec<usize> = best
        .into_data()
        .iter::<i64>()
        .map(|label| label as usize)
        .collect();
    let right = best
        .iter()
        .zip(labels)
        .filter(|(best, label)| best == label)
        .count();
    right as f64 / labels.len() as f64
}

/// Trains the model, then a fresh discriminator on its features; returns the accuracies of the
/// answer and of that discriminator.
fn run(weight: f64) -> (f64, f64) {
    let device = Device::flex().autodiff();
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let start = Discriminator::new(INPUTS, FEATURES, rng, &device);
    let mut model = Model {
        extractor: start.weight,
        answer: Discriminator::new(FEATURES, 2, rng, &device),
        tasks: Discriminator::new(FEATURES, 2, rng, &device),
    };
    let mut optimizer = AdamWConfig::new().init();
    for _ in 0..1500 {
        let (x, answers, tasks) = draw(rng, &device);
        let features = x.matmul(model.extractor.val());
        let answer = model
            .answer
            .loss(features.clone(), &answers, DiscriminatorLoss::Logits);
        let blind = adversarial_loss(
            std::slice::from_ref(&model.tasks),
            vec![features],
            &tasks,
            DiscriminatorLoss::Logits,
        );
        let grads = (answer + blind * weight).backward();
        let grads = GradientsParams::from_grads(grads, &model);
        model = optimizer.step(0.005, model, grads);
    }

    let mut probe = Discriminator::new(FEATURES, 2, rng, &device);
    let mut optimizer = AdamWConfig::new().init();
    for _ in 0..300 {
        let (x, _, tasks) = draw(rng, &device);
        let features = x.matmul(model.extractor.val()).detach();
        let grads = probe
            .loss(features, &tasks, DiscriminatorLoss::Logits)
            .backward();
        let grads = GradientsParams::from_grads(grads, &probe);
        probe = optimizer.step(0.05, probe, grads);
    }

    let (x, answers, tasks) = draw(rng, &device);
    let features = x.matmul(model.extractor.val());
    (
        accuracy(&model.answer, features.clone(), &answers),
        accuracy(&probe, features, &tasks),
    )
}

fn main() {
    for weight in [0.0, 1.0, 3.0] {
        let (answer, task) = run(weight);
        println!(
            "adversarial weight {weight:.1}: answer {:.0} % right, task of a feature guessed {:.0} % right",
            answer * 100.0,
            task * 100.0
        );
    }
}
