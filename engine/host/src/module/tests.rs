//! The loader and coldplug over made trees, with a recorder in place of the kernel.

use std::collections::HashSet;
use std::ffi::CStr;
use std::path::Path;
use std::sync::{Arc, Barrier, Condvar, Mutex};

use nix::errno::Errno;
use tempfile::TempDir;

use super::apply::{InsertError, Inserted, Kernel};
use super::*;

const RELEASE: &str = "6.1.0-keel";

/// Takes modules as the kernel does: refuses one whose needs are not there, knows the second time of one.
#[derive(Default)]
struct Recorder {
    /// `name` or `name parameters`, in the order of the calls' ends.
    log: Mutex<Vec<String>>,
    taken: Mutex<HashSet<String>>,
    /// Refused, with this errno, as often as they stand here.
    refusals: Mutex<Vec<(&'static str, Errno)>>,
    /// name, needs: what the image would refer to.
    symbols: Vec<(&'static str, &'static [&'static str])>,
    /// What appears in sysfs when a module is there: (module, device, modalias).
    brings: Vec<(&'static str, &'static str, &'static str)>,
    sys: Mutex<Option<std::path::PathBuf>>,
    /// The first does not end before the second has.
    holds: Option<(&'static str, &'static str)>,
    progress: Condvar,
    /// Meet here inside of insert: proves that that many loads run at the same time.
    meet: Option<Barrier>,
}

impl Kernel for Arc<Recorder> {
    fn insert(&self, file: &Path, parameters: &CStr) -> Result<Inserted, InsertError> {
        let name = file
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .split('.')
            .next()
            .unwrap()
            .replace('-', "_");
        if let Some(meet) = &self.meet {
            meet.wait();
        }
        let refused = |errno| Err(InsertError::Refused { errno });
        let mut refusals = self.refusals.lock().unwrap();
        if let Some(at) = refusals.iter().position(|(refused, _)| *refused == name) {
            return refused(refusals.remove(at).1);
        }
        drop(refusals);
        let mut taken = self.taken.lock().unwrap();
        for (module, needs) in &self.symbols {
            if *module == name && needs.iter().any(|need| !taken.contains(*need)) {
                return refused(Errno::ENOENT);
            }
        }
        if !taken.insert(name.clone()) {
            return Ok(Inserted::Already);
        }
        self.progress.notify_all();
        if let Some((_, other)) = self.holds.filter(|(held, _)| *held == name) {
            let within = std::time::Duration::from_secs(20);
            let held =
                self.progress.wait_timeout_while(taken, within, |taken| !taken.contains(other));
            assert!(!held.unwrap().1.timed_out(), "{name} waited in vain for {other}");
        }
        if let Some(sys) = &*self.sys.lock().unwrap() {
            for (_, device, modalias) in self.brings.iter().filter(|(module, ..)| *module == name) {
                add_device(sys, device, modalias);
            }
        }
        let parameters = parameters.to_str().unwrap();
        self.log.lock().unwrap().push(format!("{name} {parameters}").trim_end().to_owned());
        Ok(Inserted::Now)
    }
}

impl Recorder {
    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

/// A device as sysfs shows it: a directory somewhere, and a link to it under its bus.
fn add_device(sys: &Path, device: &str, modalias: &str) {
    let dir = sys.join("devices").join(device);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("modalias"), format!("{modalias}\n")).unwrap();
    let bus = sys.join("bus").join(modalias.split(':').next().unwrap_or_default()).join("devices");
    std::fs::create_dir_all(&bus).unwrap();
    std::os::unix::fs::symlink(&dir, bus.join(device.replace('/', "-"))).unwrap();
}

struct Machine {
    root: TempDir,
    kernel: Arc<Recorder>,
    modules: Arc<Modules>,
}

/// The virtio drivers as Debian's cloud kernel has them.
const VIRTIO_DEP: &str = "\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko.zst: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/arch/x86/events/intel/intel-cstate.ko:
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko
kernel/crypto/crc32c_generic.ko:
";

const VIRTIO_ALIASES: &str = "\
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias virtio:d00000001v* virtio_net
alias virtio:d00000002v* virtio_blk
alias virtio:d00000004v* virtio_rng
alias cpu:type:x86,ven*fam*mod*:feature:* intel_cstate
alias fs-ext4 ext4
alias crypto-crc32c crc32c_generic
";

const SYMBOLS: &[(&str, &[&str])] = &[
    ("virtio_ring", &["virtio"]),
    ("virtio_pci", &["virtio", "virtio_ring", "virtio_pci_modern_dev"]),
    ("virtio_net", &["virtio", "virtio_ring", "net_failover", "failover"]),
    ("virtio_blk", &["virtio", "virtio_ring"]),
    ("virtio_rng", &["virtio", "virtio_ring"]),
    ("net_failover", &["failover"]),
];

fn machine(kernel: Recorder) -> Machine {
    machine_with(Recorder { symbols: SYMBOLS.to_vec(), ..kernel }, Options::default())
}

fn machine_with(kernel: Recorder, options: Options) -> Machine {
    let root = tempfile::tempdir().unwrap();
    let tree = root.path().join("lib/modules").join(RELEASE);
    std::fs::create_dir_all(&tree).unwrap();
    for (name, content) in [
        ("modules.dep", VIRTIO_DEP),
        ("modules.alias", VIRTIO_ALIASES),
        ("modules.softdep", "softdep ext4 pre: crypto-crc32c\n"),
        (
            "modules.builtin",
            "kernel/drivers/input/serio/serio.ko\nkernel/lib/crc16.ko\nkernel/fs/binfmt_script.ko\n",
        ),
        ("modules.builtin.modinfo", "serio.license=GPL\0serio.alias=serio:ty*pr*id*ex*\0"),
    ] {
        std::fs::write(tree.join(name), content).unwrap();
    }
    let kernel = Arc::new(kernel);
    *kernel.sys.lock().unwrap() = Some(root.path().join("sys"));
    let modules = Modules::open_with(root.path(), RELEASE, Box::new(Arc::clone(&kernel))).unwrap();
    Machine { root, kernel, modules: Arc::new(modules.with_options(options)) }
}

/// The error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    said
}

#[test]
fn dependencies_come_first_and_once() {
    let machine = machine(Recorder::default());
    assert_eq!(machine.modules.load("virtio_net", "").unwrap(), Loaded::Now);
    assert_eq!(
        machine.kernel.log(),
        ["virtio", "virtio_ring", "failover", "net_failover", "virtio_net"]
    );
    assert_eq!(machine.modules.load("virtio-net", "").unwrap(), Loaded::Already);
    assert_eq!(machine.modules.load("virtio_blk", "").unwrap(), Loaded::Now);
    assert_eq!(machine.kernel.log().last().unwrap(), "virtio_blk");
    assert_eq!(machine.kernel.log().len(), 6);
}

#[test]
fn what_a_name_may_be() {
    let machine = machine(Recorder::default());
    let check =
        |name: &str, expect| assert_eq!(machine.modules.load(name, "").unwrap(), expect, "{name}");
    check("binfmt_script", Loaded::Builtin);
    check("virtio-rng", Loaded::Now);
    check("virtio_rng", Loaded::Already);
    check("fs-ext4", Loaded::Now);
    check("ext4", Loaded::Already);
    assert!(
        machine.kernel.log().contains(&"crc32c_generic".to_owned()),
        "the soft dependency of ext4"
    );
}

#[test]
fn errors_name_the_culprit() {
    let machine = machine(Recorder {
        refusals: Mutex::new(vec![("failover", Errno::EKEYREJECTED), ("ext4", Errno::EINVAL)]),
        ..Recorder::default()
    });
    let check = |name: &str, parameters: &str, expect: &str| {
        assert_eq!(chain(&machine.modules.load(name, parameters).unwrap_err()), expect);
    };
    check(
        "virtio_nte",
        "",
        "module virtio_nte: not in the module tree of kernel 6.1.0-keel (did you mean virtio_net?)",
    );
    check(
        "zfs_is_elsewhere",
        "",
        "module zfs_is_elsewhere: not in the module tree of kernel 6.1.0-keel",
    );
    check(
        "virtio_net",
        "",
        "module virtio_net: cannot load failover: the kernel refused it: its signature is missing or not by a trusted \
         key (EKEYREJECTED)",
    );
    check(
        "ext4",
        "nonsense=1",
        "module ext4: cannot load ext4: the kernel refused it: an invalid parameter or image (EINVAL)",
    );
    check("ext4", "a\0b", "module ext4: its parameters hold a NUL");
}

#[test]
fn a_failure_is_not_remembered() {
    let machine = machine(Recorder {
        refusals: Mutex::new(vec![("virtio_blk", Errno::ENOMEM)]),
        ..Recorder::default()
    });
    assert!(machine.modules.load("virtio_blk", "").is_err());
    assert_eq!(machine.modules.load("virtio_blk", "").unwrap(), Loaded::Now);
}

#[test]
fn a_soft_dependency_may_fail() {
    let machine = machine(Recorder {
        refusals: Mutex::new(vec![("crc32c_generic", Errno::ENODEV)]),
        ..Recorder::default()
    });
    assert_eq!(machine.modules.load("ext4", "").unwrap(), Loaded::Now);
    assert_eq!(machine.kernel.log(), ["ext4"]);
}

#[test]
fn parameters_go_to_the_module_that_they_are_for() {
    let options = Options::from_command_line("failover.x=1 virtio_net.napi_tx=0 virtio_blk.a=b");
    let machine = machine_with(Recorder::default(), options);
    machine.modules.load("virtio_net", "").unwrap();
    machine.modules.load("virtio_blk", "queue_depth=8").unwrap();
    let log = machine.kernel.log();
    assert!(log.contains(&"failover x=1".to_owned()), "{log:?}");
    assert!(log.contains(&"virtio_net napi_tx=0".to_owned()), "{log:?}");
    // What the unit says stands behind the command line, and so above it.
    assert!(log.contains(&"virtio_blk a=b queue_depth=8".to_owned()), "{log:?}");
}

#[test]
fn parameters_that_come_too_late_are_an_error() {
    let machine = machine(Recorder::default());
    let shown = machine.root.path().join("sys/module/ext4/parameters");
    std::fs::create_dir_all(&shown).unwrap();
    std::fs::write(shown.join("depth"), "16\n").unwrap();
    std::fs::write(shown.join("lazy"), "Y\n").unwrap();
    machine.modules.load("ext4", "").unwrap();

    assert_eq!(
        machine.modules.load("ext4", "depth=0x10 lazy=1 unseen=7").unwrap(),
        Loaded::Already
    );
    let error = machine.modules.load("ext4", "depth=8").unwrap_err();
    assert_eq!(
        error.to_string(),
        "module ext4: in use already with depth=16, not 8; parameters are taken only when a module is loaded"
    );
}

#[test]
fn a_module_that_is_live_is_not_read() {
    let machine = machine(Recorder::default());
    let state = |module: &str, state: &str| {
        let dir = machine.root.path().join("sys/module").join(module);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("initstate"), state).unwrap();
    };
    state("virtio", "live\n");
    state("virtio_ring", "coming\n");
    machine.kernel.taken.lock().unwrap().insert("virtio".into());
    assert_eq!(machine.modules.load("virtio_blk", "").unwrap(), Loaded::Now);
    assert_eq!(machine.kernel.log(), ["virtio_ring", "virtio_blk"]);
}

#[test]
fn a_shared_dependency_is_loaded_once_from_many_threads() {
    let machine = machine(Recorder::default());
    let wanted = ["virtio_net", "virtio_blk", "virtio_rng", "virtio_pci"];
    std::thread::scope(|scope| {
        for round in 0..8 {
            for name in wanted {
                let modules = &machine.modules;
                // Half of them as alias, so that the same entry is reached on different ways.
                let name = if round % 2 == 0 { name.to_owned() } else { name.replace('_', "-") };
                scope.spawn(move || modules.load(&name, "").unwrap());
            }
        }
    });
    let mut log = machine.kernel.log();
    log.sort();
    let mut once = log.clone();
    once.dedup();
    assert_eq!(log, once);
    assert_eq!(log.len(), 9);
}

#[test]
fn who_waits_for_a_failing_load_hears_of_it() {
    let machine = machine(Recorder {
        refusals: Mutex::new(vec![("virtio", Errno::ENOEXEC); 64]),
        ..Recorder::default()
    });
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let error = machine.modules.load("virtio_blk", "").unwrap_err();
                assert!(
                    chain(&error).contains("cannot load virtio: the kernel refused it"),
                    "{error}"
                );
            });
        }
    });
}

