//! Chooses kernel modules for an image and writes the index files that the node's own loader reads.
//!
//! A distribution's module tree is tens of megabytes, and unpacking them is boot time; an image
//! carries a set for virtual machines and common hardware (`node-modules.txt`), what the machine
//! config and the units name, and whatever these need. The indexes on the image name only modules
//! that are there, so that coldplug never reaches for a file that was left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// The set every image carries, as far as its kernel has them.
const DEFAULT_SET: &str = include_str!("node-modules.txt");

/// A module that must be on the image, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedModule {
    /// The module's name; `-` and `_` are the same.
    pub name: String,
    /// Who asks for it, such as `kernel.modules` or a unit's name.
    pub by: String,
}

/// A kernel's modules that cannot be taken.
#[derive(Debug, Error)]
#[error("cannot take modules from {}", dir.display())]
pub struct ModuleError {
    /// The module tree.
    pub dir: PathBuf,
    /// What is in the way.
    #[source]
    pub kind: ModuleErrorKind,
}

/// What is in the way of taking modules.
#[derive(Debug, Error)]
pub enum ModuleErrorKind {
    /// Neither a module directory nor a root with one.
    #[error("it holds neither modules.order nor exactly one lib/modules/RELEASE")]
    NoTree,
    /// A file of the tree cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tree has no modules.dep, and depmod could not make one.
    #[error("it has no modules.dep, and depmod (package kmod) cannot make one: {said}")]
    Depmod {
        /// What depmod printed.
        said: String,
        /// Set when depmod could not even be started.
        source: Option<io::Error>,
    },
    /// A module that something asks for is neither in the tree nor in the kernel.
    #[error("kernel {release} has no module {name}, which {by} asks for{}", suggest(similar))]
    Missing {
        /// The module's name.
        name: String,
        /// Who asks for it.
        by: String,
        /// The kernel.
        release: String,
        /// The closest name that the kernel has.
        similar: Option<String>,
    },
}

fn suggest(similar: &Option<String>) -> String {
    similar.as_ref().map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// A module of the selection: its path below the module directory and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) path: String,
    pub(crate) why: String,
}

/// What an image takes of a module tree.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Sorted by path.
    pub(crate) modules: Vec<Module>,
    /// File name and text of each index, for these modules alone.
    pub(crate) indexes: Vec<(&'static str, String)>,
}

/// An unpacked kernel's module directory, `…/lib/modules/RELEASE`, with its indexes read.
#[derive(Debug)]
pub(crate) struct KernelTree {
    dir: PathBuf,
    release: String,
    /// Normalised name -> line of modules.dep: its own path, then those of what it needs.
    dep: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
    alias: Vec<(String, String)>,
    softdep: Vec<(String, Vec<String>)>,
    texts: BTreeMap<&'static str, String>,
}

const INDEXES: [&str; 5] = [
    "modules.alias",
    "modules.builtin",
    "modules.builtin.modinfo",
    "modules.dep",
    "modules.softdep",
];

impl KernelTree {
    /// Opens a module directory, or a root with one below `lib/modules` or `usr/lib/modules`.
    pub(crate) fn open(given: &Path) -> Result<Self, ModuleError> {
        let dir = locate(given)
            .ok_or_else(|| ModuleError { dir: given.to_owned(), kind: ModuleErrorKind::NoTree })?;
        Self::read(&dir).map_err(|kind| ModuleError { dir, kind })
    }

    fn read(dir: &Path) -> Result<Self, ModuleErrorKind> {
        let release = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let made =
            if dir.join("modules.dep").exists() { None } else { Some(depmod(dir, &release)?) };
        let indexed = made
            .as_ref()
            .map_or(dir.to_owned(), |tmp| tmp.path().join("lib/modules").join(&release));
        let mut texts = BTreeMap::new();
        for name in INDEXES {
            let path = indexed.join(name);
            let text = match fs::read(&path) {
                // builtin.modinfo separates its entries by NUL, and is text all the same.
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == io::ErrorKind::NotFound && name != "modules.dep" => continue,
                Err(source) => return Err(ModuleErrorKind::Read { path, source }),
            };
            texts.insert(name, text);
        }
        let lines = |name| texts.get(name).map(String::as_str).unwrap_or_default().lines();
        Ok(Self {
            dep: lines("modules.dep").filter_map(parse_dep).collect(),
            builtin: lines("modules.builtin").map(normal).collect(),
            alias: lines("modules.alias").filter_map(parse_alias).collect(),
            softdep: lines("modules.softdep").filter_map(parse_softdep).collect(),
            dir: dir.to_owned(),
            release,
            texts,
        })
    }

