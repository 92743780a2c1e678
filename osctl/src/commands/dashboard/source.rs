//! The dashboard's questions on their way to the node: each by itself, so that one that takes long holds no other up.

use std::sync::Arc;

use keel_proto::v1::{
    ControlUnitRequest, GetStatusRequest, GetUnitRequest, ListProcessesRequest, ListUnitsRequest,
    ReadLogsRequest, WatchEventsRequest,
};
use tokio::sync::{Mutex, mpsc};
use tonic::{Code, Status};

use super::model::{Answer, Message, Question};
use crate::error::Failure;
use crate::node::target::Target;
use crate::node::{Connection, open};

/// The most lines of a log that are asked for at once.
const LINES: u32 = 200;

/// Asks one node, and reconnects where the connection is gone.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    target: Option<Target>,
    connection: Arc<Mutex<Option<Connection>>>,
    answers: mpsc::Sender<Message>,
}

/// Why a question came to nothing.
struct Failed {
    why: String,
    anew: bool,
    gone: bool,
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let gone = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        Self { why: status.message().to_owned(), anew: status.code() == Code::OutOfRange, gone }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let lines = failure.lines();
        let lines = lines.iter().filter(|(label, _)| *label != "next");
        let lines = lines.map(|(_, line)| line.lines().next().unwrap_or_default());
        Self { why: lines.collect::<Vec<_>>().join(": "), anew: false, gone: true }
    }
}

impl Source {
    /// Begins with a connection that is there already; without a target it is the only one.
    pub(crate) fn new(
        target: Option<Target>,
        connection: Connection,
        answers: mpsc::Sender<Message>,
    ) -> Self {
        Self { target, connection: Arc::new(Mutex::new(Some(connection))), answers }
    }

    /// Puts a question; the answer comes as a message.
    pub(crate) fn ask(&self, question: Question) {
        let source = self.clone();
        tokio::spawn(async move {
            let feed = question.feed();
            let message = match source.answer(question).await {
                Ok(answer) => Message::Answered(answer),
                Err(Failed { why, anew, gone }) => {
                    if gone && source.target.is_some() {
                        *source.connection.lock().await = None;
                    }
                    Message::Failed { feed, why, anew }
                }
            };
            source.tell(message).await;
        });
    }

    async fn tell(&self, message: Message) {
        // The dashboard has been closed.
        let _: Result<(), _> = self.answers.send(message).await;
    }

    /// The connection; whoever comes first makes it, and the others wait for that.
    async fn connection(&self) -> Result<Connection, Failed> {
        let mut place = self.connection.lock().await;
        match (&*place, &self.target) {
            (Some(connection), _) => Ok(connection.clone()),
            (None, Some(target)) => {
                let (connection, _) = open(target).await?;
                *place = Some(connection.clone());
                Ok(connection)
            }
            (None, None) => {
                Err(Failed { why: "the connection is gone".to_owned(), anew: false, gone: false })
            }
        }
    }

    async fn answer(&self, question: Question) -> Result<Answer, Failed> {
        let connection = self.connection().await?;
        Ok(match question {
            Question::Status => {
                let answer = connection.node().get_status(GetStatusRequest {}).await?.into_inner();
                Answer::Status(Box::new(answer.status.unwrap_or_default()))
            }
            Question::Units => {
                Answer::Units(connection.node().list_units(ListUnitsRequest {}).await?.into_inner())
            }
            Question::Processes => {
                let request = ListProcessesRequest::default();
                Answer::Processes(
                    connection.node().list_processes(request).await?.into_inner().units,
                )
            }
            Question::Unit { unit } => {
                let answer = connection.node().get_unit(GetUnitRequest { unit }).await?;
                Answer::Unit(Box::new(answer.into_inner()))
            }
            Question::Logs { unit, from } => {
                let request = ReadLogsRequest {
                    units: vec![unit.clone()],
                    tail: LINES,
                    from_seq: from,
                    ..ReadLogsRequest::default()
                };
                let mut stream = connection.journal().read_logs(request).await?.into_inner();
                let mut lines = Vec::new();
                while let Some(batch) = stream.message().await? {
                    lines.extend(batch.lines);
                    let over = lines.len().saturating_sub(LINES as usize);
                    lines.drain(..over);
                }
                Answer::Logs { unit, lines }
            }
            Question::Control { unit, verb, digest } => {
                let request = ControlUnitRequest {
                    unit: unit.clone(),
                    verb: verb.into(),
                    dry_run: digest.is_none(),
                    digest: digest.clone().unwrap_or_default(),
                };
                let answer = connection.operation().control_unit(request).await?.into_inner();
                Answer::Control { unit, verb, answer, done: digest.is_some() }
            }
            Question::Events { from } => {
                let request =
                    WatchEventsRequest { from_seq: from, follow: true, ..Default::default() };
                let mut stream = connection.node().watch_events(request).await?.into_inner();
                while let Some(batch) = stream.message().await? {
                    let after = batch.events.last().map_or(0, |event| event.seq + 1);
                    let next = batch.next_seq.max(after);
                    let answer = Answer::Events { events: batch.events, next };
                    self.tell(Message::Answered(answer)).await;
                }
                let why = "the stream of events has ended".to_owned();
                return Err(Failed { why, anew: false, gone: false });
            }
        })
    }
}
