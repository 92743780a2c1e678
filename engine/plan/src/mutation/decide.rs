//! The decisions: first each unit for itself, then what follows from one unit for another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use keel_unit::{Kind, Unit};

use super::rules::{self, Asks, Way};
use super::{Change, Decision, Mutation};
use crate::export::settings;
use crate::graph::{BootGraph, EdgeKind};
use crate::plan::order;
use crate::state::State;
use crate::transaction::{Transaction, UnitId};

/// What a change of graph asks of each unit. `states` are those of the old graph's units, by [`UnitId`]. Linear in units, edges and keys.
pub fn mutation(
    old: &BootGraph,
    old_transaction: &Transaction,
    new: &BootGraph,
    new_transaction: &Transaction,
    states: &[State],
) -> Mutation {
    way(old, old_transaction, new, new_transaction, states, &|_| true)
}

/// The same, where it is known that not every unit of the new graph comes up.
pub(super) fn way(
    old: &BootGraph,
    old_transaction: &Transaction,
    new: &BootGraph,
    new_transaction: &Transaction,
    states: &[State],
    comes_up: &dyn Fn(UnitId) -> bool,
) -> Mutation {
    let (base, target) = (*old.digest(), *new.digest());
    let mut deciding = Deciding {
        units: both(old, new, states),
        of_old: Vec::new(),
        of_new: Vec::new(),
        open: VecDeque::new(),
        old,
        new,
        comes_up,
    };
    deciding.index();
    if base != target {
        deciding.each(&started(old_transaction), &started(new_transaction));
        deciding.follow();
        deciding.lacking();
        deciding.follow();
    }
    Mutation { base, target, changes: deciding.changes() }
}

fn started(transaction: &Transaction) -> Vec<bool> {
    let mut started = vec![false; transaction.units().len()];
    transaction.jobs().iter().for_each(|job| started[job.unit.index()] = true);
    started
}

/// One unit of either graph.
struct One {
    old: Option<UnitId>,
    new: Option<UnitId>,
    state: State,
    decision: Decision,
    because: Vec<String>,
    another_try: bool,
    /// What it makes is another from now on: who reads it has to read it again.
    fresh: bool,
    /// It is to be up in the end.
    wanted: bool,
}

/// By their names.
fn both(old: &BootGraph, new: &BootGraph, states: &[State]) -> Vec<One> {
    let mut units: BTreeMap<&str, One> = BTreeMap::new();
    let one = |old, new, state| One {
        old,
        new,
        state,
        decision: Decision::Keep,
        because: Vec::new(),
        another_try: false,
        fresh: false,
        wanted: false,
    };
    for id in old.ids() {
        let state = states.get(id.index()).copied().unwrap_or(State::Inactive);
        units.insert(old.unit(id).name.as_str(), one(Some(id), None, state));
    }
    for id in new.ids() {
        let unit = units.entry(new.unit(id).name.as_str());
        unit.or_insert_with(|| one(None, Some(id), State::Inactive)).new = Some(id);
    }
    units.into_values().collect()
}

struct Deciding<'a> {
    units: Vec<One>,
    /// Where a unit of the old graph stands in `units`.
    of_old: Vec<usize>,
    of_new: Vec<usize>,
    /// Units whose decision may concern others.
    open: VecDeque<usize>,
    old: &'a BootGraph,
    new: &'a BootGraph,
    comes_up: &'a dyn Fn(UnitId) -> bool,
}

