//! The one owner of the machine's state: takes events one at a time, asks the scheduler, and sees to what it says.

mod found;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keel_control::{EventLog, GoalState, Happened, Refusal, RefusalKind, SOCKET};
use keel_exec::{Executor, Happening};
use keel_host::disk::wipe::Condemned;
use keel_host::file::Ledger;
use keel_host::machine::{Machine, Places};
use keel_host::module::Options;
use keel_host::process::Reaper;
use keel_plan::mutation::Heard;
use keel_plan::{
    Blame, BootGraph, MOST_SPANS, Outcome, REPORT, SPAN, Shortfall, ShutdownKind, State,
    Transaction, Transition, UnitId, Why,
};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::arguments::Arguments;
use crate::boot::Boot;
use crate::choose::{self, Looked};
use crate::config::{Configs, Running};
use crate::console::{self, Line, Summary, Verdict};
use crate::control::{self, Answers, Question, Snapshot};
use crate::held::Held;
use crate::logs::Logs;
use crate::mutate::Mutating;
use crate::recorder::Recorder;
use crate::screen::Screen;
use crate::store::{Folder, Store};
use crate::{about, operate, record, rootfs, status};

/// How many lines of its output a failed unit is shown with.
pub(crate) const LAST_WORDS: usize = 8;

/// How many events an operator can read back: a boot of 500 units, several times over.
const EVENTS: usize = 4096;

/// How long the end of the boot waits for the key's fingerprint. Only a disk that does not answer takes it.
const FINGERPRINT_PATIENCE: Duration = Duration::from_secs(1);

/// How long the machine waits to learn which config it has. A filesystem whose check takes longer must not keep it unreachable; and no unit
/// that waits meanwhile has a shorter deadline in what ships.
const GATE_PATIENCE: Duration = Duration::from_secs(12);

/// After so many things that happened, others have a turn: whoever asks, and what is to start.
const HEARD: u64 = 8;

/// What a run begins with.
#[derive(Default)]
pub(crate) struct Beginning {
    /// The config that runs, where that is known; else it is found out.
    pub(crate) known: Option<Known>,
    /// Units that are up already.
    pub(crate) adopted: HashSet<String>,
    /// What file units have made.
    pub(crate) ledger: Ledger,
}

/// The config that runs, and where all of them are.
pub(crate) struct Known {
    pub(crate) store: Option<Store<Folder>>,
    pub(crate) running: Running,
}

/// How a run ends.
pub(crate) enum End {
    /// Everything is down.
    Down(ShutdownKind, Option<Condemned>),
    /// The machine has a config of its own, and another run begins with that.
    Switch(Box<(Boot, Beginning)>),
}

/// A machine from its first unit to its last.
pub(crate) struct Run {
    pub(crate) graph: Arc<BootGraph>,
    pub(crate) transaction: Arc<Transaction>,
    pub(crate) executor: Executor<Held>,
    pub(crate) goal_state: GoalState,
    /// How the boot went, once it is over.
    pub(crate) summary: Option<Summary>,
    /// The partition that is wiped once everything is down.
    condemned: Option<Condemned>,
    /// The boot's id.
    pub(crate) id: String,
    /// How the machine goes down, once that is decided.
    pub(crate) ending: Option<ShutdownKind>,
    pub(crate) recorder: Recorder,
    recorder_says: UnboundedReceiver<String>,
    /// When the newest record was wanted, and when one is that had to wait for it.
    pub(crate) recorded: Option<Instant>,
    pub(crate) record_due: Option<Instant>,
    /// When the newest activation of each unit began.
    pub(crate) began: HashMap<UnitId, Duration>,
    /// Another graph that is being taken on.
    pub(crate) mutating: Option<Mutating>,
    pub(crate) logs: Logs,
    questions: Receiver<Question>,
    /// Until /run is there, nobody can ask.
    answers: Option<Arc<Answers>>,
    events: Arc<EventLog>,
    configs: Arc<Configs>,
    /// Until it is known which config this machine has, most of it waits; this lets it go on.
    gate: watch::Sender<bool>,
    /// The configs were looked for, or are known.
    looked: bool,
    looks: (UnboundedSender<Looked>, UnboundedReceiver<Looked>),
    arguments: Arguments,
    screen: Screen,
    ledger: Ledger,
}

