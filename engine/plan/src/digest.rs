//! The digest of a graph: SHA-256 over its canonical form.

use std::fmt;

use keel_unit::tree::{Table, Value};
use petgraph::visit::EdgeRef;
use sha2::{Digest as _, Sha256};

use crate::graph::BootGraph;

/// SHA-256 of a graph in its canonical form: units in order of their names with their parameters, then edges. Names of
/// files, lines and the order of keys are not part of it; a secret goes in as its own hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[7..19].to_owned()
    }
}

/// `sha256:` and 64 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

pub(crate) fn digest(graph: &BootGraph) -> Digest {
    let mut hash = Sha256::new();
    for id in graph.ids() {
        let unit = graph.unit(id);
        text(&mut hash, unit.name.as_str());
        table(&mut hash, unit.tree());
        // What the tree shows of a secret is the beginning of its hash alone.
        unit.secrets.iter().for_each(|secret| hash.update(secret.hash));
    }
    let mut edges: Vec<_> = graph
        .graph
        .edge_references()
        .map(|e| (e.source().index(), e.target().index(), e.weight().kind))
        .collect();
    edges.sort_unstable();
    for (from, to, kind) in edges {
        hash.update((from as u64).to_le_bytes());
        hash.update((to as u64).to_le_bytes());
        text(&mut hash, kind.as_str());
        text(&mut hash, kind.awaits().map_or("", |a| a.as_str()));
    }
    Digest(hash.finalize().into())
}

// Every text goes in with its length, so that no two forms run into each other.
fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

fn table(hash: &mut Sha256, table: &Table) {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    hash.update((entries.len() as u64).to_le_bytes());
    for entry in entries {
        text(hash, &entry.key);
        value(hash, &entry.node.value);
    }
}

fn value(hash: &mut Sha256, value_: &Value) {
    match value_ {
        Value::String(s) => {
            hash.update(b"s");
            text(hash, s);
        }
        Value::Datetime(s) => {
            hash.update(b"d");
            text(hash, s);
        }
        Value::Integer(i) => {
            hash.update(b"i");
            hash.update(i.to_le_bytes());
        }
        Value::Float(f) => {
            hash.update(b"f");
            hash.update(f.to_bits().to_le_bytes());
        }
        Value::Boolean(b) => hash.update(if *b { b"T" } else { b"F" }),
        Value::Array(items) => {
            hash.update(b"a");
            hash.update((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| value(hash, &item.value));
        }
        Value::Table(inner) => {
            hash.update(b"t");
            table(hash, inner);
        }
    }
}
