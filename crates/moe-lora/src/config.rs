use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use moe_core::config::ModelConfig;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Size and start of one LoRA pair (Hu et al. 2021, arXiv 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Inner dimension `r`.
    pub rank: usize,
    /// Numerator of the scaling.
    pub alpha: f64,
    /// Scale by `alpha / √rank` rather than `alpha / rank` (Kalajdzievski 2023, arXiv 2312.03732).
    pub rslora: bool,
    /// Probability of dropping a number of the input of `A` while training. The layers take it
    /// through a [`LoraDropout`](crate::LoraDropout).
    pub dropout: f64,
    /// How `A` starts; `B` starts at zero.
    pub init: LoraInit,
}

/// Rank 8, scaled by 2, nothing dropped: what `moe-cl` takes where an experiment says nothing.
impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            rslora: false,
            dropout: 0.0,
            init: LoraInit::default(),
        }
    }
}

/// Start of `A`, as in PEFT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// `init_lora_weights = true`: Kaiming uniform with `a = √5`, that is `U(±1/√d_in)`.
    #[default]
    Kaiming,
    /// `init_lora_weights = "gaussian"`: normal with standard deviation `1 / rank`.
    Gaussian,
}

impl LoraConfig {
    /// What `x A B` is multiplied with.
    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let setting = |key, value, expected| {
            Err(Error::Setting {
                key,
                value,
                expected,
            })
        };
        if self.rank == 0 {
            return setting("rank", 0.0, "at least 1");
        }
        if !self.alpha.is_finite() {
            return setting("alpha", self.alpha, "a finite number");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return setting("dropout", self.dropout, "at least 0 and below 1");
        }
        Ok(())
    }
}

/// A matrix of a decoder layer that a LoRA can be added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Projection {
    /// `gate_proj` of the feed-forward network, `[d_model, d_ff]`.
    #[serde(rename = "gate")]
    Gate,
    /// `up_proj`, `[d_model, d_ff]`.
    #[serde(rename = "up")]
    Up,
    /// `down_proj`, `[d_ff, d_model]`.
    #[serde(rename = "down")]
    Down,
    /// `q_proj` of the attention.
    #[serde(rename = "q")]
    Query,
    /// `k_proj`.
    #[serde(rename = "k")]
    Key,
    /// `v_proj`.
    #[serde(rename = "v")]
    Value,
    /// `o_proj`.
    #[serde(rename = "o")]
    Output,
}

impl Projection {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Gate,
        Self::Up,
        Self::Down,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
    ];
    /// Their names in configurations, in the order of [`Self::ALL`].
    pub const NAMES: [&'static str; 7] = ["gate", "up", "down", "q", "k", "v", "o"];

    /// Name in configurations.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether it is one of the feed-forward block's: gate, up or down.
    pub fn is_inside(self) -> bool {
        matches!(self, Self::Gate | Self::Up | Self::Down)
    }

    /// `[d_in, d_out]` in a dense layer of a decoder of that configuration.
    pub fn shape(self, base: &ModelConfig) -> [usize; 2] {
        self.shape_of_width(base, base.d_ff)
    }

    /// `[d_in, d_out]` in that layer, outside of a sparse block's experts: nothing where it has no such matrix.
    pub(crate) fn shape_in(self, base: &ModelConfig, layer: usize) -> Option<[usize; 2]> {
        let d_ff = match base.sparse_in(layer).filter(|_| self.is_inside()) {
            Some(sparse) => sparse.shared_d_ff?,
            None => base.d_ff,
        };
        Some(self.shape_of_width(base, d_ff))
    }

    /// `[d_in, d_out]` beside or in a feed-forward network of width `d_ff`.
    pub(crate) fn shape_of_width(self, base: &ModelConfig, d_ff: usize) -> [usize; 2] {
        let (heads, kv_heads) = (
            base.num_heads * base.head_dim,
            base.num_kv_heads * base.head_dim,
        );
        match self {
            Self::Gate | Self::Up => [base.d_model, d_ff],
            Self::Down => [d_ff, base.d_model],
            Self::Query => [base.d_model, heads],
            Self::Key | Self::Value => [base.d_model, kv_heads],
            Self::Output => [heads, base.d_model],
        }
    }
}

impl FromStr for Projection {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|projection| projection.name() == name)
            .ok_or_else(|| Error::UnknownTarget {
                name: name.to_owned(),
            })
    }
}

/// Which decoder layers get experts: `all` or `last:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum LayerRange {
    /// Every layer.
    #[default]
    All,
    /// The last N: the layers below need no backward pass.
    Last(usize),
}

