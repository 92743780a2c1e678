//! Services that die, and processes that nobody waits for.

use std::fs;
use std::path::Path;
use std::process::Command;

use keel_image::ImageDir;
use keel_image::vm::Vm;

use crate::support::{LONG, append, blank, inputs, node, repository, shut_down};

/// An image with the probe and its units beside the shipped ones.
fn probe_image(dir: &Path) -> ImageDir {
    let probe = dir.join("vm-probe");
    let source = repository().join("testdata/vm/probe.c");
    let built = Command::new("gcc")
        .args(["-O1", "-static", "-o"])
        .arg(&probe)
        .arg(source)
        .status()
        .unwrap();
    assert!(built.success());
    let units = dir.join("units");
    fs::create_dir(&units).unwrap();
    for from in ["units", "testdata/vm/units"] {
        let copied = Command::new("cp")
            .arg("-r")
            .arg(repository().join(from).join("."))
            .arg(&units)
            .status()
            .unwrap();
        assert!(copied.success());
    }
    let payload = format!("vm-probe={}", probe.display());
    let more = [
        "--units",
        units.to_str().unwrap(),
        "--payload",
        &payload,
        "--config",
        "machine-configs/qemu.toml",
    ];
    inputs().build(&dir.join("image"), &more)
}

/// Boots a node with the probe until both the boot and the probe are done, and shuts it down. Returns
/// its console.
fn probed(dir: &Path, test: &str) -> Vec<String> {
    let disk = dir.join("disk.img");
    blank(&disk, 1 << 30);
    let mut spec = node(&probe_image(dir), &[&disk]);
    append(&mut spec, &format!("vm.test={test}"));
    let mut vm = Vm::start(&spec).unwrap();
    let mut missing = vec!["KEEL-REPORT {", "PROBE done"];
    vm.wait_until("does not finish its probe", LONG, |line| {
        missing.retain(|mark| !line.contains(mark));
        missing.is_empty().then_some(())
    })
    .unwrap();
    shut_down(vm)
}

/// The most memory of PID 1 that is still little, in KiB: what a node's init may have resident, all its pages counted.
const RSS_MAX: u64 = 8 << 10;

/// The numbers of a `PROBE` line.
fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_service_that_is_killed_comes_back_each_time_and_init_does_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let console = probed(dir.path(), "kill");
    let kills: Vec<_> =
        console.iter().filter(|line| line.starts_with("PROBE kill ")).map(|l| numbers(l)).collect();
    assert_eq!(kills.len(), 20, "{console:#?}");

    let [back, rss] =
        [1, 2].map(|column| kills.iter().map(|kill| kill[column]).collect::<Vec<_>>());
    // It waits longer each time, from 0.1 s to 2 s, with jitter. The first wait is short, the last
    // ones are not, and none is longer than the longest allowed and the machine's slowness.
    assert!(back[0] < 1000, "{back:?}");
    assert!(back[10..].iter().all(|ms| (1000..6000).contains(ms)), "{back:?}");
    // KiB. Buffers that are bounded fill up at first; after that a page or two is noise.
    assert!(rss[19] <= rss[9] + 64, "{rss:?}");
    assert!(rss.iter().all(|rss| (1..=RSS_MAX).contains(rss)), "{rss:?}");
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let console = probed(dir.path(), "orphans");
    let line = console.iter().find(|line| line.starts_with("PROBE orphans ")).unwrap();
    let [count, _millis, before, after] = numbers(line)[..] else { panic!("{line}") };
    assert_eq!(count, 10_000);
    // Of an orphan init keeps nothing but a number in a counter. Two pages were seen; a byte of each would be more.
    assert!(after <= before + 64, "{line}");
    assert!((1..=RSS_MAX).contains(&after), "{line}");
    assert!(!console.iter().any(|line| line.contains("fork failed")), "{console:#?}");
}
