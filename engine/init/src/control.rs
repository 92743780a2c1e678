//! Answers keel-agent, over keel-control. Connections live in tasks of their own; what they want to know is asked of the one owner of
//! the state, and this is how.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keel_control::{
    Answer, Apply, BootRecord, ConfigText, ConnectionError, ControlUnit, EventLog, History,
    Inventory, Limits, LogQuery, LogSource, Refusal, RefusalKind, Reset, ResetPlan, Rollback,
    Service, Shutdown, Status, UnitDetail, UnitList, UnitPlan, bind, serve,
};
use keel_host::disk::inventory::Roots;
use keel_host::disk::wipe::{self, Condemned};
use keel_host::inventory::Inventories;
use keel_plan::export::Export;
use keel_plan::mutation::{Mutation, Side};
use keel_plan::{BootGraph, ShutdownKind, State, Trace, Transaction};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use crate::config::Configs;
use crate::logs::Logs;
use crate::mutate::Begun;
use crate::operate::Data;
use crate::screen::Screen;
use crate::{inventory, losses, recorder};

/// A question to the owner of the state.
pub(crate) enum Question {
    Status(oneshot::Sender<Status>),
    Units(oneshot::Sender<UnitList>),
    Shutdown(ShutdownKind, oneshot::Sender<Result<(), Refusal>>),
    Boot(oneshot::Sender<BootRecord>),
    Trace(oneshot::Sender<Trace>),
    Graph(oneshot::Sender<Snapshot>),
    Unit(String, oneshot::Sender<Result<UnitDetail, Refusal>>),
    ControlUnit(ControlUnit, oneshot::Sender<Result<UnitPlan, Refusal>>),
    /// Takes on another graph.
    Mutate(Box<(Side, Mutation)>, oneshot::Sender<Begun>),
    RehearseShutdown(oneshot::Sender<Result<Vec<String>, Refusal>>),
    Data(oneshot::Sender<Result<Data, Refusal>>),
    Reset(Condemned, oneshot::Sender<Result<(), Refusal>>),
}

/// The graph and how its units stand at one moment.
pub(crate) struct Snapshot {
    pub(crate) graph: Arc<BootGraph>,
    pub(crate) transaction: Arc<Transaction>,
    pub(crate) states: Vec<State>,
}

/// Questions that wait for the owner. He answers each in microseconds.
const WAITING: usize = 64;

/// How long an inventory may take: less than keel-agent waits for any answer.
const LOOK: Duration = Duration::from_secs(5);

/// How long the disk may take that a reset would wipe: what lies on it is measured, which takes four seconds at most.
const DISK: Duration = Duration::from_secs(7);

/// The asking end.
pub(crate) struct Answers {
    questions: mpsc::Sender<Question>,
    inventories: Inventories,
    /// What takes a thread and some time, one at a time: PID 1 is not there to compute.
    slow: Mutex<()>,
    /// Whoever looks at the disk that a reset would wipe. It may never answer, and must hold up nobody else.
    disk: Arc<Semaphore>,
    events: Arc<EventLog>,
    logs: Logs,
    configs: Arc<Configs>,
    screen: Screen,
}

/// The two ends: one answers connections, the other is the owner's.
pub(crate) fn channel(
    events: Arc<EventLog>,
    logs: Logs,
    configs: impl FnOnce(mpsc::Sender<Question>) -> Arc<Configs>,
    screen: Screen,
) -> (Arc<Answers>, mpsc::Receiver<Question>) {
    let (questions, asked) = mpsc::channel(WAITING);
    let inventories = Inventories::new(Roots::default());
    let slow = Mutex::default();
    let disk = Arc::new(Semaphore::new(1));
    let configs = configs(questions.clone());
    (Arc::new(Answers { questions, inventories, slow, disk, events, logs, configs, screen }), asked)
}

impl Answers {
    /// Serves connections from now on.
    pub(crate) fn listen(self: Arc<Self>, path: &Path) -> std::io::Result<()> {
        let listener = bind(path)?;
        tokio::spawn(serve(listener, self, Limits::default()));
        Ok(())
    }

