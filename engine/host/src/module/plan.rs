//! Which files make a module work, and in what order: pure, over the tree.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::name::ModuleName;
use super::tree::Tree;

/// One module to hand to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Insert {
    pub(super) name: ModuleName,
    /// Relative to the tree.
    pub(super) file: PathBuf,
    /// Whether the wanted module cannot work without it. What is only a soft dependency may fail.
    pub(super) required: bool,
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// Part of the kernel: nothing to do.
    Builtin,
    /// Any of these serves the name: the module itself, or every module with such an alias.
    Modules(Vec<ModuleName>),
}

/// No module and no alias has this name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// The module whose name is closest, if one is close.
    pub(super) suggestion: Option<ModuleName>,
}

impl Tree {
    /// Finds what `name` stands for, as modprobe(8) does: a module, a part of the kernel, or an alias (`fs-ext4`).
    pub(super) fn resolve(&self, name: &str) -> Result<Resolved, Unknown> {
        let exact = ModuleName::new(name);
        if self.modules.contains_key(&exact) {
            return Ok(Resolved::Modules(vec![exact]));
        }
        if self.builtin.contains(&exact) {
            return Ok(Resolved::Builtin);
        }
        let served = self.aliases.lookup(name);
        let loadable: Vec<_> = served
            .iter()
            .copied()
            .filter(|module| self.modules.contains_key(*module))
            .cloned()
            .collect();
        if !loadable.is_empty() {
            Ok(Resolved::Modules(loadable))
        } else if !served.is_empty() {
            // Only drivers of modules.builtin.modinfo are left.
            Ok(Resolved::Builtin)
        } else {
            Err(Unknown { suggestion: self.closest(&exact) })
        }
    }

    /// Every module that has to be in the kernel before `wanted` works, and itself, in load order.
    ///
    /// Each stands once, behind all that it needs. The walk keeps its own stack: a tree is data, and data does
    /// not decide how deep PID 1 recurses. A cycle (no kernel has one) ends where it closes.
    pub(super) fn load_order(&self, wanted: &ModuleName) -> Vec<Insert> {
        enum Visit {
            /// First its dependencies.
            Enter(ModuleName),
            /// They stand in the order; now the module itself.
            Leave(ModuleName),
        }

        let needed = self.needed(wanted);
        let mut order: Vec<Insert> = Vec::new();
        let mut entered: HashSet<ModuleName> = HashSet::new();
        let mut stack = vec![Visit::Enter(wanted.clone())];
        while let Some(visit) = stack.pop() {
            match visit {
                Visit::Enter(name) => {
                    let Some(entry) = self.modules.get(&name) else { continue };
                    if !entered.insert(name.clone()) {
                        continue;
                    }
                    let soft = self.soft.get(&name);
                    // A stack: what is pushed last is visited first. In visiting order: soft pre, needs (depmod
                    // lists the innermost last), the module, soft post.
                    let soft_post =
                        soft.map(|soft| self.soft_modules(&soft.post)).unwrap_or_default();
                    let soft_pre =
                        soft.map(|soft| self.soft_modules(&soft.pre)).unwrap_or_default();
                    stack.extend(soft_post.into_iter().rev().map(Visit::Enter));
                    stack.push(Visit::Leave(name));
                    stack.extend(entry.needs.iter().cloned().map(Visit::Enter));
                    stack.extend(soft_pre.into_iter().rev().map(Visit::Enter));
                }
                Visit::Leave(name) => {
                    if let Some(entry) = self.modules.get(&name) {
                        let required = needed.contains(&name);
                        order.push(Insert { name, file: entry.file.clone(), required });
                    }
                }
            }
        }
        order
    }

    /// `wanted` and all that it cannot work without; what a soft dependency alone brings is not in it.
    fn needed<'a>(&'a self, wanted: &'a ModuleName) -> HashSet<&'a ModuleName> {
        let mut needed = HashSet::new();
        let mut stack = vec![wanted];
        while let Some(name) = stack.pop() {
            if needed.insert(name) {
                stack.extend(self.modules.get(name).iter().flat_map(|entry| &entry.needs));
            }
        }
        needed
    }

    /// Soft dependencies may be aliases (`crypto-crc32c`), parts of the kernel, or not there at all.
    fn soft_modules(&self, names: &[ModuleName]) -> Vec<ModuleName> {
        let resolved = names.iter().map(|name| self.resolve(name.as_str()));
        resolved
            .flat_map(|resolved| match resolved {
                Ok(Resolved::Modules(modules)) => modules,
                Ok(Resolved::Builtin) | Err(Unknown { .. }) => Vec::new(),
            })
            .collect()
    }

    /// The module or part of the kernel with the most similar name.
    fn closest(&self, name: &ModuleName) -> Option<ModuleName> {
        self.modules
            .keys()
            .chain(&self.builtin)
            .map(|known| (strsim::osa_distance(known.as_str(), name.as_str()), known))
            .filter(|(distance, _)| *distance <= 1 + name.as_str().len() / 4)
            .min()
            .map(|(_, known)| known.clone())
    }
}

