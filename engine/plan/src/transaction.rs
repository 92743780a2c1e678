//! A transaction: the jobs that bring a machine to a goal, compiled so far that no choice is left to make.
//!
//! The planner fills these types from the graph; the scheduler, the simulator and the executor read them. A [`Spec`] is
//! all that the scheduler needs to know of a unit, nothing else: what a unit *does* stays with the host. Whoever holds
//! a [`Transaction`] may rely on it: [`Transaction::new`] refuses one that could not be run to its end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::scheduler::Links;

/// A unit's place in [`Transaction::units`]: dense, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u32);

impl UnitId {
    /// As an index into a table with one row for each unit.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for UnitId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "#{}", self.0)
    }
}

/// How far the awaited unit must have come before an ordering edge lets the waiting one go.
///
/// An ordering edge never outlasts the awaited unit's job: when that job ends without getting so far (it failed, was
/// skipped or cancelled), or when there is no job at all, the edge is satisfied. Whether the result was a good one is
/// the business of `requires`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Await {
    /// Its effect is under way: for a service, its program runs.
    Started,
    /// It is up: a service said that it is ready, a oneshot is done, a target is reached.
    Ready,
    /// It has ended: a oneshot is done, a service's program has exited. Since a service may run for ever, the waiting
    /// unit's own deadline bounds this wait.
    Exited,
}

/// What a unit's activation is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A named point without work of its own: reached as soon as nothing holds it back.
    Target,
    /// Done when its effect returns, and `active(exited)` from then on: a mount, a module, a file, a oneshot, a link.
    Oneshot,
    /// A program that is started, then ready, and runs on: `active(running)` until it exits or is stopped.
    Service,
}

/// What follows when a unit has used up its attempts and is failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnFailure {
    /// What requires the unit fails by dependency; everything else goes on, and the goal is reached degraded.
    #[default]
    Degrade,
    /// As `Degrade`, once the attempts are used up: the word says that `attempts` is meant to be more than one.
    Retry,
    /// The machine stays up and reachable, and the goal counts as missed. See the scheduler's notes on emergencies.
    Emergency,
    /// Everything is stopped in order and the machine reboots.
    Reboot,
}

/// The failure policy of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What follows the last failed attempt.
    pub on: OnFailure,
    /// How many activations a start job may use in all: 1 repeats none, 0 counts as 1.
    pub attempts: u32,
    /// The pauses between them.
    pub backoff: Backoff,
}

impl Default for Failure {
    fn default() -> Self {
        Failure { on: OnFailure::Degrade, attempts: 1, backoff: Backoff::default() }
    }
}

/// When a unit that was up, and is no longer, is brought back without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RestartPolicy {
    /// Whatever way it ended.
    Always,
    /// If it ended in a failure: a status other than 0, an unclean signal, or the host reported it lost.
    OnFailure,
    /// Never.
    #[default]
    Never,
}

/// No more than `burst` starts within `interval`; one more and the unit is failed until somebody starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartLimit {
    /// Starts allowed in one interval.
    pub burst: u32,
    /// The interval, which begins with the first start counted.
    pub interval: Duration,
}

/// The restart policy of one unit.
///
/// It rules from the moment the start job has its result; until then the [`Failure`] policy does. So a boot never waits
/// for a service that crashes in a loop, and the loop is still supervised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Restart {
    /// When to restart.
    pub policy: RestartPolicy,
    /// The pauses between restarts. After `backoff.max` of being up, the next pause is the first one again.
    pub backoff: Backoff,
    /// When to give up; `None` never gives up.
    pub limit: Option<StartLimit>,
}

/// The deadline of a unit that says none. Every unit has one, a target too: what nothing bounds could hold a boot for ever.
pub const DEADLINE: Duration = Duration::from_secs(5 * 60);

/// One unit, as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The unit's name, for people and for the host; the scheduler goes by [`UnitId`].
    pub name: Arc<str>,
    /// What its activation is made of.
    pub class: Class,
    /// The longest one activation may take, the longest that its condition may take to be decided, and the longest wait for
    /// what nothing else ends.
    pub deadline: Duration,
    /// The longest an orderly stop may take before the unit is killed.
    pub stop_deadline: Duration,
    /// Start after these have come as far as the edge awaits; stop before them.
    pub after: Vec<(UnitId, Await)>,
    /// Fails by dependency if one of these fails; is stopped or restarted when one of these is, on request.
    pub requires: Vec<UnitId>,
    /// As `requires`, and may only be up while these are: it stops when one of them stops, exits or is skipped.
    pub binds_to: Vec<UnitId>,
    /// Pulled in by this unit; their results make no difference to it.
    pub wants: Vec<UnitId>,
    /// Starting this unit stops these, and the other way round.
    pub conflicts: Vec<UnitId>,
    /// Whether the host has a condition to check before each activation.
    pub has_condition: bool,
    /// What to do when the activation fails.
    pub failure: Failure,
    /// What to do when it was up and is no longer.
    pub restart: Restart,
    /// How long the activation usually takes, for simulations and progress; decides nothing.
    pub hint: Option<Duration>,
}

