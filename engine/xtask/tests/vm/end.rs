//! How a machine ends when its owner does.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{image_dir, inputs};

/// A QEMU that nobody owns any more holds memory, a port and a disk.
#[test]
fn a_machine_ends_with_its_osctl_even_if_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut osctl = Command::new(inputs().osctl)
        .args(["image", "run", "--disk-size", "64MiB", "--no-net", "--disk"])
        .arg(dir.path().join("disk.img"))
        .arg(image_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The first word of its console.
    BufReader::new(osctl.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let qemu = qemu_of(&osctl);
    assert!(is_alive(qemu));

    // SIGKILL.
    osctl.kill().unwrap();
    osctl.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_alive(qemu) {
        assert!(Instant::now() < deadline, "QEMU outlives osctl");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn qemu_of(osctl: &Child) -> u32 {
    let children = format!("/proc/{0}/task/{0}/children", osctl.id());
    let children = std::fs::read_to_string(children).unwrap();
    let is_qemu = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|comm| comm.starts_with("qemu"))
    };
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_qemu).unwrap()
}

/// Whether it runs. Who inherits it may take a while to bury it.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
