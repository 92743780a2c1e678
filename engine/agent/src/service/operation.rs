//! keel.v1.Operation: what changes a running machine, without changing its graph.

use keel_proto::v1::operation_server::Operation as OperationApi;
use keel_proto::v1::{
    ControlUnitRequest, ControlUnitResponse, PowerOffRequest, PowerOffResponse, RebootRequest,
    RebootResponse, ResetRequest, ResetResponse,
};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(crate) struct Operation {}

#[tonic::async_trait]
impl OperationApi for Operation {
    async fn control_unit(
        &self,
        _: Request<ControlUnitRequest>,
    ) -> Result<Response<ControlUnitResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn reboot(&self, _: Request<RebootRequest>) -> Result<Response<RebootResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn power_off(
        &self,
        _: Request<PowerOffRequest>,
    ) -> Result<Response<PowerOffResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn reset(&self, _: Request<ResetRequest>) -> Result<Response<ResetResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}
