//! Tables for what others wrote, and all of it against a real API server.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use inotify::{Inotify, WatchMask};
use keel_cluster::{ControlPlane, Expiry, Joins};
use keel_proto::v1::{NodeStatus, RequestState, ServingCertificate};
use ring::hmac;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;

use super::discover::info;
use super::http::Server;
use super::kubeconfig::Join;
use super::token::signed;
use super::{Ca, JoinErrorKind, Pin, Places, Serving, Token, keep_signed, register, verify};
use crate::about::About;
use crate::identity::{Identity, Kept, Names};
use crate::log::chain;
use crate::tls::Shown;
use crate::trust::Trust;

#[test]
fn addresses() {
    let check = |url: &str, expect: Option<(&str, u16)>| {
        let server = Server::parse(url).ok();
        let expect = expect.map(|(host, port)| Server { host: host.to_owned(), port });
        assert_eq!(server, expect, "{url}");
    };
    check("https://10.0.2.2:6443", Some(("10.0.2.2", 6443)));
    check("https://api.example.com/", Some(("api.example.com", 443)));
    check("https://[2001:db8::1]:6443", Some(("2001:db8::1", 6443)));
    for wrong in [
        "",
        "a",
        "http://a",
        "https://",
        "https://u@a",
        "https://a/b",
        "https://a?b",
        "https://a:0",
        "https://a:x",
    ] {
        check(wrong, None);
    }
}

fn jws(header: &str, content: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(header);
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, input.as_bytes())))
}

const HEADER: &str = r#"{"alg":"HS256","kid":"abcdef"}"#;
const SECRET: &str = "0123456789abcdef";

