//! From files of texts to batches of tokens.
//!
//! A file is read into [`Record`]s (`jsonl`, every error with its line), a task's files become [`TaskData`], an
//! [`Encoder`] turns records into [`Example`]s, [`epoch_batches`] orders them and a [`Batch`] holds the tensors.

mod batch;
mod encode;
mod error;
mod jsonl;
mod record;
mod report;
mod task;

pub use batch::{Batch, Padding, epoch_batches};
pub use encode::{Encoder, Example, prompt_text};
pub use error::{DataError, Place};
pub use jsonl::{Row, read, rows};
pub use record::{Format, Record, Role, Turn};
pub use report::DataReport;
pub use task::{Records, TaskData};

#[cfg(test)]
mod fixtures {
    use std::path::Path;

    use super::*;

    #[test]
    fn good_and_bad_files_are_taken_as_their_case_says() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/bad_jsonl");
        let case = std::fs::read_to_string(folder.join("case.json")).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: this test needs the fixtures in shared/",
                folder.display()
            )
        });
        let case: serde_json::Value = serde_json::from_str(&case).unwrap();
        let labels = ["positive".to_owned(), "negative".to_owned()];
        for (name, expected) in case["files"].as_object().unwrap() {
            let expected = expected.as_str().unwrap();
            let read = read(&folder.join(name), Some(&labels)).map_err(|error| error.to_string());
            let stated = |after: &str| {
                let digits: String = expected
                    .split_once(after)?
                    .1
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                digits.parse::<usize>().ok()
            };
            match read {
                Ok(rows) => {
                    assert!(
                        expected.contains("loads") || expected.starts_with("authors' format: 5"),
                        "{name} is read, expected: {expected}"
                    );
                    if let Some(count) = stated("loads: ") {
                        assert_eq!(rows.len(), count, "{name}");
                    }
                }
                Err(message) => {
                    assert!(
                        !expected.starts_with("loads"),
                        "{name} is refused: {message}"
                    );
                    if let Some(line) = stated("line ") {
                        assert!(message.contains(&format!("{name}:{line}:")), "{message}");
                    }
                }
            }
        }
    }
}
