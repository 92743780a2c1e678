//! Resolving: names become edges, what units do implies more edges, and what contradicts itself is reported.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use keel_unit::diagnostic::{Diagnostic, Nearest, Report};
use keel_unit::keys::Text as _;
use keel_unit::lower::{Lowered, Unread};
use keel_unit::source::{Sources, Span};
use keel_unit::words::{Await, Reference};
use keel_unit::{Kind, KindName, Unit, UnitName, UnitSet, kinds};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::cycle::cycles;
use crate::digest::{Digest, digest};
use crate::graph::{BootGraph, Edge, EdgeKind, Provenance};
use crate::implied::imply;

/// Builds the graph of a machine.
///
/// # Errors
/// The report of everything that contradicts itself: unknown units, cycles, two claims of one thing.
pub fn resolve(set: UnitSet) -> Result<BootGraph, Report> {
    let UnitSet { sources, units, templates, idle, config } = set;
    let (graph, findings) = resolve_partly(Lowered {
        sources,
        units,
        templates,
        idle,
        config: Some(config),
        findings: Vec::new(),
        unread: Unread::default(),
        secrets: Vec::new(),
    });
    match findings.is_empty() {
        true => Ok(graph),
        false => Err(Report::new(graph.sources, findings)),
    }
}

/// Builds the graph of what could be lowered. The findings are those of the lowering and of the graph together.
pub(crate) fn resolve_partly(lowered: Lowered) -> (BootGraph, Vec<Diagnostic>) {
    let Lowered { sources, units, templates, idle, findings, unread, .. } = lowered;
    let mut units: Vec<Arc<Unit>> = units.into_iter().map(Arc::new).collect();
    // Node numbers follow names, so that nothing depends on the order of files.
    units.sort_by(|a, b| a.name.cmp(&b.name));
    let mut resolver = Resolver::new(units, templates, findings);
    resolver.unread = unread;
    resolver.claims();
    resolver.words();
    for (word, reference) in &idle {
        resolver.misplaced_await(word, reference);
        resolver.meant(reference, word);
    }
    resolver.suggest();
    imply(&mut resolver);
    resolver.finish(sources)
}

/// Most edges that one machine may have: a million take some hundred megabytes. Two templates of a thousand instances each,
/// one after the other, make as many.
const MOST_EDGES: usize = 1_000_000;

pub(crate) struct Resolver {
    pub(crate) units: Vec<Arc<Unit>>,
    names: HashMap<UnitName, NodeIndex>,
    templates: HashMap<UnitName, Vec<UnitName>>,
    /// By ends and kind, so that an edge with several reasons is there once: written before implied.
    edges: BTreeMap<(u32, u32, EdgeKind), Edge>,
    findings: Vec<Diagnostic>,
    unread: Unread,
    /// Unknown units, with the places of their findings; what each may have meant is asked once all are known.
    unknown: Vec<(usize, UnitName)>,
}

impl Resolver {
    fn new(
        units: Vec<Arc<Unit>>,
        templates: HashMap<UnitName, Vec<UnitName>>,
        findings: Vec<Diagnostic>,
    ) -> Self {
        let names =
            units.iter().enumerate().map(|(i, u)| (u.name.clone(), NodeIndex::new(i))).collect();
        Resolver {
            units,
            names,
            templates,
            edges: BTreeMap::new(),
            findings,
            unread: Unread::default(),
            unknown: Vec::new(),
        }
    }

    pub(crate) fn edge(&mut self, from: usize, to: usize, edge: Edge) {
        let key = (from as u32, to as u32, edge.kind);
        // An implied ordering is no news beside a written one, whatever that one awaits.
        let ordered =
            matches!(edge.kind, EdgeKind::After(_)) && matches!(edge.why, Provenance::Implied(_));
        if ordered
            && [Await::Started, Await::Ready, Await::Exited]
                .iter()
                .any(|a| self.edges.contains_key(&(key.0, key.1, EdgeKind::After(*a))))
        {
            return;
        }
        self.edges.entry(key).or_insert(edge);
    }

    /// The units that a reference means: one, or all instances of a template.
    fn meant(&mut self, reference: &Reference, word: &'static str) -> Vec<usize> {
        if let Some(node) = self.names.get(&reference.unit) {
            return vec![node.index()];
        }
        if let Some(instances) = self.templates.get(&reference.unit) {
            return instances.iter().filter_map(|i| self.names.get(i)).map(|n| n.index()).collect();
        }
        if !self.unread.may_hold(&reference.unit) {
            let message = format!("unknown unit `{}`", reference.unit);
            let found = Diagnostic::new("unknown-unit", reference.span, message);
            self.unknown.push((self.findings.len(), reference.unit.clone()));
            self.findings.push(found.label(format!("`{word}` names no unit")));
        }
        Vec::new()
    }

