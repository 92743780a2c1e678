//! `cargo xtask demo --cluster`: a real Kubernetes control plane here, a node in QEMU that joins it with `osctl bootstrap`, and a pod.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keel_cluster::{ControlPlane, PlaneError, node_payload};
use keel_image::ImageDir;
use keel_image::vm::{Disk, Vm, VmSpec};
use serde::Serialize;
use serde_json::{Value, json};

use super::{API_PORT, DISK, Options, Report, SHUTDOWN, boot};
use crate::command::{Failure, command, output, run as run_shown};
use crate::kubernetes;
use crate::node::{self, Programs, repository};
use crate::payload::Kit;
use crate::progress::{say, step};
use crate::setup;

/// What the node is called in the cluster.
const NODE: &str = "keel-1";
/// The config that ships for such a node, without a cluster: it joins one as somebody looks on.
const CONFIG: &str = "machine-configs/cluster-node.toml";

/// How it went, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Outcome {
    node: String,
    ready: bool,
    pod: String,
    boot: Report,
    /// How long each part took, in the order in which they were.
    durations_ms: Vec<(&'static str, u64)>,
}

/// What takes its time, and how long.
#[derive(Debug, Default)]
struct Clock(Vec<(&'static str, u64)>);

impl Clock {
    fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let done = step(name, work);
        self.0.push((name, u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)));
        done
    }
}

pub(super) fn run(options: &Options, stops: &AtomicUsize) -> Result<ExitCode, Failure> {
    let mut clock = Clock::default();
    let kit = setup::node()?;
    let programs = clock.step("static keel-init, keel-agent and osctl", node::programs)?;
    let kubernetes = clock.step("Kubernetes", kubernetes::fetch)?;
    let scratch = tempfile::tempdir().map_err(Failure::because("no place for a disk"))?;
    let spec = clock.step("image of a node with a kubelet", || {
        machine(&kit, &programs, &kubernetes, scratch.path())
    })?;
    let mut plane = clock.step("control plane", || {
        ControlPlane::start(&kubernetes).map_err(Failure::because("there is no cluster"))
    })?;
    going_on(stops)?;

    let name = "boot, to a node in maintenance";
    let (mut vm, report) = clock.step(name, || {
        let mut vm = Vm::start(&spec).map_err(Failure::because("the demo has no machine"))?;
        let (report, _) = boot(&mut vm, stops)?;
        Ok((vm, report))
    })?;
    let reached = report.reached;
    let port = vm.forwarded(API_PORT).unwrap_or(API_PORT);
    let endpoint = format!("127.0.0.1:{port}");
    let seen = Seen { osctl: &programs.osctl, endpoint: &endpoint, home: scratch.path() };
    let ca = scratch.path().join("ca.crt");
    fs::write(&ca, plane.ca()).map_err(Failure::because("cannot write the cluster's CA"))?;
    clock.step("join, to a node that is registered", || {
        let mut osctl = seen.osctl();
        if let Some(fingerprint) = &report.fingerprint {
            osctl.args(["--fingerprint", fingerprint]);
        }
        osctl.args(["bootstrap", "--api-server", &plane.url_for_guests()]);
        osctl.args(["--token", plane.token(), "--node-name", NODE, "--ca-cert"]).arg(&ca);
        run_shown(&mut osctl)
    })?;
    clock.step("Ready", || until(&mut plane, stops, "the node is not Ready", is_ready))?;
    clock.step("certificate of the node's API, approved here", || approve(&mut plane, stops))?;
    clock.step("pod", || {
        plane.apply(&pod()).map_err(Failure::because("the cluster takes no pod"))?;
        until(&mut plane, stops, "the pod does not run", runs)
    })?;

    show(&plane, &["get", "nodes", "-o", "wide"]);
    show(&plane, &["get", "pods", "-o", "wide"]);
    let pod = kubectl(&plane, &["get", "pod", "pod"])["status"]["phase"].clone();
    let admin = plane.admin();
    let osctl = programs.osctl.display();
    let with = format!("{osctl} --endpoint {endpoint} --kubeconfig {}", admin.display());
    say(&summary(&clock.0));
    say("\nFrom now on the cluster says who gets in:");
    say(&format!("    {with} status"));
    say(&format!("    {with} bootstrap status"));
    say(&format!("    {with} logs kubelet"));
    say(&format!(
        "    {} --kubeconfig {} get nodes",
        kubernetes.join("bin/kubectl").display(),
        admin.display()
    ));
    if options.stays() {
        say("\nThe cluster stays up; Ctrl-C ends it.");
        vm.attend(stops, |line| say(&format!("    {line}")))
            .map_err(Failure::because("the node ended badly"))?;
    } else {
        vm.power_button().map_err(Failure::because("cannot shut the node down"))?;
        vm.wait_off(SHUTDOWN).map_err(Failure::because("the node did not shut down"))?;
        say("    the node is off");
    }
    if options.json {
        let outcome = Outcome {
            node: NODE.to_owned(),
            ready: true,
            pod: pod.as_str().unwrap_or_default().to_owned(),
            boot: report,
            durations_ms: clock.0,
        };
        let text = serde_json::to_string(&outcome);
        let text = text.map_err(Failure::because("cannot print the report"))?;
        writeln!(io::stdout(), "{text}").map_err(Failure::because("cannot print the report"))?;
    }
    Ok(if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The node, as somebody with osctl sees it.
struct Seen<'a> {
    osctl: &'a Path,
    endpoint: &'a str,
    home: &'a Path,
}

impl Seen<'_> {
    fn osctl(&self) -> std::process::Command {
        let mut osctl = command(&self.osctl.to_string_lossy(), ["--endpoint", self.endpoint]);
        // What a demo's nodes are called is no matter for what a person keeps of real ones.
        osctl.env("OSCTL_HOME", self.home);
        osctl
    }
}

