//! keel.v1.Cluster: has the node join a cluster and leave it. What was begun goes on without whoever asked.

use std::sync::Arc;

use keel_proto::v1::cluster_server::Cluster as ClusterApi;
use keel_proto::v1::{
    BootstrapRequest, BootstrapResponse, GetBootstrapRequest, GetBootstrapResponse,
    UnbootstrapRequest, UnbootstrapResponse,
};
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::config::caller;
use crate::bootstrap::{Bootstraps, Caller, Told, Wish};
use crate::effect::Effect;

/// Callers that hear of a bootstrap at one moment.
const CALLERS: usize = 8;

/// What is on its way to a caller.
const WAITING: usize = 16;

/// The service.
#[derive(Debug)]
pub(crate) struct Cluster {
    bootstraps: Arc<Bootstraps>,
    places: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Cluster {
    pub(crate) fn new(bootstraps: Arc<Bootstraps>, stopping: watch::Receiver<bool>) -> Self {
        Self { bootstraps, places: Arc::new(Semaphore::new(CALLERS)), stopping }
    }

    fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(
                "as many callers as there is room for join or leave a cluster",
            )
        })
    }
}

fn who<T>(request: &Request<T>) -> Caller {
    let (author, over) = caller(request);
    Caller { author, over }
}

/// Passes on what is told, from the beginning to the end.
async fn pass_on(
    mut hears: watch::Receiver<Told>,
    told: &Sender<Result<BootstrapResponse, Status>>,
) -> Result<(), Status> {
    let mut at = 0;
    loop {
        let (new, over) = {
            let so_far = hears.borrow_and_update();
            (so_far.all[at..].to_vec(), so_far.over)
        };
        at += new.len();
        for what in new {
            let left = |_| Status::cancelled("the caller has left");
            told.send(Ok(BootstrapResponse { what: Some(what) })).await.map_err(left)?;
        }
        if over {
            return Ok(());
        }
        hears.changed().await.map_err(|_| Status::unavailable("the agent is stopping"))?;
    }
}

type Answers<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ClusterApi for Cluster {
    type BootstrapStream = Answers<BootstrapResponse>;
    type UnbootstrapStream = Answers<UnbootstrapResponse>;

    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<Self::BootstrapStream>, Status> {
        let place = self.place()?;
        let caller = who(&request);
        let effect = request.extensions().get::<Arc<Effect>>().cloned();
        let wish = Wish::read(request.into_inner()).map_err(Status::invalid_argument)?;
        let hears = self.bootstraps.begin(wish, caller, effect).await?;
        let (told, stream) = mpsc::channel(WAITING);
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let _place = place;
            let end = tokio::select! {
                end = pass_on(hears, &told) => end,
                () = told.closed() => return,
                _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable("the agent is stopping")),
            };
            if let Err(status) = end {
                // A caller that has left does not need to know.
                let _ = told.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_bootstrap(
        &self,
        _: Request<GetBootstrapRequest>,
    ) -> Result<Response<GetBootstrapResponse>, Status> {
        Ok(Response::new(self.bootstraps.status().await?))
    }

    async fn unbootstrap(
        &self,
        request: Request<UnbootstrapRequest>,
    ) -> Result<Response<Self::UnbootstrapStream>, Status> {
        let place = self.place()?;
        let caller = who(&request);
        let dry_run = request.into_inner().dry_run;
        let (told, stream) = mpsc::channel(WAITING);
        let bootstraps = self.bootstraps.clone();
        // To its end, whoever hangs up, unless nothing would be changed.
        tokio::spawn(async move {
            let _place = place;
            let end = tokio::select! {
                end = bootstraps.leave(dry_run, caller, &told) => end,
                () = told.closed(), if dry_run => return,
            };
            if let Err(status) = end {
                let _ = told.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
