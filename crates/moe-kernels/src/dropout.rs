//! Dropout masks that are a function of a key and a place: nothing is stored, forward and backward
//! draw the same, and a resumed run needs to know the key alone.

/// Factor of entry (`row`, `column`): 0 with `probability`, else `1 / (1 − probability)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    key: u64,
    dropped_below: u32,
    kept: f32,
}

impl Mask {
    /// Of one matrix; `key` tells it from all others.
    ///
    /// # Panics
    ///
    /// When `probability` is not at least 0 and below 1.
    pub fn new(key: u64, probability: f64) -> Self {
        assert!(
            (0.0..1.0).contains(&probability),
            "dropout of {probability}"
        );
        Self {
            key,
            dropped_below: (probability * 2f64.powi(32)).round() as u32,
            kept: (1.0 / (1.0 - probability)) as f32,
        }
    }

    /// All factors of a matrix `[rows, columns]`.
    pub fn factors(&self, rows: usize, columns: usize) -> Vec<f32> {
        (0..rows)
            .flat_map(|row| {
                let start = self.row_start(row);
                (0..columns).map(move |column| self.factor(start, column))
            })
            .collect()
    }

    /// Where the draws of a row begin (SplitMix64, Steele et al. 2014).
    pub(crate) fn row_start(&self, row: usize) -> u32 {
        let x = self
            .key
            .wrapping_add((row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) as u32
    }

    /// 32 random bits from a counter (Wellons' `lowbias32`), which the compiler vectorises.
    #[inline(always)]
    pub(crate) fn factor(&self, row_start: u32, column: usize) -> f32 {
        let x = row_start.wrapping_add((column as u32).wrapping_mul(0x9e37_79b9));
        let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        let x = x ^ (x >> 16);
        if x < self.dropped_below {
            0.0
        } else {
            self.kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    #[test]
    fn the_share_dropped_is_the_probability_in_rows_and_columns() {
        let (rows, columns) = (200, 500);
        let factors = Mask::new(7, 0.25).factors(rows, columns);
        let dropped = factors.iter().filter(|&&x| x == 0.0).count();
        assert!(dropped.abs_diff(rows * columns / 4) < 600, "{dropped}");
        for column in 0..columns {
            let dropped = (0..rows)
                .filter(|row| factors[row * columns + column] == 0.0)
                .count();
            assert!((15..90).contains(&dropped), "{dropped} of column {column}");
        }
        let mean = factors.iter().sum::<f32>() / (rows * columns) as f32;
        assert!((mean - 1.0).abs() < 0.01);
    }

    #[test]
    #[should_panic(expected = "dropout of 1")]
    fn something_is_kept() {
        Mask::new(0, 1.0);
    }

    #[test]
    #[should_panic(expected = "dropout of -0.1")]
    fn a_probability_is_not_negative() {
        Mask::new(0, -0.1);
    }

    #[test]
    fn another_key_is_another_mask() {
        let factors = |key| Mask::new(key, 0.5).factors(10, 10);
        assert_eq!(factors(1), factors(1));
        assert_ne!(factors(1), factors(2));
    }

    #[test]
    fn neighbouring_draws_are_independent() {
        let factors = Mask::new(3, 0.5).factors(300, 300);
        let both = factors
            .windows(2)
            .filter(|pair| pair[0] == 0.0 && pair[1] == 0.0);
        let share = both.count() as f64 / factors.len() as f64;
        assert!((share - 0.25).abs() < 0.01, "{share}");
    }
}
