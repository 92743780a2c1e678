//! The words and colours for what a node answers, the same in every command and in JSON.

use std::time::{Duration, SystemTime};

use keel_proto::v1::{GoalState, UnitState};
use keel_unit::value::people;

use crate::output::Ink;

/// A goal's state: its word, and what it means to the reader.
pub(crate) fn goal_state(state: i32) -> (&'static str, Ink) {
    match GoalState::try_from(state) {
        Ok(GoalState::Booting) => ("booting", Ink::Warning),
        Ok(GoalState::Reached) => ("reached", Ink::Good),
        Ok(GoalState::Degraded) => ("degraded", Ink::Bad),
        Ok(GoalState::Emergency) => ("emergency", Ink::Bad),
        Ok(GoalState::Stopping) => ("stopping", Ink::Warning),
        // A newer node knows a word that this osctl does not.
        Ok(GoalState::Unspecified) | Err(_) => ("unknown", Ink::Warning),
    }
}

/// A unit's state: its word, and what it means to the reader.
pub(crate) fn unit_state(state: i32) -> (&'static str, Ink) {
    match UnitState::try_from(state) {
        Ok(UnitState::Inactive) => ("inactive", Ink::Faint),
        Ok(UnitState::Waiting) => ("waiting", Ink::Warning),
        Ok(UnitState::Activating) => ("activating", Ink::Warning),
        Ok(UnitState::Running) => ("running", Ink::Good),
        Ok(UnitState::Exited) => ("exited", Ink::Good),
        Ok(UnitState::Deactivating) => ("deactivating", Ink::Warning),
        Ok(UnitState::Failed) => ("failed", Ink::Bad),
        Ok(UnitState::Skipped) => ("skipped", Ink::Faint),
        Ok(UnitState::Unspecified) | Err(_) => ("unknown", Ink::Warning),
    }
}

/// The milliseconds of a duration on the wire; none counts as zero, as protobuf has it, and so does less than that.
pub(crate) fn millis(duration: Option<&prost_types::Duration>) -> u64 {
    let duration = duration
        .copied()
        .and_then(|duration| Duration::try_from(duration).ok())
        .unwrap_or_default();
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A moment as RFC 3339 writes it, to the second, in UTC.
pub(crate) fn moment(at: SystemTime) -> String {
    timestamp(&prost_types::Timestamp::from(at))
}

/// A moment on the wire, as RFC 3339 writes it, to the second.
pub(crate) fn timestamp(at: &prost_types::Timestamp) -> String {
    prost_types::Timestamp { seconds: at.seconds, nanos: 0 }.to_string()
}

/// The microseconds of a duration on the wire.
pub(crate) fn micros(duration: Option<&prost_types::Duration>) -> u64 {
    let duration = duration
        .copied()
        .and_then(|duration| Duration::try_from(duration).ok())
        .unwrap_or_default();
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A span of time as a person says it: two units at most.
pub(crate) fn short(millis: u64) -> String {
    people(Duration::from_millis(millis))
}

/// How long ago something was, as a person says it: nobody asks for the fractions of a second.
pub(crate) fn age(millis: u64) -> String {
    match millis / 1000 {
        seconds @ 0..60 => format!("{seconds} s"),
        _ => short(millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        assert_eq!(age(999), "0 s");
        assert_eq!(age(59_999), "59 s");
        assert_eq!(age(60_000), "1 min");
    }

    #[test]
    fn every_state_of_the_api_has_a_word() {
        let known = |words: fn(i32) -> (&'static str, Ink)| {
            (1..).take_while(move |n| words(*n).0 != "unknown").count()
        };
        assert_eq!(known(goal_state), 5);
        assert_eq!(known(unit_state), 8);
        assert_eq!(goal_state(0).0, "unknown");
        assert_eq!(unit_state(99).0, "unknown");
    }
}
