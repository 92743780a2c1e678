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
fn every_good_input_is_valid() {
    for tree in entries("testdata/units/ok") {
        check(&["--units", &format!("testdata/units/ok/{tree}")], 0);
    }
    for config in entries("testdata/configs/ok") {
        check(&["--config", &format!("testdata/configs/ok/{config}")], 0);
    }
}

#[test]
fn no_output_shows_a_secret() {
    let inputs = [
        ["--units", "testdata/units/err/secret"],
        ["--config", "testdata/configs/err/secret.toml"],
        ["--config", "testdata/configs/err/secret-syntax.toml"],
    ];
    for input in inputs {
        for output in ["table", "json"] {
            let printed = check(&[&input[..], &["--output", output]].concat(), 1);
            assert!(!printed.contains("hunter2"), "{printed}");
        }
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
fn folders_are_followed_as_far_as_it_makes_sense() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("units").join(name);
    std::fs::create_dir_all(at("1/2/3/4/5/6/7/8/9")).unwrap();
    std::fs::write(at("boot.toml"), "[target]\n").unwrap();
    std::fs::write(at("1/2/3/4/5/6/7/8/deep.toml"), "[target]\n").unwrap();
    let units = || at(".").to_str().unwrap().to_owned();
    std::fs::write(at("1/2/3/4/5/6/7/8/9/deeper.toml"), "[target]\n").unwrap();
    let printed = check(&["--units", &units()], 1);
    assert!(printed.contains("more than 8 folders deep"), "{printed}");
    std::fs::remove_dir_all(at("1/2/3/4/5/6/7/8/9")).unwrap();

    let beside = folder.path().join("beside");
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join("linked.toml"), "[target]\n").unwrap();
    symlink(&beside, at("link")).unwrap();
    let printed = check(&["--units", &units()], 0);
    assert!(printed.starts_with("valid: 3 units"), "{printed}");

    symlink(at("."), at("1/round")).unwrap();
    let printed = check(&["--units", &units()], 1);
    assert!(printed.contains("a link to one that it lies in"), "{printed}");
    assert!(printed.contains("1 finding in 1 file"), "{printed}");
}

/// A unit tree of `n` files, each with this text.
fn many(n: usize, text: impl Fn(usize) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("boot.toml"), "[target]\n").unwrap();
    for i in 0..n {
        std::fs::write(folder.path().join(format!("u{i}.toml")), text(i)).unwrap();
    }
    folder
}

#[test]
fn a_thousand_findings_are_counted_and_a_hundred_drawn() {
    let folder = many(1_500, |i| format!("after = \"nobody{i}\"\n[target]\n"));
    let printed = check(&["--units", folder.path().to_str().unwrap()], 1);
    let end = "1500 findings in 1500 files, of which the first 100 are shown\n";
    assert!(printed.ends_with(end), "{}", &printed[printed.len() - 200..]);
}

/// A name that is unknown is compared with those that are known; thousands with thousands take minutes.
#[test]
fn inputs_that_multiply_end() {
    let folder = many(1_000, |i| format!("after = [{}]\n[target]\n", quoted("x", i * 40, 40)));
    check(&["--units", folder.path().to_str().unwrap()], 1);
    let config = folder.path().join("config");
    let drop_ins = (0..40_000).map(|i| format!("[units.x{i}.target]\n")).collect::<String>();
    std::fs::write(&config, format!("schema = 1\n{drop_ins}")).unwrap();
    check(&["--config", config.to_str().unwrap()], 1);

    let modules = format!("schema = 1\nkernel.modules = [{}]\n", quoted("m", 0, 60_000));
    std::fs::write(&config, modules).unwrap();
    let folder = many(60, |_| "after = \"module\"\n[target]\n".to_owned());
    let module = "for-each = \"kernel.modules\"\n[module]\nname = \"{{ item }}\"\n";
    std::fs::write(folder.path().join("module.toml"), module).unwrap();
    let arguments =
        ["--units", folder.path().to_str().unwrap(), "--config", config.to_str().unwrap()];
    let printed = check(&arguments, 1);
    assert!(printed.contains("more than 1000000 edges"), "{printed}");
}

fn quoted(prefix: &str, from: usize, count: usize) -> String {
    (from..from + count).map(|i| format!("\"{prefix}{i}\"")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_terminal_obeys_nothing_that_a_file_says() {
    let folder = many(1, |_| "after = \"\\u001b[31m\"\n[target]\n".to_owned());
    std::fs::write(folder.path().join("b.toml"), "# \u{1b}]0;owned\u{7} \u{202e}\n[target]\n")
        .unwrap();
    std::fs::write(folder.path().join("f.toml"), "\"\\u202e\" = 1\n[target]\n").unwrap();
    std::fs::write(folder.path().join("c\u{1b}[31m\n.toml"), "[target]\n").unwrap();
    std::fs::create_dir(folder.path().join("d\u{202e}")).unwrap();
    std::fs::write(folder.path().join("d\u{202e}/e.toml"), "x = 1\n[target]\n").unwrap();
    let printed = check(&["--units", folder.path().to_str().unwrap()], 1);
    assert!(!printed.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{printed:?}");
    assert!(printed.contains("c?[31m?.toml"), "{printed}");
}

#[test]
fn a_wrong_command_line_is_no_finding() {
    check(&["--units", "units/boot.toml"], 2);
    check(&["--units", "no/such/folder"], 2);
    check(&["--config", "no-such.toml"], 2);
    check(&["--goal", "bot"], 2);
    check(&["--no-such-option"], 2);
    // Units without the goal of every boot are at fault themselves.
    let folder = tempfile::tempdir().unwrap();
    let printed = check(&["--units", folder.path().to_str().unwrap()], 1);
    assert!(printed.contains("there is no unit `boot`"), "{printed}");
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
    assert_eq!((&edge["file"], &edge["line"]), (&"units/storage/data.toml".into(), &5.into()));
}

#[test]
fn a_broken_graph_is_not_drawn() {
    let output = osctl(&["graph", "render", "--units", "testdata/units/err/cycle"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("ordering cycle of 3"));
}
