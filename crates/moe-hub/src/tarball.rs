//! Files out of a `.tar.gz` from elsewhere, in which no size that it names is believed.

use std::collections::BTreeMap;
use std::io::{self, Read};

use flate2::read::GzDecoder;
use tar::{Archive, Entry, PaxExtensions};

/// An archive that unpacks to more is not one that we look for.
const MAX_UNPACKED: u64 = 2 << 30;
/// A path, or what else an archive says of the file after it, is not longer.
const MAX_NAME: u64 = 1 << 20;

/// The files whose path in the archive `wanted` takes, by their path (`/` between its parts).
///
/// # Errors
/// When it cannot be read, holds more than `at_most` bytes that are wanted, or unpacks to more than 2 GB, or names are longer than 1 MB.
pub fn files(
    archive: impl Read,
    at_most: u64,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = Archive::new(Bounded {
        inner: GzDecoder::new(archive),
        left: MAX_UNPACKED,
    });
    let mut files = BTreeMap::new();
    let (mut left, mut long) = (at_most, None);
    // Raw: long names are entries of their own, which the library would read whatever their size.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            let name = said(&mut entry)?;
            let name = name.strip_suffix(&[0]).unwrap_or(&name);
            long = Some(String::from_utf8_lossy(name).into_owned());
            continue;
        }
        if kind.is_pax_local_extensions() {
            let said = said(&mut entry)?;
            let paths = PaxExtensions::new(&said).flatten();
            let mut paths = paths.filter(|it| it.key() == Ok("path"));
            long = paths
                .find_map(|it| it.value().ok().map(str::to_owned))
                .or(long);
            continue;
        }
        let name = match long.take() {
            Some(long) => long,
            None => entry.path()?.to_string_lossy().into_owned(),
        };
        let name = name.replace('\\', "/");
        if !kind.is_file() || !wanted(&name) {
            continue;
        }
        let mut bytes = Vec::new();
        entry.take(left.saturating_add(1)).read_to_end(&mut bytes)?;
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other(format!("it holds more than {at_most} bytes")))?;
        files.insert(name, bytes);
    }
    Ok(files)
}

/// The content of an entry that speaks of the next.
fn said(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    entry.take(MAX_NAME + 1).read_to_end(&mut said)?;
    match said.len() as u64 > MAX_NAME {
        true => Err(io::Error::other(format!(
            "it has a name of more than {MAX_NAME} bytes"
        ))),
        false => Ok(said),
    }
}

/// Fails once more has come than may.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than {MAX_UNPACKED} bytes"))
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, EntryType, Header};

    use super::*;

    fn packed(fill: impl FnOnce(&mut Builder<GzEncoder<Vec<u8>>>)) -> Vec<u8> {
        let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        fill(&mut tar);
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_path("x").unwrap();
        header.set_cksum();
        header
    }

    #[test]
    fn names_of_every_kind_are_read_and_only_files_are_taken() {
        let long = format!("repo/{}/file", "d".repeat(150));
        let pax = format!("repo/{}/pax", "e".repeat(300));
        let archive = packed(|tar| {
            let mut file = header(EntryType::Regular, 3);
            tar.append_data(&mut file, "repo/short", &b"one"[..])
                .unwrap();
            tar.append_data(&mut file, &long, &b"two"[..]).unwrap();
            tar.append_pax_extensions([("path", pax.as_bytes())])
                .unwrap();
            tar.append(&file, &b"six"[..]).unwrap();
            let mut folder = header(EntryType::Directory, 0);
            tar.append_data(&mut folder, "repo/folder", io::empty())
                .unwrap();
            let mut link = header(EntryType::Symlink, 0);
            tar.append_link(&mut link, "repo/link", "/etc/passwd")
                .unwrap();
        });
        let found = files(archive.as_slice(), 9, |_| true).unwrap();
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, [long.as_str(), &pax, "repo/short"]);
        assert_eq!(found[&pax], b"six");
        let error = files(archive.as_slice(), 8, |_| true).unwrap_err();
        assert!(error.to_string().contains("more than 8 bytes"), "{error}");
        let some = files(archive.as_slice(), 3, |name| name.ends_with("short"));
        assert_eq!(some.unwrap().len(), 1);
    }

    #[test]
    fn a_name_that_never_ends_is_refused_at_once() {
        for kind in [EntryType::GNULongName, EntryType::XHeader] {
            let size = 4 << 30;
            let archive = packed(|tar| {
                // As much of it as the test has time for: the size is a promise.
                let name = io::repeat(b'a').take(3 << 20);
                tar.get_mut()
                    .write_all(header(kind, size).as_bytes())
                    .unwrap();
                io::copy(&mut { name }, tar.get_mut()).unwrap();
            });
            let error = files(archive.as_slice(), 1, |_| true).unwrap_err();
            assert!(error.to_string().contains("a name of more"), "{error}");
        }
    }
}
