//! `osctl graph diff`: what a change of units or machine config changes in the boot.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use keel_plan::BOOT;
use keel_plan::diff::{self, Diff as Difference};
use keel_plan::export::Export;
use keel_unit::Report;

use crate::cli::NodeArgs;
use crate::commands::inputs::{Fault, Inputs, running};
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// Largest exported graph that is read, in bytes: some hundred thousand units.
const LARGEST: u64 = 1 << 30;

/// Compare two boot graphs: what is added, removed and changed, and what follows for the boot
///
/// OLD and NEW are each a machine config (FILE.toml), a folder of unit files, or an exported graph (FILE.json, as `osctl graph render
/// --format json` writes it). Machine configs are compared with the units of --units, and patch those of --config; folders are compared
/// with the machine config of --config. With --node there is one of them, and OLD is the graph that the node of --endpoint runs.
/// Exit code 0: the two are the same. 1: they differ. 2: one of them cannot be had.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl graph diff machine-configs/qemu.toml machine-configs/static-network.toml\n  osctl graph diff ../main/units units --config machine-configs/qemu.toml --format markdown\n  osctl graph diff ../main/machine-configs/qemu.toml machine-configs/qemu.toml --old-units ../main/units\n  osctl graph diff node.json machine-configs/qemu.toml\n  osctl --endpoint 192.0.2.10 graph diff --node machine-configs/qemu.toml"
)]
pub(crate) struct Diff {
    /// The graph before: a machine config, a folder of units or an exported graph
    #[arg(value_name = "OLD")]
    old: PathBuf,

    /// The graph after
    #[arg(value_name = "NEW", required_unless_present = "node", conflicts_with = "node")]
    new: Option<PathBuf>,

    /// OLD is the graph that the node of --endpoint runs; only NEW is named
    #[arg(long)]
    node: bool,

    #[command(flatten)]
    inputs: Inputs,

    /// Folder of unit files of OLD, where it is not that of NEW
    #[arg(long, value_name = "DIR")]
    old_units: Option<PathBuf>,

    /// The goal of the boot
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,

    /// How to print; text, if not said otherwise, or JSON with `--output json`
    #[arg(long, short, value_enum)]
    format: Option<Page>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Page {
    /// For a terminal
    Text,
    /// For a pull request
    Markdown,
    /// For programs
    Json,
}

impl Diff {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        // As with diff(1): 1 says that the two differ, and nothing else does.
        self.compare(node, out).map_err(|failure| failure.ending(Exit::Usage))
    }

    fn compare(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let (old, new) = match &self.new {
            Some(new) => (self.side(&self.old, self.old_units.as_deref()), self.side(new, None)),
            None => (running(node, out).map_err(Fault::Other), self.side(&self.old, None)),
        };
        let (old, new) = match (old, new) {
            (Ok(old), Ok(new)) => (old, new),
            (old, new) => return self.faults(out, [old.err(), new.err()]),
        };
        let difference = Difference::new(&old, &new);
        let usual = match out.format() {
            Format::Table => Page::Text,
            _ => Page::Json,
        };
        match self.format.unwrap_or(usual) {
            Page::Text => {
                let page = diff::text(&difference);
                let page: String = page.lines().map(|line| coloured(line, out.palette())).collect();
                out.text(&page)?;
            }
            Page::Markdown => out.text(&diff::markdown(&difference))?,
            Page::Json => out.json(&difference)?,
        }
        Ok(if difference.is_empty() { Exit::Clean } else { Exit::Findings })
    }

    /// Shows what is wrong with either side.
    fn faults(&self, out: &mut Output, faults: [Option<Fault>; 2]) -> Result<Exit, Failure> {
        let mut last = None;
        let paths = [&self.old, self.new.as_ref().unwrap_or(&self.old)];
        for (path, fault) in paths.into_iter().zip(faults) {
            match fault {
                Some(Fault::Findings(report)) => self.findings(out, path, &report),
                Some(Fault::Other(failure)) => last = last.or(Some(failure)),
                None => {}
            }
        }
        last.map_or(Ok(Exit::Usage), Err)
    }

    fn findings(&self, out: &mut Output, path: &Path, report: &Report) {
        out.notice(&format!("{} has no graph:", path.display()));
        out.findings(report);
    }

    /// The graph that a path stands for.
    fn side(&self, path: &Path, units: Option<&Path>) -> Result<Export, Fault> {
        if let Err(error) = path.symlink_metadata() {
            let failure = Failure::usage(format!("cannot read {}", path.display())).because(error);
            let next = "name a machine config, a folder of units or an exported graph";
            return Err(failure.next(next).into());
        }
        if path.extension().is_some_and(|extension| extension == "json") {
            return Ok(exported(path)?);
        }
        let mut inputs = self.inputs.clone();
        if let Some(units) = units {
            inputs.units = units.to_owned();
        }
        if path.is_dir() {
            inputs.units = path.to_owned();
        } else {
            inputs.config.push(path.to_owned());
        }
        let (graph, transaction) = inputs.planned(&self.goal)?;
        Ok(Export::new(&graph, &transaction))
    }
}

fn exported(path: &Path) -> Result<Export, Failure> {
    let cannot = || format!("cannot read {}", path.display());
    let about = fs::metadata(path).map_err(|error| Failure::usage(cannot()).because(error))?;
    if !about.is_file() {
        return Err(Failure::usage(format!("{} is no file", path.display())));
    }
    if about.len() > LARGEST {
        return Err(Failure::usage(format!("{} is larger than 1 GiB", path.display())));
    }
    let text = fs::read(path).map_err(|error| Failure::usage(cannot()).because(error))?;
    serde_json::from_slice(&text).map_err(|error| {
        let failure = Failure::usage(format!("{} is no exported graph", path.display()));
        failure.because(error).next("`osctl graph render --format json` writes one")
    })
}

/// A line of the page in the colour of its mark.
fn coloured(line: &str, palette: Palette) -> String {
    let line = match line.trim_start().chars().next() {
        Some('+') => palette.paint(Ink::Good, line),
        Some('-') => palette.paint(Ink::Bad, line),
        Some('~') => palette.paint(Ink::Warning, line),
        Some(_) if !line.starts_with(' ') => palette.paint(Ink::Strong, line),
        _ => line.to_owned(),
    };
    format!("{line}\n")
}
