//! GRUB 2 on an image: its configuration, its two core images, and its first sector.
//!
//! `grub-mkimage` links the core images; where they lie on a disk is written into them here. grub-install would look at
//! devices and ask for root, and does no more than that for a disk whose layout is known.

use std::path::{Path, PathBuf};

use super::tool::{self, Tool};
use super::{BootFile, Booted, FirmwareError, INITRAMFS, Identity, KERNEL, loader_file};
use crate::watch::Watch;

const NAME: &str = "GRUB";
const TOOL: &str = "grub-mkimage";
const TOOL_PACKAGE: &str = "package grub-common";

/// What the loader can do before it has read a file: find its volume, on a disk or on a CD, and boot Linux.
const MODULES: [&str; 14] = [
    "configfile",
    "echo",
    "fat",
    "iso9660",
    "linux",
    "normal",
    "part_gpt",
    "part_msdos",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
    "test",
    "reboot",
];
const MODULES_BIOS: [&str; 1] = ["biosdisk"];
/// The kernel's console on a screen.
const MODULES_EFI: [&str; 2] = ["efi_gop", "efi_uga"];

/// Where Debian's packages put the modules.
pub const GRUB_MODULES: &str = "/usr/lib/grub";

/// GRUB's parts for one image.
#[derive(Debug)]
pub(super) struct Grub {
    /// `BOOTX64.EFI`.
    pub(super) efi: Vec<u8>,
    pub(super) bios: BiosCode,
    modules: PathBuf,
    id: Identity,
}

impl Grub {
    pub(super) fn make(
        modules: &Path,
        id: Identity,
        watch: &dyn Watch,
    ) -> Result<Self, FirmwareError> {
        let boot = modules.join("i386-pc/boot.img");
        let boot_bytes = loader_file(NAME, &boot)?;
        let linked = |target: &str, more: &[&str]| mkimage(modules, target, more, id, watch);
        let efi = linked("x86_64-efi", &MODULES_EFI)?;
        let core = linked("i386-pc", &MODULES_BIOS)?;
        let bios = BiosCode::new(boot_bytes, core).map_err(|why| FirmwareError::Unexpected {
            loader: NAME,
            path: boot,
            why,
        })?;
        Ok(Self { efi, bios, modules: modules.to_owned(), id })
    }

    /// What the boot volume holds.
    pub(super) fn volume<'a>(
        &self,
        booted: &Booted<'a>,
    ) -> Result<Vec<BootFile<'a>>, FirmwareError> {
        Ok(vec![
            BootFile::new("EFI/BOOT/BOOTX64.EFI", self.efi.clone()),
            BootFile::new("boot/grub/grub.cfg", config(booted.arguments)?.into_bytes()),
            BootFile::new(self.id.mark(), &b""[..]),
            BootFile::new(INITRAMFS, booted.initramfs),
            BootFile::new(KERNEL, booted.kernel),
        ])
    }

    /// What a BIOS boots from a CD: GRUB's CD sector and the core image behind it.
    pub(super) fn el_torito(&self) -> Result<Vec<u8>, FirmwareError> {
        let mut bytes = loader_file(NAME, &self.modules.join("i386-pc/cdboot.img"))?;
        bytes.extend_from_slice(&self.bios.core);
        Ok(bytes)
    }

    /// The first sector of a CD's file that lies on a disk, a USB stick say.
    pub(super) fn hybrid_mbr(&self) -> PathBuf {
        self.modules.join("i386-pc/boot_hybrid.img")
    }
}

