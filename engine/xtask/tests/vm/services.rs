//! Services that die, and processes that nobody waits for.

use std::fs;
use std::path::Path;
use std::process::Command;

use keel_image::ImageDir;
use keel_image::vm::VmSpec;

use crate::support::{LONG, boot, inputs, node, repository, shut_down};

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

fn probed(dir: &Path, test: &str) -> VmSpec {
    let mut spec = node(&probe_image(dir), &[]);
    spec.append.push(format!("vm.test={test}"));
    spec
}

/// The numbers of a `PROBE` line.
fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_service_that_is_killed_comes_back_each_time_and_init_does_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, report) = boot(&probed(dir.path(), "kill"));
    assert!(report.reached, "{report:#?}");
    vm.wait_for("PROBE done", LONG).unwrap();
    let console = shut_down(vm);
    let kills: Vec<_> =
        console.iter().filter(|line| line.starts_with("PROBE kill ")).map(|l| numbers(l)).collect();
    assert_eq!(kills.len(), 20, "{console:#?}");

    let [back, rss] =
        [1, 2].map(|column| kills.iter().map(|kill| kill[column]).collect::<Vec<_>>());
    // It waits longer each time, from 0.1 s to 2 s, with jitter. The first wait is short, the last
    // ones are not, and none is longer than the longest allowed and the machine's slowness.
    assert!(back[0] < 1000, "{back:?}");
    assert!(back[10..].iter().all(|ms| (1000..6000).contains(ms)), "{back:?}");
    // KiB; a page or two of noise is no growth.
    assert!(rss[19] <= rss[3] + 128, "{rss:?}");
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, report) = boot(&probed(dir.path(), "orphans"));
    assert!(report.reached, "{report:#?}");
    let line = vm.wait_for("PROBE orphans ", LONG).unwrap();
    let [count, _millis, before, after] = numbers(&line)[..] else { panic!("{line}") };
    assert_eq!(count, 10_000);
    assert!(after <= before + 256, "{line}");
    let console = shut_down(vm);
    assert!(!console.iter().any(|line| line.contains("fork failed")), "{console:#?}");
}
