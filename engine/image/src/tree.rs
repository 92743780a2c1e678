//! The file tree of an image, held in memory: what is hashed is what is written, and no root is
//! needed to give a file an owner or to make a device node.

use std::collections::BTreeMap;
use std::collections::btree_map;

use thiserror::Error;

/// One entry's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory.
    Directory,
    /// A regular file with its bytes.
    File(Vec<u8>),
    /// A symbolic link with its target, as it is written.
    Symlink(String),
    /// A character device node.
    CharDevice {
        /// The driver's number.
        major: u32,
        /// The device's number within the driver.
        minor: u32,
    },
}

/// One entry: what it is, its permission bits and why it is in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Content.
    pub(crate) node: Node,
    /// Permission bits, without the file type.
    pub(crate) mode: u32,
    /// Why it is here, in a person's words: it goes into the manifest and into clash errors.
    pub(crate) why: String,
}

/// An image's files by path, without a leading slash, parents before children.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<String, Entry>,
}

/// A path that cannot be put into the tree.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("cannot put {path} into the image ({why})")]
pub struct TreeError {
    /// The path that was asked for.
    pub path: String,
    /// Who asked for it.
    pub(crate) why: String,
    /// What is wrong with it.
    #[source]
    pub kind: TreeErrorKind,
}

/// What is wrong with a path.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TreeErrorKind {
    /// Not absolute, or with an empty, `.` or `..` component, or a NUL.
    #[error("it must be absolute, without `.`, `..`, empty parts or NUL")]
    BadPath,
    /// Something else is already there.
    #[error("a different one is there already ({0})")]
    Taken(String),
    /// A parent is there, but is no directory.
    #[error("its parent /{0} is not a directory")]
    ParentNotDirectory(String),
}

/// Directories that are one with another, as on every distribution of today ("merged /usr"). The
/// one place for libraries, `/usr/lib`, is in the built-in search path of each distribution's
/// loader under one of these names, so no ld.so.cache is needed.
const MERGED: [(&str, &str); 7] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("usr/sbin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib"),
    ("usr/lib64", "usr/lib"),
    ("var/run", "run"),
];

impl Tree {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A tree that holds the merged directories and the links to them.
    pub(crate) fn merged() -> Result<Self, TreeError> {
        let mut tree = Self::new();
        for (link, target) in MERGED {
            tree.directory(&format!("/{target}"), 0o755, "layout")?;
            let up = "../".repeat(link.matches('/').count());
            // Not through `insert`: that would follow the very link being made.
            let entry = Entry {
                node: Node::Symlink(format!("{up}{target}")),
                mode: 0o777,
                why: "layout".into(),
            };
            tree.parents(link, "layout")?;
            tree.entries.insert(link.to_owned(), entry);
        }
        Ok(tree)
    }

    /// Adds a directory; one that exists takes the mode given now.
    pub(crate) fn directory(&mut self, path: &str, mode: u32, why: &str) -> Result<(), TreeError> {
        self.insert(path, Entry { node: Node::Directory, mode, why: why.into() })
    }

    /// Adds a file.
    pub(crate) fn file(
        &mut self,
        path: &str,
        mode: u32,
        bytes: Vec<u8>,
        why: &str,
    ) -> Result<(), TreeError> {
        self.insert(path, Entry { node: Node::File(bytes), mode, why: why.into() })
    }

    /// Adds a character device node.
    pub(crate) fn device(
        &mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
        why: &str,
    ) -> Result<(), TreeError> {
        self.insert(path, Entry { node: Node::CharDevice { major, minor }, mode, why: why.into() })
    }

    /// Adds an entry and the directories above it. The same content twice is one entry; a
    /// different one under the same path is an error, never a silent choice.
    pub(crate) fn insert(&mut self, path: &str, entry: Entry) -> Result<(), TreeError> {
        let error =
            |kind, entry: &Entry| TreeError { path: path.to_owned(), why: entry.why.clone(), kind };
        let Some(place) = place(path) else { return Err(error(TreeErrorKind::BadPath, &entry)) };
        self.parents(&place, &entry.why)?;
        match self.entries.entry(place) {
            btree_map::Entry::Vacant(free) => {
                free.insert(entry);
            }
            btree_map::Entry::Occupied(mut there) => match (&there.get().node, &entry.node) {
                (Node::Directory, Node::Directory) => there.get_mut().mode = entry.mode,
                (old, new) if old == new => {}
                _ => return Err(error(TreeErrorKind::Taken(there.get().why.clone()), &entry)),
            },
        }
        Ok(())
    }

