//! Steps of two programs in turn, and what to say of their ratio.

use std::thread::sleep;
use std::time::Duration;

use super::conditions::{Load, peak_memory, reset_peak_memory};
use super::program::Program;

/// After a step its program's threads may spin for a while: they must not run into the other's.
const PAUSE: Duration = Duration::from_millis(300);

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Seconds of the peer's steps.
    pub theirs: Vec<f64>,
    /// Seconds of ours.
    pub ours: Vec<f64>,
    /// GFLOP/s of the peer's products before and after the steps.
    pub their_gflops: [f64; 2],
    /// GFLOP/s of ours before and after.
    pub our_gflops: [f64; 2],
    /// Peak resident bytes of the peer during its steps.
    pub their_memory: Option<u64>,
    /// Ours.
    pub our_memory: Option<u64>,
    /// CPUs that other processes used meanwhile.
    pub other_cpus: Option<f64>,
}

impl Pairs {
    /// Times `rounds` steps of each, one after the other.
    ///
    /// # Errors
    /// When a program fails.
    pub fn measure(
        theirs: &mut Program,
        ours: &mut Program,
        rounds: usize,
    ) -> anyhow::Result<Self> {
        let mut pairs = Self::default();
        let ids = [theirs.id(), ours.id()];
        // First, so that what the products take is not in the peak of the steps.
        (pairs.their_gflops[0], pairs.our_gflops[0]) = (theirs.rate()?, ours.rate()?);
        for id in ids {
            reset_peak_memory(id);
        }
        let before = Load::now(&ids);
        for _ in 0..rounds {
            sleep(PAUSE);
            pairs.theirs.push(theirs.step()?);
            sleep(PAUSE);
            pairs.ours.push(ours.step()?);
        }
        pairs.other_cpus = before
            .zip(Load::now(&ids))
            .map(|(before, after)| after.others_since(before));
        [pairs.their_memory, pairs.our_memory] = ids.map(peak_memory);
        (pairs.their_gflops[1], pairs.our_gflops[1]) = (theirs.rate()?, ours.rate()?);
        Ok(pairs)
    }

    /// Of every pair, how many times as long the peer took.
    pub fn ratios(&self) -> Spread {
        let pairs = self.theirs.iter().zip(&self.ours);
        Spread::of(pairs.map(|(theirs, ours)| theirs / ours).collect())
    }

    /// The best rate that either program found: that of the machine in this run.
    pub fn gflops(&self) -> f64 {
        let rates = self.their_gflops.into_iter().chain(self.our_gflops);
        rates.fold(0.0, f64::max)
    }
}

/// Median, quartiles and extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// A quarter is below.
    pub lower: f64,
    /// The middle.
    pub median: f64,
    /// A quarter is above.
    pub upper: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of at least one value; between two, a quantile is interpolated.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len() - 1) as f64;
            let (below, above) = (
                values[place.floor() as usize],
                values[place.ceil() as usize],
            );
            below + place.fract() * (above - below)
        };
        Self {
            least: at(0.0),
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
            greatest: at(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_values_are_interpolated() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]);
        let Spread {
            least,
            lower,
            median,
            upper,
            greatest,
        } = spread;
        assert_eq!(
            [least, lower, median, upper, greatest],
            [1.0, 1.75, 2.5, 3.25, 4.0]
        );
        assert_eq!(Spread::of(vec![7.0]).upper, 7.0);
    }

    #[test]
    fn the_median_of_ratios_is_not_the_ratio_of_medians() {
        // The machine was slow during the second pair, for both.
        let pairs = Pairs {
            theirs: vec![2.0, 9.0, 2.2],
            ours: vec![1.0, 4.5, 1.0],
            ..Pairs::default()
        };
        let spread = pairs.ratios();
        assert_eq!(
            [spread.least, spread.median, spread.greatest],
            [2.0, 2.0, 2.2]
        );
    }

    #[cfg(unix)]
    #[test]
    fn programs_are_asked_in_turn() {
        use super::super::program::tests::steady;
        let pairs = Pairs::measure(&mut steady(3.0), &mut steady(2.0), 2).expect("they answer");
        assert_eq!(
            (pairs.theirs.as_slice(), pairs.ours.as_slice()),
            (&[3.0; 2][..], &[2.0; 2][..])
        );
        assert_eq!(pairs.gflops(), 100.0);
        assert_eq!(pairs.their_memory.is_some(), cfg!(target_os = "linux"));
    }
}
