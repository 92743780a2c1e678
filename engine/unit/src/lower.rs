//! Lowering: unit files and a machine config become units. References are replaced, templates are instantiated,
//! drop-ins are merged; every fault of every file is in one report.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::MachineConfig;
use crate::diagnostic::{Diagnostic, Report};
use crate::keys::{Key, Table as _, decode_table};
use crate::kinds::KindName;
use crate::name::UnitName;
use crate::reference::{Context, Engine, UNSET, effective, resolve, resolve_config};
use crate::source::{FileId, Sources, Span};
use crate::tree::{Entry, Node, Table, Value, parse};
use crate::unit::{Unit, check_keys, decode, kind_of};

/// Units and config, read and valid, with the files that they come from.
#[derive(Debug, Clone)]
pub struct UnitSet {
    /// The files, for provenance and later findings.
    pub sources: Arc<Sources>,
    /// The units, in the order of their files.
    pub units: Vec<Unit>,
    /// Templates and their instances; a template may have none.
    pub templates: HashMap<UnitName, Vec<UnitName>>,
    /// The machine config.
    pub config: MachineConfig,
}

/// Texts that were read, before anything is known of them.
#[derive(Debug, Default)]
pub struct Input {
    /// The files.
    pub sources: Sources,
    /// The unit files, each with its stem (`data` of `units/storage/data.toml`).
    pub units: Vec<(FileId, String)>,
    /// The machine config.
    pub config: Option<FileId>,
    /// What went wrong while reading.
    pub findings: Vec<Diagnostic>,
}

impl Input {
    /// Adds a unit file; `path` is shown in findings and its stem names the unit.
    pub fn unit(&mut self, path: &str, text: impl Into<Arc<str>>) {
        let file = self.sources.add(path, text);
        let name = path.rsplit('/').next().unwrap_or(path);
        self.units.push((file, name.strip_suffix(".toml").unwrap_or(name).to_owned()));
    }

    /// Sets the machine config.
    pub fn config(&mut self, path: &str, text: impl Into<Arc<str>>) {
        self.config = Some(self.sources.add(path, text));
    }
}

/// What lowering gave: the units that are whole, and everything that is wrong with the others.
#[derive(Debug)]
pub struct Lowered {
    /// The files, for provenance and later findings.
    pub sources: Arc<Sources>,
    /// The units that could be read, in the order of their files.
    pub units: Vec<Unit>,
    /// Templates and their instances.
    pub templates: HashMap<UnitName, Vec<UnitName>>,
    /// The machine config, if it could be read.
    pub config: Option<MachineConfig>,
    /// What is wrong.
    pub findings: Vec<Diagnostic>,
    /// Units that exist and could not be read. To name one of them is no mistake.
    pub broken: HashSet<UnitName>,
    /// Some files could not be read so far that their names are known; any name might be theirs.
    pub nameless: bool,
}

impl Lowered {
    /// The units, if nothing is wrong.
    ///
    /// # Errors
    /// The report of all findings, sorted by place.
    pub fn finish(self) -> Result<UnitSet, Report> {
        let Lowered { sources, units, templates, config, findings, .. } = self;
        match config {
            Some(config) if findings.is_empty() => {
                Ok(UnitSet { sources, units, templates, config })
            }
            _ => Err(Report::new(sources, findings)),
        }
    }
}

/// Lowers everything that was read.
///
/// # Errors
/// The report of all findings, sorted by place.
pub fn lower(input: Input) -> Result<UnitSet, Report> {
    lower_partly(input).finish()
}

