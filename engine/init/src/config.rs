//! The configs of a machine that runs: another one is read, planned, kept and tried, and it holds, or is undone.
//!
//! What takes time happens on threads of its own; the owner of the machine's state is asked for its graph and told to reboot, and nothing
//! else. One config has its turn at a time: who comes meanwhile waits or is refused, as he likes.

mod late;
mod look;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use keel_control::{
    Answer, Applied, Apply, ApplyMode, Decision, EventLog, Fate, Happened, KEPT, Layer,
    MutationProgress, Refusal, RefusalKind, Rollback, Undone,
};
use keel_host::file::Ledger;
use keel_plan::mutation::{Mutation, Side, mutation};
use keel_plan::{ShutdownKind, State as UnitState};
use keel_unit::config::restored;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc, oneshot};

use crate::arguments::Arguments;
use crate::boot::Boot;
use crate::change::{self, Plan};
use crate::choose;
use crate::console;
use crate::control::{Question, Snapshot, off_thread, to_its_end};
use crate::mutate::{Begun, MutationEnd};
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
    state: Arc<Mutex<State>>,
    /// Said whenever a config has had its turn.
    settled: Notify,
    /// What file units have made.
    ledger: Ledger,
}

/// What is known of them.
#[derive(Default)]
struct State {
    /// None without a data partition, or until it is there.
    store: Option<Store<Folder>>,
    running: Running,
    /// The config that waits for a word, and until when.
    trial: Option<(u64, Instant)>,
    /// The config that was taken on while the machine runs: nothing about it is learned from the end of a boot.
    live: Option<u64>,
    /// Where a config on trial came from, if the machine goes back there as it runs.
    way_back: Option<WayBack>,
    /// The machine goes down for a config.
    leaving: Option<(u64, String)>,
}

/// The config that runs.
#[derive(Debug, Clone, Default)]
pub(crate) enum Running {
    /// The image's own.
    #[default]
    Image,
    /// The image's, which lets in whom this machine's own lets in. All of it as one text.
    StandIn(String),
    /// This machine's own: its number and its text.
    Own(u64, String),
}

impl Running {
    /// The number that it is kept under, if it is.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Own(number, _) => Some(*number),
            Self::Image | Self::StandIn(_) => None,
        }
    }
}

/// The config before, and its graph.
struct WayBack {
    running: Running,
    side: Side,
}

/// A config that is being taken on.
struct Going {
    number: u64,
    text: String,
    wants: Wants,
    from: Side,
}

impl Configs {
    pub(crate) fn new(
        arguments: Arguments,
        questions: mpsc::Sender<Question>,
        events: Arc<EventLog>,
        screen: Screen,
        started: Instant,
        ledger: Ledger,
    ) -> Arc<Self> {
        let (state, settled) = (Arc::default(), Notify::new());
        Arc::new(Self { arguments, questions, events, screen, started, state, settled, ledger })
    }

    /// The data partition was looked at.
    pub(crate) async fn found(&self, store: Option<Store<Folder>>, running: Running) {
        let mut state = self.state.lock().await;
        state.store = store;
        state.running = running;
    }

    /// The boot is over. `down` are the units that should be up; `why` says what is wrong with the machine as a whole.
    pub(crate) async fn booted(self: Arc<Self>, down: Vec<String>, why: Option<String>) {
        let mut state = self.state.lock().await;
        let running = state.running.number();
        let Some(pending) = state.store.as_ref().and_then(|store| store.book().pending.clone())
        else {
            return;
        };
        if !pending.tried || Some(pending.number) != running || state.live == running {
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
            Ok(()) => {
                self.tell(number, MutationProgress::Reached);
                self.sweep().await;
            }
            Err(error) => self.say(&format!(
                "config {number} is good, but that cannot be noted, and the next boot will not have it: {error}"
            )),
        }
        state.trial = None;
        self.settled.notify_waiters();
    }

