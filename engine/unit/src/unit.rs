//! A unit: one TOML file, or one instance of a template, read and validated.

use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, nearest};
use crate::keys::{Fields, Key, Table as _, Value as _, keys, unknown_key};
use crate::kinds::{Kind, KindName};
use crate::name::UnitName;
use crate::origin::Origins;
use crate::secret::{self, Secret};
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};
use crate::value::{Line, Timespan};
use crate::words::{Condition, ConfigKeys, Failure, Reference, References};

keys! {
    /// The keys of a unit file beside the table of its kind.
    pub struct Words {
        /// What the unit is, for people.
        description "description": Line = "\"\"",
        /// Units that must be active for this one; if one of them fails, so does this one. Says nothing of order.
        requires "requires": References = "[]",
        /// Units that are started together with this one; their failure is no failure of this one.
        wants "wants": References = "[]",
        /// As `requires`; and when one of them stops, so does this one.
        binds_to "binds-to": References = "[]",
        /// Units that this one waits for, whether they succeed or fail.
        after "after": References = "[]",
        /// Units that wait for this one.
        before "before": References = "[]",
        /// Units that are stopped when this one starts, and the other way round.
        conflicts "conflicts": References = "[]",
        /// The stage (a target) that wants this unit and waits for it.
        part_of "part-of": References = "[]",
        /// Makes one instance per item of this list in the machine config; `item` is the item.
        for_each "for-each": Option<Line>,
        /// The unit is there only if the machine config sets one of these keys; where it is not, words that name it mean nothing.
        if_set "if-set": Option<ConfigKeys>,
        /// What must hold for the unit to be started.
        condition "condition": Condition = "{}",
        /// What happens when it fails.
        failure "failure": Failure = "{}",
        /// How long it usually takes; the simulation uses it.
        duration "duration": Option<Timespan>,
    }
}

/// A validated unit.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its name.
    pub name: UnitName,
    /// What it is, for people.
    pub description: String,
    /// Where it stands: the kind's table.
    pub span: Span,
    /// What it does.
    pub kind: Kind,
    /// Units that must be active for this one.
    pub requires: Vec<Reference>,
    /// Units that are started together with this one.
    pub wants: Vec<Reference>,
    /// Units whose stop stops this one.
    pub binds_to: Vec<Reference>,
    /// Units that this one waits for.
    pub after: Vec<Reference>,
    /// Units that wait for this one.
    pub before: Vec<Reference>,
    /// Units that may not be active together with this one.
    pub conflicts: Vec<Reference>,
    /// The stages that want this unit and wait for it.
    pub part_of: Vec<Reference>,
    /// What must hold for it to be started.
    pub condition: Condition,
    /// What happens when it fails.
    pub failure: Failure,
    /// How long it usually takes.
    pub duration: Option<Duration>,
    /// The template that it is an instance of.
    pub template: Option<UnitName>,
    /// Where the item stands in the machine config that this instance is made from.
    pub item: Option<Span>,
    /// Its texts that are secrets.
    pub secrets: Vec<Secret>,
    /// Where the values of its references were written.
    pub origins: Origins,
    tree: Arc<Table>,
}

impl Unit {
    /// How long activation may take; `None` for targets and where nothing was said.
    pub fn deadline(&self) -> Option<Duration> {
        self.kind.deadline()
    }

    /// The unit as it was written, with references replaced and drop-ins merged; a secret as it may be shown.
    pub fn tree(&self) -> &Table {
        &self.tree
    }

    /// Where the value of a key stands: `["mount", "target"]`. The whole unit where the key is not written.
    pub fn span_of(&self, path: &[&str]) -> Span {
        let Some((first, rest)) = path.split_first() else { return self.span };
        self.tree.get(first).and_then(|node| node.at(rest)).map_or(self.span, |node| node.span)
    }
}

