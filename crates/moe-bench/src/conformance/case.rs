//! One fixture folder: its case.json and its tensors.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use super::check::Tolerance;
use super::tensors::Tensors;

/// A fixture folder.
pub struct Case {
    /// `group/case`, or `group` alone.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// case.json as it stands.
    pub json: Value,
}

impl Case {
    /// Reads `dir/case.json`.
    ///
    /// # Errors
    /// When it cannot be read, is not JSON or has no name.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let json = read_json(&dir.join("case.json"))?;
        let Some(name) = json["name"].as_str().filter(|name| !name.is_empty()) else {
            bail!("case.json has no name");
        };
        Ok(Self {
            name: name.to_string(),
            dir: dir.to_path_buf(),
            json,
        })
    }

    /// First part of the name.
    pub fn group(&self) -> &str {
        self.name.split('/').next().unwrap_or(&self.name)
    }

    /// `tensors.safetensors` of the case.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tensors(&self) -> anyhow::Result<Tensors> {
        Tensors::read(&self.dir.join("tensors.safetensors"))
    }

    /// A JSON file of the case.
    ///
    /// # Errors
    /// When it cannot be read or is not JSON.
    pub fn json_file(&self, name: &str) -> anyhow::Result<Value> {
        read_json(&self.dir.join(name))
    }

    /// Tolerance `key` of case.json: an object with `rtol` and `atol`, or a text such as `1e-9 absolute` or `rtol 1e-6`.
    ///
    /// # Errors
    /// When it is absent or holds no number.
    pub fn tolerance(&self, key: &str) -> anyhow::Result<Tolerance> {
        let value = &self.json["tolerance"][key];
        parse_tolerance(value)
            .with_context(|| format!("case.json states no tolerance `{key}` (it says {value})"))
    }

    /// A number of case.json's `config`.
    ///
    /// # Errors
    /// When it is absent.
    pub fn setting(&self, key: &str) -> anyhow::Result<f64> {
        self.json["config"][key]
            .as_f64()
            .with_context(|| format!("case.json has no number config.{key}"))
    }

    /// The entries of `files`: name and what the note says about it.
    ///
    /// # Errors
    /// When case.json has no such table.
    pub fn files(&self) -> anyhow::Result<Vec<(&str, &str)>> {
        let files = self.json["files"]
            .as_object()
            .context("case.json has no table `files`")?;
        Ok(files
            .iter()
            .map(|(name, note)| (name.as_str(), note.as_str().unwrap_or_default()))
            .collect())
    }

    /// All notes, one after the other.
    pub fn notes(&self) -> String {
        let notes = self.json["notes"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        notes
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn parse_tolerance(value: &Value) -> Option<Tolerance> {
    if let Some(text) = value.as_str() {
        if let Some((_, after)) = text.split_once("rtol ") {
            return Some(Tolerance {
                rtol: leading_number(after)?,
                atol: 0.0,
            });
        }
        return Some(Tolerance {
            rtol: 0.0,
            atol: leading_number(text)?,
        });
    }
    Some(Tolerance {
        rtol: value["rtol"].as_f64()?,
        atol: value["atol"].as_f64()?,
    })
}

fn leading_number(text: &str) -> Option<f64> {
    text.split_whitespace()
        .next()?
        .trim_end_matches([';', ','])
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerances_are_read_from_objects_and_texts() {
        let pair =
            |value| parse_tolerance(&value).map(|tolerance| (tolerance.rtol, tolerance.atol));
        assert_eq!(
            pair(json!({"rtol": 1e-3, "atol": 2e-3})),
            Some((1e-3, 2e-3))
        );
        assert_eq!(pair(json!("1e-9 absolute (f64)")), Some((0.0, 1e-9)));
        assert_eq!(
            pair(json!("exact up to 1 ulp; rtol 1e-6 otherwise")),
            Some((1e-6, 0.0))
        );
        assert_eq!(pair(json!("exact")), None);
        assert_eq!(pair(Value::Null), None);
    }
}
