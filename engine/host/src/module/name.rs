//! The name of a kernel module, in the one spelling that the kernel uses.
//!
//! A file may be called `virtio-rng.ko`, its module is `virtio_rng` everywhere else: in /proc/modules,
//! in /sys/module, on the kernel command line. Names are therefore compared in the underscore form only.

use std::fmt;

pub(super) use keel_unit::select::alias::underscored;

/// The name of a kernel module; `-` and `_` are the same letter in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleName(Box<str>);

impl ModuleName {
    /// Takes a name in either spelling.
    pub fn new(name: &str) -> Self {
        Self(underscored(name).into())
    }

    /// The module that lies in a file of the tree: `kernel/fs/ext4/ext4.ko.xz` holds `ext4`.
    pub(super) fn of_file(path: &str) -> Option<Self> {
        let file = path.rsplit('/').next().unwrap_or(path);
        let stem = &file[..file.find(".ko")?];
        (!stem.is_empty()).then(|| Self::new(stem))
    }

    /// The name in the kernel's spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for ModuleName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one_name() {
        assert_eq!(ModuleName::new("virtio-rng"), ModuleName::new("virtio_rng"));
        assert_eq!(ModuleName::new("virtio-rng").as_str(), "virtio_rng");
    }

    #[test]
    fn the_dash_of_a_range_stays() {
        assert_eq!(underscored("usb:v05AC[1-9]-x"), "usb:v05AC[1-9]_x");
    }

    #[test]
    fn a_file_names_its_module() {
        let check = |path: &str, expect: Option<&str>| {
            assert_eq!(
                ModuleName::of_file(path).as_ref().map(ModuleName::as_str),
                expect,
                "{path}"
            );
        };
        check("kernel/fs/ext4/ext4.ko", Some("ext4"));
        check("kernel/drivers/char/hw_random/virtio-rng.ko.xz", Some("virtio_rng"));
        check("extra/a.ko.zst", Some("a"));
        check("kernel/README", None);
        check("kernel/.ko", None);
    }
}
