//! Base models as commands name them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::Device;
use moe_cl::Base;
use moe_cl::config::Experiment;
use moe_core::device::DeviceChoice;
use moe_core::model::BaseDtype;
use moe_hub::{BaseSource, Cache, fetch_default, smollm2};

use crate::download::DownloadDisplay;

/// The local path of a base, fetched if need be. Without a name, and for the name of the default base, every source of
/// SmolLM2-135M-Instruct is tried; the source that was used is returned with the path.
///
/// # Errors
/// When it cannot be had; the hint names the ways out.
pub fn fetch(name: Option<&BaseSource>) -> Result<(BaseSource, PathBuf)> {
    let cache = Cache::open()?;
    let mut display = DownloadDisplay::new();
    let mut show = |progress| display.show(&progress);
    match name {
        Some(source) if *source != smollm2() => {
            Ok((source.clone(), source.fetch(&cache, &mut show)?))
        }
        _ => Ok(fetch_default(&cache, &mut show)?),
    }
}

/// Puts what the command line says of base, number format and device into the experiment, and loads the base.
///
/// # Errors
/// When the device is not compiled in or the base cannot be had or read.
pub fn load(
    experiment: &mut Experiment,
    base: Option<&BaseSource>,
    dtype: Option<BaseDtype>,
    device: Option<DeviceChoice>,
) -> Result<Base> {
    if let Some(dtype) = dtype {
        experiment.base.dtype = dtype;
    }
    if let Some(device) = device {
        experiment.device = device.to_string();
    }
    let device = open(&experiment.device)?;
    let named = match base {
        Some(source) => source.clone(),
        None => experiment.base.source.parse().context("`base.source`")?,
    };
    let (source, path) = fetch(Some(&named))?;
    experiment.base.source = source.to_string();
    Ok(Base::load_as(&path, experiment.base.dtype, &device)?)
}

/// As [`load`], for work that meets the same texts again and again: what the frozen lower layers make of them is kept.
///
/// # Errors
/// As [`load`], and when the cache folder cannot be used.
pub fn load_to_learn(
    experiment: &mut Experiment,
    base: Option<&BaseSource>,
    dtype: Option<BaseDtype>,
    device: Option<DeviceChoice>,
) -> Result<Base> {
    let mut base = load(experiment, base, dtype, device)?;
    base.keep_trunk(experiment, &Cache::open()?.trunks())?;
    Ok(base)
}

/// Opens a device by its name.
///
/// # Errors
/// When there is no such device in this build.
pub fn open(device: &str) -> Result<Device> {
    Ok(device.parse::<DeviceChoice>()?.open()?)
}
