//! Steering a node: the real osctl against the real keel-agent over mutual TLS, and behind it a machine that the test makes up.

#![cfg(test)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use keel_control::{
    BootRecord, ConnectionError, ControlUnit, EventLog, GoalState, Inventory, Limits, LogQuery,
    LogSource, Loss, PlannedJob, Refusal, RefusalKind, Reset, ResetPlan, Service, Shutdown, Status,
    Unit, UnitDetail, UnitEdge, UnitList, UnitPlan, UnitState, UnitVerb,
};
use keel_plan::export::Export;
use keel_plan::{BOOT, compile};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

const MACHINE_ID: &str = "0f3a5c7e91b24d4e8a6b0123456789ab";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A machine of two units: `kubelet`, which is up and can be steered, and `broken`, which never comes up.
struct Machine {
    log: EventLog,
    graph: Vec<u8>,
    kubelet: Mutex<(UnitState, u64)>,
    broken: Mutex<u64>,
    /// What it was asked to do, beyond saying what it would.
    done: Mutex<Vec<String>>,
}

impl Machine {
    fn new(graph: Vec<u8>) -> Self {
        Self {
            log: EventLog::new(4),
            graph,
            kubelet: Mutex::new((UnitState::Running, 1_000)),
            broken: Mutex::new(1_000),
            done: Mutex::default(),
        }
    }

    fn did(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }

    fn unit(&self, name: &str) -> Unit {
        let (state, since_ms, note) = match name {
            "kubelet" => {
                let (state, since) = *self.kubelet.lock().unwrap();
                (state, since, None)
            }
            _ => {
                let since = *self.broken.lock().unwrap();
                (UnitState::Failed, since, Some("no such disk".to_owned()))
            }
        };
        Unit {
            name: name.to_owned(),
            kind: "service".to_owned(),
            stage: Some("services".to_owned()),
            description: format!("The {name}"),
            state,
            since_ms,
            took_ms: None,
            attempts: 1,
            note,
            deadline_ms: None,
            waits_for: vec![],
            pid: None,
            memory_bytes: None,
            boot: None,
        }
    }
}

const DIGEST: &str = "sha256:1234";

impl Service for Machine {
    async fn status(&self) -> Result<Status, Refusal> {
        Ok(Status {
            version: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            hostname: "node-1".to_owned(),
            machine_id: Some(MACHINE_ID.to_owned()),
            uptime_ms: 61_000,
            goal: "boot".to_owned(),
            state: GoalState::Reached,
            degraded: vec![],
            digest: DIGEST.to_owned(),
            links: vec![],
            boot: None,
        })
    }

    async fn units(&self) -> Result<UnitList, Refusal> {
        let units = ["broken", "kubelet"].map(|name| self.unit(name));
        Ok(UnitList { now_ms: 61_500, units: units.to_vec() })
    }

