//! The key/value section of a GGUF file.

use std::collections::HashMap;
use std::path::Path;

use super::cursor::Cursor;
use crate::error::{Error, Result};

/// Arrays of arrays deeper than this are an attack on the stack, not a model.
const MAX_DEPTH: usize = 4;

/// A metadata value. Whole numbers of all widths are widened to 64 bits.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// u8, u16, u32 or u64.
    Unsigned(u64),
    /// i8, i16, i32 or i64.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// One byte, 0 or 1.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one type.
    Array(Array),
}

/// An array, stored by element type so that it takes no more memory than about what the file does.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// Signed bytes.
    I8(Vec<i8>),
    /// 16-bit unsigned numbers.
    U16(Vec<u16>),
    /// 16-bit signed numbers.
    I16(Vec<i16>),
    /// 32-bit unsigned numbers.
    U32(Vec<u32>),
    /// 32-bit signed numbers.
    I32(Vec<i32>),
    /// 64-bit unsigned numbers.
    U64(Vec<u64>),
    /// 64-bit signed numbers.
    I64(Vec<i64>),
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts: tokens, merges.
    String(Vec<String>),
    /// Arrays inside an array.
    Array(Vec<Array>),
}

impl Value {
    fn read(cursor: &mut Cursor) -> Result<Self> {
        Ok(match cursor.u32()? {
            0 => Self::Unsigned(cursor.bytes().map(u8::from_le_bytes)?.into()),
            1 => Self::Signed(cursor.bytes().map(i8::from_le_bytes)?.into()),
            2 => Self::Unsigned(cursor.bytes().map(u16::from_le_bytes)?.into()),
            3 => Self::Signed(cursor.bytes().map(i16::from_le_bytes)?.into()),
            4 => Self::Unsigned(cursor.u32()?.into()),
            5 => Self::Signed(cursor.bytes().map(i32::from_le_bytes)?.into()),
            6 => Self::Float(cursor.bytes().map(f32::from_le_bytes)?.into()),
            7 => Self::Bool(bool_from(cursor.bytes()?, cursor)?),
            8 => Self::String(cursor.string()?),
            9 => Self::Array(Array::read(cursor, MAX_DEPTH)?),
            10 => Self::Unsigned(cursor.u64()?),
            11 => Self::Signed(cursor.bytes().map(i64::from_le_bytes)?),
            12 => Self::Float(cursor.bytes().map(f64::from_le_bytes)?),
            other => return Err(cursor.error(format_args!("unknown metadata type {other}"))),
        })
    }

    /// What the value is, for messages.
    fn describe(&self) -> String {
        match self {
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bool(truth) => truth.to_string(),
            Self::String(text) => format!("{text:?}"),
            Self::Array(array) => format!("an array of {}", array.len()),
        }
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(items) => items.len(),
            Self::I8(items) => items.len(),
            Self::U16(items) => items.len(),
            Self::I16(items) => items.len(),
            Self::U32(items) => items.len(),
            Self::I32(items) => items.len(),
            Self::U64(items) => items.len(),
            Self::I64(items) => items.len(),
            Self::F32(items) => items.len(),
            Self::F64(items) => items.len(),
            Self::Bool(items) => items.len(),
            Self::String(items) => items.len(),
            Self::Array(items) => items.len(),
        }
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(cursor: &mut Cursor, depth: usize) -> Result<Self> {
        Ok(match cursor.u32()? {
            0 => Self::U8(numbers(cursor, u8::from_le_bytes)?),
            1 => Self::I8(numbers(cursor, i8::from_le_bytes)?),
            2 => Self::U16(numbers(cursor, u16::from_le_bytes)?),
            3 => Self::I16(numbers(cursor, i16::from_le_bytes)?),
            4 => Self::U32(numbers(cursor, u32::from_le_bytes)?),
            5 => Self::I32(numbers(cursor, i32::from_le_bytes)?),
            6 => Self::F32(numbers(cursor, f32::from_le_bytes)?),
            7 => {
                let bytes = numbers(cursor, |byte: [u8; 1]| byte)?;
                let bools = bytes.into_iter().map(|byte| bool_from(byte, cursor));
                Self::Bool(bools.collect::<Result<_>>()?)
            }
            8 => {
                let len = cursor.count("strings", 8)?;
                Self::String((0..len).map(|_| cursor.string()).collect::<Result<_>>()?)
            }
            9 if depth == 0 => {
                return Err(cursor.error(format_args!("arrays nest deeper than {MAX_DEPTH}")));
            }
            9 => {
                let len = cursor.count("arrays", 12)?;
                let arrays = (0..len).map(|_| Self::read(cursor, depth - 1));
                Self::Array(arrays.collect::<Result<_>>()?)
            }
            10 => Self::U64(numbers(cursor, u64::from_le_bytes)?),
            11 => Self::I64(numbers(cursor, i64::from_le_bytes)?),
            12 => Self::F64(numbers(cursor, f64::from_le_bytes)?),
            other => return Err(cursor.error(format_args!("unknown array type {other}"))),
        })
    }
}

