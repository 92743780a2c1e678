//! `osctl validate` and `osctl graph render` as people use them: the real binary, its output and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn osctl(arguments: &[&str]) -> Output {
    // From the top of the tree, so that paths in the output are the same on every machine.
    Command::new(env!("CARGO_BIN_EXE_osctl")).args(arguments).current_dir(root()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Validates, expects this exit code, and gives what was printed.
fn check(arguments: &[&str], code: i32) -> String {
    let output = osctl(&[&["validate"], arguments].concat());
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{printed}");
    printed
}

/// Folders and files of `folder`, by name.
fn entries(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_bad_unit_tree_is_told_in_full() {
    let cases = entries("testdata/units/err");
    assert!(cases.len() >= 20);
    for case in cases {
        let printed = check(&["--units", &format!("testdata/units/err/{case}")], 1);
        insta::assert_snapshot!(format!("unit-{case}"), printed);
    }
}

#[test]
fn every_bad_config_is_told_in_full() {
    let cases = entries("testdata/configs/err");
    assert!(cases.len() >= 8);
    for case in cases {
        let printed = check(&["--config", &format!("testdata/configs/err/{case}")], 1);
        insta::assert_snapshot!(format!("config-{}", case.trim_end_matches(".toml")), printed);
    }
}

#[test]
fn every_shipped_config_is_valid() {
    for config in entries("machine-configs") {
        let printed = check(&["--config", &format!("machine-configs/{config}")], 0);
        assert!(printed.starts_with("valid: "), "{printed}");
    }
}

#[test]
fn files_that_are_none_are_told_and_nothing_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("boot.toml"), "[target]\n").unwrap();
    std::fs::create_dir(at("folder.toml")).unwrap();
    let fifo = Command::new("mkfifo").arg(at("fifo.toml")).status().unwrap();
    assert!(fifo.success());
    symlink(at("loop.toml"), at("loop.toml")).unwrap();
    symlink(at("gone"), at("dangling.toml")).unwrap();
    symlink("/dev/zero", at("endless.toml")).unwrap();
    std::fs::write(at("large.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    std::fs::write(at("deep.toml"), format!("x = {}", "[".repeat(100_000))).unwrap();
    std::fs::write(at("deep-tables.toml"), format!("x = {}", "{a=".repeat(100_000))).unwrap();
    std::fs::write(at("deep-keys.toml"), format!("[{}a]", "a.".repeat(100_000))).unwrap();
    std::fs::write(
        at("braces.toml"),
        format!("description = \"{{{{{}}}}}\"\n[target]\n", "(".repeat(100_000)),
    )
    .unwrap();
    let printed = check(&["--units", folder.path().to_str().unwrap()], 1);
    for expect in [
        "expected a regular file, found a directory",
        "expected a regular file, found a FIFO, socket or device",
        "cannot read the file: Too many levels of symbolic links",
        "cannot read the file: No such file",
        "more than the 1048576 (1 MiB)",
        "deep.toml",
        "deep-tables.toml",
        "deep-keys.toml",
        "braces.toml",
    ] {
        assert!(printed.contains(expect), "{expect} is not in\n{printed}");
    }
    assert!(printed.len() < 100_000, "{} bytes", printed.len());
}

#[test]
fn a_wrong_command_line_is_no_finding() {
    check(&["--units", "no/such/folder"], 2);
    check(&["--config", "no-such.toml"], 2);
    check(&["--goal", "bot"], 2);
    check(&["--no-such-option"], 2);
}

#[test]
fn json_says_the_same() {
    let printed = check(&["--units", "testdata/units/err/cycle", "--output", "json"], 1);
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["valid"], false);
    assert_eq!(json["findings"][0]["code"], "cycle");
    assert!(json["findings"][0]["line"].as_u64().unwrap() > 0);
    let printed = check(&["--config", "machine-configs/qemu.toml", "--output", "json"], 0);
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["valid"], true);
}

#[test]
fn a_graph_in_json_has_what_scripts_rely_on() {
    let render =
        || osctl(&["graph", "render", "--config", "machine-configs/qemu.toml", "--format", "json"]);
    let output = render();
    assert!(output.status.success());
    assert_eq!(output.stdout, render().stdout);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["goal"], "boot");
    assert!(json["digest"].as_str().unwrap().starts_with("sha256:"));
    let unit =
        json["units"].as_array().unwrap().iter().find(|u| u["name"] == "mount.data").unwrap();
    assert_eq!((&unit["kind"], &unit["stage"]), (&"mount".into(), &"storage".into()));
    assert_eq!(unit["file"], "units/storage/data.toml");
    let edges = json["edges"].as_array().unwrap();
    let edge = edges.iter().find(|e| {
        e["from"] == "mount.data" && e["to"] == "filesystem.data" && e["kind"] == "after"
    });
    let edge = edge.unwrap();
    assert_eq!((&edge["await"], &edge["why"]), (&"ready".into(), &"after".into()));
    assert_eq!((&edge["file"], &edge["line"]), (&"units/storage/data.toml".into(), &4.into()));
}

#[test]
fn a_broken_graph_is_not_drawn() {
    let output = osctl(&["graph", "render", "--units", "testdata/units/err/cycle"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("ordering cycle of 3"));
}
