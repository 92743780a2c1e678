//! A node joins a real Kubernetes cluster by its machine config alone on its first boot, gets a certificate of it, and stays in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use keel_cluster::{ControlPlane, node_payload};
use keel_image::ImageDir;
use keel_image::vm::Vm;
use serde_json::{Value, json};

use crate::support::{
    API_PORT, Report, blank, boot, certificates, data_partition, inputs, node, repository,
    shut_down, tool,
};

const NODE: &str = "node-1";

/// Everything that the node gets beside Keel: the kubelet, plugins of its network, container images and the units that import them.
fn cluster_image(dir: &Path, kubernetes: &Path, config: &str, secrets: &str) -> ImageDir {
    fs::create_dir(dir).unwrap();
    let units = dir.join("units");
    tool("cp", &["-r", repository().join("units").to_str().unwrap(), units.to_str().unwrap()]);
    let inputs = inputs();
    let containerd = inputs.payload.iter().find_map(|one| one.strip_prefix("containerd="));
    let ctr = Path::new(containerd.unwrap()).with_file_name("ctr");
    let network = repository().join("testdata/vm/pods.conflist");
    let payload = node_payload(kubernetes, &network, &ctr, dir, &units).unwrap();
    let (config_path, secrets_path) = (dir.join("node.toml"), dir.join("secrets.toml"));
    fs::write(&config_path, config).unwrap();
    fs::write(&secrets_path, secrets).unwrap();
    fs::set_permissions(&secrets_path, fs::Permissions::from_mode(0o600)).unwrap();
    let more = [
        "--units",
        units.to_str().unwrap(),
        "--config",
        config_path.to_str().unwrap(),
        "--secrets",
        secrets_path.to_str().unwrap(),
        "--payload",
        &payload.join(","),
    ];
    inputs.build(&dir.join("image"), &more)
}

/// The machine config that ships for a node of a cluster, with another `[cluster]`.
fn config(cluster: &str) -> String {
    let text = fs::read_to_string(repository().join("machine-configs/cluster-node.toml")).unwrap();
    let (before, _) = text.split_once("[cluster]").unwrap();
    format!("{before}[cluster]\nkubelet-version = \"1.20\"\n{cluster}\n")
}

/// A JSON object that kubectl printed.
fn get(plane: &ControlPlane, what: &[&str]) -> Value {
    let said = plane.kubectl(&[&["get", "-o", "json"], what].concat()).unwrap_or_default();
    serde_json::from_str(&said).unwrap_or_default()
}

/// Waits until a node is Ready, in another boot than the one before. Returns the boot's id.
fn ready(plane: &mut ControlPlane, node: &str, before: Option<&str>) -> String {
    let mut boot = String::new();
    let waited = plane.wait("the node is not Ready", |plane| {
        let node = get(plane, &["node", node]);
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().find(|one| one["type"] == "Ready");
        boot = node
            .pointer("/status/nodeInfo/bootID")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        ready.is_some_and(|ready| ready["status"] == "True") && Some(boot.as_str()) != before
    });
    if let Err(error) = waited {
        let (nodes, csr) = (get(plane, &["nodes"]), get(plane, &["csr"]));
        panic!("{error}\n{nodes:#}\n{csr:#}");
    }
    boot
}

/// The requests for certificates of that signer.
fn requests(plane: &ControlPlane, signer: &str) -> Vec<String> {
    let signer = format!("kubernetes.io/{signer}");
    let all = get(plane, &["csr"]);
    let all = all["items"].as_array().into_iter().flatten();
    let all = all.filter(|one| one["spec"]["signerName"] == *signer);
    all.map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// A node that runs, as somebody with osctl sees it.
struct Seen<'a> {
    home: &'a Path,
    endpoint: String,
    fingerprint: String,
    credentials: Vec<String>,
}

impl<'a> Seen<'a> {
    fn new(vm: &Vm, report: &Report, home: &'a Path) -> Self {
        let endpoint = format!("127.0.0.1:{}", vm.forwarded(API_PORT).unwrap());
        let fingerprint = report.fingerprint.clone().unwrap();
        Self { home, endpoint, fingerprint, credentials: Vec::new() }
    }

    /// By the cluster's admin.
    fn by_admin(&self, plane: &ControlPlane) -> Self {
        let credentials = vec!["--kubeconfig".to_owned(), plane.admin().display().to_string()];
        let (endpoint, fingerprint) = (self.endpoint.clone(), self.fingerprint.clone());
        Self { home: self.home, endpoint, fingerprint, credentials }
    }

    fn osctl(&self, more: &[&str]) -> Command {
        let mut osctl = Command::new(inputs().osctl);
        osctl.args(["--endpoint", &self.endpoint, "--fingerprint", &self.fingerprint]);
        osctl.args(&self.credentials).args(more).env("OSCTL_HOME", self.home);
        osctl
    }

    fn asks(&self, more: &[&str]) -> Output {
        self.osctl(more).output().unwrap()
    }

