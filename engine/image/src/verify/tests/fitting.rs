//! Whether the parts of an image fit each other and the graph.

use super::*;

#[test]
fn a_sound_image_has_no_findings() {
    check(
        none,
        &[
            ("tool", "[service]\nexec = [\"/usr/bin/tool\"]"),
            ("other", "[oneshot]\nexec = [\"/sbin/tool\", \"--x=/usr/bin/tool\", \"/run/x\"]"),
            ("run", "[mount]\nsource = \"tmpfs\"\ntarget = \"/run\"\nfstype = \"tmpfs\""),
            ("vfat", "[mount]\nsource = \"/dev/vda\"\ntarget = \"/boot\"\nfstype = \"vfat\""),
            ("cold", "[module]\ncoldplug = true"),
            ("net", "[module]\nname = \"virtio_net\""),
        ],
        &[],
    );
}

#[test]
fn the_manifest_and_the_kernel_must_fit() {
    let set = graph(&[]);
    let check = |change: &dyn Fn(&mut Image), expect: &[&str]| {
        let mut image = Parts::sound().image();
        change(&mut image);
        let found = told(&verify(&question(&image, &set, &[])));
        // Where it stands in the manifest says nothing here.
        let found: Vec<_> =
            found.iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
        assert_eq!(found, expect);
    };
    check(&|_| {}, &[]);
    check(
        &|i| i.kernel_sha256 = "0".into(),
        &["image-changed: vmlinuz is not the file that the build wrote"],
    );
    check(
        &|i| i.initramfs_sha256 = "0".into(),
        &["image-changed: initramfs.zst is not the file that the build wrote"],
    );
    check(
        &|i| {
            let of = |name| manifest::blob(name, b"as built");
            i.manifest.firmware = vec![of("keel.img"), of("keel.iso")];
            i.firmware_sha256 = vec![of("keel.img").sha256, "0".into()];
        },
        &["image-changed: keel.iso is not the file that the build wrote"],
    );
    check(
        &|i| i.manifest.files.retain(|f| f.path != "/usr/bin/tool"),
        &["manifest-wrong: the initramfs holds /usr/bin/tool, of which the manifest says nothing"],
    );
    check(
        &|i| {
            for taken in &mut i.manifest.files {
                match taken.path.as_str() {
                    "/usr/bin/tool" => taken.sha256 = Some("0".repeat(64)),
                    "/usr/bin/e2fsck" => taken.mode = "0644".into(),
                    "/init" => taken.path = "/init2".into(),
                    _ => {}
                }
            }
        },
        &[
            "manifest-wrong: the manifest is wrong about /init2",
            "manifest-wrong: the initramfs holds /init, of which the manifest says nothing",
            "manifest-wrong: the manifest is wrong about /usr/bin/e2fsck",
            "manifest-wrong: the manifest is wrong about /usr/bin/tool",
        ],
    );
    check(
        &|i| i.kernel.release = Some("6.2.0".into()),
        &["other-kernel: vmlinuz is kernel 6.2.0, and the modules are those of 6.1.0-9"],
    );
    check(
        &|i| i.kernel.machine = Some("arm64".into()),
        &["wrong-machine: vmlinuz is a kernel for arm64, and init is built for x86-64"],
    );
    check(
        &|i| i.kernel = kernel::Kernel::default(),
        &["unknown-kernel: vmlinuz does not say what machine it is for"],
    );
    let replaced = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::sound();
        change(&mut parts);
        parts.image()
    };
    check(
        &|i| *i = replaced(&|p| p.without("/init")),
        &["no-init: there is no /init for the kernel to start"],
    );
    check(
        &|i| *i = replaced(&|p| p.file("/init", 0o755, &PROGRAMS.moving)),
        &["dynamic-init: /init is a dynamic program, and has to be static"],
    );
    check(
        &|i| *i = replaced(&|p| p.file("/init", 0o644, &PROGRAMS.fixed)),
        &["not-executable: /init has mode 0644"],
    );
    check(
        &|i| *i = replaced(&|p| p.without("/etc/keel/config.toml")),
        &["not-in-image: there is no /etc/keel/config.toml: init finds no machine config"],
    );
}

#[test]
fn an_image_of_another_graph_says_what_differs() {
    let (image, set) = (Parts::sound().image(), graph(&[]));
    let ask = |asked: &str, units: &[(String, String)], config: &str| {
        let mut question = question(&image, &set, &[]);
        question.digests = Some((asked.to_owned(), "sha256:00".to_owned()));
        question.differences = image.differences(units, Some(config));
        let verdict = verify(&question);
        let all = verdict.findings.diagnostics.iter().chain(&verdict.notes.diagnostics);
        all.map(|d| format!("{}: {}", d.code, d.help.as_deref().unwrap_or(""))).collect::<Vec<_>>()
    };
    let boot = "description = \"b\"\n[target]\n";
    let same = [("boot.toml".to_owned(), boot.to_owned())];
    let other = [("a/new.toml".to_owned(), boot.to_owned())];
    let again = "build the image again from these units and this machine config";
    assert_eq!(ask("sha256:00", &same, "schema = 1\n"), [""; 0]);
    assert_eq!(ask("sha256:00", &same, "schema=1"), ["other-files: the machine config differs"]);
    assert_eq!(
        ask("sha256:11", &other, "schema = 1\n"),
        [format!(
            "other-graph: unit file a/new.toml is not in the image; unit file boot.toml is in the image alone\n{again}"
        )]
    );
}
