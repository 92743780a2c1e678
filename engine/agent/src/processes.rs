//! The processes of each unit and what its cgroup uses, as the kernel tells it in cgroup v2 and /proc.
//!
//! Plain reading, each file bounded. Never a process's arguments: they may hold secrets. What vanishes while one looks is not an
//! error; it is not told of.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keel_proto::v1::{Process, UnitProcesses};

use crate::convert::on_the_wire;

/// At most this many processes of one unit are told of.
const MOST_PROCESSES: usize = 512;

/// At most this many units, and cgroups below one.
const MOST_UNITS: usize = 4096;
const MOST_GROUPS: usize = 4096;

/// The most that is read of one file.
const MOST_BYTES: u64 = 256 * 1024;

/// The kernel's clock ticks in a second, as user space sees them on every architecture that Keel runs on.
const TICKS: u64 = 100;

/// Where things are on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Where cgroup v2 is mounted.
    pub(crate) cgroup: PathBuf,
    /// The cgroup below it that holds the units'.
    pub(crate) units: &'static str,
    /// Where procfs is mounted.
    pub(crate) proc: PathBuf,
}

impl Default for Places {
    /// A node.
    fn default() -> Self {
        Self { cgroup: "/sys/fs/cgroup".into(), units: "keel", proc: "/proc".into() }
    }
}

/// A unit that has no cgroup.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoCgroup(pub(crate) String);

/// The processes of these units, or of all that have a cgroup, in the order of their names. Blocks.
pub(crate) fn processes(
    places: &Places,
    wanted: &[String],
) -> Result<Vec<UnitProcesses>, NoCgroup> {
    let base = places.cgroup.join(places.units);
    let mut there = folders(&base);
    there.truncate(MOST_UNITS);
    if let Some(missing) = wanted.iter().find(|unit| !there.contains(unit)) {
        return Err(NoCgroup(missing.chars().take(256).collect()));
    }
    there.retain(|unit| wanted.is_empty() || wanted.contains(unit));
    Ok(there.iter().map(|unit| unit_processes(places, unit, &base.join(unit))).collect())
}

fn unit_processes(places: &Places, unit: &str, group: &Path) -> UnitProcesses {
    let number = |file: &str| text(&group.join(file)).and_then(|text| text.trim().parse().ok());
    let stat = |file: &str, key: &str| text(&group.join(file)).and_then(|text| of_key(&text, key));
    let io = text(&group.join("io.stat"));
    let pids = pids(group);
    let processes = pids.iter().take(MOST_PROCESSES).filter_map(|pid| process(&places.proc, *pid));
    UnitProcesses {
        unit: unit.to_owned(),
        cgroup: format!("/{}/{unit}", places.units),
        cpu: stat("cpu.stat", "usage_usec").map(|us| on_the_wire(Duration::from_micros(us))),
        memory_bytes: number("memory.current"),
        memory_peak_bytes: number("memory.peak"),
        // `max` is no number, and no limit.
        memory_max_bytes: number("memory.max"),
        oom_kills: stat("memory.events", "oom_kill"),
        io_read_bytes: io.as_deref().map(|text| sum_of(text, "rbytes=")),
        io_written_bytes: io.as_deref().map(|text| sum_of(text, "wbytes=")),
        count: u32::try_from(pids.len()).unwrap_or(u32::MAX),
        processes: processes.collect(),
    }
}

