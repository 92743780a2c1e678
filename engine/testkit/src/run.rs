//! A whole run of the executor on a fake host, under tokio's paused clock.

use std::sync::Arc;
use std::time::Duration;

use keel_exec::{Executor, Happening};
use keel_plan::{Event, Machine, Script, Transaction};
use tokio::time::{Instant, sleep_until};

use crate::fake::{Begun, FakeHost};

/// What came of a run.
pub struct Run {
    /// Everything that happened, and when.
    pub happened: Vec<(Duration, Happening)>,
    /// Everything that the host was asked for, and when.
    pub begun: Vec<Begun>,
}

/// Runs the executor on the machine with the same script, and to the same end, as [`keel_plan::simulate`] does.
pub fn run(transaction: &Arc<Transaction>, machine: Machine, seed: u64, script: &Script) -> Run {
    // Paused time costs nothing, so each run has a runtime of its own, which begins at zero.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let started = Instant::now();
        let host = FakeHost::new(machine, started);
        let mut executor = Executor::new(Arc::clone(transaction), host, seed, started);
        let mut events = script.events.iter().peekable();
        let mut happened = Vec::new();
        loop {
            let next = events.peek().map_or(script.horizon, |(at, _)| *at).min(script.horizon);
            tokio::select! {
                // As in the simulator: what has happened and what is due come before what is asked.
                biased;
                happening = executor.next() => {
                    let over = match &happening {
                        Happening::Down(_) => true,
                        Happening::Finished(_) => !script.keep_running,
                        _ => false,
                    };
                    happened.push((executor.now(), happening));
                    if over {
                        break;
                    }
                }
                () = sleep_until(started + next) => match events.next() {
                    Some((_, Event::Request(job))) => executor.request(*job),
                    Some((_, Event::Shutdown(kind))) => executor.shut_down(*kind),
                    // The others are not for people to give.
                    Some((
                        _,
                        Event::Submit
                        | Event::TimerDue
                        | Event::Report { .. }
                        | Event::Clear(_),
                    )) => {}
                    None => break,
                },
            }
        }
        Run { happened, begun: executor.host().begun().to_vec() }
    })
}
