//! The control plane: its processes, its certificates, and what is in the cluster from the start.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pki::{Authority, Issued, kubeconfig};
use crate::process::Process;

/// What a guest of QEMU's user network calls this machine. Kubernetes lets no loopback address stand there.
const GUESTS: &str = "10.0.2.2";
const SERVICES: &str = "10.96.0.0/16";
const PODS: &str = "10.244.0.0/16";

/// Longer than the start takes on a busy machine; seconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(150);
/// Between two looks at whether something is ready: nothing here tells when.
const GLANCE: Duration = Duration::from_millis(200);

/// A control plane that did not come up, or did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The programs are not there.
    #[error("no {}: run `cargo xtask kubernetes`", .0.display())]
    NoPrograms(PathBuf),
    /// This machine.
    #[error("cannot set up a control plane")]
    Io(#[from] io::Error),
    /// Certificates.
    #[error("cannot make the certificates of a control plane")]
    Certificates(#[from] rcgen::Error),
    /// A program ended.
    #[error("the control plane is broken: {0}")]
    Ended(String),
    /// It took too long.
    #[error("{0} in {PATIENCE:?}")]
    TimedOut(String),
    /// kubectl said no.
    #[error("`kubectl {0}` failed: {1}")]
    Kubectl(String, String),
}

/// When a bootstrap token expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// It has, a year ago.
    Past,
}

/// What a service account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joins {
    /// Let nodes join.
    May,
    /// No more than everybody.
    MayNot,
}

/// A running control plane. Dropping it ends it, and so does the end of this process, whatever ends it.
#[derive(Debug)]
pub struct ControlPlane {
    /// In the order of their start; the last ends first.
    processes: Vec<Process>,
    programs: PathBuf,
    port: u16,
    etcd: u16,
    ca: String,
    pin: String,
    token: String,
    authority: Authority,
    /// How long certificates live that it signs, if not a year.
    signs_for: Option<Duration>,
    dir: TempDir,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        while self.processes.pop().is_some() {}
    }
}

