//! Everybody at a node's door, as two tables: who is refused at the handshake, and who may call what. They are tried against an agent in
//! a namespace (`matrix.rs`) and against a node in QEMU (`engine/xtask/tests/vm/door.rs`).

pub(crate) mod client;
pub(crate) mod pki;

use std::io::Write;
use std::net::{Shutdown, SocketAddr};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tonic::{Code, Status};

use self::client::{Connection, client_config, read_to_end, refusal, tcp, tls};
use self::pki::{Authority, Issued, Wanted};

/// Somebody whom the node refuses.
pub(crate) struct Row {
    pub(crate) who: &'static str,
    knock: Box<dyn Fn(SocketAddr) -> String>,
    /// What the caller learns.
    learns: &'static str,
    /// The reason in the node's log.
    pub(crate) noted: &'static str,
}

impl Row {
    /// Knocks, and compares what is learnt.
    pub(crate) fn check(&self, node: SocketAddr) {
        assert_eq!((self.knock)(node), self.learns, "{}: {}", self.who, self.noted);
    }

    /// With a certificate, or none.
    fn with(
        who: &'static str,
        client: Option<Issued>,
        learns: &'static str,
        noted: &'static str,
    ) -> Self {
        Self { who, knock: Box::new(move |node| refusal(node, client.as_ref())), learns, noted }
    }

