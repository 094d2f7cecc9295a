//! Files from a server on this machine.

use std::fs::{self, File};
use std::path::PathBuf;

use super::*;
use crate::loopback::{Fault::*, Server};

const PLACE: &str = "/owner/repo/raw/0123/data.csv";

/// What lies in a folder.
fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn fetch(address: &str, path: &Path) -> Result<()> {
    Web::new().unwrap().fetch(
        &format!("{address}{PLACE}"),
        None,
        path,
        u64::MAX,
        &mut |_| (),
    )
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/data.csv");
    let bytes: Vec<u8> = (0..90_000u32).map(|i| (i % 251) as u8).collect();
    let server = Server::with(&[(PLACE, &bytes)]).fails(PLACE, &[CutAfter(40_000); 3]);
    let address = server.start();
    // Three attempts, each with 40,000 bytes of what is left.
    fetch(&address, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(server.gets(PLACE), 3);
    assert_eq!(server.sent(PLACE), 90_000, "no byte came twice");
}

#[test]
fn what_arrived_is_kept_for_the_next_run_and_never_taken_for_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    let server = Server::with(&[(PLACE, &[7; 5000])]).fails(PLACE, &[CutAfter(1000); 3]);
    let address = server.start();
    let error = fetch(&address, &path).unwrap_err();
    assert!(
        error.to_string().contains("did not arrive whole"),
        "{error}"
    );
    assert!(!path.exists());
    fetch(&address, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [7; 5000]);
    assert_eq!(server.sent(PLACE), 5000);
}

#[test]
fn a_missing_file_a_failing_server_and_a_dead_network_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    let error = fetch(&Server::default().start(), &path).unwrap_err();
    assert!(
        error.to_string().ends_with("is not there (any more)"),
        "{error}"
    );
    let error = fetch("http://127.0.0.1:9", &path).unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    assert!(
        names(dir.path()).is_empty(),
        "nothing came, nothing is left"
    );
    let server = Server::with(&[(PLACE, b"x")]).fails(PLACE, &[Status500, Status500]);
    fetch(&server.start(), &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"x");
}

#[test]
fn no_more_is_taken_than_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    let server = Server::with(&[(PLACE, &[7; 5000])]);
    let address = format!("{}{PLACE}", server.start());
    let web = Web::new().unwrap();
    let error = web.fetch(&address, None, &path, 4999, &mut |_| ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("at most 4999"), "{error}");
    assert!(names(dir.path()).is_empty());
    let silent = server.tells_no_size().start();
    let address = format!("{silent}{PLACE}");
    let error = web.fetch(&address, None, &path, 4999, &mut |_| ());
    assert!(error.unwrap_err().to_string().contains("at most 4999"));
    assert!(names(dir.path()).is_empty());
    web.fetch(&address, None, &path, 5000, &mut |_| ()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [7; 5000]);
}

#[test]
fn a_file_that_changed_while_it_was_fetched_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    let old = Server::with(&[(PLACE, &[1; 5000])]).fails(PLACE, &[CutAfter(1000); 3]);
    fetch(&old.start(), &path).unwrap_err();
    let new = Server::with(&[(PLACE, &[2; 5000])]);
    fetch(&new.start(), &path).unwrap();
    assert!(fs::read(&path).unwrap() == [2; 5000], "of two files one");
    assert_eq!(new.sent(PLACE), 5000);

    // The same from a server that takes `If-Range` for nothing.
    let path = dir.path().join("other.csv");
    let old = Server::with(&[(PLACE, &[1; 5000])]).fails(PLACE, &[CutAfter(1000); 3]);
    fetch(&old.start(), &path).unwrap_err();
    let new = Server::with(&[(PLACE, &[2; 5000])]).ignores_if_range();
    fetch(&new.start(), &path).unwrap();
    assert!(fs::read(&path).unwrap() == [2; 5000], "of two files one");
}

#[test]
fn what_has_no_tag_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    // Left by a program that kept no tag.
    fs::write(dir.path().join("data.csv.part"), [9; 1000]).unwrap();
    let server = Server::with(&[(PLACE, &[7; 5000])]);
    fetch(&server.start(), &path).unwrap();
    assert!(fs::read(&path).unwrap() == [7; 5000]);
    assert_eq!(server.sent(PLACE), 5000);
    assert_eq!(names(dir.path()), [path]);
}

#[test]
fn a_part_that_another_process_writes_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    let part = dir.path().join("data.csv.part");
    fs::write(&part, "theirs").unwrap();
    let theirs = File::open(&part).unwrap();
    theirs.lock().unwrap();
    let server = Server::with(&[(PLACE, &[7; 5000])]).fails(PLACE, &[CutAfter(1000)]);
    let address = server.start();
    fetch(&address, &path).unwrap();
    assert!(fs::read(&path).unwrap() == [7; 5000]);
    assert_eq!(fs::read(&part).unwrap(), b"theirs");
    assert_eq!(names(dir.path()).len(), 2, "nothing of ours is left");

    // One that fails leaves nothing beside theirs either.
    let server = Server::with(&[(PLACE, &[7; 5000])]).fails(PLACE, &[CutAfter(1000); 3]);
    fetch(&server.start(), &dir.path().join("data.csv")).unwrap_err();
    assert_eq!(names(dir.path()).len(), 2);
}

#[test]
fn many_who_fetch_one_file_at_once_all_get_it_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.csv");
    let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let server = Server::with(&[(PLACE, &bytes)]).fails(PLACE, &[CutAfter(70_000); 6]);
    let address = server.start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // Whoever meets three broken transfers asks again, as a person would.
                while fetch(&address, &path).is_err() {}
                assert!(fs::read(&path).unwrap() == bytes);
            });
        }
    });
    assert_eq!(names(dir.path()), [path]);
}

#[test]
fn passwords_and_tokens_in_addresses_are_said_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::new().unwrap();
    let server = Server::with(&[(PLACE, &[7; 5000])]).fails(PLACE, &[CutAfter(10); 3]);
    let there = server.start();
    let (_, host) = there.split_once("://").unwrap();
    let mut told = String::new();
    for address in [
        "http://me:hunter2@127.0.0.1:9/file".to_string(),
        "http://me:hunter2@127.0.0.1:9/file?token=hunter2".to_string(),
        "http://me:hun/hunter2@127.0.0.1:9/file".to_string(),
        format!("http://me:hunter2@{host}/none"),
        format!("http://me:hunter2@{host}{PLACE}"),
        format!("http://hunter2@{host}{PLACE}?key=hunter2"),
    ] {
        let path = dir.path().join("file");
        let mut said = Vec::new();
        let fetched = web.fetch(&address, Some("hunter2"), &path, u64::MAX, &mut |it| {
            said.push(it.what)
        });
        told += &said.concat();
        let asked = web.header(&address, Some("hunter2"), "x-repo-commit");
        let texts = web.text(&address);
        for error in [
            fetched.err(),
            asked.err().map(SourceError::from),
            texts.err().map(SourceError::from),
        ] {
            let Some(error) = error else { continue };
            told += &format!("{error} {} {error:?}\n", error.hint().unwrap_or_default());
        }
    }
    assert!(told.contains("127.0.0.1:9"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}
