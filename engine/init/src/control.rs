//! Answers keel-agent, over keel-control. Connections live in tasks of their own; what they want to know is asked of the one owner of
//! the state, and this is how.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keel_control::{
    BootRecord, ConnectionError, EventLog, Inventory, Limits, LogQuery, LogSource, Refusal,
    RefusalKind, Service, Shutdown, Status, UnitList, bind, serve,
};
use keel_host::disk::inventory::Roots;
use keel_host::inventory::Inventories;
use keel_plan::{ShutdownKind, Trace};
use tokio::sync::{mpsc, oneshot};

use crate::logs::Logs;
use crate::screen::Screen;
use crate::{inventory, recorder};

/// A question to the owner of the state.
pub(crate) enum Question {
    Status(oneshot::Sender<Status>),
    Units(oneshot::Sender<UnitList>),
    Shutdown(ShutdownKind, oneshot::Sender<Result<(), Refusal>>),
    Boot(oneshot::Sender<BootRecord>),
    Trace(oneshot::Sender<Trace>),
}

/// Questions that wait for the owner. He answers each in microseconds.
const WAITING: usize = 64;

/// How long an inventory may take: less than keel-agent waits for any answer.
const LOOK: Duration = Duration::from_secs(5);

/// The asking end.
pub(crate) struct Answers {
    questions: mpsc::Sender<Question>,
    inventories: Inventories,
    events: Arc<EventLog>,
    logs: Logs,
    screen: Screen,
}

/// The two ends: one answers connections, the other is the owner's.
pub(crate) fn channel(
    events: Arc<EventLog>,
    logs: Logs,
    screen: Screen,
) -> (Arc<Answers>, mpsc::Receiver<Question>) {
    let (questions, asked) = mpsc::channel(WAITING);
    let inventories = Inventories::new(Roots::default());
    (Arc::new(Answers { questions, inventories, events, logs, screen }), asked)
}

impl Answers {
    /// Serves connections from now on.
    pub(crate) fn listen(self: Arc<Self>, path: &Path) -> std::io::Result<()> {
        let listener = bind(path)?;
        tokio::spawn(serve(listener, self, Limits::default()));
        Ok(())
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

    fn connection_failed(&self, error: &ConnectionError) {
        self.screen.line(error.to_string());
    }
}
