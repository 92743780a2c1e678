//! `cargo bench -p keel-agent --bench load`: how fast the agent answers GetStatus to clients with certificates, and what that takes.
//!
//! Each client has a connection of its own, on which one call has been answered before the row is measured. Rows are of two kinds:
//!
//! - In a **closed loop** a client calls again as soon as it has its answer: with N of them, N calls are always under way. That
//!   measures how much the machine can do; how long a call takes is then N divided by that, whatever the agent does.
//! - In an **open loop** clients call at a rate, as people and tools do. That is what they see. A call that is late because the one
//!   before it was not answered yet is counted from when it was due.
//!
//! The clients, and what stands for init, take more of the processors than the agent does; what the agent takes is in a column.

#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keel_control::{
    BootRecord, ConnectionError, EventLog, GoalState, Inventory, Limits, LogQuery, LogSource,
    Refusal, Service, Shutdown, Status, UnitList,
};
use support::pki::{Authority, Issued};
use support::{Agent, Connection, Start};

/// How long each row is measured.
const TIME: Duration = Duration::from_secs(10);

/// Rows: clients at one time, and how often each calls in a second; none in a closed loop.
const ROWS: [(usize, Option<u32>); 5] =
    [(1, None), (100, Some(20)), (100, None), (1000, Some(2)), (1000, None)];

const METHOD: &str = "/keel.v1.Node/GetStatus";

/// An init that has its status ready.
struct Machine(EventLog);

impl Service for Machine {
    async fn status(&self) -> Result<Status, Refusal> {
        Ok(Status {
            version: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            hostname: "node-1".to_owned(),
            machine_id: Some("0f3a5c7e91b24d4e8a6b0123456789ab".to_owned()),
            uptime_ms: 61_000,
            goal: "boot".to_owned(),
            state: GoalState::Reached,
            degraded: vec![],
            digest: format!("sha256:{}", "0123abcd".repeat(8)),
            links: vec![],
            boot: None,
        })
    }

    async fn units(&self) -> Result<UnitList, Refusal> {
        unreachable!("nobody asks")
    }

    async fn inventory(&self) -> Result<Inventory, Refusal> {
        unreachable!("nobody asks")
    }

    fn events(&self) -> &EventLog {
        &self.0
    }

    fn logs(&self, _: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
        unreachable!("nobody asks")
    }

    async fn boot(&self) -> Result<BootRecord, Refusal> {
        unreachable!("nobody asks")
    }

    async fn trace(&self) -> Result<Vec<u8>, Refusal> {
        unreachable!("nobody asks")
    }

    async fn shutdown(&self, _: Shutdown) -> Result<(), Refusal> {
        unreachable!("nobody asks")
    }

    fn connection_failed(&self, _: &ConnectionError) {}
}

/// One row of the table.
struct Row {
    calls: usize,
    seconds: f64,
    p50: Duration,
    p99: Duration,
    slowest: Duration,
    /// With all connections made and nothing to do, and after the calls.
    idle_kib: u64,
    rss_kib: u64,
    cpu_seconds: f64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let authority = Authority::new("cluster");
    let start = Start::new().cluster_ca(&authority.pem);
    let _inside = runtime.enter();
    let listener = keel_control::bind(&start.path("control.sock")).expect("a socket");
    let machine = Arc::new(Machine(EventLog::new(4)));
    // Init has a thread of its own, as it is a process of its own on a node.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let limits = Limits::default();
        runtime.expect("a runtime").block_on(async {
            let listener = listener.into_std().expect("a socket");
            let listener = tokio::net::UnixListener::from_std(listener).expect("a socket");
            keel_control::serve(listener, machine, limits).await
        })
    });
    let agent = start.start();
    let admin = authority.client(&["keel:admin"]);
    let mut out = std::io::stdout();
    let head = "| clients | loop | calls/s | p50 ms | p99 ms | slowest ms | agent's µs a call | RSS MiB idle | after |";
    writeln!(out, "{head}\n|---:|---|---:|---:|---:|---:|---:|---:|---:|").expect("stdout");
    for (clients, rate) in ROWS {
        let row = runtime.block_on(measure(&agent, &admin, clients, rate));
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let kind = match rate {
            None => "closed".to_owned(),
            Some(rate) => format!("open, {rate}/s each"),
        };
        writeln!(
            out,
            "| {clients} | {kind} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.1} | {:.1} |",
            row.calls as f64 / row.seconds,
            ms(row.p50),
            ms(row.p99),
            ms(row.slowest),
            1e6 * row.cpu_seconds / row.calls as f64,
            row.idle_kib as f64 / 1024.0,
            row.rss_kib as f64 / 1024.0,
        )
        .expect("stdout");
    }
    let load = fs::read_to_string("/proc/loadavg").expect("Linux");
    writeln!(out, "\nload at the end: {load}").expect("stdout");
}

async fn measure(agent: &Agent, admin: &Issued, clients: usize, rate: Option<u32>) -> Row {
    let mut connections = Vec::new();
    for _ in 0..clients {
        let mut connection = agent.connect(Some(admin)).await;
        assert_eq!(connection.call(METHOD).await, "OK");
        connections.push(connection);
    }
    let (idle_kib, cpu) = (memory(agent, "VmRSS:"), cpu_seconds(agent));
    let began = Instant::now();
    let every = rate.map(|rate| Duration::from_secs(1) / rate);
    let clients_run = connections.into_iter().enumerate().map(|(number, connection)| {
        // Not all at the same moment.
        let first = began + every.unwrap_or_default().mul_f64(number as f64 / clients as f64);
        tokio::spawn(client(connection, began, first, every))
    });
    let mut times = Vec::new();
    // Spawned all before the first is waited for.
    for client in clients_run.collect::<Vec<_>>() {
        times.extend(client.await.expect("a client"));
    }
    let seconds = began.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Row {
        calls: times.len(),
        seconds,
        p50: at(0.5),
        p99: at(0.99),
        slowest: at(1.0),
        idle_kib,
        rss_kib: memory(agent, "VmRSS:"),
        cpu_seconds: cpu_seconds(agent) - cpu,
    }
}

/// Calls one after the other until the time is over.
async fn client(
    mut connection: Connection,
    began: Instant,
    first: Instant,
    every: Option<Duration>,
) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut due = first;
    while began.elapsed() < TIME {
        let mut call = Instant::now();
        if let Some(every) = every {
            match due.checked_duration_since(call) {
                Some(early) => {
                    tokio::time::sleep(early).await;
                    call = Instant::now();
                }
                None => call = due,
            }
            due += every;
        }
        assert_eq!(connection.call(METHOD).await, "OK");
        times.push(call.elapsed());
    }
    times
}

/// A line of the agent's /proc/PID/status, in KiB.
fn memory(agent: &Agent, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.child.id()));
    let status = status.expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Processor time that the agent has used: fields 14 and 15 of proc_pid_stat(5), in clock ticks of 10 ms.
fn cpu_seconds(agent: &Agent) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.child.id()));
    let stat = stat.expect("the agent runs");
    let after_name = stat.rsplit_once(')').expect("a name").1;
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<f64>().expect("a number"))
        .sum();
    ticks / 100.0
}
