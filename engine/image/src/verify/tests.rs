//! Small made-up images and machines, and what is found in them.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use keel_unit::{Input, UnitSet, lower};

use super::*;
use crate::cpio;
use crate::manifest::{self, Manifest};
use crate::tree::{Entry, Node, Tree};

/// Programs that gcc makes once: a static one, and one that needs `libodd.so`, which needs `libbase.so`. Without a libc they are
/// small, and there is nothing of this host in them.
struct Programs {
    fixed: Vec<u8>,
    moving: Vec<u8>,
    libraries: [(&'static str, Vec<u8>); 3],
}

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("fixed.c", "void _start(void) { for (;;); }");
    write("base.c", "int base(void) { return 1; }");
    write("odd.c", "int base(void); int odd(void) { return base(); }");
    write("main.c", "int odd(void); void _start(void) { odd(); }");
    let gcc = |out: &str, arguments: &[&str]| {
        let mut gcc = Command::new("gcc");
        gcc.args(["-nostdlib", "-s", "-fPIC", "-L.", "-Wl,-rpath-link,.", "-o", out]);
        assert!(gcc.args(arguments).current_dir(dir.path()).status().unwrap().success(), "{out}");
        fs::read(dir.path().join(out)).unwrap()
    };
    let fixed = gcc("fixed", &["-static", "fixed.c"]);
    let base = gcc("libbase.so", &["-shared", "base.c"]);
    let odd = gcc("libodd.so", &["-shared", "odd.c", "-lbase"]);
    let loader = "-Wl,-dynamic-linker,/lib64/ld-tiny.so";
    let moving = gcc("moving", &[loader, "-Wl,-rpath,$ORIGIN", "main.c", "-lodd"]);
    let libraries = [
        ("/usr/lib/ld-tiny.so", fixed.clone()),
        ("/usr/lib/libodd.so", odd),
        ("/usr/lib/libbase.so", base),
    ];
    Programs { fixed, moving, libraries }
});

/// The same program for another machine.
fn foreign(program: &[u8]) -> Vec<u8> {
    let mut foreign = program.to_vec();
    foreign[18] = 0xb7; // e_machine: AArch64
    foreign
}

const RELEASE: &str = "6.1.0-9";

/// What goes into a made-up image.
struct Parts(Vec<(String, u32, Node)>);

impl Parts {
    /// A sound image: init, a program with its libraries, the tools of ext4, three modules, and one driver in the kernel.
    fn sound() -> Self {
        let mut parts = Self(Vec::new());
        let programs = &*PROGRAMS;
        parts.file("/init", 0o755, &programs.fixed);
        parts.file("/etc/keel/config.toml", 0o600, b"schema = 1\n");
        parts.file("/etc/keel/units/boot.toml", 0o644, b"description = \"b\"\n[target]\n");
        parts.file("/usr/bin/tool", 0o755, &programs.moving);
        for name in ["mkfs.ext4", "e2fsck"] {
            parts.file(&format!("/usr/bin/{name}"), 0o755, &programs.fixed);
        }
        for (path, bytes) in &programs.libraries {
            parts.file(path, 0o755, bytes);
        }
        let mut module = |path: &str, text: &str| {
            parts.file(&format!("/usr/lib/modules/{RELEASE}/{path}"), 0o644, text.as_bytes());
        };
        module("modules.dep", "fs/ext4.ko: lib/crc16.ko\nlib/crc16.ko:\nnet/virtio-net.ko:\n");
        module("modules.builtin", "kernel/fs/vfat.ko\n");
        module("modules.builtin.modinfo", "vfat.alias=fs-vfat\0");
        module("modules.alias", "alias fs-ext4 ext4\nalias virtio:d00000001v* virtio_net\n");
        module("modules.softdep", "softdep ext4 pre: crc32c\n");
        for name in ["fs/ext4.ko", "lib/crc16.ko", "net/virtio-net.ko"] {
            module(name, &format!("\0vermagic={RELEASE} SMP\0"));
        }
        parts
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.without(path);
        self.0.push((path.to_owned(), mode, Node::File(bytes.to_vec())));
    }

    fn link(&mut self, path: &str, target: &str) {
        self.without(path);
        self.0.push((path.to_owned(), 0o777, Node::Symlink(target.to_owned())));
    }

    fn without(&mut self, path: &str) {
        self.0.retain(|(other, ..)| other != path);
    }