impl Deciding<'_> {
    fn index(&mut self) {
        self.of_old = vec![0; self.old.len()];
        self.of_new = vec![0; self.new.len()];
        for (at, one) in self.units.iter().enumerate() {
            one.old.into_iter().for_each(|id| self.of_old[id.index()] = at);
            one.new.into_iter().for_each(|id| self.of_new[id.index()] = at);
        }
    }

    /// Each unit for itself.
    fn each(&mut self, started_old: &[bool], started_new: &[bool]) {
        for at in 0..self.units.len() {
            let one = &self.units[at];
            let wanted_before = one.old.is_some_and(|id| started_old[id.index()]);
            let wanted = one.new.is_some_and(|id| started_new[id.index()]);
            let (decision, because) = self.alone(one, wanted_before, wanted);
            let lacks_other = wanted && self.lacks_other(one);
            let one = &mut self.units[at];
            one.wanted = wanted || (one.new.is_some() && !wanted_before && !one.state.is_down());
            one.because = because;
            one.fresh = matches!(decision, Decision::Start | Decision::Rerun | Decision::Restart);
            if decision != Decision::Keep {
                self.decide(at, decision, None);
            } else if lacks_other {
                one.another_try = true;
                let why = "was down, and gets another try: it waits for others now".to_owned();
                self.decide(at, Decision::Start, Some(why));
            }
        }
    }

    /// Units that are up and need others from now on which are not, and may stay so.
    fn lacking(&mut self) {
        for at in 0..self.units.len() {
            let one = &self.units[at];
            if one.decision < Decision::Restart
                && let Some(why) = self.newly_lacks(one)
            {
                self.done_anew(at, why);
            }
        }
    }

    fn alone(&self, one: &One, wanted_before: bool, wanted: bool) -> (Decision, Vec<String>) {
        let only = |decision, why: &str| (decision, vec![why.to_owned()]);
        let (old, new) = match (one.old, one.new) {
            (None, _) if wanted => return only(Decision::Start, "is new"),
            (None, _) => return only(Decision::Keep, "is new, and nothing starts it"),
            (Some(old), None) => {
                let way = rules::way(&self.old.unit(old).kind);
                return match way {
                    _ if one.state.is_down() => only(Decision::Keep, "is no longer there"),
                    Way::Never if matches!(self.old.unit(old).kind, Kind::Mount(_)) => {
                        only(Decision::NeedsReboot, "is no longer there, and stays mounted")
                    }
                    _ => only(Decision::Stop, "is no longer there"),
                };
            }
            (Some(old), Some(new)) => (self.old.unit(old), self.new.unit(new)),
        };
        let (asks, mut because) = changed(self.old, old, self.new, new);
        if wanted_before && !wanted && !one.state.is_down() {
            because.push("nothing starts it any more".to_owned());
            return (Decision::Stop, because);
        }
        if !one.state.holds() {
            let again = wanted && (!wanted_before || asks != Asks::Nothing);
            if again && asks == Asks::Nothing {
                because.push("the goal starts it now".to_owned());
            }
            return (if again { Decision::Start } else { Decision::Keep }, because);
        }
        let decision = match (asks, rules::way(&old.kind)) {
            (Asks::Nothing, _) => Decision::Keep,
            (Asks::Reboot, _) | (Asks::Work, Way::Never) => Decision::NeedsReboot,
            (Asks::Work, Way::Down) => Decision::Restart,
            (Asks::Work, Way::InPlace) => Decision::Rerun,
        };
        (decision, because)
    }

    /// Whether a unit that failed, or was skipped, waits for or needs other units than before: it may have lacked one that it no longer
    /// needs.
    fn lacks_other(&self, one: &One) -> bool {
        let (Some(old), Some(new)) = (one.old, one.new) else { return false };
        if !matches!(one.state, State::Failed(_) | State::Skipped) {
            return false;
        }
        let edges = |graph: &BootGraph, id| -> BTreeSet<(String, EdgeKind)> {
            let edges = graph.dependencies(id);
            edges.map(|(other, edge)| (graph.unit(other).name.to_string(), edge.kind)).collect()
        };
        edges(self.old, old) != edges(self.new, new)
    }

    /// What a unit that is up needs from now on, and did not before, although it is not up.
    fn newly_lacks(&self, one: &One) -> Option<String> {
        let (Some(old), Some(new)) = (one.old, one.new) else { return None };
        if !one.state.holds() {
            return None;
        }
        let needs = |graph: &BootGraph, id| -> BTreeMap<String, EdgeKind> {
            let edges = graph.dependencies(id);
            let needs = edges
                .filter(|(_, edge)| matches!(edge.kind, EdgeKind::Requires | EdgeKind::BindsTo));
            needs.map(|(other, edge)| (graph.unit(other).name.to_string(), edge.kind)).collect()
        };
        let before = needs(self.old, old);
        let lacks = |name: &String, kind: EdgeKind| {
            let Some(id) = self.new.find(name) else { return false };
            let other = &self.units[self.of_new[id.index()]];
            // One that is started for the first time in this shape has to come up anyway.
            let starts = other.decision == Decision::Start && !other.another_try;
            let comes = starts && (self.comes_up)(id);
            let skipped = other.state == State::Skipped && kind == EdgeKind::Requires;
            other.state.is_down() && !skipped && !comes
        };
        let word = |kind| if kind == EdgeKind::BindsTo { "is bound to" } else { "requires" };
        let now = needs(self.new, new).into_iter();
        let mut lacking =
            now.filter(|(name, kind)| before.get(name) != Some(kind) && lacks(name, *kind));
        lacking.next().map(|(name, kind)| format!("{} {name}, which is not up", word(kind)))
    }

    /// Takes a decision, unless a stronger one was taken.
    fn decide(&mut self, at: usize, decision: Decision, why: Option<String>) {
        let one = &mut self.units[at];
        let weight = |decision| match decision {
            Decision::Keep => 0,
            Decision::Reload => 1,
            Decision::Start | Decision::Rerun => 2,
            Decision::Restart => 3,
            Decision::Stop => 4,
            Decision::NeedsReboot => 5,
        };
        if weight(decision) <= weight(one.decision) {
            return;
        }
        one.decision = decision;
        if let Some(why) = why {
            one.because.push(why);
        }
        self.open.push_back(at);
    }

    /// Decides that a unit that is up does its work anew, for a reason outside it.
    fn done_anew(&mut self, at: usize, why: String) {
        let one = &self.units[at];
        let Some(old) = one.old else { return };
        let kind = &self.old.unit(old).kind;
        let decision = match rules::way(kind) {
            _ if one.new.is_none() || !one.wanted => Decision::Stop,
            Way::Never => Decision::NeedsReboot,
            Way::Down => Decision::Restart,
            Way::InPlace => Decision::Rerun,
        };
        self.decide(at, decision, Some(why));
    }

    /// What follows from one unit for others, until nothing does.
    fn follow(&mut self) {
        while let Some(at) = self.open.pop_front() {
            self.let_down(at);
            self.read_again(at);
            self.try_again(at);
        }
    }

    /// What stands on a unit that goes down, or that goes where another is mounted.
    fn let_down(&mut self, at: usize) {
        let one = &self.units[at];
        let (decision, state) = (one.decision, one.state);
        let what = match decision {
            Decision::Restart => "restarts",
            Decision::Stop => "stops",
            Decision::Rerun => "is re-run",
            _ => "starts",
        };
        if let Some(old) = one.old.filter(|_| state.holds()) {
            let away = match decision {
                Decision::Restart => true,
                Decision::Stop => rules::stop_takes_away(&self.old.unit(old).kind),
                _ => false,
            };
            let bound = matches!(decision, Decision::Restart | Decision::Stop | Decision::Rerun);
            let name = self.old.unit(old).name.clone();
            let follows: Vec<_> = self
                .old
                .dependents(old)
                .filter_map(|(other, edge)| match edge.kind {
                    EdgeKind::BindsTo if bound => Some((other, "is bound to")),
                    EdgeKind::Requires if away => Some((other, "requires")),
                    _ => None,
                })
                .collect();
            for (other, word) in follows {
                let other = self.of_old[other.index()];
                if self.units[other].state.holds() {
                    self.done_anew(other, format!("{word} {name}, which {what}"));
                }
            }
        }
        let Some(new) = self.units[at].new.filter(|_| self.units[at].wanted) else { return };
        let comes = matches!(decision, Decision::Start | Decision::Restart);
        if comes && matches!(self.new.unit(new).kind, Kind::Mount(_)) {
            let name = self.new.unit(new).name.clone();
            let above =
                self.new.dependents(new).filter(|(_, edge)| edge.kind == EdgeKind::Requires);
            let above: Vec<_> = above.map(|(other, _)| self.of_new[other.index()]).collect();
            for other in above {
                if self.units[other].state.holds() {
                    self.done_anew(other, format!("uses what {name} holds, which is mounted anew"));
                }
            }
        }
        if comes || decision == Decision::Rerun {
            let name = self.new.unit(new).name.clone();
            let bound = self.new.dependents(new).filter(|(_, e)| e.kind == EdgeKind::BindsTo);
            let bound: Vec<_> = bound.map(|(other, _)| self.of_new[other.index()]).collect();
            for other in bound {
                if self.units[other].state.holds() {
                    self.done_anew(other, format!("is bound to {name}, which {what}"));
                }
            }
        }
        if comes {
            self.conflict(new);
        }
    }

    /// What is up and may not be together with a unit that comes up.
    fn conflict(&mut self, new: UnitId) {
        let name = self.new.unit(new).name.clone();
        let (to, from) = (self.new.dependencies(new), self.new.dependents(new));
        let others = to.chain(from).filter(|(_, edge)| edge.kind == EdgeKind::Conflicts);
        let others: Vec<_> = others.map(|(other, _)| self.of_new[other.index()]).collect();
        for other in others {
            if self.units[other].state.holds() {
                self.units[other].wanted = false;
                let why = format!("conflicts with {name}, which starts");
                self.decide(other, Decision::Stop, Some(why));
            }
        }
    }

    /// Programs that read what a unit makes.
    fn read_again(&mut self, at: usize) {
        let one = &self.units[at];
        let Some(new) = one.new.filter(|_| one.fresh && one.wanted) else { return };
        let unit = self.new.unit(new);
        if !rules::is_read(&unit.kind) {
            return;
        }
        let word = if one.decision == Decision::Start { "starts" } else { "is re-run" };
        let why = format!("reads what {} makes, which {word}", unit.name);
        let mut pulls = BTreeSet::new();
        let mut waits = BTreeSet::new();
        for (other, edge) in self.new.dependents(new) {
            match edge.kind {
                kind if kind.pulls_in() => drop(pulls.insert(other)),
                EdgeKind::After(_) => drop(waits.insert(other)),
                _ => {}
            }
        }
        for &other in pulls.intersection(&waits) {
            let reader = self.of_new[other.index()];
            if !self.units[reader].state.holds() || self.units[reader].old.is_none() {
                continue;
            }
            match &self.new.unit(other).kind {
                Kind::Service(service) if service.reload_signal.is_some() => {
                    self.decide(reader, Decision::Reload, Some(why.clone()));
                }
                Kind::Service(_) => self.done_anew(reader, why.clone()),
                Kind::Oneshot(_) => {
                    self.units[reader].fresh = true;
                    self.done_anew(reader, why.clone());
                }
                _ => {}
            }
        }
    }

    /// What is down for lack of something: another try, now that a unit that it waits for or needs is touched.
    fn try_again(&mut self, at: usize) {
        let one = &self.units[at];
        let touched = matches!(
            one.decision,
            Decision::Start | Decision::Restart | Decision::Rerun | Decision::Stop
        );
        let Some(new) = one.new.filter(|_| touched) else { return };
        let name = self.new.unit(new).name.clone();
        let edges = self.new.dependents(new).filter(|(_, e)| e.kind != EdgeKind::Conflicts);
        let others: BTreeSet<_> = edges.map(|(other, _)| self.of_new[other.index()]).collect();
        for other in others {
            let it = &mut self.units[other];
            let down = matches!(it.state, State::Failed(_) | State::Skipped) && it.old.is_some();
            if down && it.wanted && it.decision == Decision::Keep {
                it.another_try = true;
                let was = if it.state == State::Skipped { "was skipped" } else { "had failed" };
                let why = format!("{was}, and gets another try with {name}");
                self.decide(other, Decision::Start, Some(why));
            }
        }
    }

    /// In order: what goes down for good, last to first; then the rest, first to last.
    fn changes(&mut self) -> Vec<Change> {
        let mut at: Vec<usize> = Vec::with_capacity(self.units.len());
        let leaves = |one: &One| one.new.is_none() || one.decision == Decision::Stop;
        let backwards = order(self.old).into_iter().rev().map(|id| self.of_old[id.index()]);
        at.extend(backwards.filter(|at| leaves(&self.units[*at])));
        let forwards = order(self.new).into_iter().map(|id| self.of_new[id.index()]);
        at.extend(forwards.filter(|at| !leaves(&self.units[*at])));
        at.into_iter().filter_map(|at| self.change(at)).collect()
    }

    fn change(&self, at: usize) -> Option<Change> {
        let one = &self.units[at];
        let in_new = one.new.map(|id| self.new.unit(id));
        // It is in one of them.
        let unit = in_new.or(one.old.map(|id| self.old.unit(id)))?;
        let lasts = matches!(unit.kind, Kind::Service(_) | Kind::Mount(_) | Kind::Link(_));
        let goes = matches!(one.decision, Decision::Stop | Decision::Restart | Decision::Rerun);
        let at_work = one.state == State::Activating || (lasts && one.state.holds());
        Some(Change {
            unit: unit.name.clone(),
            decision: one.decision,
            because: one.because.clone(),
            interrupts: goes && at_work,
            another_try: one.another_try,
        })
    }
}

