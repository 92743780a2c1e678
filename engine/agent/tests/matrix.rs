//! Everybody at the door of the running agent: what each learns, and what the node notes.

#![cfg(test)]

mod support;

use support::door::{self, Authorities, METHODS, gets_in};
use support::pki::{Authority, Issued, Wanted};
use support::{Agent, Start};

const STATUS: &str = "/keel.v1.Node/GetStatus";

/// A client who is refused: the alert that it gets, and the reason in the node's log.
fn refused(agent: &mut Agent, client: Option<&Issued>, alert: &str, why: &str) {
    assert_eq!(agent.refusal(client), format!("received fatal alert: {alert}"), "{why}");
    agent.logged(why);
}

#[test]
fn who_is_refused_at_the_handshake() {
    let all = Authorities::new();
    let mut agent = Start::new().cluster_ca(&all.ca.pem).cluster_crl(&all.crl).start();
    for row in all.refused() {
        row.check(agent.address);
        agent.logged(row.noted);
    }
}

#[tokio::test]
async fn who_gets_in() {
    let all = Authorities::new();
    let agent = Start::new().cluster_ca(&all.ca.pem).start();
    // There is no init: whoever gets that far is told so.
    let inside = agent.call(Some(&all.ca.client(&["keel:viewer"])), STATUS).await;
    assert!(inside.starts_with("Unavailable: cannot talk to init"), "{inside}");
    for client in all.below() {
        assert_eq!(agent.call(Some(&client), STATUS).await, inside);
    }
}

#[tokio::test]
async fn each_role_and_each_method() {
    let ca = Authority::new("ca");
    let agent = Start::new().cluster_ca(&ca.pem).start();
    let every = ["viewer", "operator", "admin"];
    let refused = door::each_role_and_each_method(agent.address, &ca, &every).await;
    assert!(refused > METHODS.len() * 2, "{refused}");
    let unknown = agent.call(Some(&ca.client(&["keel:admin"])), "/keel.v1.Node/Nothing").await;
    assert_eq!(unknown, "Unimplemented: this node has no method /keel.v1.Node/Nothing");
}

#[tokio::test]
async fn what_is_open_in_maintenance() {
    /// A machine in maintenance is there to be given a config; to go back to an earlier one is to give it that.
    const GIVES_A_CONFIG: [&str; 3] =
        ["/keel.v1.Config/Apply", "/keel.v1.Config/Confirm", "/keel.v1.Config/Rollback"];

    let agent = Agent::start();
    for (method, least) in METHODS {
        let open = *least == "viewer" || GIVES_A_CONFIG.contains(method);
        let expect = match open {
            true => Ok(()),
            false => Err(format!("{method} is closed while the node is in maintenance")),
        };
        assert_eq!(gets_in(&mut agent.connect(None).await, method).await, expect);
    }
}

#[tokio::test]
async fn a_ca_closes_a_node_in_maintenance_without_a_restart() {
    let ca = Authority::new("ca");
    let mut agent = Agent::start();
    let mut idle = agent.connect(None).await;
    let mut watching = agent.connect(None).await;
    let stream = watching.begin("/grpc.health.v1.Health/Watch").await.unwrap();

    support::put(&agent.path("trust/cluster-ca.crt"), &ca.pem);
    agent.logged("trusted: CN=ca (");
    // It was told to go, and goes: nothing is called on it any more.
    idle.closed().await;
    let late = idle.call(STATUS).await;
    assert!(late.contains("hyper::Error"), "{late}");
    refused(&mut agent, None, "CertificateRequired", "the client has no certificate");
    let inside = agent.call(Some(&ca.client(&["keel:viewer"])), STATUS).await;
    assert!(inside.starts_with("Unavailable: cannot talk to init"), "{inside}");
    // A call in flight goes on; a stream without an end gets a moment, and then a status that says why.
    let ended = support::end(stream).await;
    assert_eq!(ended, "Unavailable: the connection is closed by the node: connect again");
}

