//! keel.v1.Operation: what changes a running machine, without changing its graph. Init plans and does it; here it is asked.

use std::sync::Arc;

use keel_control::{Control, ControlError, ControlUnit, Reset, Shutdown, UnitPlan, UnitVerb};
use keel_proto::v1;
use keel_proto::v1::operation_server::Operation as OperationApi;
use keel_proto::v1::{
    ControlUnitRequest, ControlUnitResponse, PowerOffRequest, PowerOffResponse, RebootRequest,
    RebootResponse, ResetRequest, ResetResponse,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::init::Init;
use crate::service::bounds;
use crate::{answers, convert};

/// Callers that may steer the machine at one moment; the others wait their turn.
const OPERATORS: usize = 4;

/// The service.
#[derive(Debug)]
pub(crate) struct Operation {
    init: Arc<Init>,
    turns: Semaphore,
}

impl Operation {
    /// Asks init.
    pub(crate) fn new(init: Arc<Init>) -> Self {
        Self { init, turns: Semaphore::new(OPERATORS) }
    }

    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, Status> {
        let turn = self.turns.acquire().await;
        let _turn = turn.map_err(|_| Status::unavailable("the agent is stopping"))?;
        self.init.ask(question).await.map_err(|error| convert::error(&error))
    }

    /// What a shutdown stops; and unless that was only a question, it begins.
    async fn shut_down(&self, how: Shutdown, dry_run: bool) -> Result<Vec<String>, Status> {
        self.ask(async |init| {
            let stops = init.rehearse_shutdown().await?;
            if !dry_run {
                init.shutdown(how).await?;
            }
            Ok(stops)
        })
        .await
    }

    /// Refuses what would leave nobody to ask.
    async fn keeps_the_api(&self, plan: &UnitPlan) -> Result<(), Status> {
        let stopped: Vec<&str> = plan
            .jobs
            .iter()
            .filter(|job| job.verb == UnitVerb::Stop)
            .map(|job| job.unit.as_str())
            .collect();
        if stopped.is_empty() {
            return Ok(());
        }
        let units = self.ask(Control::units).await?.units;
        let own = Some(std::process::id());
        let itself =
            units.iter().find(|unit| unit.pid == own && stopped.contains(&unit.name.as_str()));
        match itself {
            Some(unit) => Err(Status::failed_precondition(format!(
                "it would stop {}, which answers you, and nobody could start it again; restart it, or reboot the machine",
                unit.name
            ))),
            None => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl OperationApi for Operation {
    async fn control_unit(
        &self,
        request: Request<ControlUnitRequest>,
    ) -> Result<Response<ControlUnitResponse>, Status> {
        let ControlUnitRequest { unit, verb, dry_run, digest } = request.into_inner();
        bounds::text("unit", &unit)?;
        bounds::text("digest", &digest)?;
        let verb = match v1::UnitVerb::try_from(verb) {
            Ok(v1::UnitVerb::Start) => UnitVerb::Start,
            Ok(v1::UnitVerb::Stop) => UnitVerb::Stop,
            Ok(v1::UnitVerb::Restart) => UnitVerb::Restart,
            Ok(v1::UnitVerb::Unspecified) | Err(_) => {
                return Err(Status::invalid_argument("verb is none of START, STOP and RESTART"));
            }
        };
        let digest = Some(digest).filter(|digest| !digest.is_empty());
        let ask = ControlUnit { unit, verb, dry_run: true, digest };
        let rehearsal = ask.clone();
        let plan = self.ask(async |init| init.control_unit(rehearsal).await).await?;
        self.keeps_the_api(&plan).await?;
        let plan = match dry_run {
            true => plan,
            false => {
                let ask = ControlUnit { dry_run: false, ..ask };
                self.ask(async |init| init.control_unit(ask).await).await?
            }
        };
        Ok(Response::new(answers::unit_plan(plan)))
    }

    async fn reboot(
        &self,
        request: Request<RebootRequest>,
    ) -> Result<Response<RebootResponse>, Status> {
        let stops = self.shut_down(Shutdown::Reboot, request.into_inner().dry_run).await?;
        Ok(Response::new(RebootResponse { stops }))
    }

    async fn power_off(
        &self,
        request: Request<PowerOffRequest>,
    ) -> Result<Response<PowerOffResponse>, Status> {
        let stops = self.shut_down(Shutdown::PowerOff, request.into_inner().dry_run).await?;
        Ok(Response::new(PowerOffResponse { stops }))
    }

    async fn reset(
        &self,
        request: Request<ResetRequest>,
    ) -> Result<Response<ResetResponse>, Status> {
        let ResetRequest { dry_run, confirm } = request.into_inner();
        bounds::text("confirm", &confirm)?;
        let ask = Reset { dry_run, confirm: Some(confirm).filter(|confirm| !confirm.is_empty()) };
        let plan = self.ask(async |init| init.reset(ask).await).await?;
        Ok(Response::new(answers::reset_plan(plan)))
    }
}
