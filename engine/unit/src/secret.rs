//! Secrets: where they may stand, how they are shown, and that no drawn line holds one.
//!
//! A secret has a name and stands in a file of its own; `{{ secrets.NAME }}` is its value, in the content of a file and in the
//! environment of a program alone. Everything else ends up in a graph, a log or the list of processes. A `file` unit with
//! `secret = true` is one too.
//!
//! A finding is drawn with the lines around it, and a slip stands easily beside the content of a file that is a secret. When in
//! doubt (a slip in the word `secret` itself, a file that is no TOML) it counts as one.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::config::MachineConfig;
use crate::diagnostic::{Diagnostic, nearest};
use crate::keys::{Table as _, Value as Decoded, clip, mismatch};
use crate::kinds::KindName;
use crate::reference::is_reference;
use crate::shape::Shape;
use crate::source::{FileId, Sources, Span};
use crate::tree::{Entry, Node, Table, Value};
use crate::value::Content;

/// The table of the machine config that holds them.
pub(crate) const TABLE: &str = "secrets";

/// Keys of the machine config that are secrets themselves. Such a key may also name one: `token = "{{ secrets.NAME }}"`.
pub(crate) const KEYS: [&[&str]; 2] = [&["cluster", "token"], &["cluster", "kubeconfig"]];

/// Whether a name is that of a secret key, or of a table that holds one.
pub(crate) fn holds_a_key(path: &[&str]) -> bool {
    KEYS.iter().any(|key| key.starts_with(path))
}

/// The texts that are never shown, by their names.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secrets(BTreeMap<String, String>);

/// The names, and never the texts.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Decoded for Secrets {
    fn expected() -> String {
        "a table of texts by name such as { registry-password = \"…\" }".to_owned()
    }

    fn shape() -> Shape {
        Shape::Map {
            example: "registry-password",
            pattern: r"^[A-Za-z][A-Za-z0-9_-]*$",
            value: Box::new(Content::shape()),
        }
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Some(table) = node.as_table() else {
            findings.push(mismatch(node, &Self::expected()));
            return None;
        };
        let before = findings.len();
        let mut secrets = BTreeMap::new();
        for Entry { key, key_span, node } in table.iter() {
            if !is_name(key) {
                // The key is not repeated: it may be the secret, written into the wrong place.
                let found = Diagnostic::new("bad-name", *key_span, "not the name of a secret");
                findings.push(found.label("expected letters, digits, `-` and `_`, a letter first"));
            }
            match &node.value {
                Value::String(text) if text.contains('\0') => {
                    let message = "the secret holds a NUL character";
                    findings.push(Diagnostic::new("bad-value", node.span, message));
                }
                Value::String(text) => drop(secrets.insert(key.clone(), text.clone())),
                Value::Table(_) if key == TABLE => {
                    let found = mismatch(node, "a text");
                    findings.push(found.help("names stand at the top of a file of secrets"));
                }
                _ => findings.push(mismatch(node, "a text")),
            }
        }
        (findings.len() == before).then_some(Secrets(secrets))
    }
}

fn is_name(key: &str) -> bool {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.bytes().all(letters)
}

/// Where the secrets of a file of secrets stand: the texts, but all of it where there is something else than names and texts.
pub(crate) fn of_file(table: &Table, whole: Span) -> Vec<Span> {
    let sound = |entry: &Entry| is_name(&entry.key) && entry.node.as_str().is_some();
    match table.iter().all(sound) {
        true => table.iter().map(|entry| entry.node.span).collect(),
        false => vec![whole],
    }
}

/// A text of a unit that is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The key that holds it, such as `file.content`.
    pub key: String,
    /// SHA-256 of the text.
    pub hash: [u8; 32],
    /// The text itself is not here, but only what stands for it.
    pub missing: bool,
}

/// How a secret is shown: `<secret sha256:1a2b3c4d…>`.
pub fn shown(text: &str) -> String {
    let start = &Sha256::digest(text.as_bytes())[..4];
    let start: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("<secret sha256:{start}…>")
}

/// What stands for a secret whose text is elsewhere.
pub(crate) fn stand_in(name: &str) -> String {
    format!("<secret {name}>")
}

/// Whether a text is only what stands for a secret.
pub(crate) fn stands_for_one(text: &str) -> bool {
    let inside = text.strip_prefix("<secret ").and_then(|rest| rest.strip_suffix('>'));
    inside.is_some_and(|rest| !rest.contains(['<', '>', '\n']))
}

