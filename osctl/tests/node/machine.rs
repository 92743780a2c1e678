//! A machine that is looked at: one unit, the goal that waits for it, and whatever else a node tells of itself.

use std::fs;
use std::sync::Arc;

use keel_control::{
    Address, BootRecord, BootReport, ConnectionError, CriticalUnit, Degraded, EventLog, GoalState,
    Happened, Inventory, InventoryDisk, InventoryDriver, InventoryImage, InventoryLink,
    InventoryPartition, Link, LogBatch, LogLine, LogQuery, LogSource, Refusal, RefusalKind,
    Service, Shutdown, Status, Unit, UnitBoot, UnitList, UnitState,
};
use tokio::sync::watch;

use crate::support::{Control, MACHINE_ID, Node};

/// A machine with one unit, and the goal that waits for it.
struct Machine {
    state: GoalState,
    log: EventLog,
    /// How many lines containerd has written.
    lines: watch::Sender<u64>,
}

impl Machine {
    fn say(&self, text: &str) {
        self.log.push(1_234, Happened::Fact { unit: None, text: text.to_owned() });
    }
}

/// Lines of containerd, in their order.
struct Lines {
    next: u64,
    written: watch::Receiver<u64>,
}

impl LogSource for Lines {
    fn read(&mut self) -> LogBatch {
        let end = (*self.written.borrow() + 1).clamp(self.next, self.next + 10);
        let line = |seq| LogLine {
            seq,
            at_ms: 1_000 + seq,
            unit: "containerd".to_owned(),
            text: format!("line {seq}"),
            cut: false,
        };
        let lines = (self.next..end).map(line).collect();
        self.next = end;
        LogBatch { now_ms: 61_000, dropped: 0, lines, next: end }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }
}

impl Service for Machine {
    async fn status(&self) -> Result<Status, Refusal> {
        let wrong = Degraded { unit: "time".to_owned(), why: "no server answered".to_owned() };
        Ok(Status {
            version: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            hostname: "node-1".to_owned(),
            machine_id: Some(MACHINE_ID.to_owned()),
            uptime_ms: 61_000,
            goal: "boot".to_owned(),
            state: self.state,
            degraded: if self.state == GoalState::Degraded { vec![wrong] } else { vec![] },
            digest: "0123abcd".repeat(8),
            links: vec![Link {
                name: "eth0".to_owned(),
                addresses: vec![Address { ip: [10, 0, 2, 15].into(), prefix: 24 }],
            }],
            boot: Some(BootReport {
                total_ms: 1_500,
                critical_path: vec![CriticalUnit { unit: "containerd".to_owned(), ms: 1_400 }],
                speed_up: 2.0,
                max_side_by_side: 4,
                kernel_us: Some(812_345),
                processors: Some(2),
            }),
        })
    }

    async fn units(&self) -> Result<UnitList, Refusal> {
        let unit = Unit {
            name: "containerd".to_owned(),
            kind: "service".to_owned(),
            stage: Some("services".to_owned()),
            description: "Container runtime".to_owned(),
            state: UnitState::Running,
            since_ms: 1_500,
            took_ms: Some(1_400),
            attempts: 1,
            note: None,
            deadline_ms: None,
            waits_for: vec![],
            pid: Some(77),
            memory_bytes: None,
            boot: Some(UnitBoot {
                state: UnitState::Running,
                began_us: Some(100_000),
                ended_us: Some(1_500_250),
                waited_for: None,
                attempts: 1,
            }),
        };
        let goal = Unit {
            name: "boot".to_owned(),
            kind: "target".to_owned(),
            stage: None,
            description: String::new(),
            state: UnitState::Exited,
            took_ms: None,
            attempts: 0,
            pid: None,
            boot: Some(UnitBoot {
                state: UnitState::Exited,
                began_us: None,
                ended_us: Some(1_500_250),
                waited_for: Some("containerd".to_owned()),
                attempts: 0,
            }),
            ..unit.clone()
        };
        Ok(UnitList { now_ms: 61_500, units: vec![unit, goal] })
    }

