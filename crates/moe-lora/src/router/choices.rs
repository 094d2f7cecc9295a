use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Dispatch, Entry, RouterLoss, Tokens, loss};

/// What every token chose, before any capacity: `[tokens, top_k]`, best first.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub top_k: usize,
    pub num_experts: usize,
    /// `[tokens, top_k]`.
    pub experts: Vec<u32>,
    /// `[tokens, top_k]`, false where a choice does not stand: in the padding, or because a router goes without it.
    pub stands: Vec<bool>,
}

impl Choices {
    /// The `top_k` largest of every row of `scores [tokens, experts]`; among equals the first.
    ///
    /// # Panics
    /// When there are fewer experts than choices.
    pub fn largest(scores: &[f32], num_experts: usize, top_k: usize, tokens: &Tokens) -> Self {
        assert!(
            (1..=num_experts).contains(&top_k),
            "top_k = {top_k} of {num_experts} experts"
        );
        let mut order = Vec::with_capacity(num_experts);
        let mut experts = Vec::with_capacity(tokens.count() * top_k);
        for row in scores.chunks(num_experts) {
            order.clear();
            order.extend(0..num_experts as u32);
            let better = |a: &u32, b: &u32| {
                let (left, right) = (row[*a as usize], row[*b as usize]);
                right.total_cmp(&left).then(a.cmp(b))
            };
            if top_k < num_experts {
                order.select_nth_unstable_by(top_k - 1, better);
            }
            order[..top_k].sort_unstable_by(better);
            experts.extend_from_slice(&order[..top_k]);
        }
        Self::of(experts, num_experts, top_k, tokens)
    }

    /// Choices made elsewhere, `experts [tokens, top_k]`.
    pub fn of(experts: Vec<u32>, num_experts: usize, top_k: usize, tokens: &Tokens) -> Self {
        assert_eq!(
            experts.len(),
            tokens.count() * top_k,
            "top_k choices per token"
        );
        let stands = (0..experts.len()).map(|choice| tokens.is_real(choice / top_k));
        Self {
            top_k,
            num_experts,
            stands: stands.collect(),
            experts,
        }
    }

    /// `[groups, experts]`, the share of each expert in the first `ranks` choices of the group's tokens.
    pub fn shares(&self, ranks: usize, tokens: &Tokens) -> Vec<f64> {
        let counts = self.counts(tokens, |choice| {
            self.stands[choice] && choice % self.top_k < ranks
        });
        loss::shares(&counts, self.num_experts)
    }

    /// `[groups, experts]`, how many of the choices that are to `count` fell on each expert.
    pub fn counts(&self, tokens: &Tokens, count: impl Fn(usize) -> bool) -> Vec<u32> {
        let mut counts = vec![0; tokens.groups() * self.num_experts];
        for (choice, &expert) in self.experts.iter().enumerate() {
            if count(choice) {
                let group = choice / self.top_k / tokens.per_group();
                counts[group * self.num_experts + expert as usize] += 1;
            }
        }
        counts
    }

    /// `[tokens, top_k]` for gathering.
    pub fn indices(&self, device: &Device) -> Tensor<2, Int> {
        let ids: Vec<i64> = self
            .experts
            .iter()
            .map(|&expert| i64::from(expert))
            .collect();
        let shape = [ids.len() / self.top_k, self.top_k];
        Tensor::from_data(TensorData::new(ids, shape), device)
    }

    /// `table [tokens, experts]` where it was chosen, `[tokens, top_k]`.
    pub fn of_table(&self, table: Tensor<2>) -> Tensor<2> {
        let indices = self.indices(&table.device());
        table.gather(1, indices)
    }

    /// `values [tokens, experts]` where they were chosen, `[tokens, top_k]`.
    pub fn of_values(&self, values: &[f32]) -> Vec<f32> {
        let chosen = self.experts.iter().enumerate();
        chosen
            .map(|(choice, &expert)| {
                values[choice / self.top_k * self.num_experts + expert as usize]
            })
            .collect()
    }

    /// The choices that got a slot, with their `weights [tokens, top_k]`.
    pub fn dispatch(
        &self,
        slots: &[Option<u32>],
        weights: Tensor<2>,
        scores: Option<Tensor<2>>,
        losses: Vec<RouterLoss>,
    ) -> Dispatch {
        let [tokens, top_k] = weights.dims();
        assert_eq!(
            (tokens * top_k, top_k),
            (slots.len(), self.top_k),
            "a weight per choice"
        );
        let mut entries = Vec::with_capacity(slots.len());
        let mut kept = Vec::with_capacity(slots.len());
        for (choice, slot) in slots.iter().enumerate() {
            if let Some(slot) = *slot {
                entries.push(Entry {
                    token: (choice / top_k) as u32,
                    expert: self.experts[choice],
                    slot,
                });
                kept.push(choice as i64);
            }
        }
        let mut wanted = vec![0; self.num_experts];
        for (choice, &expert) in self.experts.iter().enumerate() {
            wanted[expert as usize] += u32::from(self.stands[choice]);
        }
        Dispatch {
            tokens,
            experts: self.num_experts,
            entries,
            weights: picked(weights.reshape([tokens * top_k]), kept),
            scores,
            wanted,
            losses,
        }
    }
}

/// `values [n]` at `places`.
pub(crate) fn picked(values: Tensor<1>, places: Vec<i64>) -> Tensor<1> {
    if places.iter().copied().eq(0..values.dims()[0] as i64) {
        return values;
    }
    let shape = [places.len()];
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, shape), &values.device());
    values.select(0, places)
}

/// Read back, row-major: what the choice is made of.
pub(crate) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.clone().into_data().iter::<f32>().collect()
}

/// `numbers`, drawn or given, as a constant beside `like`.
pub(crate) fn constant(numbers: &[f32], like: &Tensor<2>) -> Tensor<2> {
    let shape = like.dims();
    assert_eq!(
        numbers.len(),
        shape[0] * shape[1],
        "a number per entry of {shape:?}"
    );
    Tensor::from_data(TensorData::new(numbers.to_vec(), shape), &like.device())
}
