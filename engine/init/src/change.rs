//! From the text of another config to what it would do to this machine. Pure, but for reading the image's units.

use keel_control::{
    BootChange, Finding, Findings, KEPT, Layer, MAX_CONFIG, MAX_REMARK, MutationPlan, Refusal,
    RefusalKind, UnitChange,
};
use keel_plan::diff::{Changed, Diff};
use keel_plan::export::{Export, Setting};
use keel_plan::mutation::{Mutation, mutation};
use keel_plan::{BootGraph, PlanError, State, Transaction, compile};
use keel_unit::config::{merged_config, spent, spent_hash, unrestored};
use keel_unit::diagnostic::{Drawing, Report};
use keel_unit::{Kind, load};

use crate::arguments::Arguments;
use crate::boot::Boot;
use crate::choose::STORAGE;
use crate::mutate;

/// The most findings that are told of.
const MOST_FINDINGS: usize = 200;

/// A config that makes a graph.
pub(crate) struct Wanted {
    /// All of its files as one.
    pub(crate) text: String,
    pub(crate) boot: Boot,
}

/// What a config does.
pub(crate) struct Plan {
    pub(crate) plan: MutationPlan,
    /// The same, to be carried out.
    pub(crate) mutation: Mutation,
    /// Whether the way to the machine may be cut.
    pub(crate) may_cut: bool,
}

/// Who answers on the network; whom it lets in is among its parameters.
const AGENT: &str = "keel-agent";

/// Refuses what is longer than it may be.
pub(crate) fn bounded(bytes: usize, author: &str, reason: &str) -> Result<(), Refusal> {
    let too_long = |what: &str, most: usize| {
        RefusalKind::Impossible(format!("{what} is longer than {most} bytes")).into()
    };
    match () {
        () if bytes > MAX_CONFIG => Err(too_long("the config", MAX_CONFIG)),
        () if author.len() > MAX_REMARK => Err(too_long("the author", MAX_REMARK)),
        () if reason.len() > MAX_REMARK => Err(too_long("the reason", MAX_REMARK)),
        () => Ok(()),
    }
}

/// Reads a config with the image's units, and finds all that is wrong with it.
pub(crate) fn read(
    arguments: &Arguments,
    layers: &[Layer],
    secrets: Option<&Layer>,
) -> Result<Wanted, Findings> {
    let mut input = load::load(&arguments.units, None);
    layers.iter().for_each(|layer| input.config(&layer.name, layer.text.as_str()));
    if let Some(secrets) = secrets {
        input.secrets(&secrets.name, secrets.text.as_str());
    }
    if let Some(report) = unrestored(&input, KEPT) {
        return Err(told(&report));
    }
    let text = merged_config(&input).map_err(|report| told(&report))?;
    match compile(input, &arguments.goal) {
        Ok((graph, transaction)) => {
            Ok(Wanted { text, boot: Boot { graph, transaction: transaction.into() } })
        }
        Err(PlanError::Invalid(report)) => Err(told(&report)),
        Err(error) => Err(one("no-plan", error.to_string(), String::new(), 0)),
    }
}

/// The same where the machine has forgotten the credentials for joining a cluster that stand in it: `was` is the config that it has.
pub(crate) fn read_again(
    arguments: &Arguments,
    wanted: Wanted,
    was: &str,
) -> Result<Wanted, Findings> {
    let text = spent_hash(was)
        .and_then(|hash| spent(&wanted.text).filter(|text| spent_hash(text) == Some(hash)));
    let Some(text) = text else { return Ok(wanted) };
    let name = "config.toml".to_owned();
    read(arguments, &[Layer { name, text }], None)
}

