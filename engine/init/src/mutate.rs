//! Taking on another graph while the machine runs: the owner of the state does what the [`Undertaking`] says, and tells how it ended.

use std::collections::BTreeSet;
use std::path::PathBuf;

use keel_control::{Decision as Told, Refusal, RefusalKind, Undone, UnitChange};
use keel_plan::mutation::{Change, Decision, End, Heard, Move, Mutation, Side, Undertaking};
use keel_plan::{BootGraph, Outcome, UnitId};
use keel_unit::Kind;
use tokio::sync::oneshot;

use crate::run::{LAST_WORDS, Run};

/// How a mutation ended.
#[derive(Debug)]
pub(crate) enum MutationEnd {
    /// The machine runs the new graph.
    Reached,
    /// The machine runs the old graph, as before.
    RolledBack(Undone),
    /// The machine runs the old graph, and not all of it is up again.
    Degraded(Undone),
}

/// One that is under way. The machine going down is the end of it too: then nobody is told.
pub(crate) struct Mutating {
    undertaking: Undertaking,
    /// What the old graph has file units for.
    old_files: BTreeSet<PathBuf>,
    /// What the culprit said last, when it turned round.
    last_words: Option<Vec<String>>,
    done: oneshot::Sender<MutationEnd>,
}

/// Whether, and how it then ends.
pub(crate) type Begun = Result<oneshot::Receiver<MutationEnd>, Refusal>;

impl Run {
    /// Begins to take on another graph, as it was planned for this one. It goes on by what happens.
    pub(crate) fn mutate(&mut self, new: Side, mutation: Mutation) -> Begun {
        self.may_mutate(&mutation)?;
        let from = Side { graph: self.graph.clone(), transaction: self.transaction.clone() };
        let scheduler = self.executor.scheduler();
        let old_files = files(&from.graph);
        self.executor.host().heading_for(Some(files(&new.graph)));
        let (undertaking, first) = Undertaking::begin(from, new, mutation, scheduler);
        let (done, ended) = oneshot::channel();
        self.mutating = Some(Mutating { undertaking, old_files, last_words: None, done });
        self.make(first);
        Ok(ended)
    }

    fn may_mutate(&self, mutation: &Mutation) -> Result<(), Refusal> {
        if self.is_stopping() {
            return Err(RefusalKind::Stopping.into());
        }
        if self.mutating.is_some() || !self.knows_its_config() {
            let text = "another graph is being taken on at this moment";
            return Err(RefusalKind::Impossible(text.to_owned()).into());
        }
        if mutation.base != *self.graph.digest() {
            let (asked, running) = (mutation.base.to_string(), self.graph.digest().to_string());
            return Err(RefusalKind::OtherGraph { asked, running }.into());
        }
        if mutation.needs_reboot() {
            let needs = mutation.changes.iter();
            let needs = needs.filter(|change| change.decision == Decision::NeedsReboot);
            return Err(RefusalKind::NeedsReboot { units: needs.map(told).collect() }.into());
        }
        Ok(())
    }

    /// Something happened that a mutation may go by.
    pub(crate) fn mutation_hears(&mut self, heard: Heard<'_>) {
        let Some(mutating) = &mut self.mutating else { return };
        let before = mutating.undertaking.fault().is_some();
        let Some(next) = mutating.undertaking.hear(heard, self.executor.scheduler()) else {
            return;
        };
        if let Some(fault) = mutating.undertaking.fault().filter(|_| !before) {
            self.executor.host().heading_for(Some(std::mem::take(&mut mutating.old_files)));
            // Before the unit is started again, and says something else.
            let log = self.graph.find(fault.culprit.as_str());
            let log = log.and_then(|id| self.executor.host().log(id));
            let lines = log.map(|log| log.tail(LAST_WORDS)).unwrap_or_default();
            mutating.last_words = Some(lines.into_iter().map(|line| line.text).collect());
            let text = format!("the change is undone: {}: {}", fault.culprit, fault.why);
            let unit = self.graph.find(fault.unit.as_str());
            self.fact(unit, text);
        }
        self.make(next);
    }

