//! The dashboard under a scripted terminal: keys go in, screens come out; behind it a node that the test makes up.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keel_proto::v1::event::What;
use keel_proto::v1::{
    Event, Fact, GoalState, ListUnitsResponse, LogLine, Mode, NodeStatus, Process, Unit, UnitBoot,
    UnitProcesses, UnitState, UnitTransition, UnitVerb,
};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use tokio::sync::mpsc;
use tonic::transport::Endpoint;
use tower::service_fn;

use super::model::{Answer, Feed, Key, Message, Model, Overlay, Question, Tab};
use super::source::Source;
use super::view;
use crate::node::Connection;

#[path = "../../../tests/fake/mod.rs"]
mod fake;

use fake::{Fake, Machine};

fn ms(ms: i64) -> Option<prost_types::Duration> {
    let nanos = i32::try_from(ms % 1000).unwrap() * 1_000_000;
    Some(prost_types::Duration { seconds: ms / 1000, nanos })
}

fn unit(name: &str, stage: Option<&str>, state: UnitState, began: i64) -> Unit {
    Unit {
        name: name.to_owned(),
        kind: "service".to_owned(),
        stage: stage.map(str::to_owned),
        description: format!("The {name}"),
        state: state.into(),
        since: ms(2_000),
        took: ms(120),
        attempts: 1,
        boot: Some(UnitBoot { state: state.into(), began: ms(began), ..UnitBoot::default() }),
        ..Unit::default()
    }
}

fn machine() -> Machine {
    let line = |seq, unit: &str, text: &str| LogLine {
        unit: unit.to_owned(),
        seq,
        at: ms(1_500),
        text: text.to_owned(),
        ..LogLine::default()
    };
    let transition = UnitTransition {
        unit: "containerd".to_owned(),
        from: UnitState::Activating.into(),
        to: UnitState::Running.into(),
        why: None,
    };
    let fact = Fact { unit: None, text: "the clock was set \u{1b}[31mforward".to_owned() };
    let process = |pid, name: &str| Process { pid, name: name.to_owned(), ..Process::default() };
    let processes = |unit: &str, memory, pid| UnitProcesses {
        unit: unit.to_owned(),
        cpu: ms(4_000),
        memory_bytes: Some(memory),
        count: 1,
        processes: vec![process(pid, unit)],
        ..UnitProcesses::default()
    };
    Machine {
        status: NodeStatus {
            hostname: "node-1".to_owned(),
            goal: "boot".to_owned(),
            state: GoalState::Booting.into(),
            uptime: ms(61_000),
            mode: Mode::Maintenance.into(),
            ..NodeStatus::default()
        },
        units: vec![
            unit("kubelet", Some("services"), UnitState::Activating, 900),
            unit("containerd", Some("services"), UnitState::Running, 800),
            unit("mount.data", Some("storage"), UnitState::Running, 100),
            unit("partition.data", Some("storage"), UnitState::Exited, 50),
            Unit {
                note: Some("no server answered".to_owned()),
                ..unit("time", Some("network"), UnitState::Failed, 400)
            },
            unit("storage", None, UnitState::Exited, 0),
        ],
        processes: vec![processes("containerd", 48 << 20, 77), processes("kubelet", 90 << 20, 99)],
        lines: vec![
            line(1, "containerd", "starting"),
            line(2, "kubelet", "cannot reach \u{1b}]0;evil\u{7}"),
            line(3, "containerd", "ready"),
        ],
        events: vec![
            Event { seq: 1, at: ms(950), what: Some(What::Transition(transition)) },
            Event { seq: 2, at: ms(1_000), what: Some(What::Fact(fact)) },
        ],
        asked: Vec::new(),
    }
}

/// A dashboard, its node, and how many answers are still to come.
struct Script {
    fake: Fake,
    model: Model,
    source: Source,
    messages: mpsc::Receiver<Message>,
    open: usize,
    now: Duration,
}

