//! keel.v1.Journal: what the node has said and recorded.

use keel_proto::v1::journal_server::Journal as JournalApi;
use keel_proto::v1::{
    GetBootRequest, GetBootResponse, ListBootsRequest, ListBootsResponse, ReadAuditRequest,
    ReadAuditResponse, ReadKernelLogRequest, ReadKernelLogResponse, ReadLogsRequest,
    ReadLogsResponse,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(crate) struct Journal {}

#[tonic::async_trait]
impl JournalApi for Journal {
    type ReadLogsStream = ReceiverStream<Result<ReadLogsResponse, Status>>;

    async fn read_logs(
        &self,
        _: Request<ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type ReadKernelLogStream = ReceiverStream<Result<ReadKernelLogResponse, Status>>;

    async fn read_kernel_log(
        &self,
        _: Request<ReadKernelLogRequest>,
    ) -> Result<Response<Self::ReadKernelLogStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_boots(
        &self,
        _: Request<ListBootsRequest>,
    ) -> Result<Response<ListBootsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type GetBootStream = ReceiverStream<Result<GetBootResponse, Status>>;

    async fn get_boot(
        &self,
        _: Request<GetBootRequest>,
    ) -> Result<Response<Self::GetBootStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type ReadAuditStream = ReceiverStream<Result<ReadAuditResponse, Status>>;

    async fn read_audit(
        &self,
        _: Request<ReadAuditRequest>,
    ) -> Result<Response<Self::ReadAuditStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}
