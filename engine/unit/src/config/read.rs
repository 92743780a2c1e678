//! From the files of a machine config to what holds: later files patch earlier ones, secrets come from a file of their own.

use std::collections::HashSet;
use std::sync::Arc;

use super::unset::{self, Unset};
use crate::config::MachineConfig;
use crate::diagnostic::{Diagnostic, Report};
use crate::keys::{Table as _, decode_table};
use crate::lower::{Input, forgive, lower_partly};
use crate::patch::{Replaced, lay_config, settle};
use crate::reference::{effective, resolve_config};
use crate::secret;
use crate::source::{FileId, Sources, Span};
use crate::tree::{Entry, Node, Table, Value, parse};

/// The machine config as it was read.
pub(crate) struct Config {
    /// `None` when something is wrong with it.
    pub(crate) decoded: Option<MachineConfig>,
    /// As it was written, all files together; empty if one of them is no TOML.
    pub(crate) written: Table,
    /// With every default. Units are read with the default config when this one is broken: they must not look broken too.
    pub(crate) effective: Table,
    /// Overrides of units, whatever is wrong with the rest.
    pub(crate) drop_ins: Table,
    /// Where secrets stand.
    pub(crate) secrets: Vec<Span>,
    /// The files that were understood.
    pub(crate) understood: HashSet<FileId>,
    /// What patches have unset, and nothing behind them has set again.
    pub(crate) unset: Vec<Unset>,
}

impl Config {
    /// Reads all files, and reports all that is wrong with all of them.
    pub(crate) fn read(
        sources: &Sources,
        files: &[FileId],
        secrets: Option<FileId>,
        elsewhere: bool,
        findings: &mut Vec<Diagnostic>,
    ) -> Self {
        let before = findings.len();
        let layers = Layers::read(sources, files, secrets, findings);
        let Layers { node, parsed, secrets, understood, replaced, mut unset } = layers;
        unset::check_replaced(&replaced, findings);
        let mut node = node;
        let mut unresolved = Vec::new();
        if let Value::Table(table) = &mut node.value
            && parsed
        {
            settle(table, MachineConfig::known(), findings);
            unresolved = resolve_config(table, MachineConfig::known(), elsewhere, findings);
        }
        // A key that is missing altogether is missing at the top.
        node.span.end = node.span.start;
        let resolved = findings.len();
        let decoded = parsed.then(|| decode_table::<MachineConfig>(&node, findings)).flatten();
        forgive(findings, before, resolved, &unresolved);
        let decoded = decoded.filter(|_| findings.len() == before);
        let written = node.as_table().cloned().unwrap_or_default();
        let table = if decoded.is_some() { written.clone() } else { Table::default() };
        let effective = effective(&table, MachineConfig::known());
        let drop_ins = written.get("units").and_then(Node::as_table).cloned().unwrap_or_default();
        unset.retain(|unset| {
            let (first, rest) = unset.path.split_at(1);
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            written.get(&first[0]).and_then(|node| node.at(&rest)).is_none()
        });
        Config { decoded, written, effective, drop_ins, secrets, understood, unset }
    }
}

/// All files of a config, laid over each other.
struct Layers {
    node: Node,
    /// Whether all of them are TOML.
    parsed: bool,
    secrets: Vec<Span>,
    understood: HashSet<FileId>,
    /// What a later layer has replaced or taken away.
    replaced: Vec<Replaced>,
    unset: Vec<Unset>,
}

impl Layers {
    fn read(
        sources: &Sources,
        files: &[FileId],
        secrets: Option<FileId>,
        findings: &mut Vec<Diagnostic>,
    ) -> Self {
        let top = files.first().copied().unwrap_or(FileId::DEFAULT);
        let mut all = Layers {
            node: Node { span: Span::whole(top), value: Value::Table(Table::default()) },
            parsed: true,
            secrets: Vec::new(),
            understood: HashSet::new(),
            replaced: Vec::new(),
            unset: Vec::new(),
        };
        for (i, file) in files.iter().enumerate() {
            let Some(mut table) = all.layer(sources, *file, findings) else { continue };
            all.secrets.extend(secret::inline(&table, files.len() > 1));
            match unset::take(&mut table, findings) {
                Some((at, _)) if i == 0 => findings.push(unset::in_first(at)),
                Some((_, unset)) => all.unset(unset, findings),
                None => {}
            }
            match i {
                0 => all.node.value = Value::Table(table),
                _ => all.lay(&table, findings),
            }
        }
        let Some(file) = secrets else { return all };
        let whole = Span { file, start: 0, end: sources.text(file).len() as u32 };
        match all.layer(sources, file, findings) {
            Some(table) => {
                all.secrets.extend(secret::of_file(&table, whole));
                let node = Node { span: Span::whole(file), value: Value::Table(table) };
                let key = secret::TABLE.to_owned();
                let entry = Entry { key, key_span: Span::whole(file), node };
                all.lay(&Table::from_iter([entry]), findings);
            }
            // Nobody knows which part of it is no secret.
            None => all.secrets.push(whole),
        }
        all
    }

