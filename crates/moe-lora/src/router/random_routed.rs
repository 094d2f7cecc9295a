use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::choices::Choices;
use super::queue::Order;
use super::{Dispatch, Tokens};

/// Routed by what a token is and not by what it means (PanGu-Σ's random routed experts, arXiv 2303.10845, §2.3): nothing is learnt,
/// nothing needs balance, and a domain's experts are a model of their own.
///
/// Level 1: a domain has a group of experts to itself. Level 2: a fixed table, drawn when the router is made and independent of that of
/// other layers, maps each id of the vocabulary to one expert of the group. Weights are 1.
#[derive(Module, Debug)]
pub struct RandomRouted {
    #[module(skip)]
    table: DomainTable,
}

/// Which expert each id of the vocabulary has, domain by domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainTable {
    /// Experts of each domain's group, side by side.
    pub group_sizes: Vec<usize>,
    /// `[domains][vocabulary]`, the place in the group.
    pub places: Vec<Vec<u32>>,
}

impl RandomRouted {
    /// Draws the table of layer `layer` for a vocabulary of `vocab_size` and a group of experts per domain.
    ///
    /// # Panics
    /// When a group is empty.
    pub fn new(vocab_size: usize, group_sizes: &[usize], layer: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(layer as u64);
        let draw = |&size: &usize| {
            assert!(size > 0, "a domain has at least one expert");
            let places = (0..vocab_size).map(|_| rng.random_range(0..size as u32));
            places.collect()
        };
        Self::from_table(DomainTable {
            places: group_sizes.iter().map(draw).collect(),
            group_sizes: group_sizes.to_vec(),
        })
    }

    /// From a table that was drawn before.
    ///
    /// # Panics
    /// When it names an expert outside its group.
    pub fn from_table(table: DomainTable) -> Self {
        assert_eq!(
            table.group_sizes.len(),
            table.places.len(),
            "a row per domain"
        );
        for (&size, places) in table.group_sizes.iter().zip(&table.places) {
            assert!(
                places.iter().all(|&place| (place as usize) < size),
                "the table names an expert outside its group of {size}"
            );
        }
        Self { table }
    }

    /// The table, to be stored.
    pub fn table(&self) -> &DomainTable {
        &self.table
    }

    /// How many experts all domains have.
    pub fn experts(&self) -> usize {
        self.table.group_sizes.iter().sum()
    }

    /// The experts of a domain, as a range of ids.
    ///
    /// # Panics
    /// When there is no such domain.
    pub fn experts_of(&self, domain: usize) -> std::ops::Range<usize> {
        let start = self.table.group_sizes[..domain].iter().sum();
        start..start + self.table.group_sizes[domain]
    }

    /// The router of one domain's model by itself, as domain 0: its experts are [`Self::experts_of`] that domain, renumbered from 0.
    ///
    /// # Panics
    /// When there is no such domain.
    #[must_use]
    pub fn extract(&self, domain: usize) -> Self {
        Self::from_table(DomainTable {
            group_sizes: vec![self.table.group_sizes[domain]],
            places: vec![self.table.places[domain].clone()],
        })
    }

    /// Routes tokens by their ids and domains ([`Tokens::with_ids`]); weights are on `device`.
    ///
    /// # Panics
    /// When `tokens` has no ids, or one that is not in the table.
    pub fn forward(&self, tokens: &Tokens, device: &Device) -> Dispatch {
        let named = tokens
            .named()
            .expect("`Tokens::with_ids` says what is routed by");
        let starts: Vec<u32> = (0..self.table.places.len())
            .map(|domain| self.experts_of(domain).start as u32)
            .collect();
        let pairs = named.ids.iter().zip(&named.domains).enumerate();
        let experts = pairs.map(|(token, (&id, &domain))| match tokens.is_real(token) {
            true => starts[domain as usize] + self.table.places[domain as usize][id as usize],
            false => 0,
        });
        let choices = Choices::of(experts.collect(), self.experts(), 1, tokens);
        let slots = choices.admit(Order::Position, None, tokens);
        let weights = Tensor::ones([tokens.count(), 1], device);
        choices.dispatch(&slots, weights, None, Vec::new())
    }
}
