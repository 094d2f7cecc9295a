//! Which instructions the kernels use.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// Name of the environment variable that holds the kernels to a lower level than the processor's.
pub const LEVEL_VARIABLE: &str = "MOE_KERNELS_LEVEL";

/// A set of instructions. The higher ones have the lower ones too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Those that every processor of the build's target has.
    Portable,
    /// AVX2 with FMA and F16C: vectors of eight floats.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL): vectors of sixteen.
    Avx512,
}

impl Level {
    /// All of them, the lowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Name in `MOE_KERNELS_LEVEL`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// What the processor has.
    pub fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// What the kernels of this process use: what the processor has, or what [`LEVEL_VARIABLE`] holds them to.
    ///
    /// # Errors
    ///
    /// The variable names no level, or one that the processor has not.
    pub fn asked_for() -> Result<Self, String> {
        let here = Self::of_this_machine();
        let Some(name) = std::env::var_os(LEVEL_VARIABLE).filter(|name| !name.is_empty()) else {
            return Ok(here);
        };
        let name = name.to_string_lossy();
        let level: Self = name.parse()?;
        match level <= here {
            true => Ok(level),
            false => Err(format!(
                "{LEVEL_VARIABLE}={name}: this processor has {here} at most; the variable only holds the kernels to less"
            )),
        }
    }

    /// The same, found out once. A variable that makes no sense is as good as none: programs refuse it with [`Self::asked_for`].
    #[inline]
    pub(crate) fn of_this_process() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| Self::asked_for().unwrap_or_else(|_| Self::of_this_machine()))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let level = Self::ALL.into_iter().find(|level| level.name() == name);
        level.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{LEVEL_VARIABLE}={name}: the levels are {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_found_by_its_name() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert!(
            "AVX3"
                .parse::<Level>()
                .unwrap_err()
                .contains("portable, avx2")
        );
        assert!(Level::Portable < Level::Avx2 && Level::Avx2 < Level::Avx512);
        assert!(Level::of_this_process() <= Level::of_this_machine());
    }
}
