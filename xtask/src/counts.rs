//! How many tests passed and failed, read from the summaries that test programs print, and what did not run at all.

use std::ops::AddAssign;

/// Tests that passed, failed and were skipped, and whole parts that did not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed, and programs that could not be built or ended badly.
    pub failed: usize,
    /// Tests left out, each named where it was left out.
    pub skipped: usize,
    /// Parts that nothing was learnt of, since something that they need is not here: `what: why and the way out`.
    pub not_run: Vec<String>,
}

impl Counts {
    /// Says that a part does not run here, and notes it down.
    pub fn not_run(what: &str, why: &str) -> Self {
        println!("SKIP {what}: {why}");
        Self {
            not_run: vec![format!("{what}: {why}")],
            ..Self::default()
        }
    }

    /// No failure.
    pub fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// Reads a summary line of nextest, of the standard test harness or of the conformance runner; none for any other line.
    pub fn read(line: &str) -> Option<Self> {
        // Nextest repeats a failing program's own summary, indented: it is counted in nextest's.
        let own = line.strip_prefix("test result: ");
        let line = line.trim();
        let body = if let Some(rest) = own {
            rest.split_once(". ")?.1
        } else if line.starts_with("Summary [") {
            line.split_once("tests run:")
                .or_else(|| line.split_once("test run:"))?
                .1
        } else if line.ends_with(" skipped")
            && line.contains(" passed, ")
            && line.starts_with(|c: char| c.is_ascii_digit())
        {
            line
        } else {
            return None;
        };
        let mut counts = Self::default();
        for part in body.split([',', ';', '(', ')']) {
            let Some((number, what)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            match what {
                "passed" => counts.passed += number,
                "failed" | "timed out" | "exec failed" => counts.failed += number,
                "skipped" | "ignored" => counts.skipped += number,
                _ => {}
            }
        }
        Some(counts)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.not_run.extend(other.not_run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<(usize, usize, usize)> {
        Counts::read(line).map(|counts| (counts.passed, counts.failed, counts.skipped))
    }

    #[test]
    fn every_kind_of_summary_is_read() {
        assert_eq!(
            read(
                "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s"
            ),
            Some((5, 1, 2))
        );
        assert_eq!(
            read(
                "     Summary [   1.234s] 45 tests run: 43 passed (1 slow), 1 failed, 1 timed out, 2 skipped"
            ),
            Some((43, 2, 2))
        );
        assert_eq!(
            read("     Summary [   0.004s] 1 test run: 1 passed, 0 skipped"),
            Some((1, 0, 0))
        );
        assert_eq!(read("12 passed, 0 failed, 3 skipped"), Some((12, 0, 3)));
    }

    #[test]
    fn other_lines_are_not_summaries() {
        for line in [
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.1s",
            "test x ... ok",
            "all 3 passed, nothing skipped",
            "        PASS [   0.009s] crate test",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