    fn image(self) -> Image {
        let mut tree = Tree::merged().unwrap();
        for dir in ["/run", "/tmp", "/dev", "/var/lib/keel"] {
            tree.directory(dir, 0o755, "layout").unwrap();
        }
        for (path, mode, node) in self.0 {
            tree.insert(&path, Entry { node, mode, why: "test".into() }).unwrap();
        }
        let mut archive = Vec::new();
        cpio::write(&tree, 0, &mut archive).unwrap();
        let kernel = kernel::tests::x86_kernel(RELEASE);
        let manifest = Manifest {
            schema: 1,
            kernel_release: RELEASE.to_owned(),
            arguments: vec!["quiet".to_owned()],
            api_port: 50051,
            kernel: manifest::blob("vmlinuz", &kernel),
            initramfs: manifest::blob("initramfs.zst", &archive),
            firmware: Vec::new(),
            unpacked: archive.len() as u64,
            files: manifest::list(&tree),
        };
        Image {
            listing: ("m.json".to_owned(), serde_json::to_string_pretty(&manifest).unwrap()),
            kernel: kernel::Kernel::read(&kernel),
            kernel_sha256: manifest.kernel.sha256.clone(),
            initramfs_sha256: manifest.initramfs.sha256.clone(),
            firmware_sha256: Vec::new(),
            files: archive::Files::read(&*archive).unwrap(),
            manifest,
        }
    }
}

/// Unit files by stem; every one gets a description, and a timeout in the table of its kind, which stands last.
fn graph(units: &[(&str, &str)]) -> UnitSet {
    let mut input = Input::default();
    for (stem, text) in units {
        let timeout = if text.contains("[target]") { "" } else { "timeout = \"1s\"\n" };
        input.unit(&format!("{stem}.toml"), format!("description = \"d\"\n{text}\n{timeout}"));
    }
    input.config("c.toml", "schema = 1\n");
    lower(input).unwrap()
}

