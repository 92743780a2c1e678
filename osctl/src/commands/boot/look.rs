//! One recorded boot: as a waterfall, by what took longest, by what waited for what, as a picture, for a trace viewer.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keel_plan::{Link, Trace, chart};
use keel_unit::diagnostic::nearest;
use keel_unit::value::people;
use serde_json::json;

use super::source::Source;
use super::{files, page};
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// Most columns, two by two, by which a link of a chain is indented.
const DEEPEST: usize = 60;

/// Show a boot: how it ended, what decided how long it took, and a bar for each unit
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl boot show boot.json\n  osctl boot show console.log\n  osctl --endpoint 192.0.2.10 boot show --boot 9f3a"
)]
pub(crate) struct Show {
    #[command(flatten)]
    source: Source,
}

impl Show {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let trace = self.source.read(node, out)?;
        match out.format() {
            Format::Json => out.json(&trace)?,
            _ => {
                let palette = out.palette();
                let mut text = page::headline(&trace, palette);
                page::shortfalls(&mut text, &trace, palette);
                text.push('\n');
                text += &page::waterfall(&trace, palette);
                out.text(&text)?;
            }
        }
        Ok(Exit::Clean)
    }
}

/// List the units of a boot by how long they took, the longest first
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl boot blame boot.json\n  osctl boot blame boot.json --output json\n  osctl --endpoint 192.0.2.10 boot blame"
)]
pub(crate) struct Blame {
    #[command(flatten)]
    source: Source,
}

impl Blame {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let trace = self.source.read(node, out)?;
        let critical = trace.critical();
        let mut units: Vec<_> =
            trace.units.iter().zip(critical).filter(|(unit, _)| unit.began_us.is_some()).collect();
        units.sort_by_key(|(unit, _)| {
            (Reverse(unit.took(trace.total())), unit.began_us, unit.name.clone())
        });
        if out.format() == Format::Json {
            let units = units.iter().map(|(unit, critical)| {
                let took = micros(unit.took(trace.total()));
                json!({ "unit": unit.name, "took_us": took, "state": unit.state, "attempts": unit.attempts, "critical": critical })
            });
            out.json(&units.collect::<Vec<_>>())?;
            return Ok(Exit::Clean);
        }
        let palette = out.palette();
        let mut text = String::new();
        for (unit, critical) in units {
            let took = format!("{:>11}", people(unit.took(trace.total())));
            let ink = if critical { Ink::Strong } else { Ink::Faint };
            let mut notes = Vec::new();
            notes.extend(critical.then(|| "on the critical path".to_owned()));
            notes.extend((!unit.state.is_active()).then(|| unit.state.as_str().to_owned()));
            notes.extend((unit.attempts > 1).then(|| format!("{} attempts", unit.attempts)));
            let notes =
                if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
            let _ = writeln!(
                text,
                "{}  {}{}",
                palette.paint(ink, &took),
                unit.name,
                palette.paint(Ink::Faint, &notes)
            );
        }
        out.text(&text)?;
        Ok(Exit::Clean)
    }
}

/// Follow what a unit waited for, back to the start of the boot
///
/// Without a unit, what the goal waited for: the units that decided how long the boot took.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl boot critical-chain boot.json\n  osctl boot critical-chain boot.json keel-agent\n  osctl --endpoint 192.0.2.10 boot critical-chain --unit keel-agent"
)]
pub(crate) struct CriticalChain {
    #[command(flatten)]
    source: Source,

    /// The unit to begin at [default: the goal]
    #[arg(value_name = "UNIT", conflicts_with = "from")]
    unit: Option<String>,

    /// The same, where no file is named
    #[arg(long = "unit", value_name = "UNIT")]
    from: Option<String>,
}

impl CriticalChain {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let trace = self.source.read(node, out)?;
        let unit = self.unit.as_deref().or(self.from.as_deref()).unwrap_or(&trace.goal);
        if trace.find(unit).is_none() {
            let failure = Failure::usage(format!("the boot had nothing to do with `{unit}`"));
            return Err(match nearest(unit, trace.units.iter().map(|unit| unit.name.as_str())) {
                Some(near) => failure.next(format!("did you mean `{near}`?")),
                None => failure.next("`osctl boot blame` lists the units of the boot"),
            });
        }
        let chain = trace.chain(unit);
        match out.format() {
            Format::Json => {
                let links = chain.iter().map(|link| {
                    json!({ "unit": trace.units[link.unit].name, "from_us": micros(link.from), "to_us": micros(link.to), "for_processor": link.for_processor })
                });
                out.json(&links.collect::<Vec<_>>())?;
            }
            _ => out.text(&chain_text(&trace, &chain, out.palette()))?,
        }
        Ok(Exit::Clean)
    }
}

/// The chain from its end back, as systemd-analyze shows it: when each was up, and how long it took.
fn chain_text(trace: &Trace, chain: &[Link], palette: Palette) -> String {
    let mut text = String::new();
    for (depth, link) in chain.iter().rev().enumerate() {
        let unit = &trace.units[link.unit];
        let took = link.to.saturating_sub(link.from);
        let took = if took.is_zero() { String::new() } else { format!(" +{}", people(took)) };
        let up = palette.paint(Ink::Faint, &format!(" @{}", people(link.to)));
        let branch = if depth == 0 {
            String::new()
        } else {
            format!("{}└─", "  ".repeat((depth - 1).min(DEEPEST)))
        };
        let why = if link.for_processor { " (had to wait for a processor)" } else { "" };
        let state = if unit.state.is_active() { "" } else { unit.state.as_str() };
        let state = if state.is_empty() {
            String::new()
        } else {
            format!(" {}", palette.paint(Ink::Bad, state))
        };
        let _ = writeln!(
            text,
            "{branch}{}{up}{}{state}{why}",
            unit.name,
            palette.paint(Ink::Strong, &took)
        );
    }
    text
}

/// Draw a boot as a Gantt chart, in SVG
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl boot plot boot.json > boot.svg\n  osctl boot plot boot.json -o boot.svg"
)]
pub(crate) struct Plot {
    #[command(flatten)]
    source: Source,

    /// Where to write it [default: standard output]
    #[arg(long, short = 'o', value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Plot {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let picture = chart::svg(&self.source.read(node, out)?);
        deliver(self.file, &picture, out)
    }
}

/// Write a boot as trace events: open the file in ui.perfetto.dev, chrome://tracing or speedscope
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl boot export boot.json > boot.trace.json\n  osctl boot export boot.json --format chrome -o boot.trace.json"
)]
pub(crate) struct Export {
    #[command(flatten)]
    source: Source,

    /// For which viewer
    #[arg(long, value_enum, default_value_t = Viewer::Perfetto)]
    format: Viewer,

    /// Where to write it [default: standard output]
    #[arg(long, short = 'o', value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Viewer {
    /// ui.perfetto.dev, which reads Chrome's trace events
    Perfetto,
    /// chrome://tracing and everything else that reads them
    Chrome,
}

impl Export {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let trace = self.source.read(node, out)?;
        let events = match self.format {
            Viewer::Perfetto | Viewer::Chrome => chart::chrome(&trace),
        };
        deliver(self.file, &events, out)
    }
}

fn deliver(file: Option<PathBuf>, text: &str, out: &mut Output) -> Result<Exit, Failure> {
    match file {
        Some(path) => files::write(&path, text)?,
        None => out.text(text)?,
    }
    Ok(Exit::Clean)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