    /// The config does not hold: the machine goes back to the one before it.
    async fn undo(&self, state: &mut State, number: u64, culprit: Option<String>, why: String) {
        state.trial = None;
        if let Some(way_back) = state.way_back.take()
            && let Some(undone) = self.go_back(way_back.side).await
        {
            let note = why.clone();
            if let Err(error) = self.write(state, move |book| book.undone(&note)).await {
                self.say(&format!("that config {number} is undone cannot be noted: {error}"));
            }
            state.running = way_back.running;
            let last_words = Vec::new();
            let undone = Undone { culprit, why, last_words, undone };
            self.tell(number, MutationProgress::RolledBack(undone));
            self.settled.notify_waiters();
            return;
        }
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

    /// Goes back to this graph as the machine runs. What that took; nothing if it takes a reboot.
    async fn go_back(&self, to: Side) -> Option<Vec<String>> {
        let Snapshot { graph, transaction, states } = self.snapshot().await.ok()?;
        let side = to.clone();
        let planned = off_thread(move || {
            let (graph_to, way) = (&side.graph, &side.transaction);
            Ok(mutation(&graph, &transaction, graph_to, way, &states))
        });
        let mutation = planned.await.ok()?;
        let undone: Vec<_> =
            mutation.moves().map(|it| format!("{}: {}", it.unit, it.decision)).collect();
        let ended = self.begin(to, mutation).await.ok()?;
        matches!(ended.await, Ok(MutationEnd::Reached)).then_some(undone)
    }

    /// Has the owner take on another graph.
    async fn begin(&self, to: Side, mutation: Mutation) -> Begun {
        let (tell, told) = oneshot::channel();
        let gone = || Refusal::from(RefusalKind::Stopping);
        let question = Question::Mutate(Box::new((to, mutation)), tell);
        self.questions.send(question).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }

    /// A config that is being taken on, to its end.
    async fn see_through(self: Arc<Self>, going: Going, ended: oneshot::Receiver<MutationEnd>) {
        // Nobody tells: the machine goes down, and the next boot finds that the config had its turn.
        let Ok(ended) = ended.await else { return };
        let Going { number, text, wants, from } = going;
        let mut state = self.state.lock().await;
        let (undone, progress): (_, fn(Undone) -> MutationProgress) = match ended {
            MutationEnd::Reached => {
                let running = std::mem::replace(&mut state.running, Running::Own(number, text));
                match wants {
                    Wants::Goal => self.settle(&mut state, number).await,
                    Wants::Word { within_ms } => {
                        let within = Duration::from_millis(within_ms);
                        state.trial = Some((number, Instant::now() + within));
                        state.way_back = Some(WayBack { running, side: from });
                        self.tell(number, MutationProgress::Waits { ms: within_ms });
                        drop(state);
                        tokio::spawn(self.clone().expect_a_word(number, within));
                    }
                }
                return;
            }
            MutationEnd::RolledBack(undone) => (undone, MutationProgress::RolledBack),
            MutationEnd::Degraded(undone) => (undone, MutationProgress::Degraded),
        };
        let note = match &undone.culprit {
            Some(unit) => format!("{unit}: {}", undone.why),
            None => undone.why.clone(),
        };
        if let Err(error) = self.write(&mut state, move |book| book.undone(&note)).await {
            self.say(&format!("that config {number} is undone cannot be noted: {error}"));
        }
        self.tell(number, progress(undone));
        self.settled.notify_waiters();
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
        let store = state.store.take().ok_or_else(|| RefusalKind::NoStore(none.to_owned()))?;
        let (store, done) = lent(store, work).await;
        // A worker that ended in the middle of it has left the disk as a power cut would, and what is there is read again.
        state.store = match store {
            Some(store) => Some(store),
            None => off_thread(|| choose::store().map_err(unreadable)).await.ok(),
        };
        done
    }

    /// Waits until no config has its turn, or refuses to.
    async fn turn(&self, wait: bool) -> Result<OwnedMutexGuard<State>, Refusal> {
        loop {
            let state = self.state.clone().lock_owned().await;
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
    pub(crate) async fn apply(self: &Arc<Self>, ask: Apply) -> Result<Answer, Refusal> {
        let bytes = ask.layers.iter().chain(&ask.secrets).map(|layer| layer.text.len()).sum();
        change::bounded(bytes, &ask.author, &ask.reason)?;
        let mut state = self.state_for(ask.dry_run, ask.wait).await?;
        let configs = self.clone();
        to_its_end(async move { configs.go(&mut state, ask).await }).await
    }

    async fn state_for(
        &self,
        dry_run: bool,
        wait: bool,
    ) -> Result<OwnedMutexGuard<State>, Refusal> {
        match dry_run {
            true => Ok(self.state.clone().lock_owned().await),
            false => self.turn(wait).await,
        }
    }

    /// An earlier config.
    pub(crate) async fn rollback(self: &Arc<Self>, ask: Rollback) -> Result<Answer, Refusal> {
        change::bounded(0, &ask.author, &ask.reason)?;
        let mut state = self.state_for(ask.dry_run, ask.wait).await?;
        let configs = self.clone();
        to_its_end(async move { configs.go_back_to(&mut state, ask).await }).await
    }

    async fn go_back_to(
        self: &Arc<Self>,
        state: &mut State,
        ask: Rollback,
    ) -> Result<Answer, Refusal> {
        let (name, text) = match ask.generation {
            Some(number) => (format!("config {number}"), self.text(state, number).await?),
            None => {
                let book = state.store.as_ref().map(Store::book);
                match book.and_then(|book| book.good_before().next().map(|page| page.number)) {
                    Some(number) => (format!("config {number}"), self.text(state, number).await?),
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
        self.go(state, apply).await
    }

    async fn go(self: &Arc<Self>, state: &mut State, mut ask: Apply) -> Result<Answer, Refusal> {
        let Snapshot { graph, transaction, states } = self.snapshot().await?;
        let from = Side { graph: graph.clone(), transaction: transaction.clone() };
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
                let Boot { graph, transaction } = wanted.boot;
                Ok((wanted.text, plan, Side { graph: Arc::new(graph), transaction }))
            }))
        });
        let (text, plan, to) = match read.await? {
            Ok(read) => read,
            Err(findings) => return Ok(Answer::Invalid(findings)),
        };
        let digest = to.graph.digest().to_string();
        let Plan { plan, mutation, may_cut } = plan;
        let planned = |fate, generation, from_seq| {
            Ok(Answer::Planned(Applied { plan: plan.clone(), fate, generation, from_seq }))
        };
        let next = self.events.next();
        if ask.dry_run {
            return planned(Fate::DryRun, None, next);
        }
        let staged_before = state.store.as_ref().is_some_and(|it| it.book().pending.is_some());
        if text == before && !staged_before {
            return planned(Fate::Nothing, state.running.number(), next);
        }
        if ask.mode == ApplyMode::NoReboot && plan.needs_reboot {
            let needs = plan.changes.iter().filter(|it| it.decision == Decision::NeedsReboot);
            let units = needs.take(64).cloned().collect();
            return Err(RefusalKind::NeedsReboot { units }.into());
        }
        let cuts = ask.over.is_some_and(|over| !over.is_loopback()) && may_cut;
        let on_trial = ask.mode == ApplyMode::Try || (ask.mode != ApplyMode::Staged && cuts);
        let within = match ask.timeout_ms {
            0 => TRIAL,
            ms => Duration::from_millis(ms).min(LONGEST_TRIAL),
        };
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let wants = if on_trial { Wants::Word { within_ms } } else { Wants::Goal };
        let author = ask.author.clone();
        let (reason, kept) = (ask.reason.clone(), text.clone());
        let unchanged = plan.base == plan.target;
        let staged = ask.mode == ApplyMode::Staged;
        let live = !plan.needs_reboot && !unchanged && !staged;
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
                if live {
                    // From here on it has its turn: a boot that finds it has not seen it hold.
                    book = book.tried();
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
            state.running = Running::Own(number, text);
            self.tell(number, MutationProgress::Reached);
            return planned(Fate::Begun, Some(number), next);
        }
        self.tell(number, MutationProgress::Began);
        if live {
            let ended = match self.begin(to, mutation).await {
                Ok(ended) => ended,
                Err(refusal) => {
                    let note = refusal.to_string();
                    self.write(state, move |book| book.undone(&note)).await?;
                    self.settled.notify_waiters();
                    return Err(refusal);
                }
            };
            state.live = Some(number);
            let going = Going { number, text, wants, from };
            tokio::spawn(self.clone().see_through(going, ended));
            return planned(if on_trial { Fate::OnTrial } else { Fate::Begun }, Some(number), next);
        }
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

fn unreadable(error: std::io::Error) -> Refusal {
    RefusalKind::NoStore(format!("the data partition cannot be read: {error}")).into()
}

/// Has a thread of its own work with a store. The store is gone if that work ends in a panic.
async fn lent<S: Send + 'static, T: Send + 'static>(
    mut store: S,
    work: impl FnOnce(&mut S) -> Result<T, Refusal> + Send + 'static,
) -> (Option<S>, Result<T, Refusal>) {
    let worked = off_thread(move || {
        let done = work(&mut store);
        Ok((store, done))
    });
    match worked.await {
        Ok((store, done)) => (Some(store), done),
        Err(refusal) => (None, Err(refusal)),
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
