//! Everybody at the door of a node: the same tables as against an agent in a namespace, against the agent that a real boot has started.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use crate::support::{API_PORT, blank, boot, inputs, node, repository, shut_down};

#[path = "../../../agent/tests/support/door/mod.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "the tests of the agent take more from it")]
mod table;

use table::client::Connection;
use table::{Authorities, METHODS, each_role_and_each_method};

#[test]
fn who_is_refused_by_a_node_and_who_may_call_what() {
    let all = Authorities::new();
    let dir = tempfile::tempdir().unwrap();
    let trust = dir.path().join("trust.toml");
    let text = format!(
        "[agent]\ntrusted-ca = \"\"\"\n{}\"\"\"\ntrusted-crl = \"\"\"\n{}\"\"\"\n",
        all.ca.pem, all.crl
    );
    fs::write(&trust, text).unwrap();
    let config = repository().join("machine-configs/qemu.toml");
    let configs = ["--config", config.to_str().unwrap(), "--config", trust.to_str().unwrap()];
    let image = inputs().build(&dir.path().join("image"), &configs);
    let disk = dir.path().join("disk.img");
    blank(&disk, 1 << 30);
    let (vm, report) = boot(&node(&image, &[&disk]));
    assert!(report.reached && report.degraded.is_empty(), "{report:#?}");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, vm.forwarded(API_PORT).unwrap()));

    let rows = all.refused();
    for row in &rows {
        row.check(address);
    }
    // What a call does is not tried on a machine that would do it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let refused = each_role_and_each_method(address, &all.ca, &["viewer"]).await;
        assert!(refused > METHODS.len() * 2, "{refused}");
        for client in all.below() {
            let mut connection = Connection::open(address, Some(&client)).await;
            assert_eq!(connection.call("/keel.v1.Node/GetStatus").await, "OK");
        }
    });

    // The reasons stand in the node's log, in the order in which they were given.
    let admin = all.ca.client(&["keel:admin"]);
    let [certificate, key] = ["admin.crt", "admin.key"].map(|name| dir.path().join(name));
    let (chain, secret) = admin.pem();
    fs::write(&certificate, chain).unwrap();
    fs::write(&key, secret).unwrap();
    let out = Command::new(inputs().osctl)
        .args(["--endpoint", &address.to_string(), "logs", "keel-agent"])
        .arg("--cert")
        .arg(certificate)
        .arg("--key")
        .arg(key)
        .env("OSCTL_HOME", dir.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let log = String::from_utf8(out.stdout).unwrap();
    let mut lines = log.lines();
    for row in &rows {
        assert!(lines.any(|line| line.contains(row.noted)), "{}: {}\n{log}", row.who, row.noted);
    }
    shut_down(vm);
}
