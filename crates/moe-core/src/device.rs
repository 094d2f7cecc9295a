//! Which processor to compute on, by name.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use crate::error::{Error, Result};

/// A processor this crate can be built for. Each needs the cargo feature of the same name
/// (`flex` for [`DeviceChoice::Cpu`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// `cpu`: Burn's Flex back end.
    #[default]
    Cpu,
    /// `wgpu`: the default GPU, by whichever API the machine offers.
    Wgpu,
    /// `vulkan`: the default GPU by Vulkan.
    Vulkan,
    /// `metal`: the default GPU by Metal.
    Metal,
    /// `cuda` or `cuda:N`: the NVIDIA GPU of that index.
    Cuda(usize),
}

impl DeviceChoice {
    /// Names that [`Self::open`] accepts in this build.
    pub fn compiled() -> Vec<&'static str> {
        [
            ("cpu", cfg!(any(feature = "flex", test))),
            ("wgpu", cfg!(feature = "wgpu")),
            ("vulkan", cfg!(feature = "vulkan")),
            ("metal", cfg!(feature = "metal")),
            ("cuda", cfg!(feature = "cuda")),
        ]
        .into_iter()
        .filter_map(|(name, compiled)| compiled.then_some(name))
        .collect()
    }

    /// The plain device (no autodiff). A GPU is opened at its first use, which is when a missing
    /// driver shows.
    ///
    /// # Errors
    ///
    /// This build has no such back end.
    pub fn open(&self) -> Result<Device> {
        match self {
            #[cfg(any(feature = "flex", test))]
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "metal")]
            Self::Metal => Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Device::cuda(*index)),
            #[allow(unreachable_patterns, reason = "reachable unless every feature is on")]
            missing => Err(Error::Device(format!(
                "`{missing}` is not compiled in (compiled in: {}); build with --features {}",
                match Self::compiled().as_slice() {
                    [] => "none".to_string(),
                    names => names.join(", "),
                },
                missing.feature(),
            ))),
        }
    }

    fn feature(&self) -> &'static str {
        match self {
            Self::Cpu => "flex",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cuda(_) => "cuda",
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu),
            "vulkan" => Ok(Self::Vulkan),
            "metal" => Ok(Self::Metal),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match name.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(Self::Cuda(index)),
                _ => Err(Error::Device(format!(
                    "`{name}` is unknown; use cpu, wgpu, vulkan, metal, cuda or cuda:N"
                ))),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Wgpu => formatter.write_str("wgpu"),
            Self::Vulkan => formatter.write_str("vulkan"),
            Self::Metal => formatter.write_str("metal"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_displays() {
        for name in ["cpu", "wgpu", "vulkan", "metal", "cuda:3"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(0)
        );
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
    }

    #[cfg(not(feature = "metal"))]
    #[test]
    fn a_missing_back_end_is_refused_with_the_way_out() {
        let message = DeviceChoice::Metal.open().unwrap_err().to_string();
        assert!(message.contains("compiled in: cpu") && message.contains("--features metal"));
    }
}
