//! Lowering one unit file: its kind, its name, its drop-ins, and the unit or the instances that it makes.

use std::collections::{HashMap, HashSet};

use super::{Unread, forgive};
use crate::config::{Config, MachineConfig};
use crate::diagnostic::{Diagnostic, Label, Nearest};
use crate::keys::{Table as _, Text as _, Value as _, clip};
use crate::kinds::KindName;
use crate::name::UnitName;
use crate::origin::Origins;
use crate::patch::{Known, lay};
use crate::reference::{Context, Engine, Item, Outcome, resolve};
use crate::secret;
use crate::source::{FileId, Sources, Span};
use crate::tree::{Entry, Node, Table, Value, parse};
use crate::unit::{Unit, check_keys, decode, kind_of, references};
use crate::words::{ConfigKeys, Reference};

/// A unit file while it is lowered, with the drop-ins for it laid on top.
pub(super) struct Written {
    pub(super) name: UnitName,
    pub(super) kind: KindName,
    /// Where it says what it is: the name of the kind's table.
    at: Span,
    pub(super) tree: Table,
    /// The whole file.
    pub(super) span: Span,
}

/// What one file says, as far as that can be told without the other files.
pub(super) struct Read {
    findings: Vec<Diagnostic>,
    /// The file, once it is known whether it holds a secret, and where that stands.
    understood: Option<(FileId, Option<Span>)>,
    written: Option<Written>,
    /// What the unit is, where no other file has a say in it: then it is written with no tree any more.
    decoded: Option<Decoded>,
}

/// What decoding a unit gave.
struct Decoded {
    unit: Option<Unit>,
    findings: Vec<Diagnostic>,
    /// What it refers to, if it is no unit.
    idle: Vec<(&'static str, Reference)>,
}

/// The state of lowering: what there is so far, and what is wrong with it.
pub(super) struct Lowering<'a> {
    pub(super) config: &'a Config,
    pub(super) engine: Engine,
    /// Whether secrets that are nowhere are elsewhere.
    pub(super) elsewhere: bool,
    /// Places in the config's drop-ins, by the unit's name.
    drop_ins: HashMap<&'a str, (Span, &'a Node)>,
    used: HashSet<&'a str>,
    /// Where each name was given first.
    pub(super) first: HashMap<UnitName, Span>,
    pub(super) done: Done,
}

/// What lowering has made.
pub(super) struct Done {
    pub(super) units: Vec<Unit>,
    pub(super) templates: HashMap<UnitName, Vec<UnitName>>,
    pub(super) idle: Vec<(&'static str, Reference)>,
    pub(super) findings: Vec<Diagnostic>,
    pub(super) unread: Unread,
    /// Where secrets stand.
    pub(super) secrets: Vec<Span>,
    /// Files of which it is known whether they hold a secret.
    pub(super) understood: HashSet<FileId>,
}

/// A key that is missing because it refers to what is not set: tells of the reference.
fn blame_reference(found: &mut Diagnostic, unset: &[Entry]) {
    let of = |entry: &&Entry| found.message == format!("missing key `{}`", entry.key);
    if let Some(entry) = unset.iter().find(of) {
        let reference = entry.node.as_str().unwrap_or_default();
        found.code = "unset-reference";
        found.message = format!("`{}` is needed, and `{}` is not set", entry.key, clip(reference));
        found.label = Label { span: entry.node.span, text: "stands for nothing".to_owned() };
        found.help = Some("set it in the machine config".to_owned());
    }
}

impl<'a> Lowering<'a> {
    pub(super) fn new(
        config: &'a Config,
        elsewhere: bool,
        findings: Vec<Diagnostic>,
        unread: Unread,
    ) -> Self {
        let drop_ins = config.drop_ins.iter();
        let drop_ins = drop_ins.map(|e| (e.key.as_str(), (e.key_span, &e.node))).collect();
        Lowering {
            config,
            elsewhere,
            engine: Engine::new(&config.effective, MachineConfig::known()),
            drop_ins,
            used: HashSet::new(),
            first: HashMap::new(),
            done: Done {
                units: Vec::new(),
                templates: HashMap::new(),
                idle: Vec::new(),
                findings,
                unread,
                secrets: config.secrets.clone(),
                understood: config.understood.clone(),
            },
        }
    }

