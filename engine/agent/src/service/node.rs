//! keel.v1.Node: asks init, and passes its answer on.

use std::path::PathBuf;
use std::sync::Arc;

use keel_control::{Control, ControlError};
use keel_proto::v1::node_server::Node as NodeApi;
use keel_proto::v1::{
    ExportGraphRequest, ExportGraphResponse, GetInventoryRequest, GetInventoryResponse,
    GetStatusRequest, GetStatusResponse, GetUnitRequest, GetUnitResponse, ListProcessesRequest,
    ListProcessesResponse, ListUnitsRequest, ListUnitsResponse, WatchEventsRequest,
    WatchEventsResponse,
};
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::service::watch::Watch;

/// Callers that may ask init something at one moment; the others wait their turn. With the watchers they stay within the
/// connections that init allows.
const QUESTIONS: usize = 16;

/// Callers that may watch events at one time.
const WATCHERS: usize = 16;

/// The service.
#[derive(Debug)]
pub(crate) struct Node {
    control: PathBuf,
    fingerprint: String,
    questions: Semaphore,
    watchers: Arc<Semaphore>,
    inventories: Semaphore,
    stopping: watch::Receiver<bool>,
}

impl Node {
    /// Asks init at that socket, shows that fingerprint, and ends its streams when `stopping` turns true.
    pub(crate) fn new(
        control: PathBuf,
        fingerprint: String,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            control,
            fingerprint,
            questions: Semaphore::new(QUESTIONS),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            inventories: Semaphore::new(1),
            stopping,
        }
    }

    /// Asks init one question, on a connection of its own: there is none to lose, so none to mend.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, Status> {
        let _turn = self
            .questions
            .acquire()
            .await
            .map_err(|_| Status::unavailable("the agent is stopping"))?;
        let answer = async { question(&mut Control::connect(&self.control).await?).await };
        answer.await.map_err(|error| convert::error(&error))
    }
}

#[tonic::async_trait]
impl NodeApi for Node {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let status = self.ask(Control::status).await?;
        let status = convert::status(status, self.fingerprint.clone());
        Ok(Response::new(GetStatusResponse { status: Some(status) }))
    }

    async fn list_units(
        &self,
        _: Request<ListUnitsRequest>,
    ) -> Result<Response<ListUnitsResponse>, Status> {
        let list = self.ask(Control::units).await?;
        Ok(Response::new(convert::units(list)))
    }

    async fn get_unit(
        &self,
        _: Request<GetUnitRequest>,
    ) -> Result<Response<GetUnitResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type ExportGraphStream = ReceiverStream<Result<ExportGraphResponse, Status>>;

    async fn export_graph(
        &self,
        _: Request<ExportGraphRequest>,
    ) -> Result<Response<Self::ExportGraphStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_processes(
        &self,
        _: Request<ListProcessesRequest>,
    ) -> Result<Response<ListProcessesResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn get_inventory(
        &self,
        _: Request<GetInventoryRequest>,
    ) -> Result<Response<GetInventoryResponse>, Status> {
        // It takes as long as the slowest disk, and must not hold up those who ask how the node is.
        let _turn = self.inventories.try_acquire().map_err(|_| {
            Status::resource_exhausted("an inventory is being taken already; try again in a moment")
        })?;
        let inventory = self.ask(Control::inventory).await?;
        let inventory = convert::inventory(inventory);
        Ok(Response::new(GetInventoryResponse { inventory: Some(inventory) }))
    }

    type WatchEventsStream = ReceiverStream<Result<WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let place = self.watchers.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            Status::resource_exhausted(format!(
                "{WATCHERS} callers watch already; try again when one has left"
            ))
        })?;
        let WatchEventsRequest { from_seq, follow, .. } = request.into_inner();
        let watch = Watch { control: self.control.clone(), from_seq, follow, _place: place };
        Ok(Response::new(watch.start(self.stopping.clone())))
    }
}
