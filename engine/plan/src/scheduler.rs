//! The pure scheduler: `handle(event, now) -> actions`, and nothing else happens.
//!
//! It holds one row for each unit, takes one event at a time and says what is to be done. It reads no clock, touches no
//! machine and starts no thread, so PID 1, `osctl graph simulate` and the tests run the very same one.
//!
//! # Two passes
//!
//! An event changes one or a few rows. Then *settle* looks at every row that this may concern, through a queue and
//! never by recursion, until nothing changes any more; only then *act* begins the effects that are now due. So a unit
//! whose dependency failed through this very event is never started and taken back. Each look at a row costs its
//! edges, and a row is looked at when the one unit that it waits for moves, so a run is linear in the edges. Memory is
//! bounded by the units: one row, one timer and at most one place in each queue for each of them.
//!
//! # What the words mean
//!
//! systemd's meanings, made precise:
//!
//! - **after** holds a start until the other unit has come as far as the edge awaits, or its job has ended, however it
//!   ended. It also turns the order of stopping around: a unit stops before what it is ordered after. A unit that is
//!   being stopped is waited for until it is down.
//! - **requires** holds nothing by itself. A unit fails by dependency if it is still waiting when a required one fails,
//!   or if a required one is not up, nor on its way, when its own turn comes. Once it has begun, a later failure of
//!   the required one does not touch it; a *requested* stop or restart of that one is passed on.
//! - **binds-to** is requires, and the unit may only be up while the other is: it stops when that one stops, exits,
//!   fails or is skipped. If that one comes back by its restart policy, so does this.
//! - **wants** pulls in and nothing more.
//! - **conflicts**: starting one stops the other first.
//! - A **skipped** unit (condition unmet) satisfies ordering, wants and requires, as if it were up; not binds-to.
//!
//! # When things fail
//!
//! Until a start job has its result, the failure policy rules: `attempts` activations, with its backoff between them.
//! Then the job fails, what requires the unit fails by dependency, and `on` says what else happens. From then on the
//! restart policy rules, up to its start limit; hitting that, too, is a failure to which `on` applies. Nobody waits for
//! such restarts: a boot ends although a service crashes in a loop.
//!
//! A unit that failed by dependency gets another start when the unit that it lacked comes up after all, by a restart or
//! on request: a machine whose disk or lease comes late mends itself, and nobody has to start what hung on it.
//!
//! **Emergency**: the goal counts as missed, as if it required the unit that failed. What runs keeps running and stays
//! supervised; what needs the failed unit does not start; everything else still starts. An operator wants to get at
//! such a machine, and that takes the network and the agent, which have no reason to need what failed.
//!
//! **Deadlines** bound every activation, condition, stop and kill; an activation that passes its own is killed, and is
//! failed or repeated once nothing of it is left. A kill that makes no difference within [`KILL_GRACE`] is given up:
//! the unit is failed, and is not repeated, because two of it at once are worse than none. The wait for a unit that has no
//! job and comes back again and again, or may run for ever, is bounded by the waiting unit's own deadline, counted from the
//! first such wait of this activation: that the other is being killed in between is no new beginning. So a run ends within
//! the sum of the deadlines, whatever its units do.
//!
//! # From graph to graph
//!
//! A machine that runs takes on another graph in two moves. [`Event::Clear`] takes down, in reverse order and in the old graph, what
//! the change concerns; meanwhile nothing starts. When all of it is down ([`Action::Cleared`]), [`Scheduler::adopt`] carries every
//! other unit over by its name as it is, with its timer, its job and the token of what is under way, and starts what is to be
//! started. Both cost what the units are; at any other time a mutation costs nothing. A shutdown takes the place of either.

mod adopt;
mod jobs;
mod links;
mod messages;
mod rehearsal;
mod reports;
mod settle;
mod supervise;
mod timers;
mod why;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use adopt::Adoption;
pub use messages::{
    Action, Effect, Event, ExitStatus, JobResult, Outcome, Refusal, Report, Shortfall,
    ShutdownKind, Token, Transition,
};
pub use rehearsal::{Because, Planned};
pub use why::Why;

use crate::state::{self, Desired, Illegal, State, UnitEvent};
use crate::transaction::{Await, JobKind, Transaction, UnitId};
pub(crate) use links::Links;
use timers::Timers;

