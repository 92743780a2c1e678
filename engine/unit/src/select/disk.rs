//! Which disk a selector means. There is no default: a disk that nobody selected is never written.

use std::fmt;
use std::path::Path;

use crate::kinds::{Bus, DiskSelector};
use crate::value::{ByteSize, Glob};

/// What a selector can ask of a disk.
pub trait DiskFacts {
    /// Its node: `/dev/vda`.
    fn path(&self) -> &Path;
    /// The names that /dev/disk/by-id has, or would have, for it.
    fn ids(&self) -> Vec<String>;
    /// Serial number.
    fn serial(&self) -> Option<&str>;
    /// Model.
    fn model(&self) -> Option<&str>;
    /// Size in bytes.
    fn size(&self) -> u64;
    /// How it is attached.
    fn bus(&self) -> Option<Bus>;
}

/// A key of a selector that does not hold for a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The key.
    pub key: &'static str,
    /// What the disk has instead: `serial number is S64A`.
    pub has: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.has)
    }
}

/// The disks on which every key of the selector holds.
pub fn matching_disks<'a, D: DiskFacts>(selector: &DiskSelector, disks: &'a [D]) -> Vec<&'a D> {
    disks.iter().filter(|disk| mismatches(selector, *disk).is_empty()).collect()
}

/// The keys of the selector that do not hold for the disk; none: it is meant.
pub fn mismatches(selector: &DiskSelector, disk: &impl DiskFacts) -> Vec<Mismatch> {
    let DiskSelector { path, by_id, serial, model, min_size, max_size, bus } = selector;
    let mut found = Vec::new();
    let mut unless = |holds: bool, key: &'static str, has: &dyn Fn() -> String| {
        if !holds {
            found.push(Mismatch { key, has: has() });
        }
    };
    if let Some(path) = path {
        let holds = match path.as_str().strip_prefix(BY_ID) {
            Some(name) => disk.ids().iter().any(|id| id == name),
            None => path.as_path() == disk.path(),
        };
        unless(holds, "path", &|| match path.as_str().starts_with(BY_ID) {
            true => names(&disk.ids()),
            false => format!("its path is {}", disk.path().display()),
        });
    }
    if let Some(pattern) = by_id {
        let pattern = pattern.as_str().strip_prefix(BY_ID).unwrap_or(pattern.as_str());
        let holds = disk.ids().iter().any(|id| glob(pattern, id));
        unless(holds, "by-id", &|| names(&disk.ids()));
    }
    let texts = [
        ("serial", "serial number", serial, disk.serial()),
        ("model", "model", model, disk.model()),
    ];
    for (key, what, pattern, value) in texts {
        let Some(pattern) = pattern else { continue };
        unless(value.is_some_and(|value| fits(pattern, value)), key, &|| match value {
            Some(value) => format!("its {what} is {value}"),
            None => format!("it has no {what}"),
        });
    }
    let size = || format!("its size is {}", ByteSize(disk.size()));
    unless(min_size.is_none_or(|min| disk.size() >= min.0), "min-size", &size);
    unless(max_size.is_none_or(|max| disk.size() <= max.0), "max-size", &size);
    unless(bus.is_none_or(|bus| disk.bus() == Some(bus)), "bus", &|| match disk.bus() {
        Some(bus) => format!("its bus is {bus}"),
        None => "it is on no known bus".to_owned(),
    });
    found
}

fn names(ids: &[String]) -> String {
    match ids {
        [] => "it has no name below /dev/disk/by-id".to_owned(),
        [one] => format!("its by-id name is {one}"),
        several => format!("its by-id names are {}", several.join(", ")),
    }
}

/// Where udev would link disks by their names; people write the whole path too.
const BY_ID: &str = "/dev/disk/by-id/";

fn fits(pattern: &Glob, text: &str) -> bool {
    glob(pattern.as_str(), text)
}

