//! One unit of a running node, explained: waiting for what, since when, until when, and what happens then.

use std::fmt::Write as _;

use keel_proto::v1::{
    GetUnitRequest, GetUnitResponse, ListUnitsRequest, Unit, UnitEdge, UnitState,
};
use serde::Serialize;

use super::UnitView;
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, age, millis, short, unit_state};
use crate::output::{Format, Ink, Output, Palette, printable};

/// How much of a unit is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What it waits for and what comes next.
    Why,
    /// That, and every edge.
    Whole,
}

/// All that was heard about a unit, and about the one that holds it up.
struct Heard {
    unit: GetUnitResponse,
    /// The units between it and the blocker, the blocker too, as they stand.
    chain: Vec<Unit>,
    /// What is known of the blocker.
    blocker: Option<GetUnitResponse>,
}

/// Asks a node about one unit and shows it; again and again with `watch`. Exit code 1 if the unit has failed.
pub(crate) fn show(
    name: &str,
    depth: Depth,
    watch: bool,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Exit, Failure> {
    node::ask(async {
        let connection = node::reach(node, out).await?;
        let mut last = None;
        loop {
            let heard = hear(&connection, name).await?;
            match out.format() {
                Format::Table => {
                    let page = page(&heard, depth, out.palette());
                    // Only what is new is worth a page; the times in it always are.
                    let gist = gist(&heard);
                    if last.as_ref() != Some(&gist) {
                        let gap = if last.is_some() { "\n" } else { "" };
                        out.text(&format!("{gap}{page}"))?;
                    }
                    last = Some(gist);
                }
                Format::Json if watch => out.json_line(&View::from(&heard))?,
                Format::Json => out.json(&View::from(&heard))?,
            }
            if !watch {
                let failed = heard.own().state() == UnitState::Failed;
                return Ok(if failed { Exit::Findings } else { Exit::Clean });
            }
            tokio::time::sleep(super::AGAIN).await;
        }
    })
}

async fn hear(connection: &node::Connection, name: &str) -> Result<Heard, Failure> {
    let ask = async |name: &str| -> Result<GetUnitResponse, Failure> {
        let request = GetUnitRequest { unit: name.to_owned() };
        let answer = connection.node().get_unit(request).await;
        Ok(answer.map_err(|status| refused(&format!("explain {name}"), &status))?.into_inner())
    };
    let unit: GetUnitResponse = ask(name).await?;
    let (mut chain, mut blocker) = (Vec::new(), None);
    if let Some(last) = &unit.blocker {
        let list = connection.node().list_units(ListUnitsRequest {}).await;
        let list = list.map_err(|status| node::refused("list its units", &status))?.into_inner();
        let of_chain = unit.blocked_by.iter().skip(1);
        chain = of_chain
            .filter_map(|name| list.units.iter().find(|unit| unit.name == *name).cloned())
            .collect();
        blocker = Some(ask(last).await?);
    }
    Ok(Heard { unit, chain, blocker })
}

/// A call about a unit that the node did not answer as hoped: a name that is none is a slip.
pub(crate) fn refused(what: &str, status: &tonic::Status) -> Failure {
    match status.code() {
        tonic::Code::NotFound => {
            Failure::usage(status.message().to_owned()).next("`osctl units` lists them all")
        }
        tonic::Code::FailedPrecondition => {
            let failure = Failure::new(format!("the node did not {what}: {}", status.message()));
            failure.next("look at it again with `osctl units`, and ask once more")
        }
        _ => node::refused(what, status),
    }
}

impl Heard {
    fn own(&self) -> Unit {
        self.unit.unit.clone().unwrap_or_default()
    }

    fn now(&self) -> u64 {
        millis(self.unit.now.as_ref())
    }
}

/// What makes one page differ from the next: everything but the moment.
fn gist(heard: &Heard) -> (Unit, Vec<(String, i32)>, usize) {
    let chain = heard.chain.iter().map(|unit| (unit.name.clone(), unit.state)).collect();
    (Unit { memory_bytes: None, ..heard.own() }, chain, heard.unit.last_lines.len())
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
struct View<'a> {
    now_ms: u64,
    #[serde(flatten)]
    unit: UnitView<'a>,
    explanation: Vec<String>,
    file: &'a str,
    dependencies: Vec<EdgeView<'a>>,
    dependents: Vec<EdgeView<'a>>,
    on_failure: &'a str,
    timeout_ms: Option<u64>,
    restart_at_ms: Option<u64>,
    blocker: Option<&'a str>,
    blocked_by: &'a [String],
    last_lines: Vec<LineView<'a>>,
}

#[derive(Debug, Serialize)]
struct EdgeView<'a> {
    unit: &'a str,
    word: &'a str,
    provenance: &'a str,
    state: &'static str,
    holds_up: bool,
}