/// What the changed keys of a unit ask for together, and which they are.
fn changed(
    old_graph: &BootGraph,
    old: &Unit,
    new_graph: &BootGraph,
    new: &Unit,
) -> (Asks, Vec<String>) {
    let kind = new.kind.name();
    if old.kind.name() != kind {
        let asks = if rules::lasting(old.kind.name()) { Asks::Reboot } else { Asks::Work };
        return (asks, vec![format!("was a {}, is a {kind}", old.kind.name())]);
    }
    let mut keys: BTreeSet<String> = BTreeSet::new();
    if !std::ptr::eq(old.tree(), new.tree()) {
        let (before, after) = (settings(old_graph, old), settings(new_graph, new));
        let value = |of: &BTreeMap<String, crate::export::Setting>, key: &str| {
            of.get(key).map(|setting| setting.value.clone())
        };
        let all = before.keys().chain(after.keys());
        let differs = all.filter(|key| value(&before, key) != value(&after, key));
        keys.extend(differs.cloned());
    }
    // What a tree shows of a secret is the beginning of its hash.
    let hash = |of: &Unit, key: &str| of.secrets.iter().find(|s| s.key == key).map(|s| s.hash);
    let secrets = old.secrets.iter().chain(&new.secrets).map(|secret| &secret.key);
    let differs = secrets.filter(|key| hash(old, key) != hash(new, key));
    keys.extend(differs.cloned());
    let asks = keys.iter().map(|key| rules::asks(kind, key)).max().unwrap_or(Asks::Nothing);
    (asks, keys.into_iter().map(|key| format!("{key} changes")).collect())
}
