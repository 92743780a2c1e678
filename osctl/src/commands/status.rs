//! `osctl status`: one page that says what a node is, how its boot went and what is wrong with it.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use keel_proto::v1::{
    CertificateRequest, GetStatusRequest, GoalState, Mode, NodeStatus, RequestState,
    ServingCertificate, TrustedAuthority,
};
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::commands::watch::Watch;
use crate::error::{Exit, Failure};
use crate::node::{self, Cell, Connection, goal_state, millis, short, timestamp};
use crate::output::{Ink, Output, Palette};

/// Exit code 1 if the node is degraded or in emergency.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code 1: the node is degraded, or cannot be asked.

Examples:
  osctl --endpoint 192.0.2.10 status
  osctl --endpoint 192.0.2.10 status --watch --interval 5
  OSCTL_ENDPOINT=192.0.2.10 osctl status
  osctl --endpoint 192.0.2.10 --endpoint 192.0.2.11 --kubeconfig admin.conf status
  osctl --endpoint 192.0.2.10 status --output yaml")]
pub(crate) struct Args {
    #[command(flatten)]
    watch: Watch,
}

pub(crate) fn run(args: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    args.watch.run(out, |out| once(node, out))
}

fn once(node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    let asked = node::each(node, out, async |connection| ask(&connection).await)?;
    let exit = asked.show(out, View::from, page, HEADER, |asked| vec![row(asked)])?;
    Ok(if asked.answered.iter().any(|node| node.answer.is_wrong()) { Exit::Findings } else { exit })
}

/// A node's status, and how far its clock is from ours.
#[derive(Debug, Default)]
struct Asked {
    status: NodeStatus,
    /// Positive where the node's clock is ahead of this computer's.
    skew_ms: Option<i64>,
}

async fn ask(connection: &Connection) -> Result<Asked, Failure> {
    let before = SystemTime::now();
    let answer = connection.node().get_status(GetStatusRequest {}).await;
    let took = before.elapsed().unwrap_or_default();
    let answer = answer.map_err(|status| node::refused("tell its status", &status))?.into_inner();
    let status = answer.status.ok_or_else(|| Failure::new("the node's answer holds no status"))?;
    let skew_ms = status.time.as_ref().and_then(|time| skew(time, before, took));
    Ok(Asked { status, skew_ms })
}

/// The node looked at its clock somewhere between our question and its answer: the middle is off by half of that at most.
fn skew(time: &prost_types::Timestamp, before: SystemTime, took: Duration) -> Option<i64> {
    let theirs = SystemTime::try_from(*time).ok()?;
    let ours = before.checked_add(took / 2)?;
    let millis = |span: Duration| i64::try_from(span.as_millis()).ok();
    match theirs.duration_since(ours) {
        Ok(ahead) => millis(ahead),
        Err(behind) => millis(behind.duration()).map(|millis| -millis),
    }
}

impl Asked {
    fn is_wrong(&self) -> bool {
        matches!(self.status.state(), GoalState::Degraded | GoalState::Emergency)
    }

    /// The skew in words, where it is more than a call can explain.
    fn clock(&self) -> Option<String> {
        let skew = self.skew_ms.filter(|skew| skew.unsigned_abs() > SKEW_SHOWN)?;
        let side = if skew > 0 { "ahead of" } else { "behind" };
        Some(format!("{} {side} this computer's", short(skew.unsigned_abs())))
    }
}

/// Milliseconds that a clock may be off without a word.
const SKEW_SHOWN: u64 = 1000;

const HEADER: [&str; 7] = ["NAME", "GOAL", "STATE", "UP", "MODE", "VERSION", "NOTE"];

/// A node's line in a table of several.
fn row(asked: &Asked) -> [Cell; 7] {
    let status = &asked.status;
    let (state, ink) = goal_state(status.state);
    let mut notes: Vec<_> =
        status.degraded.iter().map(|one| format!("{}: {}", one.unit, one.why)).collect();
    notes.extend(asked.clock().map(|clock| format!("its clock is {clock}")));
    [
        Cell::plain(&status.hostname),
        Cell::plain(&status.goal),
        Cell::inked(state, ink),
        Cell::plain(short(millis(status.uptime.as_ref()))),
        Cell::plain(mode(status.mode)),
        Cell::plain(&status.version),
        Cell::plain(notes.join("; ")),
    ]
}

