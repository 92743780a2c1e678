//! Every command line in the book is one that osctl takes, and does what the book says: all are run by a test, but those that are listed here with
//! a reason.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Lines that say what they did on stderr alone.
const QUIET: [&str; 2] = ["osctl context ", "osctl known-nodes "];

/// Lines that no test runs as they stand: how they begin, and why.
const NOT_RUN: [(&str, &str); 7] = [
    ("osctl --endpoint ", "needs a node: osctl/tests/node/book.rs runs these against one"),
    ("osctl image build ", "needs a kernel: engine/image/tests and the VM tests build images"),
    ("osctl image payload ", "writes a manifest: osctl/tests/image.rs runs these on one"),
    ("osctl image run ", "boots a machine: the VM tests boot images"),
    ("osctl verify ", "needs an image: osctl/tests/verify.rs verifies one"),
    ("cargo xtask demo", "boots a machine: CI runs it"),
    ("cargo xtask test", "runs this very test"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn osctl<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
    command
        .args(arguments)
        .env_remove("OSCTL_ENDPOINT")
        .env_remove("OSCTL_FINGERPRINT")
        .env("OSCTL_HOME", "/nonexistent/osctl");
    command.current_dir(root()).output().unwrap()
}

/// A `$ …` line, the page that it stands on, and the exit code that it ends with.
struct Line {
    page: PathBuf,
    text: String,
    code: i32,
}

/// Every `$ …` line of the README and the book, page by page in its order; a line that ends in `\` goes on in the next one.
fn shown() -> Vec<Line> {
    let mut pages = vec![root().join("README.md")];
    for folder in ["docs", "docs/reference"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.extension().is_some_and(|e| e == "md"));
        found.sort();
        pages.extend(found);
    }
    let mut shown = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap().replace("\\\n", " ");
        for line in text.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let (text, remark) = line.split_once("  #").unwrap_or((line, ""));
            let code = remark.trim().strip_prefix("exits with ").map(|code| code.parse().unwrap());
            let code = code.unwrap_or(0);
            shown.push(Line { page: page.clone(), text: text.trim().to_owned(), code });
        }
    }
    assert!(shown.len() >= 25, "the book shows {} command lines", shown.len());
    shown
}

fn reason(line: &Line) -> Option<&'static str> {
    NOT_RUN.iter().find(|(begin, _)| line.text.starts_with(begin)).map(|(_, reason)| *reason)
}

#[test]
fn osctl_takes_every_command_line_that_is_shown() {
    for line in shown().iter().filter(|line| line.text.starts_with("osctl ")) {
        let words = shlex::split(&line.text).unwrap();
        let words = words[1..].iter().map(String::as_str);
        let words = words.take_while(|word| !matches!(*word, "|" | ">" | ">>" | "&&"));
        // clap reads from left to right: what it does not know it refuses before it comes to `--help`.
        let output = osctl(words.chain(["--help"]));
        assert!(
            output.status.success(),
            "{}: {}: {}",
            line.page.display(),
            line.text,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The lines of a page run one after the other in one folder, as a reader would type them.
#[test]
fn what_is_shown_does_what_the_book_says() {
    let beside = Path::new(env!("CARGO_BIN_EXE_osctl")).parent().unwrap();
    let path = format!("{}:{}", beside.display(), env::var("PATH").unwrap());
    let lines = shown();
    for lines in lines.chunk_by(|a, b| a.page == b.page) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["units", "machine-configs", "testdata"] {
            std::os::unix::fs::symlink(root().join(name), folder.path().join(name)).unwrap();
        }
        for line in lines.iter().filter(|line| reason(line).is_none()) {
            let output = Command::new("bash")
                .args(["--norc", "-o", "pipefail", "-c", &line.text])
                .current_dir(folder.path())
                .env("PATH", &path)
                .env_remove("OSCTL_ENDPOINT")
                .env_remove("OSCTL_FINGERPRINT")
                .env("OSCTL_HOME", folder.path().join("home"))
                .output()
                .unwrap();
            let page = line.page.display();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(line.code), "{page}: {}: {said}", line.text);
            let quiet = QUIET.iter().any(|begin| line.text.starts_with(begin));
            let written = quiet || line.text.contains('>') || line.text.contains(" -o ");
            assert!(written || !output.stdout.is_empty(), "{page}: {} prints nothing", line.text);
        }
    }
}

#[test]
fn no_exception_is_left_over() {
    let lines = shown();
    for (begin, reason) in NOT_RUN {
        let used = lines.iter().any(|line| line.text.starts_with(begin));
        assert!(used, "no page shows `{begin}` any more ({reason})");
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
    check("graph diff machine-configs/qemu.toml machine-configs/qemu.toml", 0);
    check("graph diff machine-configs/qemu.toml machine-configs/no-cluster.toml", 1);
    check("graph diff machine-configs/qemu.toml no-such-file.toml", 2);
    check("graph diff --units testdata/units/err/cycle machine-configs/qemu.toml units", 2);
    check("status", 2);
}
