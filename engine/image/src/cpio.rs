//! Writes a cpio archive in the "newc" format, the one that the kernel unpacks as its first root.
//!
//! Format: `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel. A crate would
//! be more code than this: what an initramfs needs is one header, two paddings and a trailer. Every
//! field that could differ between two runs (inode, time, owner) is set here and only here.

use std::io::{self, Write};

use crate::tree::{Node, Tree};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// Writes the tree, parents before children, every entry owned by root and stamped `mtime`
/// (seconds since 1970).
/// Fails as the writer does, and with `InvalidInput` for a file of 4 GiB or more, which the format has
/// no room for.
pub(crate) fn write(tree: &Tree, mtime: u32, out: &mut impl Write) -> io::Result<()> {
    // Inodes count up in path order: stable between builds, and never shared, so that nothing is
    // taken for a hard link.
    for (ino, (path, entry)) in (1u32..).zip(tree.iter()) {
        let (kind, data, device) = match &entry.node {
            Node::Directory => (S_IFDIR, &[][..], (0, 0)),
            Node::File(bytes) => (S_IFREG, &bytes[..], (0, 0)),
            Node::Symlink(target) => (S_IFLNK, target.as_bytes(), (0, 0)),
            Node::CharDevice { major, minor } => (S_IFCHR, &[][..], (*major, *minor)),
        };
        let links = if kind == S_IFDIR { 2 } else { 1 };
        let header = Header { ino, mode: kind | entry.mode, links, mtime, device };
        record(out, &header, path, data)?;
    }
    let trailer = Header { ino: 0, mode: 0, links: 1, mtime: 0, device: (0, 0) };
    record(out, &trailer, TRAILER, &[])
}

struct Header {
    ino: u32,
    mode: u32,
    links: u32,
    mtime: u32,
    device: (u32, u32),
}

fn record(out: &mut impl Write, header: &Header, name: &str, data: &[u8]) -> io::Result<()> {
    let too_large =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is too large for cpio"));
    let size = u32::try_from(data.len()).map_err(|_| too_large())?;
    let name_size = u32::try_from(name.len() + 1).map_err(|_| too_large())?;
    let (major, minor) = header.device;
    let fields = [
        header.ino,
        header.mode,
        0, // uid
        0, // gid
        header.links,
        header.mtime,
        size,
        0, // device that holds the archive: major
        0, // … and minor
        major,
        minor,
        name_size,
        0, // checksum: unused in newc
    ];
    out.write_all(MAGIC.as_bytes())?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, MAGIC.len() + fields.len() * 8 + name.len() + 1)?;
    out.write_all(data)?;
    pad(out, data.len())
}

/// Name and data each end on a multiple of four.
fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::tree::Entry;

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, 7, &mut bytes).unwrap();
        bytes
    }

    fn sample() -> Tree {
        let mut tree = Tree::new();
        tree.file("/etc/a", 0o600, b"abc".to_vec(), "test").unwrap();
        let link = Entry { node: Node::Symlink("a".into()), mode: 0o777, why: "test".into() };
        tree.insert("/etc/b", link).unwrap();
        tree.device("/dev/console", 0o600, 5, 1, "test").unwrap();
        tree
    }

    /// GNU cpio is the judge of the format: it reads back names, modes, owners, sizes and links.
    #[test]
    fn another_cpio_reads_it_back() {
        let mut cpio = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive(&sample())).unwrap();
        let out = cpio.wait_with_output().unwrap();
        assert!(out.status.success());
        let listed: Vec<String> = String::from_utf8(out.stdout)
            .unwrap()
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            listed,
            [
                "drwxr-xr-x 2 0 0 0 Jan 1 1970 dev",
                "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
                "drwxr-xr-x 2 0 0 0 Jan 1 1970 etc",
                "-rw------- 1 0 0 3 Jan 1 1970 etc/a",
                "lrwxrwxrwx 1 0 0 1 Jan 1 1970 etc/b -> a",
            ]
        );
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        assert_eq!(archive(&sample()), archive(&sample()));
        assert_eq!(archive(&sample()).len() % 4, 0);
    }
}