impl ControlPlane {
    /// Starts one, from the programs in `bin` of that folder, and waits until nodes can join it.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub fn start(programs: &Path) -> Result<Self, PlaneError> {
        Self::start_with(programs, None)
    }

    /// The same; certificates that it signs live as long as that.
    ///
    /// # Errors
    /// See [`PlaneError`].
    pub fn start_signing_for(programs: &Path, life: Duration) -> Result<Self, PlaneError> {
        Self::start_with(programs, Some(life))
    }

    fn start_with(programs: &Path, signs_for: Option<Duration>) -> Result<Self, PlaneError> {
        let bin = programs.join("bin");
        let api_server = bin.join("kube-apiserver");
        if !api_server.exists() {
            return Err(PlaneError::NoPrograms(api_server));
        }
        let dir = tempfile::Builder::new().prefix("keel-cluster").tempdir()?;
        let [port, etcd, peers] = free_ports()?;
        let authority = Authority::new("kubernetes")?;
        let mut plane = Self {
            processes: Vec::new(),
            programs: bin,
            port,
            etcd,
            ca: authority.pem.clone(),
            pin: authority.pin.clone(),
            token: format!("{}.{}", letters(6), letters(16)),
            authority,
            signs_for,
            dir,
        };
        plane.write_files()?;
        plane.run_etcd(peers)?;
        plane.run_api_server()?;
        plane.wait("the API server is not ready", |plane| {
            plane.kubectl(&["get", "--raw", "/readyz"]).is_ok_and(|said| said == "ok")
        })?;
        plane.run_controllers()?;
        let (url, ca) = (plane.url(GUESTS), plane.ca.clone());
        plane.wait("the cluster takes no objects", |plane| {
            plane.apply(&objects(&url, &ca)).is_ok()
        })?;
        plane.add_token(&plane.token.clone(), Expiry::Never)?;
        // The last that comes up: the controllers that sign, and the account that pods need.
        let id = plane.token.split('.').next().unwrap_or_default().to_owned();
        plane.wait("nobody signs cluster-info", |plane| {
            let info =
                plane.kubectl(&["get", "-n", "kube-public", "cm", "cluster-info", "-o", "json"]);
            info.is_ok_and(|info| info.contains(&format!("jws-kubeconfig-{id}")))
                && plane.kubectl(&["get", "serviceaccount", "default"]).is_ok()
        })?;
        Ok(plane)
    }

    /// The API server's address as seen from `host`: `127.0.0.1` here, `10.0.2.2` in a guest of QEMU's user network.
    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }

    /// The same as a guest of QEMU's user network sees it.
    pub fn url_for_guests(&self) -> String {
        self.url(GUESTS)
    }

    /// The address of etcd, which speaks no TLS, as if it did.
    pub fn etcd_as_https(&self) -> String {
        format!("https://127.0.0.1:{}", self.etcd)
    }

    /// The cluster's CA, in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The pin of the CA, `sha256:…`.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// A bootstrap token that nodes may join with.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The kubeconfig of the cluster's admin, for this machine.
    pub fn admin(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// Runs kubectl as the cluster's admin. Returns what it printed, without the last line's end.
    ///
    /// # Errors
    /// If it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, PlaneError> {
        self.kubectl_with(args, "")
    }

    fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String, PlaneError> {
        let mut child = Command::new(self.programs.join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.admin())
            .arg("--request-timeout=20s")
            .args(args)
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that reads nothing has closed it.
            let _ = stdin.write_all(input.as_bytes());
        }
        let out = child.wait_with_output()?;
        if !out.status.success() {
            let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(PlaneError::Kubectl(args.join(" "), why));
        }
        Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }

    /// Makes objects, or changes them.
    ///
    /// # Errors
    /// If the API server does not take them.
    pub fn apply(&self, objects: &Value) -> Result<(), PlaneError> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.kubectl_with(&["apply", "-f", "-"], &list.to_string()).map(drop)
    }

    /// Waits until something holds, and gives up when a program has ended.
    ///
    /// # Errors
    /// `not_yet` is what is said after two minutes and a half.
    pub fn wait(
        &mut self,
        not_yet: &str,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Result<(), PlaneError> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            if let Some(ended) = self.processes.iter_mut().find_map(Process::ended) {
                return Err(PlaneError::Ended(ended));
            }
            if Instant::now() > deadline {
                let last = self.processes.last().map(Process::last_words).unwrap_or_default();
                return Err(PlaneError::TimedOut(format!("{not_yet}\n{last}\n")));
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Another bootstrap token.
    ///
    /// # Errors
    /// If the API server does not take it.
    pub fn bootstrap_token(&self, expiry: Expiry) -> Result<String, PlaneError> {
        let token = format!("{}.{}", letters(6), letters(16));
        self.add_token(&token, expiry)?;
        Ok(token)
    }

    fn add_token(&self, token: &str, expiry: Expiry) -> Result<(), PlaneError> {
        let (id, secret) = token.split_once('.').unwrap_or_default();
        let mut data = json!({
            "token-id": id,
            "token-secret": secret,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": "system:bootstrappers:worker",
        });
        if expiry == Expiry::Past {
            data["expiration"] = json!("2020-01-01T00:00:00Z");
        }
        self.apply(&json!([{
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
            "type": "bootstrap.kubernetes.io/token",
            "stringData": data,
        }]))
    }

    /// Makes a service account, and returns a JWT of it.
    ///
    /// # Errors
    /// If the API server does not take it.
    pub fn service_account(&self, name: &str, joins: Joins) -> Result<String, PlaneError> {
        let subject = json!({ "kind": "ServiceAccount", "name": name, "namespace": "default" });
        let mut objects = vec![json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": name, "namespace": "default" },
        })];
        if joins == Joins::May {
            for (role, what) in [(BOOTSTRAPPER, "bootstrapper"), (NODE_CLIENT, "approve")] {
                objects.push(binding(&format!("{name}-{what}"), role, &subject));
            }
        }
        self.apply(&Value::Array(objects))?;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "expirationSeconds": 3600 },
        });
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{name}/token");
        let said =
            self.kubectl_with(&["create", "--raw", &path, "-f", "-"], &request.to_string())?;
        let answer: Value = serde_json::from_str(&said).unwrap_or_default();
        let token = answer.pointer("/status/token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or(PlaneError::Kubectl(path, said))
    }

    /// What a kubelet has after it joined from this machine: the certificate and key of the node of that name, in one text, and a
    /// kubeconfig that shows them.
    ///
    /// # Errors
    /// If no certificate can be made.
    pub fn kubelet(&self, node: &str) -> Result<(String, String), PlaneError> {
        let issued = self.authority.client(&format!("system:node:{node}"), Some("system:nodes"))?;
        let kubeconfig = kubeconfig(&self.url("127.0.0.1"), &self.ca, &issued);
        Ok((issued.certificate + &issued.key, kubeconfig))
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn write_files(&self) -> Result<(), PlaneError> {
        let authority = &self.authority;
        let write = |name: &str, text: &str| {
            let path = self.dir.path().join(name);
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())
        };
        let pair = |name: &str, issued: &Issued| {
            write(&format!("{name}.crt"), &issued.certificate)?;
            write(&format!("{name}.key"), &issued.key)
        };
        write("ca.crt", &authority.pem)?;
        write("ca.key", &authority.key)?;
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "127.0.0.1",
            GUESTS,
            "10.96.0.1",
        ];
        pair("apiserver", &authority.server(&names)?)?;
        let masters = Some("system:masters");
        pair("kubelet-client", &authority.client("kube-apiserver-kubelet-client", masters)?)?;
        // The key of service accounts; a certificate is one way to write its public half.
        pair("sa", &authority.client("service-accounts", None)?)?;
        let here = self.url("127.0.0.1");
        for (name, user, group) in [
            ("admin", "kubernetes-admin", masters),
            ("controllers", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
        ] {
            let user = authority.client(user, group)?;
            write(&format!("{name}.kubeconfig"), &kubeconfig(&here, &authority.pem, &user))?;
        }
        fs::DirBuilder::new().mode(0o700).create(self.dir.path().join("etcd"))?;
        Ok(())
    }

    fn run(&mut self, program: &str, args: &[String]) -> Result<(), PlaneError> {
        let program = self.programs.join(program);
        self.processes.push(Process::start(&program, args, self.dir.path())?);
        Ok(())
    }

    fn run_etcd(&mut self, peers: u16) -> Result<(), PlaneError> {
        let (clients, peers) =
            (format!("http://127.0.0.1:{}", self.etcd), format!("http://127.0.0.1:{peers}"));
        let args = [
            "--name=n".to_owned(),
            format!("--data-dir={}", self.file("etcd")),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=n={peers}"),
            // It is gone with this process.
            "--unsafe-no-fsync".to_owned(),
        ];
        self.run("etcd", &args)
    }

    fn run_api_server(&mut self) -> Result<(), PlaneError> {
        let args = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--advertise-address={GUESTS}"),
            "--allow-privileged=true".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--enable-bootstrap-token-auth=true".to_owned(),
            format!("--client-ca-file={}", self.file("ca.crt")),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            format!("--kubelet-client-certificate={}", self.file("kubelet-client.crt")),
            format!("--kubelet-client-key={}", self.file("kubelet-client.key")),
            format!("--service-account-key-file={}", self.file("sa.crt")),
            format!("--service-account-signing-key-file={}", self.file("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--kubelet-preferred-address-types=InternalIP,Hostname".to_owned(),
        ];
        self.run("kube-apiserver", &args)
    }

    fn run_controllers(&mut self) -> Result<(), PlaneError> {
        let by = |name: &str| {
            let path = self.file(name);
            let all = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"];
            let all = all.map(|option| format!("--{option}={path}"));
            // No port: several control planes may run here.
            let more = ["--port=0", "--secure-port=0", "--leader-elect=false"].map(str::to_owned);
            [all.to_vec(), more.to_vec()].concat()
        };
        let scheduler = by("scheduler.kubeconfig");
        let mut args = by("controllers.kubeconfig");
        args.extend([
            "--controllers=*,bootstrapsigner,tokencleaner".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!("--cluster-signing-cert-file={}", self.file("ca.crt")),
            format!("--cluster-signing-key-file={}", self.file("ca.key")),
            format!("--root-ca-file={}", self.file("ca.crt")),
            format!("--service-account-private-key-file={}", self.file("sa.key")),
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={PODS}"),
            format!("--service-cluster-ip-range={SERVICES}"),
        ]);
        if let Some(life) = self.signs_for {
            args.push(format!("--cluster-signing-duration={}s", life.as_secs()));
        }
        self.run("kube-controller-manager", &args)?;
        self.run("kube-scheduler", &scheduler)
    }
}

