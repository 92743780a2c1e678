//! One caller's stream of events.
//!
//! A caller that reads slowly must cost init nothing, so init is let go of while the caller catches up, and asked again from
//! where it stopped. What init has forgotten by then arrives as a count of dropped events.

use std::sync::Arc;
use std::time::Duration;

use keel_control::ControlError;
use keel_proto::v1::event::What;
use keel_proto::v1::{Event, EventKind, WatchEventsResponse};
use tokio::sync::mpsc::{self, Permit, Sender};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::convert;
use crate::init::{Init, Line};

/// Batches between init and the network: enough to keep both busy.
const BATCHES: usize = 2;

/// How long init is kept waiting for a caller.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What a caller wants to see.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) init: Arc<Init>,
    pub(crate) from_seq: u64,
    pub(crate) follow: bool,
    pub(crate) filter: Filter,
    /// The caller's place among all watchers, given back when the stream ends.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// Which events a caller wants.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// Only events about these units; all if there are none.
    pub(crate) units: Vec<String>,
    /// Only events of these kinds; all if there are none.
    pub(crate) kinds: Vec<i32>,
}

impl Filter {
    fn wants(&self, event: &Event) -> bool {
        let (kind, unit) = match &event.what {
            Some(What::Transition(one)) => (EventKind::Transition, Some(&one.unit)),
            Some(What::Fact(fact)) => (EventKind::Fact, fact.unit.as_ref()),
            Some(What::Goal(_)) => (EventKind::Goal, None),
            None => (EventKind::Unspecified, None),
        };
        (self.kinds.is_empty() || self.kinds.contains(&kind.into()))
            && (self.units.is_empty() || unit.is_some_and(|unit| self.units.contains(unit)))
    }
}

type Batch = Result<WatchEventsResponse, Status>;

impl Watch {
    /// Starts to read; the stream ends with the caller, with init, or when `stopping` turns true.
    pub(crate) fn start(self, mut stopping: watch::Receiver<bool>) -> ReceiverStream<Batch> {
        let (batches, stream) = mpsc::channel(BATCHES);
        tokio::spawn(async move {
            let end = tokio::select! {
                end = self.pump(&batches) => end,
                () = batches.closed() => return,
                _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable("the agent is stopping")),
            };
            if let Err(status) = end {
                // A caller that has left does not need to know.
                let _ = batches.send(Err(status)).await;
            }
        });
        ReceiverStream::new(stream)
    }

    async fn pump(&self, batches: &Sender<Batch>) -> Result<(), Status> {
        let mut next = self.from_seq;
        loop {
            match self.pump_while_the_caller_keeps_up(&mut next, batches).await {
                Ok(End::Newest) => return Ok(()),
                Ok(End::CallerIsSlow) => drop(room(batches).await?),
                Err(error) => return Err(convert::error(&error)),
            }
        }
    }

    async fn pump_while_the_caller_keeps_up(
        &self,
        next: &mut u64,
        batches: &Sender<Batch>,
    ) -> Result<End, ControlError> {
        let Line { mut control, place: _place } = self.init.follow().await?;
        let boot = control.boot().await?.id;
        let mut watch = control.watch(*next, self.follow).await?;
        loop {
            let Ok(Ok(room)) = timeout(PATIENCE, room(batches)).await else {
                return Ok(End::CallerIsSlow);
            };
            let Some(batch) = watch.next().await? else { return Ok(End::Newest) };
            *next = batch.next;
            let mut batch = convert::events(batch, boot.clone());
            batch.events.retain(|event| self.filter.wants(event));
            room.send(Ok(batch));
        }
    }
}

/// Why reading from init came to an end that is no error.
pub(crate) enum End {
    /// There is nothing newer, and the caller did not ask to follow.
    Newest,
    /// The caller does not take what is there.
    CallerIsSlow,
}