    async fn inventory(&self) -> Result<Inventory, Refusal> {
        let link = InventoryLink {
            name: "eth0".to_owned(),
            mac: Some([0x52, 0x54, 0, 0, 0, 1]),
            carrier: Some(true),
            ..InventoryLink::default()
        };
        let disk = InventoryDisk {
            path: "/dev/vda".to_owned(),
            size: 10 << 30,
            bus: Some("virtio".to_owned()),
            partitions: vec![InventoryPartition {
                number: 1,
                label: "keel-data".to_owned(),
                type_guid: Some("7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441".to_owned()),
                ..InventoryPartition::default()
            }],
            image: Some(InventoryImage { room: 8 << 30, content: Vec::new(), unfit: None }),
            drivers: vec![InventoryDriver {
                name: "virtio_blk".to_owned(),
                modalias: "virtio:d00000002v00001AF4".to_owned(),
                built_in: false,
            }],
            ..InventoryDisk::default()
        };
        let silent = InventoryDisk {
            path: "/dev/vdb".to_owned(),
            unread: Some("it did not answer in time".to_owned()),
            ..InventoryDisk::default()
        };
        Ok(Inventory {
            architecture: "x86_64".to_owned(),
            kernel: "6.1.0".to_owned(),
            cpus: 2,
            memory: 2 << 30,
            links: vec![link],
            disks: vec![disk, silent],
            left_out: 0,
        })
    }

    fn events(&self) -> &EventLog {
        &self.log
    }

    fn logs(&self, query: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
        if query.units.iter().any(|unit| unit != "containerd") {
            return Err(RefusalKind::NoLog(
                "no unit of the running graph is called that".to_owned(),
            )
            .into());
        }
        let written = self.lines.subscribe();
        let next = *written.borrow() + 1;
        if query.from_seq > next {
            return Err(RefusalKind::NoLine { asked: query.from_seq, next }.into());
        }
        let tail = if query.tail == 0 { 1 } else { next.saturating_sub(query.tail.into()) };
        Ok(Box::new(Lines { next: query.from_seq.max(tail).max(1), written }))
    }

    async fn boot(&self) -> Result<BootRecord, Refusal> {
        Ok(BootRecord {
            id: BOOT_ID.to_owned(),
            began_ms: 1_700_000_000_000,
            recorded_ms: 1_700_000_061_000,
            goal: "boot".to_owned(),
            state: self.state,
            total_us: Some(1_500_250),
            digest: format!("sha256:{}", "0123abcd".repeat(8)),
            ended: None,
        })
    }

    async fn trace(&self) -> Result<Vec<u8>, Refusal> {
        Ok(fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/traces/demo.json")).unwrap())
    }

    async fn shutdown(&self, _: Shutdown) -> Result<(), Refusal> {
        unreachable!("no read-only call takes a machine down")
    }

    fn connection_failed(&self, error: &ConnectionError) {
        eprintln!("{error}");
    }
}

pub(crate) const BOOT_ID: &str = "9f3a5c7e91b24d4e8a6b0123456789ab";

/// The machine behind its control socket, until it is dropped.
pub(crate) struct Init {
    machine: Arc<Machine>,
    _control: Control,
}

impl Init {
    fn start(node: &Node, state: GoalState, lines: u64, events: &[&str]) -> Self {
        let log = EventLog::new(4);
        let machine = Arc::new(Machine { state, log, lines: watch::Sender::new(lines) });
        for text in events {
            machine.say(text);
        }
        let control = Control::start(&node.control_socket(), machine.clone());
        Self { machine, _control: control }
    }

    /// Has containerd write so many lines more.
    pub(crate) fn write(&self, lines: u64) {
        self.machine.lines.send_modify(|last| *last += lines);
    }

    pub(crate) fn say(&self, text: &str) {
        self.machine.say(text);
    }
}

impl Node {
    pub(crate) fn init(&self, state: GoalState) -> Init {
        self.init_with(state, 3, &[])
    }

    /// With so many lines of containerd, and these events.
    pub(crate) fn init_with(&self, state: GoalState, lines: u64, events: &[&str]) -> Init {
        Init::start(self, state, lines, events)
    }
}
