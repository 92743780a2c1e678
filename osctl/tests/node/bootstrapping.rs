//! A node joins a real API server and leaves it again: the real osctl and the real agent. Its init and its kubelet are made up here: what
//! init lowers a config to is written as its units have it, and the kubelet asks for its certificate and makes its Node as the real one
//! does. (The real ones are in the tests of machines.)

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keel_cluster::{ControlPlane, Expiry, Joins};
use keel_control::{
    Answer, Applied, Apply, ApplyMode, BootRecord, ConfigText, ConnectionError, Decision, EventLog,
    Fate, Generation, GenerationResult, GoalState, Happened, History, Inventory, KEPT, LogQuery,
    LogSource, MutationPlan, MutationProgress, Refusal, RefusalKind, Service, Shutdown, Status,
    Trial, UnitChange, UnitDetail, UnitList,
};
use keel_unit::config::{masked, merged_config, restored};
use keel_unit::lower::Input;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::support::{Control, Ended, MACHINE_ID, Node, root};

const NAME: &str = "worker-7";

/// What the kubelet of a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kubelet {
    Joins,
    /// It never starts.
    Silent,
    /// It asks, and somebody denies it.
    IsDenied,
}

/// A machine that keeps configs, and lowers them.
struct Machine {
    log: EventLog,
    kubelet: PathBuf,
    does: Mutex<Kubelet>,
    plane: Arc<ControlPlane>,
    state: Mutex<State>,
}

struct State {
    text: String,
    before: String,
    pages: Vec<Generation>,
    trial: Option<u64>,
}

impl Machine {
    /// What the units of `[cluster]` write, or remove.
    fn lower(&self, text: &str) {
        let config: toml::Table = text.parse().unwrap();
        let cluster = config.get("cluster").and_then(|it| it.get("api-server"));
        let path = |name: &str| self.kubelet.join(name);
        fs::create_dir_all(&self.kubelet).unwrap();
        if cluster.is_none() {
            for name in ["bootstrap.kubeconfig", "ca.crt", "config.yaml"] {
                let _ = fs::remove_file(path(name));
            }
            return;
        }
        let key = |key: &str| config["cluster"][key].as_str().unwrap().to_owned();
        fs::write(path("ca.crt"), key("ca-cert")).unwrap();
        fs::write(path("config.yaml"), "kind: KubeletConfiguration\n").unwrap();
        let user = format!("token: {}", key("token"));
        let text = kubeconfig(&key("api-server"), &path("ca.crt"), &user);
        fs::write(path("bootstrap.kubeconfig"), text).unwrap();
        let does = *self.does.lock().unwrap();
        if does != Kubelet::Silent {
            let (folder, plane) = (self.kubelet.clone(), self.plane.clone());
            let name = config["cluster"].get("node-name").and_then(|it| it.as_str());
            let name = name.unwrap_or(NAME).to_owned();
            std::thread::spawn(move || kubelet(&folder, &plane, &name, does));
        }
    }
}

fn kubeconfig(server: &str, ca: &Path, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters:\n- name: b\n  cluster: {{server: \"{server}\", \
         certificate-authority: {}}}\ncontexts:\n- name: a\n  context: {{cluster: b, user: c}}\nusers:\n- name: c\n  user: {{{user}}}\n",
        ca.display()
    )
}

/// kubectl as whoever a kubeconfig says.
fn kubectl_as(kubeconfig: &Path, args: &[&str], input: &Value) -> bool {
    let mut child = Command::new(root().join("target/kubernetes/bin/kubectl"))
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    child.wait().unwrap().success()
}

fn node_object(name: &str, boot: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "status": {
            "nodeInfo": {
                "bootID": boot, "machineID": "m", "systemUUID": "s", "kernelVersion": "k",
                "osImage": "o", "containerRuntimeVersion": "c", "kubeletVersion": "v",
                "kubeProxyVersion": "p", "operatingSystem": "linux", "architecture": "amd64",
            },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "r", "message": "m" }],
        },
    })
}

