//! Steering a node: only as it was planned and allowed.

use keel_control::GoalState;
use keel_plan::export::Export;

use crate::steered::{Steered, exported};
use crate::support::{MACHINE_ID, Node};

#[test]
fn a_unit_is_steered_only_as_it_was_planned_and_allowed() {
    let node = Steered::start(Vec::new());
    let nothing: [String; 0] = [];

    let plan = node.osctl("operator", &["units", "stop", "kubelet", "--dry-run"]);
    plan.check(0, &["This would happen:\n! stop     kubelet  asked for\n"]);
    // Nobody is there to be asked.
    let asked = node.osctl("operator", &["units", "stop", "kubelet"]);
    asked.check(2, &["nobody is there to be asked", "--yes"]);
    node.osctl("viewer", &["units", "stop", "kubelet", "--yes"]).check(1, &["keel:"]);
    node.osctl("operator", &["units", "stop", "nobody", "--yes"]).check(2, &["no unit `nobody`"]);
    assert_eq!(node.done(), nothing);

    let stopped = node.osctl("operator", &["units", "stop", "kubelet", "--yes"]);
    stopped.check(0, &["kubelet  inactive\n"]);
    assert_eq!(node.done(), ["Stop kubelet"]);
    // Nothing is interrupted, so nothing is asked.
    let started = node.osctl("operator", &["units", "start", "kubelet", "--output", "json"]);
    started.check(0, &[]);
    let json: serde_json::Value = serde_json::from_str(&started.stdout).unwrap();
    assert_eq!(json["ended"][0]["state"], "running");
    node.osctl("operator", &["units", "start", "broken"])
        .check(1, &["broken  failed  no such disk"]);
    assert_eq!(node.done(), ["Start kubelet", "Start broken"]);
}

#[test]
fn power_and_reset() {
    let node = Steered::start(Vec::new());
    let nothing: [String; 0] = [];
    let order = "in this order:\n  kubelet\n  mount.data\n";
    node.osctl("operator", &["reboot", "--dry-run"]).check(0, &[order]);
    node.osctl("operator", &["reboot"]).check(2, &["nobody is there to be asked"]);
    node.osctl("viewer", &["shutdown", "--yes"]).check(1, &[]);
    assert_eq!(node.done(), nothing);
    node.osctl("operator", &["reboot", "--yes"]).check(0, &["node-1 is stopping its 2 units"]);
    node.osctl("operator", &["shutdown", "--yes"]).check(0, &[]);
    assert_eq!(node.done(), ["Reboot", "PowerOff"]);

    let dry = node.osctl("admin", &["reset", "--dry-run"]);
    dry.check(0, &["keel-data (/dev/vda1)", "1.0 GiB", "the partition's filesystem"]);
    node.osctl("admin", &["reset"]).check(2, &["nobody is there to be asked"]);
    node.osctl("admin", &["reset", "--yes"]).check(2, &["--confirm MACHINE-ID"]);
    let other = ["reset", "--yes", "--confirm", "ffffffffffffffffffffffffffffffff"];
    node.osctl("admin", &other).check(1, &["id was not given"]);
    let right = ["reset", "--yes", "--confirm", MACHINE_ID];
    node.osctl("operator", &right).check(1, &[]);
    assert_eq!(node.done(), nothing);
    node.osctl("admin", &right).check(0, &["node-1 is stopping; then it is wiped"]);
    assert_eq!(node.done(), ["Reset"]);
}

#[test]
fn the_graph_of_a_node_is_drawn_and_compared() {
    let export = exported();
    let node = Steered::start(serde_json::to_vec(&export).unwrap());
    let graph = |args: &[&str]| node.osctl("viewer", &[&["graph"], args].concat());
    graph(&["render", "--node"]).check(0, &[&export.digest, "● active(exited)"]);
    graph(&["render", "--node", "--format", "svg"]).check(0, &["class=\"state up\""]);
    let json = graph(&["render", "--node", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Export>(&json.stdout).unwrap(), export);
    graph(&["digest", "--node"]).check(0, &[&export.digest]);
    graph(&["list", "--node", "--stage", "storage"]).check(0, &["mount.data", "active(exited)"]);
    graph(&["path", "mount.data", "partition.data", "--node"]).check(0, &["needs"]);
    graph(&["path", "mount.daat", "partition.data", "--node"])
        .check(2, &["did you mean `mount.data`?"]);
    graph(&["diff", "--node", "machine-configs/qemu.toml"]).check(0, &[]);
    assert_eq!(graph(&["diff", "--node", "machine-configs/no-cluster.toml"]).code, Some(1));
    graph(&["render", "--node", "--config", "machine-configs/qemu.toml"]).check_usage();
    graph(&["diff", "machine-configs/qemu.toml"]).check_usage();
}

#[test]
fn a_node_that_says_nonsense_is_not_drawn() {
    let mut export = exported();
    export.units[0].name = "a\u{1b}[31m\"; }".to_owned();
    let node = Steered::start(serde_json::to_vec(&export).unwrap());
    node.osctl("viewer", &["graph", "render", "--node"])
        .check(1, &["holds a unit named `a\\u{1b}"]);
    let node = Steered::start(b"{}".to_vec());
    node.osctl("viewer", &["graph", "render", "--node"]).check(1, &["cannot be read"]);
}

#[test]
fn units_are_explained_live() {
    let node = Steered::start(Vec::new());
    let failed = node.osctl("viewer", &["explain", "broken", "--node"]);
    failed.check(1, &["broken  failed  The broken", "no such disk.", "`degrade`"]);
    let whole = node.osctl("viewer", &["units", "show", "kubelet"]);
    whole.check(0, &["It has been up for 1 min.", "requires  broken  failed"]);
    let json = node.osctl("viewer", &["units", "show", "kubelet", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["name"], &json["dependencies"][0]["word"]),
        (&"kubelet".into(), &"requires".into())
    );
    let unknown = node.osctl("viewer", &["explain", "kubelt", "--node"]);
    unknown.check(2, &["did you mean kubelet?", "osctl units"]);
    // Without --node it is about keys, as ever.
    node.osctl("viewer", &["explain", "storage.data.filesystem"]).check(0, &["default"]);
}

#[test]
fn nobody_steers_a_node_in_maintenance() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    for command in [
        &["reboot", "--dry-run"][..],
        &["shutdown", "--yes"],
        &["reset", "--dry-run"],
        &["units", "stop", "containerd", "--yes"],
        &["audit"],
    ] {
        let refused = node.pinned(command);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for part in [
            "closed while the node is in maintenance\n",
            "next: until the node knows a CA nobody may",
        ] {
            assert!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
    }
}