    /// With a certificate that is right, in another version of TLS or with other protocols on offer.
    fn speaking(
        who: &'static str,
        client: Issued,
        (version, protocols): (&'static SupportedProtocolVersion, &'static [&'static [u8]]),
        learns: &'static str,
        noted: &'static str,
    ) -> Self {
        let knock = move |node| {
            let mut config = client_config(version, Some(&client));
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            match tls(node, config) {
                Err(error) => error.to_string(),
                Ok(stream) => String::from_utf8_lossy(&read_to_end(stream)).into_owned(),
            }
        };
        Self { who, knock: Box::new(knock), learns, noted }
    }

    /// With these bytes in place of a handshake; what comes back is nothing but an alert (RFC 8446, 5.1: content type 21).
    fn saying(who: &'static str, bytes: Vec<u8>, ends: bool, noted: &'static str) -> Self {
        let knock = move |node| {
            let mut stream = tcp(node);
            stream.write_all(&bytes).unwrap();
            if ends {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            let answer = read_to_end(stream);
            assert!(answer.is_empty() || answer[0] == 21, "{who}: {answer:?}");
            String::new()
        };
        Self { who, knock: Box::new(knock), learns: "", noted }
    }
}

/// A cluster's CA, others, and what they say.
pub(crate) struct Authorities {
    pub(crate) ca: Authority,
    other: Authority,
    /// It is called as the CA is.
    twin: Authority,
    revoked: Issued,
    /// The CA's list.
    pub(crate) crl: String,
}

impl Authorities {
    pub(crate) fn new() -> Self {
        let (ca, other) = (Authority::new("ca"), Authority::new("other"));
        let revoked = ca.issue(&Wanted { name: "eve", serial: 666, ..Wanted::default() });
        let crl = ca.revoke(666);
        Self { ca, other, twin: Authority::new("ca"), revoked, crl }
    }

    /// Everybody whom a node that trusts the CA refuses.
    pub(crate) fn refused(&self) -> Vec<Row> {
        const ADMIN: &[&str] = &["keel:admin"];
        let (ca, other) = (&self.ca, &self.other);
        let server_only = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issue = |wanted: Wanted| Some(ca.issue(&wanted));
        // RFC 8446, 5.1 and 4: a record of 512 bytes of handshake, in it a ClientHello of 508.
        let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 40]].concat();
        let cut = |bytes: usize| hello[..bytes].to_vec();
        let end = "no TLS connection: unexpected end of file";
        let corrupt = "no TLS connection: received corrupt message of type InvalidContentType";
        vec![
            Row::with(
                "nobody",
                None,
                "received fatal alert: CertificateRequired",
                "refused: the client has no certificate, and the node is not in maintenance",
            ),
            Row::with(
                "self-signed",
                Some(Issued::self_signed(&Wanted::default())),
                "received fatal alert: UnknownCA",
                "refused: CN=ada,O=keel:admin: CN=ada,O=keel:admin is self-signed; trusted is CN=ca",
            ),
            Row::with(
                "of another CA",
                Some(other.client(ADMIN)),
                "received fatal alert: UnknownCA",
                "CN=ada,O=keel:admin was issued by CN=other, which is not trusted; trusted is CN=ca",
            ),
            Row::with(
                "of another CA of the same name",
                Some(self.twin.client(ADMIN)),
                "received fatal alert: DecryptError",
                "was issued by another CA that calls itself CN=ca",
            ),
            Row::with(
                "expired",
                issue(Wanted { from: -9, until: -2, ..Wanted::default() }),
                "received fatal alert: CertificateExpired",
                ", which is 2 d later",
            ),
            Row::with(
                "not valid yet",
                issue(Wanted { from: 3, until: 9, ..Wanted::default() }),
                "received fatal alert: CertificateExpired",
                "the certificate of CN=ada,O=keel:admin is not valid yet: it is valid from ",
            ),
            Row::with(
                "for servers alone",
                issue(Wanted { usages: server_only, ..Wanted::default() }),
                "received fatal alert: UnsupportedCertificate",
                "is not for clients: its extended key usage does not hold clientAuth",
            ),
            Row::with(
                "for nothing",
                issue(Wanted { usages: Vec::new(), ..Wanted::default() }),
                "received fatal alert: UnsupportedCertificate",
                "is not for clients",
            ),
            Row::with(
                "revoked",
                Some(self.revoked.clone()),
                "received fatal alert: CertificateRevoked",
                "the certificate of CN=eve,O=keel:admin is revoked",
            ),
            Row::with(
                "of an intermediate of another CA",
                Some(other.intermediate("between").client(ADMIN)),
                "received fatal alert: UnknownCA",
                "was issued by CN=between, which is not trusted",
            ),
            Row::speaking(
                "in TLS 1.2",
                ca.client(ADMIN),
                (&TLS12, &[b"h2"]),
                "received fatal alert: ProtocolVersion",
                "no TLS connection: peer is incompatible",
            ),
            Row::speaking(
                "without ALPN",
                ca.client(ADMIN),
                (&TLS13, &[]),
                "",
                "the client did not ask for HTTP/2",
            ),
            Row::speaking(
                "in HTTP/1.1",
                ca.client(ADMIN),
                (&TLS13, &[b"http/1.1"]),
                "received fatal alert: NoApplicationProtocol",
                "no TLS connection: peer doesn't support any known protocol",
            ),
            Row::saying(
                "HTTP/2 without TLS",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                false,
                corrupt,
            ),
            Row::saying(
                "HTTP/1.1 without TLS",
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
                false,
                corrupt,
            ),
            Row::saying("a handshake that does not begin", cut(0), true, end),
            Row::saying("a record's head, cut", cut(3), true, end),
            Row::saying("a record's head alone", cut(5), true, end),
            Row::saying("a ClientHello, cut", hello.clone(), true, end),
        ]
    }

    /// Clients of an intermediate, and of one below it: they get in.
    pub(crate) fn below(&self) -> [Issued; 2] {
        let between = self.ca.intermediate("between");
        let closer = between.intermediate("closer");
        [between, closer].map(|authority| authority.client(&["keel:viewer"]))
    }
}

/// Every method, and the least role that may call it: written out once more, so that a slip in the node's own table is seen.
pub(crate) const METHODS: &[(&str, &str)] = &[
    ("/grpc.health.v1.Health/Check", "viewer"),
    ("/grpc.health.v1.Health/Watch", "viewer"),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "viewer"),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "viewer"),
    ("/keel.v1.Cluster/Bootstrap", "admin"),
    ("/keel.v1.Cluster/GetBootstrap", "viewer"),
    ("/keel.v1.Cluster/Unbootstrap", "admin"),
    ("/keel.v1.Config/Apply", "admin"),
    ("/keel.v1.Config/Confirm", "admin"),
    ("/keel.v1.Config/Get", "viewer"),
    ("/keel.v1.Config/History", "viewer"),
    ("/keel.v1.Config/Rollback", "admin"),
    ("/keel.v1.Journal/GetBoot", "viewer"),
    ("/keel.v1.Journal/ListBoots", "viewer"),
    ("/keel.v1.Journal/ReadAudit", "admin"),
    ("/keel.v1.Journal/ReadKernelLog", "viewer"),
    ("/keel.v1.Journal/ReadLogs", "viewer"),
    ("/keel.v1.Node/ExportGraph", "viewer"),
    ("/keel.v1.Node/GetInventory", "viewer"),
    ("/keel.v1.Node/GetStatus", "viewer"),
    ("/keel.v1.Node/GetUnit", "viewer"),
    ("/keel.v1.Node/ListProcesses", "viewer"),
    ("/keel.v1.Node/ListUnits", "viewer"),
    ("/keel.v1.Node/WatchEvents", "viewer"),
    ("/keel.v1.Operation/ControlUnit", "operator"),
    ("/keel.v1.Operation/PowerOff", "operator"),
    ("/keel.v1.Operation/Reboot", "operator"),
    ("/keel.v1.Operation/Reset", "admin"),
];

