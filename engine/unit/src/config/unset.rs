//! `unset = ["network.interfaces"]` in a patch: keys that the files before it have set, and that are to be as if nobody had.
//!
//! TOML has no null, so what goes away is listed by name. It goes before the patch's own keys are laid on: a patch that unsets a
//! table and sets it too has replaced it as a whole.

use super::MachineConfig;
use crate::diagnostic::{Diagnostic, nearest};
use crate::keys::{Table as _, clip, mismatch};
use crate::patch::Replaced;
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};

/// The key, at the top of a patch.
pub(crate) const UNSET: &str = "unset";

/// A key that a patch unsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unset {
    /// The key, part by part.
    pub path: Vec<String>,
    /// Where the patch says so.
    pub span: Span,
}

/// Takes the list out of a layer.
pub(super) fn take(
    layer: &mut Table,
    findings: &mut Vec<Diagnostic>,
) -> Option<(Span, Vec<Unset>)> {
    let entry = layer.entry(UNSET)?.clone();
    layer.retain(|entry| entry.key != UNSET);
    let Value::Array(items) = &entry.node.value else {
        findings.push(mismatch(&entry.node, "a list of keys such as [\"network.interfaces\"]"));
        return Some((entry.key_span, Vec::new()));
    };
    let unset = items.iter().filter_map(|item| {
        let Some(text) = item.as_str() else {
            findings.push(mismatch(item, "the name of a key such as \"network.interfaces\""));
            return None;
        };
        match path(text) {
            Some(path) => Some(Unset { path, span: item.span }),
            None => {
                let message = format!("`{}` is no name of a key", clip(text));
                findings.push(Diagnostic::new("bad-value", item.span, message).help(
                    "parts are joined by dots, and one that holds a dot is quoted: 'kernel.sysctls.\"net.ipv4.ip_forward\"'",
                ));
                None
            }
        }
    });
    Some((entry.key_span, unset.collect()))
}

/// There is nothing below the first file that could be unset.
pub(super) fn in_first(at: Span) -> Diagnostic {
    Diagnostic::new("misplaced-key", at, "nothing is below this `unset`")
        .label("the first file of a config has nothing to take away")
        .help("leave out the keys that are not to be set")
}

/// Takes a key out of the files before; says what stood there.
pub(super) fn apply(
    below: &mut Table,
    unset: &Unset,
    findings: &mut Vec<Diagnostic>,
) -> Option<Replaced> {
    let taken = remove(below, &unset.path);
    if taken.is_none() {
        findings.push(absent(unset));
    }
    taken
}

/// Takes out a key, and the tables that have nothing in them then.
fn remove(table: &mut Table, path: &[String]) -> Option<Replaced> {
    let (key, rest) = path.split_first()?;
    let entry = table.entry_mut(key)?;
    if rest.is_empty() {
        let entry = entry.clone();
        table.retain(|entry| entry.key != *key);
        return Some(Replaced { way: Vec::new(), entry });
    }
    let at = (entry.key.clone(), entry.key_span);
    let Value::Table(inner) = &mut entry.node.value else { return None };
    let mut taken = remove(inner, rest)?;
    let is_empty = inner.is_empty();
    if is_empty {
        table.retain(|entry| entry.key != *key);
    }
    taken.way.insert(0, at);
    Some(taken)
}

/// No file before sets it: because there is no such key, or because nobody has.
fn absent(unset: &Unset) -> Diagnostic {
    let Unset { path, span } = unset;
    let mut keys = MachineConfig::known();
    for (depth, part) in path.iter().enumerate() {
        // What has no declared keys takes any: sysctls, the names of units.
        if keys.is_empty() {
            break;
        }
        match keys.iter().find(|key| key.name == part) {
            Some(key) => keys = (key.inner)(),
            None => {
                let message = format!("unknown key `{}`", clip(&path[..=depth].join(".")));
                let found = Diagnostic::new("unknown-key", *span, message)
                    .label("a config has no such key");
                return match nearest(part, keys.iter().map(|key| key.name)) {
                    Some(near) => {
                        let better = [&path[..depth], &[near.to_owned()]].concat().join(".");
                        found.help(format!("did you mean `{better}`?"))
                    }
                    None => found,
                };
            }
        }
    }
    let message = format!("`{}` is not set by the files before", clip(&path.join(".")));
    Diagnostic::new("nothing-to-unset", *span, message)
        .label("there is nothing to take away")
        .help("remove it from `unset`")
}