/// A machine with a blank disk and the image of a node that can join.
fn machine(
    kit: &Kit,
    programs: &Programs,
    kubernetes: &Path,
    dir: &Path,
) -> Result<VmSpec, Failure> {
    let cannot = |what: &str| Failure::because::<io::Error>(format!("cannot {what}"));
    let units = dir.join("units");
    let shipped = repository().join("units");
    output(command("cp", ["--recursive"]).arg(shipped).arg(&units))?;
    let text = fs::read_to_string(repository().join(CONFIG)).map_err(cannot("read the config"))?;
    let config = dir.join("node.toml");
    fs::write(&config, without_cluster(&text)).map_err(cannot("write the config"))?;
    let containerd = kit.payload.iter().find_map(|one| one.strip_prefix("containerd="));
    let ctr = Path::new(containerd.unwrap_or_default()).with_file_name("ctr");
    let network = repository().join("testdata/vm/pods.conflist");
    let more = node_payload(kubernetes, &network, &ctr, dir, &units);
    let payload = [kit.payload.clone(), more.map_err(cannot("make container images"))?].concat();
    let image = dir.join("image");
    let mut build = command(&programs.osctl.to_string_lossy(), ["image", "build", "--payload"]);
    build.arg(payload.join(",")).arg("--config").arg(config).arg("--units").arg(units);
    build.arg("--kernel").arg(&kit.kernel).arg("--modules").arg(&kit.modules);
    output(build.arg("-o").arg(&image))?;
    let image = ImageDir::open(&image).map_err(Failure::because("the image is not whole"))?;
    let disk = Disk::at(&dir.join("disk.img"), DISK).map_err(cannot("make a disk"))?;
    Ok(super::machine(image, disk))
}

/// The config of a node before it has a cluster.
fn without_cluster(config: &str) -> &str {
    config.split_once("\n[cluster]").map_or(config, |(before, _)| before)
}

fn going_on(stops: &AtomicUsize) -> Result<(), Failure> {
    match stops.load(Ordering::Relaxed) {
        0 => Ok(()),
        // Node and control plane end with the error.
        _ => Err(Failure::new("interrupted")),
    }
}

/// Waits until something holds in the cluster, or somebody presses Ctrl-C.
fn until(
    plane: &mut ControlPlane,
    stops: &AtomicUsize,
    not_yet: &str,
    holds: fn(&ControlPlane) -> bool,
) -> Result<(), Failure> {
    let waited = plane.wait(not_yet, |plane| going_on(stops).is_err() || holds(plane));
    // Ctrl-C reaches the control plane too.
    going_on(stops)?;
    waited.map_err(Failure::because::<PlaneError>("the cluster does not come as far"))
}

fn kubectl(plane: &ControlPlane, what: &[&str]) -> Value {
    let said = plane.kubectl(&[what, &["-o", "json"]].concat()).unwrap_or_default();
    serde_json::from_str(&said).unwrap_or_default()
}

fn show(plane: &ControlPlane, what: &[&str]) {
    say(&format!("\n$ kubectl {}", what.join(" ")));
    match plane.kubectl(what) {
        Ok(said) => say(&said),
        Err(error) => say(&error.to_string()),
    }
}

fn is_ready(plane: &ControlPlane) -> bool {
    let node = kubectl(plane, &["get", "node", NODE]);
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn runs(plane: &ControlPlane) -> bool {
    kubectl(plane, &["get", "pod", "pod"])["status"]["phase"] == "Running"
}

fn pod() -> Value {
    json!([{
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "pod" },
        "spec": { "containers": [{ "name": "c", "image": "localhost/pod:1", "imagePullPolicy": "Never" }] },
    }])
}

/// The request for the certificate of the node's API, which nobody approves in plain Kubernetes.
fn request(plane: &ControlPlane) -> Option<String> {
    let signer = "spec.signerName=kubernetes.io/kubelet-serving";
    let said = plane.kubectl(&["get", "csr", "--field-selector", signer, "-o", "name"]).ok()?;
    said.lines().next().map(str::to_owned)
}

fn approve(plane: &mut ControlPlane, stops: &AtomicUsize) -> Result<(), Failure> {
    until(plane, stops, "the node asks for no certificate", |plane| request(plane).is_some())?;
    let request = request(plane).unwrap_or_default();
    say(&format!("    kubectl certificate approve {request}"));
    let approved = plane.kubectl(&["certificate", "approve", &request]);
    approved.map(drop).map_err(Failure::because("the request cannot be approved"))
}

fn summary(durations: &[(&'static str, u64)]) -> String {
    let width = durations.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = durations.iter().map(|(name, ms)| {
        let seconds = Duration::from_millis(*ms).as_secs_f64();
        format!("{name:width$}  {seconds:7.1} s")
    });
    std::iter::once(String::new()).chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_that_ships_is_one_without_a_cluster_too() {
        let path = repository().join(CONFIG);
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("\n[cluster]\n"));
        let left = without_cluster(&text);
        assert!(left.contains("[storage.data.disk]") && !left.contains("api-server"), "{left}");
        assert_eq!(without_cluster("schema = 1\n"), "schema = 1\n");
    }

    #[test]
    fn the_summary_names_each_part() {
        let expect = "\nboot         4.3 s\njoin it     12.0 s";
        assert_eq!(summary(&[("boot", 4321), ("join it", 12_000)]), expect);
    }
}