    /// Reads one file, and decodes its unit if that takes nothing but the file and the config.
    pub(super) fn read(&self, sources: &Sources, file: FileId, stem: &str) -> Read {
        let mut read =
            Read { findings: Vec::new(), understood: None, written: None, decoded: None };
        read.written = self.written(sources, file, stem, &mut read);
        if let Some(written) = &mut read.written
            && !self.drop_ins.contains_key(written.name.as_str())
            && ["for-each", "if-set"].iter().all(|word| written.tree.get(word).is_none())
        {
            let Written { name, kind, tree, span, .. } = written;
            let mut findings = Vec::new();
            check_keys(tree, *kind, &mut findings);
            let tree = std::mem::take(tree);
            let mut decoded = self.decoded(name.clone(), None, *kind, tree, *span, Item::None);
            findings.append(&mut decoded.findings);
            read.decoded = Some(Decoded { findings, ..decoded });
        }
        read
    }

    /// Takes in what one file says.
    pub(super) fn file(&mut self, stem: &str, read: Read) {
        let Read { findings, understood, written, decoded } = read;
        self.done.findings.extend(findings);
        if let Some((file, secret)) = understood {
            self.done.understood.insert(file);
            self.done.secrets.extend(secret);
        }
        match written {
            Some(written) => self.unit(written, decoded),
            // Any unit that such a file can name may be in it.
            None => drop(self.done.unread.stems.insert(stem.to_owned())),
        }
    }

    /// Reads a file so far that its kind and its name are known.
    fn written(
        &self,
        sources: &Sources,
        file: FileId,
        stem: &str,
        read: &mut Read,
    ) -> Option<Written> {
        let findings = &mut read.findings;
        let node = parse(sources, file, findings);
        let Value::Table(tree) = node.value else { return None };
        if !findings.is_empty() {
            return None;
        }
        let kind = kind_of(&tree, Span::whole(file), findings)?;
        read.understood = Some((file, secret::content(kind, &tree)));
        let at = tree.entry(kind.as_str()).map_or(node.span, |e| e.key_span);
        match UnitName::from_stem(kind, stem) {
            Ok(name) => Some(Written { name, kind, at, tree, span: node.span }),
            Err(why) => {
                let message = format!("`{}.toml` cannot name a unit: {why}", clip(stem));
                findings.push(Diagnostic::new("bad-name", at, message));
                None
            }
        }
    }

    fn unit(&mut self, mut written: Written, decoded: Option<Decoded>) {
        if !self.name(&written.name, written.at) {
            return;
        }
        if let Some(decoded) = decoded {
            return self.keep(written.name, decoded);
        }
        self.drop_in(&written.name, written.kind, &mut written.tree);
        check_keys(&written.tree, written.kind, &mut self.done.findings);
        if let Some(keys) = written.tree.get("if-set").cloned()
            && !self.one_is_set(&keys)
        {
            return self.absent(written);
        }
        match written.tree.get("for-each").cloned() {
            Some(each) => self.template(&written, &each),
            None => {
                let Written { name, kind, tree, span, .. } = written;
                self.instance(name, None, kind, tree, span, Item::None);
            }
        }
    }

    /// Whether the machine config sets one of the keys of an `if-set`. What is wrong with them is reported.
    fn one_is_set(&mut self, keys: &Node) -> bool {
        let Some(ConfigKeys(names)) = ConfigKeys::decode(keys, &mut self.done.findings) else {
            return false;
        };
        let mut one = false;
        for name in names {
            let name = name.as_str();
            if name.contains(['{', '}']) {
                let message =
                    format!("`{}` is a reference, where the name of a key stands", clip(name));
                let found = Diagnostic::new("wrong-type", keys.span, message);
                self.done.findings.push(found.label("for example \"cluster.token\""));
                continue;
            }
            let value = Value::String(format!("{{{{ {name} }}}}"));
            let context = self.context(Item::None);
            let mut found = Vec::new();
            one |= resolve(&mut Node { span: keys.span, value }, &context, &mut found);
            self.done.findings.extend(found);
        }
        one
    }

