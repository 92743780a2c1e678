//! `osctl status`: one page that says what a node is, how its boot went and what is wrong with it.

use std::fmt::Write as _;

use keel_proto::v1::{GetStatusRequest, GoalState, NodeStatus};
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, goal_state, millis, short};
use crate::output::{Format, Ink, Output, Palette};

/// Exit code 1 if the node is degraded or in emergency.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code 1: the node is degraded, or cannot be asked.

Examples:
  osctl --endpoint 192.0.2.10 status
  OSCTL_ENDPOINT=192.0.2.10 osctl status
  osctl --endpoint 192.0.2.10 status --output yaml")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    let status = node::ask(async {
        let answer = node::connect(node, out).await?.get_status(GetStatusRequest {}).await;
        let answer =
            answer.map_err(|status| node::refused("tell its status", &status))?.into_inner();
        answer.status.ok_or_else(|| Failure::new("the node's answer holds no status"))
    })?;
    match out.format() {
        Format::Table => out.text(&page(&status, out.palette()))?,
        Format::Json => out.json(&View::from(&status))?,
    }
    let wrong = matches!(status.state(), GoalState::Degraded | GoalState::Emergency);
    Ok(if wrong { Exit::Findings } else { Exit::Clean })
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
struct View<'a> {
    hostname: &'a str,
    machine_id: Option<&'a str>,
    fingerprint: &'a str,
    version: &'a str,
    kernel: &'a str,
    uptime_ms: u64,
    goal: &'a str,
    state: &'static str,
    degraded: Vec<DegradedView<'a>>,
    digest: &'a str,
    links: Vec<LinkView<'a>>,
    boot: Option<BootView<'a>>,
}

#[derive(Debug, Serialize)]
struct DegradedView<'a> {
    unit: &'a str,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct LinkView<'a> {
    name: &'a str,
    addresses: &'a [String],
}

#[derive(Debug, Serialize)]
struct BootView<'a> {
    total_ms: u64,
    critical_path_ms: u64,
    critical_path: Vec<CriticalView<'a>>,
    speed_up: f64,
    max_side_by_side: u32,
}

#[derive(Debug, Serialize)]
struct CriticalView<'a> {
    unit: &'a str,
    ms: u64,
}

impl<'a> From<&'a NodeStatus> for View<'a> {
    fn from(status: &'a NodeStatus) -> Self {
        let degraded =
            |one: &'a keel_proto::v1::Degradation| DegradedView { unit: &one.unit, why: &one.why };
        let link = |link: &'a keel_proto::v1::Link| LinkView {
            name: &link.name,
            addresses: &link.addresses,
        };
        Self {
            hostname: &status.hostname,
            machine_id: status.machine_id.as_deref(),
            fingerprint: &status.fingerprint,
            version: &status.version,
            kernel: &status.kernel,
            uptime_ms: millis(status.uptime.as_ref()),
            goal: &status.goal,
            state: goal_state(status.state).0,
            degraded: status.degraded.iter().map(degraded).collect(),
            digest: &status.digest,
            links: status.links.iter().map(link).collect(),
            boot: status.boot.as_ref().map(BootView::from),
        }
    }
}

impl<'a> From<&'a keel_proto::v1::BootReport> for BootView<'a> {
    fn from(boot: &'a keel_proto::v1::BootReport) -> Self {
        let critical_path: Vec<_> = boot
            .critical_path
            .iter()
            .map(|critical| CriticalView {
                unit: &critical.unit,
                ms: millis(critical.took.as_ref()),
            })
            .collect();
        Self {
            total_ms: millis(boot.total.as_ref()),
            critical_path_ms: critical_path.iter().map(|critical| critical.ms).sum(),
            critical_path,
            speed_up: boot.speed_up,
            max_side_by_side: boot.max_side_by_side,
        }
    }
}

/// The page for people.
fn page(status: &NodeStatus, palette: Palette) -> String {
    let view = View::from(status);
    let (state, ink) = goal_state(status.state);
    let mut page = format!(
        "{}  {} {}  up {}\n\n",
        palette.paint(Ink::Strong, view.hostname),
        view.goal,
        palette.paint(ink, state),
        short(view.uptime_ms)
    );
    if !view.degraded.is_empty() {
        page += &palette.paint(Ink::Bad, "not as it should be");
        page.push('\n');
        let width = widest(view.degraded.iter().map(|one| one.unit));
        for one in &view.degraded {
            line(&mut page, format_args!("  {:width$}  {}", one.unit, one.why));
        }
        page.push('\n');
    }
    for (label, value) in facts(&view) {
        let label = palette.paint(Ink::Faint, &format!("{label:12}"));
        line(&mut page, format_args!("{label} {value}"));
    }
    if let Some(boot) = &view.boot {
        page.push('\n');
        page += &boot_section(boot, palette);
    }
    page
}

