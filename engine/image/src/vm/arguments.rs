//! QEMU's command line for a machine: a pure function from the spec.

use std::ffi::OsString;
use std::path::Path;

use super::{Accel, Boot, Disk, Firmware, Network, VmSpec, is_qcow2};

/// The QEMU that boots an x86-64 image.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// The arguments for a machine whose monitor is file descriptor 0 and whose serial console is 1:
/// both are socket pairs that the caller made, so there is no socket file to race for or leave.
pub(super) fn arguments(spec: &VmSpec) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: OsString| args.extend([OsString::from(option), value]);

    let (accel, cpu) = match spec.accel {
        Accel::Kvm => ("kvm", "host"),
        // Two threads translate in parallel; a small buffer would be flushed and refilled all through
        // the boot of a Go program.
        Accel::Tcg => ("tcg,thread=multi,tb-size=256", "max"),
    };
    add("-machine", "q35".into());
    add("-accel", accel.into());
    add("-cpu", cpu.into());
    add("-m", format!("{}M", spec.memory).into());
    add("-smp", spec.cpus.to_string().into());
    match &spec.boot {
        Boot::Kernel { kernel, initramfs, append } => {
            add("-kernel", kernel.clone().into());
            add("-initrd", initramfs.clone().into());
            add("-append", command_line(append).into());
        }
        Boot::Disk(firmware) => add_firmware(firmware, &mut add),
        Boot::Cd(path, firmware) => {
            add_firmware(firmware, &mut add);
            let mut drive =
                OsString::from("if=none,id=cd,format=raw,media=cdrom,readonly=on,file=");
            push_path(&mut drive, path);
            add("-drive", drive);
            add("-device", "ide-cd,drive=cd,bootindex=0".into());
        }
    }

    add("-chardev", "socket,id=monitor,fd=0".into());
    add("-mon", "chardev=monitor,mode=control".into());
    add("-chardev", "socket,id=console,fd=1".into());
    add("-serial", "chardev:console".into());
    add("-device", "virtio-rng-pci".into());

    for (index, disk) in spec.disks.iter().enumerate() {
        add("-drive", drive(index, disk));
        let serial =
            disk.serial.as_ref().map(|serial| format!(",serial={serial}")).unwrap_or_default();
        let boots = index == 0 && matches!(spec.boot, Boot::Disk(_));
        let order = if boots { ",bootindex=0" } else { "" };
        add("-device", format!("virtio-blk-pci,drive=disk{index}{serial}{order}").into());
    }
    let netdev = match &spec.network {
        Network::None => None,
        Network::Silent => Some("hubport,id=net,hubid=0".to_owned()),
        Network::User { forward } => {
            let forward = forward.iter().map(|port| format!(",hostfwd=tcp:127.0.0.1:0-:{port}"));
            Some(format!("user,id=net{}", forward.collect::<String>()))
        }
    };
    if let Some(netdev) = netdev {
        add("-netdev", netdev.into());
        // No boot ROM: nothing boots from the network here.
        add("-device", "virtio-net-pci,netdev=net,romfile=".into());
    }
    args.extend(
        ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"].map(OsString::from),
    );
    args
}

fn add_firmware(firmware: &Firmware, add: &mut impl FnMut(&str, OsString)) {
    if let Firmware::Uefi(ovmf) = firmware {
        add("-bios", ovmf.clone().into());
    }
}

/// The kernel's command line: what the spec says, before it what this machine needs and the spec
/// leaves open. A panic ends the machine instead of leaving it to a timeout.
fn command_line(append: &[String]) -> String {
    let said = |key: &str| append.iter().any(|arg| arg.starts_with(key));
    let needed = [("console=ttyS0", "console=ttyS0"), ("panic=", "panic=-1")];
    let needed = needed.into_iter().filter(|(key, _)| !said(key)).map(|(_, arg)| arg);
    needed.chain(append.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

fn drive(index: usize, disk: &Disk) -> OsString {
    let format = if is_qcow2(&disk.path) { "qcow2" } else { "raw" };
    let mut drive =
        OsString::from(format!("if=none,id=disk{index},format={format},discard=unmap,file="));
    push_path(&mut drive, &disk.path);
    drive
}

/// QEMU splits options at commas, and takes a doubled one for a comma.
fn push_path(option: &mut OsString, path: &Path) {
    match path.to_str() {
        Some(path) => option.push(path.replace(',', ",,")),
        None => option.push(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(change: impl FnOnce(&mut VmSpec)) -> String {
        let mut spec = VmSpec {
            boot: Boot::Kernel {
                kernel: "/i/vmlinuz".into(),
                initramfs: "/i/initramfs.zst".into(),
                append: Vec::new(),
            },
            memory: 1024,
            cpus: 2,
            disks: Vec::new(),
            network: Network::None,
            accel: Accel::Tcg,
            detached: false,
        };
        change(&mut spec);
        let args: Vec<_> = arguments(&spec).into_iter().map(|a| a.into_string().unwrap()).collect();
        args.join(" ")
    }

    fn append(spec: &mut VmSpec, argument: &str) {
        if let Boot::Kernel { append, .. } = &mut spec.boot {
            append.push(argument.to_owned());
        }
    }

    #[test]
    fn what_the_spec_says_is_on_the_command_line() {
        let check = |change: fn(&mut VmSpec), expect: &str| {
            let line = line(change);
            assert!(line.contains(expect), "{expect}\nis not in\n{line}");
        };
        check(
            |_| {},
            "-m 1024M -smp 2 -kernel /i/vmlinuz -initrd /i/initramfs.zst -append console=ttyS0 panic=-1 -",
        );
        check(|s| append(s, "keel.x=1"), "-append console=ttyS0 panic=-1 keel.x=1 -");
        check(|s| append(s, "panic=10"), "-append console=ttyS0 panic=10 -");
        check(
            |s| {
                s.boot = Boot::Disk(Firmware::Uefi("/ovmf.fd".into()));
                s.disks.push(Disk { path: "/a.img".into(), serial: None });
            },
            "-bios /ovmf.fd -chardev",
        );
        check(
            |s| {
                s.boot = Boot::Disk(Firmware::Bios);
                s.disks.push(Disk { path: "/a.img".into(), serial: None });
            },
            "file=/a.img -device virtio-blk-pci,drive=disk0,bootindex=0 ",
        );
        check(
            |s| s.boot = Boot::Cd("/a,b.iso".into(), Firmware::Bios),
            "media=cdrom,readonly=on,file=/a,,b.iso -device ide-cd,drive=cd,bootindex=0 ",
        );
        check(|s| s.accel = Accel::Kvm, "-accel kvm -cpu host");
        check(
            |s| s.disks.push(Disk { path: "/a,b.img".into(), serial: Some("one".into()) }),
            "format=raw,discard=unmap,file=/a,,b.img -device virtio-blk-pci,drive=disk0,serial=one",
        );
        check(|s| s.disks.push(Disk { path: "/d.qcow2".into(), serial: None }), "format=qcow2");
        check(
            |s| s.network = Network::User { forward: vec![50051, 22] },
            "-netdev user,id=net,hostfwd=tcp:127.0.0.1:0-:50051,hostfwd=tcp:127.0.0.1:0-:22 -device virtio-net-pci",
        );
        check(
            |s| s.network = Network::Silent,
            "-netdev hubport,id=net,hubid=0 -device virtio-net-pci",
        );
    }

    #[test]
    fn no_card_means_no_card() {
        assert!(!line(|_| {}).contains("net"));
    }
}