impl Run {
    /// Nothing has begun yet. Times are counted from `started`, when init itself began.
    pub(crate) fn new(
        boot: Boot,
        beginning: Beginning,
        arguments: Arguments,
        reaper: Reaper,
        screen: Screen,
        started: Instant,
    ) -> Self {
        let Boot { graph, transaction } = boot;
        let Beginning { known, adopted, ledger } = beginning;
        let looked = known.is_some();
        let free = match looked {
            true => None,
            false => choose::way_to_the_store(&graph),
        };
        let adopted = adopted.iter().filter_map(|name| graph.find(name)).collect();
        let units = graph.ids().map(|id| graph.unit(id).clone()).collect();
        let modules = rootfs::command_line().map(|line| Options::from_command_line(&line));
        let modules = modules.unwrap_or_default();
        let places = Places { modules, files: ledger.clone(), ..Places::default() };
        let machine = Machine::new(units, places, reaper);
        let events = Arc::new(EventLog::new(EVENTS));
        let journal = machine.journal().clone();
        let names = graph.ids().map(|id| graph.unit(id).name.to_string()).collect();
        let logs = Logs::new(journal.clone(), started, names);
        let configs = |questions| {
            let (events, screen) = (events.clone(), screen.clone());
            Configs::new(arguments.clone(), questions, events, screen, started, ledger.clone())
        };
        let (answers, questions) =
            control::channel(events.clone(), logs.clone(), configs, screen.clone());
        let configs = answers.configs().clone();
        if let Some(Known { store, running }) = known {
            let configs = configs.clone();
            tokio::spawn(async move { configs.found(store, running).await });
        }
        let (gate, opened) = watch::channel(free.is_none());
        let (recorder, recorder_says) = Recorder::start(journal, started);
        machine.before_unmount(recorder.storage().to_owned(), recorder.last_words());
        let machine = Held::new(machine, free, opened, adopted);
        Self {
            executor: Executor::new(transaction.clone(), machine, about::seed(), started.into()),
            graph: Arc::new(graph),
            transaction,
            goal_state: GoalState::Booting,
            summary: None,
            condemned: None,
            id: about::boot_id(rootfs::is_machine()),
            ending: None,
            recorder,
            recorder_says,
            recorded: None,
            record_due: None,
            began: HashMap::new(),
            mutating: None,
            logs,
            questions,
            answers: Some(answers),
            events,
            configs,
            gate,
            looked,
            looks: unbounded_channel(),
            arguments,
            screen,
            ledger,
        }
    }

    /// The same machine, in an emergency from the start.
    pub(crate) fn in_emergency(mut self, why: &str) -> Self {
        self.goal(GoalState::Emergency, Some(why.to_owned()));
        self
    }

    /// Runs the machine until everything is down, or until its own config takes over from the image's.
    pub(crate) async fn until_down(
        mut self,
        requests: &mut UnboundedReceiver<ShutdownKind>,
    ) -> End {
        let patience = Instant::now() + GATE_PATIENCE;
        let mut heard = 0_u64;
        loop {
            // Timers live no longer than somebody waits for them: at rest none is set.
            let patience = Some(patience).filter(|_| !*self.gate.borrow());
            let record_due = self.record_due;
            tokio::select! {
                happening = self.executor.next() => match happening {
                    Happening::Down(kind) => {
                        self.last_words();
                        return End::Down(kind, self.condemned);
                    }
                    happening => {
                        self.hear(happening).await;
                        heard += 1;
                        if heard.is_multiple_of(HEARD) {
                            tokio::task::yield_now().await;
                        }
                    }
                },
                Some(looked) = self.looks.1.recv() => {
                    if let Some(other) = self.found(looked) {
                        return End::Switch(Box::new(other));
                    }
                }
                () = at(patience) => {
                    self.go_on(Some("the data partition takes long: going on with the image's config"));
                }
                () = at(record_due) => self.record(),
                Some(text) = self.recorder_says.recv() => self.fact(None, text),
                Some(question) = self.questions.recv() => self.answer(question),
                Some(kind) = requests.recv() => self.shut_down(kind),
            }
        }
    }