/// How long a kill may take before it is given up.
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// The scheduler of one machine, from boot to power-off.
#[derive(Clone)]
pub struct Scheduler {
    transaction: Arc<Transaction>,
    links: Arc<Links>,
    rows: Vec<Row>,
    /// For each unit, the one that holds its start or its stop, or held it last. Not in the rows: this is what is read
    /// most, for every edge of every unit that moves, and it should be small enough to stay at hand.
    waiting_for: Vec<Option<UnitId>>,
    timers: Timers,
    seed: u64,
    now: Duration,
    run: Run,
    /// Jobs of the transaction without a result.
    open_jobs: usize,
    /// Units that are not down.
    alive: usize,
    goal_reached: bool,
    shutdown: Option<Shutdown>,
    /// What is being taken down for another graph; nothing starts meanwhile.
    clearing: Option<adopt::Clearing>,
    /// What is to read its configuration again once everything is up.
    to_reload: Vec<UnitId>,
    ignored: u64,
    mistake: Option<Illegal>,
    effort: u64,
    agenda: Agenda,
    actions: Vec<Action>,
    /// The instant of the last [`Action::WakeAt`], until it has come.
    waking_at: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    NotSubmitted,
    Running,
    Finished,
}

#[derive(Clone)]
struct Shutdown {
    kind: ShutdownKind,
    /// Asked for, while another event is being settled; or begun; or over.
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Due,
    Begun,
    Over,
}

/// The two queues of the two passes. Both are empty between events.
#[derive(Clone, Default)]
struct Agenda {
    settle: VecDeque<UnitId>,
    settling: Vec<bool>,
    act: VecDeque<UnitId>,
    acting: Vec<bool>,
}

impl Agenda {
    fn new(units: usize) -> Agenda {
        Agenda { settling: vec![false; units], acting: vec![false; units], ..Agenda::default() }
    }

    fn look_at(&mut self, id: UnitId) {
        if !std::mem::replace(&mut self.settling[id.index()], true) {
            self.settle.push_back(id);
        }
    }

    fn act_on(&mut self, id: UnitId) {
        if !std::mem::replace(&mut self.acting[id.index()], true) {
            self.act.push_back(id);
        }
    }

    fn next_look(&mut self) -> Option<UnitId> {
        let id = self.settle.pop_front()?;
        self.settling[id.index()] = false;
        Some(id)
    }

    fn next_act(&mut self) -> Option<UnitId> {
        let id = self.act.pop_front()?;
        self.acting[id.index()] = false;
        Some(id)
    }
}

/// What the scheduler knows about one unit.
#[derive(Clone)]
struct Row {
    state: State,
    desired: Desired,
    since: Duration,
    why: Why,
    /// Why it last failed, until it is up again.
    trouble: Option<Why>,
    attempt: u32,
    job: Option<OpenJob>,
    /// Its last start came to something: it came up or was skipped, and has not failed or been stopped since.
    good: bool,
    /// How far the current job's activation came.
    reached: Option<Await>,
    /// Where to go on looking for what holds it: what has let it go once seldom holds it again.
    cursor: u32,
    /// Fails by dependency on this unit at the next look.
    doomed_by: Option<UnitId>,
    /// Since when, and until when, it may be held by what no job bounds: counted from the first such hold of this activation.
    patience: Option<Patience>,
    /// Waiting for its timer, before anything else.
    paused: bool,
    condition: Condition,
    /// Failed activations of the current start job.
    failures: u32,
    /// Restarts since it was last up for long, which the backoff grows with.
    streak: u32,
    /// Restarts in all.
    restarts: u32,
    /// Starts in the current interval of the start limit, and its beginning.
    window: (Duration, u32),
    leaving: Leaving,
}

#[derive(Clone, Copy)]
struct OpenJob {
    kind: JobKind,
    by: By,
}

/// Who opened a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The transaction.
    Transaction,
    /// A change of the graph. As the transaction's, it is awaited; its failure undoes the change, so the unit's own policy is not asked.
    Mutation,
    /// Somebody, for this unit; nobody waits for it.
    Request,
}

impl By {
    /// Whether the end of the run waits for it.
    fn counts(self) -> bool {
        self != By::Request
    }
}

#[derive(Clone, Copy)]
struct Patience {
    since: Duration,
    until: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Unknown,
    Checking,
    Met,
}

/// What a unit that is `deactivating` is on its way to, and how.
#[derive(Clone)]
struct Leaving {
    /// Why it leaves. Of a failed activation: why it failed.
    why: Why,
    /// The activation failed; this is not an orderly stop.
    failed: bool,
    /// `Kill` was begun.
    killing: bool,
}

impl Row {
    /// A unit to which nothing has happened.
    fn fresh() -> Row {
        Row {
            state: State::Inactive,
            desired: Desired::Down,
            since: Duration::ZERO,
            why: Why::Nothing,
            trouble: None,
            attempt: 0,
            job: None,
            good: false,
            reached: None,
            cursor: 0,
            doomed_by: None,
            patience: None,
            paused: false,
            condition: Condition::Unknown,
            failures: 0,
            streak: 0,
            restarts: 0,
            window: (Duration::ZERO, 0),
            leaving: Leaving { why: Why::Nothing, failed: false, killing: false },
        }
    }
}

