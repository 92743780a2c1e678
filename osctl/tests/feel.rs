//! How osctl feels at a terminal: notations, colour, completions and manual pages, by the real binary and the real shells.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const OSCTL: &str = env!("CARGO_BIN_EXE_osctl");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A command at the top of the tree that no variable of whoever runs the tests reaches.
fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).env("TERM", "xterm-256color");
    for name in
        ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "OSCTL_ENDPOINT", "OSCTL_FINGERPRINT"]
    {
        command.env_remove(name);
    }
    command
}

fn stdout(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup` installs it"));
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {}{stderr}", String::from_utf8_lossy(&stdout));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn yaml_says_what_json_says() {
    let check = |arguments: &[&str]| {
        let run = |notation| {
            let output = command(OSCTL, arguments).args(["--output", notation]).output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        let (json, yaml) = (run("json"), run("yaml"));
        assert_eq!(json.0, yaml.0);
        assert_ne!(json.1, yaml.1);
        let from_json: Value = serde_json::from_str(&json.1).unwrap();
        let from_yaml: Value = serde_saphyr::from_str(&yaml.1).unwrap();
        assert_eq!(from_json, from_yaml, "{arguments:?}");
    };
    check(&["validate"]);
    check(&["validate", "--config", "machine-configs/qemu.toml"]);
    for entry in fs::read_dir(root().join("testdata/configs/err")).unwrap() {
        check(&["validate", "--config", entry.unwrap().path().to_str().unwrap()]);
    }
}

/// What a command prints on a terminal, with these variables set.
fn on_a_terminal(line: &str, variables: &[(&str, &str)]) -> String {
    let mut script = command("script", &["--quiet", "--command", line, "/dev/null"]);
    String::from_utf8(script.envs(variables.iter().copied()).output().unwrap().stdout).unwrap()
}

#[test]
fn colour_is_for_terminals_and_never_against_no_color() {
    let lines = [
        format!("{OSCTL} validate --units testdata/units/err/cycle"),
        // An error on stderr, and clap's own pages.
        format!("{OSCTL} validate --units no/such/folder"),
        format!("{OSCTL} validate --help"),
        format!("{OSCTL} --no-such-option"),
    ];
    for line in &lines {
        assert!(on_a_terminal(line, &[]).contains("\x1b["), "{line}: no colour on a terminal");
        for variables in
            [[("NO_COLOR", "1")].as_slice(), &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]]
        {
            let shown = on_a_terminal(line, variables);
            assert!(!shown.contains("\x1b[") && shown.len() > 50, "{line} {variables:?}: {shown}");
        }
        let piped = |variables: &[(&str, &str)]| {
            let arguments: Vec<_> = line.split(' ').skip(1).collect();
            let variables = variables.iter().copied();
            let output = command(OSCTL, &arguments).envs(variables).output().unwrap();
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        assert!(!piped(&[]).contains("\x1b["), "{line}: colour into a pipe");
        assert!(piped(&[("CLICOLOR_FORCE", "1")]).contains("\x1b["), "{line}: not forced");
        assert!(!piped(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains("\x1b["), "{line}");
    }
}

/// Writes the completion script of a shell to a file.
fn script(folder: &Path, shell: &str, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, stdout(&mut command(OSCTL, &["completion", shell]))).unwrap();
    path
}

#[test]
fn bash_completes() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path(), "bash", "osctl.bash");
    let check = |typed: &[&str], expect: &[&str]| {
        let program = r#"source "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _osctl osctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let arguments = ["--norc", "-c", program, "bash", script.to_str().unwrap()];
        let found = stdout(command("bash", &arguments).args(typed));
        let found: Vec<_> = found.lines().collect();
        for word in expect {
            assert!(found.contains(word), "{typed:?}: {word} is not among {found:?}");
        }
        found.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(check(&["osctl", "val"], &["validate"]).len(), 1);
    check(&["osctl", ""], &["validate", "graph", "image", "status", "completion", "man"]);
    check(&["osctl", "graph", ""], &["render"]);
    check(&["osctl", "validate", "--for"], &["--format"]);
    check(&["osctl", "validate", "--format", ""], &["human", "sarif", "github", "json"]);
    check(&["osctl", "--output", ""], &["table", "json", "yaml"]);
    check(&["osctl", "validate", "--units", "unit"], &["units"]);
}

#[test]
fn zsh_and_fish_take_their_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let zsh = script(folder.path(), "zsh", "_osctl");
    let path = zsh.to_str().unwrap();
    stdout(&mut command("zsh", &["--no-rcs", "-n", path]));
    let loaded = format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -d {}; print $_comps[osctl]",
        folder.path().display(),
        folder.path().join("dump").display()
    );
    assert_eq!(stdout(&mut command("zsh", &["--no-rcs", "-c", &loaded])), "_osctl\n");

    let fish = script(folder.path(), "fish", "osctl.fish");
    let home = folder.path().to_str().unwrap();
    let complete = |typed: &str| {
        let program = format!("source {}; complete -C '{typed}'", fish.display());
        let found = stdout(command("fish", &["--no-config", "-c", &program]).env("HOME", home));
        found.lines().map(|l| l.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(complete("osctl val"), ["validate"]);
    assert!(complete("osctl graph ").contains(&"render".to_owned()));
    assert!(complete("osctl validate --format ").contains(&"sarif".to_owned()));
}

#[test]
fn every_command_has_a_page_that_renders() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man/man1");
    stdout(&mut command(OSCTL, &["man", "-o", pages.to_str().unwrap()]));
    let mut names: Vec<_> = fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for page in ["osctl.1", "osctl-validate.1", "osctl-graph-render.1", "osctl-image-build.1"] {
        assert!(names.iter().any(|name| name == page), "{page} is not among {names:?}");
    }
    for name in names {
        let page = pages.join(name);
        let page = page.to_str().unwrap();
        let lint = command("mandoc", &["-T", "lint", "-W", "error", page]).output().unwrap();
        assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    }
    let page = pages.join("osctl-validate.1");
    let shown = stdout(&mut command("mandoc", &["-T", "ascii", page.to_str().unwrap()]));
    let plain = shown.replace('\u{8}', "");
    assert!(plain.contains("osctl validate --config machine-configs/qemu.toml"), "{plain}");
}

#[test]
fn a_page_that_cannot_be_written_says_what_to_do() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = command(OSCTL, &["man", "-o", file.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("next: name another folder"));
}
