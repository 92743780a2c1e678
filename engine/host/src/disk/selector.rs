//! Which disk the machine config means. There is no default: a disk that nobody selected is never written.

use std::path::Path;

use keel_unit::kinds::DiskSelector;

use super::inventory::Disk;

/// The disks on which every key of the selector holds.
pub fn matching<'a>(selector: &DiskSelector, disks: &'a [Disk]) -> Vec<&'a Disk> {
    disks.iter().filter(|disk| fits(selector, disk)).collect()
}

fn fits(selector: &DiskSelector, disk: &Disk) -> bool {
    let DiskSelector { path, by_id, serial, model, min_size, max_size, bus } = selector;
    let text = |pattern: &Option<keel_unit::value::Glob>, value: Option<&String>| {
        pattern
            .as_ref()
            .is_none_or(|pattern| value.is_some_and(|value| glob(pattern.as_str(), value)))
    };
    let by_path = |path: &str| match path.strip_prefix(BY_ID) {
        Some(name) => disk.ids().iter().any(|id| id == name),
        None => Path::new(path) == disk.path,
    };
    path.as_ref().is_none_or(|path| by_path(path.as_str()))
        && by_id
            .as_ref()
            .is_none_or(|pattern| disk.ids().iter().any(|id| glob(id_of(pattern.as_str()), id)))
        && text(serial, disk.serial.as_ref())
        && text(model, disk.model.as_ref())
        && min_size.is_none_or(|min| disk.size >= min.0)
        && max_size.is_none_or(|max| disk.size <= max.0)
        && bus.is_none_or(|bus| disk.bus == Some(bus))
}

/// Where udev would link disks by their names; people write the whole path too.
const BY_ID: &str = "/dev/disk/by-id/";

fn id_of(pattern: &str) -> &str {
    pattern.strip_prefix(BY_ID).unwrap_or(pattern)
}

/// Whether the pattern, in which `*` is any run of characters and `?` any one, is the whole text. Linear in memory and, by
/// going back to the last `*` alone, at most quadratic in time.
pub fn glob(pattern: &str, text: &str) -> bool {
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
    use keel_unit::keys::Text;
    use keel_unit::kinds::{Bus, DiskSelector};

    use super::*;

    fn disks() -> Vec<Disk> {
        let disk = |name: &str, size: u64, bus: Bus, model: &str, serial: &str| Disk {
            name: name.into(),
            path: format!("/dev/{name}").into(),
            size,
            bus: Some(bus),
            model: (!model.is_empty()).then(|| model.into()),
            serial: Some(serial.into()),
            ..Disk::default()
        };
        vec![
            disk("nvme0n1", 1 << 40, Bus::Nvme, "Samsung SSD 980", "S64A"),
            disk("nvme1n1", 2 << 40, Bus::Nvme, "Samsung SSD 990", "S77B"),
            disk("vda", 10 << 30, Bus::Virtio, "", "keel-data"),
        ]
    }

    fn check(change: impl FnOnce(&mut DiskSelector), expect: &[&str]) {
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
        let disks = disks();
        let found: Vec<_> =
            matching(&selector, &disks).iter().map(|disk| disk.name.as_str()).collect();
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
