//! A PEFT folder written.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use super::modules::{Module, last_name};
use super::{CONFIG, PeftAdapter, WEIGHTS};
use crate::error::{Error, Result};
use crate::{LoraInit, Placed, Projection};

impl PeftAdapter {
    /// Writes the adapter as the new folder `to`, which appears whole or not at all. `base` is how the base is called, and `beside`
    /// writes what else is to be in the folder.
    ///
    /// # Errors
    ///
    /// When `to` is there already, or the disk refuses.
    pub fn write(
        &self,
        to: &Path,
        base: &str,
        beside: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<()> {
        let refused = |message: String| Error::Adapter {
            path: to.into(),
            message,
        };
        if fs::symlink_metadata(to).is_ok() {
            let message = "exists already, and is not written over; name a folder that does not";
            return Err(refused(message.into()));
        }
        let fill = |dir: &Path| {
            fs::write(dir.join(CONFIG), self.settings(base))?;
            fs::write(dir.join(WEIGHTS), self.weights())?;
            beside(dir)
        };
        moe_core::atomic::replace_dir(to, fill).map_err(|error| refused(error.to_string()))
    }

    fn settings(&self, base: &str) -> String {
        let (targets, layers) = self.targets();
        let settings = json!({
            "alpha_pattern": self.pattern(|it| number(it.alpha), number(self.lora.alpha)),
            "auto_mapping": null,
            "base_model_name_or_path": base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": match self.lora.init {
                LoraInit::Kaiming => json!(true),
                LoraInit::Gaussian => json!("gaussian"),
            },
            "layers_pattern": null,
            "layers_to_transform": layers,
            "lora_alpha": number(self.lora.alpha),
            "lora_dropout": self.lora.dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.lora.rank,
            "rank_pattern": self.pattern(|it| json!(it.rank), json!(self.lora.rank)),
            "revision": null,
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": self.lora.rslora,
        });
        format!("{settings:#}\n")
    }

    /// `target_modules` and `layers_to_transform`: the short names where every layer that has any has them all, else whole names.
    fn targets(&self) -> (Vec<String>, Option<Vec<usize>>) {
        let of =
            |placed: &[Placed]| -> Vec<Projection> { placed.iter().map(|it| it.target).collect() };
        let adapted: Vec<usize> = (0..self.placed.len())
            .filter(|layer| !self.placed[*layer].is_empty())
            .collect();
        let first = adapted
            .first()
            .map_or(Vec::new(), |it| of(&self.placed[*it]));
        match adapted
            .iter()
            .all(|layer| of(&self.placed[*layer]) == first)
        {
            true => {
                let some = adapted.len() < self.placed.len();
                let names = first.into_iter().map(last_name).collect();
                (names, some.then_some(adapted))
            }
            false => {
                let name =
                    |(layer, placed): (usize, &Placed)| Module::new(layer, placed.target).name;
                (self.loras().map(name).collect(), None)
            }
        }
    }

    /// What differs from `usual`: by the matrix where all of its LoRAs do alike, else by the module.
    fn pattern(&self, of: impl Fn(&Placed) -> Value, usual: Value) -> Value {
        let mut pattern = Map::new();
        for target in Projection::ALL {
            let loras: Vec<(usize, Value)> = self
                .loras()
                .filter(|(_, placed)| placed.target == target)
                .map(|(layer, placed)| (layer, of(placed)))
                .collect();
            match loras.first() {
                Some((_, value)) if loras.iter().all(|(_, it)| it == value) => {
                    if *value != usual {
                        pattern.insert(last_name(target), value.clone());
                    }
                }
                _ => {
                    let differ = loras.into_iter().filter(|(_, value)| *value != usual);
                    pattern.extend(differ.map(|(layer, value)| {
                        (Module::new(layer, target).name.replace('.', r"\."), value)
                    }));
                }
            }
        }
        Value::Object(pattern)
    }

    fn weights(&self) -> Vec<u8> {
        let mut tensors = BTreeMap::new();
        for (layer, placed) in self.loras() {
            let lora = self.layers[layer].lora(placed.target);
            let lora = lora.expect("a LoRA where one is said to be");
            let module = Module::new(layer, placed.target);
            tensors.insert(module.tensor("A"), transposed(lora.a.val()));
            tensors.insert(module.tensor("B"), transposed(lora.b.val()));
        }
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
            (name.as_str(), view.expect("four bytes per number"))
        });
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize(views, Some(format)).expect("names and shapes that fit a header")
    }
}

/// A whole number without its point, as PEFT's own files have it.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => json!(value as i64),
        false => json!(value),
    }
}

/// Shape and bytes of the transposed matrix.
fn transposed(matrix: Tensor<2>) -> ([usize; 2], Vec<u8>) {
    let [rows, columns] = matrix.dims();
    let values: Vec<f32> = matrix.into_data().iter::<f32>().collect();
    let order = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    let bytes = order.flat_map(|at| values[at].to_le_bytes()).collect();
    ([columns, rows], bytes)
}
