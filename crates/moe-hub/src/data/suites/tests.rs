//! A suite against a server on this machine that stands for the hubs.

use super::*;
use crate::Web;
use crate::cache::Cache;
use crate::loopback::{COMMIT, NEXT, Server};

const RAW: &str = "/o/raw/raw/c0ffee0/d/a.csv";
const MANY: &str = "/o/many/archive/c0ffee0.tar.gz";
/// The server does not look at the part of an address of the Hub before this.
const HUB: &str = "t.txt";

fn origins(address: &str) -> Origins {
    Origins {
        github: address.into(),
        hub: address.into(),
        token: None,
    }
}

/// Twenty texts of two labels, one of them twice.
fn csv() -> String {
    let rows = (0..20).map(|i| format!("{i},\"text {i}, quoted\",{}\n", i % 2));
    format!(
        "id,text,class\n{}20,\"text 3, quoted\",1\n",
        rows.collect::<String>()
    )
}

fn archive(members: &[(&str, &str)]) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(encoder);
    for (path, text) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, format!("repo-c0ffee0/{path}"), text.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A manifest with one task per kind of source, `extra` at its head.
fn manifest(folder: &Path, extra: &str, test_sha256: &str) -> String {
    let split = |task: &str| {
        format!(
            "train = {{ file = \"s/{task}/train.jsonl\", rows = 12 }}\ndev = {{ file = \"s/{task}/dev.jsonl\", rows = 4 }}\n\
             test = {{ file = \"s/{task}/test.jsonl\", rows = 4{test_sha256} }}\nlabels = [\"good\", \"bad\"]\nlicence = \"MIT\"\n"
        )
    };
    let text = format!(
        "suite = \"s\"\nseed = 3\n{extra}\
         [[tasks]]\nname = \"raw\"\nsource = \"https://github.com/o/raw\"\ncommit = \"c0ffee0\"\nfiles = [\"d/a.csv\"]\n\
         read = {{ format = \"csv\", text = \"text\", label = \"class\", labels = {{ 0 = \"good\", 1 = \"bad\" }} }}\n{}\
         [[tasks]]\nname = \"many\"\nsource = \"https://github.com/o/many\"\ncommit = \"c0ffee0\"\nfiles = [\"index.csv\", \"all/*.txt\"]\n\
         read = {{ format = \"csv\", text_file = \"all/{{id}}.txt\", label = \"class\" }}\n{}\
         [[tasks]]\nname = \"hub\"\nsource = \"hf:datasets/o/hub\"\ncommit = \"main\"\nfiles = [\"t.txt\"]\nread = {{ format = \"lines\" }}\n{}",
        split("raw"),
        split("many"),
        split("hub")
    );
    let path = folder.join("own.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn hubs() -> Server {
    let many = archive(&[
        ("index.csv", "id,class\n1,good\n2,bad\n3,idk/skip\n"),
        ("all/1.txt", "one"),
        ("all/2.txt", "two"),
        ("all/3.txt", "three"),
        ("other/4.txt", "four"),
    ]);
    Server::with(&[
        (RAW, csv().as_bytes()),
        (MANY, &many),
        (HUB, b"first\tgood\nsecond\tbad\n"),
    ])
}

/// The error and its way out.
fn told(error: &SourceError) -> String {
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

fn make_all(
    name: &str,
    root: &Path,
    cache: &Cache,
    address: &str,
    resample: bool,
) -> Vec<Result<Made>> {
    let manifest = Manifest::open(name).unwrap();
    let web = Web::new().unwrap();
    let origins = origins(address);
    let sources = Sources::new(&origins, cache, &web);
    let make = |task| make(&manifest, task, root, resample, &sources, &mut |_| ());
    manifest.tasks.iter().map(make).collect()
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(String::from).collect()
}

#[test]
fn every_kind_of_source_is_fetched_once_and_split_by_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("data"), Cache::at(dir.path().join("cache")));
    let server = hubs();
    let address = server.start();
    let name = manifest(dir.path(), "", "");
    for made in make_all(&name, &root, &cache, &address, false) {
        assert_eq!(made.unwrap().provenance, Provenance::ByRule);
    }
    let splits: Vec<Vec<String>> = ["test", "dev", "train"]
        .map(|split| lines(&root.join(format!("s/raw/{split}.jsonl"))))
        .into();
    assert_eq!(splits.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 12]);
    let mut all = splits.concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20, "every text once, in one split");
    assert!(all.contains(&r#"{"text": "text 7, quoted", "label": "bad"}"#.to_string()));
    assert_eq!(
        lines(&root.join("s/many/test.jsonl")).len(),
        2,
        "the third label is no label"
    );

    // The same again, of what is in the cache; the hub is gone.
    let again = dir.path().join("again");
    make_all(&name, &again, &cache, "http://127.0.0.1:9", false)
        .into_iter()
        .for_each(|made| drop(made.unwrap()));
    assert_eq!([RAW, MANY, HUB].map(|file| server.gets(file)), [1; 3]);
    let path = "s/raw/train.jsonl";
    assert_eq!(lines(&root.join(path)), lines(&again.join(path)));
}

#[test]
fn rows_named_by_hash_give_the_same_bytes_and_others_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache"));
    let address = hubs().start();
    let line = |i: usize| {
        let label = ["good", "bad"][i % 2];
        format!(r#"{{"text": "text {i}, quoted", "label": "{label}"}}"#)
    };
    let hash = |i| sha256(line(i).as_bytes())[..10].to_string();
    let rows = |train: &str| {
        let raw = format!(
            "[raw]\ntrain = \"{train}\"\ndev = \"{}\"\ntest = \"{} {}\"\n",
            hash(5),
            hash(9),
            hash(2)
        );
        fs::write(dir.path().join("own.rows.toml"), raw).unwrap();
    };
    rows(&hash(11));
    let sha256 = sha256(format!("{}\n{}\n", line(9), line(2)).as_bytes());
    let name = manifest(
        dir.path(),
        "rows = \"own.rows.toml\"\n",
        &format!(", sha256 = \"{sha256}\""),
    );
    let root = dir.path().join("data");
    // Train and dev have no hash in this manifest, so that they are not known to be the same.
    let made = make_all(&name, &root, &cache, &address, false)
        .remove(0)
        .unwrap();
    assert_eq!(
        (made.provenance, made.rows),
        (Provenance::Differ, [1, 1, 2])
    );
    assert!(made.to_string().contains("DIFFERS"), "{made}");
    assert_eq!(lines(&root.join("s/raw/test.jsonl")), [line(9), line(2)]);

    rows("0123456789");
    let error = make_all(&name, &root, &cache, &address, false)
        .remove(0)
        .unwrap_err();
    let text = told(&error);
    assert!(
        text.contains("1 of the 1 rows of raw/train are not in its source"),
        "{text}"
    );
    assert!(text.contains("--resample"), "{text}");
    let made = make_all(&name, &root, &cache, &address, true)
        .remove(0)
        .unwrap();
    assert_eq!(made.provenance, Provenance::ByRule);
    assert!(made.to_string().contains("NOT the files"), "{made}");
}

#[test]
fn a_source_that_cannot_be_had_says_what_to_put_where() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("data"), Cache::at(dir.path().join("cache")));
    let name = manifest(dir.path(), "", "");
    let mut made = make_all(&name, &root, &cache, "http://127.0.0.1:9", false);
    let text = told(&made.remove(0).unwrap_err());
    let place = cache.downloads().join("github/o/raw/c0ffee0/d/a.csv");
    assert!(text.contains("no source for raw"), "{text}");
    assert!(
        text.contains("http://127.0.0.1:9/o/raw/raw/c0ffee0/d/a.csv"),
        "{text}"
    );
    assert!(text.contains(&place.display().to_string()), "{text}");

    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, csv()).unwrap();
    let made = make_all(&name, &root, &cache, "http://127.0.0.1:9", false).remove(0);
    assert_eq!(made.unwrap().rows, [12, 4, 4]);
}