    fn make(&mut self, next: Move) {
        match next {
            Move::Clear(units) => self.executor.clear(units),
            Move::Adopt(adoption, side) => {
                let units = side.graph.ids().map(|id| side.graph.unit(id).clone()).collect();
                if self.executor.adopt(&adoption, |host| host.adopt(units, &adoption)) {
                    self.take_on(side, &adoption.moves);
                }
            }
            Move::Over(end) => {
                self.executor.host().heading_for(None);
                if let Some(mutating) = self.mutating.take() {
                    let last_words = mutating.last_words.unwrap_or_default();
                    // Whoever asked may have hung up; what is done is done.
                    drop(mutating.done.send(ended(end, last_words)));
                }
            }
        }
    }

    /// Everything here that numbers or names units.
    fn take_on(&mut self, side: Side, moves: &[Option<UnitId>]) {
        self.graph = side.graph;
        self.transaction = side.transaction;
        let began = std::mem::take(&mut self.began).into_iter();
        self.began = began.filter_map(|(id, at)| Some((moves[id.index()]?, at))).collect();
        let names = self.graph.ids().map(|id| self.graph.unit(id).name.to_string());
        self.logs.adopt(names.collect());
    }

    /// All jobs of the graph that was taken on have ended: how the machine stands now.
    pub(crate) fn stands(&mut self, outcome: &Outcome) {
        let degraded = outcome.degraded.iter().map(|it| self.degraded(it)).collect();
        let digest = self.graph.digest().to_string();
        if let Some(summary) = &mut self.summary {
            summary.reached = outcome.reached && !summary.emergency;
            summary.degraded = degraded;
            summary.digest = digest;
            let state = summary.state();
            if state != self.goal_state && !self.is_stopping() {
                self.goal(state, None);
            }
        }
    }
}

/// The paths that a graph has file units for.
pub(crate) fn files(graph: &BootGraph) -> BTreeSet<PathBuf> {
    let files = graph.ids().filter_map(|id| match &graph.unit(id).kind {
        Kind::File(file) => Some(file.path.as_path().to_owned()),
        _ => None,
    });
    files.collect()
}

fn ended(end: End, last_words: Vec<String>) -> MutationEnd {
    let undone = |changes: Vec<Change>| -> Vec<String> {
        changes.iter().map(|change| format!("{}: {}", change.unit, change.decision)).collect()
    };
    match end {
        End::Reached => MutationEnd::Reached,
        End::RolledBack { fault, undone: changes } => MutationEnd::RolledBack(Undone {
            culprit: Some(fault.culprit.to_string()),
            why: fault.why,
            last_words,
            undone: undone(changes),
        }),
        End::Degraded { fault, undone: changes, missing } => {
            let missing: Vec<_> =
                missing.iter().map(|(unit, why)| format!("{unit}: {why}")).collect();
            MutationEnd::Degraded(Undone {
                culprit: Some(fault.culprit.to_string()),
                why: format!("{}; and not up again are {}", fault.why, missing.join(", ")),
                last_words,
                undone: undone(changes),
            })
        }
    }
}

/// A change, as keel-control tells it.
pub(crate) fn told(change: &Change) -> UnitChange {
    UnitChange {
        unit: change.unit.to_string(),
        decision: match change.decision {
            Decision::Keep => Told::Keep,
            Decision::Start => Told::Start,
            Decision::Stop => Told::Stop,
            Decision::Restart => Told::Restart,
            Decision::Reload => Told::Reload,
            Decision::Rerun => Told::Rerun,
            Decision::NeedsReboot => Told::NeedsReboot,
        },
        because: change.because.clone(),
        interrupts: change.interrupts,
    }
}
