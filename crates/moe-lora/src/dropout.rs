use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use moe_kernels::dropout::Mask;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{ExpertId, Projection};

/// The input of one LoRA matrix A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// Decoder layer.
    pub layer: usize,
    /// Matrix of that layer.
    pub projection: Projection,
    /// The expert.
    pub expert: ExpertId,
}

/// Dropout on LoRA inputs: `x ⊙ mask / (1 − p)`, a mask of its own for every [`Site`]. The frozen
/// path sees the whole input.
///
/// A mask is a function of the seed and the site alone, whatever was computed before. Use another
/// seed for every step; a resumed run then needs to know the step, not the state of a generator.
#[derive(Clone, Debug)]
pub struct LoraDropout {
    probability: f64,
    masks: Masks,
}

#[derive(Clone, Debug)]
enum Masks {
    Seeded(u64),
    Given(HashMap<Site, Tensor<2>>),
}

impl LoraDropout {
    /// Drops each number with `probability`.
    ///
    /// # Panics
    ///
    /// When `probability` is not at least 0 and below 1.
    pub fn new(probability: f64, seed: u64) -> Self {
        assert!(
            (0.0..1.0).contains(&probability),
            "dropout of {probability}"
        );
        Self {
            probability,
            masks: Masks::Seeded(seed),
        }
    }

    /// With masks `[batch, seq, d_in]` of ones (kept) and zeros, to compare with another program.
    pub fn given(probability: f64, masks: impl IntoIterator<Item = (Site, Tensor<3>)>) -> Self {
        let scale = 1.0 / (1.0 - probability);
        let masks = masks
            .into_iter()
            .map(|(site, mask)| (site, mask.flatten(0, 1) * scale));
        Self {
            probability,
            masks: Masks::Given(masks.collect()),
        }
    }

    /// Whether anything is dropped.
    pub(crate) fn is_on(&self) -> bool {
        self.probability > 0.0
    }

    /// The mask of a site, where it is drawn and not given.
    pub(crate) fn mask(
        &self,
        layer: usize,
        projection: Projection,
        expert: ExpertId,
    ) -> Option<Mask> {
        let site = Site {
            layer,
            projection,
            expert,
        };
        match &self.masks {
            Masks::Seeded(seed) => Some(mask(*seed, site, self.probability)),
            Masks::Given(_) => None,
        }
    }

    /// The part of one expert in one layer.
    pub(crate) fn at(&self, layer: usize, expert: ExpertId) -> ExpertDropout<'_> {
        ExpertDropout {
            dropout: self,
            layer,
            expert,
        }
    }

    /// `x [n, d_in]` with the site's mask on it.
    ///
    /// # Panics
    ///
    /// When masks were given but not this one.
    pub fn apply(&self, x: Tensor<2>, site: Site) -> Tensor<2> {
        if self.probability == 0.0 {
            return x;
        }
        let mask = match &self.masks {
            Masks::Seeded(seed) => {
                let [n, d_in] = x.dims();
                let factors = mask(*seed, site, self.probability).factors(n, d_in);
                Tensor::from_data(TensorData::new(factors, [n, d_in]), &x.device().inner())
            }
            Masks::Given(masks) => masks
                .get(&site)
                .unwrap_or_else(|| panic!("no dropout mask was given for {site:?}"))
                .clone(),
        };
        x * mask
    }
}

/// The masks of one expert in one layer.
pub(crate) struct ExpertDropout<'a> {
    dropout: &'a LoraDropout,
    layer: usize,
    expert: ExpertId,
}

impl ExpertDropout<'_> {
    /// `x [n, d_in]` with the mask of `projection` on it.
    pub(crate) fn apply(&self, x: Tensor<2>, projection: Projection) -> Tensor<2> {
        let site = Site {
            layer: self.layer,
            projection,
            expert: self.expert,
        };
        self.dropout.apply(x, site)
    }
}

/// Every site of a seed has a key of its own.
fn mask(seed: u64, site: Site, probability: f64) -> Mask {
    let Site {
        layer,
        projection,
        expert,
    } = site;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((layer as u64) << 40 | (projection as u64) << 32 | expert.0);
    Mask::new(rng.next_u64(), probability)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    const SITE: Site = Site {
        layer: 3,
        projection: Projection::Up,
        expert: ExpertId(1),
    };

    fn mask(seed: u64, site: Site) -> Vec<f32> {
        let ones = Tensor::<2>::ones([40, 50], &Device::flex());
        let data = LoraDropout::new(0.25, seed).apply(ones, site).into_data();
        data.iter::<f32>().collect()
    }

    #[test]
    fn every_site_and_seed_has_its_own_mask_always_the_same() {
        assert_eq!(mask(7, SITE), mask(7, SITE));
        let others = [
            (8, SITE),
            (7, Site { layer: 4, ..SITE }),
            (
                7,
                Site {
                    expert: ExpertId(0),
                    ..SITE
                },
            ),
            (
                7,
                Site {
                    projection: Projection::Gate,
                    ..SITE
                },
            ),
        ];
        for (seed, site) in others {
            assert_ne!(mask(7, SITE), mask(seed, site));
        }
    }

    #[test]
    fn a_quarter_is_dropped_and_the_mean_is_kept() {
        let mask = mask(7, SITE);
        let dropped = mask.iter().filter(|&&x| x == 0.0).count();
        assert!(dropped.abs_diff(500) < 60, "{dropped} of 2000");
        assert!((mask.iter().sum::<f32>() / 2000.0 - 1.0).abs() < 0.04);
    }
}
