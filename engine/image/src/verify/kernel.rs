//! What a kernel file says of itself: the machine that it runs on, and its release.

use memchr::memmem;

use crate::elf;

/// What a kernel file says; nothing where its format does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    /// In the words of [`elf::Machine`].
    pub(super) machine: Option<String>,
    /// Such as `6.1.0-56-cloud-amd64`.
    pub(super) release: Option<String>,
}

/// Machines of PE files, which kernels with an EFI stub are.
const PE_MACHINES: [(u16, &str); 3] = [(0x8664, "x86-64"), (0xaa64, "arm64"), (0x5064, "riscv64")];

impl Kernel {
    /// Reads the header of a kernel.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        // The x86 boot protocol: header at 0x202, offset of the version at 0x20e, XLF_KERNEL_64 at 0x236.
        if bytes.get(0x202..0x206) == Some(b"HdrS") {
            let long = word(0x236).is_some_and(|flags| flags & 1 == 1);
            let version = word(0x20e).filter(|at| *at != 0).map(|at| usize::from(at) + 0x200);
            return Self {
                machine: long.then(|| "x86-64".to_owned()),
                release: version.and_then(|at| first_word(bytes.get(at..)?)),
            };
        }
        // arm64 and RISC-V images have their magic at 56; a PE header says it too, also that of a packed kernel.
        let machine = match bytes.get(56..60) {
            Some(b"ARM\x64") => Some("arm64".to_owned()),
            Some(b"RSC\x05") => Some("riscv64".to_owned()),
            _ => {
                pe_machine(bytes, word).or_else(|| Some(elf::read(bytes).ok()?.machine.to_string()))
            }
        };
        Self { release: machine.as_ref().and_then(|_| banner(bytes)), machine }
    }
}

fn pe_machine(bytes: &[u8], word: impl Fn(usize) -> Option<u16>) -> Option<String> {
    let header = usize::from(word(0x3c).filter(|_| bytes.starts_with(b"MZ"))?);
    let machine = word(header + 4).filter(|_| bytes.get(header..header + 4) == Some(b"PE\0\0"))?;
    let (_, name) = PE_MACHINES.iter().find(|(code, _)| *code == machine)?;
    Some((*name).to_owned())
}

/// The release in the banner of a kernel that is not packed.
fn banner(bytes: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    // The format string `Linux version %s` stands there too.
    let mut words =
        memmem::find_iter(bytes, BANNER).filter_map(|at| first_word(&bytes[at + BANNER.len()..]));
    words.find(|word| !word.starts_with('%'))
}

fn first_word(bytes: &[u8]) -> Option<String> {
    const LONGEST: usize = 64; // of a release: __NEW_UTS_LEN
    let word = bytes.iter().take(LONGEST).take_while(|byte| byte.is_ascii_graphic());
    let word: String = word.map(|byte| char::from(*byte)).collect();
    (!word.is_empty()).then_some(word)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The part of a bzImage that is read.
    pub(in super::super) fn x86_kernel(release: &str) -> Vec<u8> {
        let mut kernel = vec![0; 0x400];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        kernel[0x236] = 1;
        kernel[0x300..0x300 + release.len()].copy_from_slice(release.as_bytes());
        kernel
    }

    #[test]
    fn kernels_say_what_they_are() {
        let check = |bytes: &[u8], machine: Option<&str>, release: Option<&str>| {
            let expect =
                Kernel { machine: machine.map(str::to_owned), release: release.map(str::to_owned) };
            assert_eq!(Kernel::read(bytes), expect);
        };
        check(&x86_kernel("6.1.0-9 (build@host) #1"), Some("x86-64"), Some("6.1.0-9"));
        let mut arm = vec![0; 56];
        arm.extend(b"ARM\x64");
        arm.extend(b"Linux version %s\0Linux version 6.12.1 (gcc)");
        check(&arm, Some("arm64"), Some("6.12.1"));
        let mut pe = b"MZ".to_vec();
        pe.resize(0x3c, 0);
        pe.extend([0x40, 0, 0, 0]);
        pe.extend(b"PE\0\0\x64\x86");
        check(&pe, Some("x86-64"), None);
        check(b"a kernel", None, None);
        check(b"", None, None);
    }
}