/// A manifest of one task, of two files.
fn two_files(folder: &Path, source: &str, branch: &str) -> String {
    let split = |name: &str| format!("{name} = {{ file = \"s/two/{name}.jsonl\", rows = 2 }}\n");
    let text = format!(
        "suite = \"s\"\n[[tasks]]\nname = \"two\"\nsource = \"{source}\"\ncommit = \"{branch}\"\nfiles = [\"a.txt\", \"b.txt\"]\n\
         read = {{ format = \"lines\" }}\nlabels = [\"old\", \"new\"]\nlicence = \"MIT\"\n{}",
        ["train", "dev", "test"].map(split).concat()
    );
    let path = folder.join("two.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// The labels of all lines that were made, each once.
fn labels(root: &Path) -> Vec<&'static str> {
    let all: String = ["train", "dev", "test"]
        .map(|split| fs::read_to_string(root.join(format!("s/two/{split}.jsonl"))).unwrap())
        .concat();
    let is_there = |label: &&str| all.contains(&format!("\"label\": \"{label}\""));
    ["old", "new"].into_iter().filter(is_there).collect()
}

#[test]
fn a_branch_that_moves_while_it_is_fetched_gives_one_version_and_stays_usable_offline() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache"));
    let old: [(&str, &[u8]); 2] = [("a.txt", b"one\told\n"), ("b.txt", b"two\told\n")];
    let new: [(&str, &[u8]); 2] = [("a.txt", b"one\tnew\n"), ("b.txt", b"two\tnew\n")];
    let name = two_files(dir.path(), "hf:datasets/o/two", "refs/pr/1");
    let make = |root: &str, address: &str| {
        let root = dir.path().join(root);
        let made = make_all(&name, &root, &cache, address, false).remove(0);
        made.map(|_| labels(&root))
    };
    // It moves right after it was asked for first.
    let server = Server::with(&old).moves(1, &new);
    assert_eq!(make("first", &server.start()).unwrap(), ["old"]);
    let kept = cache.downloads().join("hf/o/two/refs/refs/pr/1");
    assert_eq!(fs::read_to_string(&kept).unwrap(), COMMIT);
    assert_eq!(make("offline", "http://127.0.0.1:9").unwrap(), ["old"]);
    // The next fetch asks again.
    let moved = Server::with(&old).moves(0, &new).start();
    assert_eq!(make("second", &moved).unwrap(), ["new"]);
    assert_eq!(fs::read_to_string(&kept).unwrap(), NEXT);
    assert_eq!(
        make("offline again", "http://127.0.0.1:9").unwrap(),
        ["new"]
    );
    let error = make("gone", &Server::default().start()).unwrap_err();
    assert!(told(&error).contains("no source for two"), "{error}");
}