/// Asks for a certificate, and registers the node with it.
fn kubelet(folder: &Path, plane: &ControlPlane, name: &str, does: Kubelet) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let id = format!("csr-{}", fastrand_like(&key.serialize_pem()));
    let csr = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": id },
        "spec": {
            "request": STANDARD.encode(request),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["key encipherment", "digital signature", "client auth"],
        },
    });
    let bootstrap = folder.join("bootstrap.kubeconfig");
    assert!(kubectl_as(&bootstrap, &["create", "-f", "-"], &csr), "the request is not taken");
    if does == Kubelet::IsDenied {
        plane.kubectl(&["certificate", "deny", &id]).unwrap();
        return;
    }
    let certificate = loop {
        let Ok(said) = plane.kubectl(&["get", "csr", &id, "-o", "jsonpath={.status.certificate}"])
        else {
            return;
        };
        if !said.is_empty() {
            break String::from_utf8(STANDARD.decode(said).unwrap()).unwrap();
        }
        if !bootstrap.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    fs::create_dir_all(folder.join("pki")).unwrap();
    let pem = folder.join("pki/kubelet-client-current.pem");
    fs::write(&pem, certificate + &key.serialize_pem()).unwrap();
    let text = fs::read_to_string(&bootstrap).unwrap();
    let server = text.split('"').nth(1).unwrap().to_owned();
    let user = format!("client-certificate: {0}, client-key: {0}", pem.display());
    let own = folder.join("kubeconfig");
    fs::write(&own, kubeconfig(&server, &folder.join("ca.crt"), &user)).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    kubectl_as(&own, &["create", "-f", "-"], &node_object(name, boot.trim()));
}

