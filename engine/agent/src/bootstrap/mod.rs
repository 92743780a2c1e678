//! A node joins a cluster because somebody asks it to, and leaves it again: both are changes of the machine config, seen through by the
//! agent, whether who asked stays or not.
//!
//! The order in which it happens is what makes it safe. Whatever can be wrong with a cluster and with credentials is found out before
//! anything changes. Then it is noted on the disk that a bootstrap is under way, and the machine gets the cluster's config on trial. Once
//! the API server shows the Node, asked with the kubelet's own certificate, init keeps the config; only then the cluster's CA becomes the
//! node's own, and only then the note goes. So a bootstrap that fails at any point leaves nobody locked out.

mod back;
mod facts;
mod files;
mod job;
mod layer;
mod leave;
mod note;
mod run;
mod wish;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keel_control::Control;
use keel_proto::v1;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

pub(crate) use self::job::{Job, Told};
pub(crate) use self::run::Caller;
pub(crate) use self::wish::Wish;

use self::facts::Own;
use self::layer::Named;
use self::note::Note;
use crate::cluster::{Ca, Pin, Places};
use crate::convert;
use crate::effect::Effect;
use crate::init::Init;
use crate::log::chain;
use crate::trust::{Door, State};

/// What has the node join clusters and leave them: one thing at a time.
#[derive(Debug)]
pub(crate) struct Bootstraps {
    init: Arc<Init>,
    places: Places,
    trust: watch::Receiver<Arc<State>>,
    /// Told when the node has left its cluster.
    left: Arc<Notify>,
    /// The last one, or the one that is under way.
    last: Mutex<Option<Arc<Job>>>,
    /// Only one at a time changes anything.
    turn: Arc<Semaphore>,
    /// Who only asks what would happen is in nobody's way.
    rehearsals: Arc<Semaphore>,
}

/// How many may ask at once what would happen.
const REHEARSALS: usize = 2;

/// The cluster that a node is in.
struct Joined {
    api_server: String,
    node_name: String,
    /// Its CAs, in PEM.
    ca: String,
    own: Option<Own>,
}

impl Bootstraps {
    pub(crate) fn new(
        init: Arc<Init>,
        places: Places,
        trust: watch::Receiver<Arc<State>>,
        left: Arc<Notify>,
    ) -> Arc<Self> {
        let [turn, rehearsals] = [1, REHEARSALS].map(|places| Arc::new(Semaphore::new(places)));
        Arc::new(Self { init, places, trust, left, last: Mutex::default(), turn, rehearsals })
    }

