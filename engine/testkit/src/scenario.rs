//! Scenarios: a graph, what goes wrong on its machine, and what must come of it, as a TOML file in testdata/scenarios.
//!
//! ```toml
//! description = "A hung disk degrades the boot"
//! graph = "shipped"                      # units/ with machine-configs/qemu.toml; or a graph in the notation
//! until = "10m"                          # goes on so long; without it, to the end of the boot
//!
//! [units."partition.data"]               # how it behaves; without it, as its unit file hints
//! fault = "hang"                         # as in the notation
//!
//! [[requests]]
//! at = "100s"
//! start = "containerd"                   # or stop, restart; or shutdown = true
//!
//! [expect]
//! reached = true
//! within = "90s"                         # the boot, or with a shutdown the whole run
//! culprits = ["partition.data"]          # everything that the report puts the blame on, and nothing else
//! states = { keel-agent = "active(running)" }   # in the end
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keel_exec::Happening;
use keel_plan::{
    BOOT, Event, Fault, Job, JobKind, Machine, Outcome, Script, ShutdownKind, State, Transaction,
    UnitId, compile,
};
use keel_unit::keys::Text;
use keel_unit::load::load;
use keel_unit::value::Timespan;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::notation;
use crate::run::{Run, run};

/// One scenario file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What it shows.
    pub description: String,
    graph: String,
    until: Option<Span>,
    #[serde(default)]
    units: BTreeMap<String, UnitBehaviour>,
    #[serde(default)]
    requests: Vec<Request>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UnitBehaviour {
    takes: Option<Span>,
    stops_in: Option<Span>,
    unmet: Option<String>,
    fault: Option<String>,
    /// In which activation first; without it, the first.
    from: Option<u32>,
    /// In how many of its activations from that one on; without it, in all.
    times: Option<u32>,
    /// What goes wrong in every activation after those.
    then: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    at: Span,
    start: Option<String>,
    stop: Option<String>,
    restart: Option<String>,
    #[serde(default)]
    shutdown: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    reached: bool,
    within: Span,
    culprits: BTreeSet<String>,
    #[serde(default)]
    states: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Timespan::parse(&text).map(|Timespan(span)| Span(span)).map_err(D::Error::custom)
    }
}

/// The root of the workspace, where testdata/, units/ and machine-configs/ lie.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The boot that ships, on the machine that the demo boots.
pub fn shipped() -> Arc<Transaction> {
    let input = load(&root().join("units"), Some(&root().join("machine-configs/qemu.toml")));
    Arc::new(compile(input, BOOT).expect("what ships compiles").1)
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// What toml says about it.
    pub fn parse(text: &str) -> Result<Scenario, toml::de::Error> {
        toml::from_str(text)
    }

    /// Runs it on the fake host. Everything that came out other than expected, one line each.
    pub fn check(&self) -> Vec<String> {
        let (transaction, mut machine) = match &*self.graph {
            "shipped" => {
                let transaction = shipped();
                (Arc::clone(&transaction), Machine::new(transaction))
            }
            text => notation::read(text),
        };
        for (name, wanted) in &self.units {
            wanted.apply(&mut machine, find(&transaction, name));
        }
        let script = Script {
            events: self.requests.iter().map(|request| request.event(&transaction)).collect(),
            keep_running: self.until.is_some() || !self.requests.is_empty(),
            horizon: self.until.map_or(Script::default().horizon, |Span(until)| until),
            ..Script::default()
        };
        let run = run(&transaction, machine, 7, &script);
        self.expect.compare(&transaction, &run)
    }
}

fn find(transaction: &Transaction, name: &str) -> UnitId {
    transaction
        .find(name)
        .unwrap_or_else(|| panic!("the scenario names {name}, which does not exist"))
}

impl UnitBehaviour {
    fn apply(&self, machine: &mut Machine, unit: UnitId) {
        let behaviour = machine.behaviour(unit);
        if let Some(Span(takes)) = self.takes {
            behaviour.takes = takes;
        }
        if let Some(Span(stops_in)) = self.stops_in {
            behaviour.stops_in = stops_in;
        }
        behaviour.unmet = self.unmet.as_deref().map(Arc::from);
        let times = self.times.unwrap_or(Fault::ALWAYS);
        let kind = self.fault.as_deref().map(notation::read_fault);
        let from = self.from.unwrap_or(1);
        let then = self.then.as_deref().map(notation::read_fault).map(Fault::always);
        let then = then.map(Box::new);
        behaviour.fault = kind.map(|kind| Fault { kind, from, times, then });
    }
}

impl Request {
    fn event(&self, transaction: &Transaction) -> (Duration, Event) {
        let job = |kind, name: &str| Event::Request(Job { unit: find(transaction, name), kind });
        let event = match (&self.start, &self.stop, &self.restart, self.shutdown) {
            (Some(unit), None, None, false) => job(JobKind::Start, unit),
            (None, Some(unit), None, false) => job(JobKind::Stop, unit),
            (None, None, Some(unit), false) => job(JobKind::Restart, unit),
            (None, None, None, true) => Event::Shutdown(ShutdownKind::PowerOff),
            _ => panic!("a request is one of start, stop, restart and shutdown"),
        };
        (self.at.0, event)
    }
}

impl Expect {
    fn compare(&self, transaction: &Transaction, run: &Run) -> Vec<String> {
        let mut wrong = Vec::new();
        let name = |unit: UnitId| transaction.spec(unit).name.to_string();
        let mut states = vec![State::Inactive; transaction.units().len()];
        let mut outcome: Option<&Outcome> = None;
        let mut ended = None;
        for (at, happening) in &run.happened {
            match happening {
                Happening::Transition(it) => states[it.unit.index()] = it.to,
                Happening::Finished(it) => {
                    outcome = Some(it);
                    ended = Some(*at);
                }
                Happening::Down(_) => ended = Some(*at),
                _ => {}
            }
        }
        let Some(outcome) = outcome else { return vec!["the boot did not end".to_owned()] };
        if outcome.reached != self.reached {
            wrong.push(format!("reached is {}: {:?}", outcome.reached, outcome.degraded));
        }
        if ended.is_none_or(|at| at > self.within.0) {
            wrong.push(format!("it ended after {ended:?}, later than {:?}", self.within.0));
        }
        let culprits: BTreeSet<String> =
            outcome.degraded.iter().map(|it| name(it.culprit)).collect();
        if culprits != self.culprits {
            wrong.push(format!("the report blames {culprits:?}"));
        }
        for (unit, expect) in &self.states {
            let state = states[find(transaction, unit).index()].to_string();
            if state != *expect {
                wrong.push(format!("{unit} is {state}, not {expect}"));
            }
        }
        wrong
    }
}
