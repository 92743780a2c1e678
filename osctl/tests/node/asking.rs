//! What osctl asks in a terminal before something cannot be undone, and what comes of each answer.

use std::fs;

use tempfile::TempDir;

use crate::steered::Steered;
use crate::support::MACHINE_ID;

/// The keys that end a line of input, and that interrupt.
const CTRL_D: &str = "\u{4}";
const CTRL_C: &str = "\u{3}";

/// What a shell calls the end of a program by SIGINT.
const INTERRUPTED: i32 = 128 + 2;

/// Each question is answered as soon as it stands there; then osctl ends with this code, shows these words last, and the machine has
/// done that.
#[track_caller]
fn check(
    node: &Steered,
    command: &[&str],
    talk: &[(&str, &str)],
    code: i32,
    end: &str,
    done: &[&str],
) {
    let home = TempDir::new().unwrap();
    let mut terminal = node.terminal(home.path(), "admin", command);
    for (question, keys) in talk {
        terminal.shows(question);
        terminal.keys(keys);
    }
    let (ended, screen) = terminal.end();
    let shown = screen.contents();
    assert_eq!(ended, Some(code), "{talk:?}: {shown}");
    let asked = shown.find(talk[talk.len() - 1].0).unwrap();
    assert!(shown[asked..].contains(end), "{talk:?}: {shown}");
    assert_eq!(node.done(), done, "{talk:?}");
}

#[test]
fn what_is_interrupted_is_asked_for_once() {
    let node = Steered::start(Vec::new());
    let stop = ["units", "stop", "kubelet"];
    let question = "1 running unit will be interrupted. Go on? [y/N] ";
    for no in ["n\n", "\n", "no\n", "yes please\n", "yy\n", CTRL_D] {
        check(&node, &stop, &[(question, no)], 1, "nothing was done", &[]);
    }
    check(&node, &stop, &[(question, CTRL_C)], INTERRUPTED, "^C", &[]);
    for yes in ["y\n", "YES\n", " yes \n"] {
        check(&node, &stop, &[(question, yes)], 0, "kubelet  inactive", &["Stop kubelet"]);
    }
    for (command, question, did) in [
        ("reboot", "Reboot node-1? [y/N] ", "Reboot"),
        ("shutdown", "Shut down node-1? [y/N] ", "PowerOff"),
    ] {
        check(&node, &[command], &[(question, "n\n")], 1, "nothing was done", &[]);
        check(&node, &[command], &[(question, CTRL_C)], INTERRUPTED, "^C", &[]);
        check(&node, &[command], &[(question, "y\n")], 0, "node-1 is stopping its 2 units", &[did]);
    }
}

#[test]
fn a_reset_is_asked_for_twice() {
    let node = Steered::start(Vec::new());
    let check = |talk: &[(&str, &str)], code, end: &str, done: &[&str]| {
        check(&node, &["reset"], talk, code, end, done);
    };
    let (first, second) = ("or the host name node-1, to go on: ", "It cannot be undone. [y/N] ");
    for other in ["ffffffffffffffffffffffffffffffff\n", "node-2\n", "y\n", "\n", CTRL_D] {
        check(&[(first, other)], 1, "that is another machine; nothing was done", &[]);
    }
    check(&[(first, CTRL_C)], INTERRUPTED, "^C", &[]);
    for no in ["n\n", "\n", "node-1\n", CTRL_D] {
        check(&[(first, "node-1\n"), (second, no)], 1, "nothing was done", &[]);
    }
    check(&[(first, "node-1\n"), (second, CTRL_C)], INTERRUPTED, "^C", &[]);
    let id = format!("{MACHINE_ID}\n");
    for this in ["node-1\n", &id] {
        check(&[(first, this), (second, "y\n")], 0, "boots as a new machine", &["Reset"]);
    }
}

/// Whoever is asked about a node that was never met sees its fingerprint before the question, and what was answered changes nothing in
/// what is known of it.
#[test]
fn a_node_that_is_met_for_the_first_time_shows_its_fingerprint_before_it_asks() {
    let node = Steered::start(Vec::new());
    let home = TempDir::new().unwrap();
    let note = format!("is known from now on by the fingerprint {}", node.fingerprint());
    let known = || fs::read_to_string(home.path().join("known-nodes")).unwrap_or_default();
    for (answer, code) in [("n\n", 1), (CTRL_D, 1), (CTRL_C, INTERRUPTED), ("y\n", 0)] {
        let first = known().is_empty();
        let mut terminal = node.terminal(home.path(), "admin", &["reboot"]);
        terminal.shows("Reboot node-1? [y/N] ");
        assert_eq!(known().matches(&node.fingerprint()).count(), 1);
        terminal.keys(answer);
        let (ended, screen) = terminal.end();
        let shown = screen.contents();
        assert_eq!(ended, Some(code), "{shown}");
        let (note, question) = (shown.find(&note), shown.find("Reboot node-1?"));
        assert_eq!(note.is_some(), first, "{shown}");
        assert!(note < question, "{shown}");
    }
    assert_eq!(node.done(), ["Reboot"]);
}
