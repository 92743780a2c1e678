//! The real osctl against the real keel-agent, over TLS on loopback; behind it the real control server, with a machine that
//! the test makes up.

#![cfg(test)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use keel_control::{
    Address, BootRecord, BootReport, ConnectionError, CriticalUnit, Degraded, EventLog, GoalState,
    Happened, Inventory, InventoryDisk, InventoryDriver, InventoryImage, InventoryLink,
    InventoryPartition, Limits, Link, LogBatch, LogLine, LogQuery, LogSource, Refusal, RefusalKind,
    Service, Shutdown, Status, Unit, UnitBoot, UnitList, UnitState,
};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

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

const BOOT_ID: &str = "9f3a5c7e91b24d4e8a6b0123456789ab";
const MACHINE_ID: &str = "0f3a5c7e91b24d4e8a6b0123456789ab";

/// The machine's control server on a thread of its own, until it is dropped.
struct Init {
    machine: Arc<Machine>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Init {
    fn start(socket: &Path, state: GoalState, lines: u64, events: &[&str]) -> Self {
        let log = EventLog::new(4);
        let machine = Arc::new(Machine { state, log, lines: watch::Sender::new(lines) });
        for text in events {
            machine.say(text);
        }
        let (stop, stopped) = oneshot::channel();
        let (listening, is_listening) = std::sync::mpsc::channel();
        let (socket, served) = (socket.to_owned(), machine.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = keel_control::bind(&socket).unwrap();
                listening.send(()).unwrap();
                tokio::select! {
                    never = keel_control::serve(listener, served, Limits::default()) => match never {},
                    _ = stopped => {}
                }
            });
        });
        is_listening.recv().unwrap();
        Self { machine, stop: Some(stop), thread: Some(thread) }
    }

    /// Has containerd write so many lines more.
    fn write(&self, lines: u64) {
        self.machine.lines.send_modify(|last| *last += lines);
    }

    fn say(&self, text: &str) {
        self.machine.say(text);
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A running keel-agent, its files and where it listens; gone with the value.
struct Node {
    folder: TempDir,
    agent: Child,
    endpoint: String,
}

impl Node {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("machine-id"), MACHINE_ID).unwrap();
        let made = Command::new(agent_binary())
            .args(["identity", "--dir"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut agent = Command::new(agent_binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--dir"])
            .arg(folder.path())
            .arg("--control")
            .arg(folder.path().join("control.sock"))
            .arg("--cluster-ca")
            .arg(folder.path().join("trust/cluster-ca.crt"))
            .arg("--audit-dir")
            .arg(folder.path().join("audit"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(agent.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let endpoint = line.split([' ', ',']).nth(2).unwrap().to_owned();
        // What the agent says later is shown if the test fails, and must not fill the pipe.
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| eprintln!("agent: {line}"))
        });
        Self { folder, agent, endpoint }
    }

    fn init(&self, state: GoalState) -> Init {
        self.init_with(state, 3, &[])
    }

    /// With so many lines of containerd, and these events.
    fn init_with(&self, state: GoalState, lines: u64, events: &[&str]) -> Init {
        Init::start(&self.folder.path().join("control.sock"), state, lines, events)
    }

    fn fingerprint(&self) -> String {
        fs::read_to_string(self.folder.path().join("node.fingerprint")).unwrap().trim().to_owned()
    }

    /// Where osctl keeps what it knows of this node.
    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn osctl(&self, args: &[&str]) -> Ended {
        osctl_at(&self.home(), &[&["--endpoint", &self.endpoint], args].concat())
    }

    /// Starts an osctl that goes on.
    fn follow(&self, args: &[&str]) -> Following {
        let node = ["--endpoint", &self.endpoint, "--fingerprint", &self.fingerprint()];
        let mut osctl = osctl_command(&[&node, args].concat());
        let mut osctl = osctl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(osctl.stdout.take().unwrap());
        let stderr = BufReader::new(osctl.stderr.take().unwrap());
        Following { osctl, stdout, stderr }
    }

    /// With the node's own fingerprint: nothing to remark on.
    fn pinned(&self, args: &[&str]) -> Ended {
        self.osctl(&[&["--fingerprint", &self.fingerprint()], args].concat())
    }
}

/// An osctl that goes on until it is dropped.
struct Following {
    osctl: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Following {
    fn line(&mut self) -> String {
        next_line(&mut self.stdout).trim_end().to_owned()
    }

    fn said(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "osctl has ended");
        line.trim_end().to_owned()
    }

    /// Whether it says something with that word.
    fn said_until(&mut self, word: &str) -> bool {
        while !self.said().contains(word) {}
        true
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.osctl.kill();
        let _ = self.osctl.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// keel-agent beside osctl: a test of the workspace builds both; a test of osctl alone builds it once, if it is missing.
fn agent_binary() -> PathBuf {
    let osctl = Path::new(env!("CARGO_BIN_EXE_osctl"));
    let agent = osctl.with_file_name("keel-agent");
    if !agent.exists() {
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package",
                "keel-agent",
                "--bin",
                "keel-agent",
                "--target-dir",
            ])
            .arg(osctl.ancestors().nth(2).unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success());
    }
    agent
}

fn osctl_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
    // Nothing of the person who runs the tests.
    for name in std::env::vars_os().map(|(name, _)| name) {
        if name.to_string_lossy().starts_with("OSCTL_") {
            command.env_remove(name);
        }
    }
    command.args(args).env("OSCTL_HOME", "/nonexistent/osctl");
    command
}

/// How an osctl ended, and what it said.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn osctl(args: &[&str]) -> Ended {
    osctl_at(TempDir::new().unwrap().path(), args)
}