    /// Says what unknown units may have been meant to be.
    fn suggest(&mut self) {
        let known = self.names.keys().chain(self.templates.keys()).map(UnitName::as_str);
        let mut nearest = Nearest::new(known);
        for (finding, name) in &self.unknown {
            let near = self.other_form(name).or_else(|| nearest.to(name.as_str()));
            if let Some(near) = near {
                self.findings[*finding].help = Some(format!("did you mean `{near}`?"));
            }
        }
    }

    /// The unit that is called so without its kind, or as systemd would call it: `data` or `data.mount` for `mount.data`.
    fn other_form(&self, name: &UnitName) -> Option<&str> {
        let known = |name: &str| {
            let name = UnitName::parse(name).ok()?;
            let unit = self.names.get_key_value(&name).map(|(name, _)| name);
            let template = || self.templates.get_key_value(&name).map(|(name, _)| name);
            unit.or_else(template).map(UnitName::as_str)
        };
        let name = name.as_str();
        let kind = |(kind, rest)| KindName::from_word(kind).map(|kind| (kind, rest));
        let said = name.split_once('.').and_then(kind);
        let said = said.or_else(|| name.rsplit_once('.').map(|(rest, k)| (k, rest)).and_then(kind));
        match said {
            Some((kind, rest)) => known(rest).or_else(|| known(&format!("{kind}.{rest}"))),
            None => KindName::ALL.iter().find_map(|kind| known(&format!("{kind}.{name}"))),
        }
    }

    /// The edges that are written.
    fn words(&mut self) {
        for from in 0..self.units.len() {
            let unit = self.units[from].clone();
            let after = |r: &Reference| EdgeKind::After(r.awaits.unwrap_or(Await::Ready));
            type Kinds<'a> = &'a dyn Fn(&Reference) -> EdgeKind;
            let forward: [(&'static str, &[Reference], Kinds<'_>); 5] = [
                ("requires", &unit.requires, &|_| EdgeKind::Requires),
                ("wants", &unit.wants, &|_| EdgeKind::Wants),
                ("binds-to", &unit.binds_to, &|_| EdgeKind::BindsTo),
                ("after", &unit.after, &after),
                ("conflicts", &unit.conflicts, &|_| EdgeKind::Conflicts),
            ];
            for (word, references, kind) in forward {
                let mut said = HashSet::new();
                for reference in references {
                    self.misplaced_await(word, reference);
                    let only = references.len() == 1;
                    if !only && !said.insert((&reference.unit, kind(reference))) {
                        continue;
                    }
                    let all = self.meant(reference, word);
                    if self.too_many(&all, reference) {
                        return;
                    }
                    for to in all {
                        if from == to && word != "after" {
                            let message = format!("`{}` names itself", unit.name);
                            let found = Diagnostic::new("names-itself", reference.span, message);
                            self.findings.push(found.label(format!("`{word}` itself")));
                            continue;
                        }
                        let why = Provenance::Written(word);
                        self.edge(
                            from,
                            to,
                            Edge { kind: kind(reference), why, span: reference.span },
                        );
                    }
                }
            }
            for reference in &unit.before {
                let all = self.meant(reference, "before");
                if self.too_many(&all, reference) {
                    return;
                }
                for to in all {
                    let why = Provenance::Written("before");
                    self.edge(to, from, Edge { kind: after(reference), why, span: reference.span });
                }
            }
            for reference in &unit.part_of {
                self.misplaced_await("part-of", reference);
                for stage in self.meant(reference, "part-of") {
                    if self.units[stage].kind.name() != KindName::Target {
                        let message = format!("`{}` is no target", reference.unit);
                        let found = Diagnostic::new("not-a-target", reference.span, message);
                        self.findings.push(
                            found
                                .label("only a target has parts")
                                .also(self.units[stage].span, "this unit"),
                        );
                        continue;
                    }
                    for kind in [EdgeKind::Wants, EdgeKind::After(Await::Ready)] {
                        self.edge(
                            stage,
                            from,
                            Edge {
                                kind,
                                why: Provenance::Written("part-of"),
                                span: reference.span,
                            },
                        );
                    }
                }
            }
        }
    }

