//! Everybody at the door of the running agent: what each learns, and what the node notes.

#![cfg(test)]

mod support;

use rcgen::ExtendedKeyUsagePurpose;
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
    let (ca, other, twin) = (Authority::new("ca"), Authority::new("other"), Authority::new("ca"));
    let revoked = ca.issue(&Wanted { name: "eve", serial: 666, ..Wanted::default() });
    let mut agent = Start::new().cluster_ca(&ca.pem).cluster_crl(&ca.revoke(666)).start();
    let issue = |wanted: Wanted| ca.issue(&wanted);

    refused(
        &mut agent,
        None,
        "CertificateRequired",
        "refused: the client has no certificate, and the node is not in maintenance",
    );
    refused(
        &mut agent,
        Some(&Issued::self_signed(&Wanted::default())),
        "UnknownCA",
        "refused: CN=ada,O=keel:admin: CN=ada,O=keel:admin is self-signed; trusted is CN=ca",
    );
    refused(
        &mut agent,
        Some(&other.client(&["keel:admin"])),
        "UnknownCA",
        "CN=ada,O=keel:admin was issued by CN=other, which is not trusted; trusted is CN=ca",
    );
    refused(
        &mut agent,
        Some(&twin.client(&["keel:admin"])),
        "DecryptError",
        "was issued by another CA that calls itself CN=ca",
    );
    refused(
        &mut agent,
        Some(&issue(Wanted { from: -9, until: -2, ..Wanted::default() })),
        "CertificateExpired",
        ", which is 2 d later",
    );
    refused(
        &mut agent,
        Some(&issue(Wanted { from: 3, until: 9, ..Wanted::default() })),
        "CertificateExpired",
        "the certificate of CN=ada,O=keel:admin is not valid yet: it is valid from ",
    );
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    refused(
        &mut agent,
        Some(&issue(Wanted { usages, ..Wanted::default() })),
        "UnsupportedCertificate",
        "is not for clients: its extended key usage does not hold clientAuth",
    );
    refused(
        &mut agent,
        Some(&issue(Wanted { usages: Vec::new(), ..Wanted::default() })),
        "UnsupportedCertificate",
        "is not for clients",
    );
    refused(
        &mut agent,
        Some(&revoked),
        "CertificateRevoked",
        "the certificate of CN=eve,O=keel:admin is revoked",
    );
    let intermediate = other.intermediate("between");
    refused(
        &mut agent,
        Some(&intermediate.client(&["keel:admin"])),
        "UnknownCA",
        "was issued by CN=between, which is not trusted",
    );
}

#[tokio::test]
async fn who_gets_in() {
    let ca = Authority::new("ca");
    let agent = Start::new().cluster_ca(&ca.pem).start();
    // There is no init: whoever gets that far is told so.
    let inside = agent.call(Some(&ca.client(&["keel:viewer"])), STATUS).await;
    assert!(inside.starts_with("Unavailable: cannot talk to init"), "{inside}");
    let between = ca.intermediate("between").intermediate("closer");
    assert_eq!(agent.call(Some(&between.client(&["keel:viewer"])), STATUS).await, inside);
}