/// The processes of a cgroup and of those below it: delegated units make their own.
fn pids(group: &Path) -> Vec<u32> {
    let mut open = vec![group.to_owned()];
    let mut pids = Vec::new();
    let mut seen = 0;
    while let Some(group) = open.pop() {
        let own = text(&group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(own.lines().filter_map(|line| line.parse::<u32>().ok()));
        seen += 1;
        if seen < MOST_GROUPS {
            open.extend(folders(&group).into_iter().map(|name| group.join(name)));
        }
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The folders in a folder, by name. In cgroupfs every folder is a cgroup.
fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> =
        folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// One process, if it is still there.
fn process(proc: &Path, pid: u32) -> Option<Process> {
    let folder = proc.join(pid.to_string());
    let stat = text(&folder.join("stat"))?;
    let status = text(&folder.join("status"))?;
    // The name stands in brackets and may hold any of them; what follows the last one are the fields from the third on.
    let (head, fields) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let count = |number: usize| field(number).and_then(|field| field.parse::<u64>().ok());
    let ticks = |ticks: u64| on_the_wire(Duration::from_millis(ticks.saturating_mul(1000 / TICKS)));
    let rss = of_key(&status, "VmRSS:").unwrap_or(0);
    Some(Process {
        pid,
        parent: u32::try_from(count(4)?).ok()?,
        name: name.to_owned(),
        state: field(3)?.to_owned(),
        cpu: Some(ticks(count(14)?.saturating_add(count(15)?))),
        rss_bytes: rss.saturating_mul(1024),
        threads: u32::try_from(count(20)?).ok()?,
        started: Some(ticks(count(22)?)),
    })
}

/// The number behind a key that begins a line.
fn of_key(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line?.split_ascii_whitespace().next()?.parse().ok()
}

/// All numbers behind a key, whatever line they stand on.
fn sum_of(text: &str, key: &str) -> u64 {
    let words = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key));
    words.filter_map(|number| number.parse::<u64>().ok()).fold(0, u64::saturating_add)
}

/// A file of the kernel's; none if it is not there, or not to be read.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_kernel() {
        let io = "253:0 rbytes=100 wbytes=7 rios=1\n253:16 rbytes=20 wbytes=0\n";
        assert_eq!((sum_of(io, "rbytes="), sum_of(io, "wbytes=")), (120, 7));
        assert_eq!(of_key("usage_usec 1234\nuser_usec 1000\n", "usage_usec"), Some(1234));
        assert_eq!(of_key("VmPeak:\t  10 kB\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(of_key("a 1", "b"), None);
    }

    /// A hierarchy in plain files, with this very process in it.
    fn machine() -> (tempfile::TempDir, Places) {
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join("keel/containerd");
        fs::create_dir_all(unit.join("main")).unwrap();
        fs::create_dir_all(folder.path().join("keel/time")).unwrap();
        let write = |file: &str, text: &str| fs::write(unit.join(file), text).unwrap();
        write("cpu.stat", "usage_usec 2500000\n");
        write("memory.current", "1048576\n");
        write("memory.max", "max\n");
        write("memory.events", "low 0\noom 1\noom_kill 3\n");
        write("main/cgroup.procs", &format!("{}\n4194305\n", std::process::id()));
        let places = Places { cgroup: folder.path().to_owned(), ..Places::default() };
        (folder, places)
    }

    #[test]
    fn a_unit_and_its_processes() {
        let (_folder, places) = machine();
        let units = processes(&places, &[]).unwrap();
        assert_eq!(
            units.iter().map(|unit| &*unit.unit).collect::<Vec<_>>(),
            ["containerd", "time"]
        );
        let unit = &units[0];
        assert_eq!(unit.cgroup, "/keel/containerd");
        assert_eq!(unit.cpu, Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }));
        assert_eq!((unit.memory_bytes, unit.memory_max_bytes), (Some(1 << 20), None));
        assert_eq!((unit.oom_kills, unit.io_read_bytes), (Some(3), None));
        // One of the two is gone.
        assert_eq!((unit.count, unit.processes.len()), (2, 1));
        let own = &unit.processes[0];
        assert_eq!(own.pid, std::process::id());
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert!(own.rss_bytes > 0 && own.threads > 0 && own.name.len() <= 15, "{own:?}");
    }

    #[test]
    fn only_what_was_asked_for() {
        let (_folder, places) = machine();
        let units = processes(&places, &["time".to_owned()]).unwrap();
        assert_eq!(units.len(), 1);
        let missing = processes(&places, &["time".to_owned(), "../etc".to_owned()]);
        assert_eq!(missing, Err(NoCgroup("../etc".to_owned())));
    }

    /// A name may hold what separates fields.
    #[test]
    fn a_name_with_brackets() {
        let folder = tempfile::tempdir().unwrap();
        let process_folder = folder.path().join("7");
        fs::create_dir(&process_folder).unwrap();
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 3 0 1234 0 0";
        fs::write(process_folder.join("stat"), stat).unwrap();
        fs::write(process_folder.join("status"), "VmRSS:\t4 kB\n").unwrap();
        let found = process(folder.path(), 7).unwrap();
        assert_eq!((found.name.as_str(), found.state.as_str(), found.threads), ("a) b (c", "S", 3));
        assert_eq!(found.cpu, Some(prost_types::Duration { seconds: 2, nanos: 0 }));
        assert_eq!(found.started, Some(prost_types::Duration { seconds: 12, nanos: 340_000_000 }));
        assert_eq!(found.rss_bytes, 4096);
    }
}