    /// Time since init began.
    pub(crate) fn now(&self) -> Duration {
        self.executor.now()
    }

    async fn hear(&mut self, happening: Happening) {
        let sentence = |why: &Why| why.describe(&self.transaction).to_string();
        match happening {
            Happening::Transition(transition) => {
                self.announce(&transition);
                self.mutation_hears(Heard::Transition(&transition));
            }
            Happening::Cleared { stuck } => self.mutation_hears(Heard::Cleared(&stuck)),
            Happening::Fact { unit, text } => {
                // What has to wait for a disk, or to make a partition, finds no config on it.
                if matches!(self.graph.unit(unit).kind, keel_unit::Kind::Partition(_)) {
                    self.go_on(None);
                }
                self.fact(Some(unit), text);
            }
            Happening::Refused { job, why } => self.fact(Some(job.unit), why.to_string()),
            Happening::Emergency { unit, why } => {
                let why = format!("{}: {}", self.name(unit), sentence(&why));
                self.goal(GoalState::Emergency, Some(why));
            }
            Happening::Reboot { unit, why } => {
                let text = format!("rebooting, as its failure policy says: {}", sentence(&why));
                self.fact(Some(unit), text);
                self.going_down(ShutdownKind::Reboot);
            }
            Happening::Finished(outcome) => {
                match self.summary {
                    None => self.finish(&outcome).await,
                    Some(_) => self.stands(&outcome),
                }
                self.mutation_hears(Heard::Finished);
            }
            // The loop has seen to it.
            Happening::Down(_) => {}
        }
    }

    fn announce(&mut self, transition: &Transition) {
        let unit = transition.unit;
        let began = self.began(transition);
        if let Some(line) = Line::of(transition, began, &self.transaction) {
            let failed = line.verdict == Verdict::Failed;
            self.screen.line(line.render(self.screen.colour()));
            if failed && let Some(log) = self.executor.host().log(unit) {
                log.tail(LAST_WORDS)
                    .iter()
                    .for_each(|line| self.screen.line(format!("{:>12}| {}", "", line.text)));
            }
        }
        let why = transition.why.describe(&self.transaction).to_string();
        self.events.push(
            status::millis(transition.at),
            Happened::Transition {
                unit: self.name(unit),
                from: status::unit_state(transition.from),
                to: status::unit_state(transition.to),
                why: Some(why),
            },
        );
        self.remember(transition);
        if transition.to == State::Activating || self.answers.is_none() {
            return;
        }
        self.listen_when_possible();
    }

    /// Everything may begin.
    fn go_on(&mut self, why: Option<&str>) {
        let waited = self.gate.send_if_modified(|open| !std::mem::replace(open, true));
        if let (true, Some(why)) = (waited, why) {
            self.fact(None, why.to_owned());
        }
        self.listen_when_possible();
    }

    /// A failure is worth a record, and so is what could not be recorded before there was storage.
    fn remember(&mut self, transition: &Transition) {
        match transition.to {
            State::Failed(blame) => {
                if blame == Blame::Own {
                    self.record_soon();
                }
                if self.executor.host().mount_at(self.recorder.storage()) == Some(transition.unit) {
                    self.go_on(Some("without the data partition it is the image's config"));
                }
            }
            State::Active(_) => {
                let storage = self.executor.host().mount_at(self.recorder.storage());
                if storage == Some(transition.unit) {
                    self.recorder.storage_is_there();
                    self.look();
                }
            }
            State::Skipped | State::Inactive
                if self.executor.host().mount_at(self.recorder.storage())
                    == Some(transition.unit) =>
            {
                self.go_on(None);
            }
            _ => {}
        }
    }