/// Lowers what can be lowered, so that the graph of it can be checked too, and all findings go into one report.
pub fn lower_partly(input: Input) -> Lowered {
    let Input { mut sources, units, config, mut findings } = input;
    let mut nameless = !findings.is_empty();
    // Without a config everything has its default.
    let config = config.unwrap_or_else(|| sources.add("(default config)", "schema = 1\n"));
    let sources = Arc::new(sources);

    let config = Config::read(&sources, config, &mut findings);
    let engine = Engine::new(&config.effective, MachineConfig::known());
    let mut lowering = Lowering {
        config: &config.effective,
        engine,
        drop_ins: &config.drop_ins,
        used: vec![false; config.drop_ins.iter().count()],
        units: Vec::new(),
        templates: HashMap::new(),
        first: HashMap::new(),
        broken: HashSet::new(),
        findings,
    };
    for (file, stem) in &units {
        nameless |= !lowering.file(&sources, *file, stem);
    }
    // With a file of unknown name, a drop-in for its unit would look as if the unit did not exist.
    if !nameless {
        lowering.unused_drop_ins();
    }
    let Lowering { units, templates, findings, mut broken, first, .. } = lowering;
    if config.decoded.is_none() {
        // Which instances a template has is not known without the config.
        broken.extend(templates.keys().cloned());
        nameless |= !templates.is_empty();
    }
    let whole: HashSet<&UnitName> = units.iter().map(|u| &u.name).chain(templates.keys()).collect();
    broken.extend(first.into_keys().filter(|name| !whole.contains(name)));
    Lowered { sources, units, templates, config: config.decoded, findings, broken, nameless }
}

struct Config {
    decoded: Option<MachineConfig>,
    effective: Table,
    drop_ins: Table,
}

impl Config {
    fn read(sources: &Sources, file: FileId, findings: &mut Vec<Diagnostic>) -> Self {
        let before = findings.len();
        let mut node = parse(sources, file, findings);
        if let Value::Table(table) = &mut node.value
            && findings.len() == before
        {
            resolve_config(table, MachineConfig::known(), findings);
        }
        // A key that is missing altogether is missing at the top.
        node.span.end = node.span.start;
        let decoded = match findings.len() == before {
            true => decode_table::<MachineConfig>(&node, findings),
            false => None,
        };
        // A broken config must not make every unit that refers to it look broken too: units are then read
        // with the default config.
        let table = node.as_table().filter(|_| decoded.is_some()).cloned().unwrap_or_default();
        let drop_ins = decoded.as_ref().map(|c| c.units.0.clone()).unwrap_or_default();
        Config { decoded, effective: effective(&table, MachineConfig::known()), drop_ins }
    }
}

struct Lowering<'a> {
    config: &'a Table,
    engine: Engine,
    drop_ins: &'a Table,
    used: Vec<bool>,
    units: Vec<Unit>,
    templates: HashMap<UnitName, Vec<UnitName>>,
    /// Where each name was given first.
    first: HashMap<UnitName, Span>,
    broken: HashSet<UnitName>,
    findings: Vec<Diagnostic>,
}

