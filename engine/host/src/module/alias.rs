//! Which modules serve a device: alias patterns, found by their literal prefix.
//!
//! A distribution's modules.alias holds tens of thousands of patterns and a machine asks about hundreds of
//! devices. Almost every pattern begins with a long literal (`pci:v00001AF4d00001041sv`), so patterns are kept
//! by that literal: a question costs one table look-up per *distinct length* of literal (some dozens), and the
//! matcher runs only on the few patterns whose literal the question really begins with.

use std::collections::{BTreeSet, HashMap};

use keel_unit::select::alias as glob;

use super::name::{ModuleName, underscored};

/// Alias patterns and the modules that they name.
#[derive(Debug, Default)]
pub(super) struct AliasIndex {
    by_literal: HashMap<Box<str>, Vec<Alias>>,
    lengths: BTreeSet<usize>,
}

#[derive(Debug)]
struct Alias {
    pattern: Box<str>,
    module: ModuleName,
}

impl AliasIndex {
    /// Adds one pattern.
    pub(super) fn insert(&mut self, pattern: &str, module: &str) {
        let pattern = underscored(pattern);
        let length = glob::literal_prefix(&pattern);
        self.lengths.insert(length);
        self.by_literal
            .entry(pattern[..length].into())
            .or_default()
            .push(Alias { pattern: pattern.into(), module: ModuleName::new(module) });
    }

    /// Every module that has a pattern for `alias`, each once, in a fixed order.
    pub(super) fn lookup(&self, alias: &str) -> Vec<&ModuleName> {
        let alias = underscored(alias);
        let found: BTreeSet<_> = self
            .candidates(&alias)
            .filter(|candidate| glob::matches(&candidate.pattern, &alias))
            .map(|candidate| &candidate.module)
            .collect();
        found.into_iter().collect()
    }

    /// The patterns whose literal `alias` begins with.
    fn candidates(&self, alias: &str) -> impl Iterator<Item = &Alias> {
        self.lengths
            .iter()
            .filter_map(|&length| self.by_literal.get(alias.get(..length)?))
            .flatten()
    }
}

/// Reads modules.alias: lines `alias PATTERN MODULE`. The pattern may hold blanks, the module cannot.
pub(super) fn parse_aliases(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (pattern, module) = line.strip_prefix("alias ")?.trim().rsplit_once(' ')?;
        Some((pattern.trim_end(), module))
    })
}

/// Reads the aliases out of modules.builtin.modinfo: NUL-separated `MODULE.KEY=VALUE` (kernel, scripts/link-vmlinux.sh).
///
/// Drivers that are part of the kernel serve their devices too; without these a machine would seem to have
/// hardware that nothing knows.
pub(super) fn parse_builtin_aliases(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('\0').filter_map(|entry| {
        let (key, value) = entry.split_once('=')?;
        Some((value, key.strip_suffix(".alias")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> AliasIndex {
        let mut index = AliasIndex::default();
        for (pattern, module) in parse_aliases(text) {
            index.insert(pattern, module);
        }
        index
    }

    const ALIASES: &str = "# Aliases extracted from modules themselves.\n\
        alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n\
        alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n\
        alias pci:v*d*sv*sd*bc01sc08i02* nvme\n\
        alias virtio:d00000001v* virtio_net\n\
        alias virtio:d00000002v* virtio_blk\n\
        alias cpu:type:x86,ven*fam*mod*:feature:*0081* crc32-pclmul\n\
        alias fs-ext4 ext4\n\
        alias crypto-crc32c crc32c_generic\n\
        alias crypto-crc32c crc32c-intel\n\
        alias of:N*T*Cfoo bar,baz odd\n\
        \n\
        alias broken\n\
        nonsense line here\n";

    #[test]
    fn lookups() {
        let index = index(ALIASES);
        #[track_caller]
        fn check(index: &AliasIndex, alias: &str, expect: &[&str]) {
            let found: Vec<_> = index.lookup(alias).into_iter().map(ModuleName::as_str).collect();
            assert_eq!(found, expect, "{alias}");
        }
        check(&index, "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00", &["virtio_pci"]);
        check(&index, "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", &["e1000"]);
        // Two patterns of different literal length: both drivers are asked.
        check(
            &index,
            "pci:v00001AF4d00001041sv00001AF4sd00001100bc01sc08i02",
            &["nvme", "virtio_pci"],
        );
        check(&index, "virtio:d00000002v00001AF4", &["virtio_blk"]);
        check(
            &index,
            "cpu:type:x86,ven0000fam0006mod003A:feature:,0000,0081,0082,",
            &["crc32_pclmul"],
        );
        check(&index, "fs-ext4", &["ext4"]);
        check(&index, "fs_ext4", &["ext4"]);
        check(&index, "crypto-crc32c", &["crc32c_generic", "crc32c_intel"]);
        check(&index, "of:NxTyCfoo bar,baz", &["odd"]);
        check(&index, "platform:pcspkr", &[]);
        check(&index, "", &[]);
        check(&index, "pci:v0000é", &[]);
    }

    #[test]
    fn builtin_modinfo() {
        let text =
            "e1.license=GPL\0e1.alias=pci:v1d*\0e1.parm=x:a.alias=b\0e2.alias=fs-x\0\0junk\0";
        let found: Vec<_> = parse_builtin_aliases(text).collect();
        assert_eq!(found, [("pci:v1d*", "e1"), ("fs-x", "e2")]);
    }

    #[test]
    fn only_patterns_that_begin_like_the_device_are_tried() {
        let mut index = AliasIndex::default();
        for n in 0..40_000 {
            index.insert(&format!("pci:v{n:08X}d*sv*sd*bc*sc*i*"), &format!("driver{n}"));
        }
        index.insert("pci:v*d*sv*sd*bc01sc08i02*", "nvme");
        let device = "pci:v00001234d00000001sv0sd0bc0sc0i0";
        assert_eq!(index.candidates(device).count(), 2);
        assert_eq!(index.lookup(device), [&ModuleName::new("driver4660")]);
    }
}