impl Spec {
    /// A unit of this name and class that stands alone: [`DEADLINE`], a stop deadline of 10 s, no edges, default
    /// policies. Meant to be filled in with struct update syntax.
    pub fn new(name: impl Into<Arc<str>>, class: Class) -> Spec {
        Spec {
            name: name.into(),
            class,
            deadline: DEADLINE,
            stop_deadline: Duration::from_secs(10),
            after: Vec::new(),
            requires: Vec::new(),
            binds_to: Vec::new(),
            wants: Vec::new(),
            conflicts: Vec::new(),
            has_condition: false,
            failure: Failure::default(),
            restart: Restart::default(),
            hint: None,
        }
    }
}

/// The transition that a job brings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Bring it up.
    Start,
    /// Take it down.
    Stop,
    /// Take it down if it is up, then bring it up.
    Restart,
}

/// One transition of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The unit.
    pub unit: UnitId,
    /// What to do with it.
    pub kind: JobKind,
}

/// Everything that a run needs, checked once.
#[derive(Clone, Debug)]
pub struct Transaction {
    goal: UnitId,
    jobs: Vec<Job>,
    units: Vec<Spec>,
    /// The edges backwards, made when the first scheduler asks: thousands of simulated boots share them.
    links: OnceLock<Arc<Links>>,
}

impl Transaction {
    /// `units` holds every unit of the graph, also those without a job: they can be started on request. `jobs` must be
    /// in topological order (a job stands behind the jobs of the units that its unit is ordered after) and must start
    /// the goal. Linear in units and edges.
    pub fn new(goal: UnitId, jobs: Vec<Job>, units: Vec<Spec>) -> Result<Transaction, Malformed> {
        let transaction = Transaction { goal, jobs, units, links: OnceLock::new() };
        transaction.check_references()?;
        transaction.check_acyclic()?;
        transaction.check_jobs()?;
        Ok(transaction)
    }

    pub(crate) fn links(&self) -> Arc<Links> {
        self.links.get_or_init(|| Arc::new(Links::new(self))).clone()
    }

    /// The unit that the run is for.
    pub fn goal(&self) -> UnitId {
        self.goal
    }

    /// The jobs, in topological order.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// Every unit of the graph, by [`UnitId`].
    pub fn units(&self) -> &[Spec] {
        &self.units
    }

    /// The unit with this id. Ids come from this transaction, so there is one.
    pub fn spec(&self, unit: UnitId) -> &Spec {
        &self.units[unit.index()]
    }

    /// The unit of this name. Linear: for requests that people make, not for the scheduler.
    pub fn find(&self, name: &str) -> Option<UnitId> {
        self.ids().find(|&id| &*self.spec(id).name == name)
    }

    /// All ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = UnitId> + use<> {
        (0..self.units.len() as u32).map(UnitId)
    }

    fn error(&self, unit: UnitId, kind: MalformedKind) -> Malformed {
        let name = self
            .units
            .get(unit.index())
            .map_or_else(|| format!("{unit:?}").into(), |spec| spec.name.clone());
        Malformed { unit: name, kind }
    }

    fn check_references(&self) -> Result<(), Malformed> {
        let known = |unit: UnitId| unit.index() < self.units.len();
        for id in self.ids() {
            let spec = self.spec(id);
            let ordered = spec.after.iter().map(|&(other, _)| other);
            let others = [&spec.requires, &spec.binds_to, &spec.wants, &spec.conflicts]
                .into_iter()
                .flatten()
                .copied();
            for other in ordered.chain(others) {
                if !known(other) {
                    return Err(self.error(id, MalformedKind::UnknownUnit(other)));
                }
                if other == id {
                    return Err(self.error(id, MalformedKind::RefersToItself));
                }
            }
        }
        let jobs = self.jobs.iter().map(|job| job.unit);
        match jobs.chain([self.goal]).find(|&unit| !known(unit)) {
            Some(unit) => Err(self.error(unit, MalformedKind::UnknownUnit(unit))),
            None => Ok(()),
        }
    }

    /// Ordering must be free of cycles over all units, not only over those with a job: a request may start any of them.
    fn check_acyclic(&self) -> Result<(), Malformed> {
        let mut held_by: Vec<u32> = self.units.iter().map(|spec| spec.after.len() as u32).collect();
        let mut before: Vec<Vec<UnitId>> = vec![Vec::new(); self.units.len()];
        for id in self.ids() {
            for &(other, _) in &self.spec(id).after {
                before[other.index()].push(id);
            }
        }
        let mut free: VecDeque<UnitId> = self.ids().filter(|id| held_by[id.index()] == 0).collect();
        while let Some(id) = free.pop_front() {
            for &later in &before[id.index()] {
                held_by[later.index()] -= 1;
                if held_by[later.index()] == 0 {
                    free.push_back(later);
                }
            }
        }
        match self.ids().find(|id| held_by[id.index()] > 0) {
            Some(id) => Err(self.error(id, MalformedKind::Cycle)),
            None => Ok(()),
        }
    }

    fn check_jobs(&self) -> Result<(), Malformed> {
        let mut position: Vec<Option<usize>> = vec![None; self.units.len()];
        let mut starts = vec![false; self.units.len()];
        for (index, job) in self.jobs.iter().enumerate() {
            if position[job.unit.index()].replace(index).is_some() {
                return Err(self.error(job.unit, MalformedKind::TwoJobs));
            }
            starts[job.unit.index()] = job.kind != JobKind::Stop;
        }
        if !starts[self.goal.index()] {
            return Err(self.error(self.goal, MalformedKind::GoalNotStarted));
        }
        for (index, job) in self.jobs.iter().enumerate() {
            let spec = self.spec(job.unit);
            if let Some(&(other, _)) = spec
                .after
                .iter()
                .find(|(other, _)| position[other.index()].is_some_and(|place| place > index))
            {
                return Err(
                    self.error(job.unit, MalformedKind::OutOfOrder(self.spec(other).name.clone()))
                );
            }
            if let Some(&other) = spec
                .conflicts
                .iter()
                .find(|other| starts[job.unit.index()] && starts[other.index()])
            {
                return Err(
                    self.error(job.unit, MalformedKind::Conflict(self.spec(other).name.clone()))
                );
            }
        }
        Ok(())
    }
}

