//! A node's life: its first boot, its second, and what can be seen of it from outside.

use std::process::Command;

use keel_image::vm::{Network, Vm};

use crate::support::{
    API_PORT, LONG, blank, boot, data_partition, image, inputs, node, shut_down, sum, tool,
};

/// KeelOS's init, which this one replaces, formats whenever a mount fails, knows no DHCP, loads no
/// module and makes no machine id. Here the whole life is one test, because each part needs the one
/// before it.
#[test]
fn a_blank_disk_becomes_a_node_that_stays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    blank(&disk, 2 << 30);
    let spec = node(&image(), &[&disk]);

    let (vm, first) = boot(&spec);
    assert!(first.reached && first.degraded.is_empty(), "{first:#?}");
    assert_eq!(first.address.as_deref(), Some("10.0.2.15/24"), "from QEMU's own DHCP server");
    let id = first.machine_id.clone().expect("a machine id");
    assert_eq!(id.len(), 32, "{id}");

    // From outside: the API, with the certificate that was made in this boot.
    let ask = |vm: &Vm, what: &[&str]| {
        let endpoint = format!("127.0.0.1:{}", vm.forwarded(API_PORT).unwrap());
        let mut osctl = Command::new(inputs().osctl);
        osctl.args(["--endpoint", &endpoint, "--output", "json"]).args(what);
        let out = osctl.env("HOME", dir.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let status = ask(&vm, &["status"]);
    assert!(status.contains(&id) && status.contains(&first.digest), "{status}");
    assert!(ask(&vm, &["units"]).contains("containerd"));
    let trace = ask(&vm, &["boot", "record"]);

    let console = shut_down(vm);
    assert!(console.iter().any(|line| line.contains("making an ext4 filesystem")), "{console:#?}");
    let data = data_partition(&disk);
    let header = tool("dumpe2fs", &["-h", &data]);
    assert!(header.contains("Filesystem state:         clean"), "{header}");
    assert!(!header.contains("needs_recovery"), "the journal was not emptied: {header}");
    tool("sgdisk", &["--verify", disk.to_str().unwrap()]);
    tool("e2fsck", &["-f", "-n", &data]);
    let made = |header: &str| {
        header.lines().find(|line| line.starts_with("Filesystem UUID")).map(str::to_owned)
    };

    // Meanwhile somebody has put in another disk, before ours, on which a partition is called as ours is, and is blank.
    let other = dir.path().join("other.img");
    blank(&other, 64 << 20);
    tool("sgdisk", &["-n", "1", "-c", "1:keel-data", other.to_str().unwrap()]);
    let before = sum(&other);

    let (mut vm, second) = boot(&node(&image(), &[&other, &disk]));
    assert!(second.reached && second.degraded.is_empty(), "{second:#?}");
    assert_eq!(second.machine_id, first.machine_id);
    assert_eq!(second.digest, first.digest);
    // It remembers the boot before: how it went, and what was said last.
    let boots: serde_json::Value = serde_json::from_str(&ask(&vm, &["boot", "list"])).unwrap();
    assert_eq!(boots.as_array().map(Vec::len), Some(2), "{boots}");
    assert_eq!((&boots[0]["current"], &boots[1]["current"]), (&true.into(), &false.into()));
    assert_eq!(boots[1]["ended"], "power-off", "{boots}");
    let earlier = boots[1]["id"].as_str().unwrap();
    assert_eq!(ask(&vm, &["boot", "record", "--boot", earlier]), trace);
    let logs = ask(&vm, &["logs", "keel-agent", "--boot", earlier]);
    assert!(logs.contains("serving on"), "{logs}");
    // This time by Ctrl-Alt-Del, which is as orderly.
    vm.ctrl_alt_del().unwrap();
    let console = vm.wait_off(LONG).unwrap();
    assert!(!console.iter().any(|line| line.contains("making ")), "{console:#?}");
    assert_eq!(sum(&other), before);
    assert_eq!(
        made(&tool("dumpe2fs", &["-h", &data])),
        made(&header),
        "the same filesystem as before"
    );
}

#[test]
fn without_a_dhcp_server_boot_goes_on_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    blank(&disk, 1 << 30);
    let mut spec = node(&image(), &[&disk]);
    spec.network = Network::Silent;
    let (vm, report) = boot(&spec);
    assert!(report.reached, "{report:#?}");
    assert!(report.why("link@primary").contains("no DHCP server answers"), "{report:#?}");
    assert!(report.machine_id.is_some(), "storage and identity do not wait for the network");
    let console = shut_down(vm);
    // As it fails, and again in the summary.
    for word in ["FAILED", "degraded"] {
        let says = |line: &String| {
            [word, "link@primary", "no DHCP server answers"].iter().all(|part| line.contains(part))
        };
        assert!(console.iter().any(says), "{word}: {console:#?}");
    }
}