/// The kind of a unit file, by the one table that names it.
pub(crate) fn kind_of(
    tree: &Table,
    span: Span,
    findings: &mut Vec<Diagnostic>,
) -> Option<KindName> {
    let mut kinds = tree.iter().filter_map(|e| Some((KindName::from_word(&e.key)?, e)));
    let Some((kind, first)) = kinds.next() else {
        // A table whose name is nearly a kind is a slip of the kind, not an unknown key.
        let words = KindName::ALL.iter().map(|k| k.as_str());
        for entry in tree.iter().filter(|e| Words::known().iter().all(|k| k.name != e.key)) {
            if let Some(near) = nearest(&entry.key, words.clone())
                && entry.node.as_table().is_some()
            {
                let message = format!("unknown kind `{}`", crate::keys::clip(&entry.key));
                let found = Diagnostic::new("unknown-kind", entry.key_span, message)
                    .label("no kind of unit");
                findings.push(found.help(format!("did you mean `[{near}]`?")));
                return None;
            }
        }
        let found = Diagnostic::new("missing-kind", span, "the unit has no kind");
        let all = words.map(|k| format!("[{k}]")).collect::<Vec<_>>().join(", ");
        findings.push(found.help(format!("one table names the kind: {all}")));
        return None;
    };
    if let Some((other, entry)) = kinds.next() {
        let message = format!("the unit has two kinds, `{kind}` and `{other}`");
        let found = Diagnostic::new("two-kinds", entry.key_span, message).label("a second kind");
        findings.push(found.also(first.key_span, "the first kind").help("make it two unit files"));
        return None;
    }
    Some(kind)
}

/// Reports keys that no unit has, or that belong into another table of it.
pub(crate) fn check_keys(tree: &Table, kind: KindName, findings: &mut Vec<Diagnostic>) {
    let top = Words::known();
    for entry in tree.iter() {
        if top.iter().any(|k| k.name == entry.key) || KindName::from_word(&entry.key).is_some() {
            continue;
        }
        findings.push(match kind.keys().iter().find(|k| k.name == entry.key) {
            Some(_) => misplaced(&entry.key, entry.key_span, &format!("belongs into [{kind}]")),
            None => match nearest(&entry.key, kind.keys().iter().map(|k| k.name)) {
                Some(near) if nearest(&entry.key, top.iter().map(|k| k.name)).is_none() => {
                    misplaced(&entry.key, entry.key_span, "is not a key of units")
                        .help(format!("did you mean `{near}` in [{kind}]?"))
                }
                _ => unknown_key(&entry.key, entry.key_span, top),
            },
        });
    }
    let Some(table) = tree.get(kind.as_str()).and_then(Node::as_table) else { return };
    for entry in table.iter() {
        let known = |keys: &[Key]| keys.iter().any(|k| k.name == entry.key);
        if known(kind.keys()) {
            continue;
        }
        findings.push(if known(top) {
            misplaced(
                &entry.key,
                entry.key_span,
                &format!("belongs above [{kind}], at the top of the file"),
            )
        } else {
            match KindName::ALL.iter().find(|other| known(other.keys())) {
                Some(other)
                    if nearest(&entry.key, kind.keys().iter().map(|k| k.name)).is_none() =>
                {
                    misplaced(
                        &entry.key,
                        entry.key_span,
                        &format!("is a key of [{other}], not of [{kind}]"),
                    )
                }
                _ => unknown_key(&entry.key, entry.key_span, kind.keys()),
            }
        });
    }
}

fn misplaced(key: &str, span: Span, why: &str) -> Diagnostic {
    let key = crate::keys::clip(key);
    Diagnostic::new("misplaced-key", span, format!("misplaced key `{key}`: it {why}"))
        .label("not here")
}

