//! A node joins a real Kubernetes cluster by its machine config alone, on its first boot, and stays in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use keel_cluster::{ArchiveFile, ControlPlane, archive};
use keel_image::ImageDir;
use serde_json::{Value, json};

use crate::support::{
    API_PORT, blank, boot, data_partition, inputs, node, repository, shut_down, tool,
};

const NODE: &str = "node-1";

/// What a pod and its sandbox run from: no registry is asked.
const IMAGES: [&str; 2] = ["pause", "pod"];

/// Everything that the node gets beside Keel: the kubelet, plugins of its network, container images and the units that import them.
fn cluster_image(dir: &Path, kubernetes: &Path, config: &str, secrets: &str) -> ImageDir {
    let units = dir.join("units");
    tool("cp", &["-r", repository().join("units").to_str().unwrap(), units.to_str().unwrap()]);
    let place = |name: &str| kubernetes.join(name).display().to_string();
    let mut payload = vec![
        format!("kubelet={}", place("bin/kubelet")),
        format!(
            "/etc/cni/net.d/pods.conflist={}",
            repository().join("testdata/vm/pods.conflist").display()
        ),
    ];
    for plugin in ["bridge", "host-local", "loopback"] {
        payload.push(format!("/usr/lib/cni/{plugin}={}", place(&format!("cni/{plugin}"))));
    }
    let busybox = kubernetes.join("bin/busybox");
    for image in IMAGES {
        let files = [ArchiveFile { from: &busybox, to: "bin/busybox" }];
        let name = format!("localhost/{image}:1");
        let bytes = archive(&name, &["/bin/busybox", "sleep", "1000000"], &files).unwrap();
        let path = dir.join(format!("{image}.tar"));
        fs::write(&path, bytes).unwrap();
        payload.push(format!("/usr/share/images/{image}.tar={}", path.display()));
        let unit = format!(
            "description = \"The image {name}\"\npart-of = \"services\"\nrequires = [\"containerd\"]\n\
             after = [\"containerd\"]\nbefore = [\"kubelet\"]\n\n[oneshot]\nexec = [\"/usr/bin/ctr\", \
             \"--namespace=k8s.io\", \"images\", \"import\", \"/usr/share/images/{image}.tar\"]\ntimeout = \"2m\"\n"
        );
        fs::write(units.join(format!("image-{image}.toml")), unit).unwrap();
    }
    let inputs = inputs();
    let containerd = inputs.payload.iter().find_map(|one| one.strip_prefix("containerd="));
    payload.push(format!("ctr={}", Path::new(containerd.unwrap()).with_file_name("ctr").display()));
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

/// The machine config that ships for a node of a cluster, for this one.
fn config(plane: &ControlPlane) -> String {
    let text = fs::read_to_string(repository().join("machine-configs/cluster-node.toml")).unwrap();
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("api-server", _)) => format!("api-server = \"{}\"", plane.url_for_guests()),
        Some(("ca-hash", _)) => format!("ca-hash = \"{}\"\nnode-name = \"{NODE}\"", plane.pin()),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// A JSON object that kubectl printed.
fn get(plane: &ControlPlane, what: &[&str]) -> Value {
    let said = plane.kubectl(&[&["get", "-o", "json"], what].concat()).unwrap_or_default();
    serde_json::from_str(&said).unwrap_or_default()
}

/// Waits until the node is Ready, in another boot than the one before. Returns the boot's id.
fn ready(plane: &mut ControlPlane, before: Option<&str>) -> String {
    let mut boot = String::new();
    let waited = plane.wait("the node is not Ready", |plane| {
        let node = get(plane, &["node", NODE]);
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

#[test]
fn a_node_joins_a_cluster_by_its_machine_config() {
    let dir = tempfile::tempdir().unwrap();
    let kubernetes = repository().join("target/kubernetes");
    let mut plane = ControlPlane::start(&kubernetes).unwrap_or_else(|error| panic!("{error}"));
    let secrets = format!("cluster-token = \"{}\"\n", plane.token());
    let image = cluster_image(dir.path(), &kubernetes, &config(&plane), &secrets);
    let disk = dir.path().join("disk.img");
    blank(&disk, 4 << 30);
    let mut spec = node(&image, &[&disk]);
    spec.memory = 2048;

    let (vm, report) = boot(&spec);
    assert!(report.reached && report.degraded.is_empty(), "{report:#?}");
    let first = ready(&mut plane, None);
    let pod = json!([{
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "pod" },
        "spec": { "containers": [{ "name": "c", "image": "localhost/pod:1", "imagePullPolicy": "Never" }] },
    }]);
    plane.apply(&pod).unwrap();
    let running = plane.wait("the pod does not run", |plane| {
        get(plane, &["pod", "pod"])["status"]["phase"] == "Running"
    });
    running.unwrap_or_else(|error| {
        panic!("{error}\n{:#}", get(&plane, &["events"]));
    });
    let address = get(&plane, &["pod", "pod"])["status"]["podIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.244.0."), "{address}");

    // From now on it is the cluster that says who gets in.
    let endpoint = format!("127.0.0.1:{}", vm.forwarded(API_PORT).unwrap());
    let fingerprint = report.fingerprint.unwrap();
    let osctl = |more: &[&str]| -> Output {
        let mut osctl = Command::new(inputs().osctl);
        osctl
            .args(["--endpoint", &endpoint, "--fingerprint", &fingerprint])
            .args(more)
            .arg("status");
        osctl.env("HOME", dir.path()).output().unwrap()
    };
    let admin = osctl(&["--kubeconfig", plane.admin().to_str().unwrap()]);
    assert!(admin.status.success(), "{}", String::from_utf8_lossy(&admin.stderr));
    let nobody = osctl(&[]);
    assert!(!nobody.status.success(), "{}", String::from_utf8_lossy(&nobody.stdout));
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
    ready(&mut plane, Some(&first));
    let requests = get(&plane, &["csr"])["items"].as_array().unwrap().len();
    assert_eq!(requests, 1, "{:#}", get(&plane, &["csr"]));
    shut_down(vm);
}
