use std::io::Write;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use moe_core::model::Routed;
use moe_core::{Error, Result, atomic, plain_file};
use serde::{Deserialize, Serialize};

use super::{Dispatch, Entry, Tokens};

/// No file of routings is read that is larger, in bytes.
const MOST: u64 = 1 << 32;

/// What a router of one layer decided, on the host: to be looked at, replayed, or fed to a simulator of expert parallelism.
///
/// A file of them is JSON Lines, one per layer and pass in the order in which they were recorded, with the keys below. Numbers are
/// written so that they are read as they were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Which layer.
    pub layer: usize,
    /// How many tokens were routed.
    pub tokens: usize,
    /// How many experts there are.
    pub experts: usize,
    /// `[entries]`, by token.
    pub token: Vec<u32>,
    /// `[entries]`.
    pub expert: Vec<u32>,
    /// `[entries]`.
    pub slot: Vec<u32>,
    /// `[entries]`.
    pub weight: Vec<f32>,
    /// `[experts]`, how many tokens chose each before any was dropped.
    pub wanted: Vec<u32>,
}

impl Recorded {
    /// Takes note of what the router of layer `layer` returned. Reads the weights back.
    pub fn of(layer: usize, dispatch: &Dispatch) -> Self {
        let entries = &dispatch.entries;
        Self {
            layer,
            tokens: dispatch.tokens,
            experts: dispatch.experts,
            token: entries.iter().map(|entry| entry.token).collect(),
            expert: entries.iter().map(|entry| entry.expert).collect(),
            slot: entries.iter().map(|entry| entry.slot).collect(),
            weight: super::choices::values(&dispatch.weights),
            wanted: dispatch.wanted.clone(),
        }
    }

    /// Takes note of what the router of a sparse base chose in layer `layer`, padding left out.
    ///
    /// # Panics
    /// When `tokens` is of another number.
    pub fn of_base(layer: usize, routed: &Routed, tokens: &Tokens) -> Self {
        let [count, experts] = routed.probs.dims();
        assert_eq!(count, tokens.count(), "as many tokens as were routed");
        let [_, top_k] = routed.weights.dims();
        let weights = super::choices::values(&routed.weights);
        let mut recorded = Self {
            layer,
            tokens: count,
            experts,
            token: Vec::new(),
            expert: Vec::new(),
            slot: Vec::new(),
            weight: Vec::new(),
            wanted: vec![0; experts],
        };
        for (choice, (&expert, weight)) in routed.experts.iter().zip(weights).enumerate() {
            let (token, wanted) = (choice / top_k, &mut recorded.wanted[expert as usize]);
            if tokens.is_real(token) {
                recorded.token.push(token as u32);
                recorded.expert.push(expert);
                recorded.slot.push(*wanted);
                recorded.weight.push(weight);
                *wanted += 1;
            }
        }
        recorded
    }

    /// The same entries with the same weights, which are constants on `device`; without scores and losses.
    pub fn replay(&self, device: &Device) -> Dispatch {
        let places = self.token.iter().zip(&self.expert).zip(&self.slot);
        let entry = |((&token, &expert), &slot)| Entry {
            token,
            expert,
            slot,
        };
        Dispatch {
            tokens: self.tokens,
            experts: self.experts,
            entries: places.map(entry).collect(),
            weights: Tensor::from_data(self.weight.as_slice(), device),
            scores: None,
            wanted: self.wanted.clone(),
            losses: Vec::new(),
        }
    }

    /// Writes a file of routings, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written, or a weight is no finite number.
    pub fn write_all(path: &Path, routings: &[Self]) -> Result<()> {
        let mut bytes = Vec::new();
        for routing in routings {
            routing.check().map_err(|message| file(path, message))?;
            let line = serde_json::to_string(routing).map_err(|error| file(path, error))?;
            writeln!(bytes, "{line}").map_err(|source| io(path, source))?;
        }
        atomic::write_file(path, &bytes).map_err(|source| io(path, source))
    }

