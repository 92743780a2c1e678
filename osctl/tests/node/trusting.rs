//! By what a node is known, and what is said of whatever else answers.

use std::fs;
use std::io::Read;

use keel_control::GoalState;

use crate::support::{Node, check_usage, osctl, osctl_at};

#[test]
fn trust_is_pinned_or_shown() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let first = node.osctl(&["status"]);
    let shown = format!(
        "note: {} is known from now on by the fingerprint {}; compare it with the node's console\n",
        node.endpoint,
        node.fingerprint()
    );
    assert_eq!((first.code, first.stderr), (Some(0), shown));
    let again = node.osctl(&["status"]);
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""));
    let known = fs::read_to_string(node.home().join("known-nodes")).unwrap();
    let line = format!("\n{} sha256:{} 20", node.endpoint, node.fingerprint());
    assert!(known.contains(&line), "{known}");

    let endpoint = format!("http://{}", node.endpoint);
    let typed = osctl(&["--endpoint", &endpoint, "--fingerprint", &node.fingerprint(), "status"]);
    assert_eq!(typed.code, Some(0));
    assert_eq!(typed.stderr, "note: http:// was typed, but what goes over the wire is TLS\n");

    let other = "00".repeat(32);
    let refused = node.osctl(&["--fingerprint", &other, "status"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    let expect = format!("its key has the fingerprint {}, not {other}\n", node.fingerprint());
    assert!(refused.stderr.contains(&expect), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("next: compare with the fingerprint on the node's console"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_changed_fingerprint_is_refused_loudly() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let old = "ab".repeat(32);
    assert_eq!(node.osctl(&["known-nodes", "add", &node.endpoint, &old]).code, Some(0));
    let refused = node.osctl(&["status"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    let file = node.home().join("known-nodes");
    for part in [
        "ITS CERTIFICATE IS NOT THE ONE THAT IS KNOWN\n".to_owned(),
        format!("  known  {old} since 20"),
        format!(", {}:2\n  shown  {}\n", file.display(), node.fingerprint()),
        format!("if it shows the new one: osctl known-nodes remove {}\n", node.endpoint),
    ] {
        assert!(refused.stderr.contains(&part), "{part} is not in {}", refused.stderr);
    }
    let listed = node.osctl(&["known-nodes", "list"]);
    assert!(listed.stdout.contains(&old), "{listed:?}");
    assert_eq!(node.osctl(&["known-nodes", "remove", &node.endpoint]).code, Some(0));
    assert_eq!(node.osctl(&["known-nodes", "remove", &node.endpoint]).code, Some(1));
    let unknown = node.osctl(&["--known-only", "status"]);
    assert_eq!(unknown.code, Some(1));
    let add = format!("osctl known-nodes add {} {}\n", node.endpoint, node.fingerprint());
    assert!(unknown.stderr.ends_with(&add), "{}", unknown.stderr);
    assert_eq!(
        node.osctl(&["known-nodes", "add", &node.endpoint, &node.fingerprint()]).code,
        Some(0)
    );
    assert_eq!(node.osctl(&["--known-only", "status"]).code, Some(0));
}

#[test]
fn a_context_names_a_node() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let home = node.home();
    let pin = node.fingerprint();
    let add = ["context", "add", "lab", "--endpoint", &node.endpoint, "--fingerprint", &pin];
    assert_eq!(osctl_at(&home, &add).stderr, "note: `lab` is in use from now on\n");
    assert_eq!(osctl_at(&home, &add).code, Some(2));
    let status = osctl_at(&home, &["status"]);
    assert_eq!((status.code, status.stderr.as_str()), (Some(0), ""));
    assert!(osctl_at(&home, &["context", "list"]).stdout.contains("* lab "));
    assert_eq!(osctl_at(&home, &["--keel-context", "gone", "status"]).code, Some(2));
    // Another node is not measured by this one's fingerprint.
    let other = Node::start();
    let _init = other.init(GoalState::Reached);
    assert_eq!(osctl_at(&home, &["--endpoint", &other.endpoint, "status"]).code, Some(0));
    assert_eq!(osctl_at(&home, &["context", "remove", "lab"]).code, Some(0));
    assert_eq!(osctl_at(&home, &["status"]).code, Some(2));
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    check_usage(&["status"], "next: give --endpoint HOST, set OSCTL_ENDPOINT, or make a context");
    check_usage(&["--endpoint", "ftp://a", "status"], "unknown scheme `ftp`");
    check_usage(&["--endpoint", "a", "--fingerprint", "12", "status"], "this has 2");
    check_usage(&["--endpoint", "a", "statsu"], "a similar subcommand exists: 'status'");
}

#[test]
fn whatever_else_answers_is_named() {
    // Nobody: the port was free a moment ago, and nothing else on this address is told about it.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let nobody = osctl(&["--endpoint", &free, "status"]);
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stderr.contains("it cannot be reached\ncause: Connection refused"),
        "{}",
        nobody.stderr
    );

    // Something that speaks, but not TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let speaker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
        // Until osctl has hung up: closing first could cost it the bytes that it is to judge.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let plain = osctl(&["--endpoint", &address, "status"]);
    speaker.join().unwrap();
    assert_eq!(plain.code, Some(1));
    assert!(plain.stderr.contains("it does not speak TLS 1.3\ncause: "), "{}", plain.stderr);
    assert!(
        plain.stderr.contains("next: is this the port of a Keel node's API?"),
        "{}",
        plain.stderr
    );
}