#[derive(Debug, Serialize)]
struct LineView<'a> {
    unit: &'a str,
    at_ms: u64,
    text: &'a str,
}

static NOBODY: std::sync::LazyLock<Unit> = std::sync::LazyLock::new(Unit::default);

impl<'a> From<&'a Heard> for View<'a> {
    fn from(heard: &'a Heard) -> Self {
        let detail = &heard.unit;
        let edge = |edge: &'a UnitEdge| EdgeView {
            unit: &edge.unit,
            word: &edge.word,
            provenance: &edge.provenance,
            state: unit_state(edge.state).0,
            holds_up: edge.holds_up,
        };
        let lines = detail.last_lines.iter().map(|line| LineView {
            unit: &line.unit,
            at_ms: millis(line.at.as_ref()),
            text: &line.text,
        });
        View {
            now_ms: heard.now(),
            unit: UnitView::from(detail.unit.as_ref().unwrap_or(&NOBODY)),
            explanation: sentences(heard),
            file: &detail.file,
            dependencies: detail.dependencies.iter().map(edge).collect(),
            dependents: detail.dependents.iter().map(edge).collect(),
            on_failure: &detail.on_failure,
            timeout_ms: detail.timeout.as_ref().map(|timeout| millis(Some(timeout))),
            restart_at_ms: detail.restart_at.as_ref().map(|at| millis(Some(at))),
            blocker: detail.blocker.as_deref(),
            blocked_by: &detail.blocked_by,
            last_lines: lines.collect(),
        }
    }
}

fn page(heard: &Heard, depth: Depth, palette: Palette) -> String {
    let own = heard.own();
    let (word, ink) = unit_state(own.state);
    let strong = |text: &str| palette.paint(Ink::Strong, text);
    let mut out = format!("{}  {}", strong(&printable(&own.name)), palette.paint(ink, word));
    if !own.description.is_empty() {
        let _ = write!(out, "  {}", printable(&own.description));
    }
    let stage = own.stage.as_ref().map(|stage| format!(" of stage {stage}")).unwrap_or_default();
    let _ = writeln!(out, "\n{}{stage}, {}\n", own.kind, printable(&heard.unit.file));
    for sentence in sentences(heard) {
        let _ = writeln!(out, "  {}", printable(&sentence));
    }
    if heard.chain.len() > 1 {
        let _ = writeln!(out, "\n{}", strong("what waits for what"));
        let widest = heard.chain.iter().map(|unit| unit.name.len()).max().unwrap_or(0);
        let widest = widest.max(own.name.len());
        for (deep, unit) in std::iter::once(&own).chain(&heard.chain).enumerate() {
            let (word, ink) = unit_state(unit.state);
            let since = age(heard.now().saturating_sub(millis(unit.since.as_ref())));
            let arrow = if deep == 0 { "  " } else { "└ " };
            let name = format!("{:indent$}{arrow}{:widest$}", "", unit.name, indent = 2 * deep);
            let rest = 2 * (heard.chain.len() - deep);
            let state = palette.paint(ink, &format!("{word:12}"));
            let _ = writeln!(out, "{name}{:rest$}  {state}  {since}", "");
        }
    }
    if depth == Depth::Whole {
        edges(&mut out, palette, "depends on", &heard.unit.dependencies);
        edges(&mut out, palette, "is depended on by", &heard.unit.dependents);
    }
    if let Some(first) = heard.unit.last_lines.first() {
        let _ = writeln!(out, "\n{}", strong(&format!("last lines of {}", printable(&first.unit))));
        for line in &heard.unit.last_lines {
            let at = palette.paint(Ink::Faint, &stamp(millis(line.at.as_ref())));
            let _ = writeln!(out, "  {at}  {}", printable(&line.text));
        }
    }
    out
}

/// A moment since init's start, as the console shows it.
fn stamp(ms: u64) -> String {
    format!("{:>6}.{:03}", ms / 1000, ms % 1000)
}

