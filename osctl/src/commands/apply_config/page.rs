//! A plan and its end, for people and for programs.

use std::fmt::Write as _;

use keel_proto::v1::{
    BootChange, ChangeFate, ChangePlan, ConfigFindings, UnitChange, UnitDecision,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::follow::Ended;
use crate::node::{millis, short};
use crate::output::{Ink, Palette, printable_line};

/// What becomes of a unit, in a word.
fn word(decision: UnitDecision) -> &'static str {
    match decision {
        UnitDecision::Keep => "keep",
        UnitDecision::Start => "start",
        UnitDecision::Stop => "stop",
        UnitDecision::Restart => "restart",
        UnitDecision::Reload => "reload",
        UnitDecision::Rerun => "re-run",
        UnitDecision::NeedsReboot => "needs reboot",
        UnitDecision::Unspecified => "unknown",
    }
}

fn fate(fate: ChangeFate) -> &'static str {
    match fate {
        ChangeFate::DryRun => "dry-run",
        ChangeFate::Nothing => "nothing",
        ChangeFate::Begun => "begun",
        ChangeFate::OnTrial => "on-trial",
        ChangeFate::Staged => "staged",
        ChangeFate::Unspecified => "unknown",
    }
}

/// The plan for people.
pub(crate) fn plan(plan: &ChangePlan, palette: Palette) -> String {
    let mut page = String::new();
    if plan.changes.is_empty() {
        let _ = writeln!(page, "Nothing about the machine changes; {} units stay.", plan.kept);
    }
    let name = plan.changes.iter().map(|change| change.unit.len()).max().unwrap_or(0);
    for change in &plan.changes {
        let decision = format!("{:12}", word(change.decision()));
        let (decision, mark) = match change.interrupts {
            true => (palette.paint(Ink::Bad, &decision), "!"),
            false => (palette.paint(Ink::Good, &decision), " "),
        };
        let because: Vec<String> = change.because.iter().map(|why| printable_line(why)).collect();
        let because = palette.paint(Ink::Faint, &because.join(", "));
        let unit = printable_line(&change.unit);
        let _ = writeln!(page, "{mark} {decision}  {unit:name$}  {because}");
    }
    if !plan.changes.is_empty() {
        let _ = writeln!(page, "  {:12}  {} others", "keep", plan.kept);
    }
    if plan.changes.iter().any(|change| change.interrupts) {
        page += &palette.paint(Ink::Faint, "! interrupts something that runs");
        page.push('\n');
    }
    if plan.needs_reboot {
        page += &palette.paint(Ink::Warning, "The machine has to reboot for it.");
        page.push('\n');
    }
    page += &boot(plan.boot.as_ref());
    match plan.fate() {
        ChangeFate::Staged => {
            let _ = writeln!(page, "Config {} is kept for the next boot.", plan.generation());
        }
        ChangeFate::OnTrial => page.push_str("It is on trial: undone unless it is confirmed.\n"),
        ChangeFate::Nothing => page.push_str("The node has this config already.\n"),
        _ => {}
    }
    page
}

/// How the boot changes, where it does.
fn boot(boot: Option<&BootChange>) -> String {
    let Some(boot) = boot else { return String::new() };
    let (before, after) = (millis(boot.before.as_ref()), millis(boot.after.as_ref()));
    if before == after && boot.path_before == boot.path_after {
        return String::new();
    }
    let path: Vec<String> = boot.path_after.iter().map(|unit| printable_line(unit)).collect();
    format!(
        "A boot is expected to take {}, and took {}; its critical path is {}\n",
        short(after),
        short(before),
        path.join(" -> ")
    )
}

/// A plan for programs.
pub(crate) fn plan_view(plan: &ChangePlan) -> Value {
    serde_json::to_value(View::new(plan, None)).unwrap_or_default()
}

/// The end for people.
pub(super) fn end(end: &Ended, palette: Palette) -> String {
    let ink = if end.good { Ink::Good } else { Ink::Bad };
    let mut page = palette.paint(ink, &printable_line(&end.text));
    page.push('\n');
    if let Some(unit) = &end.culprit
        && !end.last_lines.is_empty()
    {
        let _ = writeln!(page, "last lines of {}:", printable_line(unit));
        for line in &end.last_lines {
            let _ = writeln!(page, "  | {}", printable_line(line));
        }
    }
    if !end.undone.is_empty() {
        let units: Vec<String> = end.undone.iter().map(|unit| printable_line(unit)).collect();
        let _ = writeln!(page, "put back: {}", units.join(", "));
    }
    page
}

