//! A node that is steered: its agent trusts a CA, and behind it is a machine that keeps what it was asked to do.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use keel_control::{
    BootRecord, ConnectionError, ControlUnit, EventLog, GoalState, Inventory, LogQuery, LogSource,
    Loss, PlannedJob, Refusal, RefusalKind, Reset, ResetPlan, Service, Shutdown, Status, Unit,
    UnitDetail, UnitEdge, UnitList, UnitPlan, UnitState, UnitVerb,
};
use keel_plan::export::Export;
use keel_plan::{BOOT, compile};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use crate::support::{Control, Ended, MACHINE_ID, Node, osctl_command, root};
use crate::terminal::Terminal;

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

/// The node; gone with the value.
pub(crate) struct Steered {
    node: Node,
    machine: Arc<Machine>,
    _control: Control,
}

impl Steered {
    /// With what it says when it is asked for its graph.
    pub(crate) fn start(graph: Vec<u8>) -> Self {
        let node = Node::start_with(|folder| {
            let authority = Authority::new();
            fs::write(folder.join("ca.crt"), &authority.1).unwrap();
            ["viewer", "operator", "admin"].iter().for_each(|role| authority.client(folder, role));
        });
        let machine = Arc::new(Machine::new(graph));
        let control = Control::start(&node.control_socket(), machine.clone());
        Self { node, machine, _control: control }
    }

    /// What osctl is told of the node and of somebody with this role.
    fn arguments(&self, role: &str) -> Vec<String> {
        let file = |end: &str| self.node.folder.path().join(format!("{role}.{end}"));
        let [certificate, key] = ["crt", "key"].map(|end| file(end).to_str().unwrap().to_owned());
        let known = ["--endpoint", &self.node.endpoint, "--cert", &certificate, "--key", &key];
        known.map(str::to_owned).to_vec()
    }

    /// Runs osctl as somebody with this role, to whom the node is known.
    pub(crate) fn osctl(&self, role: &str, args: &[&str]) -> Ended {
        let mut osctl = osctl_command(&["--fingerprint", &self.node.fingerprint()]);
        osctl.args(self.arguments(role)).args(args).env("OSCTL_HOME", self.node.home());
        Ended::of(osctl.stdin(Stdio::null()).current_dir(root()))
    }

    /// Runs osctl as somebody with this role in a terminal, with what it keeps in `home`.
    pub(crate) fn terminal(&self, home: &Path, role: &str, args: &[&str]) -> Terminal {
        let known = self.arguments(role);
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        Terminal::start(home, &[&known, args].concat(), (40, 200))
    }

    pub(crate) fn fingerprint(&self) -> String {
        self.node.fingerprint()
    }

    /// What the machine did since this was asked last.
    pub(crate) fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.machine.done.lock().unwrap())
    }
}

/// The boot that ships, as a node that runs it exports it.
pub(crate) fn exported() -> Export {
    let input = keel_unit::load::load(
        &root().join("units"),
        Some(&root().join("machine-configs/qemu.toml")),
    );
    let (graph, transaction) = compile(input, BOOT).unwrap();
    let mut export = Export::new(&graph, &transaction);
    export.units.iter_mut().for_each(|unit| unit.state = Some("active(exited)".to_owned()));
    export
}

impl Ended {
    #[track_caller]
    pub(crate) fn check(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stdout.contains(word) || self.stderr.contains(word), "{word}: {self:#?}");
        }
        assert!(
            code == 0 || self.stdout.contains("failed") || self.stderr.contains("next: "),
            "{self:#?}"
        );
    }

    /// clap's own refusal has no `next:`.
    #[track_caller]
    pub(crate) fn check_usage(&self) {
        assert_eq!(self.code, Some(2), "{self:#?}");
    }
}
