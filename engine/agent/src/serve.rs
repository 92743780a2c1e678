//! `keel-agent serve`: from an identity to a served API, and a clean end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use keel_proto::v1::cluster_server::ClusterServer;
use keel_proto::v1::config_server::ConfigServer;
use keel_proto::v1::journal_server::JournalServer;
use keel_proto::v1::node_server::NodeServer;
use keel_proto::v1::operation_server::OperationServer;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::about::About;
use crate::audit::Audit;
use crate::bootstrap::Bootstraps;
use crate::calls::Shared;
use crate::cluster::{self, Serving, keep_signed};
use crate::identity::{Current, Given, Identity, IdentityError, Kept, Lasts, keep_current};
use crate::init::Init;
use crate::listen;
use crate::log::{chain, say};
use crate::metrics::{self, Metrics};
use crate::notify::{State, notify};
use crate::places::{Limits, Places};
use crate::server::{Server, raise_file_limit};
use crate::service::{Cluster, Config, Journal, Node, Operation};
use crate::tls::Shown;
use crate::trust::{self, Trust};

/// The most bytes of one message of an answer; a client takes no more without being told to. What a request may have is looked at
/// before it is read.
const MESSAGE: usize = 4 * 1024 * 1024;

/// What the agent needs to serve.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The identity that the machine config carries.
    pub(crate) given: Option<Given>,
    /// Where metrics are served.
    pub(crate) metrics: Option<metrics::Where>,
    /// The folder of the identity.
    pub(crate) identity: PathBuf,
    /// Where an identity lies that ends with this boot.
    pub(crate) spare: Option<PathBuf>,
    pub(crate) address: SocketAddr,
    /// Init's socket.
    pub(crate) control: PathBuf,
    pub(crate) trust: trust::Places,
    /// The kubelet's folder.
    pub(crate) kubelet: PathBuf,
    /// The folder of the audit log, and the one for a machine without a data partition.
    pub(crate) audit: PathBuf,
    pub(crate) spare_audit: PathBuf,
}