    async fn inventory(&self) -> Result<Inventory, Refusal> {
        unreachable!("nobody asks")
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

    async fn shutdown(&self, how: Shutdown) -> Result<(), Refusal> {
        self.did(format!("{how:?}"));
        Ok(())
    }

    async fn export_graph(&self) -> Result<Vec<u8>, Refusal> {
        Ok(self.graph.clone())
    }

    async fn unit(&self, name: String) -> Result<UnitDetail, Refusal> {
        let broken = UnitEdge {
            unit: "broken".to_owned(),
            word: "requires".to_owned(),
            provenance: "units/kubelet.toml:4".to_owned(),
            state: UnitState::Failed,
            holds_up: false,
        };
        match name.as_str() {
            "kubelet" | "broken" => Ok(UnitDetail {
                now_ms: 61_500,
                unit: self.unit(&name),
                file: format!("units/{name}.toml"),
                dependencies: if name == "kubelet" { vec![broken] } else { vec![] },
                dependents: vec![],
                on_failure: "degrade".to_owned(),
                timeout_ms: 30_000,
                restart_ms: None,
                blocked_by: vec![],
                last_lines: vec![],
            }),
            _ => Err(RefusalKind::UnknownUnit { name, near: vec!["kubelet".to_owned()] }.into()),
        }
    }

    async fn control_unit(&self, ask: ControlUnit) -> Result<UnitPlan, Refusal> {
        let kubelet = ask.unit == "kubelet";
        if !kubelet && ask.unit != "broken" {
            return Err(RefusalKind::UnknownUnit { name: ask.unit, near: vec![] }.into());
        }
        if !ask.dry_run {
            assert_eq!(ask.digest.as_deref(), Some(DIGEST), "on the graph that was looked at");
            self.did(format!("{:?} {}", ask.verb, ask.unit));
            *self.broken.lock().unwrap() += u64::from(!kubelet);
            let down = ask.verb == UnitVerb::Stop;
            let state = if down { UnitState::Inactive } else { UnitState::Running };
            let mut now = self.kubelet.lock().unwrap();
            *now = if kubelet { (state, now.1 + 1) } else { *now };
        }
        let why = "asked for".to_owned();
        let interrupts = kubelet && ask.verb != UnitVerb::Start;
        let jobs = vec![PlannedJob { unit: ask.unit, verb: ask.verb, why, interrupts }];
        Ok(UnitPlan { jobs, digest: DIGEST.to_owned() })
    }

    async fn rehearse_shutdown(&self) -> Result<Vec<String>, Refusal> {
        Ok(vec!["kubelet".to_owned(), "mount.data".to_owned()])
    }

    async fn reset(&self, ask: Reset) -> Result<ResetPlan, Refusal> {
        if !ask.dry_run {
            if ask.confirm.as_deref() != Some(MACHINE_ID) {
                return Err(RefusalKind::Unconfirmed.into());
            }
            self.did("Reset".to_owned());
        }
        let loss = Loss {
            what: "keel-data (/dev/vda1)".to_owned(),
            meaning: "the partition's filesystem".to_owned(),
            size: Some(1 << 30),
        };
        Ok(ResetPlan { stops: vec!["kubelet".to_owned()], losses: vec![loss] })
    }

    fn connection_failed(&self, error: &ConnectionError) {
        eprintln!("{error}");
    }
}

/// The CA that the node trusts, and what a client needs of it.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    /// Writes the certificate and key of a client with this role.
    fn client(&self, folder: &Path, role: &str) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, format!("keel:{role}"));
        params.distinguished_name.push(DnType::CommonName, "ada");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(folder.join(format!("{role}.crt")), certificate.pem()).unwrap();
        let path = folder.join(format!("{role}.key"));
        fs::write(&path, key.serialize_pem()).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A running agent that trusts a CA, the machine behind it, and what clients need; gone with the value.
struct Node {
    folder: TempDir,
    agent: Child,
    endpoint: String,
    machine: Arc<Machine>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    fn start(graph: Vec<u8>) -> Self {
        let folder = TempDir::new().unwrap();
        let path = |file: &str| folder.path().join(file);
        fs::write(path("machine-id"), MACHINE_ID).unwrap();
        let authority = Authority::new();
        fs::write(path("ca.crt"), &authority.1).unwrap();
        ["viewer", "operator", "admin"]
            .iter()
            .for_each(|role| authority.client(folder.path(), role));

        let machine = Arc::new(Machine::new(graph));
        let (stop, stopped) = oneshot::channel();
        let (listening, is_listening) = std::sync::mpsc::channel();
        let (socket, served) = (path("control.sock"), machine.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = keel_control::bind(&socket).unwrap();
                listening.send(()).unwrap();
                tokio::select! {
                    never = keel_control::serve(listener, served, Limits::default()) => match never {},
                    _ = stopped => {}
                }
            });
        });
        is_listening.recv().unwrap();

        let binary = agent_binary();
        let made = Command::new(&binary).args(["identity", "--dir"]).arg(folder.path()).output();
        assert!(made.unwrap().status.success());
        let mut agent = Command::new(&binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--dir"])
            .arg(folder.path())
            .arg("--control")
            .arg(path("control.sock"))
            .arg("--cluster-ca")
            .arg(path("ca.crt"))
            .arg("--audit-dir")
            .arg(path("audit"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = stderr.find(|line| line.contains("serving on ")).expect("it serves");
        let (_, rest) = line.split_once("serving on ").unwrap();
        let endpoint = rest.split([' ', ',']).next().unwrap().to_owned();
        // What the agent says later is shown if the test fails, and must not fill the pipe.
        std::thread::spawn(move || stderr.for_each(|line| eprintln!("agent: {line}")));
        Self { folder, agent, endpoint, machine, stop: Some(stop), thread: Some(thread) }
    }

    fn fingerprint(&self) -> String {
        fs::read_to_string(self.folder.path().join("node.fingerprint")).unwrap().trim().to_owned()
    }

    /// Runs osctl as somebody with this role.
    fn osctl(&self, role: &str, args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
        // Nothing of the person who runs the tests.
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().starts_with("OSCTL_") {
                command.env_remove(name);
            }
        }
        let file = |end: &str| self.folder.path().join(format!("{role}.{end}"));
        let Output { status, stdout, stderr } = command
            .args(["--endpoint", &self.endpoint, "--fingerprint", &self.fingerprint()])
            .arg("--cert")
            .arg(file("crt"))
            .arg("--key")
            .arg(file("key"))
            .args(args)
            .env("OSCTL_HOME", self.folder.path().join("home"))
            .stdin(Stdio::null())
            .current_dir(root())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// What the machine did since this was asked last.
    fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.machine.done.lock().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// How an osctl ended, and what it said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    #[track_caller]
    fn check(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stdout.contains(word) || self.stderr.contains(word), "{word}: {self:#?}");
        }
        assert!(
            code == 0 || self.stdout.contains("failed") || self.stderr.contains("next: "),
            "{self:#?}"
        );
    }
}

