//! What a node goes on telling.

use std::io::BufReader;
use std::process::Stdio;

use keel_control::GoalState;

use crate::machine::BOOT_ID;
use crate::support::{Node, check_usage, next_line, osctl_command};

#[test]
fn logs_are_read_and_followed() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let read = node.pinned(&["logs", "containerd", "--tail", "2"]);
    assert_eq!((read.code, read.stderr.as_str()), (Some(0), ""));
    let texts: Vec<_> = read.stdout.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    assert_eq!(texts, ["containerd line 2", "containerd line 3"]);
    let json = node.pinned(&["logs", "--output", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&json["seq"], &json["at_ms"]), (&1.into(), &1_001.into()));
    assert_eq!((&json["unit"], &json["boot"]), (&"containerd".into(), &BOOT_ID.into()));
    let of_boot = node.pinned(&["logs", "--boot", BOOT_ID]);
    assert_eq!(of_boot.stdout.lines().count(), 3);
    let wrong = node.pinned(&["logs", "contained"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("no unit of the running graph is called that"), "{wrong:?}");
    assert!(wrong.stderr.contains("next: `osctl units` lists"), "{wrong:?}");
    check_usage(&["logs", "--since", "noon"], "write 5m, 1h30m or 2026-01-31T12:00:00Z");
    check_usage(&["logs", "--tail", "0"], "0 is not in 1..");
    check_usage(&["logs", "--boot", "9f", "--follow"], "cannot be used with");

    let mut osctl = node.follow(&["logs", "--follow", "--tail", "1"]);
    assert!(osctl.line().ends_with(" line 3"));
    init.write(1);
    assert!(osctl.line().ends_with(" line 4"));
}

/// Init goes and comes: for a follower it is the agent that breaks the stream off, and says why.
#[test]
fn a_follower_goes_on_where_it_was() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    init.say("event 1");
    let mut logs = node.follow(&["logs", "--follow"]);
    let mut events = node.follow(&["events", "--follow"]);
    for n in 1..=3 {
        assert!(logs.line().ends_with(&format!(" line {n}")));
    }
    assert!(events.line().ends_with("event 1"));
    drop(init);
    for osctl in [&mut logs, &mut events] {
        let broken = osctl.said();
        assert!(broken.starts_with("note: the node did not "), "{broken}");
        assert!(broken.ends_with("; going on when it is back"), "{broken}");
    }

    let init = node.init_with(GoalState::Reached, 4, &["event 1 again", "event 2"]);
    assert!(logs.line().ends_with(" line 4"), "nothing twice, and nothing left out");
    assert!(events.line().ends_with("event 2"));
    drop(init);

    // A boot with fewer lines than were read is another one.
    let _init = node.init_with(GoalState::Reached, 1, &["event 1 of the new boot"]);
    assert!(logs.line().ends_with(" line 1"));
    assert!(events.line().ends_with("event 1 of the new boot"));
    assert!(logs.said_until("rebooted") && events.said_until("rebooted"));
}

#[test]
fn events_are_told_and_followed() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    for n in 1..=5 {
        init.say(&format!("event {n}"));
    }
    let told = node.pinned(&["events"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(told.stderr, "note: 1 events before these are forgotten by the node\n");
    assert_eq!(told.stdout.lines().count(), 4);
    assert!(told.stdout.starts_with("     2      1.234  event 2\n"), "{}", told.stdout);
    let lines = node.pinned(&["events", "--output", "json"]).stdout;
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let yaml = node.pinned(&["events", "--output", "yaml"]).stdout;
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    assert_eq!((documents.len(), documents), (4, lines), "a document an event");
    let beyond = node.pinned(&["events", "--from", "99"]);
    assert_eq!(beyond.code, Some(1));
    assert!(
        beyond.stderr.contains("event 99 has not happened, the next one is 6"),
        "{}",
        beyond.stderr
    );

    let mut follower = node.follow(&["events", "--follow", "--from", "5"]);
    assert!(follower.line().ends_with("event 5"));
    init.say("something new");
    assert!(follower.line().ends_with("something new"));
}

#[test]
fn a_watch_asks_again() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let pin = node.fingerprint();
    let mut watch = osctl_command(&["--endpoint", &node.endpoint, "--fingerprint", &pin])
        .args(["units", "--watch", "--interval", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(watch.stdout.take().unwrap());
    let mut stderr = BufReader::new(watch.stderr.take().unwrap());
    let block: Vec<_> = (0..5).map(|_| next_line(&mut stdout)).collect();
    assert!(block[0].starts_with("UNIT ") && block[4].starts_with("2 units"), "{block:?}");
    let again: Vec<_> = (0..6).map(|_| next_line(&mut stdout)).collect();
    assert_eq!((again[0].as_str(), &again[1..]), ("\n", &block[..]));
    drop(init);
    assert!(next_line(&mut stderr).starts_with("error: the node did not list its units"));
    let _init = node.init(GoalState::Reached);
    while !next_line(&mut stdout).starts_with("UNIT ") {}
    watch.kill().unwrap();
    watch.wait().unwrap();
    check_usage(&["units", "--watch", "--interval", "0"], "0 is not in 1..=3600");
    check_usage(&["units", "--interval", "5"], "--watch");
}
