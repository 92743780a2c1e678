//! Limine on an image, from the files of a release that the user unpacked: Debian has no package of it.

use std::path::{Path, PathBuf};

use super::{BootFile, Booted, FirmwareError, INITRAMFS, Identity, KERNEL, loader_file, tool};
use crate::watch::Watch;

const NAME: &str = "Limine";

/// The number of the partition that takes Limine's second stage.
pub(super) const BIOS_PARTITION: u32 = 1;

/// A release's files (Limine's USAGE.md).
#[derive(Debug)]
pub(super) struct Limine {
    dir: PathBuf,
    efi: Vec<u8>,
    bios: Vec<u8>,
}

impl Limine {
    pub(super) fn open(dir: &Path) -> Result<Self, FirmwareError> {
        let efi = loader_file(NAME, &dir.join("BOOTX64.EFI"))?;
        let bios = loader_file(NAME, &dir.join("limine-bios.sys"))?;
        // Run once the image is there: better to know now that it is missing.
        loader_file(NAME, &dir.join("limine"))?;
        Ok(Self { dir: dir.to_owned(), efi, bios })
    }

    /// What the boot volume holds.
    pub(super) fn volume<'a>(
        &self,
        booted: &Booted<'a>,
    ) -> Result<Vec<BootFile<'a>>, FirmwareError> {
        Ok(vec![
            BootFile::new("EFI/BOOT/BOOTX64.EFI", self.efi.clone()),
            BootFile::new("boot/limine/limine-bios.sys", self.bios.clone()),
            BootFile::new("boot/limine/limine.conf", config(booted.arguments)?.into_bytes()),
            BootFile::new(INITRAMFS, booted.initramfs),
            BootFile::new(KERNEL, booted.kernel),
        ])
    }

    /// The boot images of a CD: for BIOS, for UEFI.
    pub(super) fn cd(&self) -> Result<[Vec<u8>; 2], FirmwareError> {
        let file = |name: &str| loader_file(NAME, &self.dir.join(name));
        Ok([file("limine-bios-cd.bin")?, file("limine-uefi-cd.bin")?])
    }

    /// Lets Limine's own tool write what BIOS runs into the image.
    pub(super) fn bios_install(
        &self,
        image: &Path,
        partition: Option<u32>,
        watch: &dyn Watch,
    ) -> Result<(), FirmwareError> {
        let program = self.dir.join("limine");
        let mut tool =
            tool::command(&program.to_string_lossy(), "run `make` in Limine's directory");
        tool.command.arg("bios-install").arg(image);
        tool.command.args(partition.map(|number| number.to_string()));
        tool.run(watch)
    }
}

/// `limine.conf`: one entry, booted at once.
pub(super) fn config(arguments: &[String]) -> Result<String, FirmwareError> {
    // A value ends with its line; nothing is quoted, and ${…} is a macro.
    let unfit =
        |argument: &&String| argument.chars().any(char::is_control) || argument.contains("${");
    if let Some(argument) = arguments.iter().find(unfit) {
        return Err(FirmwareError::Argument(argument.clone()));
    }
    let serial = arguments.iter().any(|argument| argument.starts_with("console=ttyS"));
    let serial = if serial { "serial: yes\n" } else { "" };
    let cmdline = arguments.join(" ");
    Ok(format!(
        "# Written by `osctl image build`; kernel arguments come from the machine config.\n\
         timeout: 0\n{serial}\n/Keel\n    protocol: linux\n    kernel_path: boot():/{KERNEL}\n    \
         module_path: boot():/{INITRAMFS}\n    cmdline: {cmdline}\n"
    ))
}

/// What makes an image of Limine's another than GRUB's.
pub(super) fn identity(booted: &Booted<'_>) -> Identity {
    Identity::of(booted, NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_carries_the_kernel_arguments() {
        let all = ["console=ttyS0", "quiet", "panic=10"].map(str::to_owned);
        insta::assert_snapshot!("limine_conf", config(&all).unwrap());
        assert!(config(&["x=${ARCH}".to_owned()]).is_err());
        assert!(!config(&[]).unwrap().contains("serial"));
    }
}