    /// When the activation that this change is about began.
    fn began(&mut self, transition: &Transition) -> Option<Duration> {
        let began = self.began.entry(transition.unit).or_insert(transition.at);
        if transition.to == State::Activating {
            *began = transition.at;
        }
        let lasted =
            matches!(transition.from, State::Activating | State::Active(_) | State::Deactivating);
        lasted.then_some(*began)
    }

    /// Opens the control socket as soon as /run is there to hold it.
    fn listen_when_possible(&mut self) {
        let socket = Path::new(SOCKET);
        // While it is not known which config this machine has, another run may take over from this one.
        let mounted = *self.gate.borrow()
            && socket.parent().and_then(Path::parent).is_some_and(rootfs::is_mount);
        if let Some(answers) = self.answers.take_if(|_| mounted)
            && let Err(error) = answers.listen(socket)
        {
            self.fact(None, format!("{SOCKET}: {error}; keel-agent cannot ask"));
        }
    }

    fn answer(&mut self, question: Question) {
        // A caller that has hung up needs no answer.
        match question {
            Question::Status(tell) => drop(tell.send(status::status(self))),
            Question::Units(tell) => drop(tell.send(status::units(self))),
            Question::Boot(tell) => drop(tell.send(record::boot(self))),
            Question::Trace(tell) => drop(tell.send(record::trace(self))),
            Question::Shutdown(kind, tell) => {
                drop(tell.send(self.goes_on()));
                self.shut_down(kind);
            }
            Question::Graph(tell) => drop(tell.send(self.snapshot())),
            Question::Unit(name, tell) => drop(tell.send(operate::unit(self, &name))),
            Question::ControlUnit(ask, tell) => {
                drop(tell.send(operate::control_unit(self, &ask)));
            }
            Question::Mutate(change, tell) => {
                let (side, mutation) = *change;
                drop(tell.send(self.mutate(side, mutation)));
            }
            Question::RehearseShutdown(tell) => drop(tell.send(operate::stops(self))),
            Question::Data(tell) => drop(tell.send(operate::data(self))),
            Question::Reset(condemned, tell) => {
                let answer = self.goes_on();
                if answer.is_ok() {
                    self.fact(None, format!("resetting: {} will be wiped", condemned.label));
                    self.condemned = Some(condemned);
                }
                drop(tell.send(answer));
                self.shut_down(ShutdownKind::Reboot);
            }
        }
    }

    /// Whether the machine is not on its way down already.
    fn goes_on(&self) -> Result<(), Refusal> {
        if self.is_stopping() { Err(RefusalKind::Stopping.into()) } else { Ok(()) }
    }

    /// Whether it is known which config this machine has: before that, another run may take over.
    pub(crate) fn knows_its_config(&self) -> bool {
        *self.gate.borrow()
    }