const BOOTSTRAPPER: &str = "system:node-bootstrapper";
const NODE_CLIENT: &str = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";
const OWN_CLIENT: &str = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";
const RBAC: &str = "rbac.authorization.k8s.io";

fn binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    })
}

/// What kubeadm puts into a cluster so that nodes can join.
fn objects(url: &str, ca: &str) -> Value {
    let group = |name: &str| json!({ "apiGroup": RBAC, "kind": "Group", "name": name });
    let place = json!({ "name": "cluster-info", "namespace": "kube-public" });
    let info = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    server: \"{url}\"\n    \
         certificate-authority-data: {}\n",
        STANDARD.encode(ca)
    );
    json!([
        binding("bootstrap-create", BOOTSTRAPPER, &group("system:bootstrappers")),
        binding("bootstrap-approve", NODE_CLIENT, &group("system:bootstrappers")),
        binding("node-renew", OWN_CLIENT, &group("system:nodes")),
        {
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "Role",
            "metadata": place,
            "rules": [{
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": ["cluster-info"],
                "verbs": ["get"],
            }],
        },
        {
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "RoleBinding",
            "metadata": place,
            "roleRef": { "apiGroup": RBAC, "kind": "Role", "name": "cluster-info" },
            "subjects": [{ "apiGroup": RBAC, "kind": "User", "name": "system:anonymous" }],
        },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": place, "data": { "kubeconfig": info } },
    ])
}

/// Ports that nobody has just now.
fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    // All are held until all are known, so that they differ.
    let listeners: Vec<_> =
        (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// So many random letters and digits.
fn letters(count: usize) -> String {
    const ALL: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..count).map(|_| char::from(ALL[fastrand::usize(..ALL.len())])).collect()
}
