//! The scheduler under virtual time: what a boot would look like on a machine that one can only imagine.
//!
//! The [`Machine`] answers effects as its behaviours say: after so long, and with the faults that they hold. What decides is
//! [`Scheduler`] itself, the one that PID 1 runs.

use std::sync::Arc;
use std::time::Duration;

use crate::machine::{Machine, Queued};
use crate::scheduler::{Action, Event, Outcome, Scheduler};
use crate::state::{Illegal, State};
use crate::timeline::Timeline;
use crate::transaction::{Transaction, UnitId};

/// A simulated run.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Everything that the scheduler wanted done, and when, in order.
    pub log: Vec<(Duration, Action)>,
    /// How the units came up.
    pub timeline: Timeline,
    /// How the transaction ended; `None` if the horizon came first.
    pub outcome: Option<Outcome>,
    /// What every unit was when the run ended, by [`UnitId`].
    pub states: Vec<State>,
    /// How long each unit waited for a processor, by [`UnitId`]; empty where there was one for everybody.
    pub queued: Vec<Queued>,
    /// The first unit whose failure was an emergency.
    pub emergency: Option<UnitId>,
    /// The first unit whose failure made the machine reboot.
    pub reboot: Option<UnitId>,
    /// Reports that the scheduler had no use for.
    pub ignored: u64,
    /// What the scheduler did that its own table forbids.
    pub mistake: Option<Illegal>,
    /// When the run ended.
    pub ended_at: Duration,
}

/// What is to happen during a simulated run, and how long it goes on.
#[derive(Clone, Debug)]
pub struct Script {
    /// When the transaction is submitted: what the machine's time counts from may lie before that.
    pub begin: Duration,
    /// Events beside the machine's own reports, in the order of their instants.
    pub events: Vec<(Duration, Event)>,
    /// Goes on after the transaction has ended, as long as something is to happen.
    pub keep_running: bool,
    /// No further than this.
    pub horizon: Duration,
}

impl Default for Script {
    /// One boot, of at most a day.
    fn default() -> Self {
        Script {
            begin: Duration::ZERO,
            events: Vec::new(),
            keep_running: false,
            horizon: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Runs a transaction on an imagined machine. Of what happens at one instant, the machine's reports come first, then
/// the scheduler's timer, then the script, as in the executor: what has happened counts before what is due, and that
/// before what is asked.
pub fn simulate(
    transaction: &Arc<Transaction>,
    machine: Machine,
    seed: u64,
    script: &Script,
) -> Simulation {
    let mut log = Vec::new();
    let run = drive(transaction, machine, seed, script, |now, action| log.push((now, action)));
    Simulation { log, ..run }
}

/// As [`simulate`], and hands every action on instead of keeping it: whoever runs thousands of boots wants their ends alone.
pub fn drive(
    transaction: &Arc<Transaction>,
    mut machine: Machine,
    seed: u64,
    script: &Script,
    mut watch: impl FnMut(Duration, Action),
) -> Simulation {
    let mut scheduler = Scheduler::new(Arc::clone(transaction), seed);
    let mut run = Simulation {
        log: Vec::new(),
        timeline: Timeline::new(transaction.units().len()),
        outcome: None,
        states: Vec::new(),
        queued: Vec::new(),
        emergency: None,
        reboot: None,
        ignored: 0,
        mistake: None,
        ended_at: Duration::ZERO,
    };
    let mut script_events = script.events.iter().peekable();
    let mut wake_at: Option<Duration> = None;
    let mut down = false;
    let mut next = Some((script.begin, Event::Submit));
    while let Some((now, event)) = next {
        run.ended_at = now;
        for action in scheduler.handle(event, now) {
            match &action {
                Action::Begin { token, effect } => machine.begin(*token, *effect, now),
                Action::WakeAt(due) => wake_at = Some(*due),
                Action::Announce(transition) => run.timeline.record(transition),
                Action::Finished(outcome) => run.outcome = Some(outcome.clone()),
                Action::Down(_) => down = true,
                Action::Emergency { unit, .. } => run.emergency = run.emergency.or(Some(*unit)),
                Action::Reboot { unit, .. } => run.reboot = run.reboot.or(Some(*unit)),
                Action::JobEnded { .. }
                | Action::Refused { .. }
                | Action::Cleared { .. }
                | Action::GoalReached { .. } => {}
            }
            watch(now, action);
        }
        if down || run.outcome.is_some() && !script.keep_running {
            break;
        }
        next = loop {
            let scripted = script_events.peek().map(|&&(at, _)| at.max(now));
            let instants = [machine.next_due(), scripted, wake_at.map(|due| due.max(now))];
            let Some(now) = instants.into_iter().flatten().min().filter(|&at| at <= script.horizon)
            else {
                break None;
            };
            if let Some((token, report)) = machine.pop_due(now) {
                break Some((now, Event::Report { token, report }));
            } else if wake_at.is_some_and(|due| due <= now) {
                wake_at = None;
                break Some((now, Event::TimerDue));
            } else if scripted.is_some_and(|at| at <= now) {
                break script_events.next().map(|(_, event)| (now, event.clone()));
            }
            // Nothing that concerns the scheduler: a processor went from one unit to another.
        };
    }
    run.states = transaction.ids().map(|unit| scheduler.state(unit)).collect();
    run.queued = machine.queued().to_vec();
    run.ignored = scheduler.ignored();
    run.mistake = scheduler.mistake();
    run
}
