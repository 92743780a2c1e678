//! How a simulation looks, to people and to programs.

use std::fmt::Write as _;

use keel_plan::{Assertion, Ended, Ending, Estimates, Source, Trace, Transaction, Trial};
use keel_unit::value::{Timespan, people};
use serde::Serialize;
use serde_json::{Value, json};

use super::within;
use crate::commands::boot::page;
use crate::output::{Ink, Palette};

/// An assertion that does not hold, and what is the case instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Broken {
    pub(super) assertion: String,
    pub(super) instead: String,
}

/// One boot for each unit.
pub(super) struct Trials {
    /// What each unit does in turn: it fails, or it hangs.
    pub(super) does: &'static str,
    pub(super) trials: Vec<(Trial, Vec<Broken>)>,
}

/// Everything that was found out.
pub(super) struct Report<'a> {
    pub(super) transaction: &'a Transaction,
    pub(super) estimates: &'a Estimates,
    pub(super) percentile: u8,
    pub(super) traces: usize,
    pub(super) trace: &'a Trace,
    pub(super) ended: &'a Ended,
    pub(super) budget: Option<Timespan>,
    pub(super) assertions: &'a [Assertion],
    pub(super) broken: &'a [Broken],
    pub(super) trials: &'a [Trials],
}

/// How many lost units a row of the table names.
const NAMED: usize = 4;

