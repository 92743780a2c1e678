//! `osctl config`, `osctl explain` and everything that reads several files, as people use them: the real binary.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
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

/// Runs, expects this exit code, and gives what was printed on stdout and on stderr.
fn check(arguments: &[&str], code: i32) -> (String, String) {
    let output = osctl(arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}{err}");
    (out, err)
}

/// Every config that ships, and the one with every key.
fn configs() -> Vec<String> {
    let entries = fs::read_dir(root().join("machine-configs")).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut configs: Vec<_> = names.map(|name| format!("machine-configs/{name}")).collect();
    configs.push("testdata/configs/ok/every-key.toml".to_owned());
    configs.sort();
    configs
}

/// The digest of the graph that `validate` finds.
fn digest(arguments: &[&str]) -> String {
    let (out, _) = check(&[&["validate", "--output", "json"], arguments].concat(), 0);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    json["digest"].as_str().unwrap().to_owned()
}

const LAYERS: [&str; 6] = [
    "--config",
    "testdata/configs/layers/site.toml",
    "--config",
    "testdata/configs/layers/rack-7.toml",
    "--config",
    "testdata/configs/layers/debug.toml",
];

#[test]
fn what_holds_is_shown_with_who_said_so() {
    insta::assert_snapshot!("show", check(&[&["config", "show"], &LAYERS[..]].concat(), 0).0);
    let with = [&["config", "show", "--with-origin"], &LAYERS[..]].concat();
    insta::assert_snapshot!("show-with-origin", check(&with, 0).0);
    let (json, _) = check(&[&with[..], &["--output", "json"]].concat(), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["config"]["machine"]["hostname"], "rack-7");
    let origins = json["origins"].as_array().unwrap();
    let origin = |path: serde_json::Value| origins.iter().find(|o| o["path"] == path).unwrap();
    let hostname = origin(serde_json::json!(["machine", "hostname"]));
    assert_eq!(
        (&hostname["file"], &hostname["line"]),
        (&"testdata/configs/layers/rack-7.toml".into(), &3.into())
    );
    assert_eq!(origin(serde_json::json!(["agent", "listen"]))["default"], true);
}

#[test]
fn what_a_patch_has_unset_is_shown_too() {
    let folder = tempfile::tempdir().unwrap();
    let patch = folder.path().join("patch.toml");
    fs::write(&patch, "unset = [\"network.dns\", 'kernel.sysctls.\"kernel.panic\"']\n").unwrap();
    let patch = patch.to_str().unwrap();
    let with = [&["config", "show", "--with-origin"], &LAYERS[..], &["--config", patch]].concat();
    let (shown, _) = check(&with, 0);
    let line = |key: &str| format!("# {key}  # {patch}:1\n");
    let end = line("network.dns") + &line("kernel.sysctls.\"kernel.panic\"");
    assert!(shown.ends_with(&end), "{shown}");
    assert!(shown.contains("\ndns = []") && !shown.contains("\n\"kernel.panic\""), "{shown}");
    let (json, _) = check(&[&with[..], &["--output", "json"]].concat(), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["unset"][1]["path"], serde_json::json!(["kernel", "sysctls", "kernel.panic"]));
    assert_eq!((&json["unset"][1]["file"], &json["unset"][1]["line"]), (&patch.into(), &1.into()));
}

#[test]
fn what_is_shown_reads_as_the_same_config() {
    let folder = tempfile::tempdir().unwrap();
    let again = folder.path().join("again.toml");
    let again = again.to_str().unwrap();
    for config in configs() {
        for origin in [&[][..], &["--with-origin"]] {
            let (shown, _) = check(&[&["config", "show", "--config", &config], origin].concat(), 0);
            fs::write(again, &shown).unwrap();
            assert_eq!(
                check(&["config", "show", "--config", again], 0).0,
                check(&["config", "show", "--config", &config], 0).0
            );
        }
        // What is shown of a secret is not the secret.
        if !config.contains("every-key") {
            assert_eq!(digest(&["--config", again]), digest(&["--config", &config]), "{config}");
        }
    }
}

#[test]
fn a_config_that_is_wrong_is_not_shown() {
    let (out, err) = check(
        &[
            "config",
            "show",
            "--config",
            "testdata/configs/err/values.toml",
            "--config",
            "testdata/configs/err/unknown-key.toml",
        ],
        1,
    );
    assert!(out.is_empty(), "{out}");
    assert!(err.contains("values.toml") && err.contains("unknown-key.toml"), "{err}");
    check(&["config", "show", "--config", "no-such.toml"], 2);
    // It is the config that is asked for, and units may be elsewhere.
    check(&["config", "show", "--config", "machine-configs/qemu.toml", "--units", "no/such"], 0);
}

