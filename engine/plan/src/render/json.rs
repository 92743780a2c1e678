//! JSON, for scripts and for comparing graphs.

use crate::export::Export;
use crate::graph::BootGraph;
use crate::transaction::Transaction;

/// The graph as one JSON object; in an edge, `from` depends on `to`.
pub fn json(graph: &BootGraph, transaction: &Transaction) -> String {
    // Strings, numbers and booleans under fixed keys: there is nothing here that JSON cannot hold.
    let mut text =
        serde_json::to_string_pretty(&Export::new(graph, transaction)).unwrap_or_default();
    text.push('\n');
    text
}