/// What `--output json` prints of a config that is refused.
pub(super) fn findings(findings: &ConfigFindings) -> Value {
    let each = findings.findings.iter().map(|finding| {
        json!({
            "code": finding.code,
            "message": finding.message,
            "help": finding.help,
            "file": finding.file,
            "line": finding.line,
            "column": finding.column,
        })
    });
    json!({ "fate": "refused", "findings": each.collect::<Vec<_>>() })
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    fate: &'static str,
    generation: Option<u64>,
    base: &'a str,
    target: &'a str,
    needs_reboot: bool,
    kept: u32,
    changes: Vec<ChangeView<'a>>,
    boot: Option<BootView<'a>>,
    end: Option<EndView<'a>>,
}

#[derive(Debug, Serialize)]
struct ChangeView<'a> {
    unit: &'a str,
    decision: &'static str,
    because: &'a [String],
    interrupts: bool,
}

#[derive(Debug, Serialize)]
struct BootView<'a> {
    before_ms: u64,
    after_ms: u64,
    critical_path_before: &'a [String],
    critical_path_after: &'a [String],
}

#[derive(Debug, Serialize)]
struct EndView<'a> {
    good: bool,
    text: &'a str,
    culprit: Option<&'a str>,
    last_lines: &'a [String],
    undone: &'a [String],
}

impl<'a> View<'a> {
    pub(super) fn new(plan: &'a ChangePlan, end: Option<&'a Ended>) -> Self {
        let change = |change: &'a UnitChange| ChangeView {
            unit: &change.unit,
            decision: word(change.decision()),
            because: &change.because,
            interrupts: change.interrupts,
        };
        View {
            fate: fate(plan.fate()),
            generation: plan.generation,
            base: &plan.base_digest,
            target: &plan.target_digest,
            needs_reboot: plan.needs_reboot,
            kept: plan.kept,
            changes: plan.changes.iter().map(change).collect(),
            boot: plan.boot.as_ref().map(|boot| BootView {
                before_ms: millis(boot.before.as_ref()),
                after_ms: millis(boot.after.as_ref()),
                critical_path_before: &boot.path_before,
                critical_path_after: &boot.path_after,
            }),
            end: end.map(|end| EndView {
                good: end.good,
                text: &end.text,
                culprit: end.culprit.as_deref(),
                last_lines: &end.last_lines,
                undone: &end.undone,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ChangePlan {
        let change = |unit: &str, decision: UnitDecision, why: &str, interrupts| UnitChange {
            unit: unit.to_owned(),
            decision: decision.into(),
            because: vec![why.to_owned()],
            interrupts,
        };
        let ms = |ms: i32| Some(prost_types::Duration { seconds: 0, nanos: ms * 1_000_000 });
        ChangePlan {
            base_digest: "sha256:12".to_owned(),
            target_digest: "sha256:34".to_owned(),
            changes: vec![
                change("hostname", UnitDecision::Rerun, "hostname.name changed", false),
                change("kubelet", UnitDecision::Restart, "service.exec changed", true),
                change("link@eth0", UnitDecision::NeedsReboot, "link.mtu is set", true),
            ],
            kept: 57,
            needs_reboot: true,
            boot: Some(BootChange {
                before: ms(800),
                after: ms(900),
                path_before: vec!["data".to_owned()],
                path_after: vec!["data".to_owned(), "kubelet".to_owned()],
            }),
            fate: ChangeFate::DryRun.into(),
            generation: None,
        }
    }

    #[test]
    fn plans() {
        insta::assert_snapshot!("plan", plan(&example(), Palette::PLAIN));
        let json = serde_json::to_string_pretty(&View::new(&example(), None)).unwrap();
        insta::assert_snapshot!("plan_json", json);
    }

    #[test]
    fn an_end_says_what_failed_what_it_said_last_and_what_was_put_back() {
        let ended = Ended {
            good: false,
            text: "config 4 was undone: kubelet: exited with code 1".to_owned(),
            culprit: Some("kubelet".to_owned()),
            last_lines: vec!["unknown flag: --x\u{1b}[2J".to_owned()],
            undone: vec!["kubelet".to_owned(), "hostname".to_owned()],
        };
        insta::assert_snapshot!("end", end(&ended, Palette::PLAIN));
    }
}
