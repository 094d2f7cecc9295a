//! docs/GUIDE.md as someone follows it who has nothing but the page and a base: its files and its commands, in their order.
#![cfg(unix)]

use super::*;

/// Every fenced block of the page: its language, and the file that the line before it names.
fn blocks(page: &str) -> Vec<(&str, Option<&str>, String)> {
    let mut found = Vec::new();
    let mut named = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if !line.is_empty() {
                let name = line.strip_prefix('`').and_then(|it| it.strip_suffix("`:"));
                named = name.filter(|name| !name.contains('`'));
            }
            continue;
        };
        let inside = lines.by_ref().take_while(|line| !line.starts_with("```"));
        let text = inside.map(|line| format!("{line}\n")).collect();
        found.push((language, named.take(), text));
    }
    found
}

/// Runs a line of the page in `folder`, with this program as `moe-cl`; its standard output.
fn run_line(line: &str, folder: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_moe-cl"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .env("PATH", path)
        .env("MOE_CL_CACHE", folder.join("cache"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    // A guard may refuse what this base makes of the texts: it knows eight words.
    let refused = line.contains("--guard") && output.status.code() == Some(3);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || refused, "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_the_guide_shows_works() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/GUIDE.md");
    let page = fs::read_to_string(page).unwrap();
    let (followed, _) = page.split_once("\n## Add a method").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("path/to/a/model"));
    let (mut files, mut commands) = (0, Vec::new());
    for (language, named, text) in blocks(followed) {
        match (language, named) {
            ("sh", None) => commands.extend(text.lines().map(|line| {
                let said = run_line(line, folder);
                (line.to_owned(), said)
            })),
            (_, Some(name)) => {
                fs::write(folder.join(name), text).unwrap();
                files += 1;
            }
            other => panic!("a block that is neither a file nor commands: {other:?}"),
        }
    }
    assert!(files >= 3 && commands.len() >= 10, "{files} {commands:?}");
    let said = |start: &str| {
        let (_, said) = commands
            .iter()
            .rfind(|(line, _)| line.starts_with(start))
            .unwrap();
        said.as_str()
    };
    assert!(said("moe-cl data check").contains("4 records, 0 refused"));
    assert!(said("moe-cl rollback").contains("reviews"));
    let scored = said("moe-cl eval elsewhere");
    assert!(scored.contains("mean of the 2 learnt"), "{scored}");
    assert!(folder.join("both.html").is_file());
    assert!(said("moe-cl tasks runs/mixture").contains("0+1+2+3 (softmax_top_k)"));
    let routing = fs::read_to_string(folder.join("routing.jsonl")).unwrap();
    assert!(routing.lines().count() >= 2 && routing.contains("\"experts\":4"));
}
