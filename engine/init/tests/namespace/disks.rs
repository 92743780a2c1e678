//! Disks on loop devices: what is left of them when the machine is off, and when it was reset.

use super::*;

/// A loop device with a filesystem; detached in the end.
struct Loop(String);

impl Loop {
    fn ext4(directory: &Path) -> Self {
        let file = directory.join("disk");
        fs::File::create(&file).and_then(|file| file.set_len(16 << 20)).expect("a file");
        let made = Command::new("mkfs.ext4").arg("-q").arg(&file).status().expect("mkfs.ext4");
        assert!(made.success());
        let attached = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .output()
            .expect("losetup");
        Self(String::from_utf8_lossy(&attached.stdout).trim().to_owned())
    }

    /// A disk with nothing on it.
    fn blank(directory: &Path, size: u64) -> Self {
        let file = directory.join("disk");
        fs::File::create(&file).and_then(|file| file.set_len(size)).expect("a file");
        let attached = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .output()
            .expect("losetup");
        Self(String::from_utf8_lossy(&attached.stdout).trim().to_owned())
    }

    /// What the superblock says of it.
    fn superblock(&self) -> String {
        let output = Command::new("dumpe2fs").args(["-h", &self.0]).output().expect("dumpe2fs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("delpart").args([&self.0, "1"]).stderr(Stdio::null()).status();
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// What containerd leaves behind (a shim, here with a file open for writing on the data partition) is ended when the machine goes
/// down: asked first, then killed, before the partition is unmounted. The filesystem is clean afterwards.
#[test]
fn nothing_outlives_the_machine_and_the_disk_is_clean() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = Loop::ext4(directory.path());
    let mount = format!(
        "part-of = \"boot\"\n[mount]\nsource = \"{}\"\ntarget = \"{{dir}}/data\"\nfstype = \"ext4\"\ntimeout = \"20s\"\n",
        disk.0
    );
    let shim = "trap 'touch {dir}/polite' TERM; exec 3> {dir}/data/open; echo up > {dir}/shim; while :; do echo x >&3; sleep 0.1; done";
    let service = format!(
        "part-of = \"boot\"\nrequires = [\"mount.data\"]\nafter = [\"mount.data\"]\n[service]\ndelegate = true\n\
         exec = [\"/bin/sh\", \"-c\", \"setsid sh -c \\\"{shim}\\\" & wait\"]\ntimeout = \"20s\"\n"
    );
    let mut machine =
        Machine::boot("leftovers", &[BOOT, ("data.toml", &mount), ("shim.toml", &service)]);
    let report = machine.report();
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    machine.until("shim", |text| text == "up\n");
    assert!(disk.superblock().contains("needs_recovery"), "mounted, so its journal is in use");

    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
    assert!(
        machine.shared("polite").exists(),
        "the leftover was asked to end before it was killed"
    );
    assert!(machine.position(&["stopped", "shim"]) < machine.position(&["stopped", "mount.data"]));
    let events = fs::read_to_string(machine.cgroup.join("cgroup.events")).expect("events");
    assert_eq!(events.lines().next(), Some("populated 0"));
    let superblock = disk.superblock();
    assert!(!superblock.contains("needs_recovery"), "{superblock}");
}

/// A data partition on a loop device, and the identity that lies on it.
fn data_units(disk: &str, label: &str) -> Vec<(&'static str, String)> {
    let source = format!("PARTLABEL={label}");
    vec![
        ("boot.toml", "description = \"goal\"\n[target]\n".to_owned()),
        (
            "disk.toml",
            format!(
                "part-of = \"boot\"\n[partition]\nlabel = \"{label}\"\ntype = \"7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441\"\n\
                 disk = {{ path = \"{disk}\" }}\ntimeout = \"20s\"\n"
            ),
        ),
        (
            "fs.toml",
            format!(
                "part-of = \"boot\"\nrequires = [\"partition.disk\"]\nafter = [\"partition.disk\"]\n\
                 [filesystem]\ndevice = \"{source}\"\ntype = \"ext4\"\ntimeout = \"60s\"\n"
            ),
        ),
        (
            "data.toml",
            format!(
                "part-of = \"boot\"\nrequires = [\"filesystem.fs\"]\nafter = [\"filesystem.fs\"]\n\
                 [mount]\nsource = \"{source}\"\ntarget = \"{{dir}}/data\"\nfstype = \"ext4\"\ntimeout = \"20s\"\n"
            ),
        ),
        (
            "me.toml",
            "part-of = \"boot\"\nrequires = [\"mount.data\"]\nafter = [\"mount.data\"]\n\
             [identity]\ndirectory = \"{dir}/data/identity\"\npublish = \"{dir}/machine-id\"\ntimeout = \"20s\"\n"
                .to_owned(),
        ),
    ]
}

/// A machine that is reset stops, wipes its data partition, reboots, and comes up as another machine.
#[test]
fn a_reset_machine_comes_back_as_another_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = Loop::blank(directory.path(), 300 << 20);
    let label = format!("keel-reset-{}", std::process::id());
    // There already: a partition is only made where every disk of the machine can be looked at, and here some are the host's.
    let made = Command::new("sgdisk")
        .args(["-n", "1", "-t", "1:7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441", "-c"])
        .args([&format!("1:{label}"), &disk.0])
        .output()
        .expect("sgdisk");
    assert!(made.status.success(), "{made:?}");
    let units = data_units(&disk.0, &label);
    let units: Vec<(&str, &str)> =
        units.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let mut machine = Machine::boot("reset", &units);
    let report = machine.report();
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let id = machine.read("machine-id").trim().to_owned();
    assert_eq!(id.len(), 32, "{id}");
    fs::create_dir(machine.in_namespace("data/containerd"))
        .expect("a folder on the data partition");

    let reset = |dry_run, confirm: Option<&str>| {
        let reset = Reset { dry_run, confirm: confirm.map(str::to_owned) };
        ask(&machine, async |init| init.reset(reset).await)
    };
    let plan = reset(true, None).expect("a plan");
    assert!(plan.losses[0].what.starts_with(&label), "{plan:?}");
    assert!(plan.losses[0].size.is_some_and(|size| size > 290 << 20), "{plan:?}");
    let named = |folder: &str| plan.losses.iter().any(|loss| loss.what.ends_with(folder));
    assert!(named("/data/identity") && named("/data/containerd"), "{plan:?}");
    assert!(plan.stops.contains(&"mount.data".to_owned()), "{plan:?}");
    for other in [None, Some(""), Some("0f3a5c7e91b24d4e8a6b0123456789ab")] {
        let refused = reset(false, other);
        assert_eq!(refused, Err("this machine's id was not given as confirmation".to_owned()));
    }
    assert_eq!(reset(false, Some(&id)).as_ref(), Ok(&plan));
    assert_eq!(machine.end(), Some(SIGHUP), "it reboots");
    assert!(machine.position(&["stopped", "mount.data"]) < machine.position(&["is wiped."]));
    assert!(machine.position(&["is wiped."]) < machine.position(&["Rebooting."]));
    drop(machine);

    let mut machine = Machine::boot("reset-again", &units);
    let report = machine.report();
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let new = machine.read("machine-id").trim().to_owned();
    assert!(new.len() == 32 && new != id, "{new}");
    assert!(!machine.in_namespace("data/containerd").exists());
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}