#[test]
fn a_branch_of_github_is_the_commit_that_git_says() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache"));
    let packet = |line: String| format!("{:04x}{line}", line.len() + 4);
    let refs = packet(format!("{COMMIT} refs/heads/main\n")) + "0000";
    let file = |name: &str| format!("/o/two/raw/{COMMIT}/{name}");
    // No address with the branch's name is served.
    let server = Server::with(&[
        (
            "/o/two.git/info/refs?service=git-upload-pack",
            refs.as_bytes(),
        ),
        (&file("a.txt"), b"one\told\n"),
        (&file("b.txt"), b"two\told\n"),
    ]);
    let address = server.start();
    let root = dir.path().join("data");
    let name = two_files(dir.path(), "https://github.com/o/two", "main");
    make_all(&name, &root, &cache, &address, false)
        .remove(0)
        .unwrap();
    assert_eq!(labels(&root), ["old"]);
    let again = dir.path().join("again");
    make_all(&name, &again, &cache, "http://127.0.0.1:9", false)
        .remove(0)
        .unwrap();

    let name = two_files(dir.path(), "https://github.com/o/two", "mian");
    let made = make_all(&name, &root, &cache, &address, false).remove(0);
    let text = told(&made.unwrap_err());
    assert!(text.contains("no branch or tag \"mian\""), "{text}");
}

#[test]
fn files_of_a_branch_that_were_put_there_by_hand_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache"));
    let root = dir.path().join("data");
    let name = two_files(dir.path(), "hf:datasets/o/two", "main");
    let make = || make_all(&name, &root, &cache, "http://127.0.0.1:9", false).remove(0);
    let place = cache.downloads().join("hf/o/two/main");
    let text = told(&make().unwrap_err());
    assert!(
        text.contains(&place.join("a.txt").display().to_string()),
        "{text}"
    );
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("a.txt"), "one\told\n").unwrap();
    fs::write(place.join("b.txt"), "two\told\n").unwrap();
    make().unwrap();
    assert_eq!(labels(&root), ["old"]);
}
