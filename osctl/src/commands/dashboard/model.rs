//! What the dashboard knows and what it shows: all of it is here, and [`Model::update`] is all that changes it.
//!
//! It reads no clock and asks no node. It is told what happened by a [`Message`] and answers with the [`Question`]s to put next: one of a
//! [`Feed`] at a time, so that a slow link is never asked twice for the same thing, and never keeps a key waiting.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use keel_proto::v1::{
    ControlUnitResponse, Event, GetUnitResponse, ListUnitsResponse, LogLine, NodeStatus,
    UnitProcesses, UnitVerb,
};

use crate::node::millis;

/// How long an answer counts as fresh; then it is asked for again.
pub(crate) const EVERY: Duration = Duration::from_secs(2);

/// The most events and lines of a log that are kept.
const EVENTS: usize = 2_000;
const LINES: usize = 1_000;

/// A page of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tab {
    Boot,
    Units,
    Processes,
    Events,
}

impl Tab {
    pub(crate) const ALL: [Self; 4] = [Self::Boot, Self::Units, Self::Processes, Self::Events];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Boot => "Boot",
            Self::Units => "Units",
            Self::Processes => "Processes",
            Self::Events => "Events",
        }
    }

    fn beside(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|tab| *tab == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// A kind of question; at most one of each is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feed {
    Status,
    Units,
    Processes,
    Events,
    Logs,
    Unit,
    Control,
}

/// What is to be asked of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    Status,
    Units,
    Processes,
    /// All events from this number on, for as long as the stream lasts.
    Events {
        from: u64,
    },
    /// Lines of a unit from this number on.
    Logs {
        unit: String,
        from: u64,
    },
    Unit {
        unit: String,
    },
    Control {
        unit: String,
        verb: UnitVerb,
        digest: Option<String>,
    },
}

impl Question {
    pub(crate) fn feed(&self) -> Feed {
        match self {
            Self::Status => Feed::Status,
            Self::Units => Feed::Units,
            Self::Processes => Feed::Processes,
            Self::Events { .. } => Feed::Events,
            Self::Logs { .. } => Feed::Logs,
            Self::Unit { .. } => Feed::Unit,
            Self::Control { .. } => Feed::Control,
        }
    }
}

/// What the node answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Status(Box<NodeStatus>),
    Units(ListUnitsResponse),
    Processes(Vec<UnitProcesses>),
    /// Some events; the stream goes on.
    Events {
        events: Vec<Event>,
        next: u64,
    },
    Logs {
        unit: String,
        lines: Vec<LogLine>,
    },
    Unit(Box<GetUnitResponse>),
    Control {
        unit: String,
        verb: UnitVerb,
        answer: ControlUnitResponse,
        done: bool,
    },
}

/// A key, as far as the dashboard knows any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Esc,
    Tab,
    BackTab,
    Backspace,
    Interrupt,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// This long has gone by since the start.
    Clock(Duration),
    Key(Key),
    Answered(Answer),
    /// A question came to nothing, or a stream to its end; why, and whether the node has started counting anew.
    Failed {
        feed: Feed,
        why: String,
        anew: bool,
    },
}

/// How fresh a feed is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Freshness {
    under_way: bool,
    asked: Option<Duration>,
    pub(crate) answered: Option<Duration>,
    pub(crate) failed: Option<String>,
}

/// What lies over the page.
#[derive(Debug, Clone)]
pub(crate) enum Overlay {
    Help,
    Logs {
        unit: String,
    },
    Unit {
        unit: String,
        answer: Option<Box<GetUnitResponse>>,
        down: usize,
    },
    /// What would happen, once the node has told it. It is about this unit, wherever the cursor goes.
    Confirm {
        unit: String,
        verb: UnitVerb,
        plan: Option<ControlUnitResponse>,
    },
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) endpoint: String,
    pub(crate) colour: bool,
    pub(crate) now: Duration,
    pub(crate) tab: Tab,
    pub(crate) overlay: Option<Overlay>,
    pub(crate) filter: String,
    pub(crate) typing: bool,
    /// The unit under the cursor, by its name: it stays the same when rows move.
    pub(crate) selected: Option<String>,
    /// How many lines up from the newest one a log or the events are shown.
    pub(crate) back: usize,
    pub(crate) feeds: BTreeMap<Feed, Freshness>,
    pub(crate) status: Option<NodeStatus>,
    pub(crate) units: ListUnitsResponse,
    pub(crate) processes: Vec<UnitProcesses>,
    /// Processor time of a unit at the answer before, and what it came to since in thousandths of one processor.
    cpu: BTreeMap<String, (Duration, u64)>,
    pub(crate) load: BTreeMap<String, u64>,
    pub(crate) events: VecDeque<Event>,
    next_event: u64,
    /// The unit whose lines these are.
    pub(crate) log: (String, VecDeque<LogLine>),
    /// What came of the last change that was asked for.
    pub(crate) said: Option<String>,
    pub(crate) quit: bool,
}