    /// Reads a file of routings.
    ///
    /// # Errors
    /// When it cannot be read, or a line is no routing: the line is named.
    pub fn read_all(path: &Path) -> Result<Vec<Self>> {
        let bytes = plain_file::read(path, MOST).map_err(|source| io(path, source))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| file(path, error))?;
        let lines = text.lines().enumerate();
        lines
            .map(|(index, line)| {
                let at = |message: String| file(path, format!("line {}: {message}", index + 1));
                let routing: Self =
                    serde_json::from_str(line).map_err(|error| at(error.to_string()))?;
                routing.check().map_err(at)?;
                Ok(routing)
            })
            .collect()
    }

    /// What is wrong with it, if anything.
    fn check(&self) -> std::result::Result<(), String> {
        let entries = self.token.len();
        for (name, length) in [
            ("expert", self.expert.len()),
            ("slot", self.slot.len()),
            ("weight", self.weight.len()),
        ] {
            if length != entries {
                return Err(format!(
                    "`{name}` has {length} entries and `token` {entries}"
                ));
            }
        }
        if self.wanted.len() != self.experts {
            return Err(format!(
                "`wanted` has {} entries for {} experts",
                self.wanted.len(),
                self.experts
            ));
        }
        if let Some(token) = self
            .token
            .iter()
            .find(|&&token| token as usize >= self.tokens)
        {
            return Err(format!("token {token} of {}", self.tokens));
        }
        if !self.token.is_sorted() {
            return Err("the entries are not by token".into());
        }
        if let Some(expert) = self.expert.iter().find(|&&it| it as usize >= self.experts) {
            return Err(format!("expert {expert} of {}", self.experts));
        }
        match self.weight.iter().find(|weight| !weight.is_finite()) {
            Some(weight) => Err(format!("a weight is {weight}")),
            None => Ok(()),
        }
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_path_buf(),
        source,
    }
}

fn file(path: &Path, message: impl ToString) -> Error {
    Error::File {
        path: path.to_path_buf(),
        message: message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SoftmaxTopK, SoftmaxTopKConfig};
    use super::*;

    fn routing() -> Dispatch {
        let device = Device::flex();
        let router = SoftmaxTopK::new(SoftmaxTopKConfig::default(), 4, 3, 1, &device);
        let logits = Tensor::from_data([[0.3, 1.0 / 3.0, -2.0], [5.0, 0.1, 0.2]], &device);
        router.route(logits, &Tokens::new(2), None)
    }

    #[test]
    fn a_recorded_routing_is_replayed_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routings.jsonl");
        let dispatch = routing();
        let recorded = [Recorded::of(3, &dispatch), Recorded::of(4, &dispatch)];
        Recorded::write_all(&path, &recorded).unwrap();
        let read = Recorded::read_all(&path).unwrap();
        assert_eq!(read, recorded);
        let replayed = read[1].replay(&Device::flex());
        assert_eq!(replayed.entries, dispatch.entries);
        replayed
            .gates()
            .into_data()
            .assert_eq(&dispatch.gates().into_data(), true);
        assert_eq!(replayed.load(), dispatch.load());
    }

    #[test]
    fn a_line_that_is_no_routing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routings.jsonl");
        let good = serde_json::to_value(Recorded::of(0, &routing())).unwrap();
        for (key, value, word) in [
            ("expert", serde_json::json!([0, 1, 0, 9]), "expert 9 of 3"),
            ("token", serde_json::json!([0, 0, 1, 7]), "token 7 of 2"),
            ("slot", serde_json::json!([0]), "`slot` has 1"),
            ("wanted", serde_json::json!([]), "`wanted` has 0"),
            ("token", serde_json::json!([0, 1, 0, 1]), "by token"),
            ("layer", serde_json::json!(-1), "invalid value"),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            std::fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
            let error = Recorded::read_all(&path).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(word), "{error}");
        }
    }
}