/// What makes a caller something, and what it is then.
const CALLERS: &[(&[&str], &str)] = &[
    (&["keel:viewer"], "viewer"),
    (&["keel:operator"], "operator"),
    (&["keel:admin"], "admin"),
    (&["system:masters"], "admin"),
    (&["kubeadm:cluster-admins"], "admin"),
    (&["system:nodes"], ""),
    (&[], ""),
];

fn rank(role: &str) -> usize {
    ["", "viewer", "operator", "admin"].iter().position(|one| *one == role).unwrap()
}

/// Whether a call came as far as the service, whatever that made of it. A stream that goes on has.
pub(crate) async fn gets_in(connection: &mut Connection, method: &str) -> Result<(), String> {
    let answer = connection.begin(method).await.expect(method);
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() == Code::PermissionDenied => Err(status.message().to_owned()),
        Some(status) if status.code() == Code::Unauthenticated => panic!("{method}: {status:?}"),
        _ => Ok(()),
    }
}

/// Each role at each method. A call that is let in is made only where its least role is one of `does`: it has an effect, where there is
/// a machine. Returns how many calls were refused.
pub(crate) async fn each_role_and_each_method(
    node: SocketAddr,
    ca: &Authority,
    does: &[&str],
) -> usize {
    let mut refused = 0;
    for (organizations, role) in CALLERS {
        let client = ca.client(organizations);
        let mut connection = Connection::open(node, Some(&client)).await;
        for (method, least) in METHODS {
            let allowed = rank(role) >= rank(least);
            if allowed && !does.contains(least) {
                continue;
            }
            match gets_in(&mut connection, method).await {
                Ok(()) => assert!(allowed, "{organizations:?} may call {method}"),
                Err(why) => {
                    assert!(!allowed, "{organizations:?} may not call {method}: {why}");
                    let mut subject = organizations.iter().rev().map(|one| format!("O={one}"));
                    assert!(subject.all(|one| why.contains(&one)), "{why}");
                    let expect = match *role {
                        "" => "has no role on this node; for viewer and above: a certificate with the Organization keel:viewer or".to_owned(),
                        role => format!("is {role} here; {method} is for {least} and above"),
                    };
                    assert!(why.contains(&expect), "{why} does not contain {expect}");
                    refused += 1;
                }
            }
        }
    }
    refused
}