impl Model {
    pub(crate) fn new(endpoint: String, colour: bool) -> Self {
        Self {
            endpoint,
            colour,
            now: Duration::ZERO,
            tab: Tab::Boot,
            overlay: None,
            filter: String::new(),
            typing: false,
            selected: None,
            back: 0,
            feeds: BTreeMap::new(),
            status: None,
            units: ListUnitsResponse::default(),
            processes: Vec::new(),
            cpu: BTreeMap::new(),
            load: BTreeMap::new(),
            events: VecDeque::new(),
            next_event: 1,
            log: (String::new(), VecDeque::new()),
            said: None,
            quit: false,
        }
    }

    /// Takes in what happened, and says what to ask.
    pub(crate) fn update(&mut self, message: Message) -> Vec<Question> {
        match message {
            Message::Clock(now) => self.now = now,
            Message::Key(key) => {
                let question = self.key(key);
                // A filter may have taken the unit under the cursor away: no key is ever about a unit that is not to be seen.
                self.keep_cursor();
                let Some(question) = question else { return Vec::new() };
                let control = question.feed() == Feed::Control;
                let asked = self.ask(question, true);
                if control && asked.is_none() {
                    self.overlay = None;
                    self.said = Some("the node has not answered the last request yet".to_owned());
                }
                return asked.into_iter().collect();
            }
            Message::Answered(answer) => self.answered(answer),
            Message::Failed { feed, why, anew } => self.failed(feed, why, anew),
        }
        self.keep_cursor();
        self.due()
    }

    /// Puts the cursor on the first unit where its own is not on the page.
    fn keep_cursor(&mut self) {
        let names = self.names();
        if !matches!(&self.selected, Some(unit) if names.contains(unit)) {
            self.selected = names.first().cloned();
        }
    }

    /// What the page needs and is not fresh any more.
    fn due(&mut self) -> Vec<Question> {
        let mut wanted =
            vec![Question::Status, Question::Units, Question::Events { from: self.next_event }];
        if self.tab == Tab::Processes {
            wanted.push(Question::Processes);
        }
        let logged = match &self.overlay {
            Some(Overlay::Logs { unit }) => Some(unit.clone()),
            _ => self.selected.clone().filter(|_| self.tab == Tab::Units),
        };
        wanted.extend(logged.map(|unit| self.log_of(unit)));
        if let Some(Overlay::Unit { unit, .. }) = &self.overlay {
            wanted.push(Question::Unit { unit: unit.clone() });
        }
        wanted.into_iter().filter_map(|one| self.ask(one, false)).collect()
    }

    /// The lines of a unit that are not here yet.
    fn log_of(&self, unit: String) -> Question {
        let last = self.log.1.back().filter(|_| self.log.0 == unit);
        let from = last.map_or(0, |line| line.seq + 1);
        Question::Logs { unit, from }
    }

    /// Puts a question, unless one of its kind is under way or, if it is not urgent, was put a moment ago.
    fn ask(&mut self, question: Question, urgent: bool) -> Option<Question> {
        let now = self.now;
        let feed = self.feeds.entry(question.feed()).or_default();
        let fresh = feed.asked.is_some_and(|asked| now < asked + EVERY);
        let other_log = matches!(&question, Question::Logs { unit, .. } if *unit != self.log.0);
        if feed.under_way || (fresh && !urgent && !other_log) {
            return None;
        }
        feed.under_way = true;
        feed.asked = Some(now);
        if let Question::Logs { unit, .. } = &question
            && *unit != self.log.0
        {
            self.log = (unit.clone(), VecDeque::new());
        }
        Some(question)
    }