impl Lowering<'_> {
    /// Lowers one file; false when not even its name is known.
    fn file(&mut self, sources: &Sources, file: FileId, stem: &str) -> bool {
        let before = self.findings.len();
        let node = parse(sources, file, &mut self.findings);
        let Value::Table(mut tree) = node.value else { return false };
        if self.findings.len() != before {
            return false;
        }
        let Some(kind) = kind_of(&tree, Span::whole(file), &mut self.findings) else {
            return false;
        };
        let key_span = tree.entry(kind.as_str()).map_or(node.span, |e| e.key_span);
        let name = match UnitName::from_stem(kind, stem) {
            Ok(name) => name,
            Err(why) => {
                let found = Diagnostic::new(
                    "bad-name",
                    key_span,
                    format!("`{stem}.toml` cannot name a unit: {why}"),
                );
                self.findings.push(found);
                return false;
            }
        };
        if let Some(first) = self.first.get(&name) {
            let found =
                Diagnostic::new("named-twice", key_span, format!("two units are called `{name}`"));
            self.findings.push(found.label("the second").also(*first, "the first"));
            return true;
        }
        self.first.insert(name.clone(), key_span);
        self.drop_in(&name, &mut tree);
        check_keys(&tree, kind, &mut self.findings);
        match tree.get("for-each").cloned() {
            Some(each) => self.template(name, kind, &tree, node.span, &each),
            None => self.instance(name, None, kind, tree, node.span, None),
        }
        true
    }

    /// Makes the instances of a template.
    fn template(&mut self, name: UnitName, kind: KindName, tree: &Table, span: Span, each: &Node) {
        let Some(items) = self.items(each.as_str(), each.span) else { return };
        let mut instances = Vec::new();
        for (key, item) in items {
            let instance = match name.instance(&key) {
                Ok(instance) => instance,
                Err(why) => {
                    let found =
                        Diagnostic::new("bad-name", each.span, format!("`{name}@{key}`: {why}"));
                    self.findings.push(found.also(item.span, "this item"));
                    continue;
                }
            };
            let mut tree = tree.clone();
            self.drop_in(&instance, &mut tree);
            check_keys(&tree, kind, &mut self.findings);
            instances.push(instance.clone());
            self.instance(instance, Some(name.clone()), kind, tree, span, Some(&item));
        }
        self.templates.insert(name, instances);
    }

    fn instance(
        &mut self,
        name: UnitName,
        template: Option<UnitName>,
        kind: KindName,
        tree: Table,
        span: Span,
        item: Option<&Node>,
    ) {
        let context = Context::new(self.config, MachineConfig::known(), &self.engine, item);
        let before = self.findings.len();
        let mut node = Node { span, value: Value::Table(tree) };
        resolve(&mut node, &context, &mut self.findings);
        let Value::Table(tree) = node.value else { return };
        // A reference that failed stays in its place as text, and would be reported again as a bad value.
        let unit = match self.findings.len() == before {
            true => decode(
                name.clone(),
                template,
                kind,
                tree,
                Span { end: span.start, ..span },
                &mut self.findings,
            ),
            false => None,
        };
        match unit {
            Some(unit) => self.units.push(unit),
            None => self.broken.extend([name]),
        }
    }

    fn drop_in(&mut self, name: &UnitName, tree: &mut Table) {
        for (i, entry) in self.drop_ins.iter().enumerate() {
            if entry.key == name.as_str() {
                self.used[i] = true;
                if let Some(over) = entry.node.as_table() {
                    tree.merge(over);
                }
            }
        }
    }

    fn unused_drop_ins(&mut self) {
        let units = self.units.iter().map(|u| &u.name);
        let names: Vec<&str> = units.chain(self.first.keys()).map(UnitName::as_str).collect();
        for (entry, _) in self.drop_ins.iter().zip(&self.used).filter(|(_, used)| !**used) {
            let message = format!("unknown unit `{}`", crate::keys::clip(&entry.key));
            let found = Diagnostic::new("unknown-unit", entry.key_span, message)
                .label("no unit of this name");
            self.findings.push(found.did_you_mean(&entry.key, names.iter().copied()));
        }
    }

    /// The items of a list in the config, each with the key that names its instance.
    fn items(&mut self, path: Option<&str>, span: Span) -> Option<Vec<(String, Node)>> {
        let Some(path) = path else {
            let found = Diagnostic::new(
                "wrong-type",
                span,
                "expected the name of a list in the machine config",
            );
            self.findings.push(found.label("for example \"network.interfaces\""));
            return None;
        };
        let mut list = Node { span, value: Value::String(format!("{{{{ {path} }}}}")) };
        let context = Context::new(self.config, MachineConfig::known(), &self.engine, None);
        let before = self.findings.len();
        let set = resolve(&mut list, &context, &mut self.findings);
        if self.findings.len() != before {
            return None;
        }
        let keys = keys_at(path);
        let items = match list.value {
            _ if !set => Vec::new(),
            Value::Array(items) => items.into_iter().map(|item| named(item, keys)).collect(),
            Value::Table(table) => table.iter().map(|e| Some((e.key.clone(), pair(e)))).collect(),
            _ => vec![None],
        };
        if items.iter().any(Option::is_none) {
            let message =
                format!("`{}` is no list that instances can be made of", crate::keys::clip(path));
            let found = Diagnostic::new("wrong-type", span, message);
            self.findings
                .push(found.label("expected an array of texts, of tables with `name`, or a table"));
            return None;
        }
        Some(items.into_iter().flatten().collect())
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
