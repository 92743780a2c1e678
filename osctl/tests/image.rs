//! `osctl image build` before it builds: what could not boot makes no image.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

/// Builds from these units and this config, expects this exit code, and gives what was said.
fn check(units: &str, config: &str, code: i32) -> String {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("image");
    let output = Command::new(env!("CARGO_BIN_EXE_osctl"))
        .args(["image", "build", "--units", units, "--config", config])
        .args(["--kernel", "vmlinuz", "--modules", "modules", "--out"])
        .arg(&out)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty());
    assert!(!out.exists());
    said
}

#[test]
fn what_does_not_validate_makes_no_image() {
    let qemu = "machine-configs/qemu.toml";
    let said = check("testdata/units/err/cycle", qemu, 1);
    assert!(said.contains("ordering cycle of 3"), "{said}");
    let said = check("testdata/units/err/no-deadline", qemu, 1);
    assert!(said.contains("has no deadline"), "{said}");
    let said = check("units", "testdata/configs/err/unknown-key.toml", 1);
    assert!(said.contains("unknown key"), "{said}");
    check("units", "no-such.toml", 2);
    check("no/such/folder", qemu, 2);
}

#[test]
fn a_node_without_processors_is_refused() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_osctl"))
            .args(["image", "run", "no-such-image"])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in [["--cpus", "0"], ["--api-port", "0"]] {
        let (code, said) = run(&arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(arguments[0]) && said.contains("0 is not in 1.."), "{said}");
    }
}
