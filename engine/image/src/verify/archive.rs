//! Reads the initramfs itself: what the kernel would unpack, and nothing that a manifest says of it.
//!
//! The archive is read once from front to back, and of each file only what the checks ask is kept (its digest, what its loader
//! reads, a few texts): memory is that of the largest file. What comes in is not trusted: sizes are bounded, and nothing is
//! allocated before it was really there.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::content::Content;
pub(super) use crate::manifest::hex;

/// The largest file of an initramfs that is read, and the most that all of it may unpack to. A node holds it in memory.
const LARGEST_FILE: u64 = 1 << 30;
const LARGEST: u64 = 8 << 30;
/// The most entries that are read, and the most text of etc/keel that is kept: many times what a node has.
const MOST_ENTRIES: usize = 1_000_000;
const MOST_TEXT: usize = 64 << 20;
/// PATH_MAX of Linux.
const LONGEST_NAME: usize = 4096;
/// Most links that are followed for one path; Linux gives up after as many.
const MOST_LINKS: usize = 40;

/// An archive that cannot be read as the kernel reads it.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// Neither format.
    #[error("it is neither a zstd stream nor a cpio archive")]
    NotAnArchive,
    /// It cannot be read on.
    #[error("it ends, or is damaged, after {at} bytes unpacked")]
    Read {
        /// How far it was good.
        at: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// An entry's header is none.
    #[error("what stands {at} bytes into the unpacked archive is no entry of a newc archive")]
    Header {
        /// Where.
        at: u64,
    },
    /// An entry is larger than any that is read.
    #[error("{name} has {size} bytes, more than the {LARGEST_FILE} that are read")]
    LargeFile {
        /// The entry.
        name: String,
        /// What its header says.
        size: u64,
    },
    /// The whole is larger than any that is read.
    #[error("it unpacks to more than {LARGEST} bytes")]
    Large,
    /// There are more entries than any image has.
    #[error("it has more than {MOST_ENTRIES} entries")]
    ManyEntries,
    /// Units and config are larger than any that are read.
    #[error("what it has in etc/keel is more than {MOST_TEXT} bytes")]
    LargeText,
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct File {
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Directory,
    Regular {
        size: u64,
        sha256: String,
        content: Content,
    },
    Symlink(String),
    /// A device node, FIFO or socket.
    Special,
}

/// What is unpacked, by path without the leading slash.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Files {
    entries: BTreeMap<String, File>,
    /// Bytes of the archive before compression.
    pub(super) unpacked: u64,
}

impl Files {
    /// Reads an archive, packed with zstd or not.
    pub(super) fn read(packed: impl Read) -> Result<Self, ArchiveError> {
        let mut packed = BufReader::new(packed);
        let first =
            first_bytes(&mut packed).map_err(|source| ArchiveError::Read { at: 0, source })?;
        let whole = io::Cursor::new(first.clone()).chain(packed);
        match first.as_slice() {
            b"0707" => Archive::new(whole).unpack(),
            b"\x28\xb5\x2f\xfd" => {
                let unpacked = zstd::Decoder::new(whole)
                    .map_err(|source| ArchiveError::Read { at: 0, source })?;
                Archive::new(BufReader::new(unpacked)).unpack()
            }
            _ => Err(ArchiveError::NotAnArchive),
        }
    }

    /// Puts a file where a test wants one.
    #[cfg(test)]
    pub(super) fn put(&mut self, path: &str, file: File) {
        self.entries.insert(path.to_owned(), file);
    }

    /// What is at exactly that path, links not followed.
    pub(super) fn at(&self, path: &str) -> Option<&File> {
        self.entries.get(path.trim_start_matches('/'))
    }

    /// What a program finds at an absolute path, links followed, and the path where it really lies.
    pub(super) fn resolve(&self, path: &str) -> Option<(String, &File)> {
        let mut ahead: Vec<String> = parts(path).rev().collect();
        let mut place: Vec<String> = Vec::new();
        let mut links = 0;
        let mut found = None;
        while let Some(part) = ahead.pop() {
            if part == ".." {
                place.pop();
                continue;
            }
            place.push(part);
            let name = place.join("/");
            let file = self.entries.get(&name)?;
            match &file.kind {
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    match target.starts_with('/') {
                        true => place.clear(),
                        false => drop(place.pop()),
                    }
                    ahead.extend(parts(target).rev());
                    found = None;
                }
                Kind::Directory => found = Some((name, file)),
                _ if ahead.is_empty() => found = Some((name, file)),
                _ => return None,
            }
        }
        found.map(|(name, file)| (format!("/{name}"), file))
    }

    /// The text of a file that is kept whole.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        match &self.resolve(path)?.1.kind {
            Kind::Regular { content: Content::Text(text), .. } => Some(text),
            _ => None,
        }
    }

    /// Every entry with its absolute path.
    pub(super) fn iter(&self) -> impl Iterator<Item = (String, &File)> {
        self.entries.iter().map(|(path, file)| (format!("/{path}"), file))
    }

    /// The names of the entries of a directory.
    pub(super) fn names_in(&self, directory: &str) -> Vec<&str> {
        let Some((place, _)) = self.resolve(directory) else { return Vec::new() };
        let prefix = format!("{}/", place.trim_start_matches('/'));
        let below = self.entries.range(prefix.clone()..).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(&prefix));
        below.map(|path| &path[prefix.len()..]).filter(|name| !name.contains('/')).collect()
    }
}

