//! What callers without a certificate can do to a node in maintenance, and what is kept of it.

#![cfg(test)]

mod support;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Bytes;
use keel_control::{
    Answer, Applied, Apply, BootRecord, ConnectionError, EventLog, Fate, Findings, GoalState,
    History, Inventory, Limits, LogQuery, LogSource, MutationPlan, Refusal, RefusalKind, Rollback,
    Service, Shutdown, Status, UnitList,
};
use keel_proto::v1::{ApplyMode, ApplyRequest, ConfigFile, RollbackRequest};
use prost::Message;
use support::pki::Authority;
use support::{Agent, Connection, PATIENCE, Start, end, put};
use tokio::sync::{Notify, Semaphore};

const APPLY: &str = "/keel.v1.Config/Apply";
const ROLLBACK: &str = "/keel.v1.Config/Rollback";
const CHECK: &str = "/grpc.health.v1.Health/Check";
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
    // Nobody waits whom the node may not let in any more when his turn comes.
    let mut two = stranger().await;
    let waits = ApplyRequest { wait: true, ..apply("late") };
    let said = call(&mut two, APPLY, &waits).await;
    assert!(said.starts_with("FailedPrecondition: without a certificate nobody waits"), "{said}");
    let written = async |file: &str| {
        while kept(&agent, file).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, written("reads.jsonl")).await.unwrap();
    assert_eq!(kept(&agent, "changes.jsonl"), [""; 0], "nothing has come of it yet");
    machine.turn.add_permits(1);
    tokio::time::timeout(PATIENCE, written("changes.jsonl")).await.unwrap();
    stop(&mut agent);
    assert_eq!(kept(&agent, "changes.jsonl"), [format!("{APPLY} CANCELLED")]);
    assert_eq!(kept(&agent, "reads.jsonl"), [format!("{APPLY} FAILED_PRECONDITION")]);
}

/// A config of about 250 KiB.
fn large() -> ApplyRequest {
    let mut request = apply("staged");
    request.files[0].text.push_str(&"# nothing\n".repeat(25 * 1024));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_of_the_largest_size_is_taken() {
    let (agent, _machine) = node();
    let mut stranger = agent.connect(None).await;
    assert!(large().encoded_len() > 250 * 1024);
    assert_eq!(call(&mut stranger, APPLY, &large()).await, "OK");
    let mut beyond = large();
    beyond.files[0].text = "#".repeat(400 * 1024);
    let said = call(&mut stranger, APPLY, &beyond).await;
    assert!(said.starts_with("OutOfRange: the request is 409"), "{said}");
    // What stands beside the text has bounds as everywhere.
    let mut request = apply("staged");
    request.files[0].name = "x".repeat(257);
    let said = call(&mut stranger, APPLY, &request).await;
    assert_eq!(said, "InvalidArgument: `files[0].name` is 257 bytes long; it may have 256");
    let request = ApplyRequest { base_digest: "x".repeat(257), ..apply("staged") };
    let said = call(&mut stranger, APPLY, &request).await;
    assert_eq!(said, "InvalidArgument: `base_digest` is 257 bytes long; it may have 256");
    let mut request = apply("staged");
    request.files = vec![request.files.remove(0); 1025];
    let said = call(&mut stranger, APPLY, &request).await;
    assert_eq!(said, "InvalidArgument: `files` has 1025 entries; it may have 1024");
}

/// Who announces a large config, sends half of it, and then nothing: what that comes to.
async fn half_a_config(agent: &Agent, source: IpAddr) -> tokio::task::JoinHandle<String> {
    let mut send = agent.http2_from(source).await;
    let mut half = vec![0];
    half.extend(250_000_u32.to_be_bytes());
    half.resize(125_000, b'#');
    let half = tokio_stream::once(Ok::<_, Infallible>(Frame::data(Bytes::from(half))));
    let body = StreamBody::new(tokio_stream::StreamExt::chain(half, tokio_stream::pending()));
    let request = http::Request::post(format!("https://node{APPLY}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    tokio::spawn(async move {
        match send.send_request(request).await {
            Ok(answer) => end(answer).await,
            Err(error) => format!("{error:?}"),
        }
    })
}

/// What the agent holds of memory, in KiB.
fn resident(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_who_send_half_a_config_fill_nothing() {
    const STRANGERS: u8 = 200;
    /// That many may have theirs on the way in.
    const PLACES: usize = 8;

    let (agent, _machine) = node();
    // The same without the configs, for what connections take.
    let mut others = Vec::new();
    for last in 1..=STRANGERS {
        let mut one = agent.connect_from([127, 0, 1, last].into()).await;
        assert_eq!(one.call(CHECK).await, "OK");
        others.push(one);
    }
    let before = resident(&agent);
    let mut half = Vec::new();
    for last in 1..=STRANGERS {
        half.push(half_a_config(&agent, [127, 0, 2, last % 40].into()).await);
    }
    // All that have no place any more are told so.
    let told = async {
        while half.iter().filter(|one| one.is_finished()).count() < usize::from(STRANGERS) - PLACES
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("they lose their places");
    let more = resident(&agent) - before;
    // As many connections as there were before take as much as those; what was sent is three times that.
    assert!(more < 20 * 1024, "{before} KiB, and {more} KiB more");
    let mut honest = agent.connect_from([127, 0, 3, 1].into()).await;
    assert_eq!(honest.call(CHECK).await, "OK");
    assert_eq!(call(&mut honest, APPLY, &large()).await, "OK");
    for one in half.into_iter().filter(tokio::task::JoinHandle::is_finished) {
        let said = one.await.unwrap();
        assert!(said.starts_with("ResourceExhausted: others needed the place"), "{said}");
    }
}

/// A call whose bytes come through a channel.
fn in_pieces(
    method: &str,
    pieces: tokio::sync::mpsc::Receiver<Bytes>,
) -> http::Request<impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + use<>>
{
    let pieces = tokio_stream::wrappers::ReceiverStream::new(pieces);
    let frames = tokio_stream::StreamExt::map(pieces, |piece| Ok(Frame::data(piece)));
    http::Request::post(format!("https://node{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(frames))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_before_the_node_is_closed_and_ends_after_it_is_refused() {
    let (mut agent, _machine) = node();
    let mut send = agent.http2_from([127, 0, 0, 1].into()).await;
    let message = apply("staged").encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    let last = Bytes::from(bytes.split_off(bytes.len() - 1));
    let (body, pieces) = tokio::sync::mpsc::channel(2);
    body.send(Bytes::from(bytes)).await.unwrap();
    let answer = tokio::spawn(send.send_request(in_pieces(APPLY, pieces)));
    // Its beginning is there once what was asked after it is answered.
    let (check, pieces) = tokio::sync::mpsc::channel(1);
    check.send(Bytes::from_static(&[0; 5])).await.unwrap();
    drop(check);
    assert_eq!(end(send.send_request(in_pieces(CHECK, pieces)).await.unwrap()).await, "OK");

    put(&agent.path("trust/cluster-ca.crt"), &Authority::new("cluster").pem);
    agent.logged("trusted: CN=cluster");
    body.send(last).await.unwrap();
    drop(body);
    let said = match tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap() {
        Ok(answer) => end(answer).await,
        Err(error) => format!("{error:?}"),
    };
    assert!(said.starts_with("Unauthenticated"), "{said}");
    stop(&mut agent);
    assert_eq!(kept(&agent, "changes.jsonl"), [""; 0], "nothing came of it");
}
