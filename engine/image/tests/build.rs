//! Builds images from real programs of this host and checks what is on disk afterwards.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use keel_image::vm::Disk;
use keel_image::{
    BuildError, Firmware, Format, GRUB_MODULES, ImageDir, ImageSpec, Kubelet, Loader, Manifest,
    OpenErrorKind, Payload, Unwatched,
};

use inputs::{Inputs, files};

#[cfg(test)]
mod inputs {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use keel_image::{ImageSpec, NeededProgram, Needs, WantedModule};

    /// Inputs in a directory of their own: a static init, a config, units, a kernel with one module.
    pub(super) struct Inputs {
        pub(super) dir: tempfile::TempDir,
    }

    impl Inputs {
        pub(super) fn new() -> Self {
            let inputs = Self { dir: tempfile::tempdir().unwrap() };
            for dir in ["units/storage", "lib/modules/6.1/kernel/fs"] {
                fs::create_dir_all(inputs.at(dir)).unwrap();
            }
            let write = |path: &str, text: &str| fs::write(inputs.at(path), text).unwrap();
            write("init.c", "int main(void) { return 0; }");
            write("units/boot.toml", "description = \"all\"\n[target]\n");
            write("units/storage/data.toml", "description = \"data\"\n[target]\n");
            write("units/README", "not a unit");
            write("vmlinuz", "a kernel");
            write("lib/modules/6.1/modules.order", "");
            write("lib/modules/6.1/modules.dep", "kernel/fs/overlay.ko:\nkernel/fs/odd.ko:\n");
            write("lib/modules/6.1/kernel/fs/overlay.ko", "overlay");
            write("lib/modules/6.1/kernel/fs/odd.ko", "odd");
            inputs.gcc("init", &["-static"]);
            inputs
        }

        pub(super) fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        pub(super) fn gcc(&self, out: &str, args: &[&str]) {
            let status = Command::new("gcc")
                .args(args)
                .arg(self.at("init.c"))
                .arg("-o")
                .arg(self.at(out))
                .status()
                .unwrap();
            assert!(status.success());
        }

        pub(super) fn spec(&self) -> ImageSpec {
            ImageSpec {
                init: self.at("init"),
                config: "schema = 1\n".to_owned(),
                units: self.at("units"),
                kernel: self.at("vmlinuz"),
                modules: self.dir.path().to_owned(),
                needs: Needs {
                    modules: vec![WantedModule { name: "odd".into(), by: "kernel.modules".into() }],
                    arguments: vec!["quiet".into()],
                    api_port: 6443,
                    programs: vec![NeededProgram {
                        path: "/sbin/mount".into(),
                        unit: "mounter".into(),
                    }],
                    useful: Vec::new(),
                    kubelet: None,
                },
                payload: vec![
                    "mount=/bin/mount".parse().unwrap(),
                    "umount=/bin/umount".parse().unwrap(),
                ],
                ca_certificates: None,
                mtime: 0,
                firmware: None,
            }
        }
    }

    pub(super) fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
            .collect();
        files.sort();
        files
    }
}

fn build(spec: &ImageSpec, out: &Path) -> Result<Manifest, BuildError> {
    keel_image::build(spec, out, &Unwatched)
}

#[test]
fn two_builds_are_byte_identical() {
    // From two copies of the inputs: neither their place nor their age may show.
    let (one, two) = (Inputs::new(), Inputs::new());
    fs::copy(one.at("init"), two.at("init")).unwrap(); // a compiler need not be reproducible
    build(&one.spec(), &one.at("out")).unwrap();
    build(&two.spec(), &two.at("deep/out")).unwrap();
    let (one, two) = (files(&one.at("out")), files(&two.at("deep/out")));
    assert_eq!(
        one.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
        ["initramfs.zst", "manifest.json", "sbom.spdx.json", "vmlinuz"]
    );
    assert!(one == two, "the images differ");
}

