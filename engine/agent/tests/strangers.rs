//! What callers without a certificate can do to a node in maintenance, and what is kept of it.

#![cfg(test)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use keel_control::{
    Answer, Applied, Apply, BootRecord, ConnectionError, EventLog, Fate, Findings, GoalState,
    History, Inventory, Limits, LogQuery, LogSource, MutationPlan, Refusal, RefusalKind, Rollback,
    Service, Shutdown, Status, UnitList,
};
use keel_proto::v1::{ApplyMode, ApplyRequest, ConfigFile, RollbackRequest};
use prost::Message;
use support::{Agent, Connection, PATIENCE, Start, end};
use tokio::sync::{Notify, Semaphore};

const APPLY: &str = "/keel.v1.Config/Apply";
const ROLLBACK: &str = "/keel.v1.Config/Rollback";
const CONFIRM: &str = "/keel.v1.Config/Confirm";

/// An init that does with a config what its reason says.
struct Machine {
    events: EventLog,
    /// A config that waits for its turn has come.
    asked: Notify,
    /// Its turn has come.
    turn: Semaphore,
}

fn impossible<T>() -> Result<T, Refusal> {
    Err(RefusalKind::Impossible("not on this machine".to_owned()).into())
}

impl Machine {
    async fn change(&self, dry_run: bool, reason: &str) -> Result<Answer, Refusal> {
        let fate = match reason {
            _ if dry_run => Fate::DryRun,
            "invalid" => {
                let findings = Findings { drawn: String::new(), findings: vec![] };
                return Ok(Answer::Invalid(findings));
            }
            "refused" => return impossible(),
            "nothing" => Fate::Nothing,
            "late" => {
                self.asked.notify_one();
                // Init does it, whoever has left meanwhile.
                self.turn.acquire().await.unwrap().forget();
                Fate::Staged
            }
            "staged" => Fate::Staged,
            other => panic!("{other}"),
        };
        let plan = MutationPlan {
            base: String::new(),
            target: String::new(),
            changes: vec![],
            kept: 0,
            needs_reboot: false,
            boot: None,
        };
        let generation = (fate == Fate::Staged).then_some(1);
        Ok(Answer::Planned(Applied { plan, fate, generation, from_seq: 0 }))
    }
}

impl Service for Machine {
    async fn status(&self) -> Result<Status, Refusal> {
        Ok(Status {
            version: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            hostname: "node-1".to_owned(),
            machine_id: None,
            uptime_ms: 61_000,
            goal: "boot".to_owned(),
            state: GoalState::Reached,
            degraded: vec![],
            digest: "sha256:00".to_owned(),
            links: vec![],
            boot: None,
        })
    }

    async fn units(&self) -> Result<UnitList, Refusal> {
        impossible()
    }

    async fn inventory(&self) -> Result<Inventory, Refusal> {
        impossible()
    }

    fn events(&self) -> &EventLog {
        &self.events
    }

    fn logs(&self, _: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
        impossible()
    }

    async fn boot(&self) -> Result<BootRecord, Refusal> {
        impossible()
    }

    async fn trace(&self) -> Result<Vec<u8>, Refusal> {
        impossible()
    }

    async fn shutdown(&self, _: Shutdown) -> Result<(), Refusal> {
        impossible()
    }

    async fn apply(&self, ask: Apply) -> Result<Answer, Refusal> {
        self.change(ask.dry_run, &ask.reason).await
    }

    async fn rollback(&self, ask: Rollback) -> Result<Answer, Refusal> {
        self.change(ask.dry_run, &ask.reason).await
    }

    async fn history(&self) -> Result<History, Refusal> {
        let (generations, damage) = (vec![], vec![]);
        Ok(History { generations, current: None, next: None, trial: None, damage })
    }

    fn connection_failed(&self, _: &ConnectionError) {}
}