/// The parts of a path that lead anywhere.
fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned)
}

fn first_bytes(packed: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    packed.take(4).read_to_end(&mut first)?;
    Ok(first)
}

/// `newc` and its twin with checksums, which nobody checks.
const MAGICS: [&[u8]; 2] = [b"070701", b"070702"];
/// Magic and thirteen numbers of eight hexadecimal digits.
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";

/// File types of `st_mode`.
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

struct Archive<R> {
    reader: R,
    at: u64,
}

impl<R: Read> Archive<R> {
    fn new(reader: R) -> Self {
        Self { reader, at: 0 }
    }

    fn unpack(mut self) -> Result<Files, ArchiveError> {
        let mut files = Files::default();
        let (mut entries, mut text) = (0, 0);
        // The kernel reads one archive after the other, with NULs between them.
        while let Some(header) = self.header()? {
            entries += 1;
            if entries > MOST_ENTRIES {
                return Err(ArchiveError::ManyEntries);
            }
            let (name, mode, size) = self.entry_head(&header)?;
            if size > LARGEST_FILE {
                return Err(ArchiveError::LargeFile { name, size });
            }
            let data = self.take(size as usize)?;
            self.pad()?;
            if self.at > LARGEST {
                return Err(ArchiveError::Large);
            }
            let name = parts(&name).collect::<Vec<_>>().join("/");
            if name == TRAILER || name.is_empty() {
                continue;
            }
            let kind = match mode & TYPE {
                DIRECTORY => Kind::Directory,
                SYMLINK => Kind::Symlink(String::from_utf8_lossy(&data).into_owned()),
                REGULAR => Kind::Regular {
                    size,
                    sha256: hex(&Sha256::digest(&data)),
                    content: Content::of(&name, &data),
                },
                _ => Kind::Special,
            };
            if let Kind::Regular { content: Content::Text(kept), .. } = &kind
                && name.starts_with("etc/keel/")
            {
                // What is no UTF-8 grows when it is kept.
                text += kept.len();
                if text > MOST_TEXT {
                    return Err(ArchiveError::LargeText);
                }
            }
            files.entries.insert(name, File { mode: mode & 0o7777, kind });
        }
        files.unpacked = self.at;
        Ok(files)
    }

    /// The next entry's header; none at the end.
    fn header(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        loop {
            let start = self.take_some(4)?;
            if start.is_empty() {
                return Ok(None);
            }
            if start.iter().all(|byte| *byte == 0) {
                continue;
            }
            let at = self.at - start.len() as u64;
            let mut header = start;
            header.extend(self.take(HEADER - header.len())?);
            if !MAGICS.iter().any(|magic| header.starts_with(magic)) {
                return Err(ArchiveError::Header { at });
            }
            return Ok(Some(header));
        }
    }

    /// Name, mode and size.
    fn entry_head(&mut self, header: &[u8]) -> Result<(String, u32, u64), ArchiveError> {
        let bad = ArchiveError::Header { at: self.at - HEADER as u64 };
        let field = |n: usize| {
            let digits = str::from_utf8(header.get(6 + n * 8..14 + n * 8)?).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let (Some(mode), Some(size), Some(name_size)) = (field(1), field(6), field(11)) else {
            return Err(bad);
        };
        if name_size == 0 || name_size as usize > LONGEST_NAME {
            return Err(bad);
        }
        let name = self.take(name_size as usize)?;
        self.pad()?;
        let name = String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(&name)).into_owned();
        let upwards = parts(&name).any(|part| part == "..");
        if upwards { Err(bad) } else { Ok((name, mode, size.into())) }
    }

    fn pad(&mut self) -> Result<(), ArchiveError> {
        let padding = self.at.next_multiple_of(4) - self.at;
        self.take(padding as usize).map(drop)
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let taken = self.take_some(length)?;
        if taken.len() == length {
            return Ok(taken);
        }
        let source = io::ErrorKind::UnexpectedEof.into();
        Err(ArchiveError::Read { at: self.at, source })
    }

