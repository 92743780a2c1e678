//! Looking at the configs: what is remembered of them, and what they say.

use std::time::Instant;

use keel_control::{ConfigText, History, KEPT, Refusal, RefusalKind, Trial};
use keel_unit::config::masked;
use keel_unit::load;

use super::{Configs, Running, State};
use crate::control::off_thread;
use crate::store;

impl Configs {
    pub(crate) async fn history(&self) -> Result<History, Refusal> {
        let state = self.state.lock().await;
        let current = state.running.number();
        let trial = state.trial.map(|(generation, until)| {
            let left = until.saturating_duration_since(Instant::now());
            Trial { generation, left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) }
        });
        let Some(store) = &state.store else {
            let (generations, damage) = (Vec::new(), Vec::new());
            return Ok(History { generations, current, next: None, trial, damage });
        };
        let book = store.book();
        Ok(History {
            generations: book.pages.iter().map(store::told).collect(),
            current,
            next: book.pending.as_ref().filter(|it| !it.tried).map(|pending| pending.number),
            trial,
            damage: store.damage().to_vec(),
        })
    }

    /// The text of a config, without its secrets.
    pub(crate) async fn config(&self, generation: Option<u64>) -> Result<ConfigText, Refusal> {
        let mut state = self.state.lock().await;
        let (generation, text) = match generation {
            Some(number) => (Some(number), self.text(&mut state, number).await?),
            None => {
                let number = state.running.number();
                (number, self.running(&state).await?)
            }
        };
        Ok(ConfigText { generation, text: masked(&text, KEPT) })
    }

    pub(super) async fn text(&self, state: &mut State, number: u64) -> Result<String, Refusal> {
        self.with_store(state, move |store| {
            let oldest = store.book().pages.first().map(|page| page.number);
            if store.book().page(number).is_none() {
                return Err(RefusalKind::NoGeneration { asked: number, oldest }.into());
            }
            store.text(number).map_err(|error| {
                RefusalKind::NoStore(format!("config {number} cannot be read: {error}")).into()
            })
        })
        .await
    }

    /// The text of the config that runs.
    pub(super) async fn running(&self, state: &State) -> Result<String, Refusal> {
        match &state.running {
            Running::Own(_, text) | Running::StandIn(text) => Ok(text.clone()),
            Running::Image => self.image().await,
        }
    }

    /// The text of the image's own config.
    pub(super) async fn image(&self) -> Result<String, Refusal> {
        let path = self.arguments.config.clone();
        off_thread(move || Ok(load::text(&path).unwrap_or_default())).await
    }
}
