//! Every osctl command line in the book is one that osctl takes, and those that need no node and no image do what the book says.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn osctl<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
    command.args(arguments).env_remove("OSCTL_ENDPOINT").env_remove("OSCTL_FINGERPRINT");
    command.current_dir(root()).output().unwrap()
}

/// The arguments of every `$ osctl …` in the README and the book.
fn shown() -> Vec<String> {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|page| page.extension().is_some_and(|e| e == "md"));
    let texts =
        pages.chain([root().join("README.md")]).map(|page| fs::read_to_string(page).unwrap());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter_map(|line| line.strip_prefix("$ osctl ").map(str::to_owned)).collect()
}

/// The arguments of a command line, of which some stand in quotes.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(place, part)| match place % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    words.collect()
}

#[test]
fn osctl_takes_every_command_line_that_is_shown() {
    let shown = shown();
    assert!(shown.len() >= 8, "{shown:?}");
    for line in shown {
        // clap reads from left to right: what it does not know it refuses before it comes to `--help`.
        let output = osctl(words(&line).into_iter().chain(["--help"]));
        assert!(
            output.status.success(),
            "osctl {line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn what_is_shown_of_graphs_runs() {
    let offline = |line: &String| {
        line.starts_with("validate ") || line.starts_with("graph ") || line.starts_with("boot ")
    };
    for line in shown().into_iter().filter(offline) {
        let output = osctl(words(&line));
        // Two graphs that are shown to be compared may differ.
        let differs = line.starts_with("graph diff ") && output.status.code() == Some(1);
        assert!(
            output.status.success() || differs,
            "osctl {line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!output.stdout.is_empty(), "osctl {line} prints nothing");
    }
}

#[test]
fn exit_codes_are_those_of_the_book() {
    let check = |line: &str, code: i32| {
        assert_eq!(osctl(line.split(' ')).status.code(), Some(code), "osctl {line}");
    };
    check("validate --config machine-configs/qemu.toml", 0);
    check("validate --units testdata/units/err/cycle", 1);
    check("validate --colour", 2);
    check("validate --config no-such-file.toml", 2);
    check("validate --goal no-such-unit", 2);
    check("status", 2);
}
