//! `osctl boot compare`: what became slower.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keel_plan::{Change, Comparison, compare, difference};
use keel_unit::value::people;
use serde_json::json;

use super::{files, source};
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// Compare a boot with one or several before it: what became slower, what faster, what no longer comes up
///
/// The last boot is compared with the median of all before it. Where no file and no boot is named, they are all that the node of --endpoint
/// remembers.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl boot compare old.json new.json\n  osctl boot compare monday.json tuesday.json wednesday.json today.json --allow 10\n  osctl --endpoint 192.0.2.10 boot compare\n  osctl --endpoint 192.0.2.10 boot compare reference.json --boot 9f3a"
)]
pub(crate) struct Compare {
    /// Traces, the newest last
    #[arg(value_name = "TRACE")]
    traces: Vec<PathBuf>,

    /// A boot of the node, after the files: its id, or the first digits of it; repeat it for several
    #[arg(long, value_name = "ID")]
    boot: Vec<String>,

    /// Exit with 1 if the boot takes more than so many percent longer than before
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u16))]
    allow: Option<u16>,
}

impl Compare {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let mut before = files::read_all(&self.traces)?;
        if before.is_empty() || !self.boot.is_empty() {
            before.extend(source::several_of_node(node, &self.boot, out)?);
        }
        let after = before.pop().filter(|_| !before.is_empty());
        let Some(after) = after else {
            return Err(Failure::usage("it takes two boots to compare")
                .next("name another trace, or another boot of the node with --boot"));
        };
        if before.iter().any(|trace| trace.digest != after.digest) {
            out.notice("these are boots of different graphs");
        }
        let comparison = compare(&before, &after);
        match out.format() {
            Format::Json => {
                let changes = comparison.changes.iter().map(|change| {
                    json!({
                        "unit": change.name, "before_us": change.before.map(micros), "after_us": change.after.map(micros),
                        "was": change.was, "is": change.is,
                    })
                });
                out.json(&json!({
                    "before_us": micros(comparison.before), "after_us": micros(comparison.after),
                    "percent": (percent(&comparison) * 10.0).round() / 10.0, "changes": changes.collect::<Vec<_>>(),
                }))?;
            }
            _ => out.text(&text(&comparison, before.len(), out.palette()))?,
        }
        let slower = self.allow.is_some_and(|allow| percent(&comparison) > f64::from(allow));
        Ok(if slower { Exit::Findings } else { Exit::Clean })
    }
}

/// By how much the boot became slower.
fn percent(comparison: &Comparison) -> f64 {
    let before = comparison.before.as_secs_f64();
    if before == 0.0 { 0.0 } else { (comparison.after.as_secs_f64() - before) / before * 100.0 }
}

fn text(comparison: &Comparison, boots: usize, palette: Palette) -> String {
    let Comparison { before, after, changes } = comparison;
    let of = if boots == 1 { String::new() } else { format!(" (the median of {boots} boots)") };
    let mut text = format!(
        "boot: {}{of} -> {}, {} ({:+.1} %)\n",
        people(*before),
        people(*after),
        difference(*before, *after),
        percent(comparison)
    );
    if changes.is_empty() {
        return text + "no unit took another time\n";
    }
    let widest = changes.iter().map(|change| change.name.len()).max().unwrap_or(0).max(4);
    let heading =
        format!("{:widest$}  {:>11}  {:>11}  {:>11}", "UNIT", "BEFORE", "AFTER", "DIFFERENCE");
    let _ = writeln!(text, "\n{}", palette.paint(Ink::Faint, &heading));
    for change in changes {
        let shown = |span: Option<Duration>| span.map_or("-".to_owned(), people);
        let by = match (change.before, change.after) {
            (Some(before), Some(after)) => difference(before, after),
            _ => String::new(),
        };
        let by = format!("{by:>11}");
        let by = match change.slower_by() {
            0 => by,
            slower if slower > 0 => palette.paint(Ink::Warning, &by),
            _ => palette.paint(Ink::Good, &by),
        };
        let (before, after) = (shown(change.before), shown(change.after));
        let line =
            format!("{:widest$}  {before:>11}  {after:>11}  {by}{}", change.name, became(change));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// What a unit came to, where that is something else than before.
fn became(change: &Change) -> String {
    match (change.was, change.is) {
        (None, None) => String::new(),
        (None, Some(is)) => format!("  new, {is}"),
        (Some(was), None) => format!("  was {was}, is gone"),
        (Some(was), Some(is)) => format!("  was {was}, is {is}"),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
