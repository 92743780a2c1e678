//! Which accelerator to trust. `/dev/kvm` that opens proves little: under some hypervisors a guest
//! hangs at its first instruction. So a guest of 512 bytes is booted, and only its answer counts.

use std::env;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use super::arguments::QEMU;

/// What runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The processor, by the kernel's KVM.
    Kvm,
    /// QEMU's translator: works everywhere, several times slower.
    Tcg,
}

/// A boot sector: `mov al, 16; out 0xf4, al; jmp $`. QEMU's isa-debug-exit device turns that write
/// into its exit status, `16 * 2 + 1`.
const ANSWER: [u8; 6] = [0xb0, 0x10, 0xe6, 0xf4, 0xeb, 0xfe];
const ANSWERED: i32 = 33;

/// The probe's guest answers in a fraction of a second where KVM works.
const PATIENCE: Duration = Duration::from_secs(3);

impl Accel {
    /// KVM if it runs a guest here, else the translator. `KEEL_ACCEL=kvm|tcg` decides without a probe.
    #[must_use]
    pub fn detect() -> Self {
        static FOUND: OnceLock<Accel> = OnceLock::new();
        *FOUND.get_or_init(|| match env::var("KEEL_ACCEL").as_deref() {
            Ok("kvm") => Self::Kvm,
            Ok("tcg") => Self::Tcg,
            _ if answers(Self::Kvm) => Self::Kvm,
            _ => Self::Tcg,
        })
    }

    /// The value of `KEEL_ACCEL` that chooses it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Boots the answering guest.
fn answers(accel: Accel) -> bool {
    if accel == Accel::Kvm && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    probe(accel).is_ok_and(|status| status == Some(ANSWERED))
}

fn probe(accel: Accel) -> std::io::Result<Option<i32>> {
    let mut sector = [0; 512];
    sector[..ANSWER.len()].copy_from_slice(&ANSWER);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&sector)?;
    let mut drive = std::ffi::OsString::from("format=raw,if=floppy,readonly=on,file=");
    drive.push(file.path());
    let mut child = Command::new(QEMU)
        .args([
            "-accel",
            accel.name(),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-m",
            "16",
        ])
        .args([
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=4",
            "-boot",
            "a",
            "-no-reboot",
            "-drive",
        ])
        .arg(drive)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // std has no wait with a deadline; but a pipe that the guest's machine holds ends with it.
    let (ended, has_ended) = mpsc::channel();
    if let Some(mut held) = child.stdout.take() {
        thread::spawn(move || {
            let _ = ended.send(held.read_to_end(&mut Vec::new()));
        });
    }
    if has_ended.recv_timeout(PATIENCE).is_err() {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    Ok(child.wait()?.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The translator always works, so the probe's guest and its answer are right.
    #[test]
    fn the_guest_answers_under_the_translator() {
        assert!(answers(Accel::Tcg));
    }
}
