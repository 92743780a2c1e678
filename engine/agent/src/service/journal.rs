//! keel.v1.Journal: what the node has said and recorded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keel_control::{BootRecord, Control};
use keel_proto::v1::journal_server::Journal as JournalApi;
use keel_proto::v1::{
    GetBootRequest, GetBootResponse, ListBootsRequest, ListBootsResponse, ReadAuditRequest,
    ReadAuditResponse, ReadKernelLogRequest, ReadKernelLogResponse, ReadLogsRequest,
    ReadLogsResponse,
};
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::calls::Shared;
use crate::convert;
use crate::service::boots::{self, Meant};
use crate::service::{audit, bounds, kernel_log, logs, place};

/// Callers that may read logs of either kind at one time.
const READERS: usize = 16;

/// Callers for whom the records may be read at one moment: a disk that does not answer holds no more threads than that.
const LOOKS: usize = 4;

/// Callers that may read the audit log at one time: each has all of it in memory at first.
const AUDIT_READERS: usize = 4;

/// How long a disk may take.
const DISK: Duration = Duration::from_secs(5);

/// Batches between the source and the network: enough to keep both busy.
const BATCHES: usize = 2;

/// The most bytes of a trace in one answer.
const PIECE: usize = 256 * 1024;

/// The service.
#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    records: PathBuf,
    readers: Arc<Semaphore>,
    kernel_readers: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    audit_readers: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Journal {
    /// Asks init, reads records in that folder, and ends its streams when `stopping` turns true.
    pub(crate) fn new(
        records: PathBuf,
        shared: Arc<Shared>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            shared,
            records,
            readers: Arc::new(Semaphore::new(READERS)),
            kernel_readers: Arc::new(Semaphore::new(READERS)),
            looks: Arc::new(Semaphore::new(LOOKS)),
            audit_readers: Arc::new(Semaphore::new(AUDIT_READERS)),
            stopping,
        }
    }

    /// The boot that runs.
    async fn current(&self) -> Result<BootRecord, Status> {
        self.shared.init.ask(Control::boot).await.map_err(|error| convert::error(&error))
    }

    /// Looks at the records on a thread of its own, for a bounded time.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Path) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let slow = || Status::unavailable("the disk with the records of boots does not answer");
        let turn = self.looks.clone().try_acquire_owned().map_err(|_| slow())?;
        let records = self.records.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // Given back when the disk has answered, and not when the caller has left.
            let _turn: OwnedSemaphorePermit = turn;
            look(&records)
        });
        let looked = tokio::time::timeout(DISK, looked).await.map_err(|_| slow())?;
        looked.map_err(|error| Status::internal(error.to_string()))?
    }

    /// Which boot is meant by these digits.
    async fn find(&self, digits: String) -> Result<Meant, Status> {
        let current = self.current().await?.id;
        if digits.is_empty() || digits == current {
            return Ok(Meant::Current);
        }
        self.look(move |folder| boots::find(&digits, &current, || boots::list(folder))).await
    }

    /// A stream that `work` fills; it ends with the caller, or when the agent stops.
    fn stream<T: Send + 'static, F>(
        &self,
        place: OwnedSemaphorePermit,
        work: impl FnOnce(Sender<Result<T, Status>>) -> F,
    ) -> Response<ReceiverStream<Result<T, Status>>>
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (batches, stream) = mpsc::channel(BATCHES);
        let work = work(batches.clone());
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let _place = place;
            let end = tokio::select! {
                end = work => end,
                () = batches.closed() => return,
                _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable("the agent is stopping")),
            };
            if let Err(status) = end {
                // A caller that has left does not need to know.
                let _ = batches.send(Err(status)).await;
            }
        });
        Response::new(ReceiverStream::new(stream))
    }
}

/// Sends what is there already.
async fn send_all<T>(
    batches: Sender<Result<T, Status>>,
    all: impl IntoIterator<Item = T>,
) -> Result<(), Status> {
    for one in all {
        batches.send(Ok(one)).await.map_err(|_| Status::cancelled("the caller has left"))?;
    }
    Ok(())
}

