//! Forgetting what a node showed for its first certificate: it has done its work, and would be worth stealing.

use std::sync::Arc;

use keel_control::{Refusal, RefusalKind};
use keel_plan::mutation::{Decision, Side, mutation};
use keel_plan::{BootGraph, State as UnitState};
use keel_unit::config::spent;

use super::{Configs, Running, State, busy};
use crate::boot;
use crate::control::{Snapshot, off_thread};
use crate::mutate::MutationEnd;

/// The units that hand the credentials to the kubelet.
const BEARERS: [&str; 2] = ["file.kubelet-bootstrap", "file.kubelet-kubeconfig"];

/// Whether the graph hands credentials out, and none of them were needed.
fn are_unused(snapshot: &Snapshot) -> bool {
    let bearers: Vec<_> = BEARERS.iter().filter_map(|name| snapshot.graph.find(name)).collect();
    let skipped = |id: &keel_plan::UnitId| snapshot.states[id.index()] == UnitState::Skipped;
    !bearers.is_empty() && bearers.iter().all(skipped)
}

impl Configs {
    /// The node has a certificate of its own. Every config that is kept loses the credentials that it was got with, but for one whose turn
    /// is still to come. Gives how many had any.
    pub(crate) async fn forget(self: &Arc<Self>) -> Result<u32, Refusal> {
        let mut state = self.state.clone().lock_owned().await;
        let configs = self.clone();
        crate::control::to_its_end(async move { configs.forget_now(&mut state).await }).await
    }

    /// The same after another config has come, if what hands its credentials out found that they are not needed.
    pub(super) async fn forget_if_unused(&self, state: &mut State) {
        let Ok(snapshot) = self.snapshot().await else { return };
        let unused = are_unused(&snapshot);
        if unused && let Err(error) = self.forget_now(state).await {
            self.say(&format!("the token cannot be forgotten: {error}"));
        }
    }

    async fn forget_now(&self, state: &mut State) -> Result<u32, Refusal> {
        let book = state.store.as_ref().map(|store| store.book().clone());
        let running = state.running.number();
        let waits = book.as_ref().and_then(|book| book.pending.as_ref());
        let waits = waits.map(|it| it.number).filter(|number| Some(*number) != running);
        let numbers = book.iter().flat_map(|book| book.pages.iter().map(|page| page.number));
        let numbers: Vec<u64> = numbers.filter(|number| Some(*number) != waits).collect();
        let side = self.without(state).await;
        let digest = side.as_ref().map(|(side, _)| side.graph.digest().to_string());
        let count = match numbers.is_empty() {
            true => 0,
            false => {
                self.with_store(state, move |store| {
                    let text = |number: u64| {
                        // A text that cannot be read says nothing to whoever finds it, either.
                        let text = spent(&store.text(number).ok()?)?;
                        Some((number, text, digest.clone().filter(|_| Some(number) == running)))
                    };
                    let texts: Vec<_> = numbers.into_iter().filter_map(text).collect();
                    if !texts.is_empty() {
                        store.replace(&texts).map_err(|error| {
                            let what = format!("the data partition cannot be written: {error}");
                            Refusal::from(RefusalKind::NoStore(what))
                        })?;
                    }
                    Ok(u32::try_from(texts.len()).unwrap_or(u32::MAX))
                })
                .await?
            }
        };
        if let Running::Own(number, text) = &state.running
            && let Some(text) = spent(text)
        {
            state.running = Running::Own(*number, text);
        }
        if let Some(way_back) = &mut state.way_back
            && let Running::Own(number, text) = &way_back.running
            && let Some(text) = spent(text)
        {
            way_back.running = Running::Own(*number, text);
        }
        if count > 0 {
            self.say(&format!(
                "the node has a certificate of its own: what it joined with is forgotten, in {count} config(s)"
            ));
        }
        if let Some((side, mutation)) = side {
            // The memory of this machine forgets too. Where it cannot, the next boot does.
            let taken_on = self.begin(side, mutation).await;
            if let Ok(ended) = taken_on
                && !matches!(ended.await, Ok(MutationEnd::Reached))
            {
                self.say("what runs still knows what it joined with, until the next boot");
            }
        }
        Ok(count)
    }

    /// The graph of the running config without the credentials, if nothing else comes of it than that nobody hands them out any more.
    async fn without(&self, state: &State) -> Option<(Side, keel_plan::mutation::Mutation)> {
        let Running::Own(_, text) = &state.running else { return None };
        let text = spent(text)?;
        // One that is being taken on, or on trial, has a way back that is not to be lost.
        if busy(state).is_some() {
            return None;
        }
        let Snapshot { graph, transaction, states } = self.snapshot().await.ok()?;
        let arguments = self.arguments.clone();
        let planned = off_thread(move || {
            let boot = boot::from_text(&arguments, &text)
                .map_err(|why| Refusal::from(RefusalKind::Internal(why)))?;
            let mutation = mutation(&graph, &transaction, &boot.graph, &boot.transaction, &states);
            Ok((boot, mutation))
        });
        let (boot, mutation) = planned.await.ok()?;
        let harmless = mutation.moves().all(|change| {
            change.decision == Decision::Stop && BEARERS.contains(&change.unit.as_str())
        });
        let graph: Arc<BootGraph> = Arc::new(boot.graph);
        harmless.then_some((Side { graph, transaction: boot.transaction }, mutation))
    }
}
