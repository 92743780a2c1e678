//! Lowering: unit files and a machine config become units. References are replaced, templates are instantiated,
//! drop-ins are merged; every fault of every file is in one report.

mod template;
mod units;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::units::Lowering;
use crate::config::{Config, MachineConfig};
use crate::diagnostic::{Diagnostic, Report};
use crate::keys::Text as _;
use crate::kinds::KindName;
use crate::name::UnitName;
use crate::secret;
use crate::side_by_side;
use crate::source::{FileId, Sources, Span};
use crate::unit::Unit;
use crate::words::Reference;

/// Units and config, read and valid, with the files that they come from.
#[derive(Debug, Clone)]
pub struct UnitSet {
    /// The files, for provenance and later findings.
    pub sources: Arc<Sources>,
    /// The units, in the order of their files.
    pub units: Vec<Unit>,
    /// Templates and their instances; a template may have none.
    pub templates: HashMap<UnitName, Vec<UnitName>>,
    /// What templates without an instance refer to, each with its word. It makes no edge, and has to exist all the same.
    pub idle: Vec<(&'static str, Reference)>,
    /// The machine config.
    pub config: MachineConfig,
}

/// Texts that were read, before anything is known of them.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// The files.
    pub sources: Sources,
    /// The unit files, each with its stem (`data` of `units/storage/data.toml`).
    pub units: Vec<(FileId, String)>,
    /// The machine config: each file patches those before it.
    pub configs: Vec<FileId>,
    /// The texts of the config's secrets by their names.
    pub secrets: Option<FileId>,
    /// Secrets that are nowhere are not missing but elsewhere: what is checked here is not yet what a machine gets.
    pub secrets_elsewhere: bool,
    /// What went wrong while reading.
    pub findings: Vec<Diagnostic>,
    /// What could not be read.
    pub unread: Unread,
    /// A file of the machine config is there, and it could not be read.
    pub config_unread: bool,
}

/// What is there and could not be read. To name it is no mistake, or one slip in one file would make a report full of
/// units that do not exist.
#[derive(Debug, Clone, Default)]
pub struct Unread {
    /// Units and templates with a fault.
    pub units: HashSet<UnitName>,
    /// Stems of files of which not even the kind is known.
    pub stems: HashSet<String>,
    /// A whole folder could not be read; any name might be in it.
    pub folder: bool,
}

impl Unread {
    /// Whether this may be the name of something that could not be read.
    pub fn may_hold(&self, name: &UnitName) -> bool {
        let base = name.as_str().split_once('@').and_then(|(base, _)| UnitName::parse(base).ok());
        let known = |name: &UnitName| {
            let text = name.as_str();
            // `mount.data` stands in `data.toml` or in `mount.data.toml`.
            let stem = text.split_once('.').filter(|(kind, _)| KindName::from_word(kind).is_some());
            self.units.contains(name)
                || self.stems.contains(text)
                || stem.is_some_and(|(_, stem)| self.stems.contains(stem))
        };
        self.folder || known(name) || base.as_ref().is_some_and(known)
    }
}

/// The stem of a file, which names its unit: `data` of `units/storage/data.toml`.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".toml").unwrap_or(name)
}

impl Input {
    /// Adds a unit file; `path` is shown in findings and its stem names the unit.
    pub fn unit(&mut self, path: &str, text: impl Into<Arc<str>>) {
        let file = self.sources.add(path, text);
        self.units.push((file, stem(path).to_owned()));
    }

    /// Adds a unit file that is there and could not be read; `finding` says why.
    pub fn unreadable_unit(&mut self, path: &str, finding: Diagnostic) {
        self.unread.stems.insert(stem(path).to_owned());
        self.findings.push(finding);
    }

    /// Adds a machine config, which patches those that were added before.
    pub fn config(&mut self, path: &str, text: impl Into<Arc<str>>) {
        let file = self.sources.add(path, text);
        self.configs.push(file);
    }

    /// Adds the config of a machine that has none: everything has its default.
    pub(crate) fn default_config(&mut self) {
        self.config("(default config)", "schema = 1\n");
    }

    /// Sets the file of secrets.
    pub fn secrets(&mut self, path: &str, text: impl Into<Arc<str>>) {
        self.secrets = Some(self.sources.add(path, text));
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
    /// What templates without an instance and units with a fault refer to, each with its word.
    pub idle: Vec<(&'static str, Reference)>,
    /// The machine config, if it could be read.
    pub config: Option<MachineConfig>,
    /// What is wrong.
    pub findings: Vec<Diagnostic>,
    /// What could not be read.
    pub unread: Unread,
    /// Where secrets stand in the files.
    pub secrets: Vec<Span>,
}

impl Lowered {
    /// The units, if nothing is wrong.
    ///
    /// # Errors
    /// The report of all findings, sorted by place.
    pub fn finish(self) -> Result<UnitSet, Report> {
        let Lowered { sources, units, templates, idle, config, findings, .. } = self;
        match config {
            Some(config) if findings.is_empty() => {
                Ok(UnitSet { sources, units, templates, idle, config })
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
    let mut input = input;
    if input.configs.is_empty() {
        input.default_config();
    }
    let Input { mut sources, units: files, configs, mut findings, unread, .. } = input;
    let elsewhere = input.secrets_elsewhere;
    let mut config = Config::read(&sources, &configs, input.secrets, elsewhere, &mut findings);
    if input.config_unread {
        config.decoded = None;
    }

    let mut lowering = Lowering::new(&config, input.secrets_elsewhere, findings, unread);
    let read = side_by_side::map(&files, |(file, stem)| lowering.read(&sources, *file, stem));
    for ((_, stem), read) in files.iter().zip(read) {
        lowering.file(stem, read);
    }
    lowering.unused_drop_ins();
    let mut done = lowering.finish();
    if config.decoded.is_none() {
        // Which instances a template has is not known without the config.
        done.unread.units.extend(done.templates.keys().cloned());
    }
    secret::hide(&mut sources, &done.secrets, &done.understood);
    Lowered {
        secrets: done.secrets,
        sources: Arc::new(sources),
        units: done.units,
        templates: done.templates,
        idle: done.idle,
        config: config.decoded,
        findings: done.findings,
        unread: done.unread,
    }
}

/// Drops what decoding found (from `resolved` on) where a reference has failed (from `before` on) or is not known. The text of the
/// reference still stands there, and is no value of anything.
pub(crate) fn forgive(
    findings: &mut Vec<Diagnostic>,
    before: usize,
    resolved: usize,
    unknown: &[Span],
) {
    let failed = findings[before..resolved].iter().map(|d| d.label.span);
    let failed: HashSet<Span> = failed.chain(unknown.iter().copied()).collect();
    let decoded = findings.split_off(resolved);
    findings.extend(decoded.into_iter().filter(|d| !failed.contains(&d.label.span)));
}