fn facts(view: &View<'_>) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    for link in &view.links {
        let addresses = if link.addresses.is_empty() {
            "no address".to_owned()
        } else {
            link.addresses.join(", ")
        };
        facts.push(("address", format!("{} on {}", addresses, link.name)));
    }
    facts.push(("machine id", view.machine_id.unwrap_or("none yet").to_owned()));
    facts.push(("fingerprint", view.fingerprint.to_owned()));
    facts.push(("graph", view.digest.to_owned()));
    facts.push(("versions", format!("keel {}, linux {}", view.version, view.kernel)));
    facts
}

fn boot_section(boot: &BootView<'_>, palette: Palette) -> String {
    let mut section = format!(
        "boot took {}, {} of it on the critical path:\n",
        palette.paint(Ink::Strong, &short(boot.total_ms)),
        short(boot.critical_path_ms)
    );
    let width = widest(boot.critical_path.iter().map(|critical| critical.unit));
    for critical in &boot.critical_path {
        let bar = palette.paint(Ink::Faint, &bar(critical.ms, boot.critical_path_ms));
        line(
            &mut section,
            format_args!("  {:width$}  {:>12}  {bar}", critical.unit, short(critical.ms)),
        );
    }
    line(
        &mut section,
        format_args!(
            "up to {} units side by side, {:.1} times as fast as one after the other",
            boot.max_side_by_side, boot.speed_up
        ),
    );
    section
}

/// A unit's part of the whole, drawn; whatever took any time at all gets a mark.
fn bar(part: u64, whole: u64) -> String {
    const FULL: u128 = 30;
    let length = (u128::from(part) * FULL).div_ceil(u128::from(whole.max(1))).min(FULL);
    "▇".repeat(usize::try_from(length).unwrap_or_default())
}

fn widest<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0)
}

/// Appends a line without the spaces that an empty last column would leave.
fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    let start = page.len();
    // Writing to a string does not fail.
    let _: std::fmt::Result = page.write_fmt(text);
    let end = start + page[start..].trim_end().len();
    page.truncate(end);
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_proto::v1::{BootReport, CriticalUnit, Degradation, Link};

    fn ms(ms: i64) -> Option<prost_types::Duration> {
        let nanos = i32::try_from(ms % 1000).unwrap() * 1_000_000;
        Some(prost_types::Duration { seconds: ms / 1000, nanos })
    }

    fn healthy() -> NodeStatus {
        let critical = |unit: &str, took| CriticalUnit { unit: unit.to_owned(), took: ms(took) };
        NodeStatus {
            version: "0.1.0".to_owned(),
            kernel: "6.1.0-37-cloud-amd64".to_owned(),
            hostname: "keel-0f3a5c7e".to_owned(),
            machine_id: Some("0f3a5c7e91b24d4e8a6b0123456789ab".to_owned()),
            fingerprint: "c0ffee00".repeat(8),
            uptime: ms(192_400),
            goal: "boot".to_owned(),
            state: GoalState::Reached.into(),
            degraded: vec![],
            digest: "0123abcd".repeat(8),
            links: vec![Link {
                name: "eth0".to_owned(),
                addresses: vec!["10.0.2.15/24".to_owned(), "fe80::5054:ff:fe12:3456/64".to_owned()],
            }],
            boot: Some(BootReport {
                total: ms(2_140),
                critical_path: vec![
                    critical("device@vda", 310),
                    critical("mount.data", 40),
                    critical("containerd", 1_650),
                ],
                speed_up: 2.46,
                max_side_by_side: 9,
                kernel: None,
                processors: None,
            }),
            ..Default::default()
        }
    }

    fn degraded() -> NodeStatus {
        let one =
            |unit: &str, why: &str| Degradation { unit: unit.to_owned(), why: why.to_owned() };
        NodeStatus {
            state: GoalState::Degraded.into(),
            machine_id: None,
            links: vec![Link { name: "eth0".to_owned(), addresses: vec![] }],
            degraded: vec![
                one("link@eth0", "no DHCP server answered within 30 s"),
                one("time", "skipped: it requires link@eth0"),
            ],
            boot: None,
            ..healthy()
        }
    }

    #[test]
    fn pages() {
        insta::assert_snapshot!("status_healthy", page(&healthy(), Palette::PLAIN));
        insta::assert_snapshot!("status_degraded", page(&degraded(), Palette::PLAIN));
    }

    #[test]
    fn json() {
        insta::assert_snapshot!(
            "status_json",
            serde_json::to_string_pretty(&View::from(&healthy())).unwrap()
        );
    }

    fn check(part: u64, whole: u64, expect: usize) {
        assert_eq!(bar(part, whole).chars().count(), expect, "{part} of {whole}");
    }

    #[test]
    fn bars() {
        check(0, 100, 0);
        check(1, 100_000, 1);
        check(50, 100, 15);
        check(100, 100, 30);
        check(0, 0, 0);
        check(200, 100, 30);
        check(u64::MAX, u64::MAX, 30);
    }
}