/// With the files that an osctl keeps in `home`.
fn osctl_at(home: &Path, args: &[&str]) -> Ended {
    let command = &mut osctl_command(args);
    let Output { status, stdout, stderr } = command.env("OSCTL_HOME", home).output().unwrap();
    Ended {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

#[test]
fn status_and_units() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let status = node.pinned(&["status"]);
    assert_eq!((status.code, status.stderr.as_str()), (Some(0), ""));
    for shown in [
        "node-1  boot reached  up 1 min 1 s",
        MACHINE_ID,
        &node.fingerprint(),
        "10.0.2.15/24 on eth0",
    ] {
        assert!(status.stdout.contains(shown), "{shown} is not in {}", status.stdout);
    }
    assert!(!status.stdout.contains('\x1b'), "no colour into a pipe");

    let json = node.pinned(&["status", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["state"], &json["uptime_ms"]), (&"reached".into(), &61_000.into()));
    assert_eq!(json["fingerprint"], node.fingerprint().as_str());

    let units = node.pinned(&["units"]);
    let row = "containerd  running  1 min  1.40 s  pid 77\n";
    assert!(units.stdout.contains(row), "{}", units.stdout);
    let json = node.pinned(&["units", "--output=json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["units"][0]["took_ms"], 1_400);
    let yaml = node.pinned(&["units", "--output", "yaml"]);
    assert!(yaml.stdout.contains("\n- name: containerd\n  kind: service\n"), "{}", yaml.stdout);
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml.stdout).unwrap(), json);
    drop(init);
}

#[test]
fn an_inventory_is_shown_and_recorded() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let shown = node.pinned(&["inventory"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    for part in [
        "x86_64, 2 processors, 2.0 GiB of memory, linux 6.1.0\n",
        "  eth0  52:54:00:00:00:01  carrier\n",
        "  /dev/vda  10.0 GiB  virtio\n",
        "    image    of Keel; 8.0 GiB behind it, blank\n",
        "    holds    not known: it did not answer in time\n",
    ] {
        assert!(shown.stdout.contains(part), "{part} is not in {}", shown.stdout);
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("node.json");
    let recorded = node.pinned(&["inventory", "--out", file.to_str().unwrap()]);
    assert_eq!(recorded.code, Some(0), "{recorded:?}");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(node.pinned(&["inventory", "--output", "json"]).stdout, text);
    let inventory = keel_image::Inventory::parse(&text).unwrap();
    assert_eq!(inventory.disks[0].content, Some(vec![]));
    assert_eq!(inventory.disks[0].partitions[0].label, "keel-data");
    assert_eq!(inventory.disks[0].image.as_ref().unwrap().content, Some(vec![]));
    assert_eq!(inventory.disks[1].content, None);
    let schema = jsonschema::validator_for(&keel_image::Inventory::json_schema()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(schema.is_valid(&json), "{text}");
    assert_eq!(inventory.links[0].mac.unwrap().0.0, [0x52, 0x54, 0, 0, 0, 1]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_nodes_boot_is_recorded() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let printed = node.pinned(&["boot", "record"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let file = node.folder.path().join("boot.json");
    let file = file.to_str().unwrap();
    assert_eq!(node.pinned(&["boot", "record", "-o", file]).code, Some(0));
    assert_eq!(fs::read_to_string(file).unwrap(), printed.stdout);
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/traces/demo.json");
    assert_eq!(fs::read_to_string(demo).unwrap(), printed.stdout, "as the node told it");

    // Whatever takes a file takes a boot of the node.
    for command in ["show", "blame", "critical-chain", "plot", "export"] {
        let of_file = osctl(&["boot", command, file]);
        let of_node = node.pinned(&["boot", command]);
        assert_eq!((of_node.code, of_node.stderr.as_str()), (Some(0), ""), "{command}");
        assert_eq!(of_node.stdout, of_file.stdout, "{command}");
        let by_id = node.pinned(&["boot", command, "--boot", &BOOT_ID[..4]]);
        assert_eq!(by_id.stdout, of_file.stdout, "{command}");
    }
    let from = node.pinned(&["boot", "critical-chain", "--unit", "containerd"]);
    assert!(from.stdout.starts_with("containerd @"), "{from:?}");
    let compared = node.pinned(&["boot", "compare", file, "--boot", BOOT_ID]);
    assert!(compared.stdout.ends_with("no unit took another time\n"), "{compared:?}");
    let alone = node.pinned(&["boot", "compare"]);
    assert_eq!(alone.code, Some(2));
    assert!(alone.stderr.contains("it takes two boots to compare"), "{}", alone.stderr);

    let list = node.pinned(&["boot", "list"]);
    let row = "9f3a5c7e91b2  2023-11-14T22:13:20Z  reached       1.50 s  runs\n";
    assert!(list.stdout.ends_with(row), "{}", list.stdout);
    let unknown = node.pinned(&["boot", "show", "--boot", "00"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""));
    assert!(unknown.stderr.contains("no boot that begins with 00"), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains(
            "next: `osctl units` lists the node's units, and `osctl boot list` the boots"
        ),
        "{}",
        unknown.stderr
    );
    let neither = osctl(&["boot", "show"]);
    assert_eq!(neither.code, Some(2));
    assert!(neither.stderr.contains("name a trace, or give --endpoint HOST"), "{neither:?}");
}

#[test]
fn logs_are_read_and_followed() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let read = node.pinned(&["logs", "containerd", "--tail", "2"]);
    assert_eq!((read.code, read.stderr.as_str()), (Some(0), ""));
    let texts: Vec<_> = read.stdout.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    assert_eq!(texts, ["containerd line 2", "containerd line 3"]);
    let json = node.pinned(&["logs", "--output", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&json["seq"], &json["at_ms"]), (&1.into(), &1_001.into()));
    assert_eq!((&json["unit"], &json["boot"]), (&"containerd".into(), &BOOT_ID.into()));
    let of_boot = node.pinned(&["logs", "--boot", BOOT_ID]);
    assert_eq!(of_boot.stdout.lines().count(), 3);
    let wrong = node.pinned(&["logs", "contained"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("no unit of the running graph is called that"), "{wrong:?}");
    assert!(wrong.stderr.contains("next: `osctl units` lists"), "{wrong:?}");
    check_usage(&["logs", "--since", "noon"], "write 5m, 1h30m or 2026-01-31T12:00:00Z");
    check_usage(&["logs", "--tail", "0"], "0 is not in 1..");
    check_usage(&["logs", "--boot", "9f", "--follow"], "cannot be used with");

    let mut osctl = node.follow(&["logs", "--follow", "--tail", "1"]);
    assert!(osctl.line().ends_with(" line 3"));
    init.write(1);
    assert!(osctl.line().ends_with(" line 4"));
}

/// Init goes and comes: for a follower it is the agent that breaks the stream off, and says why.
#[test]
fn a_follower_goes_on_where_it_was() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    init.say("event 1");
    let mut logs = node.follow(&["logs", "--follow"]);
    let mut events = node.follow(&["events", "--follow"]);
    for n in 1..=3 {
        assert!(logs.line().ends_with(&format!(" line {n}")));
    }
    assert!(events.line().ends_with("event 1"));
    drop(init);
    for osctl in [&mut logs, &mut events] {
        let broken = osctl.said();
        assert!(broken.starts_with("note: the node did not "), "{broken}");
        assert!(broken.ends_with("; going on when it is back"), "{broken}");
    }

    let init = node.init_with(GoalState::Reached, 4, &["event 1 again", "event 2"]);
    assert!(logs.line().ends_with(" line 4"), "nothing twice, and nothing left out");
    assert!(events.line().ends_with("event 2"));
    drop(init);

    // A boot with fewer lines than were read is another one.
    let _init = node.init_with(GoalState::Reached, 1, &["event 1 of the new boot"]);
    assert!(logs.line().ends_with(" line 1"));
    assert!(events.line().ends_with("event 1 of the new boot"));
    assert!(logs.said_until("rebooted") && events.said_until("rebooted"));
}

#[test]
fn the_kernels_log_is_read() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let text = format!("osctl test {}", std::process::id());
    // Without its end the kernel keeps a line back: more of it may come.
    fs::write("/dev/kmsg", format!("<12>{text} caf\u{e9} \u{1b}[2J\n")).unwrap();
    let read = node.pinned(&["dmesg"]);
    assert_eq!(read.code, Some(0), "{read:?}");
    let shown = format!("{text} caf\u{e9} \\u{{1b}}[2J\n");
    assert!(read.stdout.contains(&shown), "{shown} is not in {}", read.stdout);
    let json = node.pinned(&["dmesg", "--output", "json"]).stdout;
    let line = json.lines().find(|line| line.contains(&text)).unwrap();
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&json["severity"], &json["facility"]), (&4.into(), &1.into()));
    let tail = node.pinned(&["dmesg", "--tail", "1"]);
    assert_eq!(tail.stdout.lines().count(), 1);

    let mut osctl = node.follow(&["dmesg", "--follow", "--tail", "1"]);
    osctl.line();
    fs::write("/dev/kmsg", format!("<12>{text} again\n")).unwrap();
    while !osctl.line().ends_with(&format!("{text} again")) {}
}

#[test]
fn a_degraded_node_is_a_finding() {
    let node = Node::start();
    let _init = node.init(GoalState::Degraded);
    let status = node.pinned(&["status"]);
    assert_eq!(status.code, Some(1));
    assert!(status.stdout.contains("  time  no server answered\n"), "{}", status.stdout);
    assert_eq!(status.stderr, "");
}

#[test]
fn events_are_told_and_followed() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    for n in 1..=5 {
        init.say(&format!("event {n}"));
    }
    let told = node.pinned(&["events"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(told.stderr, "note: 1 events before these are forgotten by the node\n");
    assert_eq!(told.stdout.lines().count(), 4);
    assert!(told.stdout.starts_with("     2      1.234  event 2\n"), "{}", told.stdout);
    let lines = node.pinned(&["events", "--output", "json"]).stdout;
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let yaml = node.pinned(&["events", "--output", "yaml"]).stdout;
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    assert_eq!((documents.len(), documents), (4, lines), "a document an event");
    let beyond = node.pinned(&["events", "--from", "99"]);
    assert_eq!(beyond.code, Some(1));
    assert!(
        beyond.stderr.contains("event 99 has not happened, the next one is 6"),
        "{}",
        beyond.stderr
    );

    let mut follower = node.follow(&["events", "--follow", "--from", "5"]);
    assert!(follower.line().ends_with("event 5"));
    init.say("something new");
    assert!(follower.line().ends_with("something new"));
}

fn next_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

#[test]
fn an_agent_without_init_says_so_and_recovers() {
    let node = Node::start();
    let failed = node.pinned(&["status"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""));
    assert!(
        failed.stderr.contains("the node did not tell its status: cannot talk to init at "),
        "{}",
        failed.stderr
    );
    assert!(failed.stderr.contains("next: try again in a moment"), "{}", failed.stderr);

    let init = node.init(GoalState::Reached);
    assert_eq!(node.pinned(&["status"]).code, Some(0));
    drop(init);
    assert_eq!(node.pinned(&["status"]).code, Some(1));
    let _again = node.init(GoalState::Reached);
    assert_eq!(node.pinned(&["status"]).code, Some(0));
}

#[test]
fn trust_is_pinned_or_shown() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let first = node.osctl(&["status"]);
    let shown = format!(
        "note: {} is known from now on by the fingerprint {}; compare it with the node's console\n",
        node.endpoint,
        node.fingerprint()
    );
    assert_eq!((first.code, first.stderr), (Some(0), shown));
    let again = node.osctl(&["status"]);
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""));
    let known = fs::read_to_string(node.home().join("known-nodes")).unwrap();
    let line = format!("\n{} sha256:{} 20", node.endpoint, node.fingerprint());
    assert!(known.contains(&line), "{known}");

    let endpoint = format!("http://{}", node.endpoint);
    let typed = osctl(&["--endpoint", &endpoint, "--fingerprint", &node.fingerprint(), "status"]);
    assert_eq!(typed.code, Some(0));
    assert_eq!(typed.stderr, "note: http:// was typed, but what goes over the wire is TLS\n");

    let other = "00".repeat(32);
    let refused = node.osctl(&["--fingerprint", &other, "status"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    let expect = format!("its key has the fingerprint {}, not {other}\n", node.fingerprint());
    assert!(refused.stderr.contains(&expect), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("next: compare with the fingerprint on the node's console"),
        "{}",
        refused.stderr
    );
}

#[test]
fn several_nodes_are_asked_at_once() {
    let (one, two) = (Node::start(), Node::start());
    let _inits = (one.init(GoalState::Reached), two.init(GoalState::Degraded));
    let home = TempDir::new().unwrap();
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ask = |args: &[&str]| {
        let nodes = ["--endpoint", &one.endpoint, "--endpoint", &two.endpoint, "--endpoint", &free];
        osctl_at(home.path(), &[&nodes, args].concat())
    };
    let status = ask(&["status"]);
    assert_eq!(status.code, Some(1));
    let lines: Vec<_> = status.stdout.lines().collect();
    assert!(lines[0].starts_with("NODE "), "{}", status.stdout);
    assert!(
        lines[1].starts_with(&one.endpoint) && lines[1].contains("  reached  "),
        "{}",
        lines[1]
    );
    assert!(lines[2].starts_with(&two.endpoint) && lines[2].ends_with("time: no server answered"));
    assert!(status.stderr.contains(&format!("cannot talk to {free}: it cannot be reached")));
    assert_eq!(fs::read_to_string(home.path().join("known-nodes")).unwrap().lines().count(), 3);

    let json: serde_json::Value =
        serde_json::from_str(&ask(&["units", "--output", "json"]).stdout).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    assert_eq!(nodes[1]["node"], two.endpoint.as_str());
    assert_eq!(nodes[1]["answer"]["units"][0]["name"], "containerd");
    assert!(nodes[2]["error"].as_str().unwrap().contains("Connection refused"), "{json}");
    assert_eq!(ask(&["inventory"]).stdout.lines().count(), 3);

    let events = ask(&["events"]);
    assert_eq!(events.code, Some(2));
    assert!(events.stderr.contains("this asks one node, and 3 are named"), "{}", events.stderr);
    let pinned = ask(&["--fingerprint", &one.fingerprint(), "status"]);
    assert_eq!(pinned.code, Some(2));
}

#[test]
fn a_watch_asks_again() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let pin = node.fingerprint();
    let mut watch = osctl_command(&["--endpoint", &node.endpoint, "--fingerprint", &pin])
        .args(["units", "--watch", "--interval", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(watch.stdout.take().unwrap());
    let mut stderr = BufReader::new(watch.stderr.take().unwrap());
    let block: Vec<_> = (0..5).map(|_| next_line(&mut stdout)).collect();
    assert!(block[0].starts_with("UNIT ") && block[4].starts_with("2 units"), "{block:?}");
    let again: Vec<_> = (0..6).map(|_| next_line(&mut stdout)).collect();
    assert_eq!((again[0].as_str(), &again[1..]), ("\n", &block[..]));
    drop(init);
    assert!(next_line(&mut stderr).starts_with("error: the node did not list its units"));
    let _init = node.init(GoalState::Reached);
    while !next_line(&mut stdout).starts_with("UNIT ") {}
    watch.kill().unwrap();
    watch.wait().unwrap();
    check_usage(&["units", "--watch", "--interval", "0"], "0 is not in 1..=3600");
    check_usage(&["units", "--interval", "5"], "--watch");
}

/// An osctl in a terminal of its own, as script(1) makes one.
struct Terminal {
    script: Child,
    bytes: std::sync::mpsc::Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Terminal {
    fn start(node: &Node, rows: u16, columns: u16) -> Self {
        let osctl = env!("CARGO_BIN_EXE_osctl");
        let (endpoint, pin) = (&node.endpoint, node.fingerprint());
        let command = format!(
            "stty rows {rows} cols {columns}; exec {osctl} --endpoint {endpoint} --fingerprint {pin} dashboard"
        );
        let mut script = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env("OSCTL_HOME", node.home())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = script.stdout.take().unwrap();
        let (send, bytes) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut piece) {
                let _ = send.send(piece[..count].to_vec());
            }
        });
        Self {
            script,
            bytes,
            screen: vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0),
        }
    }

    fn keys(&mut self, keys: &str) {
        std::io::Write::write_all(self.script.stdin.as_mut().unwrap(), keys.as_bytes()).unwrap();
    }

    /// Waits until the screen is as hoped; a screen that never is fails the test rather than hang it.
    fn until(&mut self, hoped: impl Fn(&vt100::Screen) -> bool) {
        while !hoped(self.screen.screen()) {
            let piece = self.bytes.recv_timeout(std::time::Duration::from_secs(60));
            let piece = piece.unwrap_or_else(|_| panic!("{}", self.screen.screen().contents()));
            self.screen.process(&piece);
        }
    }

    fn shows(&mut self, text: &str) {
        self.until(|screen| screen.contents().contains(text));
    }

    /// It ends well, and gives the screen back.
    fn ends(mut self) {
        self.until(|screen| !screen.alternate_screen());
        assert_eq!(self.script.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn the_dashboard_runs_in_a_real_terminal() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let mut terminal = Terminal::start(&node, 30, 100);
    terminal.shows("containerd");
    terminal.keys("2");
    terminal.shows("SINCE");
    terminal.keys("4");
    init.say("something new");
    terminal.shows("something new");
    terminal.keys("?");
    terminal.shows("ctrl-c");
    terminal.keys("qq");
    terminal.ends();

    for size in [(1, 1), (3, 20)] {
        let mut tiny = Terminal::start(&node, size.0, size.1);
        tiny.until(vt100::Screen::alternate_screen);
        tiny.keys("1234?\u{3}");
        tiny.ends();
    }
    let piped = node.pinned(&["dashboard"]);
    assert_eq!(piped.code, Some(2));
    assert!(piped.stderr.contains("the dashboard needs a terminal"), "{}", piped.stderr);
}

#[test]
fn a_changed_fingerprint_is_refused_loudly() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let old = "ab".repeat(32);
    assert_eq!(node.osctl(&["known-nodes", "add", &node.endpoint, &old]).code, Some(0));
    let refused = node.osctl(&["status"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    let file = node.home().join("known-nodes");
    for part in [
        "ITS CERTIFICATE IS NOT THE ONE THAT IS KNOWN\n".to_owned(),
        format!("  known  {old} since 20"),
        format!(", {}:2\n  shown  {}\n", file.display(), node.fingerprint()),
        format!("if it shows the new one: osctl known-nodes remove {}\n", node.endpoint),
    ] {
        assert!(refused.stderr.contains(&part), "{part} is not in {}", refused.stderr);
    }
    let listed = node.osctl(&["known-nodes", "list"]);
    assert!(listed.stdout.contains(&old), "{listed:?}");
    assert_eq!(node.osctl(&["known-nodes", "remove", &node.endpoint]).code, Some(0));
    assert_eq!(node.osctl(&["known-nodes", "remove", &node.endpoint]).code, Some(1));
    let unknown = node.osctl(&["--known-only", "status"]);
    assert_eq!(unknown.code, Some(1));
    let add = format!("osctl known-nodes add {} {}\n", node.endpoint, node.fingerprint());
    assert!(unknown.stderr.ends_with(&add), "{}", unknown.stderr);
    assert_eq!(
        node.osctl(&["known-nodes", "add", &node.endpoint, &node.fingerprint()]).code,
        Some(0)
    );
    assert_eq!(node.osctl(&["--known-only", "status"]).code, Some(0));
}

#[test]
fn a_context_names_a_node() {
    let node = Node::start();
    let _init = node.init(GoalState::Reached);
    let home = node.home();
    let pin = node.fingerprint();
    let add = ["context", "add", "lab", "--endpoint", &node.endpoint, "--fingerprint", &pin];
    assert_eq!(osctl_at(&home, &add).stderr, "note: `lab` is in use from now on\n");
    assert_eq!(osctl_at(&home, &add).code, Some(2));
    let status = osctl_at(&home, &["status"]);
    assert_eq!((status.code, status.stderr.as_str()), (Some(0), ""));
    assert!(osctl_at(&home, &["context", "list"]).stdout.contains("* lab "));
    assert_eq!(osctl_at(&home, &["--keel-context", "gone", "status"]).code, Some(2));
    // Another node is not measured by this one's fingerprint.
    let other = Node::start();
    let _init = other.init(GoalState::Reached);
    assert_eq!(osctl_at(&home, &["--endpoint", &other.endpoint, "status"]).code, Some(0));
    assert_eq!(osctl_at(&home, &["context", "remove", "lab"]).code, Some(0));
    assert_eq!(osctl_at(&home, &["status"]).code, Some(2));
}

/// A command line that is wrong: what it says.
fn check_usage(args: &[&str], expect: &str) {
    let ended = osctl(args);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(expect), "{} does not contain {expect}", ended.stderr);
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    check_usage(&["status"], "next: give --endpoint HOST, set OSCTL_ENDPOINT, or make a context");
    check_usage(&["--endpoint", "ftp://a", "status"], "unknown scheme `ftp`");
    check_usage(&["--endpoint", "a", "--fingerprint", "12", "status"], "this has 2");
    check_usage(&["--endpoint", "a", "statsu"], "a similar subcommand exists: 'status'");
}

#[test]
fn whatever_else_answers_is_named() {
    // Nobody: the port was free a moment ago, and nothing else on this address is told about it.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let nobody = osctl(&["--endpoint", &free, "status"]);
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stderr.contains("it cannot be reached\ncause: Connection refused"),
        "{}",
        nobody.stderr
    );

    // Something that speaks, but not TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let speaker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
        // Until osctl has hung up: closing first could cost it the bytes that it is to judge.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let plain = osctl(&["--endpoint", &address, "status"]);
    speaker.join().unwrap();
    assert_eq!(plain.code, Some(1));
    assert!(plain.stderr.contains("it does not speak TLS 1.3\ncause: "), "{}", plain.stderr);
    assert!(
        plain.stderr.contains("next: is this the port of a Keel node's API?"),
        "{}",
        plain.stderr
    );
}

/// What the book shows of a node that runs: its lines, with this node's address for the example's.
#[test]
fn the_lines_of_the_book_for_a_node_run() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let pages = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    // What steers a node wants a certificate, and what explains one wants a graph: steer.rs has both.
    let pages = pages.filter(|page| page.extension().is_some_and(|e| e == "md"));
    let pages = pages.filter(|page| !page.ends_with("operating.md"));
    let texts: Vec<_> = pages.map(|page| fs::read_to_string(page).unwrap()).collect();
    let lines: Vec<_> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.strip_prefix("$ osctl --endpoint 192.0.2.10 "))
        .map(|line| line.split("  #").next().unwrap())
        // Files with certificates in them, and several nodes: mtls.rs and a test above have those.
        .filter(|line| !line.starts_with("--"))
        // It needs a terminal, and has a test of its own.
        .filter(|line| *line != "dashboard")
        .filter(|line| !line.starts_with("explain "))
        .collect();
    assert!(lines.len() >= 3, "{lines:?}");

    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let folder = TempDir::new().unwrap();
    for line in lines {
        let mut osctl =
            osctl_command(&["--endpoint", &node.endpoint, "--fingerprint", &node.fingerprint()]);
        osctl.args(shlex::split(line).unwrap()).current_dir(folder.path());
        if line.contains("--follow") {
            // It would go on for ever; that it takes the line and waits is what the book says.
            let mut osctl = osctl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            init.say("something new");
            let mut stdout = BufReader::new(osctl.stdout.take().unwrap());
            assert!(!next_line(&mut stdout).is_empty(), "{line}");
            osctl.kill().unwrap();
            osctl.wait().unwrap();
        } else {
            let output = osctl.output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