#[test]
fn signatures() {
    let good = jws(HEADER, "content", SECRET);
    assert!(signed(&good, b"content", "abcdef", SECRET));
    let check = |jws: &str| assert!(!signed(jws, b"content", "abcdef", SECRET), "{jws}");
    assert!(!signed(&good, b"content!", "abcdef", SECRET));
    assert!(!signed(&good, b"content", "abcdef", "0123456789abcdeX"));
    assert!(!signed(&good, b"content", "abcdee", SECRET));
    check(&jws(r#"{"alg":"none","kid":"abcdef"}"#, "content", SECRET));
    check(&jws(r#"{"alg":"HS512","kid":"abcdef"}"#, "content", SECRET));
    check(&jws(r#"{"alg":"HS256"}"#, "content", SECRET));
    check(&jws("[]", "content", SECRET));
    check(&good.replace("..", ".Y29udGVudA."));
    check(&format!("{good}."));
    check(&format!("{good}="));
    check(good.strip_suffix(|_: char| true).unwrap());
    for none in ["", ".", "..", "..."] {
        check(none);
    }
    let info = info("content", &[("abcdef", &good)]);
    assert!(info.check("abcdef", SECRET).is_ok());
    assert!(matches!(info.check("abcdef", "x"), Err(JoinErrorKind::BadSignature(_))));
    assert!(matches!(info.check("aaaaaa", SECRET), Err(JoinErrorKind::TokenUnknown(_))));
}

/// A JWT that expired so many seconds after 1970.
fn jwt(expires: u64) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2ln", part("{}"), part(&format!("{{\"exp\":{expires}}}")))
}

#[test]
fn tokens() {
    assert!(matches!(Token::parse(" abcdef.0123456789abcdef\n"), Some(Token::Bootstrap { .. })));
    let Some(Token::Jwt { expires, .. }) = Token::parse(&jwt(60)) else { panic!() };
    assert_eq!(expires, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(60)));
    for wrong in ["", "abcdef", "abcdef.0123456789ABCDEF", "a.b", "a.b.c", "e30.e30.", "e30.W10.x"]
    {
        assert_eq!(Token::parse(wrong), None, "{wrong}");
    }
    let shown = format!("{:?}{:?}", Token::parse("abcdef.0123456789abcdef"), Token::parse(&jwt(1)));
    assert!(!shown.contains("0123") && !shown.contains("c2ln"), "{shown}");
}

#[test]
fn kubeconfigs() {
    let text = |user: &str| {
        format!(
            "apiVersion: v1\ncurrent-context: a\nclusters:\n- name: b\n  cluster:\n    server: https://a:1\n    \
             certificate-authority-data: UEVN\ncontexts:\n- name: a\n  context: {{cluster: b, user: c}}\n\
             users:\n- name: c\n  user: {user}\n"
        )
    };
    let join = Join::read(&text("{token: abcdef.0123456789abcdef}")).unwrap();
    assert_eq!((join.api_server.as_str(), join.ca.as_deref()), ("https://a:1", Some("PEM")));
    assert!(join.token.is_some());
    assert!(!format!("{join:?}").contains("0123456789abcdef"));
    assert_eq!(Join::read(&text("{client-key-data: x}")).unwrap().token, None);
    let wrong = |text: &str, expect: &str| {
        let why = Join::read(text).unwrap_err().to_string();
        assert!(why.contains(expect), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    };
    wrong(&text("{token: hunter2}"), "its token is malformed");
    wrong(&text("{}").replace("UEVN", "hunter2!"), "not base64");
    wrong(&text("{}").replace("current-context: a", ""), "current-context is not in it");
    wrong(&text("{}").replace("cluster: b", "cluster: x"), "names no cluster");
    wrong("hunter2", "not YAML");
    wrong("users: [hunter2", "not YAML");
}

#[test]
fn pins() {
    let pin = format!("sha256:{}", "ab".repeat(32));
    assert_eq!(Pin::parse(&format!("{pin}\n")).unwrap().to_string(), pin);
    for wrong in
        ["", "sha256:ab", &pin[7..], &pin.replace("sha256", "sha512"), &pin.replace('b', "g")]
    {
        assert!(Pin::parse(wrong).is_none(), "{wrong}");
    }
}

/// Waits until a file comes into a folder, or goes.
async fn until(folder: &Path, done: impl Fn() -> bool) {
    let inotify = Inotify::init().unwrap();
    inotify.watches().add(folder, WatchMask::MOVED_TO | WatchMask::DELETE).unwrap();
    let mut events = inotify.into_event_stream([0; 4096]).unwrap();
    while !done() {
        tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap();
    }
}

/// What a node does by itself, from the files that its units write.
async fn registers(plane: &ControlPlane, url: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (kubelet, trust) = (dir.path().join("kubelet"), dir.path().join("trust"));
    let (bootstrap, trusted) = (kubelet.join("bootstrap.kubeconfig"), trust.join("ca.crt"));
    fs::create_dir_all(kubelet.join("pki")).unwrap();
    fs::create_dir(&trust).unwrap();
    let places = Places { kubelet: kubelet.clone(), trusted: trusted.clone() };
    let registering = tokio::spawn(register(places, Arc::default(), None));
    fs::write(kubelet.join("ca-hash"), plane.pin()).unwrap();
    let text = format!(
        "current-context: a\nclusters:\n- name: b\n  cluster: {{server: \"{url}\", certificate-authority: {}}}\n\
         contexts:\n- name: a\n  context: {{cluster: b, user: c}}\nusers:\n- name: c\n  user: {{token: {}}}\n",
        kubelet.join("ca.crt").display(),
        plane.token()
    );
    fs::write(&bootstrap, text).unwrap();
    until(&trust, || trusted.exists()).await;
    assert_eq!(fs::read_to_string(&trusted).unwrap(), plane.ca());
    assert_eq!(fs::read_to_string(kubelet.join("ca.crt")).unwrap(), plane.ca());
    assert!(bootstrap.exists(), "the kubelet still needs it");
    fs::write(kubelet.join("pki/kubelet-client-current.pem"), "x").unwrap();
    fs::write(kubelet.join("kubeconfig"), "x").unwrap();
    until(&kubelet, || !bootstrap.exists()).await;
    registering.abort();
}

/// A node that has joined, and what it shows.
struct Joined {
    dir: TempDir,
    kept: Kept,
    shown: Arc<Shown>,
    about: Arc<About>,
    names: watch::Sender<Option<Names>>,
    named: watch::Receiver<Option<Names>>,
}

impl Joined {
    fn new(plane: &ControlPlane) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["kubelet/pki", "trust", "identity"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let put = |path: &str, text: &str| fs::write(dir.path().join(path), text).unwrap();
        let (pair, kubeconfig) = plane.kubelet("n1").unwrap();
        put("kubelet/pki/kubelet-client-current.pem", &pair);
        put("kubelet/kubeconfig", &kubeconfig);
        put("trust/ca.crt", plane.ca());
        put("identity/machine-id", "0f3a5c7e91b24d4e8a6b0123456789ab");
        let folder = dir.path().join("identity");
        let identity = Identity::locate_or_make(&folder, &Names::default()).unwrap();
        let trust = Trust::load(crate::trust::Places {
            config: None,
            config_crl: None,
            cluster: dir.path().join("trust/ca.crt"),
            cluster_crl: dir.path().join("trust/ca.crl"),
        });
        let about = Arc::new(About::new(&identity, trust.subscribe()));
        let (names, named) = watch::channel(None);
        let shown = Arc::new(Shown::new(identity.certified));
        Self { kept: Kept::new(&folder), shown, about, names, named, dir }
    }

    /// The agent starts.
    fn start(&self) -> JoinHandle<()> {
        let path = |name| self.dir.path().join(name);
        let serving = Serving {
            places: Places { kubelet: path("kubelet"), trusted: path("trust/ca.crt") },
            kept: self.kept.clone(),
            shown: self.shown.clone(),
            about: self.about.clone(),
            names: self.named.clone(),
            changed: Arc::default(),
        };
        tokio::spawn(keep_signed(serving))
    }

    fn address(&self, address: &str) {
        let addresses = vec![address.parse().unwrap()];
        self.names.send_replace(Some(Names { hostname: None, addresses }));
    }

    fn certificate(&self) -> ServingCertificate {
        let mut status = NodeStatus::default();
        self.about.complete(&mut status);
        status.certificate.unwrap()
    }

    /// Waits until a request stands so, and returns its name.
    fn request(&self, plane: &mut ControlPlane, state: RequestState, unlike: &str) -> String {
        let mut name = String::new();
        let waited = plane.wait("no such request", |_| {
            let request = self.certificate().request.unwrap_or_default();
            name.clone_from(&request.name);
            request.state() == state && name != unlike
        });
        waited.unwrap_or_else(|error| panic!("{error}: {:?}", self.certificate()));
        name
    }

    /// Waits until another certificate is shown than that one.
    fn another(&self, plane: &mut ControlPlane, than: &str) -> ServingCertificate {
        let waited = plane.wait("no other certificate", |_| self.certificate().fingerprint != than);
        waited.unwrap_or_else(|error| panic!("{error}: {:?}", self.certificate()));
        self.certificate()
    }
}

/// The requests for serving certificates that the cluster holds.
fn requests(plane: &ControlPlane) -> Vec<String> {
    let signer = "spec.signerName=kubernetes.io/kubelet-serving";
    let said = plane.kubectl(&["get", "csr", "--field-selector", signer, "-o", "name"]).unwrap();
    said.lines().map(str::to_owned).collect()
}

/// The certificate of the API, from a cluster in which somebody has to approve it.
fn is_served_with_what_the_cluster_signs(plane: &mut ControlPlane) {
    let node = Joined::new(plane);
    let own = node.certificate();
    let key = |certified: &rustls::sign::CertifiedKey| certified.key.public_key().unwrap().to_vec();
    let first = node.shown.at(SystemTime::now());
    let started = node.start();
    node.address("192.0.2.1");
    let name = node.request(plane, RequestState::Pending, "");
    assert_eq!(requests(plane), [format!("certificatesigningrequest.certificates.k8s.io/{name}")]);
    assert_eq!(node.certificate().fingerprint, own.fingerprint, "its own until then");

    // Whatever restarts meanwhile, it is one request.
    started.abort();
    node.about.requested(None);
    let started = node.start();
    assert_eq!(node.request(plane, RequestState::Pending, ""), name);
    assert_eq!(requests(plane).len(), 1);

    plane.kubectl(&["certificate", "approve", &name]).unwrap();
    let signed = node.another(plane, &own.fingerprint);
    assert_eq!(
        (signed.issuer.as_str(), &signed.names[..]),
        ("CN=kubernetes", &["n1", "192.0.2.1"].map(str::to_owned)[..])
    );
    let now = node.shown.at(SystemTime::now());
    assert_eq!(key(&now), key(&first), "whoever has pinned the key sees the same node");
    assert_ne!(now.cert, first.cert);

    // Another address makes another request, and a no leaves what is there.
    node.address("192.0.2.2");
    let second = node.request(plane, RequestState::Pending, &name);
    plane.kubectl(&["certificate", "deny", &second]).unwrap();
    assert_eq!(node.request(plane, RequestState::Denied, &name), second);
    assert_eq!(node.certificate().fingerprint, signed.fingerprint);
    assert_eq!(requests(plane).len(), 2);

    // Back again: there is nothing to ask for, until it has to be renewed. The certificate is kept.
    started.abort();
    node.about.requested(None);
    node.about.signed(None);
    node.address("192.0.2.1");
    let started = node.start();
    assert_eq!(node.another(plane, &own.fingerprint).fingerprint, signed.fingerprint);
    assert_eq!(requests(plane).len(), 2);
    let third = node.request(plane, RequestState::Pending, &second);
    assert_eq!(
        node.certificate().fingerprint,
        signed.fingerprint,
        "it is asked for before the old one ends"
    );
    // Nobody has a look at it in time: the node is its own again.
    assert_eq!(node.another(plane, &signed.fingerprint).fingerprint, own.fingerprint);
    assert_eq!(node.shown.at(SystemTime::now()).cert, first.cert);
    plane.kubectl(&["certificate", "approve", &third]).unwrap();
    let renewed = node.another(plane, &own.fingerprint);
    assert_ne!(renewed.fingerprint, signed.fingerprint);
    started.abort();
}

/// Everything that a node meets at a real API server. `cargo xtask test` has built it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kubernetes");
    // It dates back what it signs by five minutes: 90 seconds are left.
    let life = Duration::from_secs(390);
    let plane = ControlPlane::start_signing_for(&programs, life);
    let mut plane = plane.unwrap_or_else(|error| panic!("{error:?}"));
    let url = plane.url("127.0.0.1");
    let given = Ca::Given(plane.ca().to_owned());
    let pinned = Ca::Pinned(Pin::parse(plane.pin()).unwrap());
    let parse = |text: &str| Token::parse(text).unwrap();
    let token = parse(plane.token());

    // What works: a CA, a pin, a JWT.
    assert_eq!(verify(&url, &given, Some(&token)).await.unwrap().ca, plane.ca());
    let found = verify(&url, &pinned, Some(&token)).await.unwrap().ca;
    assert_eq!(found.replace('\r', ""), plane.ca());
    let jwt_of_account = parse(&plane.service_account("joiner", Joins::May).unwrap());
    verify(&url, &given, Some(&jwt_of_account)).await.unwrap();
    verify(&url, &pinned, Some(&jwt_of_account)).await.unwrap();
    verify(&url, &given, None).await.unwrap();

    registers(&plane, &url).await;
    tokio::task::block_in_place(|| is_served_with_what_the_cluster_signs(&mut plane));

    // What does not, each with its own word.
    let refused = async |url: &str, ca: &Ca, token: &str, expect: &str| {
        let error = verify(url, ca, Some(&parse(token))).await.expect_err(expect);
        let why = chain(&error);
        assert!(why.contains(expect), "{why}");
        assert!(!why.contains(token), "{why}");
    };
    let (id, _) = plane.token().split_once('.').unwrap();
    let wrong_secret = format!("{id}.{}", "0".repeat(16));
    refused(&url, &given, &wrong_secret, "its secret part is another one").await;
    refused(&url, &pinned, &wrong_secret, "is not signed by the token").await;
    refused(&url, &given, "aaaaaa.0123456789abcdef", "does not know the token `aaaaaa`").await;
    refused(&url, &pinned, "aaaaaa.0123456789abcdef", "does not know the token `aaaaaa`").await;
    let expired = plane.bootstrap_token(Expiry::Past).unwrap();
    refused(&url, &given, &expired, "it has expired, or was deleted").await;
    refused(&url, &given, &jwt(60), "it was valid until 1970-01-01T00:01:00Z").await;
    refused(&url, &given, &jwt(9_999_999_999), "does not take the token (401)").await;
    let nobody = plane.service_account("nobody", Joins::MayNot).unwrap();
    refused(&url, &given, &nobody, "may not ask for a node's certificate").await;

    let other = Ca::Given(keel_cluster::another_ca());
    refused(&url, &other, plane.token(), "not signed by the cluster's CA").await;
    let wrong_pin = Ca::Pinned(Pin::parse(&format!("sha256:{}", "00".repeat(32))).unwrap());
    refused(&url, &wrong_pin, plane.token(), &format!("it has {}", plane.pin())).await;
    refused(&url, &Ca::Given("x".into()), plane.token(), "it holds no certificate").await;
    let other_name = url.replace("127.0.0.1", "localhost");
    refused(&other_name, &given, plane.token(), "for other names than `localhost`").await;
    refused("https://127.0.0.1:9", &given, plane.token(), "nothing answers there").await;
    refused("https://nowhere.invalid", &given, plane.token(), "cannot be resolved").await;
    // etcd speaks HTTP in the clear.
    refused(&plane.etcd_as_https(), &given, plane.token(), "does not speak TLS 1.3").await;
}