#[tonic::async_trait]
impl JournalApi for Journal {
    type ReadLogsStream = ReceiverStream<Result<ReadLogsResponse, Status>>;

    async fn read_logs(
        &self,
        request: Request<ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        let request = request.into_inner();
        bounds::units(&request.units)?;
        bounds::text("boot", request.boot.as_deref().unwrap_or_default())?;
        let place = place(&self.readers).await?;
        let query = logs::query(request.clone(), SystemTime::now())?;
        let meant = match &request.boot {
            Some(digits) => self.find(digits.clone()).await?,
            None => Meant::Current,
        };
        let Meant::Recorded(record) = meant else {
            let init = self.shared.init.clone();
            return Ok(self
                .stream(place, |batches| async move { logs::pump(init, query, &batches).await }));
        };
        if request.follow {
            return Err(Status::invalid_argument("a boot that is over writes no more lines"));
        }
        let answers = self
            .look(move |_| {
                let lines = record.log().map_err(|error| boots::unreadable(&error))?;
                let boot = &record.boot;
                Ok(logs::of_record(lines, &request, &boot.id, boot.began_ms))
            })
            .await?;
        Ok(self.stream(place, |batches| send_all(batches, answers)))
    }

    type ReadKernelLogStream = ReceiverStream<Result<ReadKernelLogResponse, Status>>;

    async fn read_kernel_log(
        &self,
        request: Request<ReadKernelLogRequest>,
    ) -> Result<Response<Self::ReadKernelLogStream>, Status> {
        let place = place(&self.kernel_readers).await?;
        let ReadKernelLogRequest { tail, follow } = request.into_inner();
        Ok(self
            .stream(place, |batches| async move { kernel_log::pump(tail, follow, &batches).await }))
    }

    async fn list_boots(
        &self,
        _: Request<ListBootsRequest>,
    ) -> Result<Response<ListBootsResponse>, Status> {
        let _place = place(&self.readers).await?;
        let current = self.current().await?;
        let look = |folder: &Path| boots::list(folder).map_err(|error| boots::unreadable(&error));
        let (own, earlier): (Vec<_>, Vec<_>) =
            self.look(look).await?.into_iter().partition(|record| record.boot.id == current.id);
        let own = own.first().map(|record| (record.boot.recorded_ms, record.size));
        let (recorded_ms, size) = own.unwrap_or_default();
        let current = convert::boot(BootRecord { recorded_ms, ..current }, true, size);
        let earlier =
            earlier.into_iter().map(|record| convert::boot(record.boot, false, record.size));
        let boots = std::iter::once(current).chain(earlier).collect();
        Ok(Response::new(ListBootsResponse { boots }))
    }

    type GetBootStream = ReceiverStream<Result<GetBootResponse, Status>>;

    async fn get_boot(
        &self,
        request: Request<GetBootRequest>,
    ) -> Result<Response<Self::GetBootStream>, Status> {
        let digits = request.into_inner().boot;
        bounds::text("boot", &digits)?;
        let place = place(&self.readers).await?;
        let trace = match self.find(digits).await? {
            Meant::Current => {
                let trace = self.shared.init.ask(Control::trace).await;
                trace.map_err(|error| convert::error(&error))?
            }
            Meant::Recorded(record) => {
                let read = move |_: &Path| record.trace().map_err(|e| boots::unreadable(&e));
                self.look(read).await?.into_bytes()
            }
        };
        let pieces: Vec<_> =
            trace.chunks(PIECE).map(|piece| GetBootResponse { piece: piece.to_vec() }).collect();
        Ok(self.stream(place, |batches| send_all(batches, pieces)))
    }

    type ReadAuditStream = ReceiverStream<Result<ReadAuditResponse, Status>>;

    async fn read_audit(
        &self,
        request: Request<ReadAuditRequest>,
    ) -> Result<Response<Self::ReadAuditStream>, Status> {
        let place = place(&self.audit_readers).await?;
        let stopping = self.stopping.clone();
        Ok(Response::new(audit::read(self.shared.clone(), request.into_inner(), stopping, place)))
    }
}