/// Without the uevents of the machine that runs the tests: it is not the machine of the test.
fn coldplug(machine: &Machine, sys: &Path) -> ColdplugReport {
    machine.modules.coldplug_with(sys, None)
}

#[test]
fn coldplug_goes_on_until_no_device_is_new() {
    let machine = machine(Recorder {
        brings: vec![
            ("virtio_pci", "pci0000:00/0000:00:03.0/virtio0", "virtio:d00000001v00001AF4"),
            ("virtio_pci", "pci0000:00/0000:00:04.0/virtio1", "virtio:d00000002v00001AF4"),
            ("virtio_net", "pci0000:00/0000:00:03.0/virtio0/odd", "auxiliary:nothing.knows.it"),
        ],
        refusals: Mutex::new(vec![("intel_cstate", Errno::ENODEV)]),
        ..Recorder::default()
    });
    let sys = machine.root.path().join("sys");
    add_device(
        &sys,
        "pci0000:00/0000:00:03.0",
        "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00",
    );
    add_device(
        &sys,
        "pci0000:00/0000:00:04.0",
        "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00",
    );
    add_device(&sys, "pci0000:00/0000:00:05.0", "pci:v0000DEADd00000001sv0sd0bc0sc0i0");
    add_device(&sys, "platform/i8042/serio0", "serio:ty06pr00id00ex00");
    add_device(&sys, "platform/empty", "");
    // A device of a class, and the processors.
    let says = |place: &str, modalias: &str| {
        std::fs::create_dir_all(sys.join(place)).unwrap();
        std::fs::write(sys.join(place).join("modalias"), modalias).unwrap();
    };
    says("class/dmi/id", "fs-ext4\n");
    says("devices/system/cpu", "cpu:type:x86,ven0000fam0006mod003A:feature:,0000,\n");

    let report = coldplug(&machine, &sys);
    let names = |names: &[ModuleName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&report.loaded), ["ext4", "virtio_blk", "virtio_net", "virtio_pci"]);
    assert_eq!(names(&report.declined), ["intel_cstate"]);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    // The unknown PCI device and the odd one; a keyboard controller is served by the kernel itself.
    assert_eq!(report.unmatched, 2);
    assert_eq!(report.looks, 4);

    let again = coldplug(&machine, &sys);
    assert!(again.loaded.is_empty(), "what declined is not asked again: {again:?}");
}