/// Links a core image that knows its volume by the file that only it has.
fn mkimage(
    modules: &Path,
    target: &str,
    more: &[&str],
    id: Identity,
    watch: &dyn Watch,
) -> Result<Vec<u8>, FirmwareError> {
    let dir = modules.join(target);
    // A missing one would be reported by grub-mkimage in words that name no package.
    loader_file(NAME, &dir.join("moddep.lst"))?;
    let scratch = tempfile::tempdir().map_err(FirmwareError::write(&std::env::temp_dir()))?;
    let (early, out) = (scratch.path().join("early.cfg"), scratch.path().join("core"));
    std::fs::write(&early, early_config(id)).map_err(FirmwareError::write(&early))?;
    let mut tool: Tool = tool::command(TOOL, TOOL_PACKAGE);
    tool.command.arg("--directory").arg(&dir).args(["--format", target]);
    tool.command.args(["--prefix", "/boot/grub", "--config"]).arg(&early);
    tool.command.arg("--output").arg(&out).args(MODULES).args(more);
    tool.run(watch)?;
    std::fs::read(&out).map_err(FirmwareError::write(&out))
}

/// What a core image does first.
fn early_config(id: Identity) -> String {
    format!("search --no-floppy --set=root --file /{}\nset prefix=($root)/boot/grub\n", id.mark())
}

/// `grub.cfg`: one entry, booted at once. GRUB speaks where the kernel will.
pub(super) fn config(arguments: &[String]) -> Result<String, FirmwareError> {
    let mut text = String::from(
        "# Written by `osctl image build`; kernel arguments come from the machine config.\n",
    );
    text += "set timeout=0\n";
    if let Some(Serial { unit, speed }) = arguments.iter().rev().find_map(|a| Serial::of(a)) {
        text += &format!("serial --unit={unit} --speed={speed}\n");
        text += "terminal_input console serial\nterminal_output console serial\n";
    }
    let words = arguments.iter().map(|argument| quoted(argument));
    let line = words.collect::<Result<Vec<_>, _>>()?;
    let line: String = line.iter().map(|word| format!(" {word}")).collect();
    text += &format!(
        "\nmenuentry 'Keel' {{\n  echo 'Loading Keel ...'\n  linux /{KERNEL}{line}\n  initrd /{INITRAMFS}\n}}\n"
    );
    Ok(text)
}

/// A serial line that is the kernel's console: `console=ttyS1,9600n8`.
#[derive(Debug, PartialEq, Eq)]
struct Serial {
    unit: u8,
    speed: u32,
}

impl Serial {
    fn of(argument: &str) -> Option<Self> {
        let line = argument.strip_prefix("console=ttyS")?;
        let (unit, options) = line.split_once(',').unwrap_or((line, ""));
        let digits = options.find(|c: char| !c.is_ascii_digit()).unwrap_or(options.len());
        // What the kernel itself takes where nothing is said is 9600; what everybody means is this.
        Some(Self { unit: unit.parse().ok()?, speed: options[..digits].parse().unwrap_or(115_200) })
    }
}

/// A kernel argument as one word of GRUB's shell, which knows single quotes as other shells do.
fn quoted(argument: &str) -> Result<String, FirmwareError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/+@%".contains(c);
    if argument.chars().any(char::is_control) {
        return Err(FirmwareError::Argument(argument.to_owned()));
    }
    if !argument.is_empty() && argument.chars().all(plain) {
        return Ok(argument.to_owned());
    }
    Ok(format!("'{}'", argument.replace('\'', "'\\''")))
}

/// What makes an image of GRUB's another than Limine's.
pub(super) fn identity(booted: &Booted<'_>) -> Identity {
    Identity::of(booted, NAME)
}

/// What BIOS runs: `boot.img` in the disk's first sector, and the core image that it reads.
#[derive(Debug)]
pub(super) struct BiosCode {
    boot: Vec<u8>,
    pub(super) core: Vec<u8>,
}

/// Where things stand in these files (GRUB's `include/grub/i386/pc/boot.h` and `grub-core/boot/i386/pc`).
mod place {
    /// boot.img: where the core image starts, in sectors of the disk; eight bytes.
    pub(super) const CORE_SECTOR: usize = 0x5c;
    /// boot.img: a jump over the mending of what a bad BIOS says about the drive; two bytes.
    pub(super) const DRIVE_CHECK: usize = 0x66;
    /// Where the code ends: behind it stand the disk's signature and its partition table.
    pub(super) const CODE_END: usize = 0x1b8;
    /// core image: where its second sector is on the disk, in its list of blocks; eight bytes.
    pub(super) const SECOND_SECTOR: usize = 0x1f4;
}

