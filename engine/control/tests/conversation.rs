//! Both ends over a real socket: what is asked is answered, and no peer can do harm.

#![cfg(test)]

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keel_control::{
    Address, BootRecord, BootReport, Control, ControlError, ControlErrorKind, CriticalUnit,
    Degraded, EventLog, GoalState, Happened, Inventory, InventoryDisk, InventoryDriver,
    InventoryLink, InventoryPartition, Limits, Link, LogBatch, LogLine, LogQuery, LogSource,
    MAX_FRAME, Refusal, RefusalKind, Reset, ResetPlan, Service, Shutdown, Status, Unit, UnitList,
    UnitState,
};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A machine that is always the same, and tells the test which connections failed.
struct Machine {
    units: usize,
    description: String,
    log: EventLog,
    /// The number of the last line.
    lines: watch::Sender<u64>,
    failures: mpsc::UnboundedSender<String>,
    shutdowns: mpsc::UnboundedSender<Shutdown>,
    /// Told when a reset begins, and when it is not waited for any more.
    resets: mpsc::UnboundedSender<&'static str>,
}

/// Tells when it is dropped.
struct Told(mpsc::UnboundedSender<&'static str>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send("given up");
    }
}

impl Service for Machine {
    async fn status(&self) -> Result<Status, Refusal> {
        Ok(status())
    }

    async fn units(&self) -> Result<UnitList, Refusal> {
        let unit = |n| unit(n, &self.description);
        Ok(UnitList { now_ms: 9000, units: (0..self.units).map(unit).collect() })
    }

    async fn inventory(&self) -> Result<Inventory, Refusal> {
        Ok(inventory(self.units))
    }

    fn events(&self) -> &EventLog {
        &self.log
    }

    fn logs(&self, query: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
        if query.from_seq > 1000 {
            return Err(RefusalKind::NoLine { asked: query.from_seq, next: 1 }.into());
        }
        Ok(Box::new(Count { next: query.from_seq.max(1), last: self.lines.subscribe() }))
    }

    async fn boot(&self) -> Result<BootRecord, Refusal> {
        Ok(boot())
    }

    async fn trace(&self) -> Result<Vec<u8>, Refusal> {
        Ok(self.description.clone().into_bytes())
    }

    async fn shutdown(&self, how: Shutdown) -> Result<(), Refusal> {
        if how == Shutdown::Halt {
            return Err(RefusalKind::Stopping.into());
        }
        self.shutdowns
            .send(how)
            .map_err(|_| RefusalKind::Internal("the test is over".to_owned()).into())
    }

    /// A disk that never answers.
    async fn reset(&self, _: Reset) -> Result<ResetPlan, Refusal> {
        let _told = Told(self.resets.clone());
        let _ = self.resets.send("begun");
        std::future::pending().await
    }

    fn connection_failed(&self, error: &keel_control::ConnectionError) {
        // A test that does not look at failures may be over by now.
        let _ = self.failures.send(error.kind.to_string());
    }
}

/// Lines up to the number that the test sets, ten at a time.
struct Count {
    next: u64,
    last: watch::Receiver<u64>,
}

impl LogSource for Count {
    fn read(&mut self) -> LogBatch {
        let end = (*self.last.borrow() + 1).clamp(self.next, self.next + 10);
        let lines = (self.next..end).map(line).collect();
        self.next = end;
        LogBatch { now_ms: 9000, dropped: 3, lines, next: end }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.last.clone()
    }
}

fn line(seq: u64) -> LogLine {
    let (unit, text) = ("web".to_owned(), format!("line {seq}"));
    LogLine { seq, at_ms: seq, unit, text, cut: false }
}

fn boot() -> BootRecord {
    BootRecord {
        id: "0f".repeat(16),
        began_ms: 1_700_000_000_000,
        recorded_ms: 1_700_000_001_000,
        goal: "boot".to_owned(),
        state: GoalState::Reached,
        total_us: Some(2_100_000),
        digest: "ab".repeat(32),
        ended: Some(Shutdown::Reboot),
    }
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        kernel: "6.1.0".to_owned(),
        hostname: "node".to_owned(),
        machine_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
        uptime_ms: 12_345,
        goal: "boot".to_owned(),
        state: GoalState::Degraded,
        degraded: vec![Degraded { unit: "time".to_owned(), why: "no server answered".to_owned() }],
        digest: "ab".repeat(32),
        links: vec![Link {
            name: "eth0".to_owned(),
            addresses: vec![
                Address { ip: IpAddr::from([10, 0, 2, 15]), prefix: 24 },
                Address { ip: "fe80::1".parse().unwrap(), prefix: 64 },
            ],
        }],
        boot: Some(BootReport {
            total_ms: 2100,
            critical_path: vec![CriticalUnit { unit: "network".to_owned(), ms: 1200 }],
            speed_up: 2.5,
            max_side_by_side: 7,
            kernel_us: Some(812_345),
            processors: Some(2),
        }),
    }
}

