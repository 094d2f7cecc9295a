//! Batches: the order in which examples come, and their tensors.

use burn::tensor::{Device, Tensor, TensorData};
use moe_lora::Texts;
use rand::seq::SliceRandom;

use super::Example;
use crate::{
    seeds::{Purpose, Seeds},
    trunk::Trunk,
};

/// Batches whose texts are sorted by length together: more of them pad less and mix less.
const BATCHES_PER_BUCKET: usize = 16;

/// Examples as tensors, padded on the right to the longest.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The texts, `[batch, seq]`.
    pub texts: Texts,
    /// Tokens of each example without padding, `batch` numbers.
    pub lengths: Vec<usize>,
    /// Class of each example; empty unless every example has one.
    pub labels: Vec<usize>,
    /// For each answer token, the position whose output predicts it, as an index into `batch · seq`.
    pub answer_positions: Vec<usize>,
    /// The answer tokens, example after example.
    pub answer_tokens: Vec<u32>,
    /// Tokens without padding, over the batch.
    pub real_tokens: usize,
}

impl Batch {
    /// Puts examples together; `pad` fills the short rows, and no result depends on its value.
    ///
    /// # Panics
    /// Without examples, or with one whose answer begins at its first token, which nothing predicts.
    pub fn new(examples: &[&Example], pad: u32, device: &Device) -> Self {
        let lengths: Vec<usize> = examples
            .iter()
            .map(|example| example.tokens.len())
            .collect();
        let (rows, seq) = (
            examples.len(),
            lengths.iter().copied().max().expect("a batch has examples"),
        );
        let mut tokens = vec![i64::from(pad); rows * seq];
        let mut real = vec![false; rows * seq];
        let (mut answer_positions, mut answer_tokens) = (Vec::new(), Vec::new());
        for (row, example) in examples.iter().enumerate() {
            let start = row * seq;
            for (column, &token) in example.tokens.iter().enumerate() {
                tokens[start + column] = i64::from(token);
                real[start + column] = true;
            }
            for position in example.answers.iter().cloned().flatten() {
                assert!(
                    position > 0,
                    "the first token of a row is predicted by nothing"
                );
                answer_positions.push(start + position - 1);
                answer_tokens.push(example.tokens[position]);
            }
        }
        Self {
            texts: Texts::new(
                Tensor::from_data(TensorData::new(tokens, [rows, seq]), device),
                Tensor::from_data(TensorData::new(real, [rows, seq]), device),
            ),
            real_tokens: lengths.iter().sum(),
            labels: examples
                .iter()
                .map(|example| example.label)
                .collect::<Option<_>>()
                .unwrap_or_default(),
            lengths,
            answer_positions,
            answer_tokens,
        }
    }
}

/// How examples become batches, for the methods.
#[derive(Clone, Copy, Debug)]
pub struct Collate<'a> {
    /// Token that fills the short rows.
    pub pad: u32,
    /// The frozen lower layers, where what they make of the texts is kept.
    pub trunk: Option<Trunk<'a>>,
}

impl Collate<'_> {
    /// Batches without anything known of the texts.
    pub fn padding(pad: u32) -> Self {
        Self { pad, trunk: None }
    }

    /// Puts examples together on `device`, with the states of the trunk where there is one.
    ///
    /// # Panics
    /// As [`Batch::new`].
    pub fn batch(&self, examples: &[&Example], device: &Device) -> Batch {
        let mut batch = Batch::new(examples, self.pad, device);
        if let Some(trunk) = &self.trunk {
            let [_rows, seq] = batch.texts.tokens.dims();
            let texts: Vec<&[u32]> = examples.iter().map(|it| &it.tokens[..]).collect();
            batch.texts.states = Some(trunk.states(&texts, seq, device));
        }
        batch
    }
}

