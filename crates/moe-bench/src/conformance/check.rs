//! Collects the comparisons of a case and turns them into its line.

use std::fmt::{self, Debug, Display};

use super::tensors::Tensors;

/// `|got − want| ≤ atol + rtol·|want|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

impl Tolerance {
    /// Largest difference from `want` that agrees.
    pub fn allowed(&self, want: f64) -> f64 {
        self.atol + self.rtol * want.abs()
    }
}

impl Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "atol:{:.0e},rtol:{:.0e}", self.atol, self.rtol)
    }
}

/// What came out of a case, with the rest of its line.
pub enum Verdict {
    /// Everything compared agrees.
    Pass(String),
    /// Something does not.
    Fail(String),
    /// Nothing was run, for this reason.
    Skip(String),
}

/// The comparisons made so far.
#[derive(Default)]
pub struct Check {
    worst: f64,
    place: Option<(String, Tolerance)>,
    compared: usize,
    failures: Vec<String>,
    notes: Vec<String>,
}

impl Check {
    /// Compares every entry within a tolerance. Two NaNs, or equal infinities, agree.
    pub fn close(&mut self, tensor: &str, got: &[f32], want: &[f32], tolerance: Tolerance) {
        self.close_where(tensor, got, want, tolerance, |_| true);
    }

    /// Compares the entries whose flat index is `wanted`.
    pub fn close_where(
        &mut self,
        tensor: &str,
        got: &[f32],
        want: &[f32],
        tolerance: Tolerance,
        wanted: impl Fn(usize) -> bool,
    ) {
        let widen = |values: &[f32]| {
            values
                .iter()
                .map(|&value| f64::from(value))
                .collect::<Vec<_>>()
        };
        self.close_f64(tensor, &widen(got), &widen(want), tolerance, wanted);
    }

    /// Compares one number.
    pub fn scalar(&mut self, tensor: &str, got: f64, want: f64, tolerance: Tolerance) {
        self.close_f64(tensor, &[got], &[want], tolerance, |_| true);
    }

    /// As [`Self::close_where`], in f64.
    pub fn close_f64(
        &mut self,
        tensor: &str,
        got: &[f64],
        want: &[f64],
        tolerance: Tolerance,
        wanted: impl Fn(usize) -> bool,
    ) {
        self.compared += 1;
        if got.len() != want.len() {
            self.failures.push(format!(
                "tensor {tensor} got {} entries want {}",
                got.len(),
                want.len()
            ));
            return;
        }
        let mut off: Option<(f64, usize)> = None;
        for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
            if !wanted(index) || got == want || (got.is_nan() && want.is_nan()) {
                continue;
            }
            let ratio = (got - want).abs() / tolerance.allowed(want);
            let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
            if ratio >= self.worst {
                self.worst = ratio;
                self.place = Some((tensor.to_string(), tolerance));
            }
            if ratio > 1.0 && off.is_none_or(|(most, _)| ratio > most) {
                off = Some((ratio, index));
            }
        }
        if self.place.is_none() {
            self.place = Some((tensor.to_string(), tolerance));
        }
        if let Some((ratio, index)) = off {
            let place = if want.len() == 1 {
                tensor.to_string()
            } else {
                format!("{tensor}[{index}]")
            };
            let (got, want) = (got[index], want[index]);
            self.failures.push(format!(
                "tensor {place} got {got} want {want} ({ratio:.3} times {tolerance})"
            ));
        }
    }

    /// Compares every entry exactly.
    pub fn exact<T: PartialEq + Debug>(&mut self, tensor: &str, got: &[T], want: &[T]) {
        self.compared += 1;
        if got.len() != want.len() {
            self.failures.push(format!(
                "tensor {tensor} got {} entries want {}",
                got.len(),
                want.len()
            ));
        } else if let Some(index) = (0..got.len()).find(|&index| got[index] != want[index]) {
            self.failures.push(format!(
                "tensor {tensor}[{index}] got {:?} want {:?} (exact)",
                got[index], want[index]
            ));
        }
    }

    /// Takes note of something that has to hold; `what` says what is wrong when it does not.
    pub fn holds(&mut self, ok: bool, what: impl FnOnce() -> String) {
        self.compared += 1;
        if !ok {
            self.failures.push(what());
        }
    }

    /// Something that the reader of the line has to know.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Names the tensors of the fixture that nothing has looked at.
    pub fn note_unused(&mut self, tensors: &Tensors) {
        let unused = tensors.unused();
        if !unused.is_empty() {
            let shown = unused
                .iter()
                .take(4)
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            let more = if unused.len() > 4 {
                format!(" and {} more", unused.len() - 4)
            } else {
                String::new()
            };
            self.note(format!("not compared: {shown}{more}"));
        }
    }

    /// The verdict over everything compared.
    pub fn verdict(mut self) -> Verdict {
        if self.compared == 0 {
            return Verdict::Fail("nothing was compared".into());
        }
        let notes = self
            .notes
            .iter()
            .map(|note| format!("; {note}"))
            .collect::<String>();
        if !self.failures.is_empty() {
            let more = self.failures.len() - 1;
            let rest = if more > 0 {
                format!("; {more} more: {}", self.failures[1..].join("; "))
            } else {
                String::new()
            };
            return Verdict::Fail(super::one_line(&format!(
                "{}{rest}{notes}",
                self.failures[0]
            )));
        }
        match self.place.take() {
            Some((tensor, tolerance)) => Verdict::Pass(format!(
                "worst={:.1e} tol={tolerance} (at {tensor}, {} compared{notes})",
                self.worst, self.compared
            )),
            None => Verdict::Pass(format!(
                "worst=0 tol=exact ({} compared{notes})",
                self.compared
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance {
        rtol: 0.1,
        atol: 0.01,
    };

    #[test]
    fn an_entry_beyond_its_tolerance_fails_and_is_named() {
        let mut check = Check::default();
        check.close("x", &[1.0, 2.0], &[1.05, 3.0], TOLERANCE);
        assert!(
            matches!(check.verdict(), Verdict::Fail(line) if line.starts_with("tensor x[1] got 2 want 3"))
        );
    }

    #[test]
    fn a_missing_number_is_a_difference() {
        let mut check = Check::default();
        check.close("x", &[f32::NAN], &[1.0], TOLERANCE);
        assert!(matches!(check.verdict(), Verdict::Fail(_)));
    }

    #[test]
    fn a_case_that_compares_nothing_fails() {
        assert!(matches!(Check::default().verdict(), Verdict::Fail(_)));
    }

    #[test]
    fn entries_that_are_not_wanted_do_not_count() {
        let mut check = Check::default();
        check.close_where("x", &[9.0, 1.0], &[1.0, 1.0], TOLERANCE, |index| index == 1);
        assert!(matches!(check.verdict(), Verdict::Pass(_)));
    }
}
