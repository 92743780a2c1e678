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

mod booting;
mod fitting;
mod machine;
mod running;
mod used;