fn mode(mode: i32) -> &'static str {
    match Mode::try_from(mode) {
        Ok(Mode::Maintenance) => "maintenance",
        Ok(Mode::Bootstrapped) => "bootstrapped",
        Ok(Mode::Unspecified) | Err(_) => "unknown",
    }
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
    mode: &'static str,
    agent_uptime_ms: Option<u64>,
    time: Option<String>,
    clock_skew_ms: Option<i64>,
    certificate: Option<CertificateView<'a>>,
    authorities: Vec<AuthorityView<'a>>,
    boot: Option<BootView<'a>>,
}

#[derive(Debug, Serialize)]
struct CertificateView<'a> {
    fingerprint: &'a str,
    not_before: Option<String>,
    not_after: Option<String>,
    names: &'a [String],
    issuer: &'a str,
    request: Option<RequestView<'a>>,
}

/// What the cluster is asked to sign.
#[derive(Debug, Serialize)]
struct RequestView<'a> {
    name: &'a str,
    state: &'static str,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct AuthorityView<'a> {
    subject: &'a str,
    fingerprint: &'a str,
    not_after: Option<String>,
    source: &'a str,
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

impl<'a> From<&'a ServingCertificate> for CertificateView<'a> {
    fn from(certificate: &'a ServingCertificate) -> Self {
        Self {
            fingerprint: &certificate.fingerprint,
            not_before: certificate.not_before.as_ref().map(timestamp),
            not_after: certificate.not_after.as_ref().map(timestamp),
            names: &certificate.names,
            issuer: &certificate.issuer,
            request: certificate.request.as_ref().map(RequestView::from),
        }
    }
}

impl<'a> From<&'a CertificateRequest> for RequestView<'a> {
    fn from(request: &'a CertificateRequest) -> Self {
        let state = match request.state() {
            RequestState::Pending => "pending",
            RequestState::Denied => "denied",
            RequestState::Failed => "failed",
            RequestState::Unspecified => "unknown",
        };
        Self { name: &request.name, state, why: &request.why }
    }
}

impl<'a> From<&'a TrustedAuthority> for AuthorityView<'a> {
    fn from(authority: &'a TrustedAuthority) -> Self {
        Self {
            subject: &authority.subject,
            fingerprint: &authority.fingerprint,
            not_after: authority.not_after.as_ref().map(timestamp),
            source: &authority.source,
        }
    }
}

