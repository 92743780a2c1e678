//! Patches: a table laid over another. Tables merge and everything else is replaced, but `{ append = […] }` adds to the list below.
//!
//! Later machine configs patch earlier ones, and a drop-in patches a unit. What is added to may stand nowhere at all: then it
//! is the key's default.

use crate::diagnostic::Diagnostic;
use crate::keys::{Key, Table as _, clip, default_node, mismatch};
use crate::kinds::KindName;
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};
use crate::unit::Words;

/// The word that adds to a list.
const APPEND: &str = "append";

/// What is known of the keys of a table that is patched.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known {
    /// These keys.
    Keys(&'static [Key]),
    /// Those of the machine config.
    Config(&'static [Key]),
    /// Drop-ins by the names of their units, whose lists are yet to come.
    DropIns,
    /// A drop-in, or keys inside of one: the list below stands in the unit.
    DropIn(&'static [Key]),
    /// Those of a unit.
    Unit,
}

impl Known {
    fn key(self, name: &str) -> Option<&'static Key> {
        let keys = match self {
            Known::Keys(keys) | Known::Config(keys) => keys,
            Known::DropIn(keys) => keys,
            Known::Unit => Words::known(),
            Known::DropIns => return None,
        };
        keys.iter().find(|key| key.name == name)
    }

    /// The default of a key that takes a list.
    fn list(self, name: &str) -> Option<Vec<Node>> {
        match default_node(self.key(name)?.default)?.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// What is known of the table below a key.
    fn inside(self, name: &str) -> Known {
        match self {
            Known::Config(_) if name == "units" => Known::DropIns,
            Known::Unit if let Some(kind) = KindName::from_word(name) => Known::Keys(kind.keys()),
            Known::DropIns => Known::DropIn(Words::known()),
            Known::DropIn(keys) => {
                let kind = KindName::from_word(name).map(KindName::keys);
                let inner = keys.iter().find(|k| k.name == name).map(|k| (k.inner)());
                Known::DropIn(kind.or(inner).unwrap_or(&[]))
            }
            Known::Unit | Known::Keys(_) | Known::Config(_) => {
                Known::Keys(self.key(name).map_or(&[], |key| (key.inner)()))
            }
        }
    }
}

/// The items that a value adds to the list below it.
pub(crate) fn appended(value: &Value) -> Option<&[Node]> {
    let Value::Table(table) = value else { return None };
    let mut entries = table.iter();
    match (entries.next(), entries.next()) {
        (Some(Entry { key, node: Node { value: Value::Array(items), .. }, .. }), None)
            if key == APPEND =>
        {
            Some(items)
        }
        _ => None,
    }
}

/// Lays `over` on top of `below`.
pub(crate) fn lay(below: &mut Table, over: &Table, known: Known, findings: &mut Vec<Diagnostic>) {
    Patch { findings, way: Vec::new(), replaced: Vec::new() }.lay(below, over, known);
}

/// Lays a layer of the config on top of those before. Gives what it replaced.
pub(crate) fn lay_config(
    below: &mut Table,
    over: &Table,
    keys: &'static [Key],
    findings: &mut Vec<Diagnostic>,
) -> Vec<Replaced> {
    let mut patch = Patch { findings, way: Vec::new(), replaced: Vec::new() };
    patch.lay(below, over, Known::Config(keys));
    patch.replaced
}

/// A value that no longer holds, for a later layer has another, or takes it away.
pub(crate) struct Replaced {
    /// The tables that it stood in.
    pub(crate) way: Vec<(String, Span)>,
    /// Itself.
    pub(crate) entry: Entry,
}

/// One table while it is laid over another.
struct Patch<'a> {
    findings: &'a mut Vec<Diagnostic>,
    /// The keys of the tables in which this one stands.
    way: Vec<(String, Span)>,
    replaced: Vec<Replaced>,
}

impl Patch<'_> {
    /// Recursion is bounded: the parser refuses more than 80 levels of nesting.
    fn lay(&mut self, below: &mut Table, over: &Table, known: Known) {
        let places = below.places();
        for new in over.iter() {
            let key = new.key.as_str();
            let items = appended(&new.node.value);
            let Some(old) = places.get(key).and_then(|place| below.entry_at(*place)) else {
                below.push(added(new, items, known, self.findings));
                continue;
            };
            match (items, &mut old.node.value, &new.node.value) {
                (Some(items), _, _) => append(old, items, new, known, self.findings),
                (None, Value::Table(table), Value::Table(above)) => {
                    self.way.push((old.key.clone(), old.key_span));
                    self.lay(table, above, known.inside(key));
                    self.way.pop();
                }
                // What stands in the table below is not to go unseen for a slip; a reference may stand for a table.
                (None, Value::Table(_), above) if !is_reference(above) => {
                    let found = mismatch(&new.node, "a table");
                    self.findings.push(found.also(old.key_span, "the table that it would replace"));
                }
                _ => {
                    let entry = std::mem::replace(old, new.clone());
                    self.replaced.push(Replaced { way: self.way.clone(), entry });
                }
            }
        }
    }
}

