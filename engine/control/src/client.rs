//! The side of the agent: connects, asks, reads the answer.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::config::{Answer, Apply, ConfigText, History, Rollback};
use crate::event_log::Batch;
use crate::frame::{self, FrameError};
use crate::inventory::Inventory;
use crate::journal::{BootRecord, LogBatch, LogQuery};
use crate::message::{
    Greeting, Hello, MAGIC, Refusal, Reply, Request, Shutdown, Status, UnitList, VERSION,
};
use crate::operation::{ControlUnit, Reset, ResetPlan, UnitDetail, UnitPlan};

/// How long init may take to answer. It decides on one thread, but does nothing slow there.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to init.
///
/// Connecting costs microseconds, so a caller that loses one makes another; nothing is kept between them.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
    path: PathBuf,
}

/// A call to init that failed.
#[derive(Debug)]
pub struct ControlError {
    /// The socket.
    pub path: PathBuf,
    /// What went wrong.
    pub kind: ControlErrorKind,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot talk to init at {}: {}", self.path.display(), self.kind)
    }
}

impl Error for ControlError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The kind is already in our own text; what lies below it is the source.
        self.kind.source()
    }
}

/// What went wrong with a call to init.
#[derive(Debug, thiserror::Error)]
pub enum ControlErrorKind {
    /// Nobody listens there, or we may not connect.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The other side is not init.
    #[error("the other side does not speak this protocol")]
    Stranger,
    /// Init speaks another version; it and the agent come from two images.
    #[error("init is {software} and speaks version {theirs}, not {VERSION}")]
    Version {
        /// Its version of the protocol.
        theirs: u16,
        /// Its name and version.
        software: String,
    },
    /// Init has as many connections as it allows.
    #[error("init has no room for another connection")]
    NoRoom,
    /// Init took too long.
    #[error("init did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// Init hung up.
    #[error("init closed the connection")]
    Closed,
    /// Init answered something else.
    #[error("init's answer does not belong to the request")]
    Unexpected,
    /// A frame was broken.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Init will not do it, and says why.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Control {
    /// Connects, and agrees on the version.
    ///
    /// # Errors
    ///
    /// Nobody listens, has room, or speaks this protocol.
    pub async fn connect(path: &Path) -> Result<Self, ControlError> {
        let error = |kind| ControlError { path: path.to_owned(), kind };
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| error(ControlErrorKind::Connect(source)))?;
        let mut control = Self { stream, path: path.to_owned() };
        control.shake_hands().await.map_err(error)?;
        Ok(control)
    }

    /// Whether init has neither said anything unasked nor hung up: the next request may go this way.
    pub fn is_quiet(&self) -> bool {
        let word = self.stream.try_read(&mut [0]);
        word.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn shake_hands(&mut self) -> Result<(), ControlErrorKind> {
        let greeting: Greeting = self.receive().await?;
        match greeting {
            Greeting { magic, .. } if magic != MAGIC => Err(ControlErrorKind::Stranger),
            Greeting { version, software, .. } if version != VERSION => {
                Err(ControlErrorKind::Version { theirs: version, software })
            }
            Greeting { room: false, .. } => Err(ControlErrorKind::NoRoom),
            Greeting { .. } => {
                let hello = Hello { magic: MAGIC, version: VERSION, software: crate::software() };
                Ok(frame::write(&mut self.stream, &hello).await?)
            }
        }
    }

    /// Asks how the machine is.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn status(&mut self) -> Result<Status, ControlError> {
        let reply = self.ask(&Request::Status).await;
        reply
            .and_then(|reply| match reply {
                Reply::Status(status) => Ok(*status),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Asks for every unit.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn units(&mut self) -> Result<UnitList, ControlError> {
        self.collect_units().await.map_err(|kind| self.error(kind))
    }

    /// Asks what the machine is made of.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn inventory(&mut self) -> Result<Inventory, ControlError> {
        let reply = self.ask(&Request::Inventory).await;
        reply
            .and_then(|reply| match reply {
                Reply::Inventory(inventory) => Ok(*inventory),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Asks for the boot that runs, as it would be recorded now.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn boot(&mut self) -> Result<BootRecord, ControlError> {
        let reply = self.ask(&Request::Boot).await;
        reply
            .and_then(|reply| match reply {
                Reply::Boot(boot) => Ok(boot),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Asks for the trace of the boot that runs, as JSON.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn trace(&mut self) -> Result<Vec<u8>, ControlError> {
        self.collect_trace().await.map_err(|kind| self.error(kind))
    }

    async fn collect_trace(&mut self) -> Result<Vec<u8>, ControlErrorKind> {
        let mut reply = self.ask(&Request::Trace).await?;
        let mut all = Vec::new();
        loop {
            let Reply::Trace { piece, more } = reply else {
                return Err(ControlErrorKind::Unexpected);
            };
            all.extend(piece);
            if !more {
                return Ok(all);
            }
            reply = self.answer().await?;
        }
    }

    /// Reads lines that units wrote.
    ///
    /// # Errors
    ///
    /// Init is gone.
    pub async fn read_logs(mut self, query: LogQuery) -> Result<LogStream, ControlError> {
        match self.send(&Request::ReadLogs(query)).await {
            Ok(()) => Ok(LogStream { control: self }),
            Err(kind) => Err(self.error(kind)),
        }
    }

    /// Asks for the running graph, as the JSON that `osctl graph render --format json` prints.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn export_graph(&mut self) -> Result<Vec<u8>, ControlError> {
        self.collect_graph().await.map_err(|kind| self.error(kind))
    }

    async fn collect_graph(&mut self) -> Result<Vec<u8>, ControlErrorKind> {
        let mut reply = self.ask(&Request::ExportGraph).await?;
        let mut graph = Vec::new();
        loop {
            let Reply::Graph { piece, more } = reply else {
                return Err(ControlErrorKind::Unexpected);
            };
            graph.extend(piece);
            if !more {
                return Ok(graph);
            }
            reply = self.answer().await?;
        }
    }

    /// Asks all that there is to say of one unit.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or has no such unit.
    pub async fn unit(&mut self, name: String) -> Result<UnitDetail, ControlError> {
        let reply = self.ask(&Request::Unit(name)).await;
        reply
            .and_then(|reply| match reply {
                Reply::Unit(detail) => Ok(*detail),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Starts, stops or restarts a unit, or asks what that would do.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn control_unit(&mut self, ask: ControlUnit) -> Result<UnitPlan, ControlError> {
        let reply = self.ask(&Request::ControlUnit(ask)).await;
        reply
            .and_then(|reply| match reply {
                Reply::Planned(plan) => Ok(plan),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Asks what a shutdown would stop, in that order.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or the machine goes down already.
    pub async fn rehearse_shutdown(&mut self) -> Result<Vec<String>, ControlError> {
        let reply = self.ask(&Request::RehearseShutdown).await;
        reply
            .and_then(|reply| match reply {
                Reply::Stops(stops) => Ok(stops),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Wipes the machine's data and reboots it, or asks what would go.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn reset(&mut self, ask: Reset) -> Result<ResetPlan, ControlError> {
        let reply = self.ask(&Request::Reset(ask)).await;
        reply
            .and_then(|reply| match reply {
                Reply::Reset(plan) => Ok(plan),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Gives the machine another config, or asks what that would do. How it goes is told by events.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn apply(&mut self, ask: Apply) -> Result<Answer, ControlError> {
        let waits = ask.wait;
        self.applied(&Request::Apply(ask), waits).await.map_err(|kind| self.error(kind))
    }

    /// Gives the machine an earlier config, or asks what that would do.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn rollback(&mut self, ask: Rollback) -> Result<Answer, ControlError> {
        let waits = ask.wait;
        self.applied(&Request::Rollback(ask), waits).await.map_err(|kind| self.error(kind))
    }

    async fn applied(
        &mut self,
        request: &Request,
        waits: bool,
    ) -> Result<Answer, ControlErrorKind> {
        self.send(request).await?;
        // Who waits for another change waits as long as that takes; the kernel tells when init is gone.
        let reply = match waits {
            true => frame::read(&mut self.stream).await?.ok_or(ControlErrorKind::Closed)?,
            false => self.receive().await?,
        };
        match reply {
            Reply::Applied(answer) => Ok(*answer),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => Err(ControlErrorKind::Unexpected),
        }
    }

    /// Says that the config on trial is well. Gives its number.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or no config is on trial.
    pub async fn confirm(&mut self) -> Result<u64, ControlError> {
        let reply = self.ask(&Request::Confirm).await;
        reply
            .and_then(|reply| match reply {
                Reply::Confirmed(generation) => Ok(generation),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Says that the config on trial, if it is that one, is not well, and why: it is undone.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or no such config is on trial.
    pub async fn undo(&mut self, generation: u64, why: String) -> Result<(), ControlError> {
        let reply = self.ask(&Request::Undo { generation, why }).await;
        reply
            .and_then(|reply| match reply {
                Reply::Undone => Ok(()),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Asks for the configs that the machine remembers.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn history(&mut self) -> Result<History, ControlError> {
        let reply = self.ask(&Request::History).await;
        reply
            .and_then(|reply| match reply {
                Reply::History(history) => Ok(*history),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    /// Asks for the text of the running config, or of an earlier one, without its secrets.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or has no such config.
    pub async fn config(&mut self, generation: Option<u64>) -> Result<ConfigText, ControlError> {
        let reply = self.ask(&Request::GetConfig(generation)).await;
        reply
            .and_then(|reply| match reply {
                Reply::Config(config) => Ok(config),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    async fn collect_units(&mut self) -> Result<UnitList, ControlErrorKind> {
        let mut reply = self.ask(&Request::ListUnits).await?;
        let mut all = Vec::new();
        loop {
            let Reply::Units { now_ms, units, more } = reply else {
                return Err(ControlErrorKind::Unexpected);
            };
            all.extend(units);
            if !more {
                return Ok(UnitList { now_ms, units: all });
            }
            reply = self.answer().await?;
        }
    }

    /// Reads events from number `from_seq` on. With `follow` it goes on as they happen; without, it ends with the newest.
    ///
    /// # Errors
    ///
    /// Init is gone.
    pub async fn watch(mut self, from_seq: u64, follow: bool) -> Result<Watch, ControlError> {
        let request = Request::WatchEvents { from_seq, follow };
        match self.send(&request).await {
            Ok(()) => Ok(Watch { control: self, next: from_seq.max(1) }),
            Err(kind) => Err(self.error(kind)),
        }
    }

    /// Takes the machine down. Returns when init has decided to, before anything stops.
    ///
    /// # Errors
    ///
    /// Init is gone, silent, or refuses.
    pub async fn shutdown(&mut self, how: Shutdown) -> Result<(), ControlError> {
        let reply = self.ask(&Request::Shutdown(how)).await;
        reply
            .and_then(|reply| match reply {
                Reply::ShuttingDown => Ok(()),
                _ => Err(ControlErrorKind::Unexpected),
            })
            .map_err(|kind| self.error(kind))
    }

    async fn ask(&mut self, request: &Request) -> Result<Reply, ControlErrorKind> {
        self.send(request).await?;
        self.answer().await
    }

    async fn send(&mut self, request: &Request) -> Result<(), ControlErrorKind> {
        let sent = timeout(PATIENCE, frame::write(&mut self.stream, request)).await;
        Ok(sent.map_err(|_| ControlErrorKind::Silent)??)
    }

    async fn answer(&mut self) -> Result<Reply, ControlErrorKind> {
        match self.receive().await? {
            Reply::Refused(refusal) => Err(refusal.into()),
            reply => Ok(reply),
        }
    }

    async fn receive<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, ControlErrorKind> {
        let received = timeout(PATIENCE, frame::read(&mut self.stream)).await;
        received.map_err(|_| ControlErrorKind::Silent)??.ok_or(ControlErrorKind::Closed)
    }

    fn error(&self, kind: ControlErrorKind) -> ControlError {
        ControlError { path: self.path.clone(), kind }
    }
}

/// A stream of events.
#[derive(Debug)]
pub struct Watch {
    control: Control,
    next: u64,
}

impl Watch {
    /// The next events; `None` after the newest, if the watch does not follow. Waits as long as nothing happens.
    ///
    /// Not to be cancelled and called again: half a frame would be lost.
    ///
    /// # Errors
    ///
    /// Init is gone, or does not have such events.
    pub async fn next(&mut self) -> Result<Option<Batch>, ControlError> {
        self.receive().await.map_err(|kind| self.control.error(kind))
    }

    async fn receive(&mut self) -> Result<Option<Batch>, ControlErrorKind> {
        // No timeout: silence means that nothing happens, and the kernel tells when init is gone.
        match frame::read(&mut self.control.stream).await?.ok_or(ControlErrorKind::Closed)? {
            Reply::Events { dropped, events } => {
                self.next = events.last().map_or(self.next, |event| event.seq + 1);
                Ok(Some(Batch { dropped, events, next: self.next }))
            }
            Reply::EventsEnd => Ok(None),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => Err(ControlErrorKind::Unexpected),
        }
    }
}

/// A stream of lines that units wrote.
#[derive(Debug)]
pub struct LogStream {
    control: Control,
}

impl LogStream {
    /// The next lines; `None` after the newest, if the stream does not follow. Waits as long as nobody writes.
    ///
    /// Not to be cancelled and called again: half a frame would be lost.
    ///
    /// # Errors
    ///
    /// Init is gone, or does not have such lines.
    pub async fn next(&mut self) -> Result<Option<LogBatch>, ControlError> {
        self.receive().await.map_err(|kind| self.control.error(kind))
    }

    async fn receive(&mut self) -> Result<Option<LogBatch>, ControlErrorKind> {
        // No timeout, as for events.
        match frame::read(&mut self.control.stream).await?.ok_or(ControlErrorKind::Closed)? {
            Reply::Logs { now_ms, dropped, lines, next } => {
                Ok(Some(LogBatch { now_ms, dropped, lines, next }))
            }
            Reply::LogsEnd => Ok(None),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => Err(ControlErrorKind::Unexpected),
        }
    }
}
