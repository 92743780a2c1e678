//! The kernel and programs that a demo node runs: real Debian packages, downloaded once and unpacked
//! into a cache (`$KEEL_CACHE`, else `~/.cache/keel`), never installed here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{self, Package};
use crate::command::{Failure, run};
use crate::keep;
use crate::progress::say;

/// The kernel for virtual machines. Debian gives each of its versions a package of its own, which
/// this one depends on.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Unpacked beside the kernel.
const PACKAGES: &[&str] = &["containerd", "runc", "libseccomp2"];

/// Programs of those packages that a node runs.
const UNPACKED: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "runc"];

/// Programs that are taken from this machine; setup has installed them.
const FROM_HOST: [&str; 4] = ["mount", "umount", "mkfs.ext4", "e2fsck"];

/// Whom this machine trusts: the authorities of Debian's package ca-certificates. A node that trusts nobody pulls no image.
const CA_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What a node image is made of, beside Keel itself.
#[derive(Debug, Clone)]
pub(crate) struct Kit {
    pub(crate) kernel: PathBuf,
    /// A root with `lib/modules` in it.
    pub(crate) modules: PathBuf,
    /// `name=path`, as `osctl image build --payload` takes it.
    pub(crate) payload: Vec<String>,
    /// Certificates of authorities, if this machine has any.
    pub(crate) ca_certificates: Option<PathBuf>,
}

/// Fetches what is missing or broken.
pub(crate) fn fetch() -> Result<Kit, Failure> {
    let mut packages = apt::candidates(&[&[KERNEL][..], PACKAGES].concat())?;
    let kernel = packages[0].first_dependency.take();
    let kernel = kernel.ok_or_else(|| Failure::new(format!("{KERNEL} depends on no kernel")))?;
    packages.splice(..1, apt::candidates(&[&kernel])?);
    let root = unpacked(&keep::cache()?, &packages)?;
    say(&format!("    kernel {kernel}, {}", root.display()));
    kit(&root)
}

/// The packages' files, in a root that is named after the packages' checksums.
fn unpacked(cache: &Path, packages: &[Package]) -> Result<PathBuf, Failure> {
    let key = packages.iter().map(|package| &package.sha256[..8]).collect::<Vec<_>>().join("-");
    keep::folder(cache, &key, |root, _| {
        let debs = cache.join("debs");
        fs::create_dir_all(&debs)
            .map_err(Failure::because(format!("cannot make {}", debs.display())))?;
        for package in packages {
            let deb = apt::download(package, &debs)?;
            run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(root))?;
        }
        Ok(())
    })
}

fn kit(root: &Path) -> Result<Kit, Failure> {
    let boot = root.join("boot");
    let mut kernels = fs::read_dir(&boot)
        .map_err(Failure::because(format!("cannot read {}", boot.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        });
    let kernel =
        kernels.next().ok_or_else(|| Failure::new(format!("no kernel in {}", boot.display())))?;
    let unpacked = UNPACKED.map(|name| program(root, name));
    let host = FROM_HOST.map(|name| program(Path::new("/"), name));
    Ok(Kit {
        kernel,
        modules: root.to_owned(),
        payload: unpacked.into_iter().chain(host).collect::<Result<_, _>>()?,
        ca_certificates: Some(PathBuf::from(CA_CERTIFICATES)).filter(|path| path.exists()),
    })
}

fn program(root: &Path, name: &str) -> Result<String, Failure> {
    let dirs = ["usr/bin", "usr/sbin", "bin", "sbin"];
    let path = dirs.iter().map(|dir| root.join(dir).join(name)).find(|path| path.exists());
    let path =
        path.ok_or_else(|| Failure::new(format!("no program {name} below {}", root.display())))?;
    Ok(format!("{name}={}", path.display()))
}
