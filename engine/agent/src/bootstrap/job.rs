//! One bootstrap, and what everybody who asks hears of it: from the beginning, whenever he comes.

use std::fmt;
use std::time::SystemTime;

use keel_proto::v1;
use keel_proto::v1::bootstrap_response::What;
use tokio::sync::watch;

use crate::cluster::JoinErrorKind;
use crate::log::say;

/// What was told so far.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub(crate) all: Vec<What>,
    pub(crate) over: bool,
}

/// Without the texts: tests and defects would print them.
impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Told({}, {})", self.all.len(), self.over)
    }
}

/// One bootstrap.
#[derive(Debug)]
pub(crate) struct Job {
    /// Of the wish; none if it was begun before the agent started.
    pub(crate) key: Option<[u8; 32]>,
    pub(crate) api_server: String,
    pub(crate) node_name: String,
    told: watch::Sender<Told>,
}

/// Why a node does not join.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) fault: v1::BootstrapFault,
    pub(crate) why: String,
}

impl Failed {
    pub(crate) fn new(fault: v1::BootstrapFault, why: impl Into<String>) -> Self {
        Self { fault, why: why.into() }
    }
}

/// What kind of a failure it is.
pub(crate) fn fault(kind: &JoinErrorKind) -> v1::BootstrapFault {
    use JoinErrorKind as Kind;
    use v1::BootstrapFault as Fault;

    match kind {
        Kind::Address(_)
        | Kind::Resolve(_)
        | Kind::Unreachable(_)
        | Kind::Silent(_)
        | Kind::NotTls(_)
        | Kind::NotKubernetes(_)
        | Kind::Status { .. } => Fault::Unreachable,
        Kind::WrongCa(_)
        | Kind::WrongName { .. }
        | Kind::BadCa(_)
        | Kind::NoClusterInfo(_)
        | Kind::WrongPin { .. }
        | Kind::Changed
        | Kind::Overtaken => Fault::WrongCluster,
        Kind::NotValidNow { .. } | Kind::ClockSkew { .. } => Fault::Clock,
        Kind::TokenExpired(_)
        | Kind::TokenUnknown(_)
        | Kind::TokenWrong(_)
        | Kind::TokenNotForAuthentication(_)
        | Kind::TokenRefused
        | Kind::BadSignature(_)
        | Kind::Kubeconfig(_) => Fault::Credentials,
        Kind::NotAllowed => Fault::NotAllowed,
    }
}

impl Job {
    pub(crate) fn new(key: Option<[u8; 32]>, api_server: String, node_name: String) -> Self {
        Self { key, api_server, node_name, told: watch::Sender::default() }
    }

    /// What was told, and what will be.
    pub(crate) fn hear(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// Waits until nobody hears it any more.
    pub(crate) async fn unheard(&self) {
        self.told.closed().await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.told.borrow().over
    }

    /// The stages so far.
    pub(crate) fn stages(&self) -> Vec<v1::BootstrapProgress> {
        let told = self.told.borrow();
        let stages = told.all.iter().filter_map(|what| match what {
            What::Progress(progress) => Some(progress.clone()),
            What::Findings(_) | What::Plan(_) => None,
        });
        stages.collect()
    }

    /// Whether the machine had another config for it, be it undone since.
    pub(crate) fn changed(&self) -> bool {
        self.stages().iter().any(|stage| stage.generation.is_some())
    }

    pub(crate) fn tell(&self, what: What) {
        self.told.send_modify(|told| told.all.push(what));
    }

    /// A stage is reached, or something happened in it.
    pub(crate) fn stage(
        &self,
        stage: v1::BootstrapStage,
        generation: Option<u64>,
        text: impl Into<String>,
    ) {
        let text = text.into();
        say(format_args!("bootstrap: {text}"));
        self.tell(What::Progress(v1::BootstrapProgress {
            stage: stage.into(),
            text,
            time: Some(SystemTime::now().into()),
            fault: v1::BootstrapFault::Unspecified.into(),
            generation,
        }));
    }

    /// It failed, and nothing comes after that.
    pub(crate) fn failed(&self, failed: &Failed, generation: Option<u64>) {
        say(format_args!("bootstrap: {}", failed.why));
        self.tell(What::Progress(v1::BootstrapProgress {
            stage: v1::BootstrapStage::Failed.into(),
            text: failed.why.clone(),
            time: Some(SystemTime::now().into()),
            fault: failed.fault.into(),
            generation,
        }));
        self.over();
    }

    /// Nothing comes any more.
    pub(crate) fn over(&self) {
        self.told.send_modify(|told| told.over = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_who_hears_it_is_missed() {
        use tokio::time::timeout;

        const SOON: std::time::Duration = std::time::Duration::from_secs(1);
        let job = Job::new(None, "https://a".to_owned(), "n".to_owned());
        let (one, two) = (job.hear(), job.hear());
        drop(one);
        assert!(timeout(SOON, job.unheard()).await.is_err());
        drop(two);
        assert!(timeout(SOON, job.unheard()).await.is_ok());
    }
}
