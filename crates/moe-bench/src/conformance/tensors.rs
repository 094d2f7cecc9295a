//! The tensors of a fixture, read with the reference `safetensors` crate and not with the code under test.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

/// Named arrays of a fixture. Remembers which were looked at, so that none is left out silently.
pub struct Tensors {
    entries: BTreeMap<String, Entry>,
    used: RefCell<BTreeSet<String>>,
}

struct Entry {
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    Float(Vec<f64>),
    Int(Vec<i64>),
}

impl Tensors {
    /// Reads a safetensors file.
    ///
    /// # Errors
    /// When it cannot be read, or holds a type that fixtures do not use.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = SafeTensors::deserialize(&bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut entries = BTreeMap::new();
        for (name, view) in file.iter() {
            let values =
                decode(view.dtype(), view.data()).with_context(|| format!("tensor {name}"))?;
            entries.insert(
                name.to_string(),
                Entry {
                    shape: view.shape().to_vec(),
                    values,
                },
            );
        }
        Ok(Self {
            entries,
            used: RefCell::default(),
        })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn shape(&self, name: &str) -> anyhow::Result<&[usize]> {
        Ok(&self.entry(name)?.shape)
    }

    /// Shape of a tensor whose rank is known.
    ///
    /// # Errors
    /// When there is none of that name or its rank is another.
    pub fn dims<const D: usize>(&self, name: &str) -> anyhow::Result<[usize; D]> {
        let shape = self.shape(name)?;
        shape
            .try_into()
            .map_err(|_| anyhow::anyhow!("tensor {name} has shape {shape:?}, not {D} axes"))
    }

    /// Values as f32.
    ///
    /// # Errors
    /// When there is no float tensor of that name.
    pub fn f32(&self, name: &str) -> anyhow::Result<Vec<f32>> {
        Ok(self
            .f64(name)?
            .into_iter()
            .map(|value| value as f32)
            .collect())
    }

    /// Values as f64.
    ///
    /// # Errors
    /// When there is no float tensor of that name.
    pub fn f64(&self, name: &str) -> anyhow::Result<Vec<f64>> {
        match &self.entry(name)?.values {
            Values::Float(values) => Ok(values.clone()),
            Values::Int(_) => bail!("tensor {name} holds integers"),
        }
    }

    /// Values as integers.
    ///
    /// # Errors
    /// When there is no integer tensor of that name.
    pub fn i64(&self, name: &str) -> anyhow::Result<Vec<i64>> {
        match &self.entry(name)?.values {
            Values::Int(values) => Ok(values.clone()),
            Values::Float(_) => bail!("tensor {name} holds floats"),
        }
    }

    /// Names that nothing has looked at.
    pub fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        self.names().filter(|name| !used.contains(*name)).collect()
    }

    fn entry(&self, name: &str) -> anyhow::Result<&Entry> {
        self.used.borrow_mut().insert(name.to_string());
        self.entries
            .get(name)
            .with_context(|| format!("the fixture has no tensor {name}"))
    }
}

fn decode(dtype: Dtype, data: &[u8]) -> anyhow::Result<Values> {
    let float = |size: usize, read: &dyn Fn(&[u8]) -> f64| {
        Values::Float(data.chunks_exact(size).map(read).collect())
    };
    let int = |size: usize, read: &dyn Fn(&[u8]) -> i64| {
        Values::Int(data.chunks_exact(size).map(read).collect())
    };
    Ok(match dtype {
        Dtype::F64 => float(8, &|b| {
            f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
        }),
        Dtype::F32 => float(4, &|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()),
        Dtype::F16 => float(2, &|b| f16::from_le_bytes([b[0], b[1]]).into()),
        Dtype::BF16 => float(2, &|b| bf16::from_le_bytes([b[0], b[1]]).into()),
        Dtype::I64 => int(8, &|b| {
            i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
        }),
        Dtype::I32 => int(4, &|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()),
        Dtype::U8 | Dtype::BOOL => int(1, &|b| b[0].into()),
        other => bail!("holds {other:?}, which the runner does not read"),
    })
}
