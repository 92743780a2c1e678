//! Hands one module file to the kernel. Behaviour does not live here: what is loaded, and when, is decided above.
//!
//! Three ways in, by preference: the kernel reads the file itself (`finit_module`), also a compressed one if it was
//! built to (Linux 5.17, CONFIG_MODULE_DECOMPRESS); otherwise the file is unpacked in this process and handed over
//! as a buffer (`init_module`). Signatures stand inside the image and are checked by the kernel in each of them.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use lzma_rust2::XzReader;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};
use ruzstd::decoding::StreamingDecoder;

use super::plan::Compression;

/// The largest image that is unpacked here. The largest of a distribution (amdgpu, with debug symbols) is near 100 MiB.
const MAX_IMAGE: u64 = 256 << 20;

/// The largest dictionary (xz) or window (zstd) that a module may ask for; `xz -9` takes 64 MiB.
const MAX_WINDOW: u64 = 128 << 20;

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h, which nix does not name.
const COMPRESSED_FILE: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// What takes modules: the kernel, or a recorder in tests.
pub(super) trait Kernel: Send + Sync {
    /// Loads the module in `file`; returns when its init function has returned.
    fn insert(&self, file: &Path, parameters: &CStr) -> Result<Inserted, InsertError>;
}

/// What became of an accepted module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    Now,
    /// It was in the kernel already.
    Already,
}

/// Why one module file did not become part of the kernel.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// The file could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The module file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is in no compression that is read here.
    #[error("{} is neither .ko, .ko.xz nor .ko.zst", path.display())]
    Format {
        /// The module file.
        path: PathBuf,
    },
    /// The file does not unpack.
    #[error("cannot unpack {}", path.display())]
    Unpack {
        /// The module file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the image.
    #[error("{}", refusal(*errno))]
    Refused {
        /// What finit_module(2) said.
        errno: Errno,
    },
}

impl InsertError {
    /// The driver looked and found no hardware of its own: no fault of anyone.
    pub(super) fn is_no_such_device(&self) -> bool {
        matches!(self, Self::Refused { errno: Errno::ENODEV })
    }
}

/// What an errno of finit_module(2) means; the bare number misleads (ENOENT is not a missing file here).
fn refusal(errno: Errno) -> String {
    match errno {
        Errno::ENOEXEC => "the kernel refused it: not built for this kernel (ENOEXEC)".into(),
        Errno::ENOENT => "the kernel refused it: it uses a symbol that no loaded module has (ENOENT)".into(),
        Errno::ENODEV => "its driver found no hardware of its own (ENODEV)".into(),
        Errno::EKEYREJECTED | Errno::ENOKEY => {
            format!("the kernel refused it: its signature is missing or not by a trusted key ({errno:?})")
        }
        Errno::EPERM => "the kernel refused it: loading modules is not permitted (EPERM; kernel.modules_disabled, \
                         lockdown, or not root)"
            .into(),
        Errno::EINVAL => "the kernel refused it: an invalid parameter or image (EINVAL)".into(),
        Errno::ENOSYS => "this kernel has no loadable modules (ENOSYS)".into(),
        other => format!("the kernel refused it: {} ({other:?})", other.desc()),
    }
}

/// The running kernel.
#[derive(Debug)]
pub(super) struct RunningKernel {
    /// /sys/module. The first modules may be loaded before /sys is mounted, so it is looked at when it matters.
    sys_module: PathBuf,
}

impl RunningKernel {
    pub(super) fn new(sys_module: &Path) -> Self {
        Self { sys_module: sys_module.to_owned() }
    }

    /// Whether the kernel unpacks this itself; it was built for one compression at most.
    fn unpacks(&self, compression: Compression) -> bool {
        std::fs::read_to_string(self.sys_module.join("compression"))
            .is_ok_and(|word| compression.kernel_word() == Some(word.trim()))
    }
}

impl Kernel for RunningKernel {
    fn insert(&self, path: &Path, parameters: &CStr) -> Result<Inserted, InsertError> {
        let Some(compression) = Compression::of(path) else {
            return Err(InsertError::Format { path: path.into() });
        };
        let file =
            File::open(path).map_err(|source| InsertError::Read { path: path.into(), source })?;
        if compression == Compression::None {
            return verdict(finit_module(&file, parameters, ModuleInitFlags::empty()));
        }
        if self.unpacks(compression) {
            match finit_module(&file, parameters, COMPRESSED_FILE) {
                // The word in sysfs and the code behind it may disagree; unpacking it here always works.
                Err(Errno::EOPNOTSUPP) => {}
                result => return verdict(result),
            }
        }
        let image = unpack(compression, BufReader::new(file))
            .map_err(|source| InsertError::Unpack { path: path.into(), source })?;
        verdict(init_module(&image, parameters))
    }
}

fn verdict(result: nix::Result<()>) -> Result<Inserted, InsertError> {
    match result {
        Ok(()) => Ok(Inserted::Now),
        Err(Errno::EEXIST) => Ok(Inserted::Already),
        Err(errno) => Err(InsertError::Refused { errno }),
    }
}