/// A key as TOML writes it, in parts: bare words, and quoted ones without escapes.
fn path(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = match rest.chars().next()? {
            quote @ ('"' | '\'') => rest[1..].split_once(quote)?,
            _ => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        let quoted = rest.starts_with(['"', '\'']);
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let fits = if quoted { !part.contains('\\') } else { part.chars().all(bare) };
        if part.is_empty() || !fits {
            return None;
        }
        parts.push(part.to_owned());
        if after.is_empty() {
            return Some(parts);
        }
        rest = after.strip_prefix('.')?;
    }
}

/// The layers' values that do not hold any longer, checked as what they would have been: a slip in one is to be found before the
/// patch that hides it goes.
pub(super) fn check_replaced(replaced: &[Replaced], findings: &mut Vec<Diagnostic>) {
    for Replaced { way, entry } in replaced {
        let first = way.first().map_or(&entry.key, |(key, _)| key);
        // What a drop-in's key means is the unit's to say, and what a reference is, nobody knows any longer.
        if first == "units" || has_reference(&entry.node) {
            continue;
        }
        let mut node = table_of(entry.clone(), entry.key_span);
        for (key, key_span) in way.iter().rev() {
            node = table_of(Entry { key: key.clone(), key_span: *key_span, node }, *key_span);
        }
        let mut found = Vec::new();
        crate::keys::decode_table::<MachineConfig>(&node, &mut found);
        let here = |d: &Diagnostic| {
            contains(entry.key_span, d.label.span) || stands_in(&entry.node, d.label.span)
        };
        findings.extend(found.into_iter().filter(here));
    }
}

fn table_of(entry: Entry, span: Span) -> Node {
    // What is missing in it is missing in the layer, and may stand in another.
    let span = Span { end: span.start, ..span };
    Node { span, value: Value::Table(Table::from_iter([entry])) }
}

fn has_reference(node: &Node) -> bool {
    match &node.value {
        Value::String(text) => text.contains("{{"),
        Value::Array(items) => items.iter().any(has_reference),
        Value::Table(table) => table.iter().any(|entry| has_reference(&entry.node)),
        _ => false,
    }
}

fn contains(outer: Span, inner: Span) -> bool {
    // An empty span is that of a whole table, in which something is missing.
    outer.file == inner.file
        && outer.start <= inner.start
        && inner.end <= outer.end
        && inner.start < inner.end
}

fn stands_in(node: &Node, span: Span) -> bool {
    contains(node.span, span)
        || match &node.value {
            Value::Array(items) => items.iter().any(|item| stands_in(item, span)),
            Value::Table(table) => table
                .iter()
                .any(|entry| contains(entry.key_span, span) || stands_in(&entry.node, span)),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_key_of_toml() {
        let check = |text: &str, expect: Option<&[&str]>| {
            let expect = expect.map(|parts| parts.iter().map(|part| (*part).to_owned()).collect());
            assert_eq!(path(text), expect, "{text}");
        };
        check("network", Some(&["network"]));
        check("network.interfaces", Some(&["network", "interfaces"]));
        check(
            "kernel.sysctls.\"net.ipv4.ip_forward\"",
            Some(&["kernel", "sysctls", "net.ipv4.ip_forward"]),
        );
        check("units.'mount.tmp'.mount", Some(&["units", "mount.tmp", "mount"]));
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a.\"b",
            "a.\"b\"c",
            "a.\"\"",
            "a = 1",
            "a\nb",
            "\u{e4}",
            "\"\\u0061\"",
        ] {
            check(bad, None);
        }
    }
}
