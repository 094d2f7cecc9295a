//! Texts of many tasks in one batch: the base's products once for all of them, each text through its own experts.

use std::collections::BTreeSet;

use burn::tensor::{Int, Tensor, TensorData};
use moe_core::model::{Decoder, FeedForwardBlock, KvCache};

use crate::router::Phase;
use crate::stacked::Stacked;
use crate::{Catalogue, ExpertBank, ExpertId, Pass, Routing, Texts};

/// The rows of a batch, by their routing.
pub(crate) struct PerText {
    /// Every routing with its rows.
    groups: Vec<(Routing, Vec<usize>)>,
    /// Everyone who is active for some text, in order.
    experts: Vec<ExpertId>,
}

impl PerText {
    /// From the routing of every row.
    pub(crate) fn new(routings: &[Routing]) -> Self {
        let mut groups: Vec<(Routing, Vec<usize>)> = Vec::new();
        for (row, routing) in routings.iter().enumerate() {
            match groups.iter_mut().find(|(known, _)| known == routing) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((routing.clone(), vec![row])),
            }
        }
        let experts: BTreeSet<ExpertId> = routings
            .iter()
            .flat_map(|routing| routing.experts().iter().copied())
            .collect();
        Self {
            groups,
            experts: experts.into_iter().collect(),
        }
    }

    pub(crate) fn forward(
        &self,
        catalogue: &Catalogue,
        base: &Decoder,
        texts: &Texts,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let everyone = Routing::Uniform {
            experts: self.experts.clone(),
        };
        let passes: Vec<Option<Pass>> = self
            .groups
            .iter()
            .map(|(routing, rows)| {
                catalogue.routers(routing)?;
                Some(Pass::new(&texts.rows(rows), Phase::Evaluate))
            })
            .collect();
        catalogue.walk(base, texts, cache, |index, layer, x, context, cache| {
            let Some(all) = catalogue.bank(index, &everyone) else {
                return layer.forward(x, context, cache);
            };
            let of = |routing: &Routing| catalogue.bank(index, routing);
            let normed = x.normed(&layer.input_norm);
            let adapt = |base: Tensor<3>, x: &Tensor<3>, projection| {
                if !all
                    .experts
                    .iter()
                    .any(|(_, it)| it.lora(projection).is_some())
                {
                    return base;
                }
                let [_, _, d_out] = base.dims();
                self.each(Tensor::cat(vec![base, x.clone()], 2), |group, joined| {
                    let [_, _, both] = joined.dims();
                    let base = joined.clone().narrow(2, 0, d_out);
                    let x = joined.narrow(2, d_out, both - d_out);
                    match of(&self.groups[group].0) {
                        Some(bank) => bank.add_updates(base, &x, projection, None),
                        None => base,
                    }
                })
            };
            x.add(all.attend_with(&layer.attention, normed, context, cache, adapt));
            let normed = x.normed(&layer.post_attention_norm);
            x.add(self.mixture(&all, of, &layer.feed_forward, &passes, normed));
        })
    }

    /// `x [batch, seq, d_model]` (already normed) → `[batch, seq, d_model]`; `all` are everyone, `of` who a routing names.
    fn mixture<'a>(
        &self,
        all: &ExpertBank<'_>,
        of: impl Fn(&Routing) -> Option<ExpertBank<'a>>,
        block: &FeedForwardBlock,
        passes: &[Option<Pass>],
        x: Tensor<3>,
    ) -> Tensor<3> {
        // A text for the base alone has no weights that sum to one, and a router sends each token its own way.
        let together = passes.iter().all(Option::is_none)
            && self
                .groups
                .iter()
                .all(|(routing, _)| *routing != Routing::Base);
        let bank = |group: usize| of(&self.groups[group].0);
        match (block, Stacked::new(all, None).filter(|_| together)) {
            (FeedForwardBlock::Dense(ffn), Some(stacked)) => {
                let weights = self.each(x.clone(), |group, x| match bank(group) {
                    Some(bank) => self.weights(&bank, x),
                    None => unreachable!("every text has an expert"),
                });
                stacked.mixture(ffn, x, weights)
            }
            _ => self.each(x, |group, x| match (bank(group), &passes[group]) {
                (Some(bank), Some(pass)) => bank.forward_routed(block, x, pass, None).output,
                (Some(bank), None) => bank.forward_block(block, x, None, None).output,
                (None, _) => block.forward(x),
            }),
        }
    }

    /// What everyone weighs for tokens of a bank's texts, `x [batch, seq, d_model]` → `[batch, seq, experts]`: exactly nothing where they
    /// are not active.
    fn weights(&self, bank: &ExpertBank<'_>, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let (active, all) = (bank.experts.len(), self.experts.len());
        let mut places = vec![0f32; active * all];
        for (row, (expert, _)) in bank.experts.iter().enumerate() {
            let column = self.experts.binary_search(expert);
            places[row * all + column.expect("everyone active is among them")] = 1.0;
        }
        let places = TensorData::new(places, [active, all]);
        let places = Tensor::<2>::from_data(places, &x.device());
        let weights = bank.weights(x.reshape([batch * seq, d_model]));
        weights.matmul(places).reshape([batch, seq, all])
    }

    /// `f` of each group's index and rows of `x`, each row back in its place.
    fn each(&self, x: Tensor<3>, f: impl Fn(usize, Tensor<3>) -> Tensor<3>) -> Tensor<3> {
        if self.groups.len() == 1 {
            return f(0, x);
        }
        let device = x.device();
        let index = |rows: &[usize]| {
            let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let count = rows.len();
            Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device)
        };
        let parts = self
            .groups
            .iter()
            .enumerate()
            .map(|(group, (_, rows))| f(group, x.clone().select(0, index(rows))));
        let joined = Tensor::cat(parts.collect(), 0);
        let order = self.groups.iter().flat_map(|(_, rows)| rows);
        let mut places = vec![0; joined.dims()[0]];
        for (place, &row) in order.enumerate() {
            places[row] = place;
        }
        joined.select(0, index(&places))
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::{Bool, Device, Tolerance};
    use moe_core::generate::CausalLm;

    use super::*;
    use crate::{GateId, GateInit, LayerRange, Mix, Mixed, Projection, tiny};

    fn setup(targets: &[Projection]) -> (Decoder, Catalogue) {
        let device = Device::flex();
        let base = Decoder::random(&tiny::model(), 3, &device);
        let config = tiny::config(targets, LayerRange::Last(2));
        let mut adapters = Catalogue::new(&config, base.config()).unwrap();
        let training = device.autodiff();
        for seed in 0..5 {
            adapters.add_expert(&config.lora, "task", seed, &training);
        }
        for seed in 0..2 {
            adapters.add_gate(2, GateInit::Random { seed }, "task", &training);
        }
        tiny::train_by_hand(&mut adapters);
        (base, adapters.valid())
    }

    fn gated(experts: [u64; 2], gate: u64) -> Routing {
        Routing::Gated {
            experts: experts.map(ExpertId).to_vec(),
            gate: GateId(gate),
        }
    }

    /// A routing per row of [`texts`].
    fn routings() -> Vec<Routing> {
        let experts = [4, 0, 1].map(ExpertId).to_vec();
        vec![
            gated([3, 0], 1),
            Routing::Single(ExpertId(2)),
            Routing::Uniform { experts },
            gated([3, 0], 1),
            gated([0, 1], 0),
        ]
    }

    fn texts(device: &Device) -> Texts {
        let tokens: Vec<i64> = (0..5 * 14).map(|i| (i * 7 + i / 5) % 17).collect();
        let tokens = Tensor::from_data(TensorData::new(tokens, [5, 14]), device);
        let real = Tensor::<2, Bool>::full([5, 14], true, device);
        Texts::new(tokens, real)
    }

    #[test]
    fn every_text_is_answered_as_in_a_batch_of_its_own() {
        for targets in [
            &Projection::ALL[..],
            &[Projection::Up],
            &[Projection::Gate, Projection::Up, Projection::Down],
        ] {
            let (base, adapters) = setup(targets);
            let texts = texts(&base.device());
            for last in [gated([0, 1], 0), Routing::Base] {
                let routings = routings().into_iter().take(4).chain([last]);
                let routings: Vec<Routing> = routings.collect();
                let mix = Mix::PerText(routings.clone());
                let mixed = adapters.forward_mixed(&base, &texts, &mix, None);
                for (row, routing) in routings.into_iter().enumerate() {
                    let one = |x: &Tensor<3>| x.clone().narrow(0, row, 1).into_data();
                    let own = Texts::new(
                        texts.tokens.clone().narrow(0, row, 1),
                        texts.real.clone().narrow(0, row, 1),
                    );
                    let alone = adapters.forward_mixed(&base, &own, &Mix::Routed(routing), None);
                    one(&mixed).assert_approx_eq::<f32>(
                        &alone.into_data(),
                        Tolerance::rel_abs(1e-4, 1e-5),
                    );
                }
            }
        }
    }

    #[test]
    fn steps_with_a_cache_equal_the_whole_pass() {
        let (base, adapters) = setup(&Projection::ALL);
        let texts = texts(&base.device());
        let mix = Mix::PerText(routings());
        let whole = adapters.forward_mixed(&base, &texts, &mix, None);
        let model = Mixed::new(&base, &adapters, mix);
        let mut cache = KvCache::new(model.num_layers());
        let mut part = |from: usize, count: usize| {
            let tokens = texts.tokens.clone().narrow(1, from, count);
            let real = texts.real.clone().narrow(1, from, count);
            model.forward_cached(tokens, real, &mut cache)
        };
        let parts = vec![part(0, 9), part(9, 1), part(10, 4)];
        Tensor::cat(parts, 1)
            .into_data()
            .assert_approx_eq::<f32>(&whole.into_data(), Tolerance::rel_abs(1e-4, 1e-5));
    }
}
