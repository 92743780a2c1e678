//! keel.v1.Config: the node's machine config through time. Init plans, keeps and tries it; here it is asked, and told of.

use std::sync::Arc;

use keel_control::{
    Answer, Apply, ApplyMode, Control, ControlError, ControlErrorKind, Fate, Happened, Layer,
    Rollback,
};
use keel_proto::v1;
use keel_proto::v1::config_server::Config as ConfigApi;
use keel_proto::v1::{
    ApplyRequest, ApplyResponse, ConfirmRequest, ConfirmResponse, GetRequest, GetResponse,
    HistoryRequest, HistoryResponse, RollbackRequest, RollbackResponse,
};
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::effect::Effect;
use crate::init::Init;
use crate::peer::Peer;
use crate::service::bounds;
use crate::{changes, convert};

/// Callers that may change the config at one moment, or wait to; the others are told to come again.
const CALLERS: usize = 8;

/// Callers whose word is passed on at one moment; the others wait their turn.
const CONFIRMS: usize = 4;

/// What is on its way to a caller.
const WAITING: usize = 16;

/// The service.
#[derive(Debug)]
pub(crate) struct Config {
    init: Arc<Init>,
    places: Arc<Semaphore>,
    confirms: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Config {
    /// Asks init.
    pub(crate) fn new(init: Arc<Init>, stopping: watch::Receiver<bool>) -> Self {
        let places = Arc::new(Semaphore::new(CALLERS));
        let confirms = Arc::new(Semaphore::new(CONFIRMS));
        Self { init, places, confirms, stopping }
    }

    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, Status> {
        self.init.ask(question).await.map_err(|error| convert::error(&error))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("as many callers as there is room for change the config")
        })
    }

    /// Has a config changed, and tells how it goes: the answer, then every event of it until it has had its turn.
    fn follow(
        &self,
        change: Change,
        effect: Option<Arc<Effect>>,
    ) -> Result<ReceiverStream<Result<ApplyResponse, Status>>, Status> {
        // Else his turn might come when the node has just been closed to him.
        if effect.is_some() && change.waits() {
            return Err(Status::failed_precondition(
                "without a certificate nobody waits for another's turn to end: ask again when it is over",
            ));
        }
        let place = self.place()?;
        let (told, stream) = mpsc::channel(WAITING);
        let (init, mut stopping) = (self.init.clone(), self.stopping.clone());
        tokio::spawn(async move {
            let _place = place;
            let end = tokio::select! {
                end = run(&init, change, effect, &told) => end,
                _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable("the agent is stopping")),
            };
            if let Err(status) = end {
                // A caller that has left does not need to know.
                let _ = told.send(Err(status)).await;
            }
        });
        Ok(ReceiverStream::new(stream))
    }
}

/// What is to be changed.
enum Change {
    Apply(Apply),
    Rollback(Rollback),
}

impl Change {
    async fn ask(self, init: &Init) -> Result<Answer, ControlError> {
        match self {
            Self::Apply(ask) => init.ask(async |init| init.apply(ask).await).await,
            Self::Rollback(ask) => init.ask(async |init| init.rollback(ask).await).await,
        }
    }

    fn is_dry(&self) -> bool {
        match self {
            Self::Apply(ask) => ask.dry_run,
            Self::Rollback(ask) => ask.dry_run,
        }
    }

    fn waits(&self) -> bool {
        match self {
            Self::Apply(ask) => ask.wait,
            Self::Rollback(ask) => ask.wait,
        }
    }
}

/// Whether an answer says that something changes.
fn changed(answer: &Result<Answer, ControlError>) -> bool {
    match answer {
        Ok(Answer::Planned(applied)) => match applied.fate {
            Fate::Begun | Fate::OnTrial | Fate::Staged => true,
            Fate::DryRun | Fate::Nothing => false,
        },
        Ok(Answer::Invalid(_)) => false,
        Err(error) => may_have_happened(error),
    }
}

/// Whether something may have come of a question that was not answered: init had it, and was silent.
fn may_have_happened(error: &ControlError) -> bool {
    match error.kind {
        ControlErrorKind::Connect(_)
        | ControlErrorKind::Stranger
        | ControlErrorKind::Version { .. }
        | ControlErrorKind::NoRoom
        | ControlErrorKind::Refused(_) => false,
        ControlErrorKind::Silent
        | ControlErrorKind::Closed
        | ControlErrorKind::Unexpected
        | ControlErrorKind::Frame(_) => true,
    }
}

async fn run(
    init: &Init,
    change: Change,
    effect: Option<Arc<Effect>>,
    told: &Sender<Result<ApplyResponse, Status>>,
) -> Result<(), Status> {
    let failed = |error: ControlError| convert::error(&error);
    let gone = || Status::cancelled("the caller has left");
    let say = |changed| effect.iter().for_each(|effect| effect.changed(changed));
    say(!change.is_dry());
    // What is begun is asked for to its end, so that it is known what came of it; who waits for another's turn to end may leave.
    let may_leave = change.is_dry() || change.waits();
    let answer = tokio::select! {
        answer = change.ask(init) => answer,
        () = told.closed(), if may_leave => return Err(gone()),
    };
    say(changed(&answer));
    drop(effect);
    let answer = answer.map_err(failed)?;
    let next = tell(init, answer, told);
    tokio::select! {
        end = next => end,
        () = told.closed() => Err(gone()),
    }
}