#[tokio::test]
async fn authorities_are_replaced_while_the_agent_runs() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (ada, eve) = (old.client(&["keel:viewer"]), new.client(&["keel:viewer"]));
    let mut agent = Start::new().cluster_ca(&old.pem).start();
    let file = agent.path("trust/cluster-ca.crt");
    let mut of_old = agent.connect(Some(&ada)).await;
    let health = "/grpc.health.v1.Health/Check";
    assert_eq!(of_old.call(health).await, "OK");

    support::put(&file, &format!("{}{}", old.pem, new.pem));
    agent.logged("trusted: CN=new (");
    let mut of_new = agent.connect(Some(&eve)).await;
    assert_eq!(of_new.call(health).await, "OK");
    assert_eq!(of_old.call(health).await, "OK");

    support::put(&file, "-----BEGIN CERTIFICATE-----\nbroken");
    agent.logged("what was in force before stays so");
    assert_eq!(agent.call(Some(&ada), health).await, "OK");
    std::fs::remove_file(&file).unwrap();
    agent.logged("is not there; what was in force before stays so");
    assert_eq!(agent.call(Some(&eve), health).await, "OK");

    support::put(&file, &new.pem);
    agent.logged(
        "connection closed: CN=ada,O=keel:viewer was issued by CN=old, which is not trusted",
    );
    of_old.closed().await;
    assert_eq!(of_new.call(health).await, "OK");
    refused(&mut agent, Some(&ada), "UnknownCA", "trusted is CN=new");

    support::put(&agent.path("trust/cluster-ca.crl"), &new.revoke(eve.serial));
    agent.logged("connection closed: the certificate of CN=ada,O=keel:viewer is revoked");
    of_new.closed().await;
    refused(&mut agent, Some(&eve), "CertificateRevoked", "is revoked");
}

/// As a cluster rotates its CA: both are called the same, and only the old one has revoked anybody.
#[tokio::test]
async fn a_list_of_one_ca_says_nothing_of_another_of_the_same_name() {
    let method = "/keel.v1.Journal/ReadAudit";
    let (old, new) = (Authority::new("kubernetes"), Authority::new("kubernetes"));
    let eve = old.issue(&Wanted { name: "eve", serial: 666, ..Wanted::default() });
    let (of_old, of_new) = (old.client(&["keel:admin"]), new.client(&["keel:admin"]));
    let mut agent = Start::new()
        .cluster_ca(&(old.pem.clone() + &new.pem))
        .cluster_crl(&old.revoke(666))
        .start();
    assert_eq!(agent.call(Some(&of_new), method).await, "OK");
    assert_eq!(agent.call(Some(&of_old), method).await, "OK");
    refused(&mut agent, Some(&eve), "CertificateRevoked", "is revoked");
}

/// A stranger who is refused again and again leaves the record of what was done where it is.
#[tokio::test]
async fn refused_calls_push_out_no_change() {
    let ca = Authority::new("ca");
    let agent = Start::new().cluster_ca(&ca.pem).start();
    let (admin, viewer) = (ca.client(&["keel:admin"]), ca.client(&["keel:viewer"]));
    // There is no init to reboot; that it was asked is on the record.
    assert_ne!(agent.call(Some(&admin), "/keel.v1.Operation/Reboot").await, "OK");
    let mut stranger = agent.connect(Some(&viewer)).await;
    for _ in 0..500 {
        let said = stranger.call("/keel.v1.Operation/Reboot").await;
        assert!(said.starts_with("PermissionDenied"), "{said}");
    }
    // The agent writes in the order in which calls end, so after this one the others are on the disk.
    assert_ne!(agent.call(Some(&admin), "/keel.v1.Operation/Reboot").await, "OK");
    let file = agent.path("audit/changes.jsonl");
    let kept = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let changes = text.lines().filter(|line| line.contains("Operation/Reboot")).count();
        (changes, text.contains("PERMISSION_DENIED"))
    };
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while kept().0 < 2 {
        assert!(std::time::Instant::now() < deadline, "{:?}", kept());
        std::thread::yield_now();
    }
    assert_eq!(kept(), (2, false));
}

#[test]
fn a_ca_in_the_machine_config_closes_it_from_the_start() {
    let ca = Authority::new("ca");
    let start = Start::new();
    let file = start.path("missing.crt");
    let mut agent = start.argument("--trusted-ca").argument(file.to_str().unwrap()).start();
    agent.logged("nobody is let in: ");
    let why = "the node lets nobody in: ";
    refused(&mut agent, None, "CertificateRequired", why);
    refused(&mut agent, Some(&ca.client(&["keel:admin"])), "AccessDenied", why);
    support::put(&file, &ca.pem);
    agent.signal("-HUP");
    agent.logged("trusted: CN=ca (");
    refused(&mut agent, None, "CertificateRequired", "the client has no certificate");
}