/// A kubelet that does not take what it is told never joins anything.
#[test]
fn a_kubelet_gets_what_its_release_takes_or_no_image() {
    let inputs = Inputs::new();
    inputs.gcc("kubelet", &["-static"]);
    let mut program = fs::read(inputs.at("kubelet")).unwrap();
    program.extend(b"v1.33.1\0");
    fs::write(inputs.at("kubelet"), program).unwrap();
    let mut spec = inputs.spec();
    spec.payload.push(format!("kubelet={}", inputs.at("kubelet").display()).parse().unwrap());
    let arguments = vec![
        "--container-runtime=remote".to_owned(),
        "--container-runtime-endpoint=unix:///run/c".to_owned(),
    ];
    spec.needs.kubelet = Some(Kubelet { arguments, config: None });
    let refused = build(&spec, &inputs.at("out")).unwrap_err().to_string();
    let expect = "the units do not fit kubelet v1.33.1: it has no --container-runtime";
    assert!(refused.starts_with(expect), "{refused}");
    assert!(!inputs.at("out/manifest.json").exists());
    if let Some(kubelet) = &mut spec.needs.kubelet {
        kubelet.arguments.remove(0);
    }
    build(&spec, &inputs.at("out")).unwrap();
}

fn firmware(formats: &[Format]) -> Option<Firmware> {
    let loader = Loader::Grub(GRUB_MODULES.into());
    Some(Firmware { formats: formats.to_vec(), loader })
}

/// Partition tables, filesystems, boot loaders: all that has a GUID or a time of its own.
#[test]
fn two_builds_for_firmware_are_byte_identical_and_what_is_not_asked_for_goes() {
    let (one, two) = (Inputs::new(), Inputs::new());
    fs::copy(one.at("init"), two.at("init")).unwrap();
    let build_into = |inputs: &Inputs, out: &str| {
        let spec = ImageSpec { firmware: firmware(&Format::ALL), ..inputs.spec() };
        (build(&spec, &inputs.at(out)).unwrap(), files(&inputs.at(out)))
    };
    let ((manifest, first), (_, second)) = (build_into(&one, "out"), build_into(&two, "deep/out"));
    for ((name, first), (_, second)) in first.iter().zip(&second) {
        assert!(first == second, "{name} differs");
    }
    let names: Vec<_> = first.iter().map(|(name, _)| name.as_str()).collect();
    let images = ["keel.img", "keel.iso", "keel.qcow2"];
    let rest = ["manifest.json", "sbom.spdx.json", "vmlinuz"];
    assert_eq!(names, [&["initramfs.zst"][..], &images, &rest].concat());
    let listed: Vec<_> = manifest.firmware.iter().map(|blob| blob.file.as_str()).collect();
    assert_eq!(listed, ["keel.img", "keel.qcow2", "keel.iso"]);

    // What qemu-img writes depends on the disk's bytes, and not on which of them the filesystem keeps as holes.
    let (full, again) = (one.at("full.img"), one.at("again.qcow2"));
    let run = |program: &mut Command| assert!(program.status().unwrap().success(), "{program:?}");
    run(Command::new("cp").arg("--sparse=never").arg(one.at("out/keel.img")).arg(&full));
    let convert = ["convert", "-f", "raw", "-O", "qcow2"];
    run(Command::new("qemu-img").args(convert).arg(&full).arg(&again));
    assert!(fs::read(&again).unwrap() == fs::read(one.at("out/keel.qcow2")).unwrap());

    let verified =
        Command::new("sgdisk").arg("--verify").arg(one.at("out/keel.img")).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(said.contains("No problems found"), "{said}");

    build(&one.spec(), &one.at("out")).unwrap();
    let left = files(&one.at("out"));
    assert!(!left.iter().any(|(name, _)| name.starts_with("keel.")), "{left:?}");
}

#[test]
fn the_image_holds_what_was_asked_for_and_what_that_needs() {
    let inputs = Inputs::new();
    let manifest = build(&inputs.spec(), &inputs.at("out")).unwrap();
    assert_eq!(
        (manifest.arguments.as_slice(), manifest.api_port),
        (&["quiet".to_owned()][..], 6443)
    );
    let why = |path: &str| manifest.files.iter().find(|f| f.path == path).map(|f| f.why.as_str());
    assert_eq!(why("/init"), Some("init"));
    assert_eq!(why("/etc/keel/config.toml"), Some("machine config"));
    assert_eq!(why("/etc/keel/units/storage/data.toml"), Some("unit"));
    assert_eq!(why("/etc/keel/units/README"), None);
    assert_eq!(why("/usr/bin/mount"), Some("payload mount"));
    assert_eq!(why("/usr/lib/libmount.so.1"), Some("library of mount"));
    assert_eq!(why("/usr/lib/ld-linux-x86-64.so.2"), Some("library of mount"));
    assert_eq!(why("/usr/lib/modules/6.1/kernel/fs/odd.ko"), Some("module: kernel.modules"));
    assert_eq!(why("/usr/lib/modules/6.1/kernel/fs/overlay.ko"), Some("module: default set"));
    assert_eq!(ImageDir::open(&inputs.at("out")).unwrap().manifest, manifest);
}

