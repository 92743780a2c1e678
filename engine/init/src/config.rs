//! The configs of a machine that runs: another one is read, planned, kept and tried, and it holds, or is undone.
//!
//! What takes time happens on threads of its own; the owner of the machine's state is asked for its graph and told to reboot, and nothing
//! else. One config has its turn at a time: who comes meanwhile waits or is refused, as he likes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use keel_control::{
    Answer, Applied, Apply, ApplyMode, ConfigText, EventLog, Fate, Generation, GenerationResult,
    Happened, History, KEPT, Layer, MAX_CONFIG, MAX_REMARK, MutationProgress, Refusal, RefusalKind,
    Rollback, Trial, Undone,
};
use keel_plan::{ShutdownKind, State as UnitState};
use keel_unit::config::{masked, restored};
use keel_unit::load;
use tokio::sync::{Mutex, MutexGuard, Notify, mpsc, oneshot};

use crate::arguments::Arguments;
use crate::change;
use crate::console;
use crate::control::{Question, Snapshot, off_thread};
use crate::screen::Screen;
use crate::store::{self, Book, Folder, Page, Pending, Store, Wants};

/// How long a config waits for a word where nobody says for how long.
const TRIAL: Duration = Duration::from_secs(120);

/// The longest that a config may wait for a word.
const LONGEST_TRIAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the answer to whoever asked has to get on its way before the machine goes down.
const LAST_WORD: Duration = Duration::from_millis(300);

/// The configs.
pub(crate) struct Configs {
    arguments: Arguments,
    questions: mpsc::Sender<Question>,
    events: Arc<EventLog>,
    screen: Screen,
    started: Instant,
    state: Mutex<State>,
    /// Said whenever a config has had its turn.
    settled: Notify,
}

/// What is known of them.
#[derive(Default)]
struct State {
    /// None without a data partition, or until it is there.
    store: Option<Store<Folder>>,
    /// The number and the text of the config that runs; none if that is the image's own.
    running: Option<(u64, String)>,
    /// The config that waits for a word, and until when.
    trial: Option<(u64, Instant)>,
    /// The machine goes down for a config.
    leaving: Option<(u64, String)>,
}

impl Configs {
    pub(crate) fn new(
        arguments: Arguments,
        questions: mpsc::Sender<Question>,
        events: Arc<EventLog>,
        screen: Screen,
        started: Instant,
    ) -> Arc<Self> {
        let (state, settled) = (Mutex::default(), Notify::new());
        Arc::new(Self { arguments, questions, events, screen, started, state, settled })
    }

    /// The data partition was looked at.
    pub(crate) async fn found(&self, store: Option<Store<Folder>>, running: Option<(u64, String)>) {
        let mut state = self.state.lock().await;
        state.store = store;
        state.running = running;
    }

    /// The boot is over. `down` are the units that should be up; `why` says what is wrong with the machine as a whole.
    pub(crate) async fn booted(self: Arc<Self>, down: Vec<String>, why: Option<String>) {
        let mut state = self.state.lock().await;
        let running = state.running.as_ref().map(|(number, _)| *number);
        let Some(pending) = state.store.as_ref().and_then(|store| store.book().pending.clone())
        else {
            return;
        };
        if !pending.tried || Some(pending.number) != running {
            return;
        }
        let number = pending.number;
        let culprit = down.into_iter().find(|unit| !pending.down_before.contains(unit));
        let wrong = match (why, &culprit) {
            (Some(why), _) => Some(why),
            (None, Some(unit)) => Some(format!("{unit} is not up, and was before")),
            (None, None) => None,
        };
        match (wrong, pending.wants) {
            (Some(why), _) => self.undo(&mut state, number, culprit, why).await,
            (None, Wants::Goal) => self.settle(&mut state, number).await,
            (None, Wants::Word { within_ms }) => {
                let within = Duration::from_millis(within_ms);
                state.trial = Some((number, Instant::now() + within));
                self.tell(number, MutationProgress::Waits { ms: within_ms });
                drop(state);
                tokio::spawn(self.clone().expect_a_word(number, within));
            }
        }
    }

