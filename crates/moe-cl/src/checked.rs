//! JSON objects that carry a check of themselves, where a hash in a file of its own would be more than they are.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Error, Map, Value};
use sha2::{Digest, Sha256};

/// Name of the check's field.
const CHECK: &str = "check";

/// The object that `value` is, in one line without an end, with a check of it and of `about`, which it says something of.
///
/// # Errors
/// When `value` is no object, or is not to be written as JSON.
pub(crate) fn to_line(value: &impl Serialize, about: &[u8]) -> Result<Vec<u8>, Error> {
    let Value::Object(mut object) = serde_json::to_value(value)? else {
        return Err(serde::ser::Error::custom("no object"));
    };
    let check = check(&object, about)?;
    object.insert(CHECK.into(), check.into());
    serde_json::to_vec(&object)
}

/// What [`to_line`] wrote.
///
/// # Errors
/// When the line, or what it is about, is not what was written.
pub(crate) fn from_line<T: DeserializeOwned>(line: &[u8], about: &[u8]) -> Result<T, Error> {
    let mut object: Map<String, Value> = serde_json::from_slice(line)?;
    let recorded = object.shift_remove(CHECK);
    if recorded != Some(check(&object, about)?.into()) {
        return Err(serde::de::Error::custom("does not match its check"));
    }
    serde_json::from_value(object.into())
}

/// Half of a SHA-256, which is enough against chance.
fn check(object: &Map<String, Value>, about: &[u8]) -> Result<String, Error> {
    let hash = Sha256::new()
        .chain_update(about)
        .chain_update(b"\n")
        .chain_update(serde_json::to_vec(object)?)
        .finalize();
    Ok(hex::encode(&hash[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_that_changes_the_value_or_what_it_is_about_is_seen() {
        let value = serde_json::json!({"time": 12.5, "none": null, "of": [1, 2]});
        let line = to_line(&value, b"about").expect("an object");
        let read = |line: &[u8], about: &[u8]| from_line::<Value>(line, about);
        assert_eq!(read(&line, b"about").expect("as written"), value);
        assert!(read(&line, b"abouT").is_err());
        for bit in 0..line.len() * 8 {
            let mut flipped = line.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = read(&flipped, b"about") {
                assert_eq!(read, value, "bit {bit}");
            }
        }
    }
}
