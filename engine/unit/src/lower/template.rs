//! Templates: `for-each` makes one unit of each item of a list in the machine config.

use super::units::{Lowering, Written};
use crate::config::MachineConfig;
use crate::diagnostic::Diagnostic;
use crate::keys::{Key, Table as _, clip};
use crate::reference::{Item, UNSET, resolve};
use crate::secret;
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};
use crate::unit::check_keys;

/// Most units that one machine may have. Far more than any has; a template of a template of a list must not eat the memory.
const MOST_UNITS: usize = 200_000;
/// After so many instances with faults, further ones say nothing new.
const MOST_FAULTY: usize = 10;

/// An item of a list.
struct Listed {
    /// What names the instance.
    key: String,
    /// What `item` means.
    node: Node,
    /// Where the item stands in the machine config; where `for-each` stands when it is a default.
    at: Span,
}

impl Lowering<'_> {
    /// Makes the instances of a template.
    pub(super) fn template(&mut self, written: &Written, each: &Node) {
        let Some(items) = self.items(each) else {
            // Nothing is known of its items, and the rest of it can be checked all the same.
            return self.idle(written, Item::Unknown(&[]));
        };
        if items.is_empty() {
            let keys = each.as_str().map_or(&[][..], keys_at);
            self.idle(written, Item::Unknown(keys));
        }
        let Written { name, kind, tree, span, .. } = written;
        if self.done.units.len() + items.len() > MOST_UNITS {
            let message = format!("more than {MOST_UNITS} units");
            let found = Diagnostic::new("too-many", each.span, message);
            let label = format!("makes {} of them", items.len());
            return self.done.findings.push(found.label(label));
        }
        let mut instances = Vec::new();
        let mut faulty = 0;
        for Listed { key, node, at } in items {
            let instance = match name.instance(&key) {
                Ok(instance) => instance,
                Err(why) => {
                    let message = format!("`{name}@{}` cannot name a unit: {why}", clip(&key));
                    let found = Diagnostic::new("bad-name", at, message);
                    self.done.findings.push(found.also(each.span, "made from this list"));
                    continue;
                }
            };
            if !self.name(&instance, at) {
                continue;
            }
            let mut tree = tree.clone();
            if self.drop_in(&instance, *kind, &mut tree) {
                check_keys(&tree, *kind, &mut self.done.findings);
                self.no_template_again(&tree, each.span);
            }
            instances.push(instance.clone());
            if faulty >= MOST_FAULTY {
                self.done.unread.units.insert(instance);
                continue;
            }
            let before = self.done.findings.len();
            let template = Some(name.clone());
            let units = self.done.units.len();
            self.instance(instance, template, *kind, tree, *span, Item::Known(&node));
            if let Some(unit) = self.done.units.get_mut(units) {
                unit.item = Some(at).filter(|at| *at != each.span);
            }
            faulty += usize::from(self.done.findings.len() != before);
        }
        self.done.templates.insert(name.clone(), instances);
    }

    /// A drop-in for one instance cannot say what the template is made for.
    fn no_template_again(&mut self, tree: &Table, each: Span) {
        if let Some(entry) = tree.entry("for-each").filter(|e| e.node.span != each) {
            let message = "misplaced key `for-each`: an instance is no template";
            let found = Diagnostic::new("misplaced-key", entry.key_span, message);
            self.done.findings.push(found.label("not here").also(each, "the template's"));
        }
    }

    /// The items of the list that `for-each` names.
    fn items(&mut self, each: &Node) -> Option<Vec<Listed>> {
        let Some(path) = each.as_str() else {
            let message = "expected the name of a list in the machine config";
            let found = Diagnostic::new("wrong-type", each.span, message);
            self.done.findings.push(found.label("for example \"network.interfaces\""));
            return None;
        };
        let wrong = |why: &str| {
            let message = format!("`{}` {why}", clip(path));
            Diagnostic::new("wrong-type", each.span, message)
                .label("for example \"network.interfaces\"")
        };
        if path.contains("{{") {
            let name = path.trim_matches(|c: char| "{} ".contains(c));
            let found = wrong("is a reference, where the name of a list stands");
            self.done.findings.push(found.help(format!("write `for-each = \"{}\"`", clip(name))));
            return None;
        }
        if path.trim().is_empty() {
            let message = "an empty `for-each` names no list";
            let found = Diagnostic::new("wrong-type", each.span, message);
            self.done.findings.push(found.label("for example \"network.interfaces\""));
            return None;
        }
        let mut list = Node { span: each.span, value: Value::String(format!("{{{{ {path} }}}}")) };
        if path.trim() == secret::TABLE {
            let found = Diagnostic::new("misplaced-secret", each.span, "secrets make no instances");
            self.done.findings.push(found.label("a unit's name and its keys are shown"));
            return None;
        }
        let context = self.context(Item::None);
        let before = self.done.findings.len();
        let mut found = Vec::new();
        let set = resolve(&mut list, &context, &mut found);
        if !context.outcome().secrets.is_empty() {
            found.push(secret::misplaced(each.span));
        }
        self.done.findings.extend(found);
        if self.done.findings.len() != before {
            return None;
        }
        let keys = keys_at(path);
        let items: Vec<_> = match list.value {
            _ if !set => Vec::new(),
            Value::Array(items) => items.into_iter().map(|item| named(item, keys)).collect(),
            Value::Table(table) => table.iter().map(|e| Some((e.key.clone(), pair(e)))).collect(),
            _ => vec![None],
        };
        if items.iter().any(Option::is_none) {
            let found = wrong("is no list that instances can be made of");
            self.done
                .findings
                .push(found.label("expected an array of texts, of tables with `name`, or a table"));
            return None;
        }
        let places = self.places(path);
        let items = items.into_iter().flatten().enumerate().map(|(i, (key, node))| {
            let at = places.get(i).copied().unwrap_or(each.span);
            Listed { key, node, at }
        });
        Some(items.collect())
    }

    /// Where the items of a list stand in the machine config, if they are written there.
    fn places(&self, path: &str) -> Vec<Span> {
        let mut parts = path.split('.');
        let first = parts.next().and_then(|first| self.config.written.get(first));
        match parts.try_fold(first, |node, part| Some(node?.as_table()?.get(part))) {
            Some(Some(Node { value: Value::Array(items), .. })) => {
                items.iter().map(|item| item.span).collect()
            }
            Some(Some(Node { value: Value::Table(table), .. })) => {
                table.iter().map(|e| e.key_span).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The keys that items of a list in the config have.
fn keys_at(path: &str) -> &'static [Key] {
    let mut keys = MachineConfig::known();
    for part in path.split('.') {
        keys = keys.iter().find(|k| k.name == part).map_or(&[], |k| (k.inner)());
    }
    keys
}

fn named(item: Node, keys: &[Key]) -> Option<(String, Node)> {
    let Node { span, value } = item;
    match value {
        Value::String(text) => Some((text.clone(), Node { span, value: Value::String(text) })),
        Value::Table(mut table) => {
            let name = table.get("name")?.as_str()?.to_owned();
            for key in keys {
                if table.get(key.name).is_none() {
                    let node = Node { span, value: Value::String(UNSET.to_owned()) };
                    table.push(Entry { key: key.name.to_owned(), key_span: span, node });
                }
            }
            Some((name, Node { span, value: Value::Table(table) }))
        }
        _ => None,
    }
}

fn pair(entry: &Entry) -> Node {
    let span = entry.node.span;
    let name = Node { span, value: Value::String(entry.key.clone()) };
    let table = [("name", name), ("value", entry.node.clone())]
        .into_iter()
        .map(|(key, node)| Entry { key: key.to_owned(), key_span: span, node })
        .collect();
    Node { span, value: Value::Table(table) }
}