/// The batches of one epoch, as indices into the examples whose `lengths` are given. Every example is in exactly one.
///
/// The examples are shuffled, sorted by length within stretches of 16 batches so that little is padded, cut into
/// batches, and the batches are shuffled. The result depends on the arguments alone, so that (task, epoch, batch) says
/// where in the data a run is.
pub fn epoch_batches(
    lengths: &[usize],
    batch_size: usize,
    seed: u64,
    task: usize,
    epoch: usize,
) -> Vec<Vec<usize>> {
    let mut rng = Seeds(seed).rng(Purpose::Order, task, epoch);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.shuffle(&mut rng);
    let mut batches = Vec::with_capacity(lengths.len().div_ceil(batch_size));
    for bucket in order.chunks_mut(batch_size.saturating_mul(BATCHES_PER_BUCKET)) {
        bucket.sort_by_key(|&index| lengths[index]);
        batches.extend(bucket.chunks(batch_size).map(<[usize]>::to_vec));
    }
    batches.shuffle(&mut rng);
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example(tokens: &[u32], answer: std::ops::Range<usize>, label: Option<usize>) -> Example {
        Example {
            tokens: tokens.into(),
            label,
            answers: vec![answer],
        }
    }

    proptest! {
        #[test]
        fn every_example_comes_exactly_once_per_epoch(lengths in proptest::collection::vec(1usize..99, 0..300), size in 1usize..9, seed: u64) {
            let batches = epoch_batches(&lengths, size, seed, 2, 1);
            let mut seen: Vec<usize> = batches.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert_eq!(batches.len(), lengths.len().div_ceil(size));
            prop_assert!(batches.iter().all(|batch| batch.len() <= size));
        }
    }

    #[test]
    fn the_order_depends_on_seed_task_and_epoch_and_on_nothing_else() {
        let lengths: Vec<usize> = (0..64).map(|i| i % 7 + 1).collect();
        let order = |seed, task, epoch| epoch_batches(&lengths, 4, seed, task, epoch);
        assert_eq!(order(1, 2, 3), order(1, 2, 3));
        for other in [order(2, 2, 3), order(1, 3, 3), order(1, 2, 4)] {
            assert_ne!(order(1, 2, 3), other);
        }
    }

    #[test]
    fn buckets_pad_less_than_a_plain_shuffle() {
        let lengths: Vec<usize> = (0..256).map(|i| i * 37 % 96 + 1).collect();
        let padded: usize = epoch_batches(&lengths, 8, 0, 0, 0)
            .iter()
            .map(|batch| batch.len() * batch.iter().map(|&i| lengths[i]).max().unwrap())
            .sum();
        assert!(
            padded < lengths.iter().sum::<usize>() * 115 / 100,
            "{padded}"
        );
    }

    #[test]
    fn padding_is_never_counted_as_real() {
        let (long, short) = (
            example(&[5, 6, 7], 0..0, Some(1)),
            example(&[8], 0..0, Some(0)),
        );
        let batch = Batch::new(&[&long, &short], 0, &Device::flex());
        let real: Vec<bool> = batch.texts.real.into_data().iter::<bool>().collect();
        assert_eq!(real, [true, true, true, true, false, false]);
        assert_eq!(
            (batch.real_tokens, batch.lengths, batch.labels),
            (4, vec![3, 1], vec![1, 0])
        );
        let tokens: Vec<i64> = batch.texts.tokens.into_data().iter::<i64>().collect();
        assert_eq!(tokens, [5, 6, 7, 8, 0, 0]);
    }

    #[test]
    fn an_answer_token_is_predicted_one_position_before_it() {
        let (first, second) = (
            example(&[5, 6, 7], 1..3, None),
            example(&[8, 9], 1..2, Some(0)),
        );
        let batch = Collate::padding(0).batch(&[&first, &second], &Device::flex());
        assert_eq!(
            (batch.answer_positions, batch.answer_tokens),
            (vec![0, 1, 3], vec![6, 7, 9])
        );
        assert!(batch.labels.is_empty(), "not every example has a label");
    }
}