/// The compression of a module file, by its name, as modprobe knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Xz,
    Zstd,
}

impl Compression {
    /// `None`: neither a plain module nor one in a compression that is read here.
    pub(super) fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "ko" => Some(Self::None),
            "xz" => Some(Self::Xz),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The word in /sys/module/compression when the kernel decompresses this itself.
    pub(super) fn kernel_word(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Xz => Some("xz"),
            Self::Zstd => Some("zstd"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{parse_builtin, parse_dep, parse_softdep};
    use super::*;

    fn tree(dep: &str, softdep: &str, aliases: &[(&str, &str)]) -> Tree {
        let mut tree = Tree {
            modules: parse_dep(dep),
            builtin: parse_builtin("kernel/fs/binfmt_script.ko\nkernel/lib/crc16.ko\n"),
            soft: parse_softdep(softdep),
            ..Tree::default()
        };
        for (pattern, module) in aliases {
            tree.aliases.insert(pattern, module);
        }
        tree
    }

    /// Names in order; `?` behind those that may fail.
    fn order(tree: &Tree, wanted: &str) -> String {
        let order = tree.load_order(&ModuleName::new(wanted));
        let words: Vec<_> = order
            .iter()
            .map(|i| format!("{}{}", i.name, if i.required { "" } else { "?" }))
            .collect();
        words.join(" ")
    }

    #[test]
    fn load_orders() {
        #[track_caller]
        fn check(dep: &str, softdep: &str, wanted: &str, expect: &str) {
            let aliases = [("crypto-x", "x1"), ("crypto-x", "x2"), ("crypto-in", "crc16")];
            assert_eq!(order(&tree(dep, softdep, &aliases), wanted), expect);
        }
        check("a.ko:", "", "a", "a");
        // As depmod writes it: the whole closure, the innermost last.
        check("a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:", "", "a", "c b a");
        // As a person writes it: only the direct ones.
        check("a.ko: b.ko\nb.ko: c.ko\nc.ko:", "", "a", "c b a");
        check("a.ko: b.ko c.ko\nb.ko: d.ko\nc.ko: d.ko\nd.ko:", "", "a", "d c b a");
        // A need that is part of the kernel or not in the tree takes no place.
        check("a.ko: crc16.ko gone.ko", "", "a", "a");
        check("a.ko: b.ko\nb.ko: a.ko", "", "a", "b a");
        check("a.ko: a.ko", "", "a", "a");
        check("a.ko:\nb.ko: c.ko\nc.ko:\nd.ko:", "softdep a pre: b post: d", "a", "c? b? a d?");
        check(
            "a.ko:\nx1.ko:\nx2.ko:",
            "softdep a pre: crypto-x crypto-in nothing",
            "a",
            "x1? x2? a",
        );
        // Soft and needed at once is needed.
        check("a.ko: b.ko\nb.ko:", "softdep a pre: b", "a", "b a");
        check("a.ko:\nb.ko:", "softdep a pre: b\nsoftdep b pre: a", "a", "b? a");
        check("a.ko:", "", "unknown", "");
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_does_not_recurse() {
        let dep: String = (0..100_000).map(|n| format!("m{n}.ko: m{}.ko\n", n + 1)).collect();
        assert_eq!(tree(&dep, "", &[]).load_order(&ModuleName::new("m0")).len(), 100_000);
    }

    #[test]
    fn names_stand_for() {
        let tree = tree(
            "kernel/a/virtio-net.ko:\next4.ko:\nx1.ko:\nx2.ko:",
            "",
            &[
                ("fs-ext4", "ext4"),
                ("crypto-x", "x1"),
                ("crypto-x", "x2"),
                ("fs-script", "binfmt_script"),
            ],
        );
        let modules = |names: &[&str]| {
            Ok(Resolved::Modules(names.iter().map(|name| ModuleName::new(name)).collect()))
        };
        let check = |name: &str, expect: Result<Resolved, Unknown>| {
            assert_eq!(tree.resolve(name), expect, "{name}")
        };
        check("virtio_net", modules(&["virtio_net"]));
        check("virtio-net", modules(&["virtio_net"]));
        check("binfmt-script", Ok(Resolved::Builtin));
        check("fs-ext4", modules(&["ext4"]));
        check("crypto_x", modules(&["x1", "x2"]));
        check("fs-script", Ok(Resolved::Builtin));
        check("virtio_nte", Err(Unknown { suggestion: Some(ModuleName::new("virtio_net")) }));
        check("zfs_unrelated_thing", Err(Unknown { suggestion: None }));
    }

    #[test]
    fn compressions() {
        let check =
            |file: &str, expect| assert_eq!(Compression::of(Path::new(file)), expect, "{file}");
        check("a/b.ko", Some(Compression::None));
        check("a/b.ko.xz", Some(Compression::Xz));
        check("a/b.ko.zst", Some(Compression::Zstd));
        check("a/b.ko.gz", None);
        check("a/b", None);
    }
}
