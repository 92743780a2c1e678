//! The owner's state as a boot that is remembered: what it was, and its trace.

use std::time::{Duration, Instant, SystemTime};

use keel_control::{BootRecord, GoalState, Shutdown};
use keel_plan::{About, Ending, ShutdownKind, State, Trace, UnitTrace};

use crate::about;
use crate::recorder::Snapshot;
use crate::run::Run;
use crate::status::{micros, millis};

/// How long after one snapshot for a failure the next is made.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

impl Run {
    /// Has a record written at once, if there was none in the last while; else when that is over. A snapshot takes a look at every
    /// unit, and every unit may fail in one moment.
    pub(crate) fn record_soon(&mut self) {
        let free = self.recorded.map(|recorded| recorded + RECORD_PAUSE);
        match free.filter(|free| *free > Instant::now()) {
            Some(free) => self.record_due = Some(free),
            None => self.record(),
        }
    }

    /// Has a record of this moment written.
    pub(crate) fn record(&mut self) {
        (self.recorded, self.record_due) = (Some(Instant::now()), None);
        self.recorder.record(snapshot(self));
    }
}

/// Both.
pub(crate) fn snapshot(run: &Run) -> Snapshot {
    Snapshot { boot: boot(run), trace: trace(run) }
}

/// What this boot is.
pub(crate) fn boot(run: &Run) -> BootRecord {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    BootRecord {
        id: run.id.clone(),
        began_ms: millis(now.saturating_sub(run.now())),
        recorded_ms: millis(now),
        goal: run.name(run.transaction.goal()),
        // The machine goes down, but that is not how far the boot came.
        state: match (run.goal_state, &run.summary) {
            (GoalState::Stopping, Some(summary)) => summary.state(),
            (state, _) => state,
        },
        total_us: reached_at(run).map(micros),
        digest: run.graph.digest().to_string(),
        ended: run.ending.map(|kind| match kind {
            ShutdownKind::Reboot => Shutdown::Reboot,
            ShutdownKind::PowerOff => Shutdown::PowerOff,
            ShutdownKind::Halt => Shutdown::Halt,
        }),
    }
}

/// When the goal was up, if it was.
fn reached_at(run: &Run) -> Option<Duration> {
    let span = &run.executor.timeline().spans()[run.transaction.goal().index()];
    span.ended.filter(|_| matches!(span.state, State::Active(_)))
}

/// How this boot went so far.
pub(crate) fn trace(run: &Run) -> Trace {
    let outcome = run.summary.as_ref().map_or(Ending::Unfinished, |summary| summary.outcome());
    let total = reached_at(run).or(run.summary.as_ref().map(|summary| summary.total));
    let kernel = run.summary.as_ref().and_then(|summary| summary.kernel);
    let about = About {
        hostname: Some(about::hostname()),
        kernel: Some(about::kernel()),
        keel: Some(env!("CARGO_PKG_VERSION").to_owned()),
        cpus: about::processors(),
    };
    Trace::recorded(
        run.graph.digest().to_string(),
        run.name(run.transaction.goal()),
        outcome,
        micros(total.unwrap_or(run.now())),
        kernel.map(micros),
        about,
        units(run).collect(),
    )
}

/// How each unit came up. The goal first: without it nothing can be made of the others, and its job is the last.
pub(crate) fn units(run: &Run) -> impl Iterator<Item = UnitTrace> {
    let scheduler = run.executor.scheduler();
    let spans = run.executor.timeline().spans();
    let goal = run.transaction.goal();
    let others = run.transaction.jobs().iter().map(|job| job.unit).filter(move |id| *id != goal);
    std::iter::once(goal).chain(others).filter_map(move |id| {
        let span = &spans[id.index()];
        let status = scheduler.status(span.unit);
        let skipped = (span.state == State::Skipped).then_some(&status.why);
        let failed = status.trouble.as_ref().filter(|_| !span.state.is_active());
        let why = failed.or(skipped).map(|why| why.describe(&run.transaction).to_string());
        UnitTrace::new(&run.graph, span, why)
    })
}
