//! What every VM test starts from.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keel_image::ImageDir;
use keel_image::vm::{Accel, Boot, Disk, Network, Vm, VmSpec};
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

/// Something that `cargo xtask vm-image` made.
pub(crate) fn made(path: &str) -> PathBuf {
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
        boot: Boot::Kernel {
            kernel: image.kernel.clone(),
            initramfs: image.initramfs.clone(),
            append: image.manifest.arguments.clone(),
        },
        memory: 1024,
        cpus: 2,
        disks: Vec::new(),
        network: Network::None,
        accel: Accel::detect(),
        detached: false,
    }
}

/// Where the image is that the demo boots.
pub(crate) fn image_dir() -> PathBuf {
    made("image")
}

/// The image that the demo boots.
pub(crate) fn image() -> ImageDir {
    ImageDir::open(&image_dir()).unwrap()
}

/// The node's API.
pub(crate) const API_PORT: u16 = 50051;

/// A node as the demo has it: that machine config, a disk, a network with a DHCP server.
pub(crate) fn node(image: &ImageDir, disks: &[&Path]) -> VmSpec {
    let mut spec = machine(image);
    spec.disks = disks.iter().map(|path| Disk { path: path.into(), serial: None }).collect();
    spec.network = Network::User { forward: vec![API_PORT] };
    append(&mut spec, "keel.report=json");
    spec
}

/// Adds a kernel argument.
pub(crate) fn append(spec: &mut VmSpec, argument: &str) {
    match &mut spec.boot {
        Boot::Kernel { append, .. } => append.push(argument.to_owned()),
        other => panic!("{other:?} has its arguments from the image"),
    }
}

/// What init says of a boot.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) reached: bool,
    pub(crate) degraded: Vec<Degraded>,
    pub(crate) digest: String,
    pub(crate) machine_id: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) fingerprint: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Degraded {
    pub(crate) unit: String,
    pub(crate) why: String,
}

impl Report {
    /// Why that unit is degraded; it has to be.
    pub(crate) fn why(&self, unit: &str) -> &str {
        let found = self.degraded.iter().find(|degraded| degraded.unit == unit);
        found
            .map(|degraded| degraded.why.as_str())
            .unwrap_or_else(|| panic!("{unit} is well: {self:#?}"))
    }
}

/// Boots a node and waits until init reports on it.
pub(crate) fn boot(spec: &VmSpec) -> (Vm, Report) {
    let mut vm = Vm::start(spec).unwrap();
    let report = next_report(&mut vm);
    (vm, report)
}

/// Waits until init reports on a boot.
pub(crate) fn next_report(vm: &mut Vm) -> Report {
    let line = vm.wait_for("KEEL-REPORT ", LONG).unwrap();
    let (_, report) = line.split_once("KEEL-REPORT ").unwrap();
    serde_json::from_str(report).unwrap()
}

/// Keys and certificates, made by the openssl program in a folder: the node's own, and clients of the cluster's CA and of another.
pub(crate) fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
        let made = made.unwrap();
        assert!(
            made.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
    };
    let key =
        |name: &str| openssl(&format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"));
    fs::write(folder.join("client.ext"), "extendedKeyUsage = clientAuth\n").unwrap();
    for name in ["node", "cluster", "other"] {
        key(name);
        openssl(&format!(
            "req -x509 -new -key {name}.key -subj /CN={name} -days 2 -out {name}.crt"
        ));
    }
    for (name, role, ca) in
        [("ada", "admin", "cluster"), ("vic", "viewer", "cluster"), ("eve", "admin", "other")]
    {
        key(name);
        openssl(&format!(
            "req -new -key {name}.key -subj /O=keel:{role}/CN={name} -out {name}.csr"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -days 1 -extfile client.ext -out {name}.crt"
        ));
    }
}

/// Shuts a node down in order. Returns its whole console.
pub(crate) fn shut_down(mut vm: Vm) -> Vec<String> {
    vm.power_button().unwrap();
    vm.wait_off(LONG).unwrap()
}

/// A sparse, blank file.
pub(crate) fn blank(path: &Path, size: u64) {
    File::create_new(path).unwrap().set_len(size).unwrap();
}

/// A checksum of a whole disk.
pub(crate) fn sum(disk: &Path) -> String {
    let out = Command::new("b2sum").arg(disk).output().unwrap();
    String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Runs a tool that has to succeed, and returns what it printed.
pub(crate) fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{said}{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    said
}

/// The data partition of a raw disk, as e2fsprogs take it: a file and where in it. Partition entry 1
/// of the GPT, first block (UEFI 2.10, table 5.6).
pub(crate) fn data_partition(disk: &Path) -> String {
    let mut first = [0; 8];
    File::open(disk).unwrap().read_exact_at(&mut first, 2 * 512 + 32).unwrap();
    format!("{}?offset={}", disk.display(), u64::from_le_bytes(first) * 512)
}
