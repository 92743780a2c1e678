//! What a program says that it needs to run: its machine, its loader and its shared libraries.

use object::elf::{self, FileHeader64};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Endianness, FileKind};
use thiserror::Error;

/// The part of an ELF file that its loader reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elf {
    /// `e_machine` and byte order: what it runs on.
    pub(crate) machine: Machine,
    /// `PT_INTERP`: the loader; nothing for a static program or a library.
    pub(crate) interpreter: Option<String>,
    /// `DT_NEEDED`, in the file's order.
    pub(crate) needed: Vec<String>,
    /// `DT_RUNPATH`, split at the colons.
    pub(crate) runpath: Vec<String>,
    /// `DT_RPATH`, split at the colons; it also holds for the libraries below, unlike `DT_RUNPATH`.
    pub(crate) rpath: Vec<String>,
}

/// What a program runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    code: u16,
    endian: Endianness,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (elf::Machine(self.code), self.endian) {
            (elf::EM_X86_64, _) => f.write_str("x86-64"),
            (elf::EM_AARCH64, Endianness::Little) => f.write_str("arm64"),
            (elf::EM_RISCV, _) => f.write_str("riscv64"),
            (elf::EM_PPC64, Endianness::Little) => f.write_str("ppc64le"),
            (elf::EM_S390, _) => f.write_str("s390x"),
            (other, _) => write!(f, "ELF machine {}", other.0),
        }
    }
}

/// Why a file is no program that a node could run.
#[derive(Debug, Error)]
pub enum ElfError {
    /// A script, or data.
    #[error("not an ELF program{}", if *script { " but a script, and no shell runs on a node" } else { "" })]
    NotElf {
        /// It starts with `#!`.
        script: bool,
    },
    /// Kubernetes has no 32-bit nodes.
    #[error("a 32-bit program")]
    ThirtyTwoBit,
    /// A broken file.
    #[error("a broken ELF file")]
    Broken(#[source] object::read::Error),
}

/// Reads what a program needs.
pub(crate) fn read(bytes: &[u8]) -> Result<Elf, ElfError> {
    match FileKind::parse(bytes) {
        Ok(FileKind::Elf64) => parse(bytes).map_err(ElfError::Broken),
        Ok(FileKind::Elf32) => Err(ElfError::ThirtyTwoBit),
        _ => Err(ElfError::NotElf { script: bytes.starts_with(b"#!") }),
    }
}

fn parse(bytes: &[u8]) -> object::read::Result<Elf> {
    let file = ElfFile::<FileHeader64<Endianness>>::parse(bytes)?;
    let (endian, header) = (file.endian(), file.elf_header());
    let mut found = Elf {
        machine: Machine { code: header.e_machine(endian).0, endian },
        interpreter: None,
        needed: Vec::new(),
        runpath: Vec::new(),
        rpath: Vec::new(),
    };
    for segment in file.elf_program_headers() {
        if let Some(path) = segment.interpreter(endian, bytes)? {
            found.interpreter = Some(text(path));
        }
    }
    let dynamic = file.elf_dynamic_table()?;
    for entry in &dynamic {
        let list = match entry.tag {
            elf::DT_NEEDED => {
                found.needed.push(text(dynamic.string(entry)?));
                continue;
            }
            elf::DT_RUNPATH => &mut found.runpath,
            elf::DT_RPATH => &mut found.rpath,
            _ => continue,
        };
        list.extend(
            text(dynamic.string(entry)?)
                .split(':')
                .filter(|dir| !dir.is_empty())
                .map(str::to_owned),
        );
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_program_says_so() {
        let check =
            |bytes: &[u8], expect: &str| assert_eq!(read(bytes).unwrap_err().to_string(), expect);
        check(b"", "not an ELF program");
        check(b"#!/bin/sh\necho\n", "not an ELF program but a script, and no shell runs on a node");
        check(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0", "a 32-bit program");
        check(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "a broken ELF file");
    }

    /// The test program itself: what rustc linked is known.
    #[test]
    fn reads_the_running_program() {
        let elf = read(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap();
        assert!(
            elf.interpreter.unwrap().contains("ld-linux"),
            "a dynamic program names its loader"
        );
        assert!(elf.needed.iter().any(|l| l == "libc.so.6"), "{:?}", elf.needed);
    }
}