/// Reads a unit whose references are replaced. Its keys were checked before.
///
/// # Errors
/// The tree, if it is no unit; `findings` say why.
pub(crate) fn decode(
    name: UnitName,
    template: Option<UnitName>,
    kind: KindName,
    tree: Table,
    span: Span,
    secrets: Vec<Secret>,
    findings: &mut Vec<Diagnostic>,
) -> Result<Unit, Table> {
    let moved = in_place(&tree, kind);
    let read = moved.as_ref().unwrap_or(&tree);
    let Some(table) = read.get(kind.as_str()) else { return Err(tree) };
    let before = findings.len();
    let words = Words::read(&mut Fields::new(read, span, Words::known(), findings));
    let decoded = Kind::decode(kind, table, findings);
    let (Some(words), Some(decoded)) = (words, decoded) else { return Err(tree) };
    if decoded.deadline().is_some_and(|d| d.is_zero()) {
        let at = table.at(&["timeout"]).map_or(table.span, |node| node.span);
        let found =
            Diagnostic::new("out-of-range", at, "the deadline is over before anything begins");
        findings.push(
            found
                .label("expected more than 0s")
                .help("0 does not stand for endless; say how long it may take"),
        );
    }
    if findings.len() != before {
        return Err(tree);
    }
    let mut tree = moved.unwrap_or(tree);
    let secret_file = matches!(&decoded, Kind::File(file) if file.secret);
    let secrets = secret::redact(&mut tree, secret_file, secrets);
    let key_span = tree.entry(kind.as_str()).map_or(span, |e| e.key_span);
    Ok(Unit {
        name,
        description: words.description.as_str().to_owned(),
        span: key_span,
        kind: decoded,
        requires: words.requires.0,
        wants: words.wants.0,
        binds_to: words.binds_to.0,
        after: words.after.0,
        before: words.before.0,
        conflicts: words.conflicts.0,
        part_of: words.part_of.0,
        condition: words.condition,
        failure: words.failure,
        duration: words.duration.map(|d| d.0),
        template,
        item: None,
        secrets,
        origins: Origins::default(),
        tree: Arc::new(tree),
    })
}

/// What the words of a unit refer to, each with its word, as far as that can be read before references are replaced.
pub(crate) fn references(tree: &Table) -> Vec<(&'static str, Reference)> {
    const WORDS: [&str; 7] =
        ["requires", "wants", "binds-to", "after", "before", "conflicts", "part-of"];
    let nodes = WORDS.iter().filter_map(|word| Some((*word, tree.get(word)?)));
    let single = nodes.flat_map(|(word, node)| {
        let items = match &node.value {
            Value::Array(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        items.iter().map(move |item| (word, item))
    });
    // What is wrong with one of them is reported where the unit is decoded.
    single.filter_map(|(w, item)| Some((w, Reference::decode(item, &mut Vec::new())?))).collect()
}

/// The unit with each key in the table where [`check_keys`] has said that it belongs, so that a misplaced key does not look as if
/// it were missing too; nothing if all stand where they belong.
fn in_place(tree: &Table, kind: KindName) -> Option<Table> {
    let known = |keys: &[Key], e: &Entry| keys.iter().any(|k| k.name == e.key);
    let inner = tree.get(kind.as_str()).and_then(Node::as_table)?;
    let up: Table = inner
        .iter()
        .filter(|e| known(Words::known(), e) && !known(kind.keys(), e))
        .cloned()
        .collect();
    let down: Table = tree
        .iter()
        .filter(|e| known(kind.keys(), e) && !known(Words::known(), e))
        .cloned()
        .collect();
    if up.is_empty() && down.is_empty() {
        return None;
    }
    let moved = |inner: &Table| {
        let mut moved = down.clone();
        moved.merge(inner);
        moved
    };
    let lower = tree.iter().cloned().map(|mut entry| {
        if entry.key == kind.as_str()
            && let Value::Table(inner) = &mut entry.node.value
        {
            *inner = moved(inner);
        }
        entry
    });
    let lower: Table = lower.collect();
    let mut tree = up;
    tree.merge(&lower);
    Some(tree)
}
