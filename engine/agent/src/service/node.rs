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
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::about::About;
use crate::processes::{NoCgroup, Places, processes};
use crate::service::watch::{Filter, Watch};
use crate::{answers, convert};

/// Callers that may ask init something at one moment; the others wait their turn. With the watchers they stay within the
/// connections that init allows.
const QUESTIONS: usize = 16;

/// How much of the graph one message carries: far less than a message may.
const PIECE: usize = 64 * 1024;

/// Graphs on their way to a caller at one time.
const EXPORTS: usize = 8;

/// Callers that may watch events at one time.
const WATCHERS: usize = 16;

/// The service.
#[derive(Debug)]
pub(crate) struct Node {
    control: PathBuf,
    about: Arc<About>,
    questions: Semaphore,
    watchers: Arc<Semaphore>,
    inventories: Semaphore,
    exports: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Node {
    /// Asks init at that socket, adds what the agent knows, and ends its streams when `stopping` turns true.
    pub(crate) fn new(
        control: PathBuf,
        about: Arc<About>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            control,
            about,
            questions: Semaphore::new(QUESTIONS),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            inventories: Semaphore::new(1),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            stopping,
        }
    }

    async fn ask_turn(&self) -> Result<SemaphorePermit<'_>, Status> {
        let turn = self.questions.acquire().await;
        turn.map_err(|_| Status::unavailable("the agent is stopping"))
    }

    /// Asks init one question, on a connection of its own: there is none to lose, so none to mend.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, Status> {
        let _turn = self.ask_turn().await?;
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
        let mut status = convert::status(status);
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
        let detail = self.ask(async |init| init.unit(name).await).await?;
        Ok(Response::new(answers::unit_detail(detail)))
    }

    type ExportGraphStream = ReceiverStream<Result<ExportGraphResponse, Status>>;

    async fn export_graph(
        &self,
        _: Request<ExportGraphRequest>,
    ) -> Result<Response<Self::ExportGraphStream>, Status> {
        let place = self.exports.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("others export the graph already; try again in a moment")
        })?;
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
        let _turn = self.ask_turn().await?;
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
        let place = self.watchers.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            Status::resource_exhausted(format!(
                "{WATCHERS} callers watch already; try again when one has left"
            ))
        })?;
        let WatchEventsRequest { from_seq, follow, units, kinds } = request.into_inner();
        let filter = Filter { units, kinds };
        let control = self.control.clone();
        let watch = Watch { control, from_seq, follow, filter, _place: place };
        Ok(Response::new(watch.start(self.stopping.clone())))
    }
}
