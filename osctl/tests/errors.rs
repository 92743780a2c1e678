//! What osctl says when it cannot do what was asked: each time what, why, and what to do next.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
    command.args(shlex::split(line).unwrap()).current_dir(root());
    for name in ["OSCTL_ENDPOINT", "OSCTL_FINGERPRINT", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

/// Command lines that fail, without findings in files: those are told as findings.
const FAIL: &[&str] = &[
    "",
    "valdate",
    "validate --confg x",
    "validate --format xml",
    "validate --output xml",
    "validate --config no-such.toml",
    "validate --units no-such",
    "validate --units units/boot.toml",
    "validate --goal containered",
    "graph render --goal containered",
    "graph explain containered",
    "graph path kubelet containered",
    "graph path kubelet kubelet",
    "graph list --stage storge",
    "graph diff no-such.toml machine-configs/qemu.toml",
    "graph simulate --fail containered",
    "graph simulate --fail storage",
    "graph simulate --fail containerd --hang containerd",
    "graph simulate --skip containerd",
    "graph simulate --slow containerd",
    "graph simulate --assert 'containerd is happy'",
    "graph simulate --budget 2min",
    "graph simulate --cpus 0",
    "graph simulate --trace no-such.json",
    "graph simulate --trace machine-configs/qemu.toml",
    "boot show no-such.json",
    "boot show machine-configs/qemu.toml",
    "image run no-such",
    "image run units",
    "status",
    "--endpoint ftp://a status",
    "--endpoint 127.0.0.1:1 status",
    "--endpoint 127.0.0.1:1 --fingerprint 12 status",
    "completion tcsh",
    "man -o README.md",
];

#[test]
fn every_failure_says_what_to_do_next() {
    let mut page = String::new();
    let mut silent = Vec::new();
    for line in FAIL {
        let Output { status, stdout, stderr } = command(line).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(!status.success(), "osctl {line} succeeds");
        assert_eq!(stdout, "", "osctl {line} prints a result");
        // clap's own: the right spelling, the possible values, or where to look; without any argument, the help itself.
        let next = ["\nnext: ", "  tip: ", "[possible values: ", "try '--help'", "Commands:"];
        if !next.iter().any(|next| stderr.contains(next)) {
            silent.push(*line);
        }
        // The help itself changes with each command that comes.
        let shown = if line.is_empty() { "(the help)\n" } else { &stderr };
        page += &format!("$ osctl {line}\n{shown}[{}]\n\n", status.code().unwrap());
    }
    insta::assert_snapshot!("failures", page);
    assert!(silent.is_empty(), "these say nothing of what to do: {silent:#?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_and_a_closed_pipe_is_not() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command("validate").stdout(Stdio::from(full)).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cause: No space left on device"), "{stderr}");
    assert!(stderr.contains("next: see whether there is room"), "{stderr}");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command("graph render").stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), [].as_slice()));
}