    /// Whether a reference to a template makes more edges than a machine can have.
    fn too_many(&mut self, meant: &[usize], reference: &Reference) -> bool {
        let many = self.edges.len() + meant.len() > MOST_EDGES;
        if many {
            let message = format!("more than {MOST_EDGES} edges");
            let found = Diagnostic::new("too-many", reference.span, message);
            let label = format!("this one word means {} units", meant.len());
            self.findings.push(found.label(label).help("let a target stand between the two"));
        }
        many
    }

    fn misplaced_await(&mut self, word: &'static str, reference: &Reference) {
        if reference.awaits.is_some() && !matches!(word, "after" | "before") {
            let message = format!("`{word}` says nothing of order and cannot await");
            let found = Diagnostic::new("misplaced-key", reference.span, message);
            self.findings.push(found.help("put `await` into `after` or `before`"));
        }
    }

    /// Things of which a machine has one, claimed by two units.
    fn claims(&mut self) {
        let mut claimed: HashMap<(&'static str, String), usize> = HashMap::new();
        for i in 0..self.units.len() {
            let unit = self.units[i].clone();
            let Some((what, name, path)) = claim(&unit) else { continue };
            let shown = name.clone();
            if let Some(first) = claimed.get(&(what, name.clone())) {
                let first = self.units[*first].clone();
                if agree(&first, &unit) {
                    continue;
                }
                let message =
                    format!("`{}` and `{}` both claim the {what} {shown}", first.name, unit.name);
                let mut found = Diagnostic::new("claimed-twice", unit.span_of(path), message)
                    .label("the second claim")
                    .also(first.span_of(path), "the first claim");
                if what == "module" {
                    found = found.help(
                        "it is loaded once, and with which `parameters` would be chance; write the same ones in both",
                    );
                }
                // The key of a template is the same for both; what differs is the item.
                for one in [&first, &unit] {
                    if let Some(item) = one.item {
                        found = found.also(item, format!("`{}` comes from here", one.name));
                    }
                }
                self.findings.push(found);
            } else {
                claimed.insert((what, name), i);
            }
        }
    }

    fn finish(self, sources: Arc<Sources>) -> (BootGraph, Vec<Diagnostic>) {
        let mut graph = DiGraph::with_capacity(self.units.len(), self.edges.len());
        for unit in self.units {
            graph.add_node(unit);
        }
        for ((from, to, _), edge) in self.edges {
            graph.add_edge(NodeIndex::new(from as usize), NodeIndex::new(to as usize), edge);
        }
        let mut graph = BootGraph { graph, names: self.names, sources, digest: Digest::default() };
        graph.digest = digest(&graph);
        let mut findings = self.findings;
        findings.extend(cycles(&graph));
        (graph, findings)
    }
}

/// What a unit claims for itself alone, and the key that says so.
fn claim(unit: &Unit) -> Option<(&'static str, String, &'static [&'static str])> {
    Some(match &unit.kind {
        Kind::Mount(m) if !m.existing => {
            ("mount point", m.target.to_string(), &["mount", "target"])
        }
        // Beside the unit that mounts it, one may set what it is like, and not two.
        Kind::Mount(m) => ("existing mount", m.target.to_string(), &["mount", "target"]),
        Kind::Link(l) => match (&l.name, l.mac) {
            (Some(name), _) => ("link", name.to_string(), &["link", "name"]),
            (None, Some(mac)) => ("link with the address", mac.to_string(), &["link", "mac"]),
            (None, None) => ("first ethernet link with a", "carrier".to_owned(), &["link"]),
        },
        Kind::Partition(p) => ("partition", p.label.to_string(), &["partition", "label"]),
        Kind::Filesystem(f) => ("filesystem on", f.device.to_string(), &["filesystem", "device"]),
        Kind::File(f) => ("path", f.path.to_string(), &["file", "path"]),
        Kind::Sysctl(s) => ("parameter", s.key.canonical(), &["sysctl", "key"]),
        Kind::Identity(i) => ("path", i.publish.to_string(), &["identity", "publish"]),
        Kind::Module(kinds::Module { name: Some(name), .. }) => {
            ("module", name.canonical(), &["module", "name"])
        }
        Kind::Hostname(_) => ("host", "name".to_owned(), &["hostname"]),
        _ => return None,
    })
}

/// Whether two that claim the same thing want the same of it: a module that is there already is left as it is.
fn agree(one: &Unit, other: &Unit) -> bool {
    let (Kind::Module(one), Kind::Module(other)) = (&one.kind, &other.kind) else { return false };
    let words = |module: &kinds::Module| {
        let line = module.parameters.as_ref().map(ToString::to_string).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    words(one) == words(other)
}

pub(crate) fn span_of_program(unit: &Unit) -> Span {
    unit.span_of(&[unit.kind.name().as_str(), "exec"])
}
