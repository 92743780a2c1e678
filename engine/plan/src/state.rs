//! The states of a unit, and every way from one to the next.
//!
//! ```text
//!                     a condition is unmet
//!              +-------------------------------> skipped
//!              |   what it requires failed
//!              +-------------------------------> failed(dependency)
//!              |
//!  inactive -> waiting -> activating -> active(running) -> deactivating -> inactive
//!      ^        |  ^           |        active(exited)          |
//!      |        |  |           |              |                 |
//!      +--------+  +-----------+--------------+-----------------+   again, after a pause
//!      withdrawn               |              |                 |
//!                              +--------------+-----------------+-> failed
//! ```
//!
//! | state              | event -> state |
//! |--------------------|----------------|
//! | inactive           | submitted -> waiting |
//! | waiting            | begun -> activating; unmet -> skipped; lacking -> failed(dependency); failed -> failed; withdrawn -> inactive |
//! | activating         | ready -> active(running); done -> active(exited); leaving -> deactivating; repeats -> waiting; failed -> failed |
//! | active(running)    | leaving -> deactivating; left -> inactive; repeats -> waiting; failed -> failed |
//! | active(exited)     | leaving -> deactivating; left -> inactive; repeats -> waiting; failed -> failed |
//! | deactivating       | stopped -> inactive; repeats -> waiting; failed -> failed |
//! | failed             | submitted -> waiting |
//! | failed(dependency) | submitted -> waiting |
//! | skipped            | submitted -> waiting |
//!
//! Everything else is [`Illegal`]. `waiting` is a state of its own, with a reason: an ordering edge, the pause before
//! a repetition, or a condition that is being checked. A timed-out activation passes through `deactivating`, so that
//! nothing of it is left when it counts as failed or is repeated.
//!
//! What a unit *is* and what is *wanted* of it are two axes: [`State`] and [`Desired`]. A unit that is `active` and
//! wanted [`Desired::Down`] is one whose stop waits for its turn; there is no state for that.

use std::fmt;

/// What a unit is, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Down, and nothing is wrong.
    Inactive,
    /// To be started: held by an ordering edge, by a pause, or by a condition that is being checked.
    Waiting,
    /// Its activation is under way.
    Activating,
    /// Up.
    Active(Up),
    /// Being stopped or killed.
    Deactivating,
    /// Down, and something is wrong.
    Failed(Blame),
    /// Down, because a condition of its own says that there is nothing to do here.
    Skipped,
}

/// The two ways to be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Up {
    /// Its program runs.
    Running,
    /// Its work is done and holds: a mount, a file, a target reached.
    Exited,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The unit's: it is a culprit, and the report names it.
    Own,
    /// That of something it needs.
    Dependency,
}

/// What is wanted of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Desired {
    /// To be up.
    Up,
    /// To be down.
    Down,
    /// To be down first, and then up.
    Restart,
}

/// What happens to a unit. Events of the scheduler are about the machine; these are about one row of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnitEvent {
    /// It is to be brought up.
    Submitted,
    /// Its condition is unmet.
    Unmet,
    /// What it needs has failed.
    Lacking,
    /// It is no longer to be brought up.
    Withdrawn,
    /// Its activation has begun.
    Begun,
    /// Its program says that it is ready.
    Ready,
    /// Its work is done.
    Done,
    /// It ended, or its activation did, and will be tried again.
    Repeats,
    /// It ended by itself and is not to come back.
    Left,
    /// It is being stopped or killed.
    Leaving,
    /// Nothing of it is left.
    Stopped,
    /// It ended badly, for good.
    Failed,
}

/// An event that means nothing in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a unit that is {state} cannot take the event {event:?}")]
pub struct Illegal {
    /// The state.
    pub state: State,
    /// The event.
    pub event: UnitEvent,
}