fn question<'a>(image: &'a Image, set: &'a UnitSet, units: &'a [&'a Unit]) -> Question<'a> {
    Question {
        image,
        sources: &set.sources,
        units,
        digests: None,
        differences: Vec::new(),
        arguments: None,
        inventory: None,
    }
}

/// `place code: message`, notes with a `~` in front.
fn told(verdict: &Verdict) -> Vec<String> {
    let of = |report: &Report, mark: &str| -> Vec<String> {
        let line =
            |d: &Diagnostic| format!("{mark}{} {}: {}", report.location(d), d.code, d.message);
        report.diagnostics.iter().map(line).collect()
    };
    let mut all = of(&verdict.findings, "");
    all.extend(of(&verdict.notes, "~"));
    all
}

#[track_caller]
fn check(change: impl FnOnce(&mut Parts), units: &[(&str, &str)], expect: &[&str]) {
    let mut parts = Parts::sound();
    change(&mut parts);
    let (image, set) = (parts.image(), graph(units));
    let units: Vec<&Unit> = set.units.iter().collect();
    assert_eq!(told(&verify(&question(&image, &set, &units))), expect);
}

fn none(_: &mut Parts) {}

#[test]
fn the_kernel_is_told_what_the_config_says() {
    let check = |values: &[&str], written: bool, expect: &[&str]| {
        let (image, set) = (Parts::sound().image(), graph(&[]));
        let config =
            set.sources.files().find(|file| *set.sources.name(*file) == *"c.toml").unwrap();
        let span = if written {
            Span { file: config, start: 2, end: 8 }
        } else {
            Span::whole(keel_unit::source::FileId::DEFAULT)
        };
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let arguments = Some(Arguments { values, span });
        let verdict = verify(&Question { arguments, ..question(&image, &set, &[]) });
        let all = verdict.findings.diagnostics.iter().flat_map(|d| {
            let places = std::iter::once(&d.label).chain(&d.others);
            places.map(|l| format!("{} {}", verdict.findings.sources.locate(l.span), l.text))
        });
        assert_eq!(all.collect::<Vec<_>>(), expect);
    };
    check(&["quiet"], true, &[]);
    check(
        &["quiet", "panic=1"],
        true,
        &["c.toml:1 the config says `quiet panic=1`", "m.json:4 the image has `quiet`"],
    );
    check(&[], false, &["m.json:4 the image has `quiet`, and the config says none"]);
}

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
fn programs_run_or_it_is_said_why_not() {
    const RUN: (&str, &str) = ("u", "[service]\nexec = [\"/usr/bin/tool\"]");
    check(
        |p| p.without("/usr/bin/tool"),
        &[RUN],
        &["u.toml:3 program-missing: the image has no /usr/bin/tool"],
    );
    check(
        |p| p.file("/usr/bin/tool", 0o644, &PROGRAMS.fixed),
        &[RUN],
        &["u.toml:3 not-executable: /usr/bin/tool has mode 0644, and nobody may execute it"],
    );
    check(
        |p| p.file("/usr/bin/tool", 0o755, b"text"),
        &[RUN],
        &["u.toml:3 not-a-program: /usr/bin/tool is neither an ELF program nor a script"],
    );
    check(
        |p| p.file("/usr/bin/tool", 0o755, &foreign(&PROGRAMS.fixed)),
        &[RUN],
        &["u.toml:3 wrong-machine: /usr/bin/tool is built for arm64, and the node is x86-64"],
    );
    check(
        |p| p.without("/usr/lib/libodd.so"),
        &[RUN],
        &["u.toml:3 library-missing: the image has no libodd.so, which /usr/bin/tool needs"],
    );
    check(
        |p| p.without("/usr/lib/libbase.so"),
        &[RUN],
        &["u.toml:3 library-missing: the image has no libbase.so, which /usr/lib/libodd.so needs"],
    );
    check(
        |p| p.file("/usr/lib/libbase.so", 0o755, &foreign(&PROGRAMS.moving)),
        &[RUN],
        &[
            "u.toml:3 library-missing: libbase.so, which /usr/lib/libodd.so needs, is in the image for arm64 only",
        ],
    );
    check(
        |p| p.without("/usr/lib/ld-tiny.so"),
        &[RUN],
        &[
            "u.toml:3 loader-missing: the image has no /lib64/ld-tiny.so, the loader of /usr/bin/tool",
        ],
    );
    check(
        |p| p.file("/usr/lib/ld-tiny.so", 0o755, &foreign(&PROGRAMS.fixed)),
        &[RUN],
        &[
            "u.toml:3 wrong-machine: /lib64/ld-tiny.so, the loader of /usr/bin/tool, is of another machine",
        ],
    );
    // $ORIGIN of a program is the directory where it really lies.
    check(
        |p| {
            p.without("/usr/lib/libodd.so");
            p.without("/usr/bin/tool");
            p.file("/opt/x/tool", 0o755, &PROGRAMS.moving);
            p.file("/opt/x/libodd.so", 0o755, &PROGRAMS.libraries[1].1);
            p.link("/usr/bin/tool", "/opt/x/tool");
        },
        &[RUN],
        &[],
    );
}

/// A hundred thousand libraries, each of which needs the next; the last is not there.
#[test]
fn a_chain_of_libraries_may_have_any_length() {
    const LENGTH: usize = 100_000;
    let mut image = Parts::sound().image();
    let name = |n: usize| format!("lib{n}.so");
    let file = image.files.at("/usr/lib/libbase.so").unwrap().clone();
    for n in 0..=LENGTH {
        let mut file = file.clone();
        let archive::Kind::Regular { content: content::Content::Elf(elf), .. } = &mut file.kind
        else {
            panic!("{file:?}")
        };
        elf.needed = vec![name(n)];
        elf.rpath = vec!["/usr/bin".to_owned()];
        let path =
            if n == 0 { "usr/bin/tool".to_owned() } else { format!("usr/bin/{}", name(n - 1)) };
        image.files.put(&path, file);
    }
    let set = graph(&[("u", "[service]\nexec = [\"/usr/bin/tool\"]")]);
    let units: Vec<&Unit> = set.units.iter().collect();
    let found = told(&verify(&question(&image, &set, &units)));
    let missing = format!("the image has no {}, which", name(LENGTH));
    assert!(found.iter().any(|line| line.contains(&missing)), "{:?}", found.first());
}

#[test]
fn scripts_need_their_interpreter() {
    const RUN: (&str, &str) = ("u", "[service]\nexec = [\"/usr/bin/s\"]");
    let script =
        |line: &'static str| move |p: &mut Parts| p.file("/usr/bin/s", 0o755, line.as_bytes());
    check(script("#!/usr/bin/tool -x\n"), &[RUN], &[]);
    check(
        script("#!/bin/sh\n"),
        &[RUN],
        &[
            "u.toml:3 interpreter-missing: the image has no /bin/sh, which /usr/bin/s is a script for",
        ],
    );
    check(
        script("#!/usr/bin/s\n"),
        &[RUN],
        &["u.toml:3 not-a-program: /usr/bin/s is a script of scripts, too many for the kernel"],
    );
    check(
        script("#!sh\n"),
        &[RUN],
        &["u.toml:3 not-a-program: /usr/bin/s is a script without an interpreter"],
    );
    let env = |line: &'static str| {
        move |p: &mut Parts| {
            p.file("/usr/bin/env", 0o755, &PROGRAMS.fixed);
            p.file("/usr/bin/s", 0o755, line.as_bytes());
        }
    };
    check(env("#!/usr/bin/env tool\n"), &[RUN], &[]);
    check(
        env("#!/usr/bin/env perl\n"),
        &[RUN],
        &[
            "u.toml:3 interpreter-missing: the image has no /usr/bin/perl, which /usr/bin/s is a script for",
        ],
    );
}