fn edges(out: &mut String, palette: Palette, title: &str, edges: &[UnitEdge]) {
    if edges.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", palette.paint(Ink::Strong, title));
    let width = |of: fn(&UnitEdge) -> &str| edges.iter().map(|e| of(e).len()).max().unwrap_or(0);
    let (names, words) = (width(|edge| &edge.unit), width(|edge| &edge.word));
    for edge in edges {
        let (state, ink) = unit_state(edge.state);
        let mark = if edge.holds_up { palette.paint(Ink::Bad, ">") } else { " ".to_owned() };
        let state = palette.paint(ink, &format!("{state:12}"));
        let why = palette.paint(Ink::Faint, &printable(&edge.provenance));
        let _ = writeln!(out, "{mark} {:words$}  {:names$}  {state}  {why}", edge.word, edge.unit);
    }
}

/// What a good engineer would say about it.
fn sentences(heard: &Heard) -> Vec<String> {
    let own = heard.own();
    let now = heard.now();
    let ago = |at: Option<&prost_types::Duration>| age(now.saturating_sub(millis(at)));
    let since = ago(own.since.as_ref());
    let note = own.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
    let mut lines = Vec::new();
    match own.state() {
        UnitState::Inactive if own.note.is_some() => {
            lines.push(format!("It has been down for {since}{note}."));
        }
        UnitState::Inactive => lines.push("Nothing was asked of it, so it is not up.".to_owned()),
        UnitState::Waiting => waiting(heard, &since, &note, &mut lines),
        UnitState::Activating => {
            let times = if own.attempts > 1 {
                format!(", for the {} time,", nth(own.attempts))
            } else {
                String::new()
            };
            lines.push(format!("It has been starting for {since}{times}{}.", deadline(&own, now)));
            lines.push(format!("If it fails, {}.", consequence(&heard.unit.on_failure)));
        }
        UnitState::Running => {
            let pid = own.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
            lines.push(format!("It has been up for {since}{}{pid}.", took(&own)));
        }
        UnitState::Exited => lines.push(format!("It did its work {since} ago{}.", took(&own))),
        UnitState::Deactivating => {
            lines.push(format!("It has been stopping for {since}."));
        }
        UnitState::Failed => failed(heard, &since, &note, &mut lines),
        UnitState::Skipped => lines.push(format!("It was skipped {since} ago{note}.")),
        UnitState::Unspecified => lines.push("This osctl does not know its state.".to_owned()),
    }
    let waiting_for_it: Vec<&str> = heard
        .unit
        .dependents
        .iter()
        .filter(|edge| edge.holds_up)
        .map(|edge| edge.unit.as_str())
        .collect();
    let mut waiting_for_it = waiting_for_it;
    waiting_for_it.dedup();
    if !waiting_for_it.is_empty() {
        lines.push(format!("It holds up {}.", listed(&waiting_for_it)));
    }
    lines
}

fn waiting(heard: &Heard, since: &str, note: &str, lines: &mut Vec<String>) {
    let now = heard.now();
    if let Some(at) = &heard.unit.restart_at {
        let left = short(millis(Some(at)).saturating_sub(now));
        lines.push(format!("It is started again in {left}{note}."));
        return;
    }
    let Some(first) = heard.chain.first() else {
        lines.push(format!("It has been waiting for {since} for its condition to be decided."));
        return;
    };
    let direct: Vec<&str> = heard
        .unit
        .dependencies
        .iter()
        .filter(|edge| edge.holds_up)
        .map(|edge| edge.unit.as_str())
        .collect();
    let mut direct = direct;
    direct.dedup();
    if direct.is_empty() {
        direct.push(first.name.as_str());
    }
    lines.push(format!("It has been waiting for {} for {since}.", listed(&direct)));
    root(heard, lines);
}

fn failed(heard: &Heard, since: &str, note: &str, lines: &mut Vec<String>) {
    lines.push(format!("It failed {since} ago{note}."));
    match heard.chain.is_empty() {
        true => {
            lines.push(format!(
                "Its failure policy is `{}`: {}.",
                heard.unit.on_failure,
                consequence(&heard.unit.on_failure)
            ));
        }
        false => {
            root(heard, lines);
            lines.push("It is started by itself when that comes up.".to_owned());
        }
    }
}

