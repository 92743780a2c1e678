//! A stream that is followed and breaks: the agent was restarted, the machine was, or the network went. It is taken up again where it
//! stopped.

use std::time::{Duration, Instant};

use tonic::{Code, Status};

use crate::cli::NodeArgs;
use crate::error::Failure;
use crate::output::Output;

/// How long a node may be away: a machine that boots anew takes minutes.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a round of reading ended, if not well.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Trying again would change nothing.
    ForGood(Failure),
    /// The node is away, and may come back.
    Away(Failure),
    /// The node has booted anew since, and numbers its lines and events from 1.
    Rebooted(Failure),
}

impl Broken {
    /// What a node answered in the middle of a stream, or when it was asked to go on with one.
    pub(crate) fn by(status: &Status, failure: Failure) -> Self {
        match status.code() {
            Code::OutOfRange => Self::Rebooted(failure),
            // What tonic says of a connection that broke is `unknown`, or `internal` where HTTP/2 noticed.
            Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::ResourceExhausted => Self::Away(failure),
            _ => Self::ForGood(failure),
        }
    }
}

/// What reads a stream of a node, and knows where it is.
pub(crate) trait Reader {
    /// Whether it goes on with what comes from now on.
    fn follows(&self) -> bool;

    /// Whether the node has answered before: a break that comes first is no break, but a failure.
    fn answered(&self) -> bool;

    /// The node has booted anew: goes on from the start of that boot. False where that makes no sense.
    fn begin_anew(&mut self, _out: &mut Output) -> bool {
        false
    }

    /// Reads until the stream ends, or breaks.
    async fn round(
        &mut self,
        node: &NodeArgs,
        comeback: &mut Comeback,
        out: &mut Output,
    ) -> Result<(), Broken>;
}

/// Reads to the end, or follows for ever, through every break that may pass.
pub(crate) async fn read_on(
    mut reader: impl Reader,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut comeback = Comeback::new();
    loop {
        match reader.round(node, &mut comeback, out).await {
            Ok(()) => return Ok(()),
            Err(Broken::Rebooted(_)) if reader.follows() && reader.begin_anew(out) => {}
            Err(Broken::Away(failure)) if reader.follows() && reader.answered() => {
                comeback.wait(failure, out).await?;
            }
            Err(Broken::Away(failure) | Broken::ForGood(failure) | Broken::Rebooted(failure)) => {
                return Err(failure);
            }
        }
    }
}

/// What a follower does between a break and the next round.
#[derive(Debug)]
pub(crate) struct Comeback {
    away_since: Option<Instant>,
    pause: Duration,
    said: Option<String>,
}

impl Comeback {
    pub(crate) fn new() -> Self {
        Self { away_since: None, pause: FIRST_PAUSE, said: None }
    }

    /// The node is away. Waits before the next attempt, unless it has been away for too long.
    pub(crate) async fn wait(&mut self, failure: Failure, out: &mut Output) -> Result<(), Failure> {
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE {
            return Err(failure);
        }
        // Each reason once: one that is new may be one that does not pass, such as another certificate.
        let text = failure.lines().first().map(|(_, text)| text.clone()).unwrap_or_default();
        if self.said.as_ref() != Some(&text) {
            out.notice(&format!("{text}; going on when it is back"));
            self.said = Some(text);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// The node answers.
    pub(crate) fn back(&mut self, place: &str, out: &mut Output) {
        if self.away_since.take().is_some() {
            out.notice(&format!("the node is back; going on with {place}"));
            self.pause = FIRST_PAUSE;
            self.said = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_does_not() {
        let check = |code: Code, expect: &str| {
            let broken = Broken::by(&Status::new(code, ""), Failure::new("x"));
            let word = match broken {
                Broken::ForGood(_) => "for good",
                Broken::Away(_) => "away",
                Broken::Rebooted(_) => "rebooted",
            };
            assert_eq!(word, expect, "{code:?}");
        };
        check(Code::Unavailable, "away");
        check(Code::Unknown, "away");
        check(Code::OutOfRange, "rebooted");
        check(Code::NotFound, "for good");
        check(Code::PermissionDenied, "for good");
        check(Code::Unauthenticated, "for good");
        check(Code::InvalidArgument, "for good");
    }
}
