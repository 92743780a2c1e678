//! A bootstrap that failed is taken back: the machine has its config from before again, and what was made on the way goes. What somebody
//! has confirmed meanwhile is his, and stays.

use keel_control::{GenerationResult, History};
use tokio::time::{Instant, sleep};

use super::job::{Failed, Job};
use super::note::{Note, gone};
use super::run::{LOOK, Trial, UNDONE, reason};
use super::{Bootstraps, files};
use crate::cluster::Join;
use crate::log::say;

impl Bootstraps {
    /// It failed: the machine goes back to the config before, and what was made on the way goes.
    pub(super) async fn take_back(&self, job: &Job, note: &Note, failed: Failed) {
        let noted = self.places.under_way().exists();
        let number = if noted { self.number(note).await } else { note.generation };
        let held = match number {
            Some(number) => matches!(self.trial(number).await, Ok(Trial::Good)),
            None => false,
        };
        // Before the config, so that its kubelet finds what it had, and nothing of the other cluster's.
        if noted
            && !held
            && let Err(error) = files::as_before(&self.places, note, number.is_some())
        {
            say(format_args!("bootstrap: cannot put back what the kubelet had: {error}"));
        }
        let mut failed = failed;
        let undone = match number {
            Some(number) => !held && self.undone(number, &failed.why).await,
            None => true,
        };
        if let Some(number) = number.filter(|_| !undone) {
            failed.why += &match held {
                true => format!("; config {number} stays, as somebody confirmed it"),
                false => format!("; config {number} could not be undone: see `osctl history`"),
            };
        }
        if noted {
            let cleaned = match (undone, note.named_before) {
                (true, false) => {
                    files::wipe_own(&self.places).and_then(|()| files::wipe_given(&self.places))
                }
                (true, true) => self.wipe_strange(note).await,
                (false, _) => Ok(()),
            };
            if let Err(error) = cleaned.and_then(|()| Note::remove(&self.places)) {
                failed.why += &format!("; what was written for it could not be removed: {error}");
            }
        }
        job.failed(&failed, number);
    }

    /// Removes what the kubelet got from that cluster in the moments before it was stopped, if its config names another one.
    async fn wipe_strange(&self, note: &Note) -> std::io::Result<()> {
        let text = std::fs::read_to_string(self.places.kubeconfig()).unwrap_or_default();
        let Ok(own) = Join::read(&text) else { return Ok(()) };
        let named = self.named().await.ok().and_then(|named| named.api_server);
        let strange = own.api_server.trim_end_matches('/') == note.api_server
            && named.is_some_and(|named| named.trim_end_matches('/') != note.api_server);
        if strange && !note.had_own { files::wipe_own(&self.places) } else { Ok(()) }
    }

    /// The number of the config that a bootstrap has brought. Init may have taken it without the agent having heard, or noted, so.
    pub(super) async fn number(&self, note: &Note) -> Option<u64> {
        if note.generation.is_some() {
            return note.generation;
        }
        let until = Instant::now() + UNDONE;
        while Instant::now() < until {
            if let Some(history) = self.history().await {
                return brought(&history, &note.api_server);
            }
            sleep(LOOK).await;
        }
        None
    }

    /// Has init take back a config. Whether it did.
    async fn undone(&self, number: u64, why: &str) -> bool {
        let why: String = why.chars().take(300).collect();
        let until = Instant::now() + UNDONE;
        loop {
            match self.trial(number).await {
                Ok(Trial::Undone(_)) => return true,
                Ok(Trial::Good) => return false,
                Ok(Trial::Waits) => {
                    let why = why.clone();
                    // What it says is in the history next.
                    drop(self.init.ask(async |init| init.undo(number, why).await).await);
                }
                Ok(Trial::UnderWay) | Err(()) => {}
            }
            if Instant::now() > until {
                return false;
            }
            sleep(LOOK).await;
        }
    }
}

/// The config of that bootstrap that is neither kept nor undone, if it is the last of them.
fn brought(history: &History, api_server: &str) -> Option<u64> {
    let why = reason(api_server);
    let last = history.generations.iter().rev().find(|page| page.reason == why)?;
    let open = !matches!(last.result, GenerationResult::Good | GenerationResult::RolledBack);
    open.then_some(last.number)
}

impl Bootstraps {
    /// Clears away a note that says nothing, so that the node is not kept from registering by it.
    pub(super) fn clear(&self) {
        say("bootstrap: what was noted of one that was under way cannot be read: it is forgotten");
        let put_back = files::put_back(&self.places);
        if let Err(error) = put_back.and_then(|()| gone(&self.places.under_way())) {
            say(format_args!("bootstrap: it cannot be removed: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use keel_control::Generation;

    use super::*;

    #[test]
    fn a_config_that_nobody_heard_of_is_in_the_history() {
        use GenerationResult::{Good, RolledBack, UnderWay};

        let check = |pages: &[(&str, GenerationResult)], expect: Option<u64>| {
            let page = |(number, (reason, result)): (u64, &(&str, GenerationResult))| Generation {
                number,
                digest: String::new(),
                text_sha256: String::new(),
                author: String::new(),
                reason: (*reason).to_owned(),
                at_ms: 0,
                result: *result,
                note: None,
            };
            let generations = (1..).zip(pages).map(page).collect();
            let history =
                History { generations, current: None, next: None, trial: None, damage: vec![] };
            assert_eq!(brought(&history, "https://a"), expect, "{history:?}");
        };
        let (ours, other) = ("bootstrap into https://a", "bootstrap into https://b");
        check(&[], None);
        check(&[(ours, UnderWay)], Some(1));
        check(&[(ours, RolledBack), (ours, UnderWay)], Some(2));
        check(&[(ours, UnderWay), (ours, Good)], None);
        check(&[(ours, RolledBack)], None);
        check(&[(other, UnderWay)], None);
    }
}
