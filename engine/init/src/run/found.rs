//! What the data partition says of this machine's configs, and what becomes of the run.

use super::{Beginning, Known, Run};
use crate::boot::{Boot, StandIn};
use crate::choose::{self, Chosen, Looked};
use crate::config::Running;
use crate::store::{Folder, Store};

/// What is said where the image's config stands in for one that held.
const STANDS_IN: &str =
    "the image's config stands in; the machine lets in whom its own config lets in";

impl Run {
    /// Looks which config this machine has, on a thread of its own.
    pub(super) fn look(&mut self) {
        if std::mem::replace(&mut self.looked, true) {
            return;
        }
        let (arguments, tell) = (self.arguments.clone(), self.looks.0.clone());
        // What has begun with the image's config does not go back.
        let (may_try, ledger) = (!*self.gate.borrow(), self.ledger.clone());
        tokio::task::spawn_blocking(move || {
            drop(tell.send(choose::look(&arguments, may_try, &ledger)));
        });
    }

    /// What was found there. Gives what this machine is to run instead, if that is something else.
    pub(super) fn found(&mut self, looked: Looked) -> Option<(Boot, Beginning)> {
        let Looked { store, chosen, stand_ins, notes } = looked;
        notes.into_iter().for_each(|note| self.fact(None, note));
        let late = *self.gate.borrow() || self.is_stopping();
        let (boot, running) = match chosen {
            Some(Chosen { number, text, boot }) if boot.graph.digest() == self.graph.digest() => {
                self.configs_know(store, Running::Own(number, text));
                self.go_on(None);
                return None;
            }
            Some(Chosen { number, .. }) if late => {
                let text =
                    "does not hold in this boot: the data partition came when it had begun without";
                self.fact(None, format!("config {number} {text}; reboot to have it"));
                self.came_late(store, stand_ins, Some(number));
                return None;
            }
            None if late => {
                self.came_late(store, stand_ins, None);
                return None;
            }
            Some(Chosen { number, text, boot }) => {
                self.fact(None, format!("config {number} takes over from the image's"));
                (boot, Running::Own(number, text))
            }
            None => {
                let stand_in = stand_ins.into_iter().next();
                let Some(StandIn { boot, text }) =
                    stand_in.filter(|it| it.boot.graph.digest() != self.graph.digest())
                else {
                    self.configs_know(store, Running::Image);
                    self.go_on(None);
                    return None;
                };
                self.fact(None, STANDS_IN.to_owned());
                (boot, Running::StandIn(text))
            }
        };
        let adopted = choose::adopted(&self.graph, &boot.graph, |id| {
            self.executor.scheduler().state(id).is_active()
        });
        let known = Some(Known { store, running });
        Some((boot, Beginning { known, adopted, ledger: self.ledger.clone() }))
    }

    /// The configs were found when the image's had begun: at least whom the machine lets in follows. Not waited for, like the other.
    fn came_late(
        &mut self,
        store: Option<Store<Folder>>,
        stand_ins: Vec<StandIn>,
        number: Option<u64>,
    ) {
        let running = self.graph.digest();
        // The best of them may be what runs.
        let runs = stand_ins.first().is_none_or(|it| it.boot.graph.digest() == running);
        if !runs && !self.is_stopping() {
            self.fact(None, STANDS_IN.to_owned());
        }
        let stand_ins = if runs || self.is_stopping() { Vec::new() } else { stand_ins };
        tokio::spawn(self.configs.clone().came_late(store, stand_ins, number));
    }

    /// Not waited for: whoever holds the configs may be waiting for an answer of this loop's.
    fn configs_know(&self, store: Option<Store<Folder>>, running: Running) {
        let configs = self.configs.clone();
        tokio::spawn(async move { configs.found(store, running).await });
    }
}
