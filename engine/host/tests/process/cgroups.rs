//! Cgroups: where children live, what they may use, and how all of them end.

use std::time::Duration;

use keel_host::process::{Cgroups, Command, Exit, Limits, Reaper};
use nix::sys::signal::Signal;

use crate::support::{Sandbox, lines, log, shell, spawn, until};

#[tokio::test]
async fn a_child_lives_in_its_cgroup_and_dies_with_it() {
    let reaper = Reaper::start().unwrap();
    let sandbox = Sandbox::new("kill");
    let cgroup = sandbox.unit("service");
    assert!(!cgroup.populated().unwrap());

    // It ignores SIGTERM, and so do its children, which have sessions of their own and one of which is an orphan.
    let log = log();
    let script = "trap '' TERM; (setsid sleep 1000 &); setsid sleep 1000 & echo up; cat /proc/self/cgroup; wait; wait";
    let mut child = spawn(&reaper, &shell(script), &log, Some(&cgroup)).unwrap();
    child.executed().await.unwrap();
    until("three processes", || cgroup.processes().unwrap().len() == 3).await;
    until("its lines", || lines(&log).len() > 1).await;
    let own = lines(&log)
        .into_iter()
        .find_map(|line| line.strip_prefix("0::").map(str::to_owned))
        .unwrap();
    assert!(cgroup.holds(&own), "{own} is not in {}", cgroup.path().display());
    assert!(cgroup.populated().unwrap());

    child.signal(Signal::SIGTERM as i32).unwrap();
    cgroup.kill().unwrap();
    tokio::time::timeout(Duration::from_secs(20), cgroup.wait_empty()).await.unwrap().unwrap();
    assert_eq!(child.wait().await, Exit::Signal { signal: 9, core: false });
    child.signal(Signal::SIGTERM as i32).unwrap();

    cgroup.remove().unwrap();
    assert!(!cgroup.path().exists());
    // All of it is idempotent: a stop may find that the work is done.
    cgroup.kill().unwrap();
    cgroup.wait_empty().await.unwrap();
    cgroup.remove().unwrap();
    assert_eq!(cgroup.processes().unwrap(), []);
}

#[tokio::test]
async fn a_delegated_service_runs_in_a_leaf() {
    let reaper = Reaper::start().unwrap();
    let sandbox = Sandbox::new("delegate");
    let (cgroup, _) = sandbox.cgroups.unit("containerd", &Limits::default(), true).unwrap();
    let mut child =
        spawn(&reaper, &Command::new("sleep", ["1000"]), &log(), Some(&cgroup)).unwrap();
    child.executed().await.unwrap();
    let leaf = std::fs::read_to_string(cgroup.path().join("main/cgroup.procs")).unwrap();
    assert_eq!(leaf.trim(), child.pid().to_string());
    assert_eq!(std::fs::read_to_string(cgroup.path().join("cgroup.procs")).unwrap(), "");
    // Its own cgroup beside the leaf dies with the unit too.
    std::fs::create_dir(cgroup.path().join("pods")).unwrap();
    cgroup.kill().unwrap();
    child.wait().await;
    cgroup.wait_empty().await.unwrap();
    cgroup.remove().unwrap();
}

#[tokio::test]
async fn limits_are_set_or_named() {
    let sandbox = Sandbox::new("limits");
    let limits = Limits {
        memory_max: Some(64 << 20),
        memory_high: Some(32 << 20),
        pids_max: Some(50),
        cpu_weight: Some(200),
        cpu_max: Some(50_000),
    };
    let (cgroup, unapplied) = sandbox.cgroups.unit("limited", &limits, false).unwrap();
    let expect = [
        ("memory.max", "67108864"),
        ("memory.high", "33554432"),
        ("pids.max", "50"),
        ("cpu.weight", "200"),
        ("cpu.max", "50000 100000"),
    ];
    for (file, value) in expect {
        let refused = unapplied.iter().find(|unapplied| unapplied.limit == file);
        match (std::fs::read_to_string(cgroup.path().join(file)), refused) {
            (Ok(found), None) => assert_eq!(found.trim(), value),
            (Err(_), Some(refused)) => {
                let controller = file.split('.').next().unwrap();
                assert_eq!(
                    refused.to_string(),
                    format!("{file} is not enforced: the kernel offers no {controller} controller")
                );
            }
            (found, refused) => panic!("{file}: {found:?}, {refused:?}"),
        }
    }
}

#[tokio::test]
async fn no_hierarchy_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let error = Cgroups::at(directory.path(), "keel").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: no cgroup v2 hierarchy is mounted here", directory.path().display())
    );
}
