//! A node leaves its cluster: its config names none any more, the kubelet's certificates and the trust in that cluster's CA go, in this
//! order. Somebody who may come in by the cluster's CA alone has asked for it, so from then on he is a stranger.

use std::sync::Arc;
use std::time::Duration;

use keel_control::{Answer, Apply, ApplyMode, Control, Fate, Happened, Layer, MutationProgress};
use keel_proto::v1;
use keel_proto::v1::unbootstrap_response::What;
use tokio::sync::mpsc::Sender;
use tonic::Status;

use super::note::gone;
use super::run::Caller;
use super::{Bootstraps, Joined, files};
use crate::cluster::write;
use crate::log::{chain, say};
use crate::{changes, convert};

type Told = Sender<Result<v1::UnbootstrapResponse, Status>>;

/// How long the trust takes at most to be another one.
const SEEN: Duration = Duration::from_secs(5);

async fn tell(told: &Told, what: What) {
    // Who has left does not need to know; what was begun goes on.
    let _ = told.send(Ok(v1::UnbootstrapResponse { what: Some(what) })).await;
}

impl Bootstraps {
    fn leaving(&self) -> std::path::PathBuf {
        self.places.under_way().with_file_name("leaving")
    }

    /// Has the node leave its cluster, and tells how it goes.
    pub(crate) async fn leave(
        self: Arc<Self>,
        dry_run: bool,
        caller: Caller,
        told: &Told,
    ) -> Result<(), Status> {
        let _turn = match dry_run {
            true => self.rehearsal()?,
            false => self.turn.clone().try_acquire_owned().map_err(|_| {
                Status::failed_precondition(
                    "the node is on its way into a cluster, or out of one: `osctl bootstrap status` shows how it goes",
                )
            })?,
        };
        let named = self.named().await?;
        let joined = self.joined(&named);
        if joined.is_none() && !named.any() {
            return Err(Status::failed_precondition("the node is in no cluster"));
        }
        let (api_server, node_name) = match &joined {
            Some(Joined { api_server, node_name, .. }) => (api_server.clone(), node_name.clone()),
            None => Default::default(),
        };
        let files = files::of_cluster(&self.places);
        let departure = v1::Departure {
            api_server: api_server.clone(),
            node_name: node_name.clone(),
            opens: self.opens(),
            files,
        };
        tell(told, What::Departure(departure)).await;
        let config = self.init.ask(async |init: &mut Control| init.config(None).await).await;
        let text = config.map_err(|error| convert::error(&error))?.text;
        let mut layers = vec![Layer { name: "the node's config".to_owned(), text }];
        if named.any() {
            layers.push(Layer { name: "unbootstrap".to_owned(), text: named.none() });
        }
        let ask = Apply {
            layers,
            secrets: None,
            base: None,
            dry_run,
            // Nobody is left who could confirm it.
            mode: ApplyMode::NoReboot,
            timeout_ms: 0,
            author: caller.author,
            reason: format!("leave the cluster at {api_server}"),
            wait: false,
            over: None,
            keep_secrets: true,
        };
        if !dry_run {
            write(&self.leaving(), "").map_err(|error| {
                Status::failed_precondition(format!(
                    "the data partition cannot be written: {error}"
                ))
            })?;
        }
        let answer = self.init.ask(async |init| init.apply(ask).await).await;
        let applied = match answer {
            Ok(Answer::Planned(applied)) => applied,
            Ok(findings @ Answer::Invalid(_)) => {
                let _ = gone(&self.leaving());
                if let Some(v1::apply_response::What::Findings(findings)) =
                    changes::answer(findings).what
                {
                    tell(told, What::Findings(findings)).await;
                }
                return Ok(());
            }
            Err(error) => {
                let _ = gone(&self.leaving());
                return Err(convert::error(&error));
            }
        };
        let plan = changes::answer(Answer::Planned(applied.clone())).what;
        if let Some(v1::apply_response::What::Plan(plan)) = plan {
            tell(told, What::Plan(plan)).await;
        }
        if dry_run {
            return Ok(());
        }
        if applied.fate != Fate::Nothing
            && let Some(number) = applied.generation
            && !self.changed(number, applied.from_seq, told).await?
        {
            let _ = gone(&self.leaving());
            return Ok(());
        }
        let mut remarks = self.clean();
        self.left.notify_one();
        let mut trust = self.trust.clone();
        let trusted = self.places.trusted.clone();
        let another = trust.wait_for(|state| {
            !state.authorities().iter().any(|authority| *authority.source == *trusted)
        });
        if tokio::time::timeout(SEEN, another).await.is_err() {
            remarks
                .push("the cluster's CA is still trusted until the agent starts anew".to_owned());
        }
        *self.last() = None;
        if !node_name.is_empty() {
            remarks
                .push(format!("the cluster still lists the Node: kubectl delete node {node_name}"));
        }
        say(format_args!("left the cluster at {api_server}"));
        tell(told, What::Departed(v1::Departed { remarks })).await;
        Ok(())
    }

    /// Hears how a change goes, to its end. Whether it holds.
    async fn changed(&self, number: u64, from_seq: u64, told: &Told) -> Result<bool, Status> {
        let failed = |error| convert::error(&error);
        let line = self.init.follow().await.map_err(failed)?;
        let mut events = line.control.watch(from_seq, true).await.map_err(failed)?;
        while let Some(batch) = events.next().await.map_err(failed)? {
            for event in batch.events {
                let Happened::Mutation { generation, progress } = event.what else { continue };
                if generation != number {
                    continue;
                }
                let (over, holds) =
                    (changes::is_over(&progress), progress == MutationProgress::Reached);
                if let Some(v1::apply_response::What::Progress(progress)) =
                    changes::progress(number, progress).what
                {
                    tell(told, What::Progress(progress)).await;
                }
                if over {
                    return Ok(holds);
                }
            }
        }
        Ok(false)
    }

    /// Removes what a cluster leaves behind. What could not be removed, in words.
    fn clean(&self) -> Vec<String> {
        let crl = self.places.trusted.with_extension("crl");
        let done = [
            gone(&self.places.bootstrap()),
            files::wipe_own(&self.places),
            files::let_go(&self.places),
            files::wipe_given(&self.places),
            gone(&self.places.trusted),
            gone(&crl),
            gone(&self.leaving()),
        ];
        done.into_iter().filter_map(Result::err).map(|error| chain(&error)).collect()
    }

    /// Sees it through where the agent ended on the way: the config names no cluster any more.
    pub(super) fn finish_leaving(self: &Arc<Self>) {
        if !self.leaving().exists() {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            match this.named().await {
                Ok(named) if !named.any() => {
                    this.clean();
                    this.left.notify_one();
                }
                // It was undone: the node is in its cluster.
                Ok(_) => drop(gone(&this.leaving())),
                Err(error) => say(format_args!("cannot ask for the config: {}", error.message())),
            }
        });
    }
}