/// The unit at the end of the chain: how it stands, until when, and what follows.
fn root(heard: &Heard, lines: &mut Vec<String>) {
    let Some(blocker) = &heard.blocker else { return };
    let unit = blocker.unit.clone().unwrap_or_default();
    let now = millis(blocker.now.as_ref());
    let since = age(now.saturating_sub(millis(unit.since.as_ref())));
    let what = if heard.chain.len() > 1 {
        format!("At the root is {}, which", unit.name)
    } else {
        unit.name.clone()
    };
    let note = unit.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
    let on_failure = consequence(&blocker.on_failure);
    match unit.state() {
        UnitState::Activating => {
            lines.push(format!("{what} has been starting for {since}{}.", deadline(&unit, now)));
            lines.push(format!("If it fails, {on_failure}."));
        }
        UnitState::Waiting => match &blocker.restart_at {
            Some(at) => {
                let left = short(millis(Some(at)).saturating_sub(now));
                lines.push(format!("{what} is started again in {left}{note}."));
            }
            None => lines.push(format!("{what} has been waiting for {since}.")),
        },
        UnitState::Failed => {
            lines.push(format!("{what} failed {since} ago{note}."));
            lines.push(format!("Its failure policy is `{}`: {on_failure}.", blocker.on_failure));
        }
        UnitState::Deactivating => lines.push(format!("{what} has been stopping for {since}.")),
        UnitState::Running => {
            lines.push(format!(
                "{what} has been running for {since}; it is its end that is waited for."
            ));
        }
        state => {
            let word = unit_state(state.into()).0;
            lines.push(format!("{what} has been {word} for {since}{note}."));
        }
    }
}

/// When its start times out, as the end of a sentence.
fn deadline(unit: &Unit, now: u64) -> String {
    match unit.deadline.as_ref().map(|at| millis(Some(at)).checked_sub(now)) {
        Some(Some(left)) => format!(" and times out in {}", short(left)),
        Some(None) => " and its time is over".to_owned(),
        None => String::new(),
    }
}

fn took(unit: &Unit) -> String {
    let took = unit.took.as_ref().map(|took| short(millis(Some(took))));
    took.map(|took| format!(", after {took}")).unwrap_or_default()
}

/// What follows a failure, as the second half of a sentence.
fn consequence(word: &str) -> String {
    match word {
        "degrade" => "what requires it fails too, and the machine goes on without".to_owned(),
        "retry" => {
            "it is tried again until its attempts are used up, and then the machine goes on without"
                .to_owned()
        }
        "emergency" => {
            "the machine goes into emergency: it stays up and can be reached, for a person to look at"
                .to_owned()
        }
        "reboot" => "the machine stops everything and reboots".to_owned(),
        other => format!("`{other}` follows"),
    }
}

