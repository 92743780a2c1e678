//! The book's lines for a node run.

use std::fs;
use std::io::BufReader;
use std::process::Stdio;

use keel_control::GoalState;
use tempfile::TempDir;

use crate::steered::{Steered, exported};
use crate::support::{Node, next_line, osctl_command, root};

/// What the book shows of a node that runs: its lines, with this node's address for the example's.
#[test]
fn the_lines_of_the_book_for_a_node_run() {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    // What steers a node wants a certificate, and what explains one wants a graph: the next test has both.
    let pages = pages.filter(|page| page.extension().is_some_and(|e| e == "md"));
    let pages = pages.filter(|page| !page.ends_with("operating.md"));
    // What changes a node's config wants an init that keeps one: keel-init's own tests try it with osctl.
    let pages = pages.filter(|page| !page.ends_with("changing.md"));
    let texts: Vec<_> = pages.map(|page| fs::read_to_string(page).unwrap()).collect();
    let lines: Vec<_> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.strip_prefix("$ osctl --endpoint 192.0.2.10 "))
        .map(|line| line.split("  #").next().unwrap())
        // Files with certificates in them, and several nodes: mtls.rs and a test above have those.
        .filter(|line| !line.starts_with("--"))
        // It needs a terminal, and has a test of its own.
        .filter(|line| *line != "dashboard")
        .filter(|line| !line.starts_with("explain "))
        .collect();
    assert!(lines.len() >= 3, "{lines:?}");

    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let folder = TempDir::new().unwrap();
    for line in lines {
        let mut osctl =
            osctl_command(&["--endpoint", &node.endpoint, "--fingerprint", &node.fingerprint()]);
        osctl.args(shlex::split(line).unwrap()).current_dir(folder.path());
        if line.contains("--follow") {
            // It would go on for ever; that it takes the line and waits is what the book says.
            let mut osctl = osctl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            init.say("something new");
            let mut stdout = BufReader::new(osctl.stdout.take().unwrap());
            assert!(!next_line(&mut stdout).is_empty(), "{line}");
            osctl.kill().unwrap();
            osctl.wait().unwrap();
        } else {
            let output = osctl.output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Lines of the page on operating a node that this machine has no answer to, and what tries them instead.
const ELSEWHERE: [&str; 9] = [
    // Redirected.
    "graph render --node --format svg > now.svg",
    "graph render --node --format json > node.json",
    // Its exit code says that they differ.
    "graph diff --node machine-configs/qemu.toml",
    // Units that this machine lacks.
    "units restart containerd --dry-run",
    "units restart containerd --yes",
    "units start time.clock",
    // It has no unit with a cgroup of that name.
    "processes containerd kubelet",
    // It goes on for ever, or until the machine is back.
    "processes --watch --sort cpu --short",
    "reboot --yes --wait",
];

#[test]
fn the_lines_of_the_page_on_operating_run() {
    let node = Steered::start(serde_json::to_vec(&exported()).unwrap());
    let page = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let lines = page.lines().filter_map(|line| line.strip_prefix("$ osctl --endpoint 192.0.2.10 "));
    let lines: Vec<_> = lines.filter(|line| !ELSEWHERE.contains(line)).collect();
    assert!(lines.len() >= 10, "{lines:?}");
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let ended = node.osctl("admin", &words);
        // Nobody is there to be asked.
        let expected = if line == "reset" { 2 } else { 0 };
        assert_eq!(ended.code, Some(expected), "{line}: {ended:#?}");
    }
    assert_eq!(node.done(), ["PowerOff", "Reset"]);
}
