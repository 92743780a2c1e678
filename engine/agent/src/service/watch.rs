//! One caller's stream of events.
//!
//! A caller that reads slowly must cost init nothing, so init is let go of while the caller catches up, and asked again from
//! where it stopped. What init has forgotten by then arrives as a count of dropped events.

use std::path::PathBuf;
use std::time::Duration;

use keel_control::{Control, ControlError};
use keel_proto::v1::WatchEventsResponse;
use tokio::sync::mpsc::{self, Permit, Sender};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::convert;

/// Batches between init and the network: enough to keep both busy.
const BATCHES: usize = 2;

/// How long init is kept waiting for a caller.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a caller wants to see.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) control: PathBuf,
    pub(crate) from_seq: u64,
    pub(crate) follow: bool,
    /// The caller's place among all watchers, given back when the stream ends.
    pub(crate) _place: OwnedSemaphorePermit,
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
        let mut watch = Control::connect(&self.control).await?.watch(*next, self.follow).await?;
        loop {
            let Ok(Ok(room)) = timeout(PATIENCE, room(batches)).await else {
                return Ok(End::CallerIsSlow);
            };
            let Some(batch) = watch.next().await? else { return Ok(End::Newest) };
            *next = batch.next;
            room.send(Ok(convert::events(batch)));
        }
    }
}

/// Why reading from init came to an end that is no error.
enum End {
    /// There is nothing newer, and the caller did not ask to follow.
    Newest,
    /// The caller does not take what is there.
    CallerIsSlow,
}

async fn room(batches: &Sender<Batch>) -> Result<Permit<'_, Batch>, Status> {
    batches.reserve().await.map_err(|_| Status::cancelled("the caller has left"))
}