    /// Undoes a config that nobody says a word for in time.
    async fn expect_a_word(self: Arc<Self>, number: u64, within: Duration) {
        tokio::time::sleep(within).await;
        let mut state = self.state.lock().await;
        if state.trial.is_some_and(|(on_trial, _)| on_trial == number) {
            let why = format!("nobody confirmed it within {} s", within.as_secs());
            self.undo(&mut state, number, None, why).await;
        }
    }

    /// The config holds from now on.
    async fn settle(&self, state: &mut State, number: u64) {
        match self.write(state, Book::settled).await {
            Ok(()) => self.tell(number, MutationProgress::Reached),
            Err(error) => self.say(&format!(
                "config {number} is good, but that cannot be noted, and the next boot will not have it: {error}"
            )),
        }
        state.trial = None;
        self.settled.notify_waiters();
    }

    /// The config does not hold: the machine goes back to the one before it.
    async fn undo(&self, state: &mut State, number: u64, culprit: Option<String>, why: String) {
        let note = why.clone();
        // Where that cannot be noted, the next boot finds the note that the config had its turn, which says the same.
        if let Err(error) = self.write(state, move |book| book.undone(&note)).await {
            self.say(&format!("that config {number} is undone cannot be noted: {error}"));
        }
        state.trial = None;
        let last_words = Vec::new();
        let undone = Undone { culprit, why, last_words, undone: Vec::new() };
        self.tell(number, MutationProgress::RolledBack(undone));
        state.leaving = Some((number, "keel".to_owned()));
        self.reboot().await;
    }

    async fn reboot(&self) {
        let (tell, told) = oneshot::channel();
        let _ = self.questions.send(Question::Shutdown(ShutdownKind::Reboot, tell)).await;
        let _ = told.await;
    }

    /// Writes a new edition of the book.
    async fn write(
        &self,
        state: &mut State,
        change: impl FnOnce(&Book) -> Book + Send + 'static,
    ) -> Result<(), Refusal> {
        self.with_store(state, move |store| {
            let book = change(store.book());
            store.commit(book).map_err(|error| {
                RefusalKind::NoStore(format!("the data partition cannot be written: {error}"))
                    .into()
            })
        })
        .await
    }

    async fn with_store<T: Send + 'static>(
        &self,
        state: &mut State,
        work: impl FnOnce(&mut Store<Folder>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let none = "there is no data partition, and nowhere to keep a config";
        let mut store = state.store.take().ok_or_else(|| RefusalKind::NoStore(none.to_owned()))?;
        let (store, done) = off_thread(move || {
            let done = work(&mut store);
            Ok((store, done))
        })
        .await?;
        state.store = Some(store);
        done
    }

