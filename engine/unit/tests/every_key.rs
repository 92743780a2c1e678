//! Two inputs that use everything there is to write: whoever adds a key adds it there, and sees it work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use keel_unit::KindName;
use keel_unit::config::MachineConfig;
use keel_unit::keys::{Key, Table as _};
use keel_unit::load::load;
use keel_unit::lower::lower;
use keel_unit::tree::{Node, Value, parse};
use keel_unit::unit::Words;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every key below a table, as `partition.disk.bus`.
fn known(prefix: &str, keys: &[Key], all: &mut BTreeSet<String>) {
    for key in keys {
        let path = format!("{prefix}{}", key.name);
        known(&format!("{path}."), (key.inner)(), all);
        all.insert(path);
    }
}

/// Every key that is written.
fn written(prefix: &str, node: &Node, all: &mut BTreeSet<String>) {
    match &node.value {
        Value::Table(table) => {
            for entry in table.iter() {
                let path = format!("{prefix}{}", entry.key);
                written(&format!("{path}."), &entry.node, all);
                all.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| written(prefix, item, all)),
        _ => {}
    }
}

fn check(known: BTreeSet<String>, written: &BTreeSet<String>) {
    let missing: Vec<_> = known.difference(written).collect();
    assert!(missing.is_empty(), "keys that nothing there uses: {missing:?}");
}

#[test]
fn one_unit_tree_uses_every_key_of_every_kind() {
    let mut input = load(&root().join("testdata/units/ok/every-key"), None);
    let mut findings = std::mem::take(&mut input.findings);
    let mut all = BTreeSet::new();
    for (file, _) in &input.units {
        written("", &parse(&input.sources, *file, &mut findings), &mut all);
    }
    assert!(findings.is_empty(), "{findings:?}");
    let mut keys = BTreeSet::new();
    known("", Words::known(), &mut keys);
    for kind in KindName::ALL {
        keys.insert(kind.as_str().to_owned());
        known(&format!("{kind}."), kind.keys(), &mut keys);
    }
    check(keys, &all);
    lower(input).unwrap_or_else(|report| panic!("{report}"));
}

#[test]
fn four_machine_configs_use_every_key() {
    let path = root().join("testdata/configs/ok/every-key.toml");
    let input = load(&root().join("units"), Some(&path));
    let mut findings = Vec::new();
    let [config] = input.configs[..] else { panic!("{:?}", input.findings) };
    let mut all = BTreeSet::new();
    written("", &parse(&input.sources, config, &mut findings), &mut all);
    // Ways to join a cluster that exclude each other.
    for other in ["cluster-by-pin.toml", "cluster-by-kubeconfig.toml", "cluster-spent.toml"] {
        let other = load(&root().join("units"), Some(&path.with_file_name(other)));
        written("", &parse(&other.sources, other.configs[0], &mut findings), &mut all);
        lower(other).unwrap_or_else(|report| panic!("{report}"));
    }
    assert!(findings.is_empty(), "{findings:?}");
    let mut keys = BTreeSet::new();
    known("", MachineConfig::known(), &mut keys);
    check(keys, &all);
    let set = lower(input).unwrap_or_else(|report| panic!("{report}"));
    let names: Vec<_> = set.units.iter().map(|u| u.name.as_str()).collect();
    assert!(names.contains(&"sysctl@net:ipv4:conf:eth0.100:forwarding"), "{names:?}");
    assert_eq!(set.config.machine.hostname.map(|h| h.to_string()).as_deref(), Some("node-1"));
}
