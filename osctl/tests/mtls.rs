//! osctl against a bootstrapped node: a real TLS server that wants client certificates, and every way not to be let in.

#![cfg(test)]

mod fake;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keel_proto::v1::{GoalState, Mode, NodeStatus};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;

use fake::{Fake, Machine};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate that `ca` signed, after `change` has had its way with it.
fn signed(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ann");
    params.distinguished_name.push(DnType::OrganizationName, "keel:admin");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap(), key)
}

fn server(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))];
}

/// A node that lets in whom `trusted` has signed, and a folder for what the user has.
struct World {
    runtime: tokio::runtime::Runtime,
    cluster: Ca,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self { runtime, cluster: ca("kubernetes"), folder: TempDir::new().unwrap() }
    }

    /// A node that shows this certificate.
    fn node(&self, (certificate, key): &(Certificate, KeyPair)) -> SocketAddr {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.cluster.der().clone()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::clone(certificate.der())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let status = NodeStatus {
            hostname: "node-1".to_owned(),
            state: GoalState::Reached.into(),
            mode: Mode::Bootstrapped.into(),
            time: Some(std::time::SystemTime::now().into()),
            ..NodeStatus::default()
        };
        let fake = Fake::default();
        *fake.0.lock().unwrap() = Machine { status, ..Machine::default() };
        self.runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (send, accepted) = tokio::sync::mpsc::channel(8);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, send) = (acceptor.clone(), send.clone());
                    tokio::spawn(async move {
                        // Who is not let in is told by an alert.
                        if let Ok(mut stream) = acceptor.accept(stream).await {
                            let (near, mut far) = tokio::io::duplex(65_536);
                            let _ = send.send(Ok(near)).await;
                            let _ = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
                        }
                    });
                }
            });
            fake.serve(tokio_stream::wrappers::ReceiverStream::new(accepted));
            address
        })
    }

    /// A node with a certificate of the cluster.
    fn approved(&self) -> SocketAddr {
        self.node(&signed(&self.cluster, server))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `--cert`, `--key` and `--ca` for this client.
    fn files(&self, (certificate, key): &(Certificate, KeyPair)) -> Vec<String> {
        let cert = self.write("client.crt", &certificate.pem());
        let key = self.write("client.key", &key.serialize_pem());
        let ca = self.write("ca.crt", &self.cluster.pem());
        ["--cert", &cert, "--key", &key, "--ca", &ca].map(str::to_owned).to_vec()
    }

    fn status(&self, node: SocketAddr, args: &[String]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_osctl"))
            .args(["--endpoint", &node.to_string()])
            .args(args)
            .arg("status")
            .env_remove("OSCTL_KUBECONFIG")
            .env("OSCTL_HOME", self.path("home"))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// What osctl says on stderr, and that it ends as it should.
    #[track_caller]
    fn check(&self, node: SocketAddr, args: &[String], expect: &[&str]) {
        let (code, stdout, stderr) = self.status(node, args);
        if expect.is_empty() {
            assert_eq!((code, stderr.as_str()), (Some(0), ""));
            assert!(stdout.contains("bootstrapped: only clients"), "{stdout}");
        } else {
            assert_ne!(code, Some(0), "{stdout}");
        }
        for part in expect {
            assert!(stderr.contains(part), "{part} is not in {stderr}");
        }
    }
}

#[test]
fn who_is_let_in_and_who_is_not() {
    let world = World::new();
    let node = world.approved();
    let good = signed(&world.cluster, |_| ());
    world.check(node, &world.files(&good), &[]);
    assert!(!world.path("home/known-nodes").exists(), "the authority vouches for the node");

    let with_ca = ["--ca".to_owned(), world.write("ca.crt", &world.cluster.pem())];
    world.check(
        node,
        &with_ca,
        &[
            "it wants a client certificate, and none was shown\n",
            "next: the node is bootstrapped: use --kubeconfig FILE",
        ],
    );
    let stranger = ca("another cluster");
    world.check(
        node,
        &world.files(&signed(&stranger, |_| ())),
        &["it does not trust the authority that signed your certificate (CN=ann, O=keel:admin, signed by CN=another cluster)"],
    );
    let expired = signed(&world.cluster, |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    world.check(
        node,
        &world.files(&expired),
        &["your certificate is not valid now: it ended at 2002-01-01T00:00:00Z, and this computer's clock says 2"],
    );
    let early = signed(&world.cluster, |params| {
        params.not_before = date_time_ymd(2901, 1, 1);
        params.not_after = date_time_ymd(2902, 1, 1);
    });
    world.check(
        node,
        &world.files(&early),
        &["it begins at 2901-01-01T00:00:00Z, and this computer's"],
    );
    let server_only = signed(&world.cluster, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    world.check(node, &world.files(&server_only), &["is not one for clients", "clientAuth"]);
    let mut mixed = world.files(&good);
    mixed[3] = world.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    world.check(node, &mixed, &["and its key do not belong together"]);
    mixed[1] = world.write("none.crt", "nothing");
    world.check(node, &mixed, &["it holds no certificate in PEM form"]);
}

#[test]
fn the_authority_vouches_for_a_node_or_its_fingerprint_is_known() {
    let world = World::new();
    let good = world.files(&signed(&world.cluster, |_| ()));
    let own = ca("node-1");
    let own_signed = signed(&own, server);
    let node = world.node(&own_signed);
    // Its own certificate, as before it was approved: nobody is trusted on first use where an authority is given.
    world.check(node, &good, &["the authority that you gave did not sign it; its fingerprint is "]);
    let (_, _, said) = world.status(node, &good);
    let add = said.lines().last().unwrap().split("if it is the same: osctl ").nth(1).unwrap();
    let added = Command::new(env!("CARGO_BIN_EXE_osctl"))
        .args(add.split(' '))
        .env("OSCTL_HOME", world.path("home"))
        .output()
        .unwrap();
    assert!(added.status.success());
    world.check(node, &good, &[]);

    let elsewhere = world.node(&signed(&world.cluster, |params| {
        server(params);
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::from([192, 0, 2, 1]))];
    }));
    world.check(elsewhere, &good, &["it is for other names and addresses"]);
    let old = world.node(&signed(&world.cluster, |params| {
        server(params);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    }));
    world.check(old, &good, &["it has expired by this computer's clock, which says 2"]);
}

#[test]
fn a_kubeconfig_says_who_one_is() {
    let world = World::new();
    let node = world.approved();
    let (certificate, key) = signed(&world.cluster, |_| ());
    let data = |text: String| STANDARD.encode(text);
    let config = format!(
        "apiVersion: v1
kind: Config
current-context: inline
clusters:
- {{ name: c, cluster: {{ server: 'https://x:6443', certificate-authority-data: {} }} }}
- {{ name: files, cluster: {{ server: 'https://x:6443', certificate-authority: pki/ca.crt }} }}
contexts:
- {{ name: inline, context: {{ cluster: c, user: inline }} }}
- {{ name: files, context: {{ cluster: files, user: files }} }}
- {{ name: token, context: {{ cluster: c, user: token }} }}
users:
- {{ name: inline, user: {{ client-certificate-data: {}, client-key-data: {} }} }}
- {{ name: files, user: {{ client-certificate: pki/a.crt, client-key: pki/a.key }} }}
- {{ name: token, user: {{ token: t0p-s3cret }} }}
",
        data(world.cluster.pem()),
        data(certificate.pem()),
        data(key.serialize_pem()),
    );
    fs::create_dir(world.path("pki")).unwrap();
    world.write("pki/ca.crt", &world.cluster.pem());
    world.write("pki/a.crt", &certificate.pem());
    world.write("pki/a.key", &key.serialize_pem());
    let path = world.write("admin.conf", &config);
    let args = |context: &[&str]| {
        let args = [&["--kubeconfig", &path], context].concat();
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    world.check(node, &args(&[]), &[]);
    world.check(node, &args(&["--context", "files"]), &[]);
    world.check(
        node,
        &args(&["--context", "token"]),
        &["by a token, and a node takes client certificates alone"],
    );
    world.check(
        node,
        &args(&["--context", "gone"]),
        &["it has no context `gone`; it has `inline`, `files`, `token`"],
    );

    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, stderr) = world.status(node, &args(&[]));
    assert_eq!(code, Some(0));
    assert_eq!(
        stderr,
        format!(
            "note: {path} holds a private key, and its mode 0644 lets others at it: chmod 600 {path}\n"
        )
    );
}