impl Report<'_> {
    pub(super) fn is_broken(&self) -> bool {
        !self.complaints().is_empty()
    }

    fn over_budget(&self) -> Option<String> {
        let Timespan(budget) = self.budget.filter(|budget| !within(budget.0, self.ended))?;
        let budget = people(budget);
        Some(match self.ended.goal_at {
            Some(at) => {
                format!("the boot takes {}, over its budget of {budget}", people(at))
            }
            None => format!("the goal is not reached, within the budget of {budget} or later"),
        })
    }

    /// Everything that is broken, a line each.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.over_budget().into_iter().collect();
        let say = |broken: &Broken| format!("broken: {} ({})", broken.assertion, broken.instead);
        lines.extend(self.broken.iter().map(say));
        for Trials { does, trials } in self.trials {
            for (trial, broken) in trials {
                let name = self.name(trial.unit);
                lines.extend(broken.iter().map(|it| format!("when {name} {does}: {}", say(it))));
            }
        }
        lines
    }

    fn name(&self, unit: keel_plan::UnitId) -> &str {
        &self.transaction.spec(unit).name
    }

    /// How many durations come from where.
    fn sources(&self) -> (usize, usize, usize) {
        let count = |is: fn(Source) -> bool| {
            let jobs = self.transaction.jobs().iter();
            jobs.filter(|job| is(self.estimates.units()[job.unit.index()].source)).count()
        };
        (
            count(|source| matches!(source, Source::Traces(_))),
            count(|source| source == Source::Hint),
            count(|source| source == Source::Kind),
        )
    }

    pub(super) fn text(&self, palette: Palette) -> String {
        let mut text = page::headline(self.trace, palette);
        let (traced, hinted, usual) = self.sources();
        let mut sources = Vec::new();
        if traced > 0 {
            let of = if self.traces == 1 {
                "a recorded boot".to_owned()
            } else {
                format!("{} recorded boots (p{})", self.traces, self.percentile)
            };
            sources.push(format!("{traced} of {of}"));
        }
        if hinted > 0 {
            sources.push(format!("{hinted} as the units hint"));
        }
        if usual > 0 {
            sources.push(format!("{usual} as is usual for the kind"));
        }
        page::field(&mut text, palette, "durations", &sources.join(", "));
        page::shortfalls(&mut text, self.trace, palette);
        text.push('\n');
        text += &page::waterfall(self.trace, palette);
        text += &self.spread();
        for trials in self.trials {
            text += &self.table(trials, palette);
        }
        text += &self.verdicts(palette);
        text
    }

    /// Units that took much longer in some of the recorded boots than what was taken.
    fn spread(&self) -> String {
        let mut lines = String::new();
        for job in self.transaction.jobs() {
            let estimate = &self.estimates.units()[job.unit.index()];
            let Some(p95) = estimate.p95.filter(|p95| *p95 > estimate.takes) else { continue };
            let (takes, p95) = (people(estimate.takes), people(p95));
            let _ = writeln!(
                lines,
                "  {}  p{} {takes}, p95 {p95}",
                self.name(job.unit),
                self.percentile
            );
        }
        if lines.is_empty() { lines } else { format!("\nrecorded durations that vary:\n{lines}") }
    }

    fn table(&self, Trials { does, trials }: &Trials, palette: Palette) -> String {
        let widest =
            trials.iter().map(|(trial, _)| self.name(trial.unit).len()).max().unwrap_or(0).max(4);
        let heading = format!(
            "{:widest$}  {:9}  {:>11}  LOST",
            format!("IF IT {}", does.to_uppercase()),
            "BOOT",
            "AFTER"
        );
        let widest = widest.max(does.len() + 6);
        let mut text = format!("\n{}\n", palette.paint(Ink::Faint, &heading));
        for (trial, broken) in trials {
            let ending = format!("{:9}", trial.ended.ending.as_str());
            let ink = match trial.ended.ending {
                Ending::Reached => Ink::Good,
                Ending::Degraded => Ink::Warning,
                _ => Ink::Bad,
            };
            let names: Vec<_> = trial.lost.iter().map(|unit| self.name(*unit)).collect();
            let lost = match names.len() {
                0 => "nothing else".to_owned(),
                count if count > NAMED + 1 => {
                    format!("{} and {} more", names[..NAMED].join(", "), count - NAMED)
                }
                _ => names.join(", "),
            };
            let _ = writeln!(
                text,
                "{:widest$}  {}  {:>11}  {lost}",
                self.name(trial.unit),
                palette.paint(ink, &ending),
                people(trial.ended.at())
            );
            for broken in broken {
                let line =
                    format!("{:widest$}  broken: {} ({})", "", broken.assertion, broken.instead);
                let _ = writeln!(text, "{}", palette.paint(Ink::Bad, &line));
            }
        }
        text
    }

    /// Whether the budget and each assertion hold.
    fn verdicts(&self, palette: Palette) -> String {
        let mut text = String::new();
        let mut say = |holds: bool, what: &str| {
            let word = if holds {
                palette.paint(Ink::Good, "holds ")
            } else {
                palette.paint(Ink::Bad, "BROKEN")
            };
            let _ = writeln!(text, "{word}  {what}");
        };
        if let Some(budget) = self.budget {
            match self.over_budget() {
                None => say(true, &format!("budget of {budget}")),
                Some(over) => say(false, &over),
            }
        }
        for assertion in self.assertions {
            let assertion = assertion.to_string();
            let of = |broken: &[Broken]| broken.iter().any(|it| it.assertion == assertion);
            let trials = || self.trials.iter().flat_map(|trials| &trials.trials);
            let times = trials().filter(|(_, broken)| of(broken)).count();
            match self.broken.iter().find(|it| it.assertion == assertion) {
                Some(broken) => say(false, &format!("{assertion} ({})", broken.instead)),
                None if times == 0 => say(true, &assertion),
                None => {
                    say(false, &format!("{assertion}: in {times} of {} failures", trials().count()))
                }
            }
        }
        if text.is_empty() { text } else { format!("\n{text}") }
    }

    pub(super) fn json(&self) -> Value {
        let (traced, hinted, usual) = self.sources();
        let busy = self.trace.business();
        let micros =
            |span: std::time::Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let path = self.trace.critical_path().into_iter().map(|link| {
            json!({ "unit": self.trace.units[link.unit].name, "from_us": micros(link.from), "to_us": micros(link.to), "for_processor": link.for_processor })
        });
        let trials = self.trials.iter().flat_map(|Trials { does, trials }| {
            trials.iter().map(move |(trial, broken)| {
                let lost: Vec<_> = trial.lost.iter().map(|unit| self.name(*unit)).collect();
                json!({
                    "unit": self.name(trial.unit), "does": does, "outcome": trial.ended.ending.as_str(),
                    "reached": trial.ended.goal_at.is_some(), "after_us": micros(trial.ended.at()), "lost": lost, "broken": broken,
                })
            })
        });
        let estimates = self.transaction.jobs().iter().map(|job| {
            let estimate = &self.estimates.units()[job.unit.index()];
            let source = match estimate.source {
                Source::Traces(_) => "trace",
                Source::Hint => "hint",
                Source::Kind => "kind",
            };
            json!({ "unit": self.name(job.unit), "takes_us": micros(estimate.takes), "p95_us": estimate.p95.map(micros), "source": source })
        });
        json!({
            "outcome": self.trace.outcome.as_str(),
            "total_us": self.trace.total_us,
            "critical_path": path.collect::<Vec<_>>(),
            "side_by_side": busy.side_by_side,
            "speed_up": (busy.speed_up * 100.0).round() / 100.0,
            "durations": { "traces": traced, "hints": hinted, "kinds": usual },
            "estimates": estimates.collect::<Vec<_>>(),
            "budget_us": self.budget.map(|budget| micros(budget.0)),
            "assertions": self.assertions.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "broken": self.broken,
            "complaints": self.complaints(),
            "each_failure": trials.collect::<Vec<_>>(),
            "trace": self.trace,
        })
    }
}