/// keel-agent beside osctl: a test of the workspace builds both; a test of osctl alone builds it once, if it is missing.
fn agent_binary() -> PathBuf {
    let osctl = Path::new(env!("CARGO_BIN_EXE_osctl"));
    let agent = osctl.with_file_name("keel-agent");
    if !agent.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "keel-agent", "--bin", "keel-agent"])
            .arg("--target-dir")
            .arg(osctl.ancestors().nth(2).unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success());
    }
    agent
}

#[test]
fn a_unit_is_steered_only_as_it_was_planned_and_allowed() {
    let node = Node::start(Vec::new());
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
    let node = Node::start(Vec::new());
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

/// The boot that ships, as a node that runs it exports it.
fn exported() -> Export {
    let input = keel_unit::load::load(
        &root().join("units"),
        Some(&root().join("machine-configs/qemu.toml")),
    );
    let (graph, transaction) = compile(input, BOOT).unwrap();
    let mut export = Export::new(&graph, &transaction);
    export.units.iter_mut().for_each(|unit| unit.state = Some("active(exited)".to_owned()));
    export
}

#[test]
fn the_graph_of_a_node_is_drawn_and_compared() {
    let export = exported();
    let node = Node::start(serde_json::to_vec(&export).unwrap());
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

impl Ended {
    /// clap's own refusal has no `next:`.
    #[track_caller]
    fn check_usage(&self) {
        assert_eq!(self.code, Some(2), "{self:#?}");
    }
}

#[test]
fn a_node_that_says_nonsense_is_not_drawn() {
    let mut export = exported();
    export.units[0].name = "a\u{1b}[31m\"; }".to_owned();
    let node = Node::start(serde_json::to_vec(&export).unwrap());
    node.osctl("viewer", &["graph", "render", "--node"])
        .check(1, &["holds a unit named `a\\u{1b}"]);
    let node = Node::start(b"{}".to_vec());
    node.osctl("viewer", &["graph", "render", "--node"]).check(1, &["cannot be read"]);
}

#[test]
fn units_are_explained_live() {
    let node = Node::start(Vec::new());
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

/// Lines of the page on operating a node that this machine has no answer to, and what tries them instead.
const ELSEWHERE: [&str; 9] = [
    // Redirected.
    "graph render --node --format svg > now.svg",
    "graph render --node --format json > node.json",
    // Its exit code says that they differ.
    "graph diff --node machine-configs/qemu.toml",
    // Units that this machine lacks.
    "units restart containerd --dry-run",
    "units restart containerd --yes",
    "units start time",
    // It has no unit with a cgroup of that name.
    "processes containerd kubelet",
    // It goes on for ever, or until the machine is back.
    "processes --watch --sort cpu --short",
    "reboot --yes --wait",
];

#[test]
fn the_lines_of_the_page_on_operating_run() {
    let node = Node::start(serde_json::to_vec(&exported()).unwrap());
    let page = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let lines = page.lines().filter_map(|line| line.strip_prefix("$ osctl --endpoint 192.0.2.10 "));
    let lines: Vec<_> = lines.filter(|line| !ELSEWHERE.contains(line)).collect();
    assert!(lines.len() >= 10, "{lines:?}");
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let ended = node.osctl("admin", &words);
        // Nobody is there to be asked.
        let expected = if line == "reset" { 2 } else { 0 };
        assert_eq!(ended.code, Some(expected), "{line}: {ended:#?}");
    }
    assert_eq!(node.done(), ["PowerOff", "Reset"]);
}