/// A machine with that many disks.
fn inventory(disks: usize) -> Inventory {
    let driver = InventoryDriver {
        name: "virtio_blk".to_owned(),
        modalias: "virtio:d00000002v00001AF4".to_owned(),
        built_in: false,
    };
    let disk = |n: usize| InventoryDisk {
        path: format!("/dev/vd{n}"),
        ids: vec!["i".repeat(256)],
        serial: Some("s".repeat(256)),
        model: Some("m".repeat(256)),
        size: 1 << 40,
        bus: Some("virtio".to_owned()),
        content: vec!["GPT partition table".to_owned()],
        partitions: vec![InventoryPartition {
            number: 1,
            label: "keel-data".to_owned(),
            type_guid: Some("7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441".to_owned()),
            size: 1 << 39,
            content: Some(vec!["ext2/3/4 filesystem".to_owned()]),
        }],
        drivers: vec![driver.clone(); 4],
        ..InventoryDisk::default()
    };
    let link = InventoryLink {
        name: "eth0".to_owned(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        carrier: Some(true),
        ..InventoryLink::default()
    };
    Inventory {
        architecture: "x86_64".to_owned(),
        kernel: "6.1.0".to_owned(),
        cpus: 4,
        memory: 4 << 30,
        links: vec![link],
        disks: (0..disks).map(disk).collect(),
        left_out: 7,
    }
}

fn unit(n: usize, description: &str) -> Unit {
    Unit {
        name: format!("unit-{n}"),
        kind: "service".to_owned(),
        stage: Some("services".to_owned()),
        description: description.to_owned(),
        state: UnitState::Running,
        since_ms: 1500,
        took_ms: Some(20),
        attempts: 1,
        note: None,
        deadline_ms: None,
        waits_for: vec![],
        pid: Some(77),
        memory_bytes: Some(1 << 20),
        boot: None,
    }
}

/// A server on a socket of its own; gone with the value.
struct Server {
    folder: TempDir,
    machine: Arc<Machine>,
    failures: mpsc::UnboundedReceiver<String>,
    shutdowns: mpsc::UnboundedReceiver<Shutdown>,
    resets: mpsc::UnboundedReceiver<&'static str>,
    serving: JoinHandle<std::convert::Infallible>,
}

impl Server {
    fn start(limits: Limits) -> Self {
        Self::with_units(limits, 3, "a unit")
    }

    fn with_units(limits: Limits, units: usize, description: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let (failures_in, failures) = mpsc::unbounded_channel();
        let (shutdowns_in, shutdowns) = mpsc::unbounded_channel();
        let (resets_in, resets) = mpsc::unbounded_channel();
        let machine = Arc::new(Machine {
            units,
            description: description.to_owned(),
            log: EventLog::new(4),
            lines: watch::Sender::new(0),
            failures: failures_in,
            shutdowns: shutdowns_in,
            resets: resets_in,
        });
        let listener = keel_control::bind(&socket(&folder)).unwrap();
        let serving = tokio::spawn(keel_control::serve(listener, machine.clone(), limits));
        Self { folder, machine, failures, shutdowns, resets, serving }
    }

    fn socket(&self) -> PathBuf {
        socket(&self.folder)
    }

    async fn connect(&self) -> Result<Control, ControlError> {
        Control::connect(&self.socket()).await
    }

    /// A connection on which the test writes what it likes; init's greeting is already read.
    async fn raw(&self) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let len = stream.read_u32().await.unwrap();
        let mut greeting = vec![0; len as usize];
        stream.read_exact(&mut greeting).await.unwrap();
        stream
    }

    async fn failure(&mut self) -> String {
        self.failures.recv().await.unwrap()
    }

    fn say(&self, text: &str) {
        self.machine.log.push(1, Happened::Fact { unit: None, text: text.to_owned() });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("run/control.sock")
}

fn impatient() -> Limits {
    Limits {
        patience: Duration::from_millis(400),
        idle: Duration::from_millis(400),
        ..Limits::default()
    }
}

/// A good hello as it goes over the wire.
fn hello() -> Vec<u8> {
    hello_of_version(5)
}

fn hello_of_version(version: u8) -> Vec<u8> {
    let message = [b"keel".as_slice(), &[version], b"\x04test"].concat();
    frame(&message)
}

fn frame(message: &[u8]) -> Vec<u8> {
    [u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message].concat()
}

/// One frame carries many disks; init tells of no more than fits.
#[tokio::test]
async fn an_inventory_comes_whole() {
    let server = Server::with_units(Limits::default(), 256, "a unit");
    let mut control = server.connect().await.unwrap();
    assert_eq!(control.inventory().await.unwrap(), inventory(256));
    assert_eq!(control.status().await.unwrap(), status());
}

#[tokio::test]
async fn one_connection_answers_request_after_request() {
    let mut server = Server::start(Limits::default());
    let mut control = server.connect().await.unwrap();
    assert_eq!(control.status().await.unwrap(), status());
    let list = control.units().await.unwrap();
    assert_eq!(list.now_ms, 9000);
    assert_eq!(list.units, [unit(0, "a unit"), unit(1, "a unit"), unit(2, "a unit")]);
    control.shutdown(Shutdown::PowerOff).await.unwrap();
    assert_eq!(server.shutdowns.recv().await, Some(Shutdown::PowerOff));
    let refused = control.shutdown(Shutdown::Halt).await.unwrap_err();
    assert!(
        refused.to_string().ends_with("init refused the request: the machine is stopping"),
        "{refused}"
    );
    assert_eq!(control.status().await.unwrap(), status(), "a refusal does not end the connection");
}

#[tokio::test]
async fn lists_of_any_length_arrive_whole() {
    for (count, description) in
        [(0, String::new()), (20_000, "x".repeat(200)), (3, "x".repeat(MAX_FRAME / 2))]
    {
        let server = Server::with_units(Limits::default(), count, &description);
        let list = server.connect().await.unwrap().units().await.unwrap();
        assert_eq!(list.units.len(), count);
        assert!(list.units.iter().enumerate().all(|(n, unit)| unit.name == format!("unit-{n}")));
    }
}

#[tokio::test]
async fn a_unit_larger_than_a_frame_is_refused_in_words() {
    let server = Server::with_units(Limits::default(), 1, &"x".repeat(MAX_FRAME));
    let error = server.connect().await.unwrap().units().await.unwrap_err();
    assert!(
        matches!(error.kind, ControlErrorKind::Refused(Refusal { kind: RefusalKind::TooLarge })),
        "{error}"
    );
}

#[tokio::test]
async fn events_come_in_order_and_losses_are_counted() {
    let server = Server::start(Limits::default());
    for n in 1..=6 {
        server.say(&format!("event {n}"));
    }
    let mut watch = server.connect().await.unwrap().watch(1, true).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.dropped, 2, "the ring holds four");
    assert_eq!(batch.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [3, 4, 5, 6]);
    server.say("event 7");
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.dropped, batch.events[0].seq, batch.next), (0, 7, 8));

    let mut past = server.connect().await.unwrap().watch(6, false).await.unwrap();
    assert_eq!(past.next().await.unwrap().unwrap().events.len(), 2);
    assert_eq!(past.next().await.unwrap(), None, "without follow it ends with the newest");

    let mut other_boot = server.connect().await.unwrap().watch(500, true).await.unwrap();
    let error = other_boot.next().await.unwrap_err();
    assert!(error.to_string().contains("event 500 has not happened, the next one is 8"), "{error}");
}

