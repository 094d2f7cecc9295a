//! Base models as commands name them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use clap::Args;
use moe_cl::Base;
use moe_cl::config::Experiment;
use moe_cl::directory::{BaseRecord, Saved};
use moe_core::checkpoint::Checkpoint;
use moe_core::device::DeviceChoice;
use moe_core::model::BaseDtype;
use moe_hub::{BaseSource, Cache, Fingerprints, fetch_default, smollm2};

use crate::download::DownloadDisplay;
use crate::failure::{self, Failure};
use crate::terminal::tell;

/// The local path of a base, fetched if need be. Without a name, and for the name of the default base, every source of
/// SmolLM2-135M-Instruct is tried; the source that was used is returned with the path.
///
/// # Errors
/// When it cannot be had; the hint names the ways out.
pub fn fetch(name: Option<&BaseSource>) -> Result<(BaseSource, PathBuf)> {
    let cache = Cache::open()?;
    let fetched = fetch_into(&cache, name)?;
    failure::warn_of(&cache);
    Ok(fetched)
}

fn fetch_into(cache: &Cache, name: Option<&BaseSource>) -> Result<(BaseSource, PathBuf)> {
    let mut display = DownloadDisplay::new();
    let mut show = |progress| display.show(&progress);
    match name {
        Some(source) if *source != smollm2() => {
            Ok((source.clone(), source.fetch(cache, &mut show)?))
        }
        _ => Ok(fetch_default(cache, &mut show)?),
    }
}

/// The base of a model that exists: which, and whether another will do.
#[derive(Debug, Args)]
pub struct ModelBase {
    /// Base model [default: where the model's was, else wherever the cache knows it to be]
    #[arg(long, value_name = "BASE")]
    base: Option<BaseSource>,
    /// Take the base although its weights, tokenizer or chat template are not those that the model was trained on
    #[arg(long)]
    pub allow_other_base: bool,
}

impl ModelBase {
    /// Loads the base of the model that a checkpoint of `run` describes, `experiment` being its settings with what the command line
    /// changes in them. It is looked for where the command line says, where it was, and where the cache knows it to be, and known
    /// by its fingerprint.
    ///
    /// # Errors
    /// When it is nowhere, or another one is where it was.
    pub fn load(&self, saved: &Saved, experiment: &Experiment) -> Result<Base> {
        let (device, dtype) = (open(&experiment.device)?, experiment.base.dtype);
        let cache = Cache::open()?;
        let path = self.find(&cache, &saved.state.base)?;
        let mut base = load_known(&cache, &path, dtype, &device)?;
        if !self.allow_other_base {
            base.check(&saved.state.base.identity)?;
        }
        base.keep_trunk(experiment, &cache.trunks());
        failure::warn_of(&cache);
        Ok(base)
    }

    /// Loads the base that the command line names, without any model.
    ///
    /// # Errors
    /// When it cannot be had or read.
    pub fn alone(&self, dtype: BaseDtype, device: &Device) -> Result<Base> {
        let cache = Cache::open()?;
        let (_, path) = fetch_into(&cache, self.base.as_ref())?;
        let base = load_known(&cache, &path, dtype, device)?;
        failure::warn_of(&cache);
        Ok(base)
    }

    fn find(&self, cache: &Cache, was: &BaseRecord) -> Result<PathBuf> {
        if let Some(given) = &self.base {
            return Ok(fetch_into(cache, Some(given))?.1);
        }
        let named: Option<BaseSource> = was.source.parse().ok();
        let mut places = vec![was.location.clone()];
        if let Some(BaseSource::Path(path)) = &named {
            places.push(path.clone());
        }
        // Another base where it was is noticed, and not passed over for a copy that lies elsewhere.
        if let Some(there) = places.into_iter().find(|path| path.exists()) {
            return Ok(there);
        }
        let known = Fingerprints::open(cache);
        if let Some(copy) = known.locate(&was.identity.weights).pop() {
            return Ok(copy);
        }
        match named {
            Some(BaseSource::Path(_)) | None => bail!(Failure::new(
                format!(
                    "the model's base is not at {} any more, nor anywhere that the cache knows of",
                    was.location.display()
                ),
                "name it with --base",
            )),
            named => Ok(fetch_into(cache, named.as_ref())?.1),
        }
    }
}

/// Loads a base, its fingerprint from the cache where that knows the files.
fn load_known(cache: &Cache, path: &Path, dtype: BaseDtype, device: &Device) -> Result<Base> {
    let known = Fingerprints::open(cache);
    let fingerprint = |checkpoint: &Checkpoint| known.of(path, || checkpoint.fingerprint());
    let base = Base::load_known(path, dtype, device, fingerprint)?;
    if base.widened {
        tell!(
            "warning: the base's quantised blocks were widened to f32: this device does not read them as they are stored"
        );
    }
    Ok(base)
}

/// Puts what the command line says of base, number format and device into the experiment, and loads the base. What its frozen
/// lower layers make of texts is kept, where the cache can be written; where it cannot, that is said.
///
/// # Errors
/// When the device is not compiled in, or the base cannot be had or read.
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
    let cache = Cache::open()?;
    let (source, path) = fetch_into(&cache, Some(&named))?;
    experiment.base.source = source.to_string();
    let mut base = load_known(&cache, &path, experiment.base.dtype, &device)?;
    base.keep_trunk(experiment, &cache.trunks());
    failure::warn_of(&cache);
    Ok(base)
}

/// Opens a device by its name.
///
/// # Errors
/// When there is no such device in this build.
pub fn open(device: &str) -> Result<Device> {
    Ok(device.parse::<DeviceChoice>()?.open()?)
}
