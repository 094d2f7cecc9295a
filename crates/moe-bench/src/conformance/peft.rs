//! Adapters that PEFT wrote: logits, hidden states, loss and gradients with them, merged weights, and two of them concatenated.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use moe_cl::cross_entropy;
use moe_core::checkpoint::Checkpoint;
use moe_core::config::ModelConfig;
use moe_core::model::Decoder;
use moe_core::parameters::to_bytes;
use moe_lora::peft::{PeftAdapter, Share};
use moe_lora::{AdapterConfig, Catalogue, ExpertId, LayerRange, Projection, Routing, Texts};

use super::case::Case;
use super::check::{Check, Verdict};
use super::device::{all_real, cpu, flat, tokens, values};
use super::tensors::Tensors;

/// Runs a case.
///
/// # Errors
/// When the fixture, its base or its adapter cannot be read.
pub fn run(case: &Case) -> anyhow::Result<Verdict> {
    let group = case.dir.parent().context("the case is in no folder")?;
    let name = case.json["config"]["base_model"].as_str();
    let name = name.and_then(|name| name.strip_prefix("peft/"));
    let folder = group.join(name.context("case.json names no base_model of the group")?);
    let setup = Setup {
        tensors: case.tensors()?,
        base: Decoder::load(&Checkpoint::open(&folder)?, &cpu()?)?,
    };
    match case.dir.join("adapters").is_dir() {
        true => setup.joined(case),
        false => setup.alone(case),
    }
}

struct Setup {
    tensors: Tensors,
    base: Decoder,
}

/// The only expert of a catalogue of every matrix.
fn catalogue(adapter: &PeftAdapter, base: &ModelConfig) -> moe_lora::Result<(Catalogue, ExpertId)> {
    let everywhere = AdapterConfig {
        lora: adapter.lora.clone(),
        targets: Projection::ALL.to_vec(),
        layers: LayerRange::All,
    };
    let mut catalogue = Catalogue::new(&everywhere, base)?;
    let expert = catalogue.import(adapter, "imported")?;
    Ok((catalogue, expert))
}

impl Setup {
    /// Final hidden states `[batch, seq, d_model]` with an adapter.
    fn hidden(&self, adapter: &PeftAdapter) -> anyhow::Result<Tensor<3>> {
        let (catalogue, expert) = catalogue(adapter, self.base.config())?;
        let ids = tokens(&self.tensors, "input_ids", &self.base.device())?;
        let real = all_real(ids.dims(), &self.base.device());
        let (texts, routing) = (Texts::new(ids, real), Routing::Single(expert));
        let forward = catalogue.forward(&self.base, &texts, &routing, None, None);
        Ok(forward.hidden)
    }

    fn read(&self, folder: &Path, device: &Device) -> moe_lora::Result<PeftAdapter> {
        PeftAdapter::read(folder, self.base.config(), device)
    }

    fn alone(&self, case: &Case) -> anyhow::Result<Verdict> {
        let Self { tensors, base } = self;
        let (folder, device) = (case.dir.join("adapter"), base.device());
        if case.json["config"]["use_dora"] == true {
            return match self.read(&folder, &device) {
                Err(error) if error.to_string().contains("`use_dora`") => Ok(Verdict::Skip(
                    "DoRA is optional, and refused by the name of its setting".into(),
                )),
                Err(error) => bail!("refused, and not by the name `use_dora`: {error}"),
                Ok(_) => bail!("DoRA is read as if it were a plain LoRA"),
            };
        }
        let (forward, of_merged) = (
            case.tolerance("forward")?,
            case.tolerance("merged_weights")?,
        );
        let mut check = Check::default();
        let plain = base.forward(
            tokens(tensors, "input_ids", &device)?,
            all_real(tensors.dims("input_ids")?, &device),
        );
        let plain = values(base.logits(flat(plain)));
        check.close("logits_base", &plain, &tensors.f32("logits_base")?, forward);

        let adapter = self.read(&folder, &device.clone().autodiff())?;
        let (catalogue, expert) = catalogue(&adapter, base.config())?;
        let ids = tokens(tensors, "input_ids", &device)?;
        let [batch, seq] = ids.dims();
        let (texts, routing) = (
            Texts::new(ids.clone(), all_real([batch, seq], &device)),
            Routing::Single(expert),
        );
        let hidden = catalogue.forward(base, &texts, &routing, None, None).hidden;
        let logits = base.logits(flat(hidden.clone()));
        let (got, want) = (values(hidden), tensors.f32("final_hidden")?);
        check.close("final_hidden", &got, &want, forward);
        check.close(
            "logits",
            &values(logits.clone()),
            &tensors.f32("logits")?,
            forward,
        );

        // Each position predicts the next one's label.
        let labels = tensors.i64("labels")?;
        let predicting = (0..batch * seq).filter(|at| (at + 1) % seq != 0 && labels[at + 1] >= 0);
        let predicting: Vec<usize> = predicting.collect();
        let targets: Vec<usize> = predicting
            .iter()
            .map(|at| labels[at + 1] as usize)
            .collect();
        let rows: Vec<i64> = predicting.iter().map(|at| *at as i64).collect();
        let rows = Tensor::from_data(rows.as_slice(), &logits.device());
        let loss = cross_entropy(logits.select(0, rows), &targets);
        let got = loss.clone().into_scalar::<f32>().into();
        check.scalar("loss", got, tensors.f64("loss")?[0], forward);
        let gradients = loss.backward();
        let of_gradients = case.tolerance("grads")?;
        let weights = &catalogue.expert(expert).layers;
        for (layer, target, of, name) in loras(&adapter) {
            let lora = weights[layer].lora(target).context("a LoRA is lost")?;
            let param = if of == "A" { &lora.a } else { &lora.b };
            let name = format!("grad.{name}");
            let got = param.val().grad(&gradients).context(name.clone())?;
            check.close(
                &name,
                &values(got.transpose()),
                &tensors.f32(&name)?,
                of_gradients,
            );
        }

        let merged = catalogue.valid().merge(base, expert);
        let hidden = merged.forward(ids, all_real([batch, seq], &device));
        let got = values(merged.logits(flat(hidden)));
        check.close(
            "logits_merged",
            &got,
            &tensors.f32("logits_merged")?,
            forward,
        );
        let names: Vec<String> = tensors.names().map(str::to_owned).collect();
        for name in names.iter().filter(|name| name.starts_with("merged.")) {
            let got = merged.stored(&name["merged.".len()..]);
            let got = got.with_context(|| format!("{name} is no tensor of the decoder"))?;
            check.close(name, &got, &tensors.f32(name)?, of_merged);
        }
        round_trip(&mut check, &folder, base.config(), &device)?;
        check.note_unused(tensors);
        Ok(check.verdict())
    }