    fn answered(&mut self, answer: Answer) {
        let now = self.now;
        let feed = match &answer {
            Answer::Status(_) => Feed::Status,
            Answer::Units(_) => Feed::Units,
            Answer::Processes(_) => Feed::Processes,
            Answer::Events { .. } => Feed::Events,
            Answer::Logs { .. } => Feed::Logs,
            Answer::Unit(_) => Feed::Unit,
            Answer::Control { .. } => Feed::Control,
        };
        let freshness = self.feeds.entry(feed).or_default();
        let before = freshness.answered.replace(now);
        freshness.failed = None;
        // The stream of events goes on after an answer.
        freshness.under_way = feed == Feed::Events;
        match answer {
            Answer::Status(status) => self.status = Some(*status),
            Answer::Units(units) => self.units = units,
            Answer::Processes(processes) => self.measured(processes, before),
            Answer::Events { events, next } => {
                let new = events.into_iter().filter(|event| event.seq >= self.next_event);
                self.events.extend(new);
                self.next_event = self.next_event.max(next);
                let over = self.events.len().saturating_sub(EVENTS);
                self.events.drain(..over);
            }
            Answer::Logs { unit, lines } => {
                if unit == self.log.0 {
                    let last = self.log.1.back().map_or(0, |line| line.seq);
                    self.log.1.extend(lines.into_iter().filter(|line| line.seq > last));
                    let over = self.log.1.len().saturating_sub(LINES);
                    self.log.1.drain(..over);
                }
            }
            Answer::Unit(got) => {
                let name = got.unit.as_ref().map(|unit| unit.name.as_str());
                match &mut self.overlay {
                    Some(Overlay::Unit { unit, answer, .. }) if name == Some(unit) => {
                        *answer = Some(got);
                    }
                    _ => {}
                }
            }
            Answer::Control { answer, done: true, .. } => {
                let units = answer.jobs.iter().map(|job| job.unit.as_str());
                let units = units.collect::<Vec<_>>().join(", ");
                self.said = Some(format!("the node does it: {units}"));
            }
            Answer::Control { unit: of, verb: to, answer, done: false } => {
                match &mut self.overlay {
                    Some(Overlay::Confirm { unit, verb, plan }) if *unit == of && *verb == to => {
                        *plan = Some(answer);
                    }
                    _ => {}
                }
            }
        }
    }

    fn failed(&mut self, feed: Feed, why: String, anew: bool) {
        let freshness = self.feeds.entry(feed).or_default();
        freshness.under_way = false;
        freshness.failed = Some(why.clone());
        match feed {
            Feed::Control => {
                self.overlay = None;
                self.said = Some(why);
            }
            Feed::Events if anew => {
                self.events.clear();
                self.next_event = 1;
            }
            Feed::Logs if anew => self.log = (String::new(), VecDeque::new()),
            _ => {}
        }
    }

    /// A unit's load is its processor time over the time between two answers.
    fn measured(&mut self, processes: Vec<UnitProcesses>, before: Option<Duration>) {
        let span = before.map(|before| self.now.saturating_sub(before)).filter(|s| !s.is_zero());
        let mut cpu = BTreeMap::new();
        self.load.clear();
        for unit in &processes {
            let used = millis(unit.cpu.as_ref());
            if let (Some(span), Some((_, then))) = (span, self.cpu.get(&unit.unit)) {
                let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
                let load = used.saturating_sub(*then).saturating_mul(1000) / span;
                self.load.insert(unit.unit.clone(), load);
            }
            cpu.insert(unit.unit.clone(), (self.now, used));
        }
        self.cpu = cpu;
        self.processes = processes;
    }