    /// Waits until no config has its turn, or refuses to.
    async fn turn(&self, wait: bool) -> Result<MutexGuard<'_, State>, Refusal> {
        loop {
            let state = self.state.lock().await;
            let Some((generation, author)) = busy(&state) else { return Ok(state) };
            if !wait {
                return Err(RefusalKind::Busy { generation, author }.into());
            }
            let settled = self.settled.notified();
            drop(state);
            settled.await;
        }
    }

    /// Another config.
    pub(crate) async fn apply(&self, ask: Apply) -> Result<Answer, Refusal> {
        let bytes = ask.layers.iter().chain(&ask.secrets).map(|layer| layer.text.len()).sum();
        bounded(bytes, &ask.author, &ask.reason)?;
        let mut state = match ask.dry_run {
            true => self.state.lock().await,
            false => self.turn(ask.wait).await?,
        };
        self.go(&mut state, ask).await
    }

    /// An earlier config.
    pub(crate) async fn rollback(&self, ask: Rollback) -> Result<Answer, Refusal> {
        bounded(0, &ask.author, &ask.reason)?;
        let mut state = match ask.dry_run {
            true => self.state.lock().await,
            false => self.turn(ask.wait).await?,
        };
        let (name, text) = match ask.generation {
            Some(number) => (format!("config {number}"), self.text(&mut state, number).await?),
            None => {
                let book = state.store.as_ref().map(Store::book);
                match book.and_then(|book| book.good_before().next().map(|page| page.number)) {
                    Some(number) => {
                        (format!("config {number}"), self.text(&mut state, number).await?)
                    }
                    None => ("the image's config".to_owned(), self.image().await?),
                }
            }
        };
        let reason = match ask.reason.as_str() {
            "" => format!("back to {name}"),
            reason => format!("back to {name}: {reason}"),
        };
        let Rollback { dry_run, mode, timeout_ms, author, wait, over, .. } = ask;
        let layers = vec![Layer { name, text }];
        let (base, secrets, keep_secrets) = (None, None, false);
        let apply = Apply {
            layers,
            secrets,
            base,
            dry_run,
            mode,
            timeout_ms,
            author,
            reason,
            wait,
            over,
            keep_secrets,
        };
        self.go(&mut state, apply).await
    }

    async fn go(&self, state: &mut State, mut ask: Apply) -> Result<Answer, Refusal> {
        let Snapshot { graph, transaction, states } = self.snapshot().await?;
        let running = graph.digest().to_string();
        if let Some(asked) = ask.base.take().filter(|asked| *asked != running) {
            return Err(RefusalKind::OtherGraph { asked, running }.into());
        }
        let before = self.running(state).await?;
        let layers = std::mem::take(&mut ask.layers);
        let secrets = ask.secrets.take();
        let (arguments, keep) = (self.arguments.clone(), ask.keep_secrets);
        let was = before.clone();
        let down_before: Vec<String> = graph
            .ids()
            .filter(|id| matches!(states[id.index()], UnitState::Failed(_)))
            .map(|id| graph.unit(id).name.to_string())
            .collect();
        let read = off_thread(move || {
            let restore = |mut layer: Layer| {
                if keep {
                    layer.text = restored(&layer.text, &was, KEPT);
                }
                layer
            };
            let layers: Vec<Layer> = layers.into_iter().map(restore).collect();
            Ok(change::read(&arguments, &layers, secrets.as_ref()).and_then(|wanted| {
                let plan = change::plan(&graph, &transaction, &states, &wanted.boot)?;
                Ok((wanted.text, plan, wanted.boot.graph.digest().to_string()))
            }))
        });
        let (text, plan, digest) = match read.await? {
            Ok(read) => read,
            Err(findings) => return Ok(Answer::Invalid(findings)),
        };
        let planned = |fate, generation, from_seq| {
            Ok(Answer::Planned(Applied { plan: plan.plan.clone(), fate, generation, from_seq }))
        };
        let next = self.events.next();
        if ask.dry_run {
            return planned(Fate::DryRun, None, next);
        }
        let staged_before = state.store.as_ref().is_some_and(|it| it.book().pending.is_some());
        if text == before && !staged_before {
            let number = state.running.as_ref().map(|(number, _)| *number);
            return planned(Fate::Nothing, number, next);
        }
        if ask.mode == ApplyMode::NoReboot && plan.plan.needs_reboot {
            let units = plan.plan.changes.iter().take(64).cloned().collect();
            return Err(RefusalKind::NeedsReboot { units }.into());
        }
        let cuts = ask.over.is_some_and(|over| !over.is_loopback()) && plan.touches_links;
        let on_trial = ask.mode == ApplyMode::Try || (ask.mode == ApplyMode::Auto && cuts);
        let within = match ask.timeout_ms {
            0 => TRIAL,
            ms => Duration::from_millis(ms).min(LONGEST_TRIAL),
        };
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let wants = if on_trial { Wants::Word { within_ms } } else { Wants::Goal };
        let author = ask.author.clone();
        let (reason, kept) = (ask.reason.clone(), text.clone());
        let unchanged = plan.plan.changes.is_empty();
        let staged = ask.mode == ApplyMode::Staged;
        let number = self
            .with_store(state, move |store| {
                let number = store.book().last + 1;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let page = Page {
                    number,
                    digest,
                    text_sha256: store::sha256(kept.as_bytes()),
                    author,
                    reason,
                    at_ms: u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
                    fate: store::Fate::Staged,
                    note: None,
                };
                let pending = Pending { number, wants, tried: false, down_before };
                let mut book = store.book().with(page, pending);
                if unchanged && !staged {
                    // Nothing about the machine differs: there is nothing to try.
                    book = book.settled();
                }
                let full = |error| {
                    let what = format!("the data partition cannot be written: {error}");
                    Refusal::from(RefusalKind::NoStore(what))
                };
                store.keep(number, &kept).map_err(full)?;
                store.commit(book).map_err(full)?;
                Ok(number)
            })
            .await?;
        if staged {
            self.say(&format!("config {number} of {} is kept for the next boot", ask.author));
            return planned(Fate::Staged, Some(number), next);
        }
        if unchanged {
            state.running = Some((number, text));
            self.tell(number, MutationProgress::Reached);
            return planned(Fate::Begun, Some(number), next);
        }
        self.tell(number, MutationProgress::Began);
        self.tell(number, MutationProgress::Reboots);
        state.leaving = Some((number, ask.author));
        let questions = self.questions.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORD).await;
            let (tell, told) = oneshot::channel();
            let _ = questions.send(Question::Shutdown(ShutdownKind::Reboot, tell)).await;
            let _ = told.await;
        });
        planned(if on_trial { Fate::OnTrial } else { Fate::Begun }, Some(number), next)
    }

    /// The config on trial is well.
    pub(crate) async fn confirm(&self) -> Result<u64, Refusal> {
        let mut state = self.state.lock().await;
        let (number, _) = state.trial.ok_or(RefusalKind::NothingOnTrial)?;
        self.write(&mut state, Book::settled).await?;
        state.trial = None;
        self.tell(number, MutationProgress::Reached);
        self.settled.notify_waiters();
        Ok(number)
    }

    pub(crate) async fn history(&self) -> Result<History, Refusal> {
        let state = self.state.lock().await;
        let current = state.running.as_ref().map(|(number, _)| *number);
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
            generations: book.pages.iter().map(told).collect(),
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
                let number = state.running.as_ref().map(|(number, _)| *number);
                (number, self.running(&state).await?)
            }
        };
        Ok(ConfigText { generation, text: masked(&text, KEPT) })
    }

    async fn text(&self, state: &mut State, number: u64) -> Result<String, Refusal> {
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
    async fn running(&self, state: &State) -> Result<String, Refusal> {
        match &state.running {
            Some((_, text)) => Ok(text.clone()),
            None => self.image().await,
        }
    }

    /// The text of the image's own config.
    async fn image(&self) -> Result<String, Refusal> {
        let path = self.arguments.config.clone();
        off_thread(move || Ok(load::text(&path).unwrap_or_default())).await
    }

    async fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let (tell, answer) = oneshot::channel();
        let gone = || Refusal::from(RefusalKind::Stopping);
        self.questions.send(Question::Graph(tell)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    fn tell(&self, generation: u64, progress: MutationProgress) {
        self.say(&format!("config {generation} {progress}"));
        let at = crate::status::millis(self.started.elapsed());
        self.events.push(at, Happened::Mutation { generation, progress });
    }

    fn say(&self, text: &str) {
        self.screen.line(console::note(self.started.elapsed(), text));
    }
}

/// The config that has its turn, and who wants it.
fn busy(state: &State) -> Option<(u64, String)> {
    if state.leaving.is_some() {
        return state.leaving.clone();
    }
    let book = state.store.as_ref()?.book();
    let pending = book.pending.as_ref().filter(|pending| pending.tried)?;
    let author = book.page(pending.number).map(|page| page.author.clone());
    Some((pending.number, author.unwrap_or_default()))
}

/// Refuses what is longer than it may be.
fn bounded(bytes: usize, author: &str, reason: &str) -> Result<(), Refusal> {
    let too_long = |what: &str, most: usize| {
        RefusalKind::Impossible(format!("{what} is longer than {most} bytes")).into()
    };
    match () {
        () if bytes > MAX_CONFIG => Err(too_long("the config", MAX_CONFIG)),
        () if author.len() > MAX_REMARK => Err(too_long("the author", MAX_REMARK)),
        () if reason.len() > MAX_REMARK => Err(too_long("the reason", MAX_REMARK)),
        () => Ok(()),
    }
}

fn told(page: &Page) -> Generation {
    Generation {
        number: page.number,
        digest: page.digest.clone(),
        text_sha256: page.text_sha256.clone(),
        author: page.author.clone(),
        reason: page.reason.clone(),
        at_ms: page.at_ms,
        result: match page.fate {
            store::Fate::Staged => GenerationResult::Staged,
            store::Fate::UnderWay => GenerationResult::UnderWay,
            store::Fate::Good => GenerationResult::Good,
            store::Fate::Undone => GenerationResult::RolledBack,
        },
        note: page.note.clone(),
    }
}