/// Why the agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the API's own description cannot be read")]
    Descriptor(#[source] tonic_reflection::server::Error),
    #[error("cannot start the agent's event loop")]
    Runtime(#[source] io::Error),
}

/// Serves the API until SIGTERM or SIGINT.
pub(crate) fn run(settings: Settings) -> Result<(), ServeError> {
    let (identity, lasts) = locate(&settings)?;
    if lasts == Lasts::ThisBoot && settings.given.is_none() {
        say("there is nowhere to keep an identity: this one ends with this boot");
    }
    if let Err(error) = raise_file_limit() {
        say(format_args!("cannot raise the limit of open files: {error}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ServeError::Runtime)?.block_on(serve(settings, identity, lasts))
}

fn locate(settings: &Settings) -> Result<(Identity, Lasts), IdentityError> {
    let folder = &settings.identity;
    match (&settings.given, &settings.spare) {
        (Some(given), _) => {
            let lasts = match folder.symlink_metadata() {
                Ok(_) => Lasts::ForGood,
                Err(_) => Lasts::ThisBoot,
            };
            Ok((Identity::given(given)?, lasts))
        }
        (None, Some(spare)) => Identity::load_or_spare(folder, spare),
        (None, None) => Ok((Identity::load(folder)?, Lasts::ForGood)),
    }
}

async fn serve(settings: Settings, identity: Identity, lasts: Lasts) -> Result<(), ServeError> {
    // Before READY=1, so that a signal sent on it finds us listening.
    let mut stop = Stop::new().map_err(ServeError::Runtime)?;
    let address = settings.address;
    let listener = listen::bind(address).and_then(TcpListener::from_std);
    let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
    let bound = listener.local_addr().map_err(|source| ServeError::Listen { address, source })?;

    let cluster =
        cluster::Places { kubelet: settings.kubelet, trusted: settings.trust.cluster.clone() };
    let changed = Arc::new(Notify::new());
    let trust = Trust::load(settings.trust);
    let state = trust.subscribe();
    let audit = match lasts {
        Lasts::ForGood => settings.audit,
        Lasts::ThisBoot => settings.spare_audit,
    };
    let init = Init::new(settings.control);
    let shared = Arc::new(Shared {
        audit: Audit::start(&audit).map_err(ServeError::Runtime)?,
        metrics: Arc::new(Metrics::default()),
        init: init.clone(),
    });
    let places = Places::new(Limits::default());
    let fingerprint = identity.fingerprint.clone();
    let about = Arc::new(About::new(&identity, state.clone()));
    let shown = Arc::new(Shown::new(identity.certified));
    say(format_args!("serving on {bound}, fingerprint {fingerprint}"));
    trust::tell(&state.borrow());

    // One that was given is renewed by whoever gave it.
    let folder = match lasts {
        Lasts::ForGood => Some(settings.identity),
        Lasts::ThisBoot => settings.spare,
    };
    if let (Some(folder), None) = (folder, &settings.given) {
        let (names, named) = watch::channel(None);
        // One that ends with this boot is nobody's in a cluster.
        if lasts == Lasts::ForGood {
            let serving = Serving {
                places: cluster.clone(),
                kept: Kept::new(&folder),
                shown: shown.clone(),
                about: about.clone(),
                names: named,
                changed: changed.clone(),
            };
            // Before anybody is answered: whoever knows the cluster's CA finds it again.
            serving.show();
            tokio::spawn(keep_signed(serving));
        }
        let (init, shown, about) = (init.clone(), shown.clone(), about.clone());
        tokio::spawn(keep_current(Current { folder, init, shown, about, names }));
    }

    if let Some(place) = settings.metrics {
        let page = metrics::Page {
            metrics: shared.metrics.clone(),
            places: places.clone(),
            init: init.clone(),
        };
        match metrics::listen(&place).await {
            Ok(listener) => {
                say(format_args!("metrics are served on {place}"));
                tokio::spawn(metrics::serve(listener, Arc::new(page)));
            }
            // Nobody who measures a node should keep it from being reached.
            Err(error) => say(format_args!("cannot serve metrics on {place}: {error}")),
        }
    }

    let bootstraps = Bootstraps::new(init.clone(), cluster.clone(), state.clone(), trust.left());
    // Before the node registers by itself: what is under way goes first.
    bootstraps.go_on();

    let (stopping_in, stopping) = watch::channel(false);
    let server = Server {
        routes: routes(about, &shared, bootstraps, &stopping).await?,
        shown,
        trust: state,
        places,
        shared: shared.clone(),
    };
    let following = tokio::spawn(async move {
        if let Err(error) = trust::follow(trust).await {
            say(format_args!("the trusted CAs are not watched any more: {error}"));
        }
    });
    let registering = tokio::spawn(async move {
        if let Err(error) = cluster::register(cluster, changed).await {
            say(format_args!("cannot watch for a cluster to join: {error}"));
        }
    });
    let serving = tokio::spawn(server.run(listener, stopping));
    tell(State::Ready);
    stop.wait().await;
    tell(State::Stopping);
    following.abort();
    registering.abort();
    stopping_in.send_replace(true);
    // It can only end by itself.
    let _ = serving.await;
    shared.audit.flush().await;
    Ok(())
}

async fn routes(
    about: Arc<About>,
    shared: &Arc<Shared>,
    bootstraps: Arc<Bootstraps>,
    stopping: &watch::Receiver<bool>,
) -> Result<Routes, ServeError> {
    let services = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(keel_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = services().build_v1().map_err(ServeError::Descriptor)?;
    // What clients asked for before it was called v1, and many still do.
    let reflection_alpha = services().build_v1alpha().map_err(ServeError::Descriptor)?;
    let node = Node::new(shared.init.clone(), about, stopping.clone());
    let records = keel_control::RECORDS.into();
    let journal = Journal::new(records, shared.clone(), stopping.clone());
    Ok(Routes::new(NodeServer::new(node).max_encoding_message_size(MESSAGE))
        .add_service(JournalServer::new(journal).max_encoding_message_size(MESSAGE))
        .add_service(
            OperationServer::new(Operation::new(shared.init.clone()))
                .max_encoding_message_size(MESSAGE),
        )
        .add_service(
            ConfigServer::new(Config::new(shared.init.clone(), stopping.clone()))
                .max_encoding_message_size(MESSAGE),
        )
        .add_service(
            ClusterServer::new(Cluster::new(bootstraps, stopping.clone()))
                .max_encoding_message_size(MESSAGE),
        )
        .add_service(health().await)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .prepare())
}

/// The standard health service: an agent that answers at all serves everything.
async fn health() -> HealthServer<impl Health> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<NodeServer<Node>>().await;
    reporter.set_serving::<JournalServer<Journal>>().await;
    reporter.set_serving::<OperationServer<Operation>>().await;
    reporter.set_serving::<ConfigServer<Config>>().await;
    reporter.set_serving::<ClusterServer<Cluster>>().await;
    health
}

fn tell(state: State) {
    // Served all the same: init's deadline for readiness will say what it means to init.
    if let Err(error) = notify(state) {
        say(format_args!("cannot tell init that the agent is {state:?}: {}", chain(&error)));
    }
}

/// The signals that end the agent.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