/// A file of secrets with this mode.
fn secrets(folder: &Path, mode: u32) -> String {
    let path = folder.join("secrets.toml");
    fs::write(&path, "token = \"hunter2\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

const TOKEN: [&str; 4] =
    ["--units", "testdata/units/ok/secret", "--config", "testdata/configs/layers/secret.toml"];

#[test]
fn secrets_of_a_file_that_others_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [0o644, 0o640, 0o602] {
        let path = secrets(folder.path(), mode);
        let (_, err) = check(&[&["validate", "--secrets", &path], &TOKEN[..]].concat(), 2);
        assert!(err.contains("others may use the secrets") && err.contains("chmod 600"), "{err}");
    }
    check(&["validate", "--secrets", "no-such.toml"], 2);
}

#[test]
fn a_config_is_checked_with_its_secrets_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = secrets(folder.path(), 0o600);
    let without = [&["validate"], &TOKEN[..]].concat();
    let (_, note) = check(&without, 0);
    assert!(note.contains("the secrets of app, file.token were not checked"), "{note}");
    let (_, note) = check(&[&without[..], &["--secrets", &path]].concat(), 0);
    assert!(note.is_empty(), "{note}");
    let with = digest(&[&TOKEN[..], &["--secrets", &path]].concat());
    assert_ne!(with, digest(&TOKEN), "another secret is another graph");
}

#[test]
fn no_output_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = secrets(folder.path(), 0o600);
    let commands: [&[&str]; 5] = [
        &["validate"],
        &["config", "show"],
        &["config", "show", "--with-origin"],
        &["graph", "render"],
        &["graph", "render", "--format", "json"],
    ];
    for command in commands {
        for output in ["table", "json"] {
            let line = [command, &TOKEN[..], &["--secrets", &path, "--output", output]].concat();
            let (out, err) = check(&line, 0);
            assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{line:?}\n{out}{err}");
            let shown = out.contains("<secret sha256:f52fbd32…>");
            // `validate` and a drawing in layers have no values to show.
            let values = command[0] == "config" || command[0] == "graph" && out.starts_with('{');
            assert_eq!(shown, values, "{line:?}\n{out}");
        }
    }
}

#[test]
fn keys_and_kinds_are_explained() {
    for name in [
        "storage.data.filesystem",
        "service",
        "mount.options",
        "unit.after",
        "network.interfaces",
        "failure.on",
    ] {
        let (page, _) = check(&["explain", name], 0);
        insta::assert_snapshot!(format!("explain-{name}"), page);
        assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
    }
    let (json, _) = check(&["explain", "storage.data.wipe", "--output", "json"], 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["default"], &json["required"]), (&"\"never\"".into(), &false.into()));
    assert_eq!(json["words"][1]["word"], "always");
    assert_eq!(json["example"], "[storage.data]\nwipe = \"never\"\n");
}

#[test]
fn a_slip_in_a_key_is_told_what_was_meant() {
    let told = |name: &str| check(&["explain", name], 2).1;
    assert!(told("storage.data.filesytem").contains("did you mean `storage.data.filesystem`?"));
    assert!(told("fstype").contains("there is mount.fstype"));
    assert!(told("qqq").contains("`osctl explain config` and `osctl explain unit`"));
    assert!(!told("\u{1b}[31m").contains('\u{1b}'));
}

const MACHINES: [&str; 4] = ["qemu", "bare-metal", "cloud", "edge"];

#[test]
fn every_new_config_is_valid_and_so_is_all_that_it_offers() {
    let folder = tempfile::tempdir().unwrap();
    for machine in MACHINES {
        let path = folder.path().join(format!("{machine}.toml"));
        let path = path.to_str().unwrap();
        let (printed, _) = check(&["config", "new", "--for", machine], 0);
        check(&["config", "new", "--for", machine, "-o", path], 0);
        assert_eq!(fs::read_to_string(path).unwrap(), printed);
        let (valid, _) = check(&["validate", "--config", path], 0);
        assert!(valid.starts_with("valid: "), "{valid}");
        // Every key that is commented out may be taken in, all of them together too.
        let all = printed.lines().map(|line| match line.strip_prefix('#') {
            Some(rest)
                if rest.starts_with(|c: char| {
                    c == '[' || c.is_ascii_lowercase() || c.is_ascii_uppercase()
                }) =>
            {
                rest
            }
            _ => line,
        });
        fs::write(path, all.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        check(&["validate", "--config", path], 0);
    }
}

#[test]
fn a_new_config_overwrites_nothing_that_it_was_not_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let mine = path.to_str().unwrap();
    fs::write(mine, "mine").unwrap();
    let (_, err) = check(&["config", "new", "-o", mine], 1);
    assert!(err.contains("is there already") && err.contains("--force"), "{err}");
    assert_eq!(fs::read_to_string(mine).unwrap(), "mine");
    check(&["config", "new", "-o", mine, "--force"], 0);
    assert!(fs::read_to_string(mine).unwrap().contains("schema = 1"));
    let (_, err) =
        check(&["config", "new", "-o", folder.path().join("no/x.toml").to_str().unwrap()], 1);
    assert!(err.contains("cannot write"), "{err}");
    check(&["config", "new", "--force"], 2);
    check(&["config", "new", "--for", "toaster"], 2);
}
