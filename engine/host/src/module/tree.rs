//! What /lib/modules/RELEASE says: the files of depmod(8), read into one table.
//!
//! Parsers take `&str`; only [`Tree::open`] reads files. `modules.dep` has to be there, the others may be absent
//! (a small image has no soft dependencies).

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::alias::{AliasIndex, parse_aliases, parse_builtin_aliases};
use super::name::ModuleName;

/// The module tree of one kernel.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) modules: HashMap<ModuleName, Entry>,
    pub(super) builtin: HashSet<ModuleName>,
    pub(super) soft: HashMap<ModuleName, SoftDependencies>,
    pub(super) aliases: AliasIndex,
}

/// One line of modules.dep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The file, relative to the tree.
    pub(super) file: PathBuf,
    /// What it needs, as depmod lists it: the one to load first stands last.
    pub(super) needs: Vec<ModuleName>,
}

/// What goes well with a module; modules that the kernel asks for by name at run time (a checksum for ext4).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SoftDependencies {
    pub(super) pre: Vec<ModuleName>,
    pub(super) post: Vec<ModuleName>,
}

/// A file of the tree that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct TreeError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Tree {
    /// Reads the tree in `dir` (/lib/modules/RELEASE).
    pub(super) fn open(dir: &Path) -> Result<Self, TreeError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path)
                // Descriptions in modinfo may hold any byte; names and patterns are ASCII.
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(|source| TreeError { path, source })
        };
        let optional = |name: &str| match read(name) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };

        let mut tree = Self {
            modules: parse_dep(&read("modules.dep")?),
            builtin: parse_builtin(&optional("modules.builtin")?),
            soft: parse_softdep(&optional("modules.softdep")?),
            aliases: AliasIndex::default(),
        };
        for (pattern, module) in parse_aliases(&optional("modules.alias")?) {
            tree.aliases.insert(pattern, module);
        }
        for (pattern, module) in parse_builtin_aliases(&optional("modules.builtin.modinfo")?) {
            tree.aliases.insert(pattern, module);
        }
        Ok(tree)
    }
}

/// Reads modules.dep: lines `FILE: FILE…`.
pub(super) fn parse_dep(text: &str) -> HashMap<ModuleName, Entry> {
    text.lines()
        .filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().filter_map(ModuleName::of_file).collect();
            Some((ModuleName::of_file(file)?, Entry { file: file.into(), needs }))
        })
        .collect()
}

/// Reads modules.builtin: one path a line, as if the module were a file.
pub(super) fn parse_builtin(text: &str) -> HashSet<ModuleName> {
    text.lines().filter_map(ModuleName::of_file).collect()
}

/// Reads modules.softdep: lines `softdep NAME pre: NAME… post: NAME…` (modprobe.d(5)).
///
/// Names before `pre:` or `post:` belong to neither; modprobe ignores them, and so does this.
pub(super) fn parse_softdep(text: &str) -> HashMap<ModuleName, SoftDependencies> {
    let mut all: HashMap<ModuleName, SoftDependencies> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("softdep") {
            continue;
        }
        let Some(name) = words.next() else { continue };
        let soft = all.entry(ModuleName::new(name)).or_default();
        let mut list: Option<&mut Vec<ModuleName>> = None;
        for word in words {
            match word {
                "pre:" => list = Some(&mut soft.pre),
                "post:" => list = Some(&mut soft.post),
                name => {
                    if let Some(list) = &mut list {
                        list.push(ModuleName::new(name));
                    }
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<ModuleName> {
        names.iter().map(|name| ModuleName::new(name)).collect()
    }

    #[test]
    fn dep_lines() {
        let text = "kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko.xz kernel/drivers/virtio/virtio-ring.ko.xz\n\
                    kernel/fs/fuse/fuse.ko:\n\
                    \n\
                    no colon here\n\
                    README: kernel/a.ko\n";
        let modules = parse_dep(text);
        assert_eq!(modules.len(), 2);
        assert_eq!(
            modules["virtio_blk"],
            Entry {
                file: "kernel/drivers/block/virtio_blk.ko.xz".into(),
                needs: names(&["virtio", "virtio_ring"]),
            }
        );
        assert_eq!(modules["fuse"], Entry { file: "kernel/fs/fuse/fuse.ko".into(), needs: vec![] });
    }

    #[test]
    fn builtin_lines() {
        let builtin = parse_builtin(
            "kernel/fs/binfmt_script.ko\nkernel/arch/x86/crypto/libblake2s-x86_64.ko\n\n",
        );
        assert!(builtin.contains("binfmt_script") && builtin.contains("libblake2s_x86_64"));
        assert_eq!(builtin.len(), 2);
    }

    #[test]
    fn softdep_lines() {
        let text = "# comment\n\
                    softdep ext4 pre: crc32c crypto-crc32c\n\
                    softdep snd pre: a post: b c\n\
                    softdep btrfs pre: x\n\
                    softdep btrfs pre: y\n\
                    softdep cifs gcm\n\
                    softdep\n";
        let soft = parse_softdep(text);
        assert_eq!(soft["ext4"].pre, names(&["crc32c", "crypto_crc32c"]));
        assert_eq!(soft["snd"], SoftDependencies { pre: names(&["a"]), post: names(&["b", "c"]) });
        assert_eq!(soft["btrfs"].pre, names(&["x", "y"]));
        assert_eq!(soft["cifs"], SoftDependencies::default());
    }

    #[test]
    fn a_missing_dep_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tree::open(dir.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot read {}", dir.path().join("modules.dep").display())
        );
    }

    proptest::proptest! {
        #[test]
        fn parsers_never_panic(text in "(\\PC|[\n:.= ]|ko|alias|softdep|pre:){0,80}") {
            parse_dep(&text);
            parse_builtin(&text);
            parse_softdep(&text);
            parse_aliases(&text).count();
            parse_builtin_aliases(&text).count();
        }
    }
}
