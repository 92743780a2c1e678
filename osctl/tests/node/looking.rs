//! What a node tells when it is looked at.

use std::fs;

use keel_control::GoalState;
use tempfile::TempDir;

use crate::machine::BOOT_ID;
use crate::support::{MACHINE_ID, Node, osctl, osctl_at};

#[test]
fn status_and_units() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let status = node.pinned(&["status"]);
    assert_eq!((status.code, status.stderr.as_str()), (Some(0), ""));
    for shown in [
        "node-1  boot reached  up 1 min 1 s",
        MACHINE_ID,
        &node.fingerprint(),
        "10.0.2.15/24 on eth0",
    ] {
        assert!(status.stdout.contains(shown), "{shown} is not in {}", status.stdout);
    }
    assert!(!status.stdout.contains('\x1b'), "no colour into a pipe");

    let json = node.pinned(&["status", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["state"], &json["uptime_ms"]), (&"reached".into(), &61_000.into()));
    assert_eq!(json["fingerprint"], node.fingerprint().as_str());

    let units = node.pinned(&["units"]);
    let row = "containerd  running  1 min  1.40 s  pid 77\n";
    assert!(units.stdout.contains(row), "{}", units.stdout);
    let json = node.pinned(&["units", "--output=json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["units"][0]["took_ms"], 1_400);
    let yaml = node.pinned(&["units", "--output", "yaml"]);
    assert!(yaml.stdout.contains("\n- name: containerd\n  kind: service\n"), "{}", yaml.stdout);
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml.stdout).unwrap(), json);
    drop(init);
}

