//! Random graphs on random machines, for property tests.

use std::fmt;
use std::sync::Arc;

use keel_plan::{
    Await, Backoff, Behaviour, Class, Event, ExitStatus, Failure, Fault, FaultKind, Job, JobKind,
    Load, Machine, OnFailure, Restart, RestartPolicy, Spec, StartLimit, Transaction, UnitId,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::notation::ms;

/// A graph, and a machine to run it on.
#[derive(Clone)]
pub struct Case {
    /// The graph; its last unit is the goal.
    pub transaction: Arc<Transaction>,
    /// The machine.
    pub machine: Machine,
}

/// One line for each unit, without what is as usual: a failing case is read by people.
impl fmt::Debug for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut machine = self.machine.clone();
        for id in self.transaction.ids() {
            let spec = self.transaction.spec(id);
            let idle = !self.transaction.jobs().iter().any(|job| job.unit == id);
            write!(out, "\n{id:?} {:?}{}", spec.class, if idle { " idle" } else { "" })?;
            write!(out, " after {:?} requires {:?}", spec.after, spec.requires)?;
            write!(
                out,
                " binds-to {:?} wants {:?} conflicts {:?}",
                spec.binds_to, spec.wants, spec.conflicts
            )?;
            write!(
                out,
                " deadline {:?} on {:?}",
                spec.deadline,
                (spec.failure.on, spec.failure.attempts)
            )?;
            write!(out, " restart {:?} {:?}", spec.restart.policy, spec.restart.limit)?;
            write!(out, " condition {} {:?}", spec.has_condition, machine.behaviour(id))?;
        }
        Ok(())
    }
}

/// Graphs of up to so many units beside the goal: every class, word, policy and fault occurs, and machines of few processors
/// and of as many as anybody wants.
pub fn cases(units: usize) -> impl Strategy<Value = Case> {
    let processors = prop_oneof![Just(None), (1..4usize).prop_map(Some)];
    (vec(unit(), 1..=units), processors).prop_map(|(drawn, processors)| {
        let Case { transaction, machine } = build(drawn);
        let machine = match processors {
            Some(processors) => machine.with_processors(processors),
            None => machine,
        };
        Case { transaction, machine }
    })
}

/// What people might ask for while a graph of so many units runs, in the order of time.
pub fn requests(most: usize, within_ms: u64) -> impl Strategy<Value = Vec<(u64, JobKind, Index)>> {
    let kind = prop_oneof![Just(JobKind::Start), Just(JobKind::Stop), Just(JobKind::Restart)];
    vec((0..within_ms, kind, any::<Index>()), 0..=most).prop_map(|mut requests| {
        requests.sort_by_key(|&(at, ..)| at);
        requests
    })
}

/// A request for one of the units of a graph.
pub fn request(case: &Case, kind: JobKind, unit: &Index) -> Event {
    let unit = UnitId(unit.index(case.transaction.units().len()) as u32);
    Event::Request(Job { unit, kind })
}

/// One edge: to which unit, what it awaits, and which words stand beside `after`.
#[derive(Clone, Debug)]
struct Edge {
    to: Index,
    awaits: Await,
    after: bool,
    word: Word,
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Nothing,
    Wants,
    Requires,
    BindsTo,
    Conflicts,
}

#[derive(Clone, Debug)]
struct Unit {
    class: Class,
    edges: Vec<Edge>,
    idle: bool,
    failure: (OnFailure, u32),
    restart: Restart,
    /// Without one it has that of every unit that says none.
    deadline: Option<u64>,
    condition: Option<bool>,
    takes: (u64, u64, u64),
    load: Load,
    fault: Option<Fault>,
}

fn unit() -> impl Strategy<Value = Unit> {
    let class =
        prop_oneof![1 => Just(Class::Target), 4 => Just(Class::Oneshot), 4 => Just(Class::Service)];
    let on = prop_oneof![
        20 => Just(OnFailure::Degrade),
        2 => Just(OnFailure::Emergency),
        1 => Just(OnFailure::Reboot),
    ];
    let condition = prop_oneof![6 => Just(None), 2 => Just(Some(true)), 1 => Just(Some(false))];
    let fault = prop_oneof![3 => Just(None), 2 => fault().prop_map(Some)];
    let idle = proptest::bool::weighted(0.1);
    let takes = (0..200u64, 1..200u64, 1..200u64);
    let load = prop_oneof![3 => Just(Load::Works), 1 => Just(Load::Waits)];
    let deadline = prop_oneof![4 => (20..400u64).prop_map(Some), 1 => Just(None)];
    let work = (takes, load, fault);
    (class, vec(edge(), 0..4), idle, (on, 0..4u32), restart(), deadline, condition, work).prop_map(
        |(class, edges, idle, failure, restart, deadline, condition, work)| {
            let (takes, load, fault) = work;
            Unit { class, edges, idle, failure, restart, deadline, condition, takes, load, fault }
        },
    )
}