    /// The kernel's release, such as `6.1.0-56-cloud-amd64`.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// Reads one module of the selection.
    pub(crate) fn module(&self, path: &str) -> Result<Vec<u8>, ModuleError> {
        let path = self.dir.join(path);
        fs::read(&path).map_err(|source| ModuleError {
            dir: self.dir.clone(),
            kind: ModuleErrorKind::Read { path, source },
        })
    }

    /// The default set, the wanted ones, and what they need.
    pub(crate) fn select(&self, wanted: &[WantedModule]) -> Result<Selection, ModuleError> {
        self.choose(DEFAULT_SET, wanted).map_err(|kind| ModuleError { dir: self.dir.clone(), kind })
    }

    fn choose(
        &self,
        default_set: &str,
        wanted: &[WantedModule],
    ) -> Result<Selection, ModuleErrorKind> {
        let mut taken: BTreeMap<String, String> = BTreeMap::new(); // path -> why
        for WantedModule { name, by } in wanted {
            let names = self.resolve(name);
            if names.is_empty() && !self.builtin.contains(&normal(name)) {
                let similar = self.similar(name);
                let (name, by, release) = (name.clone(), by.clone(), self.release.clone());
                return Err(ModuleErrorKind::Missing { name, by, release, similar });
            }
            for name in names {
                self.take(name, by.clone(), &mut taken);
            }
        }
        let set = default_set
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        for name in set.flat_map(|name| self.resolve(name)) {
            self.take(name, "default set".to_owned(), &mut taken);
        }
        let names: BTreeSet<String> = taken.keys().map(|path| normal(path)).collect();
        Ok(Selection {
            modules: taken.into_iter().map(|(path, why)| Module { path, why }).collect(),
            indexes: self.indexes(&names),
        })
    }

    /// Takes a module and, by way of a list of work rather than recursion, everything that it needs
    /// hard (modules.dep holds the whole closure) or soft.
    fn take(&self, name: &str, why: String, taken: &mut BTreeMap<String, String>) {
        let mut work = vec![(name.to_owned(), why)];
        while let Some((name, why)) = work.pop() {
            let Some(paths) = self.dep.get(&name) else { continue };
            let Some((own, needed)) = paths.split_first() else { continue };
            if taken.contains_key(own) {
                continue;
            }
            taken.insert(own.clone(), why);
            let below = needed.iter().map(|path| (normal(path), format!("{name} depends on it")));
            let beside =
                self.softdep.iter().filter(|(of, _)| *of == name).flat_map(|(_, names)| names);
            let beside = beside.flat_map(|soft| self.resolve(soft));
            work.extend(
                below.chain(beside.map(|soft| (soft.to_owned(), format!("{name} asks for it")))),
            );
        }
    }

    /// The modules that a name stands for: itself, or those with exactly this alias.
    fn resolve<'a>(&'a self, name: &str) -> Vec<&'a str> {
        if let Some((name, _)) = self.dep.get_key_value(&normal(name)) {
            return vec![name];
        }
        self.alias
            .iter()
            .filter(|(alias, _)| alias == name)
            .map(|(_, module)| module.as_str())
            .collect()
    }

    fn similar(&self, name: &str) -> Option<String> {
        let name = normal(name);
        let all = self.dep.keys().chain(&self.builtin);
        let (distance, closest) =
            all.map(|known| (strsim::osa_distance(&name, known), known)).min()?;
        (distance <= 1 + name.len() / 4).then(|| closest.clone())
    }

    /// The indexes with only the lines of these modules; what is built in stays whole.
    fn indexes(&self, names: &BTreeSet<String>) -> Vec<(&'static str, String)> {
        let keep = |index: &str, line: &str| match index {
            "modules.dep" => parse_dep(line).is_some_and(|(name, _)| names.contains(&name)),
            "modules.alias" => parse_alias(line).is_some_and(|(_, module)| names.contains(&module)),
            "modules.softdep" => parse_softdep(line).is_some_and(|(name, _)| names.contains(&name)),
            _ => true,
        };
        let texts = self.texts.iter().map(|(index, text)| {
            let kept = text.split_inclusive('\n').filter(|line| keep(index, line)).collect();
            (*index, kept)
        });
        texts.collect()
    }
}