/// One unit, as reports about the machine show it.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitStatus {
    /// What it is.
    pub state: State,
    /// What is wanted of it.
    pub desired: Desired,
    /// Since when it is so, since boot.
    pub since: Duration,
    /// Why it is so.
    pub why: Why,
    /// Why it last failed, until it is up again.
    pub trouble: Option<Why>,
    /// Activations so far.
    pub attempt: u32,
    /// How often the restart policy brought it back.
    pub restarts: u32,
    /// The unit that holds its start or its stop.
    pub waiting_for: Option<UnitId>,
    /// When its patience, its pause or its deadline ends, since boot: the state says which.
    pub until: Option<Duration>,
    /// It waits for that instant, and for no unit: the pause before its next start.
    pub paused: bool,
}

impl Scheduler {
    /// A machine on which nothing has been started. The seed decides the jitter of all pauses, and nothing else.
    pub fn new(transaction: Arc<Transaction>, seed: u64) -> Scheduler {
        let units = transaction.units().len();
        Scheduler {
            links: transaction.links(),
            rows: std::iter::repeat_with(Row::fresh).take(units).collect(),
            waiting_for: vec![None; units],
            timers: Timers::new(units),
            transaction,
            seed,
            now: Duration::ZERO,
            run: Run::NotSubmitted,
            open_jobs: 0,
            alive: 0,
            goal_reached: false,
            shutdown: None,
            clearing: None,
            to_reload: Vec::new(),
            ignored: 0,
            mistake: None,
            effort: 0,
            agenda: Agenda::new(units),
            actions: Vec::new(),
            waking_at: None,
        }
    }

