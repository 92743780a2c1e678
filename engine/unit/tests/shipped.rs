//! What ships is valid, and the types' own defaults are.

use std::path::{Path, PathBuf};

use keel_unit::keys::{Key, Table};
use keel_unit::load::load;
use keel_unit::lower::lower;
use keel_unit::{KindName, UnitSet};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn lowered(config: &str) -> UnitSet {
    let mut input = load(&root().join("units"), Some(&root().join("machine-configs").join(config)));
    input.secrets_elsewhere = true;
    match lower(input) {
        Ok(set) => set,
        Err(report) => panic!("{config}:\n{report}"),
    }
}

#[test]
fn every_shipped_config_lowers_the_shipped_units() {
    let configs = std::fs::read_dir(root().join("machine-configs")).unwrap();
    let names: Vec<_> = configs.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() >= 3);
    for name in names {
        assert!(lowered(&name).units.len() > 20, "{name}");
    }
}

#[test]
fn references_take_the_types_of_the_config() {
    let set = lowered("static-network.toml");
    let link = set.units.iter().find(|u| u.name.as_str() == "link@uplink").unwrap();
    let keel_unit::Kind::Link(link) = &link.kind else { panic!("{:?}", link.kind) };
    assert_eq!(link.name.as_ref().unwrap().as_str(), "eth0");
    assert_eq!(link.addresses[0].to_string(), "192.0.2.10/24");
    assert_eq!((link.dhcp, link.mac, link.dns.len()), (false, None, 2));
}

#[test]
fn a_drop_in_changes_one_key_and_names_its_file() {
    let set = lowered("no-cluster.toml");
    let unit = set.units.iter().find(|u| u.name.as_str() == "containerd").unwrap();
    let keel_unit::Kind::Service(service) = &unit.kind else { panic!("{:?}", unit.kind) };
    assert_eq!(service.stop_timeout.to_string(), "5s");
    assert_eq!(service.resources.cpu_weight.unwrap().0, 500);
    let at = set.sources.locate(unit.span_of(&["service", "stop-timeout"]));
    assert!(at.file.ends_with("no-cluster.toml"), "{at}");
    let at = set.sources.locate(unit.span_of(&["service", "ready"]));
    assert!(at.file.ends_with("containerd.toml"), "{at}");
}

#[test]
fn the_kubelet_is_told_the_name_of_its_node() {
    let arguments = |config: &str| {
        let mut input = load(&root().join("units"), None);
        input.config("config.toml", format!("schema = 1\n{config}"));
        let set = lower(input).unwrap_or_else(|report| panic!("{report}"));
        let unit = set.units.iter().find(|u| u.name.as_str() == "kubelet").unwrap();
        let keel_unit::Kind::Service(service) = &unit.kind else { panic!("{:?}", unit.kind) };
        service.exec.arguments.clone()
    };
    let named = arguments("[cluster]\nnode-name = \"n-1\"\nkubelet-arguments = [\"--v=2\"]\n");
    assert_eq!(named[named.len() - 2..], ["--hostname-override=n-1", "--v=2"]);
    let unnamed = arguments("");
    assert!(!unnamed.iter().any(|a| a.contains("hostname")), "{unnamed:?}");
}

#[test]
fn the_kubelet_gets_what_its_release_takes() {
    let check = |version: &str, flags: bool| {
        let mut input = load(&root().join("units"), None);
        let path = root().join("testdata/configs/ok/cluster-by-pin.toml");
        let text = std::fs::read_to_string(path).unwrap();
        input.config("config.toml", format!("{text}{version}"));
        let set = lower(input).unwrap_or_else(|report| panic!("{report}"));
        let unit = |name: &str| &set.units.iter().find(|u| u.name.as_str() == name).unwrap().kind;
        let keel_unit::Kind::Service(kubelet) = unit("kubelet") else { panic!() };
        let keel_unit::Kind::File(config) = unit("file.kubelet-config") else { panic!() };
        let arguments = kubelet.exec.arguments.join(" ");
        assert!(arguments.contains("--bootstrap-kubeconfig="), "{arguments}");
        assert_eq!(arguments.contains("--container-runtime="), flags, "{version}: {arguments}");
        assert_eq!(arguments.contains("--container-runtime-endpoint="), flags, "{arguments}");
        let config = config.content.as_ref().unwrap().as_str();
        assert_eq!(config.contains("containerRuntimeEndpoint"), !flags, "{config}");
    };
    check("", true);
    check("kubelet-version = \"1.20\"\n", true);
    check("kubelet-version = \"1.26\"\n", true);
    check("kubelet-version = \"1.27\"\n", false);
    check("kubelet-version = \"1.101\"\n", false);
}

/// A default that its own type does not take would be reported for every unit that leaves the key out.
#[test]
fn every_default_is_documented_and_reads() {
    fn walk(path: &str, keys: &[Key]) {
        for key in keys {
            let path = format!("{path}.{}", key.name);
            assert!(!key.doc.trim().is_empty(), "{path} has no documentation");
            assert!(!(key.required && key.default.is_some()), "{path}");
            walk(&path, (key.inner)());
        }
    }
    walk("config", keel_unit::config::MachineConfig::known());
    walk("unit", keel_unit::unit::Words::known());
    for kind in KindName::ALL {
        walk(kind.as_str(), kind.keys());
        assert!(!kind.doc().trim().is_empty());
    }
}
