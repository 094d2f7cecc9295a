//! The commands that the documents show: each is one that this program understands.

use std::{fs, path::Path};

use clap::{CommandFactory, error::ErrorKind};

use super::Cli;

const PAGES: [&str; 12] = [
    "README.md",
    "datasets/README.md",
    "docs/ARCHITECTURE.md",
    "docs/GUIDE.md",
    "docs/MATH.md",
    "crates/moe-cl/README.md",
    "crates/moe-cli/README.md",
    "crates/moe-core/README.md",
    "crates/moe-gan/README.md",
    "crates/moe-hub/README.md",
    "crates/moe-lora/README.md",
    "crates/moe-report/README.md",
];

/// Lines of a page's `sh` blocks and code within its lines that begin with `moe-cl`, or with how cargo runs it; without comments.
fn commands(page: &str) -> Vec<String> {
    let mut language = None;
    let mut found = Vec::new();
    for line in page.lines() {
        match (line.strip_prefix("```"), language) {
            (Some(_), Some(_)) => language = None,
            (Some(opened), None) => language = Some(opened),
            (None, Some("sh")) => found.push(line),
            (None, Some(_)) => {}
            (None, None) => found.extend(line.split('`').skip(1).step_by(2)),
        }
    }
    let ours = found.into_iter().filter_map(|code| {
        let code = code.split_once(" #").map_or(code, |(code, _)| code).trim();
        let cargo = code.strip_prefix("cargo run --release -p moe-cli -- ");
        cargo.or_else(|| code.strip_prefix("moe-cl "))
    });
    ours.map(str::to_owned).collect()
}

/// The words of a command, texts in quotes being one.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, piece) in command.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(piece.split_whitespace().map(str::to_owned)),
            _ => words.push(piece.to_owned()),
        }
    }
    words
}

/// A command whose options are all there may still lack some, where the page speaks of it in general.
fn refusal(command: &str) -> Option<String> {
    let arguments = std::iter::once("moe-cl".to_owned()).chain(words(command));
    let error = Cli::command().try_get_matches_from(arguments).err()?;
    let general = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    (!general.contains(&error.kind())).then(|| error.to_string())
}

#[test]
fn every_command_in_the_documents_is_one_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut count = 0;
    for page in PAGES {
        let text = fs::read_to_string(root.join(page)).expect("a page");
        for command in commands(&text) {
            // Usage lines with what may be left out are no commands.
            if command.contains(['[', '…', '|']) {
                continue;
            }
            count += 1;
            let refusal = refusal(&command);
            assert_eq!(refusal, None, "{page}: moe-cl {command}");
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn a_command_that_there_is_not_is_found_out() {
    let page = "```sh\nmoe-cl trian --config x   # no\nls\n```\nSay `moe-cl report \"a b\" --colour` or `moe-cl tasks`.\n";
    let found = commands(page);
    assert_eq!(
        found,
        ["trian --config x", "report \"a b\" --colour", "tasks"]
    );
    assert_eq!(words(&found[1]), ["report", "a b", "--colour"]);
    let refused: Vec<bool> = found.iter().map(|it| refusal(it).is_some()).collect();
    assert_eq!(refused, [true, true, false]);
}