/// Finds the secrets of a unit whose references are replaced: `secrets` says where texts stand that hold one, and where only
/// something stands for it. A secret anywhere else is reported.
pub(crate) fn place(
    tree: &mut Table,
    kind: KindName,
    secrets: &[(Span, bool)],
    findings: &mut Vec<Diagnostic>,
) -> Vec<Secret> {
    let mut here = Vec::new();
    if secrets.is_empty() {
        return here;
    }
    let mut walk = Walk { kind, secrets, here: &mut here, findings };
    for entry in tree.iter() {
        walk.node(&entry.key, &entry.node);
    }
    if here.iter().any(|secret| secret.key == "file.content")
        && let Some(Value::Table(file)) = tree.entry_mut("file").map(|e| &mut e.node.value)
    {
        match file.get("secret") {
            None => {
                let at = file.get("content").map_or(Span::whole(FileId::DEFAULT), |node| node.span);
                let node = Node { span: at, value: Value::Boolean(true) };
                file.push(Entry { key: "secret".to_owned(), key_span: at, node });
            }
            Some(Node { span, value: Value::Boolean(false) }) => {
                let message =
                    "the content holds a secret, and `secret = false` lets others read it";
                let found = Diagnostic::new("misplaced-secret", *span, message);
                findings.push(found.label("not for a secret").help("leave the key out"));
            }
            Some(_) => {}
        }
    }
    here
}

struct Walk<'a> {
    kind: KindName,
    secrets: &'a [(Span, bool)],
    here: &'a mut Vec<Secret>,
    findings: &'a mut Vec<Diagnostic>,
}

impl Walk<'_> {
    // Recursion is bounded: the parser refuses more than 80 levels of nesting.
    fn node(&mut self, path: &str, node: &Node) {
        match &node.value {
            Value::String(text) => self.text(path, text, node.span),
            Value::Array(items) => items.iter().for_each(|item| self.node(path, item)),
            Value::Table(table) => {
                table.iter().for_each(|e| self.node(&format!("{path}.{}", e.key), &e.node));
            }
            _ => {}
        }
    }

    fn text(&mut self, path: &str, text: &str, span: Span) {
        let Some((_, missing)) = self.secrets.iter().find(|(at, _)| *at == span) else { return };
        let kind = self.kind.as_str();
        let environment =
            path.strip_prefix(kind).and_then(|rest| rest.strip_prefix(".environment."));
        if path == "file.content" || environment.is_some_and(|name| !name.contains('.')) {
            let hash = Sha256::digest(text.as_bytes()).into();
            self.here.push(Secret { key: path.to_owned(), hash, missing: *missing });
        } else {
            self.findings.push(misplaced(span));
        }
    }
}

/// The finding for a secret where it would be shown.
pub(crate) fn misplaced(span: Span) -> Diagnostic {
    Diagnostic::new("misplaced-secret", span, "a secret may not stand here")
        .label("would be shown")
        .help("secrets go into the `content` of a [file], and into the `environment` of a program")
}

/// The secrets of a unit, and the unit with each shown as what it is shown as. `secrets` are those that [`place`] found.
pub(crate) fn redact(tree: &mut Table, secret_file: bool, mut secrets: Vec<Secret>) -> Vec<Secret> {
    if let Some(node) = tree.get("file").and_then(|file| file.at(&["content"]))
        && let (Some(text), true) = (node.as_str(), secret_file && secrets.is_empty())
    {
        let (hash, missing) = (Sha256::digest(text.as_bytes()).into(), stands_for_one(text));
        secrets.push(Secret { key: "file.content".to_owned(), hash, missing });
    }
    for secret in &secrets {
        let mut parts = secret.key.split('.');
        let first = parts.next().and_then(|part| tree.entry_mut(part)).map(|e| &mut e.node);
        let found = parts.try_fold(first, |node, part| match &mut node?.value {
            Value::Table(table) => Some(table.entry_mut(part).map(|e| &mut e.node)),
            _ => None,
        });
        if let Some(Some(node)) = found
            && let Value::String(text) = &mut node.value
        {
            *text = shown(text);
        }
    }
    secrets
}

/// Findings about a text that is a secret say nothing of it but that it is wrong.
pub(crate) fn hush(findings: &mut [Diagnostic], secrets: &[Span]) {
    for found in findings.iter_mut().filter(|found| secrets.contains(&found.label.span)) {
        if matches!(found.code, "bad-value" | "unknown-value") {
            found.message = "the secret is not valid here".to_owned();
            found.help = None;
        }
    }
}

