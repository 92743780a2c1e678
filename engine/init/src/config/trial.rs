//! The word that a config on trial waits for.

use std::sync::Arc;

use keel_control::{MutationProgress, Refusal, RefusalKind};

use super::Configs;
use crate::change;
use crate::control::to_its_end;
use crate::store::Book;

impl Configs {
    /// The config on trial is well.
    pub(crate) async fn confirm(&self) -> Result<u64, Refusal> {
        let mut state = self.state.lock().await;
        let (number, _) = state.trial.ok_or(RefusalKind::NothingOnTrial)?;
        self.write(&mut state, Book::settled).await?;
        state.trial = None;
        state.way_back = None;
        self.tell(number, MutationProgress::Reached);
        self.settled.notify_waiters();
        self.sweep().await;
        Ok(number)
    }

    /// The config on trial is not well, says who tried it.
    pub(crate) async fn undo_trial(
        self: &Arc<Self>,
        generation: u64,
        why: String,
    ) -> Result<(), Refusal> {
        change::bounded(0, "", &why)?;
        let mut state = self.state.clone().lock_owned().await;
        if state.trial.is_none_or(|(number, _)| number != generation) {
            return Err(RefusalKind::NothingOnTrial.into());
        }
        let configs = self.clone();
        to_its_end(async move {
            configs.undo(&mut state, generation, None, why).await;
            Ok(())
        })
        .await
    }
}
