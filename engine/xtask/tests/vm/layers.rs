//! A node from a config in several files, with its secrets in one of their own: what was merged is what runs, no secret is shown by
//! anything on the way, and the machine that it runs on is one that `osctl verify` finds fit. Its identity and the CA that it trusts
//! come with the config, so it is closed from the first moment: who gets in, and as what, is tried from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::support::{API_PORT, blank, boot, certificates, inputs, node, repository, shut_down};

/// No word of anything that could be shown by chance.
const SECRET: &str = "correct-horse-battery-staple";

const SITE: &str = "\n[cluster]\nnode-name = \"wrong\"\n";

const RACK: &str = r#"
# Laid over machine-configs/qemu.toml.
unset = ["cluster.node-name"]

[machine]
hostname = "rack-7"

[kernel.sysctls]
"kernel.panic" = 7

[units.containerd.service.environment]
REGISTRY_PASSWORD = "{{ secrets.registry }}"

[units.certificate.oneshot.environment]
KEEL_NODE_KEY = "{{ secrets.node-key }}"

[units.keel-agent.service.environment]
KEEL_NODE_KEY = "{{ secrets.node-key }}"
"#;

#[test]
fn layers_and_secrets_reach_the_node_and_no_secret_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let site = write(
        "site.toml",
        &(fs::read_to_string(repository().join("machine-configs/qemu.toml")).unwrap() + SITE),
    );
    certificates(dir.path());
    let pem = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let agent = format!(
        "\n[agent]\ncertificate = \"\"\"\n{}\"\"\"\ntrusted-ca = \"\"\"\n{}\"\"\"\n",
        pem("node.crt"),
        pem("cluster.crt")
    );
    let rack = write("rack.toml", &(RACK.to_owned() + &agent));
    let key = pem("node.key");
    let secrets = write(
        "secrets.toml",
        &format!("registry = \"{SECRET}\"\nnode-key = \"\"\"\n{key}\"\"\"\n"),
    );
    // A line from the middle of the key, as it would stand in any text that shows it.
    let key_line = key.lines().nth(2).unwrap();
    let shows_secret = |text: &str| text.contains(SECRET) || text.contains(key_line);
    let graph = ["--config", &site, "--config", &rack, "--secrets", &secrets];
    let image = inputs().build(&dir.path().join("image"), &graph);
    for file in ["manifest.json", "sbom.spdx.json"] {
        let text = fs::read_to_string(dir.path().join("image").join(file)).unwrap();
        assert!(!shows_secret(&text), "{file}");
    }

    let disk = dir.path().join("disk.img");
    blank(&disk, 2 << 30);
    let (vm, report) = boot(&node(&image, &[&disk]));
    assert!(report.reached && report.degraded.is_empty(), "{report:#?}");
    let endpoint = format!("127.0.0.1:{}", vm.forwarded(API_PORT).unwrap());
    let run = |arguments: &[&str]| {
        let mut osctl = Command::new(inputs().osctl);
        osctl.args(arguments).args(["--output", "json"]);
        let out = osctl.env("OSCTL_HOME", dir.path()).current_dir(repository()).output().unwrap();
        let said = [out.stdout.as_slice(), &out.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!shows_secret(&said), "{arguments:?}: {said}");
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), said)
    };
    let osctl = |arguments: &[&str]| {
        let (code, out, said) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        out
    };
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [ada, vic, eve] = ["ada", "vic", "eve"].map(|name| {
        let (cert, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
        [
            "--endpoint".to_owned(),
            endpoint.clone(),
            "--cert".to_owned(),
            cert,
            "--key".to_owned(),
            key,
        ]
    });
    let with = |who: &[String], arguments: &[&str]| -> Vec<String> {
        who.iter().cloned().chain(arguments.iter().map(|&word| word.to_owned())).collect()
    };
    let ask = |arguments: &[&str]| {
        let arguments = with(&ada, arguments);
        osctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = |who: &[String], arguments: &[&str], why: &str| {
        let arguments = with(who, arguments);
        let (code, _, said) = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();

    // What was merged is what runs.
    let status = json(&ask(&["status"]));
    assert_eq!(status["hostname"], "rack-7", "{status:#}");
    assert_eq!(json(&osctl(&[&["graph", "digest"], &graph[..]].concat()))["digest"], report.digest);
    let units = ask(&["units"]);
    assert!(units.contains("sysctl@kernel.panic") && units.contains("containerd"), "{units}");
    assert!(ask(&["boot", "record"]).contains("containerd"));

    // The identity is the one that the config carries, and nobody gets in who should not.
    assert_eq!(status["mode"], "bootstrapped", "{status:#}");
    refused(&ada[..2], &["status"], "certificate");
    refused(&eve, &["status"], "certificate");
    osctl(&with(&vic, &["status"]).iter().map(String::as_str).collect::<Vec<_>>());
    refused(&vic, &["reboot", "--yes"], "vic");
    let audit = ask(&["audit"]);
    assert!(audit.contains("CN=eve") && audit.contains("CN=vic"), "{audit}");

    // Whatever else tells of the node does not tell its secrets.
    for arguments in [
        &["logs"][..],
        &["logs", "keel-agent"],
        &["events"],
        &["dmesg"],
        &["graph", "render", "--node"],
        &["units", "show", "containerd"],
        &["explain", "keel-agent", "--node"],
        &["processes"],
        &["boot", "list"],
        &["boot", "show"],
        &["units", "restart", "containerd", "--dry-run"],
        &["config", "get"],
        &["history"],
    ] {
        assert!(!ask(arguments).is_empty(), "{arguments:?}");
    }

    // The machine as the node tells of it, and the config that it runs, fit each other.
    let inventory = ask(&["inventory"]);
    let told = keel_image::Inventory::parse(&inventory).unwrap();
    let data = told.disks.iter().flat_map(|disk| &disk.partitions);
    assert!(data.clone().any(|partition| partition.label == "keel-data"), "{inventory}");
    assert!(told.links.iter().any(|link| !link.drivers.is_empty()), "{inventory}");
    let node_json = write("node.json", &inventory);
    let image_dir = dir.path().join("image");
    let verify = ["verify", "--image", image_dir.to_str().unwrap(), "--inventory", &node_json];
    let verdict = json(&osctl(&[&verify, &graph[..]].concat()));
    assert_eq!((&verdict["valid"], &verdict["inventory"]), (&true.into(), &true.into()));
    // A config for another machine does not fit this one.
    let other = write(
        "other.toml",
        "[storage.data.disk]\nbus = \"nvme\"\n[[network.interfaces]]\nname = \"a\"\ndevice = \"eth9\"\n",
    );
    let mut osctl = Command::new(inputs().osctl);
    osctl.args(verify).args(graph).args(["--config", &other]).current_dir(repository());
    let out = osctl.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("the machine has no link eth9"), "{said}");
    assert!(!shows_secret(&said), "{said}");

    let console = shut_down(vm);
    assert!(!console.iter().any(|line| shows_secret(line)), "{console:#?}");
    assert!(console.iter().any(|line| line.contains("rack-7")), "{console:#?}");
}