impl LayerRange {
    /// The decoder layers meant, of `num_layers`: all of them where there are no more than N.
    pub fn resolve(self, num_layers: usize) -> Range<usize> {
        match self {
            Self::All => 0..num_layers,
            Self::Last(n) => num_layers.saturating_sub(n)..num_layers,
        }
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Last(n) => write!(f, "last:{n}"),
        }
    }
}

impl FromStr for LayerRange {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self> {
        let last = |n: &str| n.parse().ok().filter(|&n| n > 0).map(Self::Last);
        match given.strip_prefix("last:") {
            Some(n) => last(n),
            None => (given == "all").then_some(Self::All),
        }
        .ok_or_else(|| Error::UnknownLayers {
            given: given.to_owned(),
        })
    }
}

impl From<LayerRange> for String {
    fn from(range: LayerRange) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for LayerRange {
    type Error = Error;

    fn try_from(given: String) -> Result<Self> {
        given.parse()
    }
}

/// Where a model gets experts and of what kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// One LoRA pair.
    pub lora: LoraConfig,
    /// The projections an expert has a LoRA on.
    pub targets: Vec<Projection>,
    /// The decoder layers.
    pub layers: LayerRange,
}

/// The default [`LoraConfig`] on the feed-forward networks of every layer.
impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            lora: LoraConfig::default(),
            targets: vec![Projection::Gate, Projection::Up, Projection::Down],
            layers: LayerRange::default(),
        }
    }
}

impl AdapterConfig {
    /// Numbers in one expert over all its layers, on that base.
    pub fn expert_parameters(&self, base: &ModelConfig) -> usize {
        let width = |shape: [usize; 2]| shape.iter().sum::<usize>();
        let one = |layer: usize, target: &Projection| {
            let outside = target.shape_in(base, layer).map_or(0, width);
            let sparse = base.sparse_in(layer).filter(|_| target.is_inside());
            outside
                + sparse.map_or(0, |sparse| {
                    sparse.num_experts * width(target.shape_of_width(base, sparse.d_ff))
                })
        };
        let layers = self.layers.resolve(base.num_layers);
        let widths =
            layers.map(|layer| self.targets.iter().map(|it| one(layer, it)).sum::<usize>());
        self.lora.rank * widths.sum::<usize>()
    }

    /// Refuses settings out of range, no layer, targets missing or repeated.
    pub(crate) fn check(&self) -> Result<()> {
        self.lora.check()?;
        if self.layers == LayerRange::Last(0) {
            let given = self.layers.to_string();
            return Err(Error::UnknownLayers { given });
        }
        if self.targets.is_empty() {
            return Err(Error::NoTarget);
        }
        for (index, target) in self.targets.iter().enumerate() {
            if self.targets[..index].contains(target) {
                return Err(Error::RepeatedTarget {
                    name: target.name(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_make_sense() {
        assert_eq!(AdapterConfig::default().check(), Ok(()));
        assert_eq!(LoraConfig::default().scaling(), 2.0);
    }

    #[test]
    fn ranges_that_match_nothing_are_refused() {
        let resolved = |range: &str| range.parse::<LayerRange>().unwrap().resolve(5);
        for (range, layers) in [("last:2", 3..5), ("all", 0..5), ("last:8", 0..5)] {
            assert_eq!(resolved(range), layers, "{range}");
        }
        for bad in ["last:0", "last:", "last:-1", "first:2", ""] {
            assert!(bad.parse::<LayerRange>().is_err(), "{bad}");
        }
        let none = AdapterConfig {
            layers: LayerRange::Last(0),
            ..AdapterConfig::default()
        };
        assert!(none.check().is_err());
    }

    #[test]
    fn targets_are_named_as_in_configurations() {
        for name in Projection::NAMES {
            assert_eq!(name.parse::<Projection>().unwrap().name(), name);
        }
        let error = "gate_proj".parse::<Projection>().unwrap_err();
        assert!(error.to_string().contains("gate, up, down, q, k, v, o"));
    }

    #[test]
    fn scaling_is_alpha_over_rank_or_its_root() {
        let mut lora = LoraConfig {
            rank: 4,
            alpha: 16.0,
            rslora: false,
            dropout: 0.0,
            init: LoraInit::Kaiming,
        };
        assert_eq!(lora.scaling(), 4.0);
        lora.rslora = true;
        assert_eq!(lora.scaling(), 8.0);
    }
}