impl Script {
    async fn new() -> Self {
        let fake = Fake::default();
        *fake.0.lock().unwrap() = machine();
        let (near, far) = tokio::io::duplex(65_536);
        fake.serve(tokio_stream::once(Ok(far)));
        let near = Mutex::new(Some(TokioIo::new(near)));
        let connector = service_fn(move |_| {
            let near = near.lock().unwrap().take();
            std::future::ready(near.ok_or(std::io::Error::other("once only")))
        });
        let channel = Endpoint::from_static("http://node").connect_with_connector(connector).await;
        let (answers, messages) = mpsc::channel(64);
        let source = Source::new(None, Connection::over(channel.unwrap()), answers);
        let model = Model::new("192.0.2.10:50051".to_owned(), false);
        let mut script = Self { fake, model, source, messages, open: 0, now: Duration::ZERO };
        script.wait(0).await;
        // The first events come by a stream, whose question is never over.
        while script.model.events.is_empty() {
            script.next().await;
        }
        script.wait(0).await;
        script
    }

    fn ask(&mut self, questions: Vec<Question>) {
        self.open += questions.iter().filter(|one| one.feed() != Feed::Events).count();
        questions.into_iter().for_each(|one| self.source.ask(one));
    }

    async fn next(&mut self) {
        let message = self.messages.recv().await.unwrap();
        let stream = match &message {
            Message::Answered(Answer::Events { .. }) => true,
            Message::Failed { feed, .. } => *feed == Feed::Events,
            _ => false,
        };
        self.open -= usize::from(!stream);
        let questions = self.model.update(message);
        self.ask(questions);
    }

    /// So many seconds later, with every answer there.
    async fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        let questions = self.model.update(Message::Clock(self.now));
        self.ask(questions);
        while self.open > 0 {
            self.next().await;
        }
    }

    async fn keys(&mut self, keys: &str) {
        for c in keys.chars() {
            let key = match c {
                '\n' => Key::Enter,
                '\t' => Key::Tab,
                '\u{1b}' => Key::Esc,
                c => Key::Char(c),
            };
            let questions = self.model.update(Message::Key(key));
            self.ask(questions);
        }
        self.wait(0).await;
    }

    fn screen(&self) -> String {
        screen(&self.model, 100, 20)
    }
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(model, frame)).unwrap();
    if width == 0 {
        return String::new();
    }
    let lines: Vec<_> = terminal
        .backend()
        .to_string()
        .lines()
        .map(|line| line.trim_matches('"').trim_end().to_owned())
        .collect();
    lines.join("\n")
}

fn scripted(script: impl AsyncFnOnce(&mut Script)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = Script::new().await;
        script(&mut world).await;
    });
}

#[test]
fn pages() {
    scripted(async |world| {
        insta::assert_snapshot!("dashboard_boot", world.screen());
        world.keys("2k").await;
        world.wait(2).await;
        insta::assert_snapshot!("dashboard_units", world.screen());
        world.keys("kl").await;
        insta::assert_snapshot!("dashboard_log", world.screen());
        world.keys("\u{1b}\t").await;
        world.wait(2).await;
        for unit in &mut world.fake.0.lock().unwrap().processes {
            unit.cpu = if unit.unit == "kubelet" { ms(5_000) } else { ms(4_100) };
        }
        world.wait(2).await;
        insta::assert_snapshot!("dashboard_processes", world.screen());
        world.keys("4").await;
        insta::assert_snapshot!("dashboard_events", world.screen());
        world.keys("?").await;
        insta::assert_snapshot!("dashboard_help", world.screen());
        world.keys("??").await;
        assert!(!world.model.quit);
        world.keys("qq").await;
        assert!(world.model.quit);
    });
}

#[test]
fn a_unit_is_described_and_a_filter_finds_it() {
    scripted(async |world| {
        world.keys("2/contain\n").await;
        assert_eq!(world.model.names(), ["containerd"]);
        world.keys("d").await;
        insta::assert_snapshot!("dashboard_described", world.screen());
        world.keys("\u{1b}\u{1b}").await;
        assert_eq!(world.model.names().len(), 6);
    });
}

