//! What a crate's README says of using it: the dependencies to write down, and programs.

use std::path::Path;

use anyhow::{Context, ensure};

/// A README as someone follows it who begins a crate with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Readme {
    /// Its `toml` block: a table `[dependencies]`.
    pub dependencies: String,
    /// Its Rust blocks, each a whole program.
    pub programs: Vec<String>,
}

impl Readme {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, names no dependencies or has no program.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let blocks = blocks(text);
        let of = |languages: &[&str]| {
            let chosen = blocks
                .iter()
                .filter(|(language, _)| languages.contains(language));
            chosen.map(|(_, code)| code.clone()).collect::<Vec<_>>()
        };
        let dependencies: Vec<String> = of(&["toml"])
            .into_iter()
            .filter(|block| block.starts_with("[dependencies]"))
            .collect();
        let programs: Vec<String> = of(&["rust", "rust,no_run"])
            .into_iter()
            .map(program)
            .collect();
        ensure!(
            dependencies.len() == 1,
            "{} blocks ```toml begin with [dependencies]; one says what the example depends on, and with which features",
            dependencies.len()
        );
        ensure!(
            !programs.is_empty(),
            "no block ```rust; one shows how the crate is used"
        );
        Ok(Self {
            dependencies: dependencies.concat(),
            programs,
        })
    }
}

/// Fenced blocks of Markdown: what stands behind the opening fence, and the lines between.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| !line.starts_with("```"));
            blocks.push((
                language.trim(),
                inside.map(|line| format!("{line}\n")).collect(),
            ));
        }
    }
    blocks
}

/// As rustdoc reads it: statements without a `main` are its body.
fn program(code: String) -> String {
    if code.contains("fn main(") {
        code
    } else {
        format!("fn main() {{\n{code}}}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# x\n```toml\n[dependencies]\nx = \"1\"\n```\n```rust\nlet x = 1;\n```\n```rust,no_run\nfn main() {}\n```\n```sh\nls\n```\n";

    #[test]
    fn dependencies_and_programs_are_found() {
        let readme = Readme::parse(TEXT).expect("it has both");
        assert_eq!(readme.dependencies, "[dependencies]\nx = \"1\"\n");
        let programs = ["fn main() {\nlet x = 1;\n}\n", "fn main() {}\n"];
        assert_eq!(readme.programs, programs);
    }

    #[test]
    fn one_that_says_nothing_of_its_dependencies_is_refused() {
        let text = TEXT.replace("[dependencies]", "[features]");
        let error = Readme::parse(&text).expect_err("no dependencies");
        assert!(error.to_string().contains("[dependencies]"), "{error}");
        let text = TEXT.replace("```rust", "```text");
        assert!(Readme::parse(&text).is_err());
    }
}
