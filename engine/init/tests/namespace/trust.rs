//! Whom a machine lets in while the image's config stands in for its own: nobody but whom its own lets in.

use keel_control::{ApplyMode, GenerationResult};

use super::configs::{apply, data, history, wanted};
use super::*;

/// What the agent is told of whom to trust, a line for each start.
const AGENT: &str = "part-of = \"boot\"\n[service]\nexec = [\"/bin/sh\", \"-c\", \"echo \\\"$(echo ${KEEL_TRUSTED_CA-anybody})\\\" >> {dir}/trusts; exec sleep 1000\"]\ntimeout = \"20s\"\n[service.environment]\nKEEL_TRUSTED_CA = \"{{ agent['trusted-ca'] }}\"\n";

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----";
const TOLD: &str = "-----BEGIN CERTIFICATE----- MAA= -----END CERTIFICATE-----\n";

const KEEPS: &str = "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n";
const OPEN: &str = "schema = 1\n";

struct Node {
    keep: tempfile::TempDir,
    boots: u32,
}

impl Node {
    /// Boots an image that lets in anybody, with these units beside the agent's.
    fn boot(&mut self, more: &[(&str, &str)]) -> Machine {
        self.boots += 1;
        let mount = data(self.keep.path());
        let mut units = vec![BOOT, ("data.toml", mount.as_str()), ("keel-agent.toml", AGENT)];
        units.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        units.extend(more);
        Machine::boot_with(&format!("trust-{}", self.boots), OPEN, &units)
    }
}

#[test]
fn an_image_that_stands_in_opens_nothing() {
    let mut node = Node { keep: tempfile::tempdir().expect("a temporary directory"), boots: 0 };
    let mut machine = node.boot(&[("keeps.toml", KEEPS)]);
    machine.report();
    assert_eq!(machine.read("trusts"), "anybody\n");
    let closed = format!(
        "schema = 1\n[agent]\ntrusted-ca = \"\"\"\n{PEM}\n\"\"\"\n[units.keeps]\ndescription = \"Keeps\"\n"
    );
    apply(&machine, wanted(&closed, ApplyMode::Auto)).unwrap();
    machine.line(&["config 1 holds"]);
    machine.until("trusts", |text| text.ends_with(TOLD));
    machine.signal("INT");
    machine.end();

    // The data partition comes when the rest has begun without it.
    let late = data(node.keep.path()).replace(
        "[mount]",
        "requires = \"waits\"\nafter = [\"waits\", \"partition.nowhere\"]\n[mount]",
    );
    let waits = "[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"until test -e {dir}/go; do sleep 0.05; done\"]\ntimeout = \"20s\"\n";
    let nowhere = "part-of = \"boot\"\n[partition]\nlabel = \"keel-nowhere\"\ntype = \"7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441\"\ntimeout = \"1s\"\n";
    let mut machine = node.boot(&[
        ("keeps.toml", KEEPS),
        ("data.toml", &late),
        ("waits.toml", waits),
        ("partition.nowhere.toml", nowhere),
    ]);
    machine.until("trusts", |text| text == "anybody\n");
    fs::write(machine.shared("go"), "").unwrap();
    machine.line(&["config 1 does not hold in this boot"]);
    machine
        .line(&["the image's config stands in; the machine lets in whom its own config lets in"]);
    machine.until("trusts", |text| text.ends_with(TOLD));
    let shown = ask(&machine, async |init| init.config(None).await).unwrap();
    assert!(shown.text.contains(PEM.lines().next().unwrap()), "{}", shown.text);
    drop(machine);

    // An image with which no config makes a graph; the second boot of it finds that noted.
    for _ in 0..2 {
        let mut machine = node.boot(&[]);
        machine.report();
        machine.position(&["the image's config stands in"]);
        assert_eq!(machine.read("trusts"), TOLD, "nobody else got in, not for a moment");
        assert_eq!(history(&machine), (vec![GenerationResult::RolledBack], None));
        drop(machine);
    }

    // What was kept is broken.
    let configs = node.keep.path().join("configs");
    fs::rename(&configs, node.keep.path().join("other")).unwrap();
    fs::write(&configs, "").unwrap();
    let mut machine = node.boot(&[]);
    machine.report();
    assert_eq!(machine.read("trusts"), "\n", "nobody");
}
