//! The kernel takes what the cpio writer wrote.

use std::process::Command;

use keel_image::vm::Vm;

use crate::support::{LONG, image, inputs, machine, repository};

#[test]
fn the_kernel_unpacks_the_image_as_it_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let init = dir.path().join("init");
    let source = repository().join("testdata/vm/probe-init.c");
    let built =
        Command::new("gcc").arg("-static").arg("-o").arg(&init).arg(source).status().unwrap();
    assert!(built.success());

    let init = init.to_str().unwrap();
    // The agent is taken from beside init, and this init has nothing beside it.
    let inputs = inputs();
    let agent = format!("keel-agent={}", inputs.osctl.with_file_name("keel-agent").display());
    let more = ["--init", init, "--payload", &agent, "--config", "machine-configs/qemu.toml"];
    let image = inputs.build(&dir.path().join("image"), &more);
    let mut vm = Vm::start(&machine(&image)).unwrap();
    vm.wait_for("PROBE done", LONG).unwrap();
    let console = vm.wait_off(LONG).unwrap();

    let said: Vec<_> =
        console.iter().filter(|l| l.starts_with("PROBE ") || l.contains("util-linux")).collect();
    let expect = [
        "PROBE /init 100755 uid 0 mtime 0",
        "PROBE /sbin link usr/bin",
        "PROBE /usr/sbin link ../usr/bin",
        "PROBE /lib64 link usr/lib",
        "PROBE /dev/console device 5 1",
        "PROBE /tmp 41777 uid 0 mtime 0",
        "PROBE /etc/keel/config.toml 100600 uid 0 mtime 0",
        "PROBE /etc/keel/units/boot.toml 100644 uid 0 mtime 0",
        "PROBE /sbin/mkfs.ext4 100755 uid 0 mtime 0",
        "mount from util-linux",
        "PROBE mount exits 0",
        "PROBE done",
    ];
    assert_eq!(said.len(), expect.len(), "{console:#?}");
    for (line, expect) in said.iter().zip(expect) {
        assert!(line.starts_with(expect), "{line:?} is not {expect:?}");
    }
}

/// Without it containerd, like any Go program, trusts no registry.
#[test]
fn the_image_brings_the_authorities_that_this_machine_trusts() {
    let place = "/etc/ssl/certs/ca-certificates.crt";
    let here = std::fs::metadata(place).expect("package ca-certificates, which setup installs");
    let image = image();
    let taken = image.manifest.files.iter().find(|file| file.path == place);
    assert_eq!(taken.expect("certificates").size, Some(here.len()));
}