#[test]
fn coldplug_reports_what_failed_and_goes_on() {
    let machine = machine(Recorder {
        refusals: Mutex::new(vec![("failover", Errno::ENOEXEC)]),
        ..Recorder::default()
    });
    let sys = machine.root.path().join("sys");
    add_device(&sys, "a", "virtio:d00000001v1");
    add_device(&sys, "b", "virtio:d00000002v1");
    let report = coldplug(&machine, &sys);
    assert_eq!(report.loaded, [ModuleName::new("virtio_blk")]);
    let [failed] = &report.failed[..] else { panic!("{:?}", report.failed) };
    assert!(chain(failed).starts_with("module virtio_net: cannot load failover: "), "{failed}");
}

#[test]
fn coldplug_leaves_the_blacklist_alone() {
    let options = Options::from_command_line("modprobe.blacklist=virtio-blk");
    let machine = machine_with(Recorder::default(), options);
    let sys = machine.root.path().join("sys");
    add_device(&sys, "a", "virtio:d00000002v1");
    assert!(coldplug(&machine, &sys).loaded.is_empty());
    // Hardware alone does not bring it in; a unit does.
    assert_eq!(machine.modules.load("virtio_blk", "").unwrap(), Loaded::Now);
}

#[test]
fn coldplug_loads_side_by_side() {
    // Neither load ends before both have begun.
    let machine = machine(Recorder { meet: Some(Barrier::new(2)), ..Recorder::default() });
    let sys = machine.root.path().join("sys");
    add_device(&sys, "a", "cpu:type:x86,ven0fam0mod0:feature:0");
    add_device(&sys, "b", "crypto-crc32c");
    assert_eq!(coldplug(&machine, &sys).loaded.len(), 2);
}