    /// Whether the machine goes down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.goal_state == GoalState::Stopping
    }

    /// The graph, and how its units stand.
    fn snapshot(&self) -> Snapshot {
        let scheduler = self.executor.scheduler();
        Snapshot {
            graph: self.graph.clone(),
            transaction: self.transaction.clone(),
            states: self.graph.ids().map(|id| scheduler.state(id)).collect(),
        }
    }

    fn shut_down(&mut self, kind: ShutdownKind) {
        if !self.is_stopping() {
            self.going_down(kind);
            self.executor.shut_down(kind);
        }
    }

    fn going_down(&mut self, kind: ShutdownKind) {
        self.goal(GoalState::Stopping, None);
        self.ending = Some(kind);
        self.record();
        self.executor.host().going_down();
    }

    /// What is not on a disk by now is lost, and the console is where that is read.
    fn last_words(&self) {
        if self.recorder.had_no_storage() {
            let storage = self.recorder.storage().display();
            let text = format!("there is no record of this boot: nothing was mounted at {storage}");
            self.screen.line(console::note(self.now(), &text));
        }
    }

    /// The boot is over, one way or another.
    async fn finish(&mut self, outcome: &Outcome) {
        if self.goal_state == GoalState::Stopping {
            return;
        }
        let fingerprint = about::fingerprint(FINGERPRINT_PATIENCE).await;
        let summary = self.summarise(outcome, fingerprint);
        for line in summary.render(self.screen.colour()) {
            self.screen.line(line);
        }
        if self.arguments.report {
            self.show_spans();
            self.screen.line(format!("{REPORT}{}", summary.json()));
        }
        let state = summary.state();
        let down = outcome.degraded.iter().map(|shortfall| self.name(shortfall.unit)).collect();
        let why = match (self.goal_state, outcome.reached) {
            (GoalState::Emergency, _) => Some("the machine is in an emergency".to_owned()),
            (_, false) => Some("the goal was not reached".to_owned()),
            (_, true) => None,
        };
        tokio::spawn(self.configs.clone().booted(down, why));
        self.summary = Some(summary);
        self.goal(state, None);
        self.record();
        // Texts, graphs and plans that only the boot needed.
        keel_host::memory::give_back();
    }

    /// How each unit came up, one line each, ahead of the report: what `osctl boot` makes a trace of.
    fn show_spans(&self) {
        for span in record::units(self).take(MOST_SPANS) {
            self.screen.line(format!("{SPAN}{}", span.json()));
        }
    }

    fn summarise(&self, outcome: &Outcome, fingerprint: Option<String>) -> Summary {
        let emergency = self.goal_state == GoalState::Emergency;
        let path = self.executor.timeline().critical_path(self.transaction.goal());
        let stretches =
            path.stretches.iter().map(|stretch| (self.name(stretch.unit), stretch.took()));
        let addresses = about::links().into_iter().flat_map(|link| {
            let name = link.name;
            link.addresses
                .into_iter()
                .map(move |address| (name.clone(), format!("{}/{}", address.ip, address.prefix)))
        });
        Summary {
            goal: self.name(self.transaction.goal()),
            reached: outcome.reached && !emergency,
            emergency,
            total: path.total,
            path: stretches.collect(),
            path_length: path.length,
            speedup: path.speedup(),
            side_by_side: path.side_by_side,
            kernel: about::since_kernel().and_then(|since| since.checked_sub(self.now())),
            processors: about::processors(),
            release: about::kernel(),
            degraded: outcome.degraded.iter().map(|shortfall| self.degraded(shortfall)).collect(),
            digest: self.graph.digest().to_string(),
            hostname: about::hostname(),
            machine_id: about::machine_id(),
            addresses: addresses.collect(),
            fingerprint,
        }
    }

    /// A unit that is not up, and why, for people.
    pub(crate) fn degraded(&self, shortfall: &Shortfall) -> (String, String) {
        (self.name(shortfall.unit), shortfall.why.describe(&self.transaction).to_string())
    }

    pub(crate) fn name(&self, unit: UnitId) -> String {
        self.transaction.spec(unit).name.to_string()
    }

    pub(crate) fn fact(&self, unit: Option<UnitId>, text: String) {
        let unit = unit.map(|unit| self.name(unit));
        self.screen.line(match &unit {
            Some(unit) => Line {
                at: self.now(),
                verdict: Verdict::Note,
                unit: unit.clone(),
                took: None,
                why: text.clone(),
            }
            .render(self.screen.colour()),
            None => console::note(self.now(), &text),
        });
        self.events.push(status::millis(self.now()), Happened::Fact { unit, text });
    }

    pub(crate) fn goal(&mut self, state: GoalState, why: Option<String>) {
        self.goal_state = state;
        if let (GoalState::Emergency, Some(why)) = (state, &why) {
            self.screen.line(format!("EMERGENCY: {why}"));
        }
        self.events.push(status::millis(self.now()), Happened::Goal { state, why });
    }
}

/// Waits until then; for ever without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