    /// Checks a unit that this machine does not have, as far as it does not depend on what is not set.
    fn absent(&mut self, written: Written) {
        let Written { name, kind, tree, span, .. } = written;
        let decoded = self.decoded(name.clone(), None, kind, tree.clone(), span, Item::None);
        // A key whose whole value is not set is missing.
        let unset = |found: &Diagnostic| matches!(found.code, "unset-reference" | "missing-key");
        self.done.findings.extend(decoded.findings.into_iter().filter(|found| !unset(found)));
        self.done.idle.extend(references(&tree));
        self.done.templates.insert(name, Vec::new());
    }

    /// Takes a name for a unit; false when another one has it.
    pub(super) fn name(&mut self, name: &UnitName, at: Span) -> bool {
        if let Some(first) = self.first.get(name) {
            let found =
                Diagnostic::new("named-twice", at, format!("two units are called `{name}`"));
            self.done.findings.push(found.label("the second").also(*first, "the first"));
            return false;
        }
        self.first.insert(name.clone(), at);
        true
    }

    /// Resolves and decodes a unit, or an instance of a template.
    pub(super) fn instance(
        &mut self,
        name: UnitName,
        template: Option<UnitName>,
        kind: KindName,
        tree: Table,
        span: Span,
        item: Item<'_>,
    ) {
        let decoded = self.decoded(name.clone(), template, kind, tree, span, item);
        self.keep(name, decoded);
    }

    fn keep(&mut self, name: UnitName, decoded: Decoded) {
        self.done.findings.extend(decoded.findings);
        self.done.idle.extend(decoded.idle);
        match decoded.unit {
            Some(unit) => self.done.units.push(unit),
            None => drop(self.done.unread.units.insert(name)),
        }
    }

    fn decoded(
        &self,
        name: UnitName,
        template: Option<UnitName>,
        kind: KindName,
        tree: Table,
        span: Span,
        item: Item<'_>,
    ) -> Decoded {
        let mut findings = Vec::new();
        let mut node = Node { span, value: Value::Table(tree) };
        let context = self.context(item);
        resolve(&mut node, &context, &mut findings);
        let Outcome { unknown, unset, secrets, written } = context.outcome();
        let origins = Origins::new(written);
        let Value::Table(mut tree) = node.value else {
            return Decoded { unit: None, findings, idle: Vec::new() };
        };
        let placed = secret::place(&mut tree, kind, &secrets, &mut findings);
        let resolved = findings.len();
        // A key that is missing altogether is missing at the top.
        let top = Span { end: span.start, ..span };
        let hushed: Vec<_> = secret::content(kind, &tree)
            .into_iter()
            .chain(secrets.iter().map(|(at, _)| *at))
            .collect();
        let decoded = decode(name, template, kind, tree, top, placed, &mut findings);
        secret::hush(&mut findings[resolved..], &hushed);
        forgive(&mut findings, 0, resolved, &unknown);
        for found in findings.iter_mut().filter(|d| d.code == "missing-key") {
            blame_reference(found, &unset);
        }
        // What failed to be replaced is wrong where it stands.
        let decoding = findings.iter_mut().filter(|d| !d.code.ends_with("-reference"));
        decoding.for_each(|found| origins.blame(found));
        let sound = findings.is_empty() && unknown.is_empty();
        if self.config.decoded.is_none() {
            // It may be set in the config that could not be read.
            findings.retain(|d| d.code != "unset-reference");
        }
        match decoded {
            Ok(mut unit) if sound => {
                unit.origins = origins;
                Decoded { unit: Some(unit), findings, idle: Vec::new() }
            }
            Ok(unit) => Decoded { unit: None, findings, idle: references(unit.tree()) },
            Err(tree) => Decoded { unit: None, findings, idle: references(&tree) },
        }
    }

