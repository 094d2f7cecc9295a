use std::fs;

use proptest::prelude::*;

use super::*;

/// A file with this header and this many bytes of data 0, 1, 2, …
fn file(header: &str, data: u8) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(0..data);
    bytes
}

fn open(bytes: &[u8]) -> Result<SafetensorsFile> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    SafetensorsFile::open(&path)
}

const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},
"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}  "#;

/// The message about a file with one entry `a` over 4 bytes of data.
fn refused(entry: &str) -> String {
    let header = format!(r#"{{"a":{entry}}}"#);
    open(&file(&header, 4)).unwrap_err().to_string()
}

#[test]
fn tensors_read_back_whatever_their_order_in_the_header() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let mut bytes = file(TWO, 0);
    bytes.extend_from_slice(&1.5f32.to_le_bytes());
    bytes.extend_from_slice(&[0x80, 0x3f, 0x20, 0xc0]);
    fs::write(&path, bytes).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.read_f32("a").unwrap(), [1.5]);
    assert_eq!(file.read_f32("b").unwrap(), [1.0, -2.5]);
    assert_eq!(file.tensor("a").unwrap().shape, [1, 1]);
    assert_eq!(file.metadata()["format"], "pt");
    assert!(file.read_f32("c").is_err());
}

#[test]
fn a_damaged_entry_is_refused_by_the_name_of_its_tensor() {
    for (entry, reason) in [
        (r#"{"dtype":"F33","shape":[1],"data_offsets":[0,4]}"#, "F33"),
        (r#"{"shape":[1],"data_offsets":[0,4]}"#, "`dtype`"),
        (r#"{"dtype":"F32","data_offsets":[0,4]}"#, "`shape`"),
        (
            r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#,
            "[-1]",
        ),
        (
            r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#,
            "needs 8 bytes",
        ),
        (
            r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#,
            "overflows",
        ),
        (
            r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#,
            "end before",
        ),
        (
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0.0,4.0]}"#,
            "two positions",
        ),
        (
            r#"{"dtype":"F32","shape":[1],"data_offsets":[4]}"#,
            "two positions",
        ),
        (
            r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#,
            "past the end",
        ),
        (
            r#"{"dtype":"U8","shape":[0],"data_offsets":[18446744073709551615,18446744073709551615]}"#,
            "overflow",
        ),
        (r#"{"dtype":"I8","shape":[3],"data_offsets":[1,4]}"#, "gap"),
    ] {
        let message = refused(entry);
        assert!(message.contains("tensor `a`"), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn a_damaged_file_is_refused_by_its_path() {
    let twice = r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    let overlap = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
    let mut long = file("{}", 0);
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for bytes in [
        Vec::new(),
        vec![2, 0, 0],
        long,
        file("", 0),
        file("[]", 0),
        file(" {}", 0),
        file("{}", 1),
        file(&"{\"a\":".repeat(50_000), 0),
        file(r#"{"__metadata__":{"n":5}}"#, 0),
        file(twice, 0),
        file(overlap, 3),
        b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
    ] {
        let message = open(&bytes).unwrap_err().to_string();
        assert!(message.contains("x.safetensors"), "{message}");
    }
}

#[test]
fn integers_are_not_weights() {
    let header = r#"{"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    fs::write(&path, file(header, 4)).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.read_i64("a").unwrap(), [0x0302_0100]);
    assert!(file.read_f32("a").unwrap_err().to_string().contains("I32"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = file(TWO, 8);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(file) = open(&bytes) {
            for name in file.names() {
                // Any outcome but a panic; the file is already unlinked, its handle is not.
                let _ = file.read_f32(name);
            }
        }
    }
}