#[test]
fn an_inventory_is_shown_and_recorded() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let shown = node.pinned(&["inventory"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    for part in [
        "x86_64, 2 processors, 2.0 GiB of memory, linux 6.1.0\n",
        "  eth0  52:54:00:00:00:01  carrier\n",
        "  /dev/vda  10.0 GiB  virtio\n",
        "    image    of Keel; 8.0 GiB behind it, blank\n",
        "    holds    not known: it did not answer in time\n",
    ] {
        assert!(shown.stdout.contains(part), "{part} is not in {}", shown.stdout);
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("node.json");
    let recorded = node.pinned(&["inventory", "--out", file.to_str().unwrap()]);
    assert_eq!(recorded.code, Some(0), "{recorded:?}");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(node.pinned(&["inventory", "--output", "json"]).stdout, text);
    let inventory = keel_image::Inventory::parse(&text).unwrap();
    assert_eq!(inventory.disks[0].content, Some(vec![]));
    assert_eq!(inventory.disks[0].partitions[0].label, "keel-data");
    assert_eq!(inventory.disks[0].image.as_ref().unwrap().content, Some(vec![]));
    assert_eq!(inventory.disks[1].content, None);
    let schema = jsonschema::validator_for(&keel_image::Inventory::json_schema()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(schema.is_valid(&json), "{text}");
    assert_eq!(inventory.links[0].mac.unwrap().0.0, [0x52, 0x54, 0, 0, 0, 1]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_nodes_boot_is_recorded() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let printed = node.pinned(&["boot", "record"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let file = node.folder.path().join("boot.json");
    let file = file.to_str().unwrap();
    assert_eq!(node.pinned(&["boot", "record", "-o", file]).code, Some(0));
    assert_eq!(fs::read_to_string(file).unwrap(), printed.stdout);
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/traces/demo.json");
    assert_eq!(fs::read_to_string(demo).unwrap(), printed.stdout, "as the node told it");

    // Whatever takes a file takes a boot of the node.
    for command in ["show", "blame", "critical-chain", "plot", "export"] {
        let of_file = osctl(&["boot", command, file]);
        let of_node = node.pinned(&["boot", command]);
        assert_eq!((of_node.code, of_node.stderr.as_str()), (Some(0), ""), "{command}");
        assert_eq!(of_node.stdout, of_file.stdout, "{command}");
        let by_id = node.pinned(&["boot", command, "--boot", &BOOT_ID[..4]]);
        assert_eq!(by_id.stdout, of_file.stdout, "{command}");
    }
    let from = node.pinned(&["boot", "critical-chain", "--unit", "containerd"]);
    assert!(from.stdout.starts_with("containerd @"), "{from:?}");
    let compared = node.pinned(&["boot", "compare", file, "--boot", BOOT_ID]);
    assert!(compared.stdout.ends_with("no unit took another time\n"), "{compared:?}");
    let alone = node.pinned(&["boot", "compare"]);
    assert_eq!(alone.code, Some(2));
    assert!(alone.stderr.contains("it takes two boots to compare"), "{}", alone.stderr);

    let list = node.pinned(&["boot", "list"]);
    let row = "9f3a5c7e91b2  2023-11-14T22:13:20Z  reached       1.50 s  runs\n";
    assert!(list.stdout.ends_with(row), "{}", list.stdout);
    let unknown = node.pinned(&["boot", "show", "--boot", "00"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""));
    assert!(unknown.stderr.contains("no boot that begins with 00"), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains(
            "next: `osctl units` lists the node's units, and `osctl boot list` the boots"
        ),
        "{}",
        unknown.stderr
    );
    let neither = osctl(&["boot", "show"]);
    assert_eq!(neither.code, Some(2));
    assert!(neither.stderr.contains("name a trace, or give --endpoint HOST"), "{neither:?}");
}

#[test]
fn the_kernels_log_is_read() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let text = format!("osctl test {}", std::process::id());
    // Without its end the kernel keeps a line back: more of it may come.
    fs::write("/dev/kmsg", format!("<12>{text} caf\u{e9} \u{1b}[2J\n")).unwrap();
    let read = node.pinned(&["dmesg"]);
    assert_eq!(read.code, Some(0), "{read:?}");
    let shown = format!("{text} caf\u{e9} \\u{{1b}}[2J\n");
    assert!(read.stdout.contains(&shown), "{shown} is not in {}", read.stdout);
    let json = node.pinned(&["dmesg", "--output", "json"]).stdout;
    let line = json.lines().find(|line| line.contains(&text)).unwrap();
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&json["severity"], &json["facility"]), (&4.into(), &1.into()));
    let tail = node.pinned(&["dmesg", "--tail", "1"]);
    assert_eq!(tail.stdout.lines().count(), 1);

    let mut osctl = node.follow(&["dmesg", "--follow", "--tail", "1"]);
    osctl.line();
    fs::write("/dev/kmsg", format!("<12>{text} again\n")).unwrap();
    while !osctl.line().ends_with(&format!("{text} again")) {}
}

#[test]
fn a_degraded_node_is_a_finding() {
    let node = Node::start();
    let _init = node.init(GoalState::Degraded);
    let status = node.pinned(&["status"]);
    assert_eq!(status.code, Some(1));
    assert!(status.stdout.contains("  time  no server answered\n"), "{}", status.stdout);
    assert_eq!(status.stderr, "");
}

#[test]
fn an_agent_without_init_says_so_and_recovers() {
    let node = Node::start();
    let failed = node.pinned(&["status"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""));
    assert!(
        failed.stderr.contains("the node did not tell its status: cannot talk to init at "),
        "{}",
        failed.stderr
    );
    assert!(failed.stderr.contains("next: try again in a moment"), "{}", failed.stderr);

    let init = node.init(GoalState::Reached);
    assert_eq!(node.pinned(&["status"]).code, Some(0));
    drop(init);
    assert_eq!(node.pinned(&["status"]).code, Some(1));
    let _again = node.init(GoalState::Reached);
    assert_eq!(node.pinned(&["status"]).code, Some(0));
}

#[test]
fn several_nodes_are_asked_at_once() {
    let (one, two) = (Node::start(), Node::start());
    let _inits = (one.init(GoalState::Reached), two.init(GoalState::Degraded));
    let home = TempDir::new().unwrap();
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ask = |args: &[&str]| {
        let nodes = ["--endpoint", &one.endpoint, "--endpoint", &two.endpoint, "--endpoint", &free];
        osctl_at(home.path(), &[&nodes, args].concat())
    };
    let status = ask(&["status"]);
    assert_eq!(status.code, Some(1));
    let lines: Vec<_> = status.stdout.lines().collect();
    assert!(lines[0].starts_with("NODE "), "{}", status.stdout);
    assert!(
        lines[1].starts_with(&one.endpoint) && lines[1].contains("  reached  "),
        "{}",
        lines[1]
    );
    assert!(lines[2].starts_with(&two.endpoint) && lines[2].ends_with("time: no server answered"));
    assert!(status.stderr.contains(&format!("cannot talk to {free}: it cannot be reached")));
    assert_eq!(fs::read_to_string(home.path().join("known-nodes")).unwrap().lines().count(), 3);

    let json: serde_json::Value =
        serde_json::from_str(&ask(&["units", "--output", "json"]).stdout).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    assert_eq!(nodes[1]["node"], two.endpoint.as_str());
    assert_eq!(nodes[1]["answer"]["units"][0]["name"], "containerd");
    assert!(nodes[2]["error"].as_str().unwrap().contains("Connection refused"), "{json}");
    assert_eq!(ask(&["inventory"]).stdout.lines().count(), 3);

    let events = ask(&["events"]);
    assert_eq!(events.code, Some(2));
    assert!(events.stderr.contains("this asks one node, and 3 are named"), "{}", events.stderr);
    let pinned = ask(&["--fingerprint", &one.fingerprint(), "status"]);
    assert_eq!(pinned.code, Some(2));
}