    /// The configs of this machine.
    pub(crate) fn configs(&self) -> &Arc<Configs> {
        &self.configs
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, Refusal> {
        let (tell, answer) = oneshot::channel();
        // Nobody there to answer means that the machine is at its end.
        let gone = || Refusal::from(RefusalKind::Stopping);
        self.questions.send(question(tell)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Service for Answers {
    async fn status(&self) -> Result<Status, Refusal> {
        self.ask(Question::Status).await
    }

    async fn units(&self) -> Result<UnitList, Refusal> {
        self.ask(Question::Units).await
    }

    /// The hardware is no state of the owner, and he is not asked.
    async fn inventory(&self) -> Result<Inventory, Refusal> {
        Ok(inventory::told(self.inventories.take(LOOK).await))
    }

    fn events(&self) -> &EventLog {
        &self.events
    }

    /// Lines are no state of the owner either: units write into buffers of their own.
    fn logs(&self, query: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
        self.logs.read(query)
    }

    async fn boot(&self) -> Result<BootRecord, Refusal> {
        self.ask(Question::Boot).await
    }

    async fn trace(&self) -> Result<Vec<u8>, Refusal> {
        Ok(recorder::trace_json(self.ask(Question::Trace).await?).into_bytes())
    }

    async fn shutdown(&self, how: Shutdown) -> Result<(), Refusal> {
        let kind = match how {
            Shutdown::Reboot => ShutdownKind::Reboot,
            Shutdown::PowerOff => ShutdownKind::PowerOff,
            Shutdown::Halt => ShutdownKind::Halt,
        };
        self.ask(|tell| Question::Shutdown(kind, tell)).await?
    }

    async fn export_graph(&self) -> Result<Vec<u8>, Refusal> {
        let _turn = self.slow.lock().await;
        let Snapshot { graph, transaction, states } = self.ask(Question::Graph).await?;
        off_thread(move || {
            let mut export = Export::new(&graph, &transaction);
            for (unit, state) in export.units.iter_mut().zip(states) {
                unit.state = Some(state.to_string());
            }
            serde_json::to_vec(&export)
                .map_err(|error| RefusalKind::Internal(error.to_string()).into())
        })
        .await
    }

    async fn unit(&self, name: String) -> Result<UnitDetail, Refusal> {
        self.ask(|tell| Question::Unit(name, tell)).await?
    }

    async fn control_unit(&self, ask: ControlUnit) -> Result<UnitPlan, Refusal> {
        self.ask(|tell| Question::ControlUnit(ask, tell)).await?
    }

    async fn rehearse_shutdown(&self) -> Result<Vec<String>, Refusal> {
        self.ask(Question::RehearseShutdown).await?
    }

    async fn reset(&self, ask: Reset) -> Result<ResetPlan, Refusal> {
        let Data { stops, label, target, machine_id, roots } = self.ask(Question::Data).await??;
        let confirm = ask.confirm.filter(|_| !ask.dry_run);
        let confirmed = confirm.is_some() && confirm == machine_id;
        if !ask.dry_run && !confirmed {
            return Err(RefusalKind::Unconfirmed.into());
        }
        let found = at_the_disk(&self.disk, DISK, move || {
            let condemned = wipe::condemn(&label, &roots).map_err(|error| {
                RefusalKind::Impossible(format!("there is nothing to wipe: {error}"))
            })?;
            let losses = losses::losses(&condemned, &target);
            Ok((condemned, losses))
        });
        let (condemned, losses) = found.await?;
        if !ask.dry_run {
            self.ask(|tell| Question::Reset(condemned, tell)).await??;
        }
        Ok(ResetPlan { stops, losses })
    }

    async fn apply(&self, ask: Apply) -> Result<Answer, Refusal> {
        self.configs.apply(ask).await
    }

    async fn rollback(&self, ask: Rollback) -> Result<Answer, Refusal> {
        self.configs.rollback(ask).await
    }

    async fn confirm(&self) -> Result<u64, Refusal> {
        self.configs.confirm().await
    }

    async fn undo(&self, generation: u64, why: String) -> Result<(), Refusal> {
        self.configs.undo_trial(generation, why).await
    }

    async fn history(&self) -> Result<History, Refusal> {
        self.configs.history().await
    }

    async fn config(&self, generation: Option<u64>) -> Result<ConfigText, Refusal> {
        self.configs.config(generation).await
    }

    fn connection_failed(&self, error: &ConnectionError) {
        self.screen.line(error.to_string());
    }
}

/// Looks at a disk that may never answer: for a bounded time, and one at a time. A thread that is left behind keeps the turn until the disk
/// lets go of it, so that there is never a second.
async fn at_the_disk<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    patience: Duration,
    look: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let no = |why: &str| Refusal::from(RefusalKind::Impossible(why.to_owned()));
    let turn = turns.clone().try_acquire_owned();
    let turn = turn.map_err(|_| no("somebody looks at the disk already, or it does not answer"))?;
    let looked = off_thread(move || {
        let _turn = turn;
        look()
    });
    let looked = tokio::time::timeout(patience, looked).await;
    looked.unwrap_or_else(|_| Err(no("the disk does not answer")))
}

/// Does what must not be left half done, whether or not whoever asked for it stays.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(RefusalKind::Internal(error.to_string()).into()))
}

/// Does what takes time on a thread of its own.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(RefusalKind::Internal(error.to_string()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_holds_up_nobody_else() {
        let disk = Arc::new(Semaphore::new(1));
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let hangs = move || {
            let _ = held.recv();
            Ok(())
        };
        let why = |looked: Result<(), Refusal>| looked.unwrap_err().to_string();
        let patience = Duration::from_millis(20);
        let gone = at_the_disk(&disk, patience, hangs).await;
        assert!(why(gone).contains("the disk does not answer"));
        // No second thread is left behind, whatever the patience.
        let again = at_the_disk(&disk, Duration::from_secs(60), || Ok(())).await;
        assert!(why(again).contains("somebody looks at the disk already"));
        drop(let_go);
        let turn = tokio::time::timeout(Duration::from_secs(60), disk.acquire()).await;
        drop(turn.unwrap().unwrap());
        at_the_disk(&disk, Duration::from_secs(60), || Ok(())).await.unwrap();
    }
}