#[test]
fn what_programs_look_up_themselves() {
    let containerd = |p: &mut Parts| p.file("/usr/bin/containerd", 0o755, &PROGRAMS.fixed);
    check(
        containerd,
        &[("u", "[service]\nexec = [\"/usr/bin/containerd\"]")],
        &[
            "u.toml:3 program-missing: the image has no program containerd-shim-runc-v2 where programs are looked up",
            "u.toml:3 program-missing: the image has no program runc where programs are looked up",
            "~u.toml:3 no-certificates: the image has no /etc/ssl/certs/ca-certificates.crt",
        ],
    );
    const FS: (&str, &str) = ("f", "[filesystem]\ndevice = \"/dev/vda1\"\ntype = \"ext4\"");
    check(none, &[FS], &[]);
    check(
        |p| p.without("/usr/bin/e2fsck"),
        &[FS],
        &["f.toml:4 program-missing: the image has no program e2fsck where programs are looked up"],
    );
    check(
        none,
        &[(
            "u",
            "[oneshot]\nexec = [\"/usr/bin/tool\", \"--c=/etc/c\"]\nworking-directory = \"/srv\"",
        )],
        &[
            "u.toml:4 not-in-image: the image has no directory /srv",
            "~u.toml:3 path-missing: the image has no /etc/c, and no unit makes it",
        ],
    );
}

#[test]
fn conditions_that_can_never_hold_are_notes() {
    let unit = |condition: &str| {
        format!("[condition]\n{condition}\n[service]\nexec = [\"/usr/bin/gone\"]")
    };
    let check = |condition: &str, expect: &[&str]| {
        check(none, &[("u", &unit(condition))], expect);
    };
    const GONE: &str = "u.toml:5 program-missing: the image has no /usr/bin/gone";
    check("when = false", &[]);
    check(
        "path-exists = [\"/usr/bin/gone\"]",
        &["~u.toml:3 never-met: u will be skipped: the image has no /usr/bin/gone"],
    );
    check(
        "path-missing = [\"/usr/bin/tool\"]",
        &["~u.toml:3 never-met: u will be skipped: the image has /usr/bin/tool"],
    );
    check("path-exists = [\"/usr/bin/tool\"]", &[GONE]);
    check("kernel-argument = [\"quiet\"]", &[GONE]);
    check(
        "kernel-argument = [\"debug\"]",
        &[GONE, "~u.toml:3 never-met: the image's kernel arguments have no debug"],
    );
}

#[test]
fn what_a_mount_or_a_unit_brings_is_not_the_images_business() {
    let run = |path: &str| format!("[oneshot]\nexec = [\"{path}\"]");
    const DATA: (&str, &str) =
        ("data", "[mount]\nsource = \"tmpfs\"\ntarget = \"/var/lib/keel\"\nfstype = \"tmpfs\"");
    check(none, &[("u", &run("/var/lib/keel/x")), DATA], &[]);
    check(
        none,
        &[("u", &run("/var/lib/keel/x"))],
        &["u.toml:3 program-missing: the image has no /var/lib/keel/x"],
    );
    check(
        none,
        &[
            ("u", &run("/opt/x")),
            ("f", "[file]\npath = \"/opt/x\"\ncopy = \"/usr/bin/tool\"\nmode = \"0755\""),
        ],
        &[],
    );
    check(
        |p| p.file("/var/lib/keel/x", 0o755, &PROGRAMS.fixed),
        &[DATA],
        &["~data.toml:4 hidden: mount.data hides what the image has there: x"],
    );
}