/// A module's name as the kernel compares it: the file's stem, without compression, `-` as `_`.
pub(crate) fn normal(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once(".ko").map_or(file, |(stem, _)| stem);
    stem.replace('-', "_")
}

/// `kernel/a.ko: kernel/b.ko kernel/c.ko`
pub(crate) fn parse_dep(line: &str) -> Option<(String, Vec<String>)> {
    let (own, needed) = line.trim().split_once(':')?;
    let paths = std::iter::once(own).chain(needed.split_whitespace()).map(str::to_owned);
    Some((normal(own), paths.collect()))
}

/// `alias PATTERN MODULE`
pub(crate) fn parse_alias(line: &str) -> Option<(String, String)> {
    let mut words = line.trim().strip_prefix("alias ")?.rsplitn(2, ' ');
    let module = normal(words.next()?);
    Some((words.next()?.to_owned(), module))
}

/// `softdep MODULE pre: a b post: c`
pub(crate) fn parse_softdep(line: &str) -> Option<(String, Vec<String>)> {
    let mut words = line.trim().strip_prefix("softdep ")?.split_whitespace();
    let name = normal(words.next()?);
    Some((name, words.filter(|word| !word.ends_with(':')).map(str::to_owned).collect()))
}

fn locate(given: &Path) -> Option<PathBuf> {
    if given.join("modules.order").exists() || given.join("modules.dep").exists() {
        // The directory's name is the release, so `.` and links must be resolved.
        return given.canonicalize().ok();
    }
    let below = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|path| fs::read_dir(given.join(path)).ok())?;
    let mut trees =
        below.flatten().map(|e| e.path()).filter(|path| path.join("modules.order").exists());
    let only = trees.next()?;
    trees.next().is_none().then_some(only)
}

