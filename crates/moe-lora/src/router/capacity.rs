use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many tokens of a group an expert takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Capacity {
    /// Every token that chooses it: nothing is dropped.
    #[default]
    Unlimited,
    /// `⌈factor · choices / experts⌉`, the even share of the group's choices times a factor (Switch Transformers, eq. 3).
    Factor {
        /// 1 is the even share.
        #[schemars(range(max = 1e6), extend("exclusiveMinimum" = 0))]
        factor: f64,
        /// At least so many.
        #[schemars(range(min = 0, max = 1_000_000_000))]
        min: usize,
    },
    /// So many.
    Places(#[schemars(range(min = 1, max = 1_000_000_000))] usize),
}

impl Capacity {
    /// The even share times `factor`.
    pub fn factor(factor: f64) -> Self {
        Self::Factor { factor, min: 1 }
    }

    /// Places of each expert for a group of `tokens` that choose `top_k` of `experts` each; nothing where there is no limit.
    pub fn places(self, tokens: usize, top_k: usize, experts: usize) -> Option<usize> {
        match self {
            Self::Unlimited => None,
            Self::Places(places) => Some(places),
            Self::Factor { factor, min } => {
                let share = factor * (tokens * top_k) as f64 / experts as f64;
                // 1.1 · 10 is a hair above 11 in binary, which is no reason for a twelfth place.
                let places = (share - 1e-9 * share.abs()).ceil().max(0.0);
                Some((places as usize).max(min))
            }
        }
    }

    /// What is wrong with it, if anything.
    pub(crate) fn fault(self) -> Option<String> {
        match self {
            Self::Factor { factor, .. } if !(factor > 0.0 && factor.is_finite()) => Some(format!(
                "the capacity factor is {factor}; it must be above 0"
            )),
            Self::Places(0) => Some("the capacity is 0 places; it must be at least 1".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_errors_give_no_place_more() {
        assert_eq!(Capacity::factor(1.1).places(10, 1, 1), Some(11));
        assert_eq!(Capacity::factor(0.6).places(16, 3, 4), Some(8));
        assert_eq!(Capacity::factor(1.0).places(16, 1, 4), Some(4));
        assert_eq!(Capacity::factor(1.25).places(100, 1, 8), Some(16));
    }

    #[test]
    fn the_least_capacity_holds() {
        let capacity = Capacity::Factor {
            factor: 0.1,
            min: 4,
        };
        assert_eq!(capacity.places(8, 1, 8), Some(4));
        assert_eq!(Capacity::Unlimited.places(8, 1, 8), None);
        assert_eq!(Capacity::Places(3).places(8, 1, 8), Some(3));
    }
}
