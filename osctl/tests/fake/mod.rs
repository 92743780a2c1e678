//! A node that the test makes up, behind the real services of the API.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use keel_proto::v1::journal_server::{Journal, JournalServer};
use keel_proto::v1::node_server::{Node, NodeServer};
use keel_proto::v1::operation_server::{Operation, OperationServer};
use keel_proto::v1::*;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the node is, and what was done to it.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) status: NodeStatus,
    pub(crate) units: Vec<Unit>,
    pub(crate) processes: Vec<UnitProcesses>,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) events: Vec<Event>,
    /// Every change that was asked for, in words.
    pub(crate) asked: Vec<String>,
}

/// The services over one machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<Machine>>);

fn once<T: Send + 'static>(value: T) -> Response<Pieces<T>> {
    Response::new(Box::pin(tokio_stream::once(Ok(value))))
}

/// As a stream that is followed: it stays open.
fn and_on<T: Send + 'static>(value: T, follow: bool) -> Response<Pieces<T>> {
    let first = tokio_stream::once(Ok(value));
    if follow {
        Response::new(Box::pin(first.chain(tokio_stream::pending())))
    } else {
        Response::new(Box::pin(first))
    }
}

fn ms(ms: i64) -> Option<prost_types::Duration> {
    let nanos = i32::try_from(ms % 1000).unwrap() * 1_000_000;
    Some(prost_types::Duration { seconds: ms / 1000, nanos })
}

impl Fake {
    fn unit(&self, name: &str) -> Result<Unit, Status> {
        let machine = self.0.lock().unwrap();
        let unit = machine.units.iter().find(|unit| unit.name == name).cloned();
        unit.ok_or_else(|| Status::not_found(format!("there is no unit {name}")))
    }

    /// Serves connections, TLS or not, until the runtime ends.
    pub(crate) fn serve<S, I>(&self, incoming: I)
    where
        S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        I: Stream<Item = std::io::Result<S>> + Send + 'static,
    {
        let server = Server::builder()
            .add_service(NodeServer::new(self.clone()))
            .add_service(JournalServer::new(self.clone()))
            .add_service(OperationServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
    }
}

#[tonic::async_trait]
impl Node for Fake {
    type ExportGraphStream = Pieces<ExportGraphResponse>;
    type WatchEventsStream = Pieces<WatchEventsResponse>;

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let status = self.0.lock().unwrap().status.clone();
        Ok(Response::new(GetStatusResponse { status: Some(status) }))
    }

    async fn list_units(
        &self,
        _: Request<ListUnitsRequest>,
    ) -> Result<Response<ListUnitsResponse>, Status> {
        let units = self.0.lock().unwrap().units.clone();
        Ok(Response::new(ListUnitsResponse { now: ms(60_000), units }))
    }

    async fn get_unit(
        &self,
        request: Request<GetUnitRequest>,
    ) -> Result<Response<GetUnitResponse>, Status> {
        let unit = self.unit(&request.into_inner().unit)?;
        let edge = UnitEdge {
            unit: "net".to_owned(),
            word: "requires".to_owned(),
            provenance: "units/services/containerd.toml:3".to_owned(),
            state: UnitState::Exited.into(),
            holds_up: false,
        };
        Ok(Response::new(GetUnitResponse {
            now: ms(60_000),
            file: format!("units/services/{}.toml", unit.name),
            unit: Some(unit),
            dependencies: vec![edge],
            on_failure: "degrade".to_owned(),
            timeout: ms(30_000),
            ..GetUnitResponse::default()
        }))
    }

    async fn export_graph(
        &self,
        _: Request<ExportGraphRequest>,
    ) -> Result<Response<Self::ExportGraphStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn list_processes(
        &self,
        _: Request<ListProcessesRequest>,
    ) -> Result<Response<ListProcessesResponse>, Status> {
        let units = self.0.lock().unwrap().processes.clone();
        Ok(Response::new(ListProcessesResponse { units }))
    }

    async fn get_inventory(
        &self,
        _: Request<GetInventoryRequest>,
    ) -> Result<Response<GetInventoryResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let request = request.into_inner();
        let mut events = self.0.lock().unwrap().events.clone();
        events.retain(|event| event.seq >= request.from_seq);
        let next_seq = events.last().map_or(request.from_seq, |event| event.seq + 1);
        Ok(and_on(WatchEventsResponse { events, next_seq, ..Default::default() }, request.follow))
    }
}

#[tonic::async_trait]
impl Journal for Fake {
    type ReadLogsStream = Pieces<ReadLogsResponse>;
    type ReadKernelLogStream = Pieces<ReadKernelLogResponse>;
    type GetBootStream = Pieces<GetBootResponse>;
    type ReadAuditStream = Pieces<ReadAuditResponse>;

    async fn read_logs(
        &self,
        request: Request<ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        let request = request.into_inner();
        let mut lines = self.0.lock().unwrap().lines.clone();
        lines.retain(|line| request.units.is_empty() || request.units.contains(&line.unit));
        Ok(and_on(ReadLogsResponse { lines, ..Default::default() }, request.follow))
    }

    async fn read_kernel_log(
        &self,
        _: Request<ReadKernelLogRequest>,
    ) -> Result<Response<Self::ReadKernelLogStream>, Status> {
        Ok(once(ReadKernelLogResponse::default()))
    }

    async fn list_boots(
        &self,
        _: Request<ListBootsRequest>,
    ) -> Result<Response<ListBootsResponse>, Status> {
        Ok(Response::new(ListBootsResponse::default()))
    }

    async fn get_boot(
        &self,
        _: Request<GetBootRequest>,
    ) -> Result<Response<Self::GetBootStream>, Status> {
        Err(Status::not_found("no such boot is remembered"))
    }

    async fn read_audit(
        &self,
        _: Request<ReadAuditRequest>,
    ) -> Result<Response<Self::ReadAuditStream>, Status> {
        Err(Status::permission_denied(
            "ReadAudit needs the role admin, and this client is a viewer",
        ))
    }
}

#[tonic::async_trait]
impl Operation for Fake {
    async fn control_unit(
        &self,
        request: Request<ControlUnitRequest>,
    ) -> Result<Response<ControlUnitResponse>, Status> {
        let request = request.into_inner();
        self.unit(&request.unit)?;
        let verb = request.verb();
        let said =
            format!("{verb:?} {}{}", request.unit, if request.dry_run { " (dry)" } else { "" });
        self.0.lock().unwrap().asked.push(said);
        let job = PlannedJob {
            unit: request.unit,
            verb: verb.into(),
            why: "asked for".to_owned(),
            interrupts: verb != UnitVerb::Start,
        };
        Ok(Response::new(ControlUnitResponse { jobs: vec![job], digest: "d1".to_owned() }))
    }

    async fn reboot(&self, _: Request<RebootRequest>) -> Result<Response<RebootResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn power_off(
        &self,
        _: Request<PowerOffRequest>,
    ) -> Result<Response<PowerOffResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn reset(&self, _: Request<ResetRequest>) -> Result<Response<ResetResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}