#[tokio::test]
async fn lines_come_in_order_and_a_reader_that_follows_waits_for_more() {
    let server = Server::start(Limits::default());
    server.machine.lines.send_replace(15);
    let read = async |from_seq, follow| {
        let query = LogQuery { from_seq, follow, ..LogQuery::default() };
        server.connect().await.unwrap().read_logs(query).await.unwrap()
    };
    let mut past = read(0, false).await;
    let first = past.next().await.unwrap().unwrap();
    assert_eq!((first.now_ms, first.dropped, first.next), (9000, 3, 11));
    assert_eq!(first.lines, (1..=10).map(line).collect::<Vec<_>>());
    assert_eq!(past.next().await.unwrap().unwrap().lines.len(), 5);
    assert_eq!(past.next().await.unwrap(), None, "without follow it ends with the newest");

    let mut follows = read(16, true).await;
    // Whether it reads before or after this, it misses nothing.
    server.machine.lines.send_replace(16);
    assert_eq!(follows.next().await.unwrap().unwrap().lines, [line(16)]);
    server.machine.lines.send_replace(18);
    assert_eq!(follows.next().await.unwrap().unwrap().lines, [line(17), line(18)]);

    let error = read(2000, true).await.next().await.unwrap_err();
    assert!(error.to_string().contains("line 2000 has not been written"), "{error}");
}

#[tokio::test]
async fn a_boot_and_its_trace() {
    for length in [0, 10, MAX_FRAME / 2, MAX_FRAME * 3 + 1] {
        let server = Server::with_units(Limits::default(), 1, &"x".repeat(length));
        let mut control = server.connect().await.unwrap();
        assert_eq!(control.trace().await.unwrap().len(), length);
        assert_eq!(control.boot().await.unwrap(), boot());
    }
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_reset_along() {
    let mut server = Server::start(Limits::default());
    let mut control = server.connect().await.unwrap();
    tokio::select! {
        answer = control.reset(Reset { dry_run: true, confirm: None }) => panic!("{answer:?}"),
        begun = server.resets.recv() => assert_eq!(begun, Some("begun")),
    }
    drop(control);
    let end = tokio::time::timeout(Duration::from_secs(30), server.resets.recv()).await;
    assert_eq!(end.unwrap(), Some("given up"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_bring_the_server_down(
        greeted in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start(Limits::default());
            let mut stream = server.raw().await;
            if greeted {
                stream.write_all(&hello()).await.unwrap();
            }
            // The server may hang up on the first byte that it does not like.
            let _ = stream.write_all(&bytes).await;
            drop(stream);
            assert_eq!(server.connect().await.unwrap().status().await.unwrap(), status());
            assert!(!server.serving.is_finished());
        });
    }
}

#[path = "conversation/door.rs"]
mod door;
