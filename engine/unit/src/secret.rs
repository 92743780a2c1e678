//! Secrets in unit files and machine configs: where they stand, so that no drawn line shows one.
//!
//! A finding is drawn with the lines around it, and a slip stands easily beside the content of a file that is a secret. When in
//! doubt (a slip in the word `secret` itself, a file that is no TOML) it counts as one.

use std::collections::HashSet;

use crate::diagnostic::nearest;
use crate::kinds::KindName;
use crate::source::{FileId, Sources, Span};
use crate::tree::{Node, Table, Value};

/// Where the content of a `file` unit stands, if it is a secret.
pub(crate) fn content(kind: KindName, tree: &Table) -> Option<Span> {
    if kind != KindName::File {
        return None;
    }
    let table = tree.get(kind.as_str()).and_then(Node::as_table)?;
    let secret = tree.iter().chain(table.iter()).any(|entry| {
        entry.node.value != Value::Boolean(false) && nearest(&entry.key, ["secret"]).is_some()
    });
    table.get("content").filter(|_| secret).map(|node| node.span)
}

/// Hides secrets in what is drawn: these spans, and the whole of every file that was not understood and may hold one.
pub(crate) fn hide(sources: &mut Sources, secrets: &[Span], understood: &HashSet<FileId>) {
    for span in secrets {
        sources.hide(*span);
    }
    for file in sources.files().filter(|f| !understood.contains(f)) {
        let text = sources.text(file);
        // The content may stand in the machine config and the word `secret` in the unit that it is for.
        if text.contains("secret") || text.contains("[units") && text.contains("content") {
            sources.hide(Span { file, start: 0, end: text.len() as u32 });
        }
    }
}