#[test]
fn an_authority_that_has_expired_vouches_for_nobody() {
    let (gone, there) = (Authority::until("gone", -1), Authority::new("there"));
    let bundle = format!("{}{}", gone.pem, there.pem);
    let mut agent = Start::new().cluster_ca(&bundle).start();
    let client = gone.client(&["keel:admin"]);
    refused(
        &mut agent,
        Some(&client),
        "UnknownCA",
        "the CA CN=gone that issued CN=ada,O=keel:admin expired at ",
    );
}

#[tokio::test]
async fn a_certificate_that_expires_ends_its_connection() {
    let ca = Authority::new("ca");
    let agent = Start::new().cluster_ca(&ca.pem).start();
    let brief = ca.issue(&Wanted { seconds: Some(10), ..Wanted::default() });
    let mut connection = agent.connect(Some(&brief)).await;
    assert_eq!(connection.call("/grpc.health.v1.Health/Check").await, "OK");
    connection.closed().await;
}

/// The records that the node keeps, as it keeps them.
fn records(agent: &Agent) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    for name in ["changes", "reads", "refused"] {
        let text = std::fs::read_to_string(agent.path(&format!("audit/{name}.jsonl"))).unwrap();
        all.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
    }
    all.sort_by_key(|record: &serde_json::Value| record["seq"].as_u64());
    all
}

#[tokio::test]
async fn who_called_is_on_the_record() {
    let ca = Authority::new("ca");
    let admin = ca.client(&["keel:admin"]);
    let mut agent = Start::new().cluster_ca(&ca.pem).start();
    refused(&mut agent, None, "CertificateRequired", "the client has no certificate");
    let _ = agent.call(Some(&ca.client(&["keel:viewer"])), "/keel.v1.Operation/Reset").await;
    assert_eq!(agent.call(Some(&admin), "/grpc.health.v1.Health/Check").await, "OK");
    let _ = agent.call(Some(&admin), "/keel.v1.Node/Secret-in-a-name").await;
    // It is itself on the record when it has ended, and everything before it is written by then.
    while records(&agent).len() < 4 {
        assert_eq!(agent.call(Some(&admin), "/keel.v1.Journal/ReadAudit").await, "OK");
    }

    let gist: Vec<_> = records(&agent)[..4]
        .iter()
        .map(|record| {
            let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            (record["seq"].as_u64().unwrap(), text("result"), text("subject"), text("method"))
        })
        .collect();
    let row = |seq, result: &str, subject: &str, method: &str| {
        (seq, result.to_owned(), subject.to_owned(), method.to_owned())
    };
    let (ada, eve) = ("CN=ada,O=keel:admin", "CN=ada,O=keel:viewer");
    assert_eq!(
        gist,
        [
            row(1, "REFUSED", "", ""),
            row(2, "PERMISSION_DENIED", eve, "/keel.v1.Operation/Reset"),
            row(3, "OK", ada, "/grpc.health.v1.Health/Check"),
            row(4, "UNIMPLEMENTED", ada, "unknown"),
        ]
    );
    let whys = records(&agent)[1]["why"].as_str().unwrap().to_owned();
    assert!(whys.contains("is viewer here"), "{whys}");
}

#[tokio::test]
async fn a_restarted_agent_goes_on_with_its_records() {
    let mut agent = Agent::start();
    assert_eq!(agent.call(None, "/grpc.health.v1.Health/Check").await, "OK");
    agent.signal("-TERM");
    assert!(agent.child.wait().unwrap().success());
    let last = records(&agent).last().unwrap()["seq"].as_u64().unwrap();
    let agent = agent.again();
    assert_eq!(agent.call(None, "/grpc.health.v1.Health/Check").await, "OK");
    agent.signal("-TERM");
    let mut agent = agent;
    assert!(agent.child.wait().unwrap().success());
    assert_eq!(records(&agent).last().unwrap()["seq"].as_u64(), Some(last + 1));
}
