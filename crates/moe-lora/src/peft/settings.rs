//! What `adapter_config.json` says: which matrices have a LoRA, and of which size.

use std::path::{Path, PathBuf};

use moe_core::config::ModelConfig;
use regex::Regex;

use super::file::File;
use super::modules::Module;
use crate::error::{Error, Result};
use crate::{LoraConfig, Placed};

/// What is read of it.
pub(super) struct Settings {
    pub(super) path: PathBuf,
    pub(super) lora: LoraConfig,
    pub(super) targets: Names,
    pub(super) exclude: Option<Names>,
    /// The layers meant, and how they are found in a module's name; all where there is none.
    pub(super) layers: Option<(Vec<u64>, Vec<Regex>)>,
    pub(super) ranks: Vec<(Regex, usize)>,
    pub(super) alphas: Vec<(Regex, f64)>,
}

/// Which modules are meant.
pub(super) enum Names {
    AllLinear,
    Pattern(Regex),
    List(Vec<String>),
}

impl Settings {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        File::read(path)?.settings()
    }

    /// The LoRAs that the settings mean in `base`, with their modules, layer by layer.
    pub(super) fn chosen(&self, base: &ModelConfig) -> Result<Vec<(Module, Placed)>> {
        let refused = |message: String| refusal(&self.path, message);
        let all = Module::all(base);
        if let Some((layers, _)) = &self.layers
            && let Some(beyond) = layers.iter().find(|it| **it >= base.num_layers as u64)
        {
            let message = format!(
                "`layers_to_transform` names layer {beyond}, and the base has {} layers, from 0",
                base.num_layers
            );
            return Err(refused(message));
        }
        if let Names::List(names) = &self.targets
            && let Some(name) = names
                .iter()
                .find(|name| !all.iter().any(|it| self.named(name, &it.name)))
        {
            let message = format!(
                "`target_modules` names {name:?}, which matches none of the matrices that a LoRA can be on here: {} of the layers",
                crate::Projection::ALL
                    .map(super::modules::last_name)
                    .join(", ")
            );
            return Err(refused(message));
        }
        let chosen = all
            .into_iter()
            .filter(|it| self.targeted(&it.name) && !self.excluded(&it.name));
        let chosen: Vec<_> = chosen.map(|it| (it.clone(), self.placed(&it))).collect();
        match chosen.is_empty() {
            true => Err(refused(
                "`target_modules` matches no matrix of the base that a LoRA can be on".into(),
            )),
            false => Ok(chosen),
        }
    }

    fn placed(&self, module: &Module) -> Placed {
        Placed {
            target: module.target,
            rank: first(&self.ranks, &module.name).unwrap_or(self.lora.rank),
            alpha: first(&self.alphas, &module.name).unwrap_or(self.lora.alpha),
        }
    }

    fn targeted(&self, module: &str) -> bool {
        match &self.targets {
            Names::AllLinear => true,
            Names::Pattern(pattern) => pattern.is_match(module),
            Names::List(names) => names.iter().any(|name| self.named(name, module)),
        }
    }

    fn excluded(&self, module: &str) -> bool {
        match &self.exclude {
            None => false,
            Some(Names::AllLinear) => true,
            Some(Names::Pattern(pattern)) => pattern.is_match(module),
            Some(Names::List(names)) => names.iter().any(|name| is_end(name, module)),
        }
    }

    /// Whether `name` of a list means `module`. A whole name does in every layer, the end of one in the layers that are asked for.
    fn named(&self, name: &str, module: &str) -> bool {
        if name == module {
            return true;
        }
        let layer = |patterns: &[Regex]| -> Option<u64> {
            let mut found = patterns.iter().filter_map(|it| it.captures(module));
            found.next()?.get(1)?.as_str().parse().ok()
        };
        is_end(name, module)
            && self.layers.as_ref().is_none_or(|(layers, patterns)| {
                layer(patterns).is_some_and(|layer| layers.contains(&layer))
            })
    }
}

fn is_end(name: &str, module: &str) -> bool {
    module
        .strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The value of the first pattern that matches, as PEFT takes it.
fn first<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    let mut matching = patterns
        .iter()
        .filter(|(pattern, _)| pattern.is_match(module));
    matching.next().map(|(_, value)| *value)
}

pub(super) fn refusal(path: &Path, message: String) -> Error {
    Error::Adapter {
        path: path.into(),
        message,
    }
}