/// Shows the secrets of a machine config, which has every default, as what they are shown as. Secrets stand at `secrets`, and
/// wherever a drop-in has the content of a file of which nobody knows that it is none: its unit is not `known`.
pub(crate) fn show_config(config: &mut Table, secrets: &[Span], known: impl Fn(&str) -> bool) {
    if let Some(Value::Table(table)) = config.entry_mut(TABLE).map(|e| &mut e.node.value) {
        table.entries_mut().for_each(|entry| show(&mut entry.node));
    }
    for key in KEYS {
        if let Some(Value::Table(table)) = config.entry_mut(key[0]).map(|e| &mut e.node.value)
            && let Some(entry) = table.entry_mut(key[1])
        {
            show(&mut entry.node);
        }
    }
    let units = config.entry_mut("units").map(|e| &mut e.node.value);
    let Some(Value::Table(units)) = units else { return };
    for unit in units.entries_mut() {
        let Value::Table(over) = &mut unit.node.value else { continue };
        let said = content(KindName::File, over).is_some();
        if let Some(Value::Table(file)) = over.entry_mut("file").map(|e| &mut e.node.value)
            && let Some(entry) = file.entry_mut("content")
            && (said || secrets.contains(&entry.node.span) || !known(&unit.key))
            // A reference to a secret is none itself.
            && !entry.node.as_str().is_some_and(is_reference)
        {
            show(&mut entry.node);
        }
    }
}

fn show(node: &mut Node) {
    if let Value::String(text) = &mut node.value
        && !stands_for_one(text)
    {
        *text = shown(text);
    }
}

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

/// Where secrets stand in one file of a machine config. With `patched`, other files are laid over it or below it, and whether the
/// content of a file is one may be said there.
pub(crate) fn inline(config: &Table, patched: bool) -> Vec<Span> {
    let table = |key| config.get(key).and_then(Node::as_table).into_iter().flat_map(Table::iter);
    let mut texts = Vec::new();
    table(TABLE).for_each(|entry| leaves(&entry.node, &mut texts));
    let known = MachineConfig::known();
    for key in KEYS {
        let beside = known.iter().find(|k| k.name == key[0]).map_or(&[][..], |k| (k.inner)());
        // A key that nobody knows may be a slip of this one.
        let meant = |name: &str| name == key[1] || beside.iter().all(|k| k.name != name);
        for entry in table(key[0]).filter(|entry| meant(&entry.key)) {
            if !entry.node.as_str().is_some_and(is_reference) {
                leaves(&entry.node, &mut texts);
            }
        }
    }
    let contents = table("units").filter_map(|entry| {
        let over = entry.node.as_table()?;
        let any = || over.get("file")?.at(&["content"]).map(|node| node.span);
        content(KindName::File, over).or_else(|| any().filter(|_| patched))
    });
    texts.into_iter().chain(contents).collect()
}

/// The places of all that is no table; a table's own is its header alone.
fn leaves(node: &Node, all: &mut Vec<Span>) {
    match node.as_table() {
        Some(table) => table.iter().for_each(|entry| leaves(&entry.node, all)),
        None => all.push(node.span),
    }
}

/// Hides secrets in what is drawn: these spans, and the whole of every file that was not understood and may hold one.
pub(crate) fn hide(sources: &mut Sources, secrets: &[Span], understood: &HashSet<FileId>) {
    for span in secrets {
        sources.hide(*span);
    }
    for file in sources.files().filter(|f| !understood.contains(f)) {
        let text = sources.text(file);
        // The content may stand in the machine config and the word `secret` in the unit that it is for.
        if text.contains("secret")
            || text.contains("[units") && text.contains("content")
            || KEYS.iter().any(|key| key.iter().all(|part| text.contains(part)))
        {
            sources.hide(Span { file, start: 0, end: text.len() as u32 });
        }
    }
}

/// The finding for a name of a secret that is not known.
pub(crate) fn unknown<'a>(
    name: &str,
    span: Span,
    known: impl Iterator<Item = &'a str>,
) -> Diagnostic {
    let known: Vec<&str> = known.collect();
    let message = format!("there is no secret `{}`", clip(name));
    let found = Diagnostic::new("unknown-reference", span, message);
    match nearest(name, known.iter().copied()) {
        Some(near) => found.help(format!("did you mean `secrets.{near}`?")),
        None => found
            .label("no text of this name")
            .help("it stands in a file of its own: osctl takes it with --secrets FILE"),
    }
}