    /// Whether something is at that path.
    pub(crate) fn holds(&self, path: &str) -> bool {
        place(path).is_some_and(|place| self.entries.contains_key(&place))
    }

    /// Every entry with its path (no leading slash), parents first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    fn parents(&mut self, place: &str, why: &str) -> Result<(), TreeError> {
        for (end, _) in place.match_indices('/') {
            let parent = &place[..end];
            let entry = self.entries.entry(parent.to_owned()).or_insert_with(|| Entry {
                node: Node::Directory,
                mode: 0o755,
                why: why.to_owned(),
            });
            if entry.node != Node::Directory {
                let kind = TreeErrorKind::ParentNotDirectory(parent.to_owned());
                return Err(TreeError { path: format!("/{place}"), why: why.to_owned(), kind });
            }
        }
        Ok(())
    }
}

/// A path of the image without a link in it; a bad one as it is.
pub(crate) fn real_path(path: &str) -> String {
    place(path).map_or_else(|| path.to_owned(), |place| format!("/{place}"))
}

/// Where a path really lies once the merged directories are followed; nothing for a bad path.
fn place(path: &str) -> Option<String> {
    let path = path.strip_prefix('/')?;
    if path.contains('\0') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    for (link, target) in MERGED {
        if let Some(rest) = path.strip_prefix(link)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return Some(format!("{target}{rest}"));
        }
    }
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::chain;

    #[test]
    fn paths_land_where_the_merged_directories_lead() {
        let check =
            |path: &str, expect: Option<&str>| assert_eq!(place(path).as_deref(), expect, "{path}");
        check("/sbin/mkfs.ext4", Some("usr/bin/mkfs.ext4"));
        check("/usr/sbin/runc", Some("usr/bin/runc"));
        check("/lib64/ld-linux-x86-64.so.2", Some("usr/lib/ld-linux-x86-64.so.2"));
        check("/usr/lib/modules/6/x.ko", Some("usr/lib/modules/6/x.ko"));
        check("/library", Some("library"));
        check("/var/run/x", Some("run/x"));
        check("/bin", Some("usr/bin"));
        check("etc/x", None);
        check("/etc/../x", None);
        check("/etc//x", None);
        check("/etc/x/", None);
        check("/./x", None);
        check("/a\0b", None);
        check("/", None);
    }

    #[test]
    fn links_to_merged_directories_are_relative() {
        let tree = Tree::merged().unwrap();
        let link = |path: &str| tree.entries.get(path).map(|e| e.node.clone());
        assert_eq!(link("bin"), Some(Node::Symlink("usr/bin".into())));
        assert_eq!(link("usr/sbin"), Some(Node::Symlink("../usr/bin".into())));
        assert_eq!(link("usr/lib"), Some(Node::Directory));
    }

    #[test]
    fn a_clash_is_an_error_and_the_same_twice_is_not() {
        let mut tree = Tree::merged().unwrap();
        tree.file("/bin/a", 0o755, b"1".to_vec(), "payload a").unwrap();
        tree.file("/usr/sbin/a", 0o755, b"1".to_vec(), "payload b").unwrap();
        let clash = tree.file("/sbin/a", 0o755, b"2".to_vec(), "payload c").unwrap_err();
        assert_eq!(clash.kind, TreeErrorKind::Taken("payload a".into()));
        assert_eq!(
            chain(&clash),
            "cannot put /sbin/a into the image (payload c): a different one is there already (payload a)"
        );
        let below = tree.file("/bin/a/b", 0o644, vec![], "unit").unwrap_err();
        assert_eq!(below.kind, TreeErrorKind::ParentNotDirectory("usr/bin/a".into()));
    }

    #[test]
    fn parents_are_made_and_come_first() {
        let mut tree = Tree::new();
        tree.file("/etc/keel/units/a.toml", 0o644, vec![], "unit").unwrap();
        tree.directory("/etc", 0o700, "layout").unwrap();
        let paths: Vec<_> = tree.iter().map(|(p, e)| (p, e.mode)).collect();
        assert_eq!(
            paths,
            [
                ("etc", 0o700),
                ("etc/keel", 0o755),
                ("etc/keel/units", 0o755),
                ("etc/keel/units/a.toml", 0o644)
            ]
        );
    }
}
