//! What the API does: one file per service.

mod audit;
mod boots;
mod bounds;
mod cluster;
mod config;
mod journal;
mod kernel_log;
mod logs;
mod node;
mod operation;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;

pub(crate) use cluster::Cluster;
pub(crate) use config::Config;
pub(crate) use journal::Journal;
pub(crate) use node::Node;
pub(crate) use operation::Operation;

/// How long a caller waits for a place: longer than one that has to leave for him takes to go.
const TURN: Duration = Duration::from_secs(6);

/// A place among those who do this already.
async fn place(among: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    let full = "as many callers do that already as may; try again when one has left";
    let place = timeout(TURN, among.clone().acquire_owned()).await;
    let place = place.map_err(|_| Status::resource_exhausted(full))?;
    place.map_err(|_| Status::unavailable("the agent is stopping"))
}