    fn layer(
        &mut self,
        sources: &Sources,
        file: FileId,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<Table> {
        let before = findings.len();
        let node = parse(sources, file, findings);
        let Node { value: Value::Table(table), .. } = node else { return None };
        if findings.len() != before {
            self.parsed = false;
            return None;
        }
        self.understood.insert(file);
        Some(table)
    }

    fn lay(&mut self, over: &Table, findings: &mut Vec<Diagnostic>) {
        if let Value::Table(below) = &mut self.node.value {
            self.replaced.extend(lay_config(below, over, MachineConfig::known(), findings));
        }
    }

    fn unset(&mut self, unset: Vec<Unset>, findings: &mut Vec<Diagnostic>) {
        // With a file before that is no TOML nobody knows what is set.
        if let Value::Table(below) = &mut self.node.value
            && self.parsed
        {
            let taken = unset.iter().filter_map(|unset| unset::apply(below, unset, findings));
            self.replaced.extend(taken);
            self.unset.extend(unset);
        }
    }
}

/// A machine config that is valid as far as it can be said without units.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The files, for provenance.
    pub sources: Arc<Sources>,
    /// Every key that has a value, written or by default, in the order of the reference. References are replaced; secrets are shown as what
    /// they are shown as.
    pub table: Table,
    /// The keys that patches have unset: their defaults hold, or they have no value.
    pub unset: Vec<Unset>,
}

/// The config that holds, from the files of `input`. Its units matter only in what they say of secrets.
///
/// # Errors
/// Everything that is wrong with the config.
pub fn effective_config(mut input: Input) -> Result<Effective, Report> {
    if input.configs.is_empty() {
        input.default_config();
    }
    let mut findings = if input.config_unread { input.findings.clone() } else { Vec::new() };
    let elsewhere = input.secrets_elsewhere;
    let config =
        Config::read(&input.sources, &input.configs, input.secrets, elsewhere, &mut findings);
    let lowered = lower_partly(input);
    if config.decoded.is_none() || !findings.is_empty() {
        return Err(Report::new(lowered.sources, findings));
    }
    let known: HashSet<&str> = lowered.units.iter().map(|unit| unit.name.as_str()).collect();
    let mut table = config.effective;
    secret::show_config(&mut table, &lowered.secrets, |unit| known.contains(unit));
    Ok(Effective { sources: lowered.sources, table, unset: config.unset })
}

/// What is wrong with a config that comes back from people: `stand_in` still stands where a secret is to be. Nothing if it stands nowhere.
pub fn unrestored(input: &Input, stand_in: &str) -> Option<Report> {
    let mut sources = input.sources.clone();
    let (mut findings, mut understood, mut hidden) = (Vec::new(), HashSet::new(), Vec::new());
    for file in input.configs.iter().copied().chain(input.secrets) {
        let whole = Span::whole(file);
        // What is no TOML is told of by whoever reads it next.
        let Value::Table(table) = parse(&input.sources, file, &mut Vec::new()).value else {
            continue;
        };
        understood.insert(file);
        let spans = match input.secrets == Some(file) {
            true => secret::of_file(&table, whole),
            false => secret::inline(&table, true),
        };
        for span in spans {
            let text = input.sources.text(file);
            let text = text.get(span.start as usize..span.end as usize).unwrap_or_default();
            if text.trim_matches(['"', '\'']) != stand_in {
                hidden.push(span);
                continue;
            }
            let message =
                format!("`{stand_in}` stands for a secret that the machine does not have");
            let found = Diagnostic::new("no-secret", span, message).label("nothing is kept here");
            findings.push(found.help(
                "write the secret itself; what stands for it keeps one that is there already",
            ));
        }
    }
    secret::hide(&mut sources, &hidden, &understood);
    (!findings.is_empty()).then(|| Report::new(sources.into(), findings))
}

/// All files of the config as one text for a machine, with its secrets; a single file as it is. The caller has validated it.
///
/// # Errors
/// What is wrong with the files as TOML.
pub fn merged_config(input: &Input) -> Result<String, Report> {
    if let ([file], None) = (input.configs.as_slice(), input.secrets) {
        return Ok(input.sources.text(*file).to_string());
    }
    let mut findings = input.findings.clone();
    let layers = Layers::read(&input.sources, &input.configs, input.secrets, &mut findings);
    let table = layers.node.as_table().filter(|_| findings.is_empty());
    match table {
        Some(table) => Ok(super::text::merged(table)),
        None => {
            let mut sources = input.sources.clone();
            secret::hide(&mut sources, &layers.secrets, &layers.understood);
            Err(Report::new(sources.into(), findings))
        }
    }
}