/// Unpacks a whole module into memory, within bounds.
fn unpack(compression: Compression, packed: impl Read) -> io::Result<Vec<u8>> {
    let window_kib = u32::try_from(MAX_WINDOW >> 10).unwrap_or(u32::MAX);
    match compression {
        Compression::None => read_bounded(packed),
        Compression::Xz => read_bounded(XzReader::new_mem_limit(packed, true, window_kib)),
        Compression::Zstd => unpack_zstd(packed),
    }
}

/// One frame, whole: unlike the reader for xz, this one checks neither the checksum nor what stands behind the frame.
fn unpack_zstd(packed: impl Read) -> io::Result<Vec<u8>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut decoder = StreamingDecoder::new_with_max_window_size(packed, MAX_WINDOW)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let image = read_bounded(&mut decoder)?;
    let (mut rest, frame) = decoder.into_parts();
    if let Some(written) = frame.get_checksum_from_data()
        && frame.get_calculated_checksum() != Some(written)
    {
        return Err(invalid("the checksum of the zstd frame is wrong"));
    }
    if rest.read(&mut [0])? != 0 {
        return Err(invalid("more stands behind the zstd frame"));
    }
    Ok(image)
}

fn read_bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut image = Vec::new();
    from.take(MAX_IMAGE + 1).read_to_end(&mut image)?;
    if image.len() as u64 > MAX_IMAGE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the unpacked module is over 256 MiB",
        ));
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// Something like a module: compressible in places, not in others, over one compression block long.
    fn image() -> Vec<u8> {
        let mut state = 1_u32;
        (0..300_000_u32)
            .map(|n| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if n % 4096 < 2048 { state.to_be_bytes()[0] } else { 0x90 }
            })
            .collect()
    }

    fn pack(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn what_the_tools_pack_unpacks() {
        let image = image();
        let check = |compression, program: &str, args: &[&str]| {
            let packed = pack(program, args, &image);
            assert!(packed.len() < image.len());
            assert!(unpack(compression, &packed[..]).unwrap() == image, "{program} {args:?}");
        };
        // As the kernel's own build packs modules (scripts/Makefile.modinst).
        check(Compression::Xz, "xz", &["--check=crc32", "--lzma2=dict=1MiB"]);
        check(Compression::Xz, "xz", &["-9", "--check=crc64"]);
        check(Compression::Zstd, "zstd", &["-q"]);
        check(Compression::Zstd, "zstd", &["-q", "--ultra", "-20"]);
    }

    #[test]
    fn damage_is_an_error() {
        let check = |compression, program: &str, args: &[&str]| {
            let packed = pack(program, args, &image());
            let cut = &packed[..packed.len() / 2];
            assert!(unpack(compression, cut).is_err(), "{program} cut");
            let mut flipped = packed.clone();
            flipped[packed.len() / 2] ^= 0xff;
            assert!(unpack(compression, &flipped[..]).is_err(), "{program} flipped");
            assert!(unpack(compression, &b"not packed at all"[..]).is_err(), "{program} garbage");
        };
        check(Compression::Xz, "xz", &["--check=crc32"]);
        check(Compression::Zstd, "zstd", &["-q", "--check"]);

        let two_frames = pack("zstd", &["-q"], &image()).repeat(2);
        assert!(unpack(Compression::Zstd, &two_frames[..]).is_err());
    }

    #[test]
    fn the_kernel_says_what_it_unpacks() {
        let sys = tempfile::tempdir().unwrap();
        assert!(!RunningKernel::new(sys.path()).unpacks(Compression::Xz));
        std::fs::write(sys.path().join("compression"), "zstd\n").unwrap();
        let kernel = RunningKernel::new(sys.path());
        assert!(kernel.unpacks(Compression::Zstd));
        assert!(!kernel.unpacks(Compression::Xz));
        assert!(!kernel.unpacks(Compression::None));
    }

    #[test]
    fn files_that_cannot_be_modules() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = RunningKernel::new(dir.path());
        let check = |name: &str, content: Option<&[u8]>, expect: &str| {
            let path = dir.path().join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = kernel.insert(&path, c"").unwrap_err().to_string();
            assert_eq!(error, expect.replace("PATH", &path.display().to_string()));
        };
        check("absent.ko", None, "cannot read PATH");
        check("a.ko.gz", Some(b""), "PATH is neither .ko, .ko.xz nor .ko.zst");
        check("a.ko.xz", Some(b"no"), "cannot unpack PATH");
    }

    #[test]
    fn refusals_say_what_they_mean() {
        for errno in [
            Errno::ENOEXEC,
            Errno::ENOENT,
            Errno::ENODEV,
            Errno::EKEYREJECTED,
            Errno::EPERM,
            Errno::ENOMEM,
        ] {
            let said = refusal(errno);
            assert!(said.contains(&format!("{errno:?}")), "{said}");
        }
        assert!(InsertError::Refused { errno: Errno::ENODEV }.is_no_such_device());
        assert!(!InsertError::Refused { errno: Errno::ENOENT }.is_no_such_device());
    }

    #[test]
    fn already_there_is_fine() {
        assert_eq!(verdict(Err(Errno::EEXIST)).unwrap(), Inserted::Already);
        assert_eq!(verdict(Ok(())).unwrap(), Inserted::Now);
        assert!(verdict(Err(Errno::ENOEXEC)).is_err());
    }
}