/// The machine config may hold secrets, and the data disk will hold the node's key.
#[test]
fn what_holds_secrets_is_for_its_owner_alone() {
    let inputs = Inputs::new();
    let out = inputs.at("out");
    // An image of before, which others could read.
    fs::create_dir(&out).unwrap();
    fs::write(out.join("initramfs.zst"), "old").unwrap();
    let formats = Format::ALL;
    let spec = ImageSpec { firmware: firmware(&formats), ..inputs.spec() };
    let manifest = build(&spec, &out).unwrap();
    let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
    for image in formats.map(Format::file).into_iter().chain(["initramfs.zst"]) {
        assert_eq!(mode(image), 0o600, "{image}");
    }
    for path in ["/etc/keel/config.toml", "/etc/keel/units/boot.toml"] {
        let taken = manifest.files.iter().find(|f| f.path == path).unwrap();
        assert_eq!(taken.mode, "0600", "{path}");
    }
    for disk in ["disk.img", "disk.qcow2"] {
        Disk::at(&out.join(disk), 1 << 20).unwrap();
        assert_eq!(mode(disk), 0o600, "{disk}");
    }
    // Also when somebody opened up the image.
    for (image, disk) in [("keel.img", "keel.run.img"), ("keel.qcow2", "keel.run.qcow2")] {
        fs::set_permissions(out.join(image), fs::Permissions::from_mode(0o644)).unwrap();
        Disk::copy(&out.join(image), &out.join(disk), 1 << 30).unwrap();
        assert_eq!(mode(disk), 0o600, "{disk}");
    }
    let before = fs::read(out.join("disk.img")).unwrap();
    assert!(Disk::copy(&out.join("keel.img"), &out.join("disk.img"), 1 << 30).is_err());
    assert!(fs::read(out.join("disk.img")).unwrap() == before, "a disk that is there is kept");
}

/// The image's units are those that `osctl validate` has seen, and no others.
#[test]
fn units_are_found_as_everywhere_else() {
    let inputs = Inputs::new();
    let units = |path: &str| inputs.at("units").join(path);
    fs::write(units(".draft.toml"), "not TOML").unwrap();
    fs::create_dir(inputs.at("more")).unwrap();
    fs::write(inputs.at("more/linked.toml"), "[target]\n").unwrap();
    symlink(inputs.at("more"), units("more")).unwrap();
    let manifest = build(&inputs.spec(), &inputs.at("out")).unwrap();
    let taken = manifest.files.iter().filter_map(|f| f.path.strip_prefix("/etc/keel/units/"));
    let taken: Vec<_> = taken.collect();
    assert_eq!(taken, ["boot.toml", "more/linked.toml", "storage/data.toml"]);
}

/// GNU cpio and zstd unpack it; a program on it runs in a chroot with nothing but the image.
#[test]
fn the_unpacked_image_can_run_its_programs() {
    let inputs = Inputs::new();
    build(&inputs.spec(), &inputs.at("out")).unwrap();
    let root = inputs.at("root");
    fs::create_dir(&root).unwrap();
    let unpack =
        format!("zstd -dcq {} | cpio -id --quiet", inputs.at("out/initramfs.zst").display());
    assert!(
        Command::new("sh").args(["-c", &unpack]).current_dir(&root).status().unwrap().success()
    );
    let out =
        Command::new("chroot").arg(&root).args(["/sbin/mount", "--version"]).output().unwrap();
    let said =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(said.starts_with("mount from util-linux"), "{said}");
}

#[test]
fn a_build_that_fails_leaves_the_old_image_alone() {
    let inputs = Inputs::new();
    let out = inputs.at("out");
    build(&inputs.spec(), &out).unwrap();
    let before = files(&out);
    let mut spec = inputs.spec();
    spec.payload.push(Payload::new("gone", inputs.at("gone")));
    assert!(matches!(build(&spec, &out), Err(BuildError::Read { what: "payload", .. })));
    assert!(files(&out) == before);
}