fn is_reference(value: &Value) -> bool {
    matches!(value, Value::String(text) if text.contains("{{"))
}

/// An entry with nothing below it: what it appends goes to the default.
fn added(
    new: &Entry,
    items: Option<&[Node]>,
    known: Known,
    findings: &mut Vec<Diagnostic>,
) -> Entry {
    let mut new = new.clone();
    match (items, &mut new.node.value) {
        // The list below a drop-in is the unit's, and is not here yet.
        (Some(_), _) if matches!(known, Known::DropIn(_)) => {}
        (Some(items), value) => {
            if let Some(mut list) = known.list(&new.key) {
                list.extend_from_slice(items);
                *value = Value::Array(list);
            }
        }
        (None, Value::Table(table)) => {
            let over = std::mem::take(table);
            lay(table, &over, known.inside(&new.key), findings);
        }
        (None, _) => {}
    }
    new
}

fn append(
    old: &mut Entry,
    items: &[Node],
    new: &Entry,
    known: Known,
    findings: &mut Vec<Diagnostic>,
) {
    // `after = "a"` is a list of one, and so may be what a reference stands for.
    let reference = old.node.as_str().is_some_and(|text| text.contains("{{"));
    let single = reference || known.list(&old.key).is_some();
    let pending = appended(&old.node.value).is_some();
    let list = match &mut old.node.value {
        Value::Array(list) => Some(list),
        // An `append` of a drop-in, and another: both are for the unit.
        Value::Table(table) if pending => {
            table.entries_mut().find_map(|e| match &mut e.node.value {
                Value::Array(list) => Some(list),
                _ => None,
            })
        }
        _ => None,
    };
    if let Some(list) = list {
        list.extend_from_slice(items);
    } else if single {
        let first = old.node.clone();
        let list = std::iter::once(first).chain(items.iter().cloned()).collect();
        old.node.value = Value::Array(list);
    } else {
        let message = format!("`{}` is no list to append to", clip(&old.key));
        let found = Diagnostic::new("wrong-type", new.key_span, message);
        let label = format!("below it is {}", old.node.article());
        findings.push(found.label(label).also(old.node.span, "what it would append to"));
    }
}

/// Reports every `append` outside of drop-ins that is left, because there is nothing below it, and makes it the list that it holds.
pub(crate) fn settle(config: &mut Table, keys: &'static [Key], findings: &mut Vec<Diagnostic>) {
    for entry in config.entries_mut().filter(|entry| entry.key != "units") {
        // What is no key of the config is told as that.
        if keys.iter().any(|key| key.name == entry.key) {
            settle_node(&entry.key, &mut entry.node, entry.key_span, findings);
        }
    }
}

fn settle_node(key: &str, node: &mut Node, at: Span, findings: &mut Vec<Diagnostic>) {
    if let Some(items) = appended(&node.value) {
        let message = "nothing is below this `append`";
        let found = Diagnostic::new("misplaced-key", at, message);
        let found = found.label("the first that says what the list is");
        findings.push(found.help(format!("write the list itself: `{} = […]`", clip(key))));
        node.value = Value::Array(items.to_vec());
    }
    match &mut node.value {
        Value::Array(items) => {
            for item in items {
                settle_node(key, item, item.span, findings);
            }
        }
        Value::Table(table) => {
            for entry in table.entries_mut() {
                settle_node(&entry.key, &mut entry.node, entry.key_span, findings);
            }
        }
        _ => {}
    }
}
