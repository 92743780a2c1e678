//! What a file of an image is, as far as the checks ask.

use memchr::memmem;

use crate::elf::{self, Elf, ElfError};

/// What is kept of a file's bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// A program or library.
    Elf(Elf),
    /// It starts like one, and is none: why.
    BrokenElf(String),
    /// The line behind `#!`.
    Script(String),
    /// A kernel module: the release that it was built for, where it says so.
    Module(Option<String>),
    /// A text that is read: a unit, the machine config, an index of modules.
    Text(String),
    /// Anything else.
    Data,
}

/// Longest first line of a script; the kernel reads 256 bytes.
const LONGEST_LINE: usize = 256;
/// Largest text that is kept.
const LARGEST_TEXT: usize = 32 << 20;

impl Content {
    /// Looks at a file; `name` is its path without the leading slash.
    pub(super) fn of(name: &str, bytes: &[u8]) -> Self {
        let index = name.rsplit('/').next().is_some_and(|file| file.starts_with("modules."));
        if (name.starts_with("etc/keel/") || index) && bytes.len() <= LARGEST_TEXT {
            return Self::Text(String::from_utf8_lossy(bytes).into_owned());
        }
        if name.ends_with(".ko") {
            return Self::Module(built_for(bytes));
        }
        if let Some(line) = bytes.strip_prefix(b"#!") {
            let line = &line[..line.len().min(LONGEST_LINE)];
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            return Self::Script(String::from_utf8_lossy(line).trim().to_owned());
        }
        match elf::read(bytes) {
            Ok(elf) => Self::Elf(elf),
            Err(ElfError::NotElf { .. }) => Self::Data,
            Err(error) => Self::BrokenElf(error.to_string()),
        }
    }
}

/// The first word of a module's `vermagic`: the release that it loads into. A packed module is not unpacked for it.
fn built_for(module: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\0vermagic=";
    let at = memmem::find(module, KEY)? + KEY.len();
    let value = module[at..].iter().take(LONGEST_LINE).take_while(|byte| byte.is_ascii_graphic());
    Some(value.map(|byte| char::from(*byte)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        let check = |name: &str, bytes: &[u8], expect: Content| {
            assert_eq!(Content::of(name, bytes), expect, "{name}");
        };
        check("etc/keel/config.toml", b"a = 1", Content::Text("a = 1".into()));
        check("usr/lib/modules/6/modules.dep", b"x.ko:", Content::Text("x.ko:".into()));
        check("usr/bin/x", b"#! /bin/sh -e\necho", Content::Script("/bin/sh -e".into()));
        check("usr/bin/x", b"#!", Content::Script(String::new()));
        check("usr/bin/x", b"text", Content::Data);
        check("usr/bin/x", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", {
            Content::BrokenElf("a broken ELF file".into())
        });
        check(
            "usr/lib/modules/6/a.ko",
            b"\x7fELF..\0license=GPL\0vermagic=6.1.0-9 SMP mod_unload \0",
            Content::Module(Some("6.1.0-9".into())),
        );
        check("usr/lib/modules/6/a.ko", b"odd", Content::Module(None));
    }
}