    /// Takes one event; `now` is the time since boot and does not go backwards. Says what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        self.now = self.now.max(now);
        match event {
            Event::Submit => self.submit(),
            Event::Report { token, report } => self.report(token, report),
            Event::TimerDue => {
                while let Some(id) = self.timers.pop_due(self.now) {
                    self.timer_due(id);
                }
                self.waking_at = None;
            }
            Event::Request(job) => self.request(job),
            Event::Clear(units) => self.clear(&units),
            Event::Shutdown(kind) => self.ask_for_shutdown(kind),
        }
        self.run_agenda();
        self.conclude();
        std::mem::take(&mut self.actions)
    }

    /// What it was made for.
    pub fn transaction(&self) -> &Arc<Transaction> {
        &self.transaction
    }

    /// How one unit is.
    pub fn status(&self, id: UnitId) -> UnitStatus {
        let row = &self.rows[id.index()];
        let held = match row.state {
            State::Waiting => !row.paused && row.condition == Condition::Unknown,
            _ => row.state.is_active() && row.desired != Desired::Up,
        };
        UnitStatus {
            state: row.state,
            desired: row.desired,
            since: row.since,
            why: row.why.clone(),
            trouble: row.trouble.clone(),
            attempt: row.attempt,
            restarts: row.restarts,
            waiting_for: self.waiting_for[id.index()].filter(|_| held),
            until: self.timers.get(id),
            paused: row.paused,
        }
    }

    /// The chain of units that keeps this one from being up: each waits for the next, or failed for lack of it. The last one
    /// waits for no unit, so it is what has to be looked at. Empty for a unit that waits for no other.
    pub fn blockers(&self, unit: UnitId) -> Vec<UnitId> {
        let mut chain = vec![unit];
        let mut last = unit;
        // What waits never waits in a circle, but blame follows requirements, which may.
        while let Some(next) = self.blocked_by(last).filter(|next| !chain.contains(next)) {
            chain.push(next);
            last = next;
        }
        if chain.len() == 1 { Vec::new() } else { chain }
    }

    /// Every unit that keeps this one from being up, or from going down, at this moment: those whose edges hold it, and those that
    /// it lacked when it failed.
    pub fn held_by(&self, id: UnitId) -> Vec<UnitId> {
        let status = self.status(id);
        let spec = self.transaction.spec(id);
        let mut held: Vec<UnitId> = self.blocked_by(id).into_iter().collect();
        if status.state == State::Waiting && status.waiting_for.is_some() {
            let edges =
                spec.after.iter().filter(|&&(other, awaits)| self.holds(other, awaits).is_some());
            held.extend(edges.map(|(other, _)| *other));
        }
        held.sort_unstable();
        held.dedup();
        held
    }

    /// The unit that this one waits for, or lacked when it failed.
    fn blocked_by(&self, id: UnitId) -> Option<UnitId> {
        let status = self.status(id);
        let lacked = || status.trouble.as_ref().and_then(Why::blames);
        match status.state {
            State::Waiting if status.paused => None,
            State::Waiting | State::Active(_) | State::Activating => status.waiting_for,
            State::Failed(_) => lacked(),
            // What went down because another did, and is wanted all the same.
            State::Inactive if status.desired == Desired::Up || status.trouble.is_some() => {
                lacked()
            }
            State::Inactive | State::Deactivating | State::Skipped => None,
        }
    }

    /// What one unit is.
    pub fn state(&self, id: UnitId) -> State {
        self.rows[id.index()].state
    }

    /// Reports and events that came too late, twice or out of place, and changed nothing.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The first transition that the scheduler tried and its own table forbids: a mistake in the scheduler, kept for
    /// the report instead of a panic.
    pub fn mistake(&self) -> Option<Illegal> {
        self.mistake
    }

    /// Edges looked at so far, which is what a run costs. It grows with the edges of the graph and not with its shape;
    /// a test holds it to that, where a clock could not.
    pub fn effort(&self) -> u64 {
        self.effort
    }

    /// Settle and act, until neither finds anything.
    fn run_agenda(&mut self) {
        loop {
            if let Some(id) = self.agenda.next_look() {
                self.settle(id);
            } else if self
                .shutdown
                .as_ref()
                .is_some_and(|shutdown| shutdown.progress == Progress::Due)
            {
                self.begin_shutdown();
            } else if let Some(id) = self.agenda.next_act() {
                self.act(id);
            } else {
                return;
            }
        }
    }

    /// What is true of the whole once every unit has settled.
    fn conclude(&mut self) {
        if self.run == Run::Running && self.open_jobs == 0 && self.clearing.is_none() {
            self.run = Run::Finished;
            self.reload();
            let outcome = Outcome { reached: self.goal_reached, degraded: self.degraded() };
            self.actions.push(Action::Finished(outcome));
        }
        self.tell_when_cleared();
        if let Some(shutdown) = &mut self.shutdown
            && self.alive == 0
            && shutdown.progress == Progress::Begun
        {
            shutdown.progress = Progress::Over;
            self.actions.push(Action::Down(shutdown.kind));
        }
        let next = self.timers.next_due();
        if let Some(due) = next
            && next != self.waking_at
        {
            self.actions.push(Action::WakeAt(due));
        }
        self.waking_at = next;
    }

    /// The one place where a state changes.
    fn change(&mut self, id: UnitId, event: UnitEvent, why: Why) {
        let row = &mut self.rows[id.index()];
        let from = row.state;
        let to = match state::next(from, event) {
            Ok(to) => to,
            Err(illegal) => {
                // Every caller has looked at the state before. If one is wrong all the same, PID 1 does not die of it.
                self.mistake.get_or_insert(illegal);
                return;
            }
        };
        self.alive = self.alive + usize::from(!to.is_down()) - usize::from(!from.is_down());
        row.state = to;
        row.since = self.now;
        row.why = why.clone();
        let waited_for = self.waiting_for[id.index()].filter(|_| from == State::Waiting);
        let (attempt, at) = (row.attempt, self.now);
        let transition = Transition { unit: id, attempt, from, to, why, waited_for, at };
        self.actions.push(Action::Announce(transition));
    }

    fn begin(&mut self, id: UnitId, effect: Effect) {
        let token = Token { unit: id, attempt: self.rows[id.index()].attempt };
        self.actions.push(Action::Begin { token, effect });
    }

    /// Everybody who waits for this unit has another look.
    fn wake(&mut self, id: UnitId) {
        let before = self.transaction.spec(id).after.iter().map(|(other, _)| other);
        let later = self.links.later.of(id).iter();
        let needing = self.links.needed_by.of(id).iter();
        let conflicts = self.links.conflicts.of(id).iter();
        for &other in before.chain(later).chain(needing).chain(conflicts) {
            self.effort += 1;
            if self.waiting_for[other.index()] == Some(id) {
                self.agenda.look_at(other);
            }
        }
    }

    /// The units of the transaction's jobs that had trouble and are not up now, in the order of the jobs.
    pub fn degraded(&self) -> Vec<Shortfall> {
        let jobs = self.transaction.jobs().iter();
        let not_up = jobs.filter(|job| {
            let row = &self.rows[job.unit.index()];
            row.trouble.is_some() && !row.state.is_active()
        });
        not_up.map(|job| self.shortfall(job.unit)).collect()
    }

    /// Why a unit is not up, and the unit at the root of that.
    pub fn shortfall(&self, unit: UnitId) -> Shortfall {
        let trouble = |unit: UnitId| {
            let row = &self.rows[unit.index()];
            row.trouble.as_ref().unwrap_or(&row.why)
        };
        let mut culprit = unit;
        // Bounded, for blame follows requirements, which may be circular where ordering is not.
        for _ in 0..self.rows.len() {
            match trouble(culprit).blames() {
                Some(next) => culprit = next,
                None => break,
            }
        }
        Shortfall { unit, why: trouble(unit).clone(), culprit }
    }
}