pub(crate) async fn room<T>(batches: &Sender<T>) -> Result<Permit<'_, T>, Status> {
    batches.reserve().await.map_err(|_| Status::cancelled("the caller has left"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use keel_control::{
        BootRecord, ConnectionError, EventLog, GoalState, Happened, Limits, LogQuery, LogSource,
        Refusal, Service, Shutdown, UnitList,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::sync::Semaphore;
    use tokio_stream::StreamExt;

    /// A machine that has events and nothing else.
    struct Machine(EventLog);

    impl Machine {
        fn say(&self, count: u64) {
            for _ in 0..count {
                self.0.push(0, Happened::Fact { unit: None, text: String::new() });
            }
        }
    }

    impl Service for Machine {
        async fn status(&self) -> Result<keel_control::Status, Refusal> {
            unreachable!("nobody asks")
        }

        async fn units(&self) -> Result<UnitList, Refusal> {
            unreachable!("nobody asks")
        }

        async fn inventory(&self) -> Result<keel_control::Inventory, Refusal> {
            unreachable!("nobody asks")
        }

        fn events(&self) -> &EventLog {
            &self.0
        }

        fn logs(&self, _: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
            unreachable!("nobody asks")
        }

        async fn boot(&self) -> Result<BootRecord, Refusal> {
            Ok(BootRecord {
                id: "0f".repeat(16),
                began_ms: 0,
                recorded_ms: 0,
                goal: "boot".to_owned(),
                state: GoalState::Reached,
                total_us: None,
                digest: String::new(),
                ended: None,
            })
        }

        async fn trace(&self) -> Result<Vec<u8>, Refusal> {
            unreachable!("nobody asks")
        }

        async fn shutdown(&self, _: Shutdown) -> Result<(), Refusal> {
            unreachable!("nobody asks")
        }

        fn connection_failed(&self, error: &ConnectionError) {
            eprintln!("{error}");
        }
    }

    /// What a batch says: dropped, first and last number.
    fn gist(batch: Option<Batch>) -> (u64, u64, u64) {
        let batch = batch.unwrap().unwrap();
        (batch.dropped, batch.events[0].seq, batch.events.last().unwrap().seq)
    }

    /// Whether init greets a newcomer as one that may stay. Leaves nothing behind: init has hung up at the end.
    async fn has_room(control: &Path) -> bool {
        let mut stream = UnixStream::connect(control).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut greeting = Vec::new();
        stream.read_to_end(&mut greeting).await.unwrap();
        // Its last field says so.
        greeting.last() == Some(&1)
    }

    #[test]
    fn filters() {
        use control::{GoalState, UnitState};
        use keel_control as control;
        let (from, to) = (UnitState::Waiting, UnitState::Activating);
        let unit = || "web".to_owned();
        let what = [
            Happened::Transition { unit: unit(), from, to, why: None },
            Happened::Fact { unit: Some(unit()), text: String::new() },
            Happened::Fact { unit: None, text: String::new() },
            Happened::Goal { state: GoalState::Reached, why: None },
        ];
        let events = (1..).zip(what).map(|(seq, what)| control::Event { seq, at_ms: 0, what });
        let batch = control::Batch { dropped: 0, events: events.collect(), next: 5 };
        let events = convert::events(batch, "0f".to_owned()).events;
        let check = |units: &[&str], kinds: &[EventKind], expect: &[u64]| {
            let units = units.iter().map(ToString::to_string).collect();
            let filter = Filter { units, kinds: kinds.iter().map(|kind| (*kind).into()).collect() };
            let wanted = events.iter().filter(|event| filter.wants(event));
            assert_eq!(wanted.map(|event| event.seq).collect::<Vec<_>>(), expect, "{filter:?}");
        };
        check(&[], &[], &[1, 2, 3, 4]);
        check(&["web"], &[], &[1, 2]);
        check(&["web", "db"], &[EventKind::Fact], &[2]);
        check(&["db"], &[], &[]);
        check(&[], &[EventKind::Fact, EventKind::Goal], &[2, 3, 4]);
        check(&[], &[EventKind::Unspecified], &[]);
    }

    #[tokio::test]
    async fn init_is_let_go_of_while_a_caller_is_slow() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control.sock");
        let machine = Arc::new(Machine(EventLog::new(1000)));
        let listener = keel_control::bind(&control).unwrap();
        let one_place = Limits { connections: 1, ..Limits::default() };
        tokio::spawn(keel_control::serve(listener, machine.clone(), one_place));

        machine.say(600);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let filter = Filter::default();
        let watch = Watch {
            init: Init::new(control.clone()),
            from_seq: 1,
            follow: true,
            filter,
            _place: place,
        };
        let (stop, stopping) = watch::channel(false);
        let mut stream = watch.start(stopping);
        assert_eq!(gist(stream.next().await), (0, 1, 128));
        // The watcher has init's only place, until two batches lie there untaken for too long.
        assert!(!has_room(&control).await);
        while !has_room(&control).await {
            tokio::task::yield_now().await;
        }

        machine.say(2000);
        assert_eq!(gist(stream.next().await), (0, 129, 256));
        assert_eq!(gist(stream.next().await), (0, 257, 384));
        assert_eq!(gist(stream.next().await), (1216, 1601, 1728), "what the ring still holds");
        while gist(stream.next().await).2 < 2600 {}
        machine.say(1);
        assert_eq!(gist(stream.next().await), (0, 2601, 2601));

        stop.send_replace(true);
        let end = stream.next().await.unwrap().unwrap_err();
        assert_eq!(end.message(), "the agent is stopping");
        assert!(stream.next().await.is_none());
    }
}
