//! What comes of a data partition that comes late, and of files that no unit wants any more.

use std::sync::Arc;

use keel_plan::mutation::Side;

use super::{Configs, Running};
use crate::boot::StandIn;
use crate::choose;
use crate::control::off_thread;
use crate::mutate::files;
use crate::store::{Book, Folder, Store};

impl Configs {
    /// The data partition came when the image's config had begun. `number` is the config on it that does not hold in this boot.
    pub(crate) async fn came_late(
        self: Arc<Self>,
        store: Option<Store<Folder>>,
        stand_ins: Vec<StandIn>,
        number: Option<u64>,
    ) {
        let mut running = Running::Image;
        // Nobody can give the machine another config before this is over: there is no store yet.
        for StandIn { boot, text } in stand_ins {
            let side = Side { graph: Arc::new(boot.graph), transaction: boot.transaction };
            if self.go_back(side).await.is_some() {
                running = Running::StandIn(text);
                break;
            }
            self.say("the machine cannot be made to let in only whom its own config lets in");
        }
        self.found(store, running).await;
        let mut state = self.state.lock().await;
        let pending = state.store.as_ref().and_then(|store| store.book().pending.as_ref());
        let tried = pending.is_some_and(|it| it.tried && Some(it.number) == number);
        // It was to have its turn, and this boot is not it.
        if tried && let Err(error) = self.write(&mut state, Book::passed_over).await {
            self.say(&format!("that its turn is still to come cannot be noted: {error}"));
        }
    }

    /// Removes the files that no unit of the graph wants which runs now.
    pub(super) async fn sweep(&self) {
        let Ok(snapshot) = self.snapshot().await else { return };
        let ledger = self.ledger.clone();
        let swept = off_thread(move || {
            let wanted = files(&snapshot.graph);
            Ok(choose::swept(&ledger, |path| wanted.contains(path)))
        });
        swept.await.into_iter().flatten().for_each(|note| self.say(&note));
    }
}
