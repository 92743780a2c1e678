//! What every VM test starts from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keel_image::ImageDir;
use keel_image::vm::{Accel, Network, VmSpec};
use serde::Deserialize;

/// The longest that anything in a guest may take: several times what it takes under QEMU's
/// translator on two busy processors.
pub(crate) const LONG: Duration = Duration::from_secs(240);

/// `target/vm/inputs.json`: what images are built from.
#[derive(Debug, Deserialize)]
pub(crate) struct Inputs {
    pub(crate) osctl: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) payload: Vec<String>,
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn made(path: &str) -> PathBuf {
    let path = repository().join("target/vm").join(path);
    assert!(path.exists(), "no {}: run `cargo xtask vm-image`", path.display());
    path
}

pub(crate) fn inputs() -> Inputs {
    serde_json::from_slice(&fs::read(made("inputs.json")).unwrap()).unwrap()
}

impl Inputs {
    /// `osctl image build` with these and more arguments.
    pub(crate) fn build(&self, out: &Path, more: &[&str]) -> ImageDir {
        let built = Command::new(&self.osctl)
            .args(["image", "build", "--payload", &self.payload.join(",")])
            .arg("--kernel")
            .arg(&self.kernel)
            .arg("--modules")
            .arg(&self.modules)
            .arg("-o")
            .arg(out)
            .args(more)
            .current_dir(repository())
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        ImageDir::open(out).unwrap()
    }
}

/// A machine that boots an image, with nothing else to it.
pub(crate) fn machine(image: &ImageDir) -> VmSpec {
    VmSpec {
        kernel: image.kernel.clone(),
        initramfs: image.initramfs.clone(),
        memory: 1024,
        cpus: 2,
        disks: Vec::new(),
        network: Network::None,
        append: image.manifest.arguments.clone(),
        accel: Accel::detect(),
        detached: false,
    }
}