    /// What references mean in a unit or in the instance of an item.
    pub(super) fn context<'b>(&'b self, item: Item<'b>) -> Context<'b> {
        let config = &self.config.effective;
        Context::new(config, MachineConfig::known(), &self.engine, item, self.elsewhere)
    }

    /// Checks a template that makes no instance, as far as it does not depend on the item.
    pub(super) fn idle(&mut self, written: &Written, item: Item<'_>) {
        let Written { name, kind, tree, span, .. } = written;
        let tree = tree.iter().filter(|e| e.key != "for-each").cloned().collect();
        let decoded = self.decoded(name.clone(), None, *kind, tree, *span, item);
        self.done.findings.extend(decoded.findings);
        self.done.idle.extend(decoded.idle);
    }

    /// Lays the drop-in for a unit over it; false when there is none.
    pub(super) fn drop_in(&mut self, name: &UnitName, kind: KindName, tree: &mut Table) -> bool {
        let Some((key, (_, node))) = self.drop_ins.get_key_value(name.as_str()) else {
            return false;
        };
        self.used.insert(key);
        // What is no table was reported with the config.
        let Some(over) = node.as_table() else { return false };
        let other = |key: &str| KindName::from_word(key).filter(|other| *other != kind);
        for entry in over.iter() {
            if let Some(other) = other(&entry.key) {
                let message = format!("`{name}` is a {kind} and cannot be made a {other}");
                let found = Diagnostic::new("two-kinds", entry.key_span, message);
                self.done.findings.push(found.label(format!("not [{kind}]")));
            }
        }
        let over = over.iter().filter(|e| other(&e.key).is_none()).cloned().collect();
        lay(tree, &over, Known::Unit, &mut self.done.findings);
        self.done.secrets.extend(secret::content(kind, tree));
        true
    }

    /// Reports drop-ins for units that do not exist.
    pub(super) fn unused_drop_ins(&mut self) {
        let units = self.done.units.iter().map(|u| &u.name);
        let mut nearest = Nearest::new(units.chain(self.first.keys()).map(UnitName::as_str));
        for entry in self.config.drop_ins.iter().filter(|e| !self.used.contains(e.key.as_str())) {
            if UnitName::parse(&entry.key).is_ok_and(|name| self.may_exist(&name)) {
                continue;
            }
            let message = format!("unknown unit `{}`", clip(&entry.key));
            let found = Diagnostic::new("unknown-unit", entry.key_span, message)
                .label("no unit of this name");
            self.done.findings.push(match (self.instances(&entry.key), nearest.to(&entry.key)) {
                (Some(instances), _) => found.help(instances),
                (None, Some(near)) => found.help(format!("did you mean `{near}`?")),
                (None, None) => found,
            });
        }
    }

    /// What to write instead of an instance that a template does not have.
    fn instances(&self, written: &str) -> Option<String> {
        const MOST: usize = 8;
        let (base, _) = written.split_once('@')?;
        let instances = self.done.templates.get(&UnitName::parse(base).ok()?)?;
        let names: Vec<_> = instances.iter().take(MOST).map(|name| format!("`{name}`")).collect();
        let more = if instances.len() > MOST { ", …" } else { "" };
        Some(match names.as_slice() {
            [] => format!("`{base}` has no instances in this config"),
            [only] => format!("did you mean {only}?"),
            _ => format!("the instances of `{base}` are {}{more}", names.join(", ")),
        })
    }

    fn may_exist(&self, name: &UnitName) -> bool {
        let base = || name.as_str().split_once('@').and_then(|(b, _)| UnitName::parse(b).ok());
        // The instances of templates are in the config.
        let instance = || {
            self.config.decoded.is_none()
                && base().is_some_and(|b| self.done.templates.contains_key(&b))
        };
        self.done.unread.may_hold(name) || instance()
    }

    pub(super) fn finish(self) -> Done {
        let Lowering { first, mut done, .. } = self;
        let whole: HashSet<&UnitName> =
            done.units.iter().map(|u| &u.name).chain(done.templates.keys()).collect();
        let broken: Vec<_> = first.into_keys().filter(|name| !whole.contains(name)).collect();
        done.unread.units.extend(broken);
        done
    }
}