impl<'a> From<&'a Asked> for View<'a> {
    fn from(asked: &'a Asked) -> Self {
        let status = &asked.status;
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
            mode: mode(status.mode),
            agent_uptime_ms: status.agent_uptime.as_ref().map(|up| millis(Some(up))),
            time: status.time.as_ref().map(timestamp),
            clock_skew_ms: asked.skew_ms,
            certificate: status.certificate.as_ref().map(CertificateView::from),
            authorities: status.authorities.iter().map(AuthorityView::from).collect(),
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
fn page(asked: &Asked, palette: Palette) -> String {
    let view = View::from(asked);
    let (state, ink) = goal_state(asked.status.state);
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
    for (label, value) in facts(&view, asked.clock()) {
        let label = palette.paint(Ink::Faint, &format!("{label:12}"));
        line(&mut page, format_args!("{label} {value}"));
    }
    if let Some(boot) = &view.boot {
        page.push('\n');
        page += &boot_section(boot, palette);
    }
    page
}

fn facts(view: &View<'_>, clock: Option<String>) -> Vec<(&'static str, String)> {
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
    facts.push(("mode", in_words(view.mode).to_owned()));
    for authority in &view.authorities {
        facts.push((
            "trusts",
            format!("{} until {}", authority.subject, until(&authority.not_after)),
        ));
    }
    if let Some(certificate) = &view.certificate {
        let by = match certificate.issuer {
            "" => String::new(),
            issuer => format!("by {issuer}, "),
        };
        facts.push(("certificate", format!("{by}until {}", until(&certificate.not_after))));
        facts.extend(certificate.request.as_ref().map(|request| ("requested", requested(request))));
    }
    // The agent starts within seconds of init; later it was started again.
    if let Some(agent) = view.agent_uptime_ms.filter(|agent| agent + AGENT_LATE < view.uptime_ms) {
        facts.push(("agent", format!("started again {} ago", short(agent))));
    }
    facts.extend(clock.map(|clock| ("clock", clock)));
    facts
}

/// How it stands with what the cluster is asked to sign, and what to do.
fn requested(request: &RequestView<'_>) -> String {
    match request.state {
        "pending" => {
            format!("another one; it waits for: kubectl certificate approve {}", request.name)
        }
        _ => format!("another one: {}", request.why),
    }
}

/// Milliseconds after init's start within which an agent counts as the first.
const AGENT_LATE: u64 = 120_000;

fn until(moment: &Option<String>) -> &str {
    moment.as_deref().unwrap_or("a time that it does not tell")
}

fn in_words(mode: &str) -> &str {
    match mode {
        "maintenance" => "maintenance: everybody who reaches it may read, and give it a config",
        "bootstrapped" => "bootstrapped: only clients with a certificate of a trusted authority",
        other => other,
    }
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
            mode: Mode::Bootstrapped.into(),
            agent_uptime: ms(12_000),
            time: Some(prost_types::Timestamp { seconds: 1_795_522_200, nanos: 0 }),
            certificate: Some(ServingCertificate {
                fingerprint: "c0ffee00".repeat(8),
                not_before: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
                not_after: Some(prost_types::Timestamp { seconds: 1_821_536_000, nanos: 0 }),
                names: vec!["keel-0f3a5c7e".to_owned(), "10.0.2.15".to_owned()],
                issuer: "CN=keel-0f3a5c7e".to_owned(),
                request: Some(CertificateRequest {
                    name: "keel-serving-n1-348fc9b468c704b2".to_owned(),
                    state: RequestState::Pending.into(),
                    why: String::new(),
                }),
            }),
            authorities: vec![TrustedAuthority {
                subject: "CN=kubernetes".to_owned(),
                fingerprint: "beef".repeat(16),
                not_after: Some(prost_types::Timestamp { seconds: 2_100_000_000, nanos: 0 }),
                source: "/etc/kubernetes/pki/ca.crt".to_owned(),
            }],
        }
    }

    fn degraded() -> NodeStatus {
        let one =
            |unit: &str, why: &str| Degradation { unit: unit.to_owned(), why: why.to_owned() };
        NodeStatus {
            state: GoalState::Degraded.into(),
            machine_id: None,
            mode: Mode::Maintenance.into(),
            authorities: vec![],
            links: vec![Link { name: "eth0".to_owned(), addresses: vec![] }],
            degraded: vec![
                one("link@eth0", "no DHCP server answered within 30 s"),
                one("time", "skipped: it requires link@eth0"),
            ],
            boot: None,
            ..healthy()
        }
    }

    fn asked(status: NodeStatus) -> Asked {
        Asked { status, skew_ms: Some(-95_000) }
    }

    fn check_skew(theirs: i64, took: u64, expect: i64) {
        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let theirs = prost_types::Timestamp { seconds: theirs, nanos: 0 };
        assert_eq!(skew(&theirs, before, Duration::from_secs(took)), Some(expect));
    }

    #[test]
    fn a_clock_is_measured_against_the_middle_of_the_call() {
        check_skew(1001, 2, 0);
        check_skew(1000, 2, -1000);
        check_skew(1010, 0, 10_000);
        check_skew(0, 0, -1_000_000);
        let clock = |skew_ms| Asked { skew_ms, ..Asked::default() }.clock();
        assert_eq!(clock(Some(1000)), None);
        assert_eq!(clock(None), None);
        assert_eq!(clock(Some(1001)).unwrap(), "1.00 s ahead of this computer's");
        assert_eq!(clock(Some(-90_000)).unwrap(), "1 min 30 s behind this computer's");
    }

    #[test]
    fn pages() {
        insta::assert_snapshot!("status_healthy", page(&asked(healthy()), Palette::PLAIN));
        insta::assert_snapshot!("status_degraded", page(&asked(degraded()), Palette::PLAIN));
    }

    #[test]
    fn json() {
        insta::assert_snapshot!(
            "status_json",
            serde_json::to_string_pretty(&View::from(&asked(healthy()))).unwrap()
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