#[test]
fn what_a_driver_brings_does_not_wait_for_other_drivers() {
    // `intel_cstate` ends only when the disk's driver runs, which virtio_pci brings: a second look would come too late.
    let machine =
        machine(Recorder { holds: Some(("intel_cstate", "virtio_blk")), ..Recorder::default() });
    let mut report = ColdplugReport::default();
    let found = ["cpu:type:x86,ven0fam0mod0:feature:0", "pci:v00001AF4d00001042sv0sd0bc01sc00i00"];
    let told = || match machine.kernel.taken.lock().unwrap().contains("virtio_pci") {
        true => vec!["virtio:d00000002v00001AF4".to_owned()],
        false => Vec::new(),
    };
    assert!(machine.modules.serve(found.map(str::to_owned).into(), told, &mut report));
    assert_eq!(report.loaded.len(), 3, "{report:?}");
    assert!(!machine.modules.serve(told(), told, &mut report), "nothing is new");
}

/// With real uevents: what `udevadm trigger` does to one device, heard in a network namespace of this test alone.
#[test]
fn a_device_that_comes_later_is_served() {
    let machine = machine(Recorder::default());
    let device = some_real_device();
    let alias = std::fs::read_to_string(device.join("modalias")).unwrap();
    let tree = machine.root.path().join("lib/modules").join(RELEASE);
    std::fs::write(tree.join("modules.alias"), format!("alias {} ext4\n", alias.trim())).unwrap();
    let kernel = Arc::clone(&machine.kernel);
    let modules =
        Arc::new(Modules::open_with(machine.root.path(), RELEASE, Box::new(kernel)).unwrap());
    let sys = machine.root.path().join("sys");

    std::thread::scope(|scope| {
        scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (reports, mut batches) = tokio::sync::mpsc::unbounded_channel();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                let uevents = crate::device::UeventSocket::open().unwrap();
                tokio::task::spawn_local(hotplug(modules, sys, uevents, move |report| {
                    reports.send(report.loaded).unwrap();
                }));
                let within = std::time::Duration::from_secs(20);
                std::fs::write(device.join("uevent"), "add").unwrap();
                let loaded = tokio::time::timeout(within, batches.recv()).await.unwrap().unwrap();
                assert_eq!(loaded, [ModuleName::new("ext4")]);
            });
        });
    });
}

/// A device of the machine that runs the tests which says what it is.
fn some_real_device() -> std::path::PathBuf {
    let mut dirs = vec![std::path::PathBuf::from("/sys/devices")];
    while let Some(dir) = dirs.pop() {
        if dir.join("uevent").exists()
            && std::fs::read_to_string(dir.join("modalias")).is_ok_and(|alias| alias.len() > 1)
        {
            return dir;
        }
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    panic!("no device of this machine has a modalias");
}