/// Tells a caller of the answer, and of every event until it has had its turn.
async fn tell(
    init: &Init,
    answer: Answer,
    told: &Sender<Result<ApplyResponse, Status>>,
) -> Result<(), Status> {
    let failed = |error: ControlError| convert::error(&error);
    let left = |_| Status::cancelled("the caller has left");
    let follows = match &answer {
        Answer::Planned(applied) if matches!(applied.fate, Fate::Begun | Fate::OnTrial) => {
            applied.generation.map(|generation| (generation, applied.from_seq))
        }
        _ => None,
    };
    told.send(Ok(changes::answer(answer))).await.map_err(left)?;
    let Some((number, from_seq)) = follows else { return Ok(()) };
    let line = init.follow().await.map_err(failed)?;
    let mut events = line.control.watch(from_seq, true).await.map_err(failed)?;
    while let Some(batch) = events.next().await.map_err(failed)? {
        for event in batch.events {
            let Happened::Mutation { generation, progress } = event.what else { continue };
            if generation != number {
                continue;
            }
            let over = changes::is_over(&progress);
            told.send(Ok(changes::progress(number, progress))).await.map_err(left)?;
            if over {
                return Ok(());
            }
        }
    }
    Ok(())
}

type Answers<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ConfigApi for Config {
    type ApplyStream = Answers<ApplyResponse>;
    type RollbackStream = Answers<RollbackResponse>;

    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        let (author, over) = caller(&request);
        let effect = request.extensions().get::<Arc<Effect>>().cloned();
        let ask = request.into_inner();
        let mode = mode(ask.mode)?;
        bounds::text("base_digest", &ask.base_digest)?;
        bounds::list("files", ask.files.len())?;
        for (at, file) in ask.files.iter().enumerate() {
            bounds::text(&format!("files[{at}].name"), &file.name)?;
        }
        if let Some(secrets) = &ask.secrets {
            bounds::text("secrets.name", &secrets.name)?;
        }
        if ask.files.is_empty() {
            return Err(Status::invalid_argument("there is no config to apply"));
        }
        let layer = |file: v1::ConfigFile| Layer { name: file.name, text: file.text };
        let change = Change::Apply(Apply {
            layers: ask.files.into_iter().map(layer).collect(),
            secrets: ask.secrets.map(layer),
            base: Some(ask.base_digest).filter(|digest| !digest.is_empty()),
            dry_run: ask.dry_run,
            mode,
            timeout_ms: millis(ask.timeout),
            author,
            reason: ask.reason,
            wait: ask.wait,
            over,
            keep_secrets: ask.keep_secrets,
        });
        let stream = self.follow(change, effect)?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<Self::RollbackStream>, Status> {
        let (author, over) = caller(&request);
        let effect = request.extensions().get::<Arc<Effect>>().cloned();
        let ask = request.into_inner();
        let change = Change::Rollback(Rollback {
            generation: ask.generation,
            dry_run: ask.dry_run,
            mode: mode(ask.mode)?,
            timeout_ms: millis(ask.timeout),
            author,
            reason: ask.reason,
            wait: ask.wait,
            over,
        });
        let stream = self.follow(change, effect)?;
        Ok(Response::new(Box::pin(stream.map(|answer| answer.map(changes::of_rollback)))))
    }

    async fn confirm(
        &self,
        request: Request<ConfirmRequest>,
    ) -> Result<Response<ConfirmResponse>, Status> {
        let effect = request.extensions().get::<Arc<Effect>>().cloned();
        let turn = self.confirms.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Status::unavailable("the agent is stopping"))?;
        let init = self.init.clone();
        // To its end, whether the caller stays or leaves.
        let asked = tokio::spawn(async move {
            let _turn = turn;
            let answer = init.ask(Control::confirm).await;
            if let Some(effect) = effect {
                effect.changed(answer.as_ref().map_or_else(may_have_happened, |_| true));
            }
            answer
        });
        let answer = asked.await.map_err(|error| Status::internal(error.to_string()))?;
        let generation = answer.map_err(|error| convert::error(&error))?;
        Ok(Response::new(ConfirmResponse { generation }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let wanted = request.into_inner().generation;
        let config = self.ask(async |init| init.config(wanted).await).await?;
        Ok(Response::new(GetResponse { generation: config.generation, text: config.text }))
    }

    async fn history(
        &self,
        _: Request<HistoryRequest>,
    ) -> Result<Response<HistoryResponse>, Status> {
        Ok(Response::new(changes::history(self.ask(Control::history).await?)))
    }
}

/// Who calls, and through which address of this machine.
pub(super) fn caller<T>(request: &Request<T>) -> (String, Option<std::net::IpAddr>) {
    let Some(peer) = request.extensions().get::<Arc<Peer>>() else { return Default::default() };
    let author = match peer.subject() {
        "" => format!("somebody at {}", peer.address.ip()),
        subject => subject.chars().take(256).collect(),
    };
    (author, peer.local)
}

fn mode(mode: i32) -> Result<ApplyMode, Status> {
    match v1::ApplyMode::try_from(mode) {
        Ok(v1::ApplyMode::Auto) => Ok(ApplyMode::Auto),
        Ok(v1::ApplyMode::NoReboot) => Ok(ApplyMode::NoReboot),
        Ok(v1::ApplyMode::Staged) => Ok(ApplyMode::Staged),
        Ok(v1::ApplyMode::Try) => Ok(ApplyMode::Try),
        Ok(v1::ApplyMode::Unspecified) | Err(_) => {
            Err(Status::invalid_argument("mode is none of AUTO, NO_REBOOT, STAGED and TRY"))
        }
    }
}

fn millis(duration: Option<prost_types::Duration>) -> u64 {
    let duration = duration.and_then(|duration| std::time::Duration::try_from(duration).ok());
    u64::try_from(duration.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