    fn key(&mut self, key: Key) -> Option<Question> {
        if key == Key::Interrupt {
            self.quit = true;
            return None;
        }
        if self.typing {
            self.type_filter(key);
            return None;
        }
        self.said = None;
        if self.overlay.is_some() {
            return self.overlay_key(key);
        }
        match key {
            Key::Char('q') => self.quit = true,
            Key::Char('?') => self.overlay = Some(Overlay::Help),
            Key::Char('/') => self.typing = true,
            Key::Esc => self.filter.clear(),
            Key::Tab => self.turn_to(self.tab.beside(1)),
            Key::BackTab => self.turn_to(self.tab.beside(Tab::ALL.len() - 1)),
            Key::Char(digit @ '1'..='4') => {
                let at = usize::try_from(u32::from(digit) - u32::from('1')).unwrap_or(0);
                self.turn_to(Tab::ALL[at]);
            }
            Key::Enter | Key::Char('d') if self.tab != Tab::Events => {
                let unit = self.selected.clone()?;
                let overlay = Overlay::Unit { unit: unit.clone(), answer: None, down: 0 };
                self.overlay = Some(overlay);
                return Some(Question::Unit { unit });
            }
            Key::Char('l') if self.tab != Tab::Events => {
                let unit = self.selected.clone()?;
                self.back = 0;
                self.overlay = Some(Overlay::Logs { unit: unit.clone() });
                return Some(self.log_of(unit));
            }
            Key::Char(verb @ ('s' | 'r' | 'S')) if self.tab != Tab::Events => {
                let unit = self.selected.clone()?;
                let verb = match verb {
                    's' => UnitVerb::Start,
                    'r' => UnitVerb::Restart,
                    _ => UnitVerb::Stop,
                };
                let overlay = Overlay::Confirm { unit: unit.clone(), verb, plan: None };
                self.overlay = Some(overlay);
                return Some(Question::Control { unit, verb, digest: None });
            }
            _ if self.tab == Tab::Events => {
                self.back = moved_back(self.back, key, self.events.len())
            }
            _ => self.move_cursor(key),
        }
        None
    }

    fn turn_to(&mut self, tab: Tab) {
        self.tab = tab;
        self.back = 0;
        self.filter.clear();
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Char(c) if self.filter.len() < 64 => self.filter.push(c),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.typing = false,
            Key::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            _ => {}
        }
    }

    fn overlay_key(&mut self, key: Key) -> Option<Question> {
        let lines = self.log.1.len();
        match (&mut self.overlay, key) {
            (Some(Overlay::Confirm { unit, verb, plan: Some(plan) }), Key::Char('y')) => {
                let (unit, verb) = (unit.clone(), *verb);
                let digest = Some(plan.digest.clone());
                self.overlay = None;
                return Some(Question::Control { unit, verb, digest });
            }
            (Some(Overlay::Confirm { .. }), Key::Char('n')) | (_, Key::Esc | Key::Char('q')) => {
                self.overlay = None
            }
            (Some(Overlay::Help), Key::Char('?')) => self.overlay = None,
            (Some(Overlay::Logs { .. }), key) => self.back = moved_back(self.back, key, lines),
            (Some(Overlay::Unit { down, .. }), key) => {
                *down = match key {
                    Key::Down | Key::Char('j') => (*down + 1).min(LINES),
                    Key::Up | Key::Char('k') => down.saturating_sub(1),
                    Key::PageDown => (*down + 10).min(LINES),
                    Key::PageUp => down.saturating_sub(10),
                    Key::Home | Key::Char('g') => 0,
                    _ => *down,
                };
            }
            _ => {}
        }
        None
    }

    fn move_cursor(&mut self, key: Key) {
        let names = self.names();
        let at = self.selected.as_ref().and_then(|unit| names.iter().position(|name| name == unit));
        let at = at.unwrap_or(0);
        let to = match key {
            Key::Up | Key::Char('k') => at.saturating_sub(1),
            Key::Down | Key::Char('j') => at + 1,
            Key::PageUp => at.saturating_sub(10),
            Key::PageDown => at + 10,
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => names.len(),
            _ => at,
        };
        self.selected = names.get(to.min(names.len().saturating_sub(1))).cloned();
    }
}

/// Lines up from the newest, after a key.
fn moved_back(back: usize, key: Key, lines: usize) -> usize {
    let back = match key {
        Key::Up | Key::Char('k') => back + 1,
        Key::Down | Key::Char('j') => back.saturating_sub(1),
        Key::PageUp => back + 10,
        Key::PageDown => back.saturating_sub(10),
        Key::Home | Key::Char('g') => lines,
        Key::End | Key::Char('G') => 0,
        _ => back,
    };
    back.min(lines.saturating_sub(1))
}
