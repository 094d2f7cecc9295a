use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{Choices, values};
use super::{Phase, Tokens, draws};

/// Who finds a place where more tokens of a group choose an expert than it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// All first choices before all second ones, each in the order of the text (GShard, algorithm 1).
    #[default]
    Choice,
    /// In the order of the text, whichever choice it is.
    Position,
    /// All first choices before all second ones, each by the weight of the token's first choice
    /// (batch-prioritised routing; V-MoE, arXiv 2106.05974, §4.1).
    FirstChoice,
    /// The largest weights at that expert, whichever choice it is (Megatron-Core, DeepSpeed: dropping by probability).
    Weight,
    /// By lot while training (random token selection; Kim et al. 2021, arXiv 2109.10465), and [`Self::Choice`] while evaluating.
    Random,
}

/// Who is served before whom, with the numbers that say so.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order<'a> {
    Choice,
    Position,
    /// `[tokens]`, larger first, within each rank of choice.
    Token(&'a [f32]),
    /// `[tokens, top_k]`, larger first. Slots are then numbered in the order of the text.
    Largest(&'a [f32]),
}

impl Choices {
    /// Slots under a capacity of `places` per group and expert, `[tokens, top_k]`: nothing where there was no place.
    ///
    /// `weights [tokens, top_k]` decide where the priority is by weight, `lots [tokens, experts]` where it is by lot (larger first).
    pub fn queue(
        &self,
        priority: Priority,
        places: Option<usize>,
        weights: &Tensor<2>,
        lots: Option<&[f32]>,
        tokens: &Tokens,
    ) -> Vec<Option<u32>> {
        match (priority, lots) {
            (Priority::Position, _) => self.admit(Order::Position, places, tokens),
            (Priority::FirstChoice, _) => {
                let first = values(&weights.clone().narrow(1, 0, 1));
                self.admit(Order::Token(&first), places, tokens)
            }
            (Priority::Weight, _) => {
                let weights = values(weights);
                self.admit(Order::Largest(&weights), places, tokens)
            }
            (Priority::Random, Some(lots)) => {
                let lots = self.of_values(lots);
                self.admit(Order::Largest(&lots), places, tokens)
            }
            (Priority::Choice, _) | (Priority::Random, None) => {
                self.admit(Order::Choice, places, tokens)
            }
        }
    }

    /// As [`Self::queue`], in a given order.
    pub fn admit(
        &self,
        order: Order<'_>,
        places: Option<usize>,
        tokens: &Tokens,
    ) -> Vec<Option<u32>> {
        let (top_k, places) = (self.top_k, places.unwrap_or(usize::MAX));
        let mut slots = vec![None; self.experts.len()];
        let group = tokens.per_group() * top_k;
        for start in (0..self.experts.len()).step_by(group) {
            let mut line: Vec<usize> = (start..start + group)
                .filter(|&choice| self.stands[choice])
                .collect();
            // Sorting is stable: among equals the order of the text holds.
            match order {
                Order::Position => {}
                Order::Choice => line.sort_by_key(|choice| choice % top_k),
                Order::Token(numbers) => line.sort_by(|a, b| {
                    let later = numbers[b / top_k].total_cmp(&numbers[a / top_k]);
                    (a % top_k).cmp(&(b % top_k)).then(later)
                }),
                Order::Largest(numbers) => line.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a])),
            }
            let mut taken = vec![0; self.num_experts];
            for choice in line {
                let taken = &mut taken[self.experts[choice] as usize];
                if (*taken as usize) < places {
                    slots[choice] = Some(*taken);
                    *taken += 1;
                }
            }
            if matches!(order, Order::Largest(_)) {
                let mut next = vec![0; self.num_experts];
                for choice in start..start + group {
                    if let Some(slot) = &mut slots[choice] {
                        let next = &mut next[self.experts[choice] as usize];
                        *slot = *next;
                        *next += 1;
                    }
                }
            }
        }
        slots
    }
}

impl Priority {
    /// `[tokens, experts]`, where this priority is by lot and the router draws.
    pub(crate) fn lots(self, phase: Phase, count: usize) -> Option<Vec<f32>> {
        match (self, phase) {
            (Self::Random, Phase::Train { seed }) => {
                Some(draws::uniform(seed, draws::Draw::Priority, count))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six tokens of two choices among three experts.
    fn choices() -> (Choices, Tokens) {
        let tokens = Tokens::new(6);
        let experts = vec![0, 1, 0, 2, 1, 0, 0, 1, 2, 0, 0, 1];
        (Choices::of(experts, 3, 2, &tokens), tokens)
    }

    #[test]
    fn first_choices_fill_first() {
        let (choices, tokens) = choices();
        let slots = choices.admit(Order::Choice, Some(3), &tokens);
        // Expert 0 is the first choice of tokens 0, 1, 3 and 5.
        let first: Vec<_> = slots.iter().step_by(2).copied().collect();
        assert_eq!(first, [Some(0), Some(1), Some(0), Some(2), Some(0), None]);
        assert_eq!(slots[5], None);
    }

    #[test]
    fn no_expert_is_above_its_capacity_in_any_order() {
        let (choices, tokens) = choices();
        let numbers: Vec<f32> = (0..12).map(|n| (n * 7 % 12) as f32).collect();
        for groups in [1, 2, 3] {
            let tokens = tokens.clone().in_groups(groups);
            for order in [
                Order::Choice,
                Order::Position,
                Order::Token(&numbers[..6]),
                Order::Largest(&numbers),
            ] {
                for places in 1..4 {
                    let slots = choices.admit(order, Some(places), &tokens);
                    let mut seen = std::collections::BTreeSet::new();
                    for (choice, slot) in slots.iter().enumerate() {
                        let Some(slot) = slot else { continue };
                        assert!((*slot as usize) < places);
                        let group = choice / 2 / tokens.per_group();
                        assert!(seen.insert((group, choices.experts[choice], *slot)));
                    }
                }
            }
        }
    }

    #[test]
    fn padding_takes_no_place() {
        let (choices, tokens) = choices();
        let tokens = tokens.with_real(vec![false, true, true, true, true, true]);
        let choices = Choices::of(choices.experts, 3, 2, &tokens);
        let slots = choices.admit(Order::Choice, Some(2), &tokens);
        assert_eq!((slots[0], slots[1]), (None, None));
        assert_eq!((slots[2], slots[6]), (Some(0), Some(1)));
    }
}