#[test]
fn an_image_whose_files_do_not_match_its_manifest_is_refused() {
    let inputs = Inputs::new();
    let out = inputs.at("out");
    build(&inputs.spec(), &out).unwrap();
    fs::write(out.join("vmlinuz"), "another kernel").unwrap();
    assert!(matches!(ImageDir::open(&out).unwrap_err().kind, OpenErrorKind::Size { .. }));
    fs::write(out.join("manifest.json"), "{").unwrap();
    assert!(matches!(ImageDir::open(&out).unwrap_err().kind, OpenErrorKind::Manifest(_)));
    fs::remove_file(out.join("manifest.json")).unwrap();
    assert!(matches!(ImageDir::open(&out).unwrap_err().kind, OpenErrorKind::Read { .. }));
}

#[test]
fn wrong_inputs_are_named() {
    let inputs = Inputs::new();
    fs::write(inputs.at("script"), "#!/bin/sh\n").unwrap();
    inputs.gcc("dynamic", &[]);
    let check = |change: &dyn Fn(&mut ImageSpec), expect: &[&str]| {
        let mut spec = inputs.spec();
        change(&mut spec);
        let error = build(&spec, &inputs.at("wrong")).unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        for part in expect {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        assert!(!inputs.at("wrong").exists());
    };
    check(
        &|s| s.init = inputs.at("dynamic"),
        &["dynamic is a dynamic program, and init must be static"],
    );
    check(
        &|s| s.init = inputs.at("script"),
        &["cannot take init from", "a script, and no shell runs on a node"],
    );
    assert!(Command::new("mkfifo").arg(inputs.at("fifo")).status().unwrap().success());
    check(&|s| s.kernel = inputs.at("fifo"), &["cannot read kernel", "it is a FIFO"]);
    check(&|s| s.kernel = "/dev/zero".into(), &["cannot read kernel /dev/zero", "device"]);
    check(
        &|s| s.payload.push(Payload::new("tool", inputs.at("fifo"))),
        &["cannot read payload", "it is a FIFO"],
    );
    fs::create_dir(inputs.at("round")).unwrap();
    symlink(inputs.at("round"), inputs.at("round/round")).unwrap();
    check(
        &|s| s.units = inputs.at("round"),
        &["cannot take the units", "the folder is a link to one that it lies in"],
    );
    check(&|s| s.units = inputs.at("gone"), &["cannot take the units", "No such file"]);
    check(&|s| s.modules = inputs.at("units"), &["units", "exactly one lib/modules/RELEASE"]);
    check(
        &|s| s.payload = vec![Payload::new("tool", inputs.at("script"))],
        &["cannot take tool", "script is no program that a node can run"],
    );
    check(&|s| s.payload.clear(), &["no payload brings /sbin/mount (unit mounter)"]);
    check(
        &|s| s.needs.modules[0].name = "overlai".into(),
        &[
            "kernel 6.1 has no module overlai, which kernel.modules asks for (did you mean overlay?)",
        ],
    );
    check(
        &|s| s.payload[1] = Payload::new("mount", "/bin/umount"),
        &[
            "cannot put /usr/bin/mount into the image (payload mount)",
            "a different one is there already",
        ],
    );
}

#[test]
fn the_manifest_says_the_port_of_the_api() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, "schema = 1\n[agent]\nlisten = \"[::]:6443\"\n").unwrap();
    let set = keel_unit::lower(keel_unit::load::load(&root.join("units"), Some(&config))).unwrap();
    assert_eq!(keel_image::Needs::of(&set).api_port, 6443);

    let inputs = Inputs::new();
    let out = inputs.at("port");
    build(&inputs.spec(), &out).unwrap();
    assert_eq!(ImageDir::open(&out).unwrap().manifest.api_port, 6443);
    // An image that says nothing has an agent that listens where it does by default.
    let text = fs::read_to_string(out.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest.as_object_mut().unwrap().remove("api_port").unwrap();
    fs::write(out.join("manifest.json"), manifest.to_string()).unwrap();
    assert_eq!(ImageDir::open(&out).unwrap().manifest.api_port, 50051);
}