#[test]
fn nothing_is_changed_without_a_yes() {
    scripted(async |world| {
        let asked = |world: &Script| world.fake.0.lock().unwrap().asked.clone();
        world.keys("2/kubelet\nS").await;
        insta::assert_snapshot!("dashboard_confirm", world.screen());
        world.keys("n").await;
        assert_eq!(asked(world), ["Stop kubelet (dry)"]);
        world.keys("r").await;
        // The cursor goes elsewhere while the question stands: it is still about the same unit.
        world.fake.0.lock().unwrap().units.retain(|unit| unit.name != "kubelet");
        world.model.filter.clear();
        world.wait(2).await;
        assert_ne!(world.model.selected.as_deref(), Some("kubelet"));
        world.fake.0.lock().unwrap().units = machine().units;
        world.keys("y").await;
        assert_eq!(asked(world)[1..], ["Restart kubelet (dry)", "Restart kubelet"]);
        assert!(world.screen().ends_with("the node does it: kubelet"), "{}", world.screen());
    });
}

#[test]
fn an_old_plan_is_no_answer_to_a_new_question() {
    let mut model = Model::new("node".to_owned(), false);
    model.overlay = Some(Overlay::Confirm { unit: "a".into(), verb: UnitVerb::Stop, plan: None });
    let answer = Answer::Control {
        unit: "b".to_owned(),
        verb: UnitVerb::Stop,
        answer: keel_proto::v1::ControlUnitResponse::default(),
        done: false,
    };
    model.update(Message::Answered(answer));
    assert!(matches!(model.overlay, Some(Overlay::Confirm { plan: None, .. })));
    assert!(model.update(Message::Key(Key::Char('y'))).is_empty());
}

#[test]
fn what_is_old_or_failed_is_said_so() {
    let mut model = Model::new("node".to_owned(), false);
    model.update(Message::Answered(Answer::Status(Box::default())));
    model.update(Message::Answered(Answer::Units(ListUnitsResponse::default())));
    model.update(Message::Clock(Duration::from_secs(5)));
    assert!(!screen(&model, 80, 5).contains("old"));
    model.update(Message::Clock(Duration::from_secs(9)));
    assert!(screen(&model, 80, 5).contains("9 s old"), "{}", screen(&model, 80, 5));
    model.update(Message::Failed { feed: Feed::Units, why: "gone".to_owned(), anew: false });
    assert!(screen(&model, 80, 5).contains("9 s old: gone"), "{}", screen(&model, 80, 5));
}

#[test]
fn a_node_that_was_restarted_counts_its_events_anew() {
    let mut model = Model::new("node".to_owned(), false);
    let event = Event { seq: 7, ..Event::default() };
    model.update(Message::Answered(Answer::Events { events: vec![event.clone(), event], next: 8 }));
    model.update(Message::Clock(Duration::from_secs(3)));
    let asked =
        model.update(Message::Failed { feed: Feed::Events, why: String::new(), anew: false });
    assert!(asked.contains(&Question::Events { from: 8 }), "{asked:?}");
    model.update(Message::Clock(Duration::from_secs(6)));
    let asked =
        model.update(Message::Failed { feed: Feed::Events, why: String::new(), anew: true });
    assert!(asked.contains(&Question::Events { from: 1 }) && model.events.is_empty(), "{asked:?}");
}

fn filled() -> Model {
    let machine = machine();
    let mut model = Model::new("node".to_owned(), false);
    let units = ListUnitsResponse { now: ms(60_000), units: machine.units };
    model.update(Message::Answered(Answer::Status(Box::new(machine.status))));
    model.update(Message::Answered(Answer::Units(units)));
    model.update(Message::Answered(Answer::Processes(machine.processes)));
    model.update(Message::Answered(Answer::Events { events: machine.events, next: 3 }));
    model
}

