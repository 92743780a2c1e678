//! The side of init: accepts, checks who calls, and answers from a [`Service`].

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Answer, Apply, ConfigText, History, Rollback};
use crate::event_log::EventLog;
use crate::frame::{self, FrameError, FrameErrorKind, MAX_FRAME};
use crate::inventory::Inventory;
use crate::journal::{BootRecord, LogBatch, LogQuery, LogSource};
use crate::message::{
    Greeting, Hello, MAGIC, Refusal, RefusalKind, Reply, Request, Shutdown, Status, Unit, UnitList,
    VERSION,
};
use crate::operation::{ControlUnit, Reset, ResetPlan, UnitDetail, UnitPlan};

/// What init answers with. Every call runs in a connection's own tokio task, so an implementation passes it on to the one
/// owner of the state and awaits its answer.
pub trait Service: Send + Sync + 'static {
    /// The machine as a whole.
    fn status(&self) -> impl Future<Output = Result<Status, Refusal>> + Send;

    /// Every unit.
    fn units(&self) -> impl Future<Output = Result<UnitList, Refusal>> + Send;

    /// What the machine is made of. It may take seconds, but not as long as a client waits.
    fn inventory(&self) -> impl Future<Output = Result<Inventory, Refusal>> + Send;

    /// Where events are read from.
    fn events(&self) -> &EventLog;

    /// Where the lines that units wrote are read from.
    ///
    /// # Errors
    ///
    /// There are no such lines.
    fn logs(&self, query: &LogQuery) -> Result<Box<dyn LogSource>, Refusal>;

    /// The boot that runs, as it would be recorded now.
    fn boot(&self) -> impl Future<Output = Result<BootRecord, Refusal>> + Send;

    /// The trace of the boot that runs, as JSON.
    fn trace(&self) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send;

    /// Takes the machine down. Returns as soon as that is decided: the caller still gets an answer.
    fn shutdown(&self, how: Shutdown) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The running graph, as the JSON that `osctl graph render --format json` prints.
    fn export_graph(&self) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// All that there is to say of one unit.
    fn unit(&self, _name: String) -> impl Future<Output = Result<UnitDetail, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// Starts, stops or restarts a unit, or says what that would do.
    fn control_unit(
        &self,
        _ask: ControlUnit,
    ) -> impl Future<Output = Result<UnitPlan, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// What a shutdown would stop, in that order.
    fn rehearse_shutdown(&self) -> impl Future<Output = Result<Vec<String>, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// Wipes the machine's data and reboots it, or says what would go. It may take seconds, but not as long as a client waits.
    fn reset(&self, _ask: Reset) -> impl Future<Output = Result<ResetPlan, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// Gives the machine another config, or says what that would do. It returns once that is decided and on the disk; who waits for
    /// another change may wait for long.
    fn apply(&self, _ask: Apply) -> impl Future<Output = Result<Answer, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// Gives the machine an earlier config, or says what that would do.
    fn rollback(&self, _ask: Rollback) -> impl Future<Output = Result<Answer, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// The config on trial is well. Gives its number.
    fn confirm(&self) -> impl Future<Output = Result<u64, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// The config on trial, if it is that one, is not well.
    fn undo(
        &self,
        _generation: u64,
        _why: String,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// The configs that the machine remembers.
    fn history(&self) -> impl Future<Output = Result<History, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// The text of a config, without its secrets.
    fn config(
        &self,
        _generation: Option<u64>,
    ) -> impl Future<Output = Result<ConfigText, Refusal>> + Send {
        async { Err(not_here()) }
    }

    /// A connection was refused or broke off; init's log is the place for it.
    fn connection_failed(&self, error: &ConnectionError);
}

/// What a service that is made for something else says.
fn not_here() -> Refusal {
    RefusalKind::Impossible("this machine does not do that".to_owned()).into()
}

/// How much a server puts up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The only user that may connect.
    pub uid: u32,
    /// Connections at one time; beyond them a caller is told that there is no room.
    pub connections: usize,
    /// How long a peer may take to say hello, to end a request that it has begun, or to take a frame that is written to it.
    pub patience: Duration,
    /// How long a peer may say nothing between two requests; then the connection ends, and nothing was wrong with it.
    pub idle: Duration,
}

impl Default for Limits {
    /// Root alone, and more places than keel-agent ever takes.
    fn default() -> Self {
        Self {
            uid: 0,
            connections: 64,
            patience: Duration::from_secs(5),
            idle: Duration::from_secs(60),
        }
    }
}