/// Makes the indexes of a tree that has none (an unpacked package: they are made on installation).
/// The tree itself is not written to: depmod sees a directory of links to it.
fn depmod(dir: &Path, release: &str) -> Result<tempfile::TempDir, ModuleErrorKind> {
    let said = |source: io::Error| ModuleErrorKind::Depmod {
        said: "it did not run".into(),
        source: Some(source),
    };
    let tmp = tempfile::tempdir().map_err(said)?;
    let links = tmp.path().join("lib/modules").join(release);
    fs::create_dir_all(&links).map_err(said)?;
    // kmod is built for one of the two places.
    fs::create_dir_all(tmp.path().join("usr")).map_err(said)?;
    link(Path::new("../lib"), &tmp.path().join("usr/lib")).map_err(said)?;
    for entry in fs::read_dir(dir).map_err(said)? {
        let entry = entry.map_err(said)?;
        link(&entry.path().canonicalize().map_err(said)?, &links.join(entry.file_name()))
            .map_err(said)?;
    }
    // sbin is not in everyone's PATH.
    let tool =
        ["/usr/sbin/depmod", "/sbin/depmod"].into_iter().find(|path| Path::new(path).exists());
    let out = Command::new(tool.unwrap_or("depmod"))
        .arg("-b")
        .arg(tmp.path())
        .arg(release)
        .output()
        .map_err(said)?;
    if out.status.success() {
        return Ok(tmp);
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(ModuleErrorKind::Depmod { said, source: None })
}

#[cfg(unix)]
fn link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "depmod runs on Linux"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::chain;

    const DEP: &str = "\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/net/net_failover.ko.xz: kernel/net/failover.ko
kernel/net/failover.ko:
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko.xz kernel/net/failover.ko kernel/drivers/virtio/virtio.ko
kernel/fs/ext4/ext4.ko:
kernel/crypto/crc32c-intel.ko:
kernel/sound/snd.ko:
";

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("lib/modules/6.1");
        fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        write("modules.dep", DEP);
        write("modules.order", "");
        write(
            "modules.alias",
            "# note\nalias virtio:d00000001v* virtio_net\nalias crypto-crc32c crc32c_intel\nalias snd* snd\n",
        );
        write(
            "modules.softdep",
            "softdep ext4 pre: crypto-crc32c post: nothing\nsoftdep snd pre: ext4\n",
        );
        write("modules.builtin", "kernel/drivers/nvme/host/nvme-core.ko\n");
        root
    }

    fn choose(defaults: &str, wanted: &[&str]) -> Result<Selection, ModuleError> {
        let root = tree();
        let tree = KernelTree::open(root.path()).unwrap();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|name| WantedModule { name: (*name).into(), by: "kernel.modules".into() })
            .collect();
        tree.choose(defaults, &wanted).map_err(|kind| ModuleError { dir: "modules".into(), kind })
    }

    #[test]
    fn takes_what_is_needed_hard_and_soft() {
        let check = |defaults: &str, wanted: &[&str], expect: &[(&str, &str)]| {
            let found: Vec<_> = choose(defaults, wanted)
                .unwrap()
                .modules
                .into_iter()
                .map(|m| (normal(&m.path), m.why))
                .collect();
            let found: Vec<_> =
                found.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
            assert_eq!(found, expect);
        };
        check("", &[], &[]);
        check("# comment\n\nabsent\nnvme-core\n", &["nvme_core"], &[]);
        check(
            "virtio-net\n",
            &[],
            &[
                ("net_failover", "virtio_net depends on it"),
                ("virtio_net", "default set"),
                ("virtio", "virtio_net depends on it"),
                ("failover", "virtio_net depends on it"),
            ],
        );
        check(
            "ext4",
            &["ext4"],
            &[("crc32c_intel", "ext4 asks for it"), ("ext4", "kernel.modules")],
        );
        check("", &["crypto-crc32c"], &[("crc32c_intel", "kernel.modules")]);
    }

    #[test]
    fn the_indexes_name_only_what_was_taken() {
        let selection = choose("ext4\nvirtio\n", &[]).unwrap();
        let index =
            |name: &str| selection.indexes.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        assert_eq!(
            index("modules.dep"),
            "kernel/drivers/virtio/virtio.ko:\nkernel/fs/ext4/ext4.ko:\nkernel/crypto/crc32c-intel.ko:\n"
        );
        assert_eq!(index("modules.alias"), "alias crypto-crc32c crc32c_intel\n");
        assert_eq!(index("modules.softdep"), "softdep ext4 pre: crypto-crc32c post: nothing\n");
        assert_eq!(index("modules.builtin"), "kernel/drivers/nvme/host/nvme-core.ko\n");
    }

    #[test]
    fn a_missing_module_names_who_asks_and_what_is_close() {
        let check =
            |name: &str, expect: &str| assert_eq!(chain(&choose("", &[name]).unwrap_err()), expect);
        check(
            "virtio_nett",
            "cannot take modules from modules: kernel 6.1 has no module virtio_nett, which kernel.modules asks for \
             (did you mean virtio_net?)",
        );
        check(
            "zfs",
            "cannot take modules from modules: kernel 6.1 has no module zfs, which kernel.modules asks for",
        );
    }

    #[test]
    fn a_directory_without_modules_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let error = KernelTree::open(empty.path()).unwrap_err();
        assert!(matches!(error.kind, ModuleErrorKind::NoTree));
    }

    /// An unpacked package: modules, and no modules.dep. depmod is run on the side.
    #[test]
    fn depmod_indexes_a_tree_without_touching_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("usr/lib/modules/6.1");
        fs::create_dir_all(dir.join("kernel")).unwrap();
        fs::write(dir.join("modules.order"), "").unwrap();
        fs::write(dir.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let tree = KernelTree::open(root.path()).unwrap();
        assert_eq!(tree.release(), "6.1");
        assert!(tree.builtin.contains("ext4"));
        assert!(!dir.join("modules.dep").exists());
    }
}