fn numbers<const N: usize, T>(cursor: &mut Cursor, read: fn([u8; N]) -> T) -> Result<Vec<T>> {
    let len = cursor.count("array elements", N as u64)?;
    let bytes = cursor.vec(len * N)?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|&b| read(b)).collect())
}

fn bool_from([byte]: [u8; 1], cursor: &Cursor) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(cursor.error(format_args!("a truth value is {other}, expected 0 or 1"))),
    }
}

/// The key/value pairs of a file, with typed look-ups whose errors name file and key.
#[derive(Clone, Debug, Default)]
pub struct Metadata(HashMap<String, Value>);

impl Metadata {
    /// Reads `count` pairs.
    pub(super) fn read(cursor: &mut Cursor, count: usize) -> Result<Self> {
        let mut pairs = HashMap::new();
        for _ in 0..count {
            let key = cursor.string()?;
            let value = Value::read(cursor).map_err(|error| match error {
                Error::File { path, message } => Error::config(&path, &key, message),
                other => other,
            })?;
            if pairs.insert(key.clone(), value).is_some() {
                return Err(Error::config(
                    cursor.path(),
                    key,
                    "stands in the file twice",
                ));
            }
        }
        Ok(Self(pairs))
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Every key, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn typed<'a, T>(
        &'a self,
        path: &Path,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| {
            let message = format!("expected {expected}, found {}", value.describe());
            Error::config(path, key, message)
        })
    }

    pub(super) fn usize(&self, path: &Path, key: &str) -> Result<Option<usize>> {
        self.typed(
            path,
            key,
            "a whole number of at least 0",
            |value| match value {
                Value::Unsigned(number) => usize::try_from(*number).ok(),
                Value::Signed(number) => usize::try_from(*number).ok(),
                _ => None,
            },
        )
    }

    pub(super) fn u32(&self, path: &Path, key: &str) -> Result<Option<u32>> {
        self.typed(path, key, "a token id", |value| match value {
            Value::Unsigned(number) => u32::try_from(*number).ok(),
            Value::Signed(number) => u32::try_from(*number).ok(),
            _ => None,
        })
    }

    pub(super) fn f64(&self, path: &Path, key: &str) -> Result<Option<f64>> {
        self.typed(path, key, "a number", |value| match value {
            Value::Float(number) => Some(*number),
            Value::Unsigned(number) => Some(*number as f64),
            _ => None,
        })
    }

    pub(super) fn bool(&self, path: &Path, key: &str) -> Result<Option<bool>> {
        self.typed(path, key, "true or false", |value| match value {
            Value::Bool(truth) => Some(*truth),
            _ => None,
        })
    }

    pub(super) fn str(&self, path: &Path, key: &str) -> Result<Option<&str>> {
        self.typed(path, key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn strings(&self, path: &Path, key: &str) -> Result<Option<&[String]>> {
        self.typed(path, key, "an array of strings", |value| match value {
            Value::Array(Array::String(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    pub(super) fn i32s(&self, path: &Path, key: &str) -> Result<Option<&[i32]>> {
        self.typed(path, key, "an array of i32", |value| match value {
            Value::Array(Array::I32(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    pub(super) fn f32s(&self, path: &Path, key: &str) -> Result<Option<&[f32]>> {
        self.typed(path, key, "an array of f32", |value| match value {
            Value::Array(Array::F32(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }
}
