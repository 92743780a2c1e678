//! The kernel: its arguments, drivers and filesystems.

use super::*;

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
