//! `adapter_config.json`, read strictly, field by field.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use super::settings::{Names, Settings, refusal};
use crate::error::{Error, Result};
use crate::{LoraConfig, LoraInit};

/// The longest file that is read.
const MOST: u64 = 1 << 22;

/// Settings that change no number of a trained adapter: what it was trained from and with, and by whom.
const HARMLESS: [&str; 12] = [
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    // Of modules that store their matrix the other way round, of which a decoder here has none; PEFT passes over it as well.
    "fan_in_fan_out",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Fields that have not been looked at yet.
pub(super) struct File<'a> {
    path: &'a Path,
    fields: Map<String, Value>,
}

impl<'a> File<'a> {
    pub(super) fn read(path: &'a Path) -> Result<Self> {
        let refused = |message: String| refusal(path, message);
        let bytes =
            moe_core::plain_file::read(path, MOST).map_err(|error| refused(error.to_string()))?;
        let fields: Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|error| refused(format!("expected a JSON object: {error}")))?;
        Ok(Self { path, fields })
    }

    pub(super) fn settings(mut self) -> Result<Settings> {
        match self.take("peft_type") {
            Value::String(kind) if kind == "LORA" => {}
            other => {
                return Err(self.refuse(
                    "peft_type",
                    &other,
                    "\"LORA\": other adapters are not read",
                ));
            }
        }
        let lora = LoraConfig {
            rank: self.rank()?,
            alpha: self.number("lora_alpha", 8.0)?,
            rslora: self.flag("use_rslora")?,
            dropout: self.number("lora_dropout", 0.0)?,
            init: self.init()?,
        };
        lora.check()
            .map_err(|error| refusal(self.path, error.to_string()))?;
        let targets = self.names("target_modules")?.ok_or_else(|| {
            refusal(self.path, "`target_modules` is missing: PEFT's guess by the kind of model is in no adapter that it saved; write a list of names".into())
        })?;
        let layers = self.layers(&targets)?;
        let settings = Settings {
            path: self.path.into(),
            targets,
            exclude: self.names("exclude_modules")?,
            layers,
            ranks: self.patterns("rank_pattern", |value| {
                let rank = value.as_u64().and_then(|it| usize::try_from(it).ok());
                rank.filter(|rank| *rank > 0)
            })?,
            alphas: self.patterns("alpha_pattern", |value| {
                value.as_f64().filter(|alpha| alpha.is_finite())
            })?,
            lora,
        };
        self.nothing_else()?;
        Ok(settings)
    }

    fn take(&mut self, key: &str) -> Value {
        self.fields.shift_remove(key).unwrap_or(Value::Null)
    }

    fn refuse(&self, key: &str, value: &Value, expected: &str) -> Error {
        let value: String = value.to_string().chars().take(200).collect();
        refusal(
            self.path,
            format!("`{key}` is {value}; expected {expected}"),
        )
    }

    fn rank(&mut self) -> Result<usize> {
        match self.take("r") {
            Value::Null => Ok(8),
            value => {
                let rank = value.as_u64().and_then(|it| usize::try_from(it).ok());
                rank.filter(|rank| *rank > 0)
                    .ok_or_else(|| self.refuse("r", &value, "a whole number of at least 1"))
            }
        }
    }

    fn number(&mut self, key: &str, default: f64) -> Result<f64> {
        match self.take(key) {
            Value::Null => Ok(default),
            value => value
                .as_f64()
                .ok_or_else(|| self.refuse(key, &value, "a number")),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool> {
        match self.take(key) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            value => Err(self.refuse(key, &value, "true or false")),
        }
    }

    /// A start that changes the base is no start of a LoRA on the base as it is.
    fn init(&mut self) -> Result<LoraInit> {
        const PLAIN: &str = "true, false, \"gaussian\", \"orthogonal\" or \"eva\": other starts change the base's own weights, or leave something else in the adapter";
        match self.take("init_lora_weights") {
            Value::Null | Value::Bool(_) => Ok(LoraInit::Kaiming),
            Value::String(name) if name == "gaussian" => Ok(LoraInit::Gaussian),
            Value::String(name) if ["orthogonal", "eva"].contains(&name.as_str()) => {
                Ok(LoraInit::Kaiming)
            }
            value => Err(self.refuse("init_lora_weights", &value, PLAIN)),
        }
    }

    fn pattern(&self, key: &str, text: &str, whole: String) -> Result<Regex> {
        Regex::new(&whole).map_err(|error| {
            let error = error.to_string();
            let line = error.lines().last().unwrap_or_default();
            refusal(
                self.path,
                format!("`{key}`: {text:?} is no regular expression that is read here: {line}"),
            )
        })
    }

    /// All, names that are compared with the end of a module's, or an expression for the whole of it.
    fn names(&mut self, key: &str) -> Result<Option<Names>> {
        const LIST: &str = "a list of names, a regular expression, or \"all-linear\"";
        match self.take(key) {
            Value::Null => Ok(None),
            Value::String(name) if name == "all-linear" && key == "target_modules" => {
                Ok(Some(Names::AllLinear))
            }
            Value::String(text) => {
                let pattern = self.pattern(key, &text, format!("^(?:{text})$"))?;
                Ok(Some(Names::Pattern(pattern)))
            }
            Value::Array(items) => {
                let name =
                    |item: &Value| item.as_str().filter(|it| !it.is_empty()).map(str::to_owned);
                let names: Option<Vec<String>> = items.iter().map(name).collect();
                let names = names.ok_or_else(|| self.refuse(key, &Value::Array(items), LIST))?;
                Ok((key == "target_modules" || !names.is_empty()).then_some(Names::List(names)))
            }
            value => Err(self.refuse(key, &value, LIST)),
        }
    }

    fn layers(&mut self, targets: &Names) -> Result<Option<(Vec<u64>, Vec<Regex>)>> {
        const NUMBERS: &str = "a layer's number, or a list of them";
        let pattern = self.take("layers_pattern");
        let prefixes: Vec<String> = match &pattern {
            Value::Null => Vec::new(),
            Value::String(one) if one.is_empty() => Vec::new(),
            Value::String(one) => vec![one.clone()],
            Value::Array(items) if items.iter().all(Value::is_string) => items
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            other => {
                return Err(self.refuse("layers_pattern", other, "a name, or a list of names"));
            }
        };
        let layers = match self.take("layers_to_transform") {
            Value::Null => return Ok(None),
            Value::Array(items) if items.is_empty() => return Ok(None),
            Value::Array(items) => {
                let numbers: Option<Vec<u64>> = items.iter().map(Value::as_u64).collect();
                numbers.ok_or_else(|| {
                    self.refuse("layers_to_transform", &Value::Array(items), NUMBERS)
                })?
            }
            value => vec![
                value
                    .as_u64()
                    .ok_or_else(|| self.refuse("layers_to_transform", &value, NUMBERS))?,
            ],
        };
        if !matches!(targets, Names::List(_)) {
            let message = "`layers_to_transform` goes with a list of `target_modules`, as in PEFT; say the layers in the expression";
            return Err(refusal(self.path, message.into()));
        }
        let place = |prefix: &String| {
            self.pattern(
                "layers_pattern",
                prefix,
                format!(r"^.*\.(?:{prefix})\.(\d+)\."),
            )
        };
        let places = match prefixes.is_empty() {
            true => vec![self.pattern("layers_pattern", "", r"^.*\.[^.]*\.(\d+)\.".into())?],
            false => prefixes.iter().map(place).collect::<Result<_>>()?,
        };
        Ok(Some((layers, places)))
    }

    fn patterns<T>(
        &mut self,
        key: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<(Regex, T)>> {
        let entries = match self.take(key) {
            Value::Null => return Ok(Vec::new()),
            Value::Object(entries) => entries,
            value => return Err(self.refuse(key, &value, "an object of names and numbers")),
        };
        let entry = |(name, value): (&String, &Value)| {
            let number = read(value).ok_or_else(|| {
                self.refuse(
                    &format!("{key}.{name}"),
                    value,
                    "a number that is possible there",
                )
            })?;
            Ok((
                self.pattern(key, name, format!(r"^(?:.*\.)?(?:{name})$"))?,
                number,
            ))
        };
        entries.iter().map(entry).collect()
    }

    /// Refuses what is left and says anything: DoRA, biases, modules saved whole, and whatever PEFT may learn.
    fn nothing_else(self) -> Result<()> {
        let silent = |key: &str, value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::String(text) => key == "bias" && text == "none",
            _ => false,
        };
        let mut loud = self
            .fields
            .iter()
            .filter(|(key, value)| !HARMLESS.contains(&key.as_str()) && !silent(key, value));
        match loud.next() {
            None => Ok(()),
            Some((key, value)) => Err(self.refuse(
                key,
                value,
                "nothing there: an expert is a plain LoRA, and this setting may change its numbers",
            )),
        }
    }
}