/// Letters that are another's for each text.
fn fastrand_like(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

impl Service for Machine {
    async fn status(&self) -> Result<Status, Refusal> {
        Ok(Status {
            version: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            hostname: NAME.to_owned(),
            machine_id: Some(MACHINE_ID.to_owned()),
            uptime_ms: 61_000,
            goal: "boot".to_owned(),
            state: GoalState::Reached,
            degraded: vec![],
            digest: "sha256:1".to_owned(),
            links: vec![],
            boot: None,
        })
    }

    async fn units(&self) -> Result<UnitList, Refusal> {
        Ok(UnitList { now_ms: 0, units: vec![] })
    }

    async fn inventory(&self) -> Result<Inventory, Refusal> {
        unreachable!("nobody asks")
    }

    async fn unit(&self, name: String) -> Result<UnitDetail, Refusal> {
        Err(RefusalKind::UnknownUnit { name, near: vec![] }.into())
    }

    fn events(&self) -> &EventLog {
        &self.log
    }

    fn logs(&self, _: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
        unreachable!("nobody asks")
    }

    async fn boot(&self) -> Result<BootRecord, Refusal> {
        unreachable!("nobody asks")
    }

    async fn trace(&self) -> Result<Vec<u8>, Refusal> {
        unreachable!("nobody asks")
    }

    async fn shutdown(&self, _: Shutdown) -> Result<(), Refusal> {
        unreachable!("nobody asks")
    }

    async fn config(&self, _: Option<u64>) -> Result<ConfigText, Refusal> {
        let state = self.state.lock().unwrap();
        Ok(ConfigText { generation: None, text: masked(&state.text, KEPT) })
    }

    async fn history(&self) -> Result<History, Refusal> {
        let state = self.state.lock().unwrap();
        Ok(History {
            generations: state.pages.clone(),
            current: None,
            next: None,
            trial: state.trial.map(|generation| Trial { generation, left_ms: 1 }),
            damage: vec![],
        })
    }

    async fn apply(&self, ask: Apply) -> Result<Answer, Refusal> {
        let mut state = self.state.lock().unwrap();
        let mut input = Input::default();
        for layer in &ask.layers {
            input.config(&layer.name, restored(&layer.text, &state.text, KEPT).as_str());
        }
        let text = merged_config(&input).unwrap_or_else(|report| panic!("{report:?}"));
        let changes = match text == state.text {
            true => vec![],
            false => vec![UnitChange {
                unit: "kubelet".to_owned(),
                decision: Decision::Restart,
                because: vec!["service.exec changes".to_owned()],
                interrupts: false,
            }],
        };
        let plan = MutationPlan {
            base: "sha256:1".to_owned(),
            target: "sha256:2".to_owned(),
            changes,
            kept: 7,
            needs_reboot: false,
            boot: None,
        };
        let from_seq = self.log.next();
        let planned = |fate, generation| {
            Ok(Answer::Planned(Applied { plan: plan.clone(), fate, generation, from_seq }))
        };
        if ask.dry_run {
            return planned(Fate::DryRun, None);
        }
        let number = state.pages.len() as u64 + 1;
        let on_trial = ask.mode == ApplyMode::Try;
        state.pages.push(Generation {
            number,
            digest: String::new(),
            text_sha256: String::new(),
            author: ask.author,
            reason: ask.reason,
            at_ms: 0,
            result: if on_trial { GenerationResult::UnderWay } else { GenerationResult::Good },
            note: None,
        });
        self.lower(&text);
        state.before = std::mem::replace(&mut state.text, text);
        if on_trial {
            state.trial = Some(number);
            return planned(Fate::OnTrial, Some(number));
        }
        let progress = MutationProgress::Reached;
        self.log.push(1, Happened::Mutation { generation: number, progress });
        planned(Fate::Begun, Some(number))
    }

    async fn confirm(&self) -> Result<u64, Refusal> {
        let mut state = self.state.lock().unwrap();
        let number = state.trial.take().ok_or(RefusalKind::NothingOnTrial)?;
        state.pages.last_mut().unwrap().result = GenerationResult::Good;
        Ok(number)
    }

    async fn undo(&self, generation: u64, why: String) -> Result<(), Refusal> {
        let mut state = self.state.lock().unwrap();
        if state.trial.take() != Some(generation) {
            return Err(RefusalKind::NothingOnTrial.into());
        }
        let page = state.pages.last_mut().unwrap();
        (page.result, page.note) = (GenerationResult::RolledBack, Some(why));
        state.text = state.before.clone();
        self.lower(&state.text);
        Ok(())
    }

    fn connection_failed(&self, error: &ConnectionError) {
        panic!("{error}");
    }
}

/// A cluster, and a node in maintenance that has a machine behind it.
struct Here {
    plane: Arc<ControlPlane>,
    machine: Arc<Machine>,
    node: Node,
    _control: Control,
}

impl Here {
    fn new() -> Self {
        let plane = ControlPlane::start(&root().join("target/kubernetes"));
        let plane = Arc::new(plane.unwrap_or_else(|error| panic!("{error:?}")));
        let node = Node::start();
        let text = format!("schema = 1\n[cluster]\nnode-name = \"{NAME}\"\n");
        let machine = Arc::new(Machine {
            log: EventLog::new(64),
            kubelet: node.folder.path().join("kubelet"),
            does: Mutex::new(Kubelet::Joins),
            plane: plane.clone(),
            state: Mutex::new(State { before: text.clone(), text, pages: vec![], trial: None }),
        });
        let control = Control::start(&node.control_socket(), machine.clone());
        let here = Self { plane, machine, node, _control: control };
        fs::write(here.file("cluster.crt"), here.plane.ca()).unwrap();
        here
    }

    fn file(&self, name: &str) -> String {
        self.node.folder.path().join(name).display().to_string()
    }

    fn admin(&self, args: &[&str]) -> Ended {
        let admin = self.plane.admin().display().to_string();
        self.node.pinned(&[&["--kubeconfig", &admin], args].concat())
    }

    fn bootstrap(&self, more: &[&str]) -> Ended {
        self.node.pinned(&[&["bootstrap"], more].concat())
    }

    /// Nothing of a cluster is left, and anybody may look again.
    #[track_caller]
    fn is_clean(&self) {
        for name in ["kubelet/bootstrap.kubeconfig", "kubelet/ca.crt", "kubelet/config.yaml"] {
            assert!(!Path::new(&self.file(name)).exists(), "{name}");
        }
        for name in ["kubelet/pki", "kubelet/kubeconfig", "ca.crt", "bootstrap.json", "leaving"] {
            assert!(!Path::new(&self.file(name)).exists(), "{name}");
        }
        let status = self.node.pinned(&["bootstrap", "status"]);
        assert!(status.stdout.contains("in no cluster"), "{status:?}");
        let text = self.machine.state.lock().unwrap().text.clone();
        assert!(!text.contains("api-server") && !text.contains("token"), "{text}");
    }
}

#[test]
fn a_node_joins_a_cluster_stays_in_it_and_leaves_it() {
    let here = Here::new();
    let (url, token) = (here.plane.url("127.0.0.1"), here.plane.token().to_owned());
    let ca = here.file("cluster.crt");
    let words = ["--api-server", &url, "--token", &token, "--ca-cert", &ca];

    // What would happen, and nothing does.
    let dry = here.bootstrap(&[&words[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, Some(1), "{dry:?}");
    assert!(dry.stdout.contains("verified") && dry.stdout.contains("kubelet"), "{dry:?}");
    here.is_clean();

    // The seed's own words, `http://` and all.
    let endpoint = format!("http://{}", here.node.endpoint);
    let joined = crate::support::osctl_at(
        &here.node.home(),
        &[&["--endpoint", &endpoint, "bootstrap"], &words[..]].concat(),
    );
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let mut at = 0;
    for stage in ["reaching", "verified", "applied", "requested", "approved", "registered", "ready"]
    {
        let found = joined.stdout[at..].find(&format!("  {stage}"));
        at += found.unwrap_or_else(|| panic!("{stage}: {joined:?}"));
    }
    assert!(joined.stderr.contains("--kubeconfig"), "{joined:?}");
    assert_eq!(fs::read_to_string(here.file("ca.crt")).unwrap(), here.plane.ca());
    assert!(!Path::new(&here.file("bootstrap.json")).exists());

    // From now on the cluster says who gets in.
    let nobody = here.node.pinned(&["status"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    let status = here.admin(&["bootstrap", "status", "--output", "json"]);
    let said: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((&said["state"], &said["ready"]), (&json!("joined"), &json!(true)), "{said:#}");
    assert_eq!(said["node_name"], NAME);

    // Once more is nothing, another one is refused, and no secret is said anywhere.
    let again = here.admin(&[&["bootstrap"], &words[..]].concat());
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("nothing to do"), "{again:?}");
    fs::write(here.file("other.crt"), keel_cluster::another_ca()).unwrap();
    let other = here.file("other.crt");
    let other = ["--api-server", "https://127.0.0.1:9", "--token", &token, "--ca-cert", &other];
    let other = here.admin(&[&["bootstrap"], &other[..]].concat());
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(other.stderr.contains("--force"), "{other:?}");
    let audit = here.admin(&["audit"]);
    assert!(audit.stdout.contains("Cluster/Bootstrap"), "{audit:?}");
    let secret = token.split('.').nth(1).unwrap();
    for ended in [&dry, &joined, &status, &again, &other, &audit] {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended:?}");
    }

    // It leaves; who may not is refused, and what it means is said before.
    let dry = here.admin(&["unbootstrap", "--dry-run"]);
    assert_eq!(dry.code, Some(1), "{dry:?}");
    assert!(dry.stdout.contains("in maintenance afterwards"), "{dry:?}");
    let left = here.admin(&["unbootstrap", "--yes"]);
    assert_eq!(left.code, Some(0), "{left:?}");
    assert!(left.stderr.contains(&format!("kubectl delete node {NAME}")), "{left:?}");
    here.is_clean();
    let again = here.node.pinned(&["unbootstrap", "--yes"]);
    assert!(again.stderr.contains("is closed while the node is in maintenance"), "{again:?}");
}

#[test]
fn what_fails_says_why_and_leaves_nothing_behind() {
    let here = Here::new();
    let (url, token) = (here.plane.url("127.0.0.1"), here.plane.token().to_owned());
    let ca = here.file("cluster.crt");
    let other_ca = here.file("other.crt");
    fs::write(&other_ca, keel_cluster::another_ca()).unwrap();
    let id = token.split('.').next().unwrap();
    let check = |words: &[&str], code: i32, expect: &str| {
        let ended = here.bootstrap(words);
        assert_eq!(ended.code, Some(code), "{expect}: {ended:?}");
        assert!(ended.stderr.contains(expect), "{expect}: {ended:?}");
        assert!(ended.stderr.contains("next: "), "{ended:?}");
        here.is_clean();
    };
    let with = |url: &str, token: &str, ca: &str, code: i32, expect: &str| {
        check(&["--api-server", url, "--token", token, "--ca-cert", ca], code, expect);
    };

    // What changes nothing at all.
    with(&url, &format!("{id}.{}", "0".repeat(16)), &ca, 1, "its secret part is another one");
    with(&url, "aaaaaa.0123456789abcdef", &ca, 1, "does not know the token `aaaaaa`");
    with(&url, "hunter2", &ca, 1, "the token is malformed");
    let expired = here.plane.bootstrap_token(Expiry::Past).unwrap();
    with(&url, &expired, &ca, 1, "it has expired, or was deleted");
    with(&url, &token, &other_ca, 1, "not signed by the cluster's CA");
    with("https://127.0.0.1:9", &token, &ca, 1, "nothing answers there");
    with("https://nowhere.invalid", &token, &ca, 1, "cannot be resolved");
    let localhost = url.replace("127.0.0.1", "localhost");
    with(&localhost, &token, &ca, 1, "for other names than `localhost`");
    let nobody = here.plane.service_account("nobody", Joins::MayNot).unwrap();
    with(&url, &nobody, &ca, 1, "may not ask for a node's certificate");
    check(&["--api-server", &url, "--token", &token], 2, "not said which cluster");
    check(&["--kubeconfig", "/nonexistent"], 2, "cannot read /nonexistent");
    let none = format!("sha256:{}", "00".repeat(32));
    let pinned = ["--api-server", &url, "--token", &token, "--ca-hash", &none];
    check(&pinned, 1, here.plane.pin());
    assert!(here.machine.state.lock().unwrap().pages.is_empty(), "nothing was ever changed");

    // What fails on the way, and is undone.
    let within = |time: &'static str, token: &str, expect: &str| {
        let words = ["--api-server", &url, "--token", token, "--ca-cert", &ca, "--timeout", time];
        check(&words, 1, expect);
        let state = here.machine.state.lock().unwrap();
        let page = state.pages.last().unwrap();
        assert_eq!(page.result, GenerationResult::RolledBack, "{page:?}");
        assert!(page.note.as_ref().is_some_and(|note| note.contains(expect)), "{page:?}");
    };
    let does = |what| *here.machine.does.lock().unwrap() = what;
    does(Kubelet::Silent);
    within("2s", &token, "did not ask for a certificate in time");
    // One that may ask, and is approved by nobody.
    let bound = ["create", "clusterrolebinding", "asks", "--serviceaccount=default:nobody"];
    let role = "--clusterrole=system:node-bootstrapper";
    here.plane.kubectl(&[&bound[..], &[role]].concat()).unwrap();
    does(Kubelet::IsDenied);
    within("60s", &nobody, "denied the kubelet's request");
    does(Kubelet::Joins);
    within("30s", &nobody, "nobody approved the kubelet's request");
    here.plane.apply(&json!([node_object(NAME, "another")])).unwrap();
    within("60s", &token, "the name is taken");

    // And after all of that it joins, by a token from stdin and a pin.
    here.plane.kubectl(&["delete", "node", NAME]).unwrap();
    let words = ["bootstrap", "--api-server", &url, "--token", "-", "--ca-hash", here.plane.pin()];
    let fingerprint = here.node.fingerprint();
    let node = ["--endpoint", &here.node.endpoint, "--fingerprint", &fingerprint];
    let mut osctl = crate::support::osctl_command(&[&node[..], &words[..]].concat());
    let mut osctl = osctl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    osctl.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
    let ended = osctl.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}