fn nth(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (1, last) if last != 11 => "st",
        (2, last) if last != 12 => "nd",
        (3, last) if last != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// `a`, `a and b`, `a, b and c`, and no more than can be read at a glance.
fn listed(names: &[&str]) -> String {
    const MOST: usize = 6;
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [firsts @ .., last] if names.len() <= MOST => format!("{} and {last}", firsts.join(", ")),
        many => format!("{} and {} more", many[..MOST - 1].join(", "), many.len() - MOST + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_proto::v1::LogLine;

    fn ms(ms: i64) -> Option<prost_types::Duration> {
        let nanos = i32::try_from(ms % 1000).unwrap() * 1_000_000;
        Some(prost_types::Duration { seconds: ms / 1000, nanos })
    }

    fn unit(name: &str, state: UnitState) -> Unit {
        Unit {
            name: name.to_owned(),
            kind: "service".to_owned(),
            stage: Some("services".to_owned()),
            description: format!("The {name}"),
            state: state.into(),
            since: ms(20_000),
            attempts: 1,
            ..Unit::default()
        }
    }

    fn edge(unit: &str, word: &str, state: UnitState, holds_up: bool) -> UnitEdge {
        UnitEdge {
            unit: unit.to_owned(),
            word: word.to_owned(),
            provenance: "units/services/kubelet.toml:4".to_owned(),
            state: state.into(),
            holds_up,
        }
    }

    fn detail(unit: Unit) -> GetUnitResponse {
        GetUnitResponse {
            now: ms(32_000),
            unit: Some(unit),
            file: "units/services/kubelet.toml".to_owned(),
            on_failure: "degrade".to_owned(),
            timeout: ms(30_000),
            ..GetUnitResponse::default()
        }
    }

    fn alone(unit: Unit) -> Heard {
        Heard { unit: detail(unit), chain: vec![], blocker: None }
    }

    /// kubelet, which waits for containerd, which waits for the disk.
    fn blocked(last: Unit, restart_at: Option<prost_types::Duration>, state: UnitState) -> Heard {
        let names = ["kubelet", "containerd", last.name.as_str()].map(str::to_owned);
        let unit = GetUnitResponse {
            blocker: Some(last.name.clone()),
            blocked_by: names.to_vec(),
            dependencies: vec![
                edge("containerd", "requires", UnitState::Waiting, true),
                edge("containerd", "after", UnitState::Waiting, true),
                edge("time", "after", UnitState::Exited, false),
            ],
            dependents: vec![edge("boot", "after", UnitState::Waiting, true)],
            last_lines: vec![LogLine {
                unit: last.name.clone(),
                at: ms(31_204),
                text: "no such device".to_owned(),
                ..LogLine::default()
            }],
            ..detail(Unit {
                note: Some("needs containerd, which is not up".to_owned()),
                ..unit("kubelet", state)
            })
        };
        let containerd = Unit { state: state.into(), ..self::unit("containerd", state) };
        let blocker = GetUnitResponse { restart_at, ..detail(last.clone()) };
        Heard { unit, chain: vec![containerd, last], blocker: Some(blocker) }
    }

    #[test]
    fn pages() {
        let disk = Unit { deadline: ms(50_000), ..unit("partition.data", UnitState::Activating) };
        let waiting = blocked(disk, None, UnitState::Waiting);
        insta::assert_snapshot!("live_waiting", page(&waiting, Depth::Why, Palette::PLAIN));
        insta::assert_snapshot!("live_whole", page(&waiting, Depth::Whole, Palette::PLAIN));
        insta::assert_snapshot!(
            "live_json",
            serde_json::to_string_pretty(&View::from(&waiting)).unwrap()
        );
    }

    fn check(heard: &Heard, expect: &[&str]) {
        assert_eq!(sentences(heard), expect);
    }

    #[test]
    fn what_is_said_in_each_state() {
        check(
            &alone(unit("a", UnitState::Inactive)),
            &["Nothing was asked of it, so it is not up."],
        );
        check(
            &alone(Unit { took: ms(1_500), pid: Some(7), ..unit("a", UnitState::Running) }),
            &["It has been up for 12 s, after 1.50 s, pid 7."],
        );
        check(&alone(unit("a", UnitState::Exited)), &["It did its work 12 s ago."]);
        let note = || Some("no such file".to_owned());
        check(
            &alone(Unit { note: note(), ..unit("a", UnitState::Skipped) }),
            &["It was skipped 12 s ago: no such file."],
        );
        check(
            &alone(Unit { note: note(), ..unit("a", UnitState::Failed) }),
            &[
                "It failed 12 s ago: no such file.",
                "Its failure policy is `degrade`: what requires it fails too, and the machine goes on without.",
            ],
        );
        check(
            &alone(Unit { deadline: ms(33_250), attempts: 2, ..unit("a", UnitState::Activating) }),
            &[
                "It has been starting for 12 s, for the 2nd time, and times out in 1.25 s.",
                "If it fails, what requires it fails too, and the machine goes on without.",
            ],
        );
        let mut pausing = alone(Unit { note: note(), ..unit("a", UnitState::Waiting) });
        pausing.unit.restart_at = ms(36_000);
        check(&pausing, &["It is started again in 4 s: no such file."]);
        let failed = Unit { note: note(), ..unit("partition.data", UnitState::Failed) };
        check(
            &blocked(failed, None, UnitState::Failed),
            &[
                "It failed 12 s ago: needs containerd, which is not up.",
                "At the root is partition.data, which failed 12 s ago: no such file.",
                "Its failure policy is `degrade`: what requires it fails too, and the machine goes on without.",
                "It is started by itself when that comes up.",
                "It holds up boot.",
            ],
        );
        let pausing = Unit { note: note(), ..unit("lease", UnitState::Waiting) };
        check(
            &blocked(pausing, ms(34_000), UnitState::Waiting),
            &[
                "It has been waiting for containerd for 12 s.",
                "At the root is lease, which is started again in 2 s: no such file.",
                "It holds up boot.",
            ],
        );
    }

    #[test]
    fn lists_and_numbers() {
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(listed(&["a"; 9]), "a, a, a, a, a and 4 more");
        assert_eq!(
            [1, 2, 3, 4, 11, 12, 21].map(nth),
            ["1st", "2nd", "3rd", "4th", "11th", "12th", "21st"]
        );
    }
}