#[test]
fn paths_must_have_room() {
    check(
        none,
        &[
            ("a", "[file]\npath = \"/usr/bin/tool/x\"\ncontent = \"c\""),
            ("b", "[file]\npath = \"/usr/bin\"\ncontent = \"c\""),
            ("c", "[file]\npath = \"/etc/c\"\ncopy = \"/etc/gone\""),
            ("d", "[mount]\nsource = \"tmpfs\"\ntarget = \"/usr/bin/tool\"\nfstype = \"tmpfs\""),
            (
                "e",
                "[mount]\nsource = \"/srv\"\ntarget = \"/mnt\"\nfstype = \"none\"\noptions = [\"bind\"]",
            ),
            ("f", "[file]\npath = \"/new/deep/file\"\ncontent = \"c\""),
        ],
        &[
            "b.toml:3 path-taken: /usr/bin is a directory in the image",
            "c.toml:4 not-in-image: the image has no /etc/gone to copy",
            "d.toml:4 path-taken: /usr/bin/tool is a file in the image",
            "e.toml:3 not-in-image: the image has no /srv to mount",
        ],
    );
    check(
        none,
        &[("a", "[file]\npath = \"/usr/bin/tool/x\"\ncontent = \"c\"")],
        &["a.toml:3 path-taken: /usr/bin/tool is no directory in the image"],
    );
}

#[test]
fn drivers_are_in_the_image_or_in_its_kernel() {
    let module = |name: &str| format!("[module]\nname = \"{name}\"");
    let path = |name: &str| format!("/usr/lib/modules/{RELEASE}/{name}");
    check(none, &[("m", &module("vfat"))], &[]);
    check(
        none,
        &[("m", &module("ext4"))],
        &["~m.toml:3 soft-dependency: the image has no module crc32c, which ext4 likes to have"],
    );
    check(
        none,
        &[("m", &module("virtio_nett"))],
        &["m.toml:3 module-missing: the image has no module virtio_nett for kernel 6.1.0-9"],
    );
    check(
        |p| p.without(&path("net/virtio-net.ko")),
        &[("m", &module("virtio-net"))],
        &["m.toml:3 module-missing: the image has no /lib/modules/6.1.0-9/net/virtio-net.ko"],
    );
    check(
        |p| {
            p.without(&path("lib/crc16.ko"));
            p.without(&path("modules.softdep"));
            p.file(&path("fs/ext4.ko"), 0o644, b"\0vermagic=6.2.0 SMP\0");
        },
        &[("m", &module("ext4"))],
        &[
            "m.toml:3 module-missing: /lib/modules/6.1.0-9/fs/ext4.ko is built for kernel 6.2.0, and the image's is 6.1.0-9",
            "m.toml:3 module-missing: the image has no /lib/modules/6.1.0-9/lib/crc16.ko",
        ],
    );
    check(
        |p| p.without(&path("modules.dep")),
        &[("m", "[module]\ncoldplug = true")],
        &["m.toml:3 not-in-image: the image has no /lib/modules/6.1.0-9/modules.dep"],
    );
}

#[test]
fn filesystems_have_a_driver_that_something_loads() {
    let mount = |fstype: &str| {
        format!("[mount]\nsource = \"/dev/vda1\"\ntarget = \"/mnt\"\nfstype = \"{fstype}\"")
    };
    check(none, &[("d", &mount("vfat"))], &[]);
    check(
        none,
        &[("d", &mount("xfs"))],
        &["d.toml:5 module-missing: kernel 6.1.0-9 has no driver for xfs in this image"],
    );
    check(
        none,
        &[("d", &mount("ext4"))],
        &["d.toml:5 module-not-loaded: no unit loads the driver of ext4"],
    );
    for name in ["ext4", "fs-ext4"] {
        let soft =
            "~m.toml:3 soft-dependency: the image has no module crc32c, which ext4 likes to have";
        let module = format!("[module]\nname = \"{name}\"");
        check(none, &[("d", &mount("ext4")), ("m", &module)], &[soft]);
    }
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

mod machine;
