//! A PEFT folder read.

use std::collections::HashSet;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use moe_core::checkpoint::safetensors::SafetensorsFile;
use moe_core::config::ModelConfig;
use sha2::{Digest, Sha256};

use super::modules::Module;
use super::settings::Settings;
use super::{CONFIG, PeftAdapter, WEIGHTS};
use crate::error::{Error, Result};
use crate::{LayerExpert, Lora, Placed};

impl PeftAdapter {
    /// Reads the adapter in the folder `dir`, which is one of a base of that configuration, onto `device`.
    ///
    /// Shapes are compared with the settings and the base before a number is read.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, a setting is not understood and may change the numbers (DoRA, biases, modules saved whole),
    /// `target_modules` names what matches nothing, and when a tensor is missing, left over, of another shape, or not finite.
    pub fn read(dir: &Path, base: &ModelConfig, device: &Device) -> Result<Self> {
        let settings = Settings::read(&dir.join(CONFIG))?;
        let chosen = settings.chosen(base)?;
        let path = dir.join(WEIGHTS);
        let refused = |message: String| Error::Adapter {
            path: path.clone(),
            message,
        };
        if !path.exists() && dir.join("adapter_model.bin").exists() {
            let message = "is not there, and adapter_model.bin beside it is a pickle, which is not read; save the adapter with safe_serialization=True";
            return Err(refused(message.into()));
        }
        let file = SafetensorsFile::open(&path).map_err(|error| Error::Adapter {
            path: dir.into(),
            message: error.to_string(),
        })?;
        let weights = Weights {
            path: &path,
            file: &file,
        };
        let mut left: HashSet<&str> = file.names().collect();
        let mut found = Vec::with_capacity(chosen.len());
        for (module, placed) in chosen {
            let [d_in, d_out] = module.target.shape(base);
            let a = weights.find(&module, "A", [placed.rank, d_in])?;
            let b = weights.find(&module, "B", [d_out, placed.rank])?;
            left.remove(a.as_str());
            left.remove(b.as_str());
            found.push((module, placed, a, b));
        }
        if let Some(name) = left.into_iter().min() {
            return Err(refused(format!(
                "tensor `{name}` is of no LoRA that the settings name on a matrix of this base"
            )));
        }
        let mut adapter = Self {
            lora: settings.lora.clone(),
            placed: vec![Vec::new(); base.num_layers],
            layers: vec![LayerExpert::default(); base.num_layers],
            sha256: String::new(),
        };
        for (module, placed, a, b) in found {
            let [d_in, d_out] = module.target.shape(base);
            let lora = Lora::from_tensors(
                weights.transposed(&a, [placed.rank, d_in], device)?,
                weights.transposed(&b, [d_out, placed.rank], device)?,
                placed.sized(&settings.lora).scaling(),
            );
            *adapter.layers[module.layer].lora_mut(module.target) = Some(lora);
            adapter.placed[module.layer].push(Placed { ..placed });
        }
        let bytes = moe_core::plain_file::read(&path, file.bytes_on_disk());
        let bytes = bytes.map_err(|error| refused(error.to_string()))?;
        adapter.sha256 = hex::encode(Sha256::digest(bytes));
        Ok(adapter)
    }
}

/// The weights' file.
struct Weights<'a> {
    path: &'a Path,
    file: &'a SafetensorsFile,
}

impl Weights<'_> {
    fn refuse(&self, tensor: &str, message: impl std::fmt::Display) -> Error {
        Error::Adapter {
            path: self.path.into(),
            message: format!("tensor `{tensor}` {message}"),
        }
    }

    /// The name of the module's `A` or `B` in the file, which has to be of that shape.
    fn find(&self, module: &Module, of: &str, shape: [usize; 2]) -> Result<String> {
        let (plain, with_adapter) = (module.tensor(of), module.tensor_with_adapter(of));
        let (name, entry) = match (self.file.tensor(&plain), self.file.tensor(&with_adapter)) {
            (Some(_), Some(_)) => {
                return Err(self.refuse(&plain, format!("is there twice: `{with_adapter}` too")));
            }
            (Some(entry), None) => (plain, entry),
            (None, Some(entry)) => (with_adapter, entry),
            (None, None) => {
                return Err(self.refuse(&plain, "is missing, which the settings ask for"));
            }
        };
        match entry.shape == shape {
            true => Ok(name),
            false => Err(self.refuse(
                &name,
                format!(
                    "has shape {:?}; rank and base ask for {shape:?}",
                    entry.shape
                ),
            )),
        }
    }

    /// The tensor `[rows, columns]` of the file as `[columns, rows]`.
    fn transposed(
        &self,
        name: &str,
        [rows, columns]: [usize; 2],
        device: &Device,
    ) -> Result<Tensor<2>> {
        let stored = self.file.read_f32(name);
        let stored = stored.map_err(|error| self.refuse(name, error))?;
        if let Some(place) = stored.iter().position(|it| !it.is_finite()) {
            let value = stored[place];
            return Err(self.refuse(
                name,
                format!("holds {value} at {place}, not a finite number"),
            ));
        }
        let mut values = Vec::with_capacity(stored.len());
        for column in 0..columns {
            values.extend((0..rows).map(|row| stored[row * columns + column]));
        }
        let data = TensorData::new(values, [columns, rows]);
        Ok(Tensor::from_data(data, device))
    }
}
