//! Mounts for real, each test in a mount namespace of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use keel_host::disk::inventory::Roots;
use keel_host::mount::{MountErrorKind, activate, deactivate, table};
use keel_unit::kinds::{Kind, Mount};
use keel_unit::lower::{Input, lower};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::support::{Loop, MIB, Machine, tool};

/// A mount namespace for this thread alone, and a tmpfs in it.
fn namespace() -> TempDir {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
    let dir = tempfile::tempdir().unwrap();
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    dir
}

/// The mount units in these unit files, in the order in which they are given.
fn units(files: impl IntoIterator<Item = (String, String)>) -> Vec<Mount> {
    let mut input = Input::default();
    files.into_iter().for_each(|(name, text)| input.unit(&name, text));
    let set = lower(input).unwrap_or_else(|report| panic!("{report}"));
    set.units
        .into_iter()
        .filter_map(|unit| if let Kind::Mount(mount) = unit.kind { Some(mount) } else { None })
        .collect()
}

fn unit(keys: &str) -> Mount {
    let text = format!("description = \"x\"\n[mount]\ntimeout = \"5s\"\n{keys}\n");
    units([("x.toml".to_owned(), text)]).remove(0)
}

/// What the kernel says of the mount on top at a place: type and options, as people read them.
fn told(target: &Path) -> String {
    let table = table::observe().unwrap();
    match table::top(&table, target) {
        Some(there) => format!("{} {}", there.fstype, there.options.join(",")),
        None => "nothing".to_owned(),
    }
}

#[test]
fn the_kernel_filesystems_that_ship_are_mounted_in_an_empty_root() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../units/api-filesystems");
    let files: Vec<_> = fs::read_dir(shipped)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("api-filesystems.toml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap()))
        // The stage is not part of this test.
        .map(|(name, text)| (name, text.replace("part-of = \"api-filesystems\"\n", "")))
        .collect();
    let mut units = units(files);
    units.sort_by_key(|unit| unit.target.clone());

    let root = namespace();
    std::os::unix::fs::chroot(root.path()).unwrap();
    std::env::set_current_dir("/").unwrap();
    let outcomes: Vec<_> =
        units.iter().map(|unit| activate(unit, &Roots::default()).unwrap()).collect();
    for (unit, outcome) in units.iter().zip(&outcomes) {
        assert_eq!(outcome.mounted, !unit.existing, "{}", unit.target);
    }
    let check =
        |target: &str, expect: &str| assert_eq!(told(Path::new(target)), expect, "{target}");
    check("/proc", "proc rw,nosuid,nodev,noexec,relatime");
    check("/sys", "sysfs rw,nosuid,nodev,noexec,relatime");
    check("/dev", "devtmpfs rw,nosuid,noexec,relatime");
    check("/dev/pts", "devpts rw,nosuid,noexec,relatime");
    check("/dev/shm", "tmpfs rw,nosuid,nodev,relatime");
    check("/dev/mqueue", "mqueue rw,nosuid,nodev,noexec,relatime");
    check("/run", "tmpfs rw,nosuid,nodev,relatime");
    check("/tmp", "tmpfs rw,nosuid,nodev,relatime");
    check("/sys/fs/cgroup", "cgroup2 rw,nosuid,nodev,noexec,relatime");
    assert_eq!(fs::metadata("/tmp").unwrap().permissions().mode() & 0o7777, 0o1777);
    assert!(Path::new("/dev/null").exists() && Path::new("/proc/self/status").exists());
    let table = table::observe().unwrap();
    for target in ["/", "/proc", "/dev/pts"] {
        let there = table::top(&table, Path::new(target)).unwrap();
        assert!(there.propagation.iter().any(|field| field.starts_with("shared:")), "{there:?}");
    }
    // Controllers that v1 holds are not available in v2; what is, is handed down.
    let available = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    let handed = fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control").unwrap();
    let cgroup = outcomes.iter().find(|outcome| !outcome.controllers.is_empty());
    for controller in cgroup.map(|outcome| outcome.controllers.clone()).unwrap_or_default() {
        assert!(
            available.contains(controller) && handed.contains(controller),
            "{controller} in {handed}"
        );
    }

    let count = table.len();
    for unit in &units {
        assert!(!activate(unit, &Roots::default()).unwrap().mounted, "{}", unit.target);
        assert!(!deactivate(unit).unwrap(), "{}", unit.target);
    }
    assert_eq!(table::observe().unwrap().len(), count);
}

