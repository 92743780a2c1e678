//! Boots an image in QEMU: a [`VmSpec`] says what the machine is, a [`Vm`] is one that runs.

mod accel;
mod arguments;
mod console;
mod leash;
mod qmp;
mod running;

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

pub use accel::Accel;
pub use console::Console;
pub use leash::Leash;
pub use running::{Next, Vm, VmError, VmErrorKind};

/// A virtual machine to start.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// What it boots.
    pub boot: Boot,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// virtio disks, in order: the first is `/dev/vda`.
    pub disks: Vec<Disk>,
    /// The network card.
    pub network: Network,
    /// What runs the guest's instructions.
    pub accel: Accel,
    /// Keeps QEMU out of the terminal's process group, so that Ctrl-C reaches the caller alone and
    /// the caller can shut the node down in order.
    pub detached: bool,
}

/// What a machine boots.
#[derive(Debug, Clone)]
pub enum Boot {
    /// A kernel, without firmware.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// The initramfs.
        initramfs: PathBuf,
        /// Kernel arguments beyond the console's.
        append: Vec<String>,
    },
    /// The first disk.
    Disk(Firmware),
    /// A CD.
    Cd(PathBuf, Firmware),
}

/// What a machine runs before it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, which QEMU brings.
    Bios,
    /// OVMF, from this file.
    Uefi(PathBuf),
}

/// Where the distributions put an OVMF that keeps its variables in memory (Debian, Ubuntu, Arch, SUSE).
const OVMF: [&str; 4] = [
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/OVMF/OVMF.fd",
    "/usr/share/ovmf/x64/OVMF.4m.fd",
    "/usr/share/qemu/ovmf-x86_64.bin",
];

impl Firmware {
    /// UEFI with the OVMF of this machine, if it has one.
    #[must_use]
    pub fn uefi() -> Option<Self> {
        OVMF.iter().map(PathBuf::from).find(|path| path.exists()).map(Self::Uefi)
    }
}

/// A disk of the machine.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The image file; one that ends in `.qcow2` is of that format, any other is raw.
    pub path: PathBuf,
    /// The serial number that the guest reads, which `/dev/disk/by-id` shows.
    pub serial: Option<String>,
}

/// The machine's network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// QEMU's own network with a DHCP server, a resolver and a way out. Each guest TCP port listed is
    /// reachable at a free port of 127.0.0.1: [`Vm::forwarded`].
    User {
        /// Guest ports.
        forward: Vec<u16>,
    },
    /// A card with a carrier and nobody at the other end.
    Silent,
    /// No card.
    None,
}

impl Disk {
    /// A disk that lies at `path`; a sparse, blank one of `size` bytes is made if nothing is there. The node will keep its key on
    /// it, so it is for its owner alone.
    ///
    /// # Errors
    /// If the file cannot be made, or it is to be qcow2 and `qemu-img` fails.
    pub fn at(path: &Path, size: u64) -> io::Result<Self> {
        if !path.exists() {
            if is_qcow2(path) {
                let made = Command::new("qemu-img")
                    .args(["create", "-q", "-f", "qcow2"])
                    .arg(path)
                    .arg(size.to_string())
                    .status()?;
                if !made.success() {
                    return Err(io::Error::other(format!("qemu-img create: {made}")));
                }
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
            } else {
                File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)?
                    .set_len(size)?;
            }
        }
        Ok(Self { path: path.to_owned(), serial: None })
    }

    /// A disk of `size` bytes, or as large as the image if that is larger, that starts as a copy of `image`; of the same
    /// format as that, and as [`Disk::at`] makes them for its owner alone.
    ///
    /// # Errors
    /// If the copy cannot be made, or it is qcow2 and `qemu-img` fails.
    pub fn copy(image: &Path, path: &Path, size: u64) -> io::Result<Self> {
        let mut from = File::open(image)?;
        let mut to = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let filled = io::copy(&mut from, &mut to).and_then(|copied| grow(path, &to, copied, size));
        if filled.is_err() {
            // Half a copy must not be taken for a disk the next time.
            let _ = fs::remove_file(path);
        }
        filled.map(|()| Self { path: path.to_owned(), serial: None })
    }
}

/// Makes a disk larger that was just copied, if it is smaller.
fn grow(path: &Path, file: &File, copied: u64, size: u64) -> io::Result<()> {
    if !is_qcow2(path) {
        return file.set_len(size.max(copied));
    }
    let grown =
        Command::new("qemu-img").args(["resize", "-q"]).arg(path).arg(size.to_string()).status()?;
    if grown.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("qemu-img resize: {grown}")))
    }
}

fn is_qcow2(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "qcow2")
}
