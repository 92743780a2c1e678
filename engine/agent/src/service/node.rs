//! keel.v1.Node: asks init, and passes its answer on.

use std::sync::Arc;

use keel_control::{Control, ControlError};
use keel_proto::v1::node_server::Node as NodeApi;
use keel_proto::v1::{
    ExportGraphRequest, ExportGraphResponse, GetInventoryRequest, GetInventoryResponse,
    GetStatusRequest, GetStatusResponse, GetUnitRequest, GetUnitResponse, ListProcessesRequest,
    ListProcessesResponse, ListUnitsRequest, ListUnitsResponse, WatchEventsRequest,
    WatchEventsResponse,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::about::About;
use crate::init::Init;
use crate::processes::{NoCgroup, Places, processes};
use crate::service::watch::{Filter, Watch};
use crate::service::{bounds, place};
use crate::together::Together;
use crate::{answers, convert};

/// Callers for whom the processes may be looked at at one moment; the others wait their turn.
const LOOKS: usize = 4;

/// How much of the graph one message carries: far less than a message may.
const PIECE: usize = 64 * 1024;

/// Graphs on their way to a caller at one time.
const EXPORTS: usize = 8;

/// Callers that may watch events at one time.
const WATCHERS: usize = 16;

/// The service.
#[derive(Debug)]
pub(crate) struct Node {
    init: Arc<Init>,
    about: Arc<About>,
    status: Together<Result<Arc<keel_control::Status>, Status>>,
    looks: Semaphore,
    watchers: Arc<Semaphore>,
    inventories: Semaphore,
    exports: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Node {
    /// Asks init, adds what the agent knows, and ends its streams when `stopping` turns true.
    pub(crate) fn new(init: Arc<Init>, about: Arc<About>, stopping: watch::Receiver<bool>) -> Self {
        Self {
            init,
            about,
            status: Together::new(),
            looks: Semaphore::new(LOOKS),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            inventories: Semaphore::new(1),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            stopping,
        }
    }

    /// Asks init one question.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, Status> {
        self.init.ask(question).await.map_err(|error| convert::error(&error))
    }
}

#[tonic::async_trait]
impl NodeApi for Node {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        // Many ask this at one time, and often: a fleet's tools, and everybody who watches.
        let asked = self.status.ask(async || self.ask(Control::status).await.map(Arc::new));
        let mut status = convert::status(Arc::unwrap_or_clone(asked.await?));
        self.about.complete(&mut status);
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
        request: Request<GetUnitRequest>,
    ) -> Result<Response<GetUnitResponse>, Status> {
        let name = request.into_inner().unit;
        bounds::text("unit", &name)?;
        let detail = self.ask(async |init| init.unit(name).await).await?;
        Ok(Response::new(answers::unit_detail(detail)))
    }

    type ExportGraphStream = ReceiverStream<Result<ExportGraphResponse, Status>>;

    async fn export_graph(
        &self,
        _: Request<ExportGraphRequest>,
    ) -> Result<Response<Self::ExportGraphStream>, Status> {
        let place = place(&self.exports).await?;
        let graph = self.ask(Control::export_graph).await?;
        let (pieces, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            // A caller that reads slowly holds a whole graph.
            let _place = place;
            for piece in graph.chunks(PIECE) {
                let piece = ExportGraphResponse { piece: piece.to_vec() };
                // A caller that has left needs no more of it.
                if pieces.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_processes(
        &self,
        request: Request<ListProcessesRequest>,
    ) -> Result<Response<ListProcessesResponse>, Status> {
        let units = request.into_inner().units;
        bounds::units(&units)?;
        let turn = self.looks.acquire().await;
        let _turn = turn.map_err(|_| Status::unavailable("the agent is stopping"))?;
        let looked = tokio::task::spawn_blocking(move || processes(&Places::default(), &units));
        let looked = looked.await.map_err(|error| Status::internal(error.to_string()))?;
        let units = looked.map_err(|NoCgroup(unit)| {
            Status::not_found(format!("{} has no cgroup: it runs nothing", unit.escape_debug()))
        })?;
        Ok(Response::new(ListProcessesResponse { units }))
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
        let WatchEventsRequest { from_seq, follow, units, kinds } = request.into_inner();
        bounds::units(&units)?;
        bounds::list("kinds", kinds.len())?;
        let place = place(&self.watchers).await?;
        let filter = Filter { units, kinds };
        let init = self.init.clone();
        let watch = Watch { init, from_seq, follow, filter, _place: place };
        Ok(Response::new(watch.start(self.stopping.clone())))
    }
}
