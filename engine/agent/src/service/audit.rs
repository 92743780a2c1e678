//! One caller's look at who called.

use std::sync::Arc;

use keel_proto::v1::{AuditRecord, ReadAuditRequest, ReadAuditResponse};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::audit::{Record, past};
use crate::calls::Shared;
use crate::log::chain;

/// Records in one message: far below its largest size.
const RECORDS: usize = 256;

type Batch = Result<ReadAuditResponse, Status>;

/// Starts to read; the stream ends with the caller, or when `stopping` turns true.
pub(super) fn read(
    shared: Arc<Shared>,
    request: ReadAuditRequest,
    mut stopping: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> ReceiverStream<Batch> {
    let (batches, stream) = mpsc::channel(2);
    tokio::spawn(async move {
        let _place = place;
        let end = tokio::select! {
            end = pump(&shared, &request, &batches) => end,
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

async fn pump(
    shared: &Shared,
    request: &ReadAuditRequest,
    batches: &Sender<Batch>,
) -> Result<(), Status> {
    // Before the files are read: what comes meanwhile stands in both, and is told once.
    let mut new = shared.audit.subscribe();
    // What has ended before this call began is among what is read.
    shared.audit.flush().await;
    let folder = shared.audit.folder().to_owned();
    let tail = usize::try_from(request.tail).unwrap_or(usize::MAX);
    let read = tokio::task::spawn_blocking(move || past(&folder, tail)).await;
    let records = read.map_err(|error| Status::internal(chain(&error)))?.map_err(|error| {
        Status::internal(format!("cannot read the audit log: {}", chain(&error)))
    })?;
    let mut next = records.first().filter(|_| tail > 0).map_or(1, |first| first.seq);
    tell(records, &mut next, batches).await?;
    if !request.follow {
        return Ok(());
    }
    loop {
        match new.recv().await {
            Ok(record) => {
                let record = Arc::unwrap_or_clone(record);
                tell(vec![record], &mut next, batches).await?;
            }
            // The gap in the numbers tells of it.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// Sends records that were not sent yet, a message for each run of them without a gap.
async fn tell(records: Vec<Record>, next: &mut u64, batches: &Sender<Batch>) -> Result<(), Status> {
    let mut batch = ReadAuditResponse::default();
    for record in records {
        if record.seq < *next {
            continue;
        }
        if !batch.records.is_empty() && (record.seq > *next || batch.records.len() >= RECORDS) {
            send(std::mem::take(&mut batch), batches).await?;
        }
        if batch.records.is_empty() {
            batch.dropped = record.seq - *next;
        }
        *next = record.seq + 1;
        batch.records.push(AuditRecord::from(record));
    }
    match batch.records.is_empty() {
        true => Ok(()),
        false => send(batch, batches).await,
    }
}

async fn send(batch: ReadAuditResponse, batches: &Sender<Batch>) -> Result<(), Status> {
    batches.send(Ok(batch)).await.map_err(|_| Status::cancelled("the caller has left"))
}
