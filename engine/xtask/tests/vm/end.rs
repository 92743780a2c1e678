//! How a machine ends when its owner does.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use crate::support::{image_dir, inputs};

/// A QEMU that nobody owns any more holds memory, a port and a disk.
#[test]
fn a_machine_ends_with_its_osctl_even_if_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    // A second descriptor of the pipe, which nobody closes who is not asked to: QEMU inherits it, and the pipe ends with QEMU.
    let mut osctl = Command::new("/bin/sh")
        .args(["-c", "exec \"$0\" \"$@\" 9>&1"])
        .arg(inputs().osctl)
        .args(["image", "run", "--disk-size", "64MiB", "--no-net", "--disk"])
        .arg(dir.path().join("disk.img"))
        .arg(image_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut console = BufReader::new(osctl.stdout.take().unwrap());
    // The first word of its console.
    console.read_line(&mut String::new()).unwrap();
    let qemu = qemu_of(&osctl);
    assert!(is_alive(qemu));

    // SIGKILL.
    osctl.kill().unwrap();
    osctl.wait().unwrap();
    // It ends when all who hold it have.
    console.read_to_end(&mut Vec::new()).unwrap();
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