    #[track_caller]
    fn status(&self) -> Value {
        // Degraded is an answer too.
        let out = self.asks(&["status", "--output", "json"]);
        let said = String::from_utf8_lossy(&out.stderr);
        serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

#[test]
fn a_node_joins_a_cluster_by_its_machine_config() {
    let dir = tempfile::tempdir().unwrap();
    let kubernetes = repository().join("target/kubernetes");
    let mut plane = ControlPlane::start(&kubernetes).unwrap_or_else(|error| panic!("{error}"));
    by_its_config_alone(&mut plane, &dir.path().join("alone"), &kubernetes);
}

/// A pod, who gets in, a certificate of the cluster, another boot.
fn by_its_config_alone(plane: &mut ControlPlane, dir: &Path, kubernetes: &Path) {
    let (url, pin) = (plane.url_for_guests(), plane.pin());
    let cluster = format!(
        "api-server = \"{url}\"\ntoken = \"{{{{ secrets.token }}}}\"\nca-hash = \"{pin}\"\nnode-name = \"{NODE}\""
    );
    let secrets = format!("token = \"{}\"\n", plane.token());
    let image = cluster_image(dir, kubernetes, &config(&cluster), &secrets);
    let disk = dir.join("disk.img");
    blank(&disk, 4 << 30);
    let mut spec = node(&image, &[&disk]);
    spec.memory = 2048;

    let (vm, report) = boot(&spec);
    assert!(report.reached && report.degraded.is_empty(), "{report:#?}");
    let first = ready(plane, NODE, None);
    let pod = json!([{
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "pod" },
        "spec": { "containers": [{ "name": "c", "image": "localhost/pod:1", "imagePullPolicy": "Never" }] },
    }]);
    plane.apply(&pod).unwrap();

    // From now on it is the cluster that says who gets in.
    let nobody = Seen::new(&vm, &report, dir);
    let admin = nobody.by_admin(plane);
    assert_eq!(admin.status()["mode"], "bootstrapped");
    assert!(!nobody.asks(&["status"]).status.success());
    certificates(dir);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let foreign = nobody.asks(&["--cert", &path("eve.crt"), "--key", &path("eve.key"), "status"]);
    assert!(!foreign.status.success(), "{}", String::from_utf8_lossy(&foreign.stdout));
    is_signed(plane, &admin);

    let running = plane.wait("the pod does not run", |plane| {
        get(plane, &["pod", "pod"])["status"]["phase"] == "Running"
    });
    running.unwrap_or_else(|error| {
        panic!("{error}\n{:#}", get(plane, &["events"]));
    });
    let address = get(plane, &["pod", "pod"])["status"]["podIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.244.0."), "{address}");
    let signed = admin.status()["certificate"].clone();
    let console = shut_down(vm);
    assert!(!console.join("\n").contains(plane.token()), "the token is on the console");

    // The CA is kept, and the token is not.
    let data = data_partition(&disk);
    let read = |path: &str| tool("debugfs", &["-R", &format!("cat {path}"), &data]);
    assert_eq!(read("/trust/cluster-ca.crt"), plane.ca());
    assert_eq!(read("/kubelet/bootstrap.kubeconfig"), "");
    assert!(read("/kubelet/kubeconfig").contains("kubelet-client-current.pem"));

    // The same node, without another certificate.
    let (vm, report) = boot(&spec);
    assert!(report.reached && report.degraded.is_empty(), "{report:#?}");
    let admin = Seen::new(&vm, &report, dir).by_admin(plane);
    assert_eq!(admin.status()["certificate"], signed);
    ready(plane, NODE, Some(&first));
    for signer in ["kube-apiserver-client-kubelet", "kubelet-serving"] {
        assert_eq!(requests(plane, signer).len(), 1, "{:#}", get(plane, &["csr"]));
    }
    shut_down(vm);
}

/// The node asks for a certificate of its API. Until somebody approves it, it shows its own; then the cluster's CA stands behind it, and
/// whoever reads from it notices nothing.
fn is_signed(plane: &mut ControlPlane, admin: &Seen<'_>) {
    let mut own = Value::Null;
    let pending = plane.wait("the node does not ask for a certificate", |_| {
        own = admin.status();
        own["certificate"]["request"]["state"] == "pending"
    });
    pending.unwrap_or_else(|error| panic!("{error}\n{own:#}"));
    let name = own["certificate"]["request"]["name"].as_str().unwrap();
    assert_eq!(requests(plane, "kubelet-serving"), [name]);

    // By the node's name, as a machine that knows the cluster and has never spoken with the node.
    let by_name = || {
        let home = tempfile::tempdir().unwrap();
        let hosts = home.path().join("hosts");
        fs::write(&hosts, format!("127.0.0.1 localhost {NODE}\n")).unwrap();
        let (_, port) = admin.endpoint.split_once(':').unwrap();
        let mut osctl = Command::new("unshare");
        osctl.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
        osctl.arg(&hosts).arg(inputs().osctl).args(["--endpoint", &format!("{NODE}:{port}")]);
        osctl.args(&admin.credentials).arg("status").env("OSCTL_HOME", home.path());
        osctl.output().unwrap()
    };
    let said = by_name().stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("its certificate is not to be trusted"), "{said}");

    let mut reads = admin.osctl(&["logs", "keel-agent", "--follow"]);
    let mut reads = reads.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(reads.stdout.take().unwrap()).lines();
    let mut until = |text: &str| lines.find(|line| line.as_ref().unwrap().contains(text));
    until("waits for approval").unwrap().unwrap();
    plane.kubectl(&["certificate", "approve", name]).unwrap();
    until("CN=kubernetes has signed the certificate of this API").unwrap().unwrap();
    reads.kill().unwrap();
    reads.wait().unwrap();

    let mut signed = Value::Null;
    let shown = plane.wait("the node does not show it", |_| {
        signed = admin.status();
        signed["certificate"]["issuer"] == "CN=kubernetes"
    });
    shown.unwrap_or_else(|error| panic!("{error}\n{signed:#}"));
    assert_eq!(signed["certificate"]["request"], Value::Null, "{signed:#}");
    assert_eq!(signed["fingerprint"], own["fingerprint"]);
    let known = by_name();
    assert!(known.status.success(), "{}", String::from_utf8_lossy(&known.stderr));
}
