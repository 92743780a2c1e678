//! Who called a node: told to admins alone, of the past and as it goes on.

use crate::steered::Steered;

#[test]
fn who_called_is_told_to_admins() {
    let node = Steered::start(Vec::new());
    node.osctl("viewer", &["units", "show", "kubelet"]).check(0, &[]);
    node.osctl("operator", &["units", "stop", "kubelet", "--yes"]).check(0, &[]);
    node.osctl("viewer", &["reboot", "--yes"]).check(1, &[]);
    node.osctl("viewer", &["audit"]).check(1, &["keel:admin", "next:"]);
    node.osctl("operator", &["audit"]).check(1, &["ReadAudit is for admin"]);

    let told = node.osctl("admin", &["audit"]);
    told.check(
        0,
        &[
            "OK  Node/GetUnit  CN=ada,O=keel:viewer (viewer) at 127.0.0.1:",
            "OK  Operation/ControlUnit  CN=ada,O=keel:operator (operator) at 127.0.0.1:",
            "PERMISSION_DENIED  Journal/ReadAudit  CN=ada,O=keel:operator (operator) at 127.0.0.1:",
            "\n        CN=ada,O=keel:operator is operator here; /keel.v1.Journal/ReadAudit is for admin",
        ],
    );
    let json = node.osctl("admin", &["audit", "--output", "json"]);
    json.check(0, &[]);
    let records: Vec<serde_json::Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<_> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|one, next| one + 1 == *next), "{seqs:?}");
    let refused = |record: &&serde_json::Value| record["result"] == "PERMISSION_DENIED";
    assert!(records.iter().filter(refused).count() >= 3, "{records:#?}");
    let tail = node.osctl("admin", &["audit", "--tail", "2"]);
    tail.check(0, &["Journal/ReadAudit"]);
}

#[test]
fn who_calls_is_followed() {
    let node = Steered::start(Vec::new());
    let mut follower = node.follow("admin", &["audit", "--follow", "--output", "json"]);
    let mut seen = Vec::new();
    for round in 1..=3_u64 {
        node.osctl("viewer", &["units", "show", "kubelet"]).check(0, &[]);
        // It may make other calls beside.
        loop {
            let record: serde_json::Value = serde_json::from_str(&follower.line()).unwrap();
            seen.push(record["seq"].as_u64().unwrap());
            if record["method"] == "/keel.v1.Node/GetUnit" {
                assert_eq!(record["subject"], "CN=ada,O=keel:viewer", "in round {round}");
                break;
            }
        }
    }
    assert!(seen.is_sorted_by(|one, next| one + 1 == *next) && seen[0] == 1, "{seen:?}");
}