/// A transaction that could not be run to its end. The planner's own errors come long before this one: to see it is to
/// see a bug in whatever compiled the transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transaction is malformed at {unit}: {kind}")]
pub struct Malformed {
    /// The unit where it shows.
    pub unit: Arc<str>,
    /// What is wrong.
    pub kind: MalformedKind,
}

/// What is wrong with a [`Malformed`] transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKind {
    /// An id outside the table of units.
    #[error("refers to {0:?}, which does not exist")]
    UnknownUnit(UnitId),
    /// An edge from a unit to itself.
    #[error("refers to itself")]
    RefersToItself,
    /// The unit is on an ordering cycle, or ordered after one.
    #[error("its ordering is a cycle")]
    Cycle,
    /// Two jobs for one unit.
    #[error("has two jobs")]
    TwoJobs,
    /// No job starts the goal.
    #[error("is the goal, and no job starts it")]
    GoalNotStarted,
    /// Its job stands before that of a unit that it is ordered after.
    #[error("its job stands before that of {0}, which it is ordered after")]
    OutOfOrder(Arc<str>),
    /// It is started together with a unit that it conflicts with.
    #[error("conflicts with {0}, which is started too")]
    Conflict(Arc<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units() -> Vec<Spec> {
        let plain = |name: &str| Spec::new(name, Class::Oneshot);
        vec![
            plain("a"),
            Spec { after: vec![(UnitId(0), Await::Ready)], ..plain("b") },
            Spec {
                after: vec![(UnitId(1), Await::Ready)],
                conflicts: vec![UnitId(3)],
                ..plain("c")
            },
            plain("d"),
        ]
    }

    fn starts(units: &[u32]) -> Vec<Job> {
        units.iter().map(|&unit| Job { unit: UnitId(unit), kind: JobKind::Start }).collect()
    }

    fn check(
        edit: impl FnOnce(&mut Vec<Spec>),
        jobs: Vec<Job>,
        expect: Result<(), (&str, MalformedKind)>,
    ) {
        let mut units = units();
        edit(&mut units);
        let got = Transaction::new(UnitId(2), jobs, units).map(|_| ());
        assert_eq!(got, expect.map_err(|(unit, kind)| Malformed { unit: unit.into(), kind }));
    }

    #[test]
    fn a_transaction_is_refused_for_what_would_keep_it_from_ending() {
        use MalformedKind::*;
        let same = |_: &mut Vec<Spec>| ();
        check(same, starts(&[0, 1, 2]), Ok(()));
        check(same, starts(&[2]), Ok(()));
        check(same, starts(&[1, 0, 2]), Err(("b", OutOfOrder("a".into()))));
        check(same, starts(&[0, 0, 2]), Err(("a", TwoJobs)));
        check(same, starts(&[0, 1]), Err(("c", GoalNotStarted)));
        check(same, starts(&[3, 2]), Err(("c", Conflict("d".into()))));
        check(same, starts(&[9, 2]), Err(("#9", UnknownUnit(UnitId(9)))));
        check(
            |units| units[3].wants.push(UnitId(7)),
            starts(&[2]),
            Err(("d", UnknownUnit(UnitId(7)))),
        );
        check(|units| units[3].requires.push(UnitId(3)), starts(&[2]), Err(("d", RefersToItself)));
        check(
            |units| units[0].after.push((UnitId(2), Await::Ready)),
            starts(&[2]),
            Err(("a", Cycle)),
        );
    }

    #[test]
    fn stopping_a_conflicting_unit_beside_is_what_a_transaction_is_for() {
        let jobs = vec![
            Job { unit: UnitId(3), kind: JobKind::Stop },
            Job { unit: UnitId(2), kind: JobKind::Start },
        ];
        check(|_| (), jobs, Ok(()));
    }
}