    fn joined(&self, case: &Case) -> anyhow::Result<Verdict> {
        let device = self.base.device();
        let (forward, of_weights) = (case.tolerance("forward")?, case.tolerance("weights")?);
        let folder = |name: &str| case.dir.join("adapters").join(name);
        let settings = case.json["config"].as_object().context("no config")?;
        let parts = settings.iter().filter(|(_, it)| it.is_object());
        let parts = parts.map(|(name, _)| self.read(&folder(name), &device));
        let parts = parts.collect::<moe_lora::Result<Vec<_>>>()?;
        let mut check = Check::default();
        let folders = case.json["folders"].as_array().context("no folders")?;
        for name in folders.iter().filter_map(|it| it.as_str()) {
            let adapter = self.read(&folder(name), &device)?;
            let logits = |adapter: &PeftAdapter| -> anyhow::Result<Vec<f32>> {
                Ok(values(self.base.logits(flat(self.hidden(adapter)?))))
            };
            let (what, want) = (
                format!("logits.{name}"),
                self.tensors.f32(&format!("logits.{name}"))?,
            );
            check.close(&what, &logits(&adapter)?, &want, forward);
            round_trip(&mut check, &folder(name), self.base.config(), &device)?;
            let Some(digits) = name.strip_prefix("cat_") else {
                continue;
            };
            // `07_03` is 0.7 of the first and 0.3 of the second.
            let tenths = digits.split('_').map(|it| Ok(it.parse::<f64>()? / 10.0));
            let tenths = tenths.collect::<anyhow::Result<Vec<f64>>>()?;
            let shares = parts.iter().zip(tenths).map(|(adapter, tenth)| Share {
                adapter,
                weights: vec![tenth; adapter.layers.len()],
                attention: tenth,
            });
            let joined = PeftAdapter::joined(&shares.collect::<Vec<_>>());
            check.close(&format!("{what} (ours)"), &logits(&joined)?, &want, forward);
            check.holds(joined.placed == adapter.placed, || {
                format!("{name}: ranks and scalings {:?}", joined.placed)
            });
            for (layer, target, of, tensor) in loras(&adapter) {
                let one = |it: &PeftAdapter| -> anyhow::Result<Vec<f32>> {
                    let lora = it.layers[layer].lora(target).context("a LoRA is lost")?;
                    Ok(values(if of == "A" {
                        lora.a.val()
                    } else {
                        lora.b.val()
                    }))
                };
                check.close(
                    &format!("{name}.{tensor}"),
                    &one(&joined)?,
                    &one(&adapter)?,
                    of_weights,
                );
            }
        }
        check.note_unused(&self.tensors);
        Ok(check.verdict())
    }
}

/// Layer, matrix, A or B, and name in the file of every tensor.
fn loras(adapter: &PeftAdapter) -> Vec<(usize, Projection, &'static str, String)> {
    let mut all = Vec::new();
    for (layer, placed) in adapter.placed.iter().enumerate() {
        for it in placed {
            let block = match it.target {
                Projection::Gate | Projection::Up | Projection::Down => "mlp",
                _ => "self_attn",
            };
            for of in ["A", "B"] {
                let module = format!("model.layers.{layer}.{block}.{}_proj", it.target.name());
                let name = format!("base_model.model.{module}.lora_{of}.weight");
                all.push((layer, it.target, of, name));
            }
        }
    }
    all
}

/// An adapter that is read, made an expert, and written has the bytes that it was read from, and reads back as the same expert.
fn round_trip(
    check: &mut Check,
    folder: &Path,
    base: &ModelConfig,
    device: &Device,
) -> anyhow::Result<()> {
    let read = PeftAdapter::read(folder, base, device)?;
    let (catalogue, expert) = catalogue(&read, base)?;
    let aside = tempfile::tempdir()?;
    let to = aside.path().join("adapter");
    PeftAdapter::of(&catalogue, catalogue.expert(expert), base)?.write(&to, "base", |_| Ok(()))?;
    let again = PeftAdapter::read(&to, base, device)?;
    let same = read.placed == again.placed
        && read.lora == again.lora
        && to_bytes(&read.layers) == to_bytes(&again.layers);
    check.holds(same, || {
        format!("{} is another after a round trip", folder.display())
    });
    let bytes = |folder: &Path| fs::read(folder.join("adapter_model.safetensors"));
    let same = bytes(folder)? == bytes(&to)?;
    check.holds(same, || {
        format!("{} has other bytes after a round trip", folder.display())
    });
    Ok(())
}