/// A node in maintenance, and its init.
fn node() -> (Agent, Arc<Machine>) {
    let start = Start::new();
    let listener = keel_control::bind(&start.path("control.sock")).unwrap();
    let machine = Arc::new(Machine {
        events: EventLog::new(4),
        asked: Notify::new(),
        turn: Semaphore::new(0),
    });
    tokio::spawn(keel_control::serve(listener, machine.clone(), Limits::default()));
    (start.start(), machine)
}

fn apply(reason: &str) -> ApplyRequest {
    let text = "schema = 1\n".to_owned();
    ApplyRequest {
        files: vec![ConfigFile { name: "config.toml".to_owned(), text }],
        mode: ApplyMode::Staged.into(),
        reason: reason.to_owned(),
        ..ApplyRequest::default()
    }
}

async fn call(node: &mut Connection, method: &str, request: &impl Message) -> String {
    end(node.begin_with(method, &[&request.encode_to_vec()]).await.unwrap()).await
}

/// The methods of which a file of the audit log has records, and what came of them.
fn kept(agent: &Agent, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(agent.path("audit").join(file)).unwrap_or_default();
    let field = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!("\"{key}\":\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| format!("{} {}", field(line, "method"), field(line, "result"))).collect()
}

/// Ends the agent, so that all of its records are written.
fn stop(agent: &mut Agent) {
    agent.signal("-TERM");
    assert!(agent.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_strangers_change_is_kept_among_the_changes() {
    let (mut agent, _machine) = node();
    let mut stranger = agent.connect(None).await;
    let dry = ApplyRequest { dry_run: true, ..apply("staged") };
    assert_eq!(call(&mut stranger, APPLY, &dry).await, "OK");
    for reason in ["invalid", "nothing"] {
        assert_eq!(call(&mut stranger, APPLY, &apply(reason)).await, "OK");
    }
    for wrong in [apply("refused"), ApplyRequest { mode: 0, ..apply("staged") }] {
        assert_ne!(call(&mut stranger, APPLY, &wrong).await, "OK");
    }
    let mode = ApplyMode::Staged.into();
    let back = RollbackRequest { mode, dry_run: true, ..RollbackRequest::default() };
    assert_eq!(call(&mut stranger, ROLLBACK, &back).await, "OK");
    let back = RollbackRequest { mode, reason: "refused".to_owned(), ..RollbackRequest::default() };
    assert_ne!(call(&mut stranger, ROLLBACK, &back).await, "OK");
    assert_ne!(stranger.call(CONFIRM).await, "OK");

    assert_eq!(call(&mut stranger, APPLY, &apply("staged")).await, "OK");
    stop(&mut agent);
    assert_eq!(kept(&agent, "changes.jsonl"), [format!("{APPLY} OK")]);
    assert_eq!(kept(&agent, "reads.jsonl").len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_too_early_is_kept_by_what_came_of_it() {
    let (mut agent, machine) = node();
    let stranger = async || agent.connect(None).await;
    // Init does this one after the caller has left.
    let mut one = stranger().await;
    let answer = one.begin_with(APPLY, &[&apply("late").encode_to_vec()]).await.unwrap();
    machine.asked.notified().await;
    drop((answer, one));
    // Who waits for another's turn to end, and leaves, has changed nothing.
    let mut two = stranger().await;
    let waits = ApplyRequest { wait: true, ..apply("late") };
    let answer = two.begin_with(APPLY, &[&waits.encode_to_vec()]).await.unwrap();
    machine.asked.notified().await;
    drop((answer, two));
    let written = async |file: &str| {
        while kept(&agent, file).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written("reads.jsonl")).await.unwrap();
    assert_eq!(kept(&agent, "changes.jsonl"), [""; 0], "nothing has come of either yet");
    machine.turn.add_permits(1);
    tokio::time::timeout(PATIENCE, written("changes.jsonl")).await.unwrap();
    stop(&mut agent);
    assert_eq!(kept(&agent, "changes.jsonl"), [format!("{APPLY} CANCELLED")]);
    assert_eq!(kept(&agent, "reads.jsonl"), [format!("{APPLY} CANCELLED")]);
}