#[test]
fn any_size_will_do() {
    let mut model = filled();
    let overlays = [
        None,
        Some(Overlay::Help),
        Some(Overlay::Logs { unit: "kubelet".to_owned() }),
        Some(Overlay::Unit { unit: "kubelet".to_owned(), answer: None, down: 9 }),
        Some(Overlay::Confirm { unit: "kubelet".to_owned(), verb: UnitVerb::Stop, plan: None }),
    ];
    for tab in Tab::ALL {
        for overlay in &overlays {
            (model.tab, model.overlay) = (tab, overlay.clone());
            for (width, height) in [0, 1, 2, 3, 5, 9, 20, 60]
                .into_iter()
                .flat_map(|width| [0, 1, 2, 3, 4, 5, 8, 17].map(|height| (width, height)))
            {
                screen(&model, width, height);
            }
        }
    }
}

#[test]
fn without_colour_there_is_none() {
    let colours = |colour| {
        let mut model = filled();
        model.colour = colour;
        let mut terminal = Terminal::new(TestBackend::new(80, 20)).unwrap();
        terminal.draw(|frame| view::draw(&model, frame)).unwrap();
        let cells = terminal.backend().buffer().content().iter();
        cells.filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 0);
}

#[derive(Debug, Clone)]
enum Act {
    Key(Key),
    Later(u64),
    /// One of the questions that are open comes to this.
    Answer {
        which: usize,
        well: bool,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let key = prop::sample::select(vec![
        Key::Up,
        Key::Down,
        Key::PageUp,
        Key::PageDown,
        Key::Home,
        Key::End,
        Key::Enter,
        Key::Esc,
        Key::Tab,
        Key::BackTab,
        Key::Backspace,
        Key::Char('l'),
        Key::Char('d'),
        Key::Char('s'),
        Key::Char('S'),
        Key::Char('y'),
        Key::Char('n'),
        Key::Char('/'),
        Key::Char('?'),
        Key::Char('1'),
        Key::Char('2'),
        Key::Char('3'),
        Key::Char('4'),
        Key::Char('k'),
    ]);
    prop_oneof![
        4 => key.prop_map(Act::Key),
        2 => (0..5u64).prop_map(Act::Later),
        4 => (0..8usize, any::<bool>()).prop_map(|(which, well)| Act::Answer { which, well }),
    ]
}

fn answer(question: &Question) -> Answer {
    let machine = machine();
    match question.clone() {
        Question::Status => Answer::Status(Box::new(machine.status)),
        Question::Units => {
            Answer::Units(ListUnitsResponse { now: ms(60_000), units: machine.units })
        }
        Question::Processes => Answer::Processes(machine.processes),
        Question::Events { .. } => Answer::Events { events: machine.events, next: 3 },
        Question::Logs { unit, .. } => Answer::Logs { unit, lines: machine.lines },
        Question::Unit { .. } => Answer::Unit(Box::default()),
        Question::Control { unit, verb, digest } => {
            let answer = keel_proto::v1::ControlUnitResponse::default();
            Answer::Control { unit, verb, answer, done: digest.is_some() }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is typed and however slow the node is: no question is put twice at once, and every state can be drawn.
    #[test]
    fn one_question_of_a_kind_at_a_time(acts in prop::collection::vec(act(), 1..80)) {
        let mut model = Model::new("node".to_owned(), true);
        let mut open: BTreeMap<Feed, Question> = BTreeMap::new();
        let mut now = 0;
        for act in acts {
            let message = match act {
                Act::Key(key) => Message::Key(key),
                Act::Later(seconds) => {
                    now += seconds;
                    Message::Clock(Duration::from_secs(now))
                }
                Act::Answer { which, well } => {
                    let Some(question) = open.values().nth(which).cloned() else { continue };
                    let feed = question.feed();
                    // A stream stays open after it has said something.
                    if !well || feed != Feed::Events {
                        open.remove(&feed);
                    }
                    if well {
                        Message::Answered(answer(&question))
                    } else {
                        Message::Failed { feed, why: "it broke".to_owned(), anew: false }
                    }
                }
            };
            for question in model.update(message) {
                let feed = question.feed();
                prop_assert!(open.insert(feed, question).is_none(), "{feed:?} was asked twice");
            }
        }
        screen(&model, 60, 18);
    }
}