/// The table above.
pub fn next(state: State, event: UnitEvent) -> Result<State, Illegal> {
    use State::{Activating, Active, Deactivating, Failed, Inactive, Skipped, Waiting};
    Ok(match (state, event) {
        (Inactive | Failed(_) | Skipped, UnitEvent::Submitted) => Waiting,

        (Waiting, UnitEvent::Begun) => Activating,
        (Waiting, UnitEvent::Unmet) => Skipped,
        (Waiting, UnitEvent::Lacking) => Failed(Blame::Dependency),
        (Waiting, UnitEvent::Withdrawn) => Inactive,

        (Activating, UnitEvent::Ready) => Active(Up::Running),
        (Activating, UnitEvent::Done) => Active(Up::Exited),

        (Activating | Active(_), UnitEvent::Leaving) => Deactivating,
        (Active(_), UnitEvent::Left) => Inactive,
        (Deactivating, UnitEvent::Stopped) => Inactive,

        (Activating | Active(_) | Deactivating, UnitEvent::Repeats) => Waiting,
        (Waiting | Activating | Active(_) | Deactivating, UnitEvent::Failed) => Failed(Blame::Own),

        (state, event) => return Err(Illegal { state, event }),
    })
}

impl State {
    /// Nothing of it runs and nothing of it is about to.
    pub fn is_down(self) -> bool {
        matches!(self, State::Inactive | State::Failed(_) | State::Skipped)
    }

    /// Its work holds or its program runs.
    pub fn is_active(self) -> bool {
        matches!(self, State::Active(_))
    }

    /// Something of it may exist on the machine: effects are under way or hold.
    pub fn holds(self) -> bool {
        matches!(self, State::Activating | State::Active(_) | State::Deactivating)
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            State::Inactive => "inactive",
            State::Waiting => "waiting",
            State::Activating => "activating",
            State::Active(Up::Running) => "active(running)",
            State::Active(Up::Exited) => "active(exited)",
            State::Deactivating => "deactivating",
            State::Failed(Blame::Own) => "failed",
            State::Failed(Blame::Dependency) => "failed(dependency)",
            State::Skipped => "skipped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 9] = [
        State::Inactive,
        State::Waiting,
        State::Activating,
        State::Active(Up::Running),
        State::Active(Up::Exited),
        State::Deactivating,
        State::Failed(Blame::Own),
        State::Failed(Blame::Dependency),
        State::Skipped,
    ];

    const EVENTS: [UnitEvent; 12] = [
        UnitEvent::Submitted,
        UnitEvent::Begun,
        UnitEvent::Unmet,
        UnitEvent::Lacking,
        UnitEvent::Withdrawn,
        UnitEvent::Ready,
        UnitEvent::Done,
        UnitEvent::Leaving,
        UnitEvent::Stopped,
        UnitEvent::Left,
        UnitEvent::Repeats,
        UnitEvent::Failed,
    ];

    /// The module's own table, read as a person reads it.
    fn documented() -> Vec<(String, Vec<(String, String)>)> {
        include_str!("state.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"))
            .filter(|row| !row.starts_with("state "))
            .map(|row| {
                let (state, events) = row.split_once('|').expect("two columns");
                let pairs = events.split(';').map(|pair| {
                    let (event, to) = pair.split_once("->").expect("event -> state");
                    (event.trim().to_owned(), to.trim().to_owned())
                });
                (state.trim().to_owned(), pairs.collect())
            })
            .collect()
    }

    #[test]
    fn the_whole_matrix_is_the_documented_table() {
        let table = documented();
        assert_eq!(table.len(), STATES.len());
        for state in STATES {
            let (_, row) = table
                .iter()
                .find(|(name, _)| *name == state.to_string())
                .expect("a row for each state");
            let mut legal = 0;
            for event in EVENTS {
                let word = format!("{event:?}").to_lowercase();
                let expect = row.iter().find(|(name, _)| *name == word).map(|(_, to)| to.clone());
                legal += usize::from(expect.is_some());
                match next(state, event) {
                    Ok(to) => assert_eq!(Some(to.to_string()), expect, "{state} on {word}"),
                    Err(illegal) => {
                        assert_eq!(illegal, Illegal { state, event });
                        assert_eq!(expect, None, "{state} on {word}");
                    }
                }
            }
            assert_eq!(legal, row.len(), "the row of {state} names an event that does not exist");
        }
    }

    #[test]
    fn every_state_is_either_down_waiting_or_holds_something() {
        for state in STATES {
            let kinds = [state.is_down(), state == State::Waiting, state.holds()];
            assert_eq!(kinds.iter().filter(|&&kind| kind).count(), 1, "{state}");
        }
    }
}