/// Whether the pattern, in which `*` is any run of characters and `?` any one, is the whole text. Linear in memory and, by
/// going back to the last `*` alone, at most quadratic in time.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and up to where in the text it has been stretched.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_p, star_t)) = star else { return false };
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Text;

    struct Disk {
        path: &'static str,
        ids: &'static [&'static str],
        size: u64,
        bus: Bus,
        model: Option<&'static str>,
        serial: Option<&'static str>,
    }

    impl DiskFacts for Disk {
        fn path(&self) -> &Path {
            Path::new(self.path)
        }
        fn ids(&self) -> Vec<String> {
            self.ids.iter().map(|id| (*id).to_owned()).collect()
        }
        fn serial(&self) -> Option<&str> {
            self.serial
        }
        fn model(&self) -> Option<&str> {
            self.model
        }
        fn size(&self) -> u64 {
            self.size
        }
        fn bus(&self) -> Option<Bus> {
            Some(self.bus)
        }
    }

    const DISKS: [Disk; 3] = [
        Disk {
            path: "/dev/nvme0n1",
            ids: &["nvme-Samsung_SSD_980_S64A"],
            size: 1 << 40,
            bus: Bus::Nvme,
            model: Some("Samsung SSD 980"),
            serial: Some("S64A"),
        },
        Disk {
            path: "/dev/nvme1n1",
            ids: &["nvme-Samsung_SSD_990_S77B"],
            size: 2 << 40,
            bus: Bus::Nvme,
            model: Some("Samsung SSD 990"),
            serial: Some("S77B"),
        },
        Disk {
            path: "/dev/vda",
            ids: &["virtio-keel-data"],
            size: 10 << 30,
            bus: Bus::Virtio,
            model: None,
            serial: Some("keel-data"),
        },
    ];

    fn selector(change: impl FnOnce(&mut DiskSelector)) -> DiskSelector {
        let mut selector = DiskSelector {
            path: None,
            by_id: None,
            serial: None,
            model: None,
            min_size: None,
            max_size: None,
            bus: None,
        };
        change(&mut selector);
        selector
    }

    fn check(change: impl FnOnce(&mut DiskSelector), expect: &[&str]) {
        let selector = selector(change);
        let found: Vec<_> =
            matching_disks(&selector, &DISKS).iter().map(|disk| &disk.path[5..]).collect();
        assert_eq!(found, expect, "{selector:?}");
    }

    fn some<T: Text>(text: &str) -> Option<T> {
        Some(T::parse(text).unwrap())
    }

    #[test]
    fn every_key_must_hold() {
        check(|s| s.path = some("/dev/vda"), &["vda"]);
        check(|s| s.path = some("/dev/vdb"), &[]);
        check(|s| s.path = some("/dev/disk/by-id/virtio-keel-data"), &["vda"]);
        check(|s| s.by_id = some("nvme-Samsung_SSD_980_S64A"), &["nvme0n1"]);
        check(|s| s.by_id = some("/dev/disk/by-id/virtio-keel-data"), &["vda"]);
        check(|s| s.serial = some("S*"), &["nvme0n1", "nvme1n1"]);
        check(|s| s.model = some("*SSD 9?0"), &["nvme0n1", "nvme1n1"]);
        check(|s| s.bus = Some(Bus::Virtio), &["vda"]);
        check(|s| s.min_size = some("1TiB"), &["nvme0n1", "nvme1n1"]);
        check(|s| s.max_size = some("1TiB"), &["nvme0n1", "vda"]);
        check(|s| (s.min_size, s.max_size) = (some("11GiB"), some("1TiB")), &["nvme0n1"]);
        check(|s| (s.bus, s.serial) = (Some(Bus::Nvme), some("keel-data")), &[]);
    }

    #[test]
    fn a_disk_that_is_not_meant_says_why() {
        let check = |change: &dyn Fn(&mut DiskSelector), disk: usize, expect: &[&str]| {
            let found = mismatches(&selector(change), &DISKS[disk]);
            let found: Vec<_> = found.iter().map(|m| format!("{}: {m}", m.key)).collect();
            assert_eq!(found, expect);
        };
        check(&|s| s.path = some("/dev/vda"), 0, &["path: its path is /dev/nvme0n1"]);
        check(
            &|s| s.path = some("/dev/disk/by-id/ata-x"),
            2,
            &["path: its by-id name is virtio-keel-data"],
        );
        check(&|s| s.by_id = some("ata-*"), 2, &["by-id: its by-id name is virtio-keel-data"]);
        check(
            &|s| {
                s.model = some("QEMU*");
                s.bus = Some(Bus::Nvme);
                s.min_size = some("1TiB");
            },
            2,
            &["model: it has no model", "min-size: its size is 10GiB", "bus: its bus is virtio"],
        );
        check(&|s| s.serial = some("S64A"), 0, &[]);
        check(&|s| s.serial = some("S64A"), 1, &["serial: its serial number is S77B"]);
    }

    #[test]
    fn a_star_is_any_run_and_a_question_mark_any_one() {
        let check = |pattern: &str, text: &str, expect: bool| {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}")
        };
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("a*c", "abbc", true);
        check("a*c", "abcb", false);
        check("a*b*c", "a-b-b-c", true);
        check("?", "", false);
        check("?b", "äb", true);
        check("**x", "yyx", true);
        check("abc", "abcd", false);
        check(&"*a".repeat(60), &"a".repeat(59), false);
    }
}
