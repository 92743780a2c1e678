//! JSON, for scripts and for comparing graphs.

use crate::export::Export;

/// The graph as one JSON object; in an edge, `from` depends on `to`.
pub fn json(export: &Export) -> String {
    // Strings, numbers and booleans under fixed keys: there is nothing here that JSON cannot hold.
    let mut text = serde_json::to_string_pretty(export).unwrap_or_default();
    text.push('\n');
    text
}