    /// As many bytes as there are, up to a length.
    fn take_some(&mut self, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut taken = Vec::new();
        let read = self.reader.by_ref().take(length as u64).read_to_end(&mut taken);
        self.at += taken.len() as u64;
        read.map_err(|source| ArchiveError::Read { at: self.at, source })?;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio;
    use crate::testing::chain;
    use crate::tree::{Entry, Node, Tree};

    fn packed(links: &[(&str, &str)]) -> Vec<u8> {
        let mut tree = Tree::merged().unwrap();
        tree.file("/bin/a", 0o755, b"abc".to_vec(), "test").unwrap();
        tree.device("/dev/null", 0o666, 1, 3, "test").unwrap();
        for (path, target) in links {
            let node = Node::Symlink((*target).to_owned());
            tree.insert(path, Entry { node, mode: 0o777, why: "test".into() }).unwrap();
        }
        let mut archive = Vec::new();
        cpio::write(&tree, 0, &mut archive).unwrap();
        archive
    }

    #[test]
    fn what_was_written_is_read_back_packed_or_not() {
        let archive = packed(&[]);
        let plain = Files::read(archive.as_slice()).unwrap();
        let zstd = Files::read(&*zstd::bulk::compress(&archive, 3).unwrap()).unwrap();
        assert_eq!(plain, zstd);
        assert_eq!(plain.unpacked, archive.len() as u64);
        let file = plain.at("/usr/bin/a").unwrap();
        assert_eq!(file.mode, 0o755);
        let Kind::Regular { size, sha256, .. } = &file.kind else { panic!("{file:?}") };
        assert_eq!((*size, &sha256[..8]), (3, "ba7816bf"));
        assert_eq!(plain.at("/dev/null").unwrap().kind, Kind::Special);
        assert_eq!(plain.names_in("/sbin"), ["a"]);
    }

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        let files = Files::read(&*packed(&[
            ("/usr/bin/b", "a"),
            ("/etc/abs", "/sbin/b"),
            ("/etc/up", "../usr/../bin"),
            ("/etc/round", "round"),
            ("/etc/gone", "nothing"),
        ]))
        .unwrap();
        let check = |path: &str, expect: Option<&str>| {
            let found = files.resolve(path).map(|(path, _)| path);
            assert_eq!(found.as_deref(), expect, "{path}");
        };
        check("/bin/a", Some("/usr/bin/a"));
        check("/lib64", Some("/usr/lib"));
        check("/etc/abs", Some("/usr/bin/a"));
        check("/etc/up/a", Some("/usr/bin/a"));
        check("/bin/a/b", None);
        check("/etc/round", None);
        check("/etc/gone", None);
        check("/nowhere", None);
    }

    #[test]
    fn archives_may_follow_each_other() {
        let mut two = packed(&[]);
        two.extend([0; 512]);
        two.extend(packed(&[("/etc/late", "x")]));
        assert!(Files::read(&*two).unwrap().at("/etc/late").is_some());
    }

    #[test]
    fn damage_is_named() {
        let archive = packed(&[]);
        let check = |bytes: &[u8], expect: &str| {
            let error = Files::read(bytes).unwrap_err();
            let said = chain(&error);
            assert!(said.starts_with(expect), "{said}\nis not\n{expect}");
        };
        check(b"", "it is neither a zstd stream nor a cpio archive");
        check(b"\x1f\x8b\x08\x00", "it is neither a zstd stream nor a cpio archive");
        check(&archive[..300], "it ends, or is damaged, after 300 bytes unpacked");
        let packed = zstd::bulk::compress(&archive, 3).unwrap();
        check(&packed[..packed.len() / 2], "it ends, or is damaged, after");
        let mut other = archive.clone();
        other[..6].copy_from_slice(b"070707");
        check(&other, "what stands 0 bytes into the unpacked archive is no entry");
        let mut huge = archive.clone();
        huge[54..62].copy_from_slice(b"ffffffff");
        check(&huge, "bin has 4294967295 bytes, more than");
    }

    /// An entry as it stands in an archive.
    fn entry(name: &str, data: &[u8]) -> Vec<u8> {
        let mut entry = b"070701".to_vec();
        for n in 0..13 {
            let value = match n {
                1 => 0o100_644,
                6 => data.len(),
                11 => name.len() + 1,
                _ => 0,
            };
            entry.extend(format!("{value:08x}").as_bytes());
        }
        entry.extend(name.as_bytes());
        entry.push(0);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry.extend(data);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry
    }

    /// The same entry so often.
    fn repeated(entry: Vec<u8>, count: u64) -> impl Read {
        let length = entry.len() as u64;
        let mut entry = entry.into_iter().cycle();
        let endless = std::iter::repeat_with(move || entry.next().unwrap_or_default());
        struct Bytes<I>(I);
        impl<I: Iterator<Item = u8>> Read for Bytes<I> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill_with(|| self.0.next().unwrap_or_default());
                Ok(buffer.len())
            }
        }
        Bytes(endless).take(length * count)
    }

    #[test]
    fn what_is_kept_has_bounds() {
        let refused = |from: &mut dyn Read, expect: &str| {
            let said = Files::read(from).unwrap_err().to_string();
            assert_eq!(said, expect);
        };
        let many = repeated(entry("a", b""), MOST_ENTRIES as u64 + 1);
        refused(&mut { many }, "it has more than 1000000 entries");
        let text = entry("etc/keel/units/a.toml", &vec![b'#'; 13 << 20]);
        assert!(Files::read(&*text.repeat(4)).is_ok());
        refused(&mut &*text.repeat(5), "what it has in etc/keel is more than 67108864 bytes");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..2000, byte: u8, cut in 0usize..4000) {
            let mut archive = packed(&[("/etc/l", "/bin/a")]);
            let length = archive.len();
            archive[at % length] = byte;
            archive.truncate(cut.min(length));
            if let Ok(files) = Files::read(&*archive) {
                files.resolve("/etc/l");
            }
        }
    }
}