const SECTOR: usize = 512;

impl BiosCode {
    fn new(boot: Vec<u8>, core: Vec<u8>) -> Result<Self, &'static str> {
        if boot.len() != SECTOR || !boot.ends_with(&[0x55, 0xaa]) {
            return Err("it is no boot sector");
        }
        if core.len() <= SECTOR {
            return Err("its core image is empty");
        }
        Ok(Self { boot, core })
    }

    /// Both, for a core image that starts at that sector of the disk. The partition table of the first sector stays.
    pub(super) fn installed(
        &self,
        mbr: &[u8; SECTOR],
        core_sector: u64,
    ) -> ([u8; SECTOR], Vec<u8>) {
        let mut sector = *mbr;
        sector[..place::CODE_END].copy_from_slice(&self.boot[..place::CODE_END]);
        put(&mut sector, place::CORE_SECTOR, &core_sector.to_le_bytes());
        // Two no-ops, as grub-install writes them for every hard disk.
        put(&mut sector, place::DRIVE_CHECK, &[0x90, 0x90]);
        let mut core = self.core.clone();
        put(&mut core, place::SECOND_SECTOR, &(core_sector + 1).to_le_bytes());
        (sector, core)
    }
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_configuration_carries_the_kernel_arguments() {
        let all =
            arguments(&["console=tty0", "console=ttyS0,9600n8", "quiet", "panic=10", "x=$(a b)'c"]);
        insta::assert_snapshot!("grub_cfg", config(&all).unwrap());
        insta::assert_snapshot!("grub_cfg_without_arguments", config(&[]).unwrap());
        assert!(config(&arguments(&["a\nb"])).is_err());
    }

    #[test]
    fn a_serial_console_is_known_by_its_argument() {
        let check = |argument: &str, expect: Option<(u8, u32)>| {
            let expect = expect.map(|(unit, speed)| Serial { unit, speed });
            assert_eq!(Serial::of(argument), expect, "{argument}");
        };
        check("console=ttyS0", Some((0, 115_200)));
        check("console=ttyS1,57600n8", Some((1, 57_600)));
        check("console=ttyAMA0", None);
        check("console=tty0", None);
        check("console=ttySx", None);
    }

    #[test]
    fn the_core_image_is_found_where_it_was_put_and_the_table_stays() {
        let mut boot = vec![0xeb; SECTOR];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let code = BiosCode::new(boot, vec![7; 2048]).unwrap();
        let mut mbr = [0; SECTOR];
        mbr[place::CODE_END..].fill(0x11);
        let (sector, core) = code.installed(&mbr, 2048);
        assert_eq!(sector[0x5c..0x64], 2048u64.to_le_bytes());
        assert_eq!(sector[0x66..0x68], [0x90, 0x90]);
        assert_eq!(sector[place::CODE_END..], mbr[place::CODE_END..]);
        assert_eq!(core[0x1f4..0x1fc], 2049u64.to_le_bytes());
        assert!(BiosCode::new(vec![0; SECTOR], vec![7; 2048]).is_err());
    }

    /// The offsets hold in the files of the GRUB that is installed here.
    #[test]
    fn the_installed_grub_has_its_fields_where_they_are_written() {
        let boot = std::fs::read(Path::new(GRUB_MODULES).join("i386-pc/boot.img")).unwrap();
        assert_eq!(boot[place::CORE_SECTOR..][..8], 1u64.to_le_bytes());
        // A short jump, over a test of the drive's number.
        assert_eq!(boot[place::DRIVE_CHECK], 0xeb);
        let disk = std::fs::read(Path::new(GRUB_MODULES).join("i386-pc/diskboot.img")).unwrap();
        assert_eq!(disk[place::SECOND_SECTOR..][..8], 2u64.to_le_bytes());
    }
}