    fn last(&self) -> MutexGuard<'_, Option<Arc<Job>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees through what was under way when the agent ended, if something was.
    pub(crate) fn go_on(self: &Arc<Self>) {
        self.finish_leaving();
        let Ok(turn) = self.turn.clone().try_acquire_owned() else { return };
        let Some(note) = Note::load(&self.places) else {
            if self.places.under_way().exists() {
                self.clear();
            }
            return;
        };
        let job = Arc::new(Job::new(None, note.api_server.clone(), note.node_name.clone()));
        *self.last() = Some(job.clone());
        let this = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            this.resume(&job, note).await;
        });
    }

    /// Begins what is wished for, or joins in where that is under way. Whether the machine was changed is said once it is over.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        wish: Wish,
        caller: Caller,
        effect: Option<Arc<Effect>>,
    ) -> Result<watch::Receiver<Told>, Status> {
        let named = self.named().await?;
        let joined = self.joined(&named);
        let turn = match wish.dry_run {
            true => self.rehearsal()?,
            false => match self.turn.clone().try_acquire_owned() {
                Ok(turn) => turn,
                Err(_) => return self.under_way(&wish),
            },
        };
        let host = || hostname().unwrap_or_default();
        let node_name = wish.node_name.clone().or(named.node_name.clone()).unwrap_or_else(host);
        let node_name = node_name.to_lowercase();
        let job = Arc::new(Job::new(Some(wish.key), wish.api_server.clone(), node_name));
        if let Some(joined) = &joined {
            let same = joined.is(&wish);
            let well = joined.own.as_ref().is_some_and(|own| !own.expired());
            if same && well {
                let text = format!(
                    "the node is in this cluster already, as {}: nothing to do",
                    joined.node_name
                );
                job.stage(v1::BootstrapStage::Already, None, text);
                job.over();
                return Ok(job.hear());
            }
            if !same && !wish.force {
                return Err(Status::failed_precondition(format!(
                    "the node is in the cluster at {} as {}; with `force` it leaves that one for the other",
                    joined.api_server, joined.node_name
                )));
            }
        }
        if !wish.dry_run {
            *self.last() = Some(job.clone());
        }
        // Before it runs: one that nobody hears may end.
        let hears = job.hear();
        let this = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            match wish.dry_run {
                true => this.rehearse(&job, wish, named, caller).await,
                false => this.run(&job, wish, named, caller).await,
            }
            if let Some(effect) = effect {
                effect.changed(job.changed());
            }
        });
        Ok(hears)
    }

    /// A place among those who only ask.
    fn rehearsal(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.rehearsals.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("as many dry runs as there is room for are under way")
        })
    }

    /// What is under way, for who asks for the same.
    fn under_way(&self, wish: &Wish) -> Result<watch::Receiver<Told>, Status> {
        match self.last().clone().filter(|job| !job.is_over()) {
            Some(job) if job.key.is_none_or(|key| key == wish.key) => Ok(job.hear()),
            Some(job) => Err(Status::failed_precondition(format!(
                "a bootstrap into {} is under way: `osctl bootstrap status` shows how it goes",
                job.api_server
            ))),
            None => Err(Status::failed_precondition("the node is leaving its cluster")),
        }
    }

    /// What the machine config says.
    async fn named(&self) -> Result<Named, Status> {
        let config = self.init.ask(async |init: &mut Control| init.config(None).await).await;
        let config = config.map_err(|error| convert::error(&error))?;
        Ok(Named::read(&config.text))
    }

    /// The cluster whose CA the node trusts, and that its config names.
    fn joined(&self, named: &Named) -> Option<Joined> {
        let ca = std::fs::read_to_string(&self.places.trusted).ok()?;
        let own = Own::read(&self.places);
        let kubeconfig = || std::fs::read_to_string(self.places.kubeconfig()).ok();
        let joins = |text: String| crate::cluster::Join::read(&text).ok();
        let by_file = || kubeconfig().and_then(joins).map(|join| join.api_server);
        let api_server = named.api_server.clone().or_else(by_file)?;
        let node_name = match (&own, &named.node_name) {
            (Some(own), _) => own.node.clone(),
            (None, Some(name)) => name.clone(),
            (None, None) => hostname().unwrap_or_default(),
        };
        Some(Joined { api_server, node_name, ca, own })
    }

    /// What cluster the node is in, or on its way to.
    pub(crate) async fn status(&self) -> Result<v1::GetBootstrapResponse, Status> {
        use v1::BootstrapState as State;

        let named = self.named().await?;
        let joined = self.joined(&named);
        let last = self.last().clone();
        let stages = last.as_ref().map(|job| job.stages()).unwrap_or_default();
        let mut answer = v1::GetBootstrapResponse { stages, ..Default::default() };
        let under_way = last.as_ref().filter(|job| !job.is_over());
        let settled = joined.filter(|joined| joined.own.is_some());
        if let (None, Some(joined)) | (Some(_), Some(joined)) = (under_way, &settled) {
            answer.state = State::Joined.into();
            answer.api_server = joined.api_server.clone();
            answer.node_name = joined.node_name.clone();
            if let Some(own) = &joined.own {
                answer.certificate_until = Some(own.not_after.into());
                match own.node(&joined.api_server, &joined.ca).await {
                    Ok(Some(node)) => {
                        answer.ready = Some(node.ready);
                        answer.note = if node.ready { String::new() } else { node.says };
                    }
                    Ok(None) => answer.note = "the cluster has no such Node".to_owned(),
                    Err(error) => answer.note = chain(&error),
                }
            }
            return Ok(answer);
        }
        let failed = |job: &Arc<Job>| {
            let stages = job.stages();
            stages.last().is_some_and(|it| it.stage() == v1::BootstrapStage::Failed)
        };
        answer.state = match (&last, &named.api_server) {
            (Some(job), _) if !job.is_over() => State::UnderWay,
            (Some(job), None) if failed(job) => State::Failed,
            // The node registers by itself.
            (_, Some(_)) => State::UnderWay,
            _ if named.any() => State::UnderWay,
            _ => State::None,
        }
        .into();
        if answer.state != i32::from(State::None) {
            let of_job = last.as_ref().map(|job| (job.api_server.clone(), job.node_name.clone()));
            let of_config = named.api_server.clone().map(|api_server| {
                (api_server, named.node_name.clone().or_else(hostname).unwrap_or_default())
            });
            (answer.api_server, answer.node_name) = of_job.or(of_config).unwrap_or_default();
        }
        Ok(answer)
    }

    /// Whether everybody may come in once the cluster's CA is gone.
    fn opens(&self) -> bool {
        let state = self.trust.borrow().clone();
        match &state.door {
            Door::Open => true,
            Door::Shut(_) => false,
            Door::Guarded(guard) => guard
                .authorities()
                .iter()
                .all(|authority| *authority.source == *self.places.trusted),
        }
    }
}

impl Joined {
    /// Whether that is what is wished for.
    fn is(&self, wish: &Wish) -> bool {
        let ours = Pin::all(&self.ca);
        let ca = match &wish.ca {
            Ca::Given(pem) => Pin::all(pem).iter().any(|pin| ours.contains(pin)),
            Ca::Pinned(pin) => ours.contains(pin),
        };
        let name = wish.node_name.as_ref().is_none_or(|name| name.to_lowercase() == self.node_name);
        ca && name && self.api_server.trim_end_matches('/') == wish.api_server
    }
}

/// The kernel's host name.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().to_lowercase()).filter(|name| !name.is_empty())
}