#[test]
fn a_data_filesystem_is_mounted_once_and_not_let_go_while_it_is_in_use() {
    let root = namespace();
    let disk = Loop::new(72 * MIB, 512);
    tool("mkfs.ext4", ["-q", "-L", "keel-test", disk.node()]);
    let machine = Machine::new([&disk]);
    let target = root.path().join("var/data");
    let data = unit(&format!(
        "source = \"LABEL=keel-test\"\ntarget = \"{}\"\nfstype = \"ext4\"\noptions = [\"nosuid\", \"nodev\"]\nmode = \"0700\"",
        target.display()
    ));
    let outcome = activate(&data, &machine.roots).unwrap();
    assert_eq!((outcome.device.as_ref(), outcome.mounted), (Some(&disk.node), true));
    assert_eq!(told(&target), "ext4 rw,nosuid,nodev,relatime");
    assert_eq!(fs::metadata(&target).unwrap().dev(), fs::metadata(&disk.node).unwrap().rdev());
    assert!(!activate(&data, &machine.roots).unwrap().mounted);

    let held = fs::File::create(target.join("held")).unwrap();
    let error = deactivate(&data).unwrap_err();
    let MountErrorKind::Busy { holders } = &error.kind else { panic!("{error}") };
    let me = format!("({}: {})", std::process::id(), target.join("held").display());
    assert!(holders.iter().any(|holder| holder.ends_with(&me)), "{error}");
    drop(held);
    assert!(deactivate(&data).unwrap());
    assert!(!deactivate(&data).unwrap());
    assert_eq!(told(&target), "nothing");
}

#[test]
fn a_failed_mount_changes_nothing_on_the_device() {
    let root = namespace();
    let disk = Loop::new(72 * MIB, 512);
    let before = disk.digest();
    let keys = format!(
        "source = \"{}\"\ntarget = \"{}/x\"\nfstype = \"ext4\"",
        disk.node(),
        root.path().display()
    );
    let error = activate(&unit(&keys), &Roots::default()).unwrap_err().to_string();
    let expect = format!(
        "{}/x: could not mount ext4 from {} (the device holds no such filesystem, or an option is not one of this type)",
        root.path().display(),
        disk.node()
    );
    assert_eq!(error, expect);
    assert_eq!(disk.digest(), before);
}

#[test]
fn errors_say_what_stands_in_the_way() {
    let root = namespace();
    let check = |keys: &str, expect: &str| {
        let keys = keys.replace("ROOT", root.path().to_str().unwrap());
        let error = activate(&unit(&keys), &Roots::default()).unwrap_err().to_string();
        assert_eq!(error.replace(root.path().to_str().unwrap(), "ROOT"), expect);
    };
    check(
        "source = \"nosuchfs\"\ntarget = \"ROOT/x\"\nfstype = \"nosuchfs\"",
        "ROOT/x: could not mount nosuchfs from nosuchfs (the kernel does not know this type; its module may not be loaded)",
    );
    check(
        "source = \"UUID=8b5d6a3e-0000-4000-8000-000000000000\"\ntarget = \"ROOT/x\"\nfstype = \"ext4\"",
        "ROOT/x: UUID=8B5D6A3E-0000-4000-8000-000000000000: no such device",
    );
    check(
        "source = \"proc\"\ntarget = \"ROOT\"\nfstype = \"proc\"",
        "ROOT: something else is mounted there: tmpfs from tmpfs",
    );
    check(
        "target = \"ROOT/x\"\nexisting = true",
        "ROOT/x: nothing is mounted there, and the unit says that something is",
    );
    check(
        "source = \"/nowhere\"\ntarget = \"ROOT/x\"\nfstype = \"none\"\noptions = [\"bind\"]",
        "ROOT/x: could not look at /nowhere",
    );
}

#[test]
fn a_bind_mount_is_read_only_if_it_is_to_be() {
    let root = namespace();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("id"), "abc").unwrap();
    let bind = |source: &Path, target: &Path| {
        unit(&format!(
            "source = \"{}\"\ntarget = \"{}\"\nfstype = \"none\"\noptions = [\"bind\", \"ro\", \"nosuid\"]",
            source.display(),
            target.display()
        ))
    };
    let directory = bind(&from, &to);
    assert!(activate(&directory, &Roots::default()).unwrap().mounted);
    assert!(!activate(&directory, &Roots::default()).unwrap().mounted);
    assert_eq!(told(&to), "tmpfs ro,nosuid,relatime");
    assert_eq!(
        fs::write(to.join("id"), "x").unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );
    fs::write(from.join("id"), "def").unwrap();

    let file = bind(&from.join("id"), &root.path().join("etc/machine-id"));
    assert!(activate(&file, &Roots::default()).unwrap().mounted);
    assert_eq!(fs::read_to_string(root.path().join("etc/machine-id")).unwrap(), "def");
    assert!(deactivate(&file).unwrap() && deactivate(&directory).unwrap());
}

#[test]
fn a_mount_with_other_options_gets_those_of_the_unit() {
    let root = namespace();
    let target = root.path().join("run");
    fs::create_dir(&target).unwrap();
    mount(Some("early"), &target, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::write(target.join("kept"), "").unwrap();
    let keys = "fstype = \"tmpfs\"\nsource = \"tmpfs\"\noptions = [\"nosuid\", \"nodev\", \"mode=0750\", \"size=4m\"]";
    let run = unit(&format!("target = \"{}\"\n{keys}", target.display()));
    assert!(!activate(&run, &Roots::default()).unwrap().mounted);
    assert!(told(&target).starts_with("tmpfs rw,nosuid,nodev"), "{}", told(&target));
    let table = table::observe().unwrap();
    let options = table::top(&table, &target).unwrap().super_options.clone();
    assert!(options.contains(&"size=4096k".to_owned()), "{options:?}");
    assert!(target.join("kept").exists());
}