/// Why a connection was refused or given up.
#[derive(Debug)]
pub struct ConnectionError {
    /// The peer's process, where the kernel tells it.
    pub pid: Option<i32>,
    /// What went wrong.
    pub kind: ConnectionErrorKind,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "control connection from pid {pid}: {}", self.kind),
            None => write!(f, "control connection: {}", self.kind),
        }
    }
}

impl Error for ConnectionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The kind is already in our own text; what lies below it is the source.
        self.kind.source()
    }
}

/// What went wrong on a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionErrorKind {
    /// The kernel would not give us a connection.
    #[error("cannot accept")]
    Accept(#[source] io::Error),
    /// The kernel would not say who the peer is.
    #[error("cannot learn who it is")]
    Credentials(#[source] io::Error),
    /// The peer is not the user that may connect.
    #[error("user {uid} may not connect")]
    User {
        /// Who it is.
        uid: u32,
    },
    /// All places are taken.
    #[error("no room, {connections} connections are open")]
    NoRoom {
        /// How many places there are.
        connections: usize,
    },
    /// The peer does not speak this protocol.
    #[error("it does not speak this protocol")]
    Stranger,
    /// The peer speaks another version.
    #[error("it speaks version {theirs}, not {VERSION}")]
    Version {
        /// Its version.
        theirs: u16,
    },
    /// The peer was silent, or did not read what it asked for.
    #[error("it was given up while {0}")]
    Slow(&'static str),
    /// The peer spoke while it was following.
    #[error("it spoke out of turn")]
    OutOfTurn,
    /// A frame was broken.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Makes the socket, for root alone, and its folder if need be.
///
/// A socket file that an earlier init left behind is replaced; anything else in its place is an error.
///
/// # Errors
///
/// Whatever the kernel says.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until it is dropped, and with it every connection. No peer and no error ends it.
pub async fn serve<S: Service>(
    listener: UnixListener,
    service: Arc<S>,
    limits: Limits,
) -> Infallible {
    /// Out of file descriptors or memory: trying again at once would only burn time that PID 1 has better uses for.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                // Those that are over give their places back first.
                while open.try_join_next().is_some() {}
                let admitted = admit(stream, open.len(), limits);
                let service = service.clone();
                match admitted {
                    Ok((stream, pid)) => {
                        open.spawn(async move {
                            if let Err(kind) = converse(stream, &*service, limits).await {
                                service.connection_failed(&ConnectionError { pid, kind });
                            }
                        });
                    }
                    Err(error) => service.connection_failed(&error),
                }
            }
            Err(source) => {
                let kind = ConnectionErrorKind::Accept(source);
                service.connection_failed(&ConnectionError { pid: None, kind });
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Decides whether a new connection is let in. Nothing here waits for the peer.
fn admit(
    stream: UnixStream,
    open: usize,
    limits: Limits,
) -> Result<(UnixStream, Option<i32>), ConnectionError> {
    let peer = stream.peer_cred().map_err(|source| ConnectionError {
        pid: None,
        kind: ConnectionErrorKind::Credentials(source),
    })?;
    let refused = |kind| ConnectionError { pid: peer.pid(), kind };
    if peer.uid() != limits.uid {
        return Err(refused(ConnectionErrorKind::User { uid: peer.uid() }));
    }
    if open >= limits.connections {
        let sorry = frame::encode(&greeting(false)).map_err(|error| refused(error.into()))?;
        // The socket's buffer is empty, so this fits or the peer is gone already; it is refused in either case.
        let _: io::Result<usize> = stream.try_write(&sorry);
        return Err(refused(ConnectionErrorKind::NoRoom { connections: limits.connections }));
    }
    Ok((stream, peer.pid()))
}

fn greeting(room: bool) -> Greeting {
    Greeting { magic: MAGIC, version: VERSION, software: crate::software(), room }
}

async fn converse<S: Service>(
    mut stream: UnixStream,
    service: &S,
    limits: Limits,
) -> Result<(), ConnectionErrorKind> {
    let (mut reader, writer) = stream.split();
    let mut writer = Writer { writer, patience: limits.patience };
    writer.write(&greeting(true)).await?;
    let hello = timeout(limits.patience, frame::read::<Hello>(&mut reader))
        .await
        .map_err(|_| ConnectionErrorKind::Slow("waiting for its hello"))??;
    match hello {
        // Whoever looks and leaves (a health check) does no harm.
        None => return Ok(()),
        Some(hello) if hello.magic != MAGIC => return Err(ConnectionErrorKind::Stranger),
        Some(hello) if hello.version != VERSION => {
            return Err(ConnectionErrorKind::Version { theirs: hello.version });
        }
        Some(_) => {}
    }
    loop {
        // Who has nothing to ask may keep the line for a while; nothing is wrong when that is over.
        let mut first = [0];
        let begun = match timeout(limits.idle, reader.read(&mut first)).await {
            Err(_) | Ok(Ok(0)) => return Ok(()),
            Ok(begun) => begun.map_err(unreadable)?,
        };
        let mut request = first[..begun].chain(&mut reader);
        let request = timeout(limits.patience, frame::read::<Request>(&mut request))
            .await
            .map_err(|_| ConnectionErrorKind::Slow("waiting for the rest of a request"))??;
        match request {
            None => return Ok(()),
            Some(Request::Status) => {
                writer
                    .answer(service.status().await.map(|status| Reply::Status(Box::new(status))))
                    .await?
            }
            Some(Request::ListUnits) => match service.units().await {
                Ok(list) => writer.units(list).await?,
                Err(refusal) => writer.answer(Err(refusal)).await?,
            },
            Some(Request::Inventory) => {
                let inventory = service.inventory().await.map(Box::new);
                writer.answer(inventory.map(Reply::Inventory)).await?;
            }
            Some(Request::ExportGraph) => match service.export_graph().await {
                Ok(graph) => writer.graph(&graph).await?,
                Err(refusal) => writer.answer(Err(refusal)).await?,
            },
            Some(Request::Unit(name)) => {
                writer.answer(service.unit(name).await.map(Box::new).map(Reply::Unit)).await?;
            }
            Some(Request::ControlUnit(ask)) => {
                writer.answer(service.control_unit(ask).await.map(Reply::Planned)).await?;
            }
            Some(Request::RehearseShutdown) => {
                writer.answer(service.rehearse_shutdown().await.map(Reply::Stops)).await?;
            }
            // Who asks and leaves must not have a machine wiped, or keep those who ask next from a disk.
            Some(Request::Reset(ask)) => tokio::select! {
                plan = service.reset(ask) => writer.answer(plan.map(Reply::Reset)).await?,
                gone = hung_up(&mut reader) => return gone,
            },
            Some(Request::Apply(ask)) => tokio::select! {
                answer = service.apply(ask) => {
                    writer.answer(answer.map(Box::new).map(Reply::Applied)).await?;
                }
                gone = hung_up(&mut reader) => return gone,
            },
            Some(Request::Rollback(ask)) => tokio::select! {
                answer = service.rollback(ask) => {
                    writer.answer(answer.map(Box::new).map(Reply::Applied)).await?;
                }
                gone = hung_up(&mut reader) => return gone,
            },
            Some(Request::Confirm) => {
                writer.answer(service.confirm().await.map(Reply::Confirmed)).await?;
            }
            Some(Request::Undo { generation, why }) => {
                let undone = service.undo(generation, why).await;
                writer.answer(undone.map(|()| Reply::Undone)).await?;
            }
            Some(Request::History) => {
                writer.answer(service.history().await.map(Box::new).map(Reply::History)).await?;
            }
            Some(Request::GetConfig(generation)) => {
                writer.answer(service.config(generation).await.map(Reply::Config)).await?;
            }
            Some(Request::WatchEvents { from_seq, follow }) => {
                tokio::select! {
                    done = writer.events(service.events(), from_seq, follow) => done?,
                    gone = hung_up(&mut reader) => return gone,
                }
            }
            Some(Request::ReadLogs(query)) => match service.logs(&query) {
                Ok(source) => tokio::select! {
                    done = writer.logs(source, query.follow) => done?,
                    gone = hung_up(&mut reader) => return gone,
                },
                Err(refusal) => writer.answer(Err(refusal)).await?,
            },
            Some(Request::Boot) => writer.answer(service.boot().await.map(Reply::Boot)).await?,
            Some(Request::Trace) => match service.trace().await {
                Ok(trace) => writer.trace(&trace).await?,
                Err(refusal) => writer.answer(Err(refusal)).await?,
            },
            Some(Request::Shutdown(how)) => {
                writer.answer(service.shutdown(how).await.map(|()| Reply::ShuttingDown)).await?;
            }
        }
    }
}

/// Waits until the peer hangs up. Whoever follows has nothing to say.
async fn hung_up(reader: &mut (impl AsyncRead + Unpin)) -> Result<(), ConnectionErrorKind> {
    match reader.read(&mut [0]).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(ConnectionErrorKind::OutOfTurn),
        Err(source) => Err(unreadable(source)),
    }
}

fn unreadable(source: io::Error) -> ConnectionErrorKind {
    FrameError { verb: "read", kind: FrameErrorKind::Io(source) }.into()
}

/// Writes replies, each within the peer's time.
struct Writer<W> {
    writer: W,
    patience: Duration,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn write(&mut self, message: &impl serde::Serialize) -> Result<(), ConnectionErrorKind> {
        timeout(self.patience, frame::write(&mut self.writer, message))
            .await
            .map_err(|_| ConnectionErrorKind::Slow("writing to it"))?
            .map_err(ConnectionErrorKind::from)
    }

    /// Writes a reply, or why there is none.
    async fn answer(&mut self, reply: Result<Reply, Refusal>) -> Result<(), ConnectionErrorKind> {
        let reply = reply.unwrap_or_else(Reply::Refused);
        match self.write(&reply).await {
            Err(ConnectionErrorKind::Frame(FrameError {
                kind: FrameErrorKind::Oversize { .. },
                ..
            })) => self.write(&Reply::Refused(RefusalKind::TooLarge.into())).await,
            done => done,
        }
    }

    /// Writes a list of units in as many frames as it takes.
    async fn units(&mut self, list: UnitList) -> Result<(), ConnectionErrorKind> {
        let UnitList { now_ms, units } = list;
        let mut parts = into_parts(units).into_iter().peekable();
        while let Some(units) = parts.next() {
            let more = parts.peek().is_some();
            self.answer(Ok(Reply::Units { now_ms, units, more })).await?;
        }
        Ok(())
    }

    /// Writes a graph in as many frames as it takes; an empty one is an answer too.
    async fn graph(&mut self, graph: &[u8]) -> Result<(), ConnectionErrorKind> {
        let mut rest = graph;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(MAX_FRAME / 2));
            let more = !after.is_empty();
            self.answer(Ok(Reply::Graph { piece: piece.to_vec(), more })).await?;
            if !more {
                return Ok(());
            }
            rest = after;
        }
    }

    async fn events(
        &mut self,
        log: &EventLog,
        mut from: u64,
        follow: bool,
    ) -> Result<(), ConnectionErrorKind> {
        loop {
            let batch = if follow { log.after(from).await } else { log.read(from) };
            match batch {
                Ok(batch) if batch.events.is_empty() => return self.write(&Reply::EventsEnd).await,
                Ok(batch) => {
                    from = batch.next;
                    self.write(&Reply::Events { dropped: batch.dropped, events: batch.events })
                        .await?;
                }
                Err(refusal) => return self.answer(Err(refusal)).await,
            }
        }
    }
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn logs(
        &mut self,
        mut source: Box<dyn LogSource>,
        follow: bool,
    ) -> Result<(), ConnectionErrorKind> {
        // Made before the first reading, so that a line between the two is not slept through.
        let mut changes = source.changes();
        loop {
            changes.mark_unchanged();
            let LogBatch { now_ms, dropped, lines, next } = source.read();
            if !lines.is_empty() {
                self.write(&Reply::Logs { now_ms, dropped, lines, next }).await?;
            } else if !follow || changes.changed().await.is_err() {
                return self.write(&Reply::LogsEnd).await;
            }
        }
    }

    /// Writes a trace in as many frames as it takes.
    async fn trace(&mut self, trace: &[u8]) -> Result<(), ConnectionErrorKind> {
        /// Half of what a frame may carry.
        const PIECE: usize = MAX_FRAME / 2;

        let mut pieces = trace.chunks(PIECE).peekable();
        loop {
            let piece = pieces.next().unwrap_or_default().to_vec();
            let more = pieces.peek().is_some();
            self.write(&Reply::Trace { piece, more }).await?;
            if !more {
                return Ok(());
            }
        }
    }
}

/// Cuts a list into parts that each fit in a frame; at least one, so that an empty list is an answer too.
fn into_parts(units: Vec<Unit>) -> Vec<Vec<Unit>> {
    /// Room for what stands around the units in a frame.
    const FULL: usize = MAX_FRAME - 64;

    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for unit in units {
        // A unit too large for any frame gets a part of its own, and that part's answer says so.
        let size = frame::encode(&unit).map_or(FULL, |frame| frame.len());
        if bytes + size > FULL && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(unit);
        }
    }
    parts
}