fn edge() -> impl Strategy<Value = Edge> {
    let awaits =
        prop_oneof![1 => Just(Await::Started), 4 => Just(Await::Ready), 1 => Just(Await::Exited)];
    let word = prop_oneof![
        4 => Just(Word::Nothing),
        4 => Just(Word::Wants),
        6 => Just(Word::Requires),
        3 => Just(Word::BindsTo),
        1 => Just(Word::Conflicts),
    ];
    (any::<Index>(), awaits, proptest::bool::weighted(0.8), word)
        .prop_map(|(to, awaits, after, word)| Edge { to, awaits, after, word })
}

fn restart() -> impl Strategy<Value = Restart> {
    let policy = prop_oneof![
        Just(RestartPolicy::Never),
        Just(RestartPolicy::OnFailure),
        Just(RestartPolicy::Always)
    ];
    let limit = proptest::option::of((1..4u32, 100..5000u64));
    (policy, limit).prop_map(|(policy, limit)| Restart {
        policy,
        backoff: backoff(),
        limit: limit.map(|(burst, interval)| StartLimit { burst, interval: ms(interval) }),
    })
}

fn backoff() -> Backoff {
    Backoff { initial: ms(50), max: ms(500), factor: 2, jitter: 50 }
}

fn fault() -> impl Strategy<Value = Fault> {
    let from = prop_oneof![3 => Just(1), 1 => 2..4u32];
    let times = prop_oneof![1..4u32, Just(Fault::ALWAYS)];
    let then = prop_oneof![2 => Just(None), 1 => fault_kind().prop_map(Some)];
    (fault_kind(), from, times, then).prop_map(|(kind, from, times, then)| {
        let then = then.map(|kind| Box::new(Fault::always(kind)));
        Fault { kind, from, times, then }
    })
}

fn fault_kind() -> impl Strategy<Value = FaultKind> {
    let status = prop_oneof![
        Just(ExitStatus::Code(0)),
        Just(ExitStatus::Code(1)),
        Just(ExitStatus::Signal(9)),
        Just(ExitStatus::Signal(15))
    ];
    prop_oneof![
        3 => Just(FaultKind::Fail { why: "broken".into() }),
        2 => Just(FaultKind::Hang),
        1 => Just(FaultKind::HangForever),
        1 => Just(FaultKind::HangStop),
        1 => Just(FaultKind::HangCondition),
        1 => (2..6u32).prop_map(FaultKind::Slow),
        3 => (1..600u64, status).prop_map(|(after, status)| FaultKind::Exit { after: ms(after), status }),
        1 => (1..600u64).prop_map(|after| FaultKind::Lose { after: ms(after), why: "lost".into() }),
    ]
}

fn build(drawn: Vec<Unit>) -> Case {
    let mut units: Vec<Spec> = Vec::new();
    let mut started: Vec<bool> = Vec::new();
    for (index, unit) in drawn.iter().enumerate() {
        let mut spec = Spec {
            stop_deadline: ms(100),
            has_condition: unit.condition.is_some(),
            failure: Failure { on: unit.failure.0, attempts: unit.failure.1, backoff: backoff() },
            restart: unit.restart,
            ..Spec::new(format!("u{index}"), unit.class)
        };
        if let Some(deadline) = unit.deadline {
            spec.deadline = ms(deadline);
        }
        for edge in unit.edges.iter().filter(|_| index > 0) {
            let to = UnitId(edge.to.index(index) as u32);
            if edge.after {
                spec.after.push((to, edge.awaits));
            }
            match edge.word {
                Word::Nothing => {}
                Word::Wants => spec.wants.push(to),
                Word::Requires => spec.requires.push(to),
                Word::BindsTo => spec.binds_to.push(to),
                // What is started together may not be in conflict; a request may bring the other in later.
                Word::Conflicts if unit.idle || !started[to.index()] => spec.conflicts.push(to),
                Word::Conflicts => {}
            }
        }
        started.push(!unit.idle);
        units.push(spec);
    }
    let goal = UnitId(units.len() as u32);
    let everything: Vec<UnitId> = (0..goal.0).map(UnitId).collect();
    units.push(Spec {
        after: everything.iter().map(|&unit| (unit, Await::Ready)).collect(),
        wants: everything,
        ..Spec::new("goal", Class::Target)
    });
    started.push(true);

    let ids = (0..units.len() as u32).map(UnitId);
    let jobs = ids
        .filter(|unit| started[unit.index()])
        .map(|unit| Job { unit, kind: JobKind::Start })
        .collect();
    let transaction =
        Arc::new(Transaction::new(goal, jobs, units).expect("made to be well-formed"));
    let mut machine = Machine::new(Arc::clone(&transaction));
    for (id, unit) in transaction.ids().zip(drawn) {
        let (takes, started_in, stops_in) = unit.takes;
        *machine.behaviour(id) = Behaviour {
            takes: ms(takes),
            started_in: ms(started_in.min(takes)),
            stops_in: ms(stops_in),
            load: unit.load,
            unmet: (unit.condition == Some(false)).then(|| "absent".into()),
            fault: unit.fault,
        };
    }
    Case { transaction, machine }
}