fn told(report: &Report) -> Findings {
    let finding = |diagnostic: &keel_unit::diagnostic::Diagnostic| {
        let at = report.location(diagnostic);
        Finding {
            code: diagnostic.code.to_owned(),
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
            file: at.file.to_string(),
            line: at.line,
            column: at.column,
        }
    };
    let mut drawn = report.draw(Drawing::Ascii);
    // Whoever sends a text that is wrong in ten thousand places gets no answer that is larger than he can take.
    drawn.truncate(drawn.floor_char_boundary(128 * 1024));
    Findings {
        drawn,
        findings: report.diagnostics.iter().take(MOST_FINDINGS).map(finding).collect(),
    }
}

fn one(code: &str, message: String, file: String, line: u32) -> Findings {
    let finding = Finding {
        code: code.to_owned(),
        message: message.clone(),
        help: None,
        file,
        line,
        column: 1,
    };
    Findings { drawn: format!("{message}\n"), findings: vec![finding] }
}

/// What it takes to get from the graph that runs to another.
pub(crate) fn plan(
    graph: &BootGraph,
    transaction: &Transaction,
    states: &[State],
    new: &Boot,
) -> Result<Plan, Findings> {
    let (old, target) =
        (Export::new(graph, transaction), Export::new(&new.graph, &new.transaction));
    let diff = Diff::new(&old, &target);
    let fixed: Vec<Finding> =
        diff.changed.iter().flat_map(|changed| cannot_change(graph, changed)).collect();
    if !fixed.is_empty() {
        let line =
            |finding: &Finding| format!("{}:{}: {}\n", finding.file, finding.line, finding.message);
        return Err(Findings { drawn: fixed.iter().map(line).collect(), findings: fixed });
    }
    let mutation = mutation(graph, transaction, &new.graph, &new.transaction, states);
    let changes: Vec<UnitChange> = mutation.moves().map(mutate::told).collect();
    let kept = mutation.changes.len() - changes.len();
    let is_link = |graph: &BootGraph, name: &str| {
        graph.find(name).is_some_and(|id| matches!(graph.unit(id).kind, Kind::Link(_)))
    };
    let may_cut = changes.iter().any(|change| {
        let unit = &change.unit;
        unit == AGENT || is_link(graph, unit) || is_link(&new.graph, unit)
    });
    let boot = diff.timed().then(|| BootChange {
        before_ms: diff.old.total_ms,
        after_ms: diff.new.total_ms,
        before: diff.old.critical_path.clone(),
        after: diff.new.critical_path.clone(),
    });
    let plan = MutationPlan {
        base: old.digest,
        target: target.digest,
        needs_reboot: mutation.needs_reboot(),
        changes,
        kept: u32::try_from(kept).unwrap_or(u32::MAX),
        boot,
    };
    Ok(Plan { plan, mutation, may_cut })
}

/// Where the machine's data is and who it is stand on the disk: another config does not change that.
fn cannot_change(graph: &BootGraph, changed: &Changed) -> Vec<Finding> {
    let Some(id) = graph.find(&changed.name) else { return Vec::new() };
    let fixed: &[&str] = match &graph.unit(id).kind {
        Kind::Partition(_) => {
            &["partition.label", "partition.type", "partition.disk", "partition.size"]
        }
        Kind::Filesystem(_) => &["filesystem.device", "filesystem.type"],
        Kind::Identity(_) => &["identity.directory", "identity.machine-id"],
        Kind::Mount(mount) if mount.target.as_path() == std::path::Path::new(STORAGE) => {
            &["mount.source", "mount.target", "mount.fstype"]
        }
        _ => &[],
    };
    let place = |setting: &Option<Setting>| {
        setting.as_ref().map(|setting| (setting.file.clone(), setting.line))
    };
    let keys = changed.keys.iter().filter(|key| fixed.contains(&key.key.as_str()));
    keys.map(|key| {
        let (file, line) = place(&key.new).or_else(|| place(&key.old)).unwrap_or_default();
        Finding {
            code: "needs-reinstall".to_owned(),
            message: format!(
                "`{}` of {} cannot change on a machine that has its data: that takes `osctl reset`, or another image",
                key.key, changed.name
            ),
            help: None,
            file,
            line,
            column: 1,
        }
    })
    .collect()
}
