//! `osctl events`: what happened to a node's units, and with `--follow` what happens now.

use clap::ValueEnum;
use keel_proto::v1::event::What;
use keel_proto::v1::{Event, EventKind, WatchEventsRequest, WatchEventsResponse};
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, Broken, Comeback, Reader, goal_state, millis, unit_state};
use crate::output::{Format, Ink, Output, Palette, printable_line};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 events
  osctl --endpoint 192.0.2.10 events --follow --from 120
  osctl --endpoint 192.0.2.10 events --unit kubelet --kind transition
  osctl --endpoint 192.0.2.10 events --output json | jq -r 'select(.to == \"failed\").unit'")]
pub(crate) struct Args {
    /// Go on with what happens from now on, until interrupted; also when the agent or the node is restarted meanwhile
    #[arg(long, short)]
    follow: bool,

    /// The number of the first event to print
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,

    /// Only events about this unit; repeat it for several
    #[arg(long, value_name = "UNIT")]
    unit: Vec<String>,

    /// Only events of this kind; repeat it for several
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// A unit went from one state to another
    Transition,
    /// Something worth knowing that changes no unit's state
    Fact,
    /// The goal's state changed
    Goal,
}

impl From<Kind> for EventKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Transition => Self::Transition,
            Kind::Fact => Self::Fact,
            Kind::Goal => Self::Goal,
        }
    }
}

pub(crate) fn run(args: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    node::ask(async {
        let reading = Reading { args, next: args.from, boot: None };
        node::read_on(reading, node, out).await?;
        Ok(Exit::Clean)
    })
}

/// Where a reader is.
struct Reading<'a> {
    args: &'a Args,
    /// The number of the next event.
    next: u64,
    /// The boot in which they happen; known once the node has answered.
    boot: Option<String>,
}

impl Reader for Reading<'_> {
    fn follows(&self) -> bool {
        self.args.follow
    }

    fn answered(&self) -> bool {
        self.boot.is_some()
    }

    fn begin_anew(&mut self, out: &mut Output) -> bool {
        if self.boot.is_none() {
            return false;
        }
        out.notice("the node has rebooted; these are the events of the new boot");
        self.next = 1;
        self.boot = Some(String::new());
        true
    }

    async fn round(
        &mut self,
        node: &NodeArgs,
        comeback: &mut Comeback,
        out: &mut Output,
    ) -> Result<(), Broken> {
        let mut client = node::connect(node, out).await.map_err(Broken::Away)?;
        let kinds = self.args.kind.iter().map(|kind| EventKind::from(*kind).into()).collect();
        let (follow, units) = (self.args.follow, self.args.unit.clone());
        let request = WatchEventsRequest { from_seq: self.next, follow, units, kinds };
        let answer = client.watch_events(request).await;
        let refused = |status| Broken::by(&status, node::refused("tell its events", &status));
        let mut stream = answer.map_err(refused)?.into_inner();
        loop {
            let batch = stream.message().await.map_err(|status| {
                let what = match self.boot {
                    Some(_) => format!("go on with its events; read on with --from {}", self.next),
                    None => "tell its events".to_owned(),
                };
                Broken::by(&status, node::refused(&what, &status))
            })?;
            let Some(batch) = batch else { break };
            let known = self.boot.get_or_insert_default();
            comeback.back(&format!("event {}", self.next), out);
            if !known.is_empty() && *known != batch.boot {
                return Err(Broken::Rebooted(Failure::new("the node has rebooted")));
            }
            known.clone_from(&batch.boot);
            print(&batch, out).map_err(Broken::ForGood)?;
            // An older node does not say where to go on.
            let after = batch.events.last().map_or(self.next, |event| event.seq + 1);
            self.next = batch.next_seq.max(after);
        }
        if follow {
            return Err(Broken::Away(Failure::new("the node ended the stream")));
        }
        Ok(())
    }
}

fn print(batch: &WatchEventsResponse, out: &mut Output) -> Result<(), Failure> {
    if batch.dropped > 0 {
        out.notice(&format!("{} events before these are forgotten by the node", batch.dropped));
    }
    match out.format() {
        Format::Table => {
            let palette = out.palette();
            let lines: String = batch.events.iter().map(|event| line(event, palette)).collect();
            out.text(&lines)
        }
        Format::Json => {
            batch.events.iter().try_for_each(|event| out.json_line(&EventView::from(event)))
        }
    }
}

/// What `--output json` prints, one per line; its keys are an interface.
#[derive(Debug, Serialize)]
struct EventView<'a> {
    seq: u64,
    at_ms: u64,
    #[serde(flatten)]
    what: WhatView<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum WhatView<'a> {
    Transition { unit: &'a str, from: &'static str, to: &'static str, why: Option<&'a str> },
    Fact { unit: Option<&'a str>, text: &'a str },
    Goal { state: &'static str, why: Option<&'a str> },
    Unknown,
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        let what = match &event.what {
            Some(What::Transition(one)) => WhatView::Transition {
                unit: &one.unit,
                from: unit_state(one.from).0,
                to: unit_state(one.to).0,
                why: one.why.as_deref(),
            },
            Some(What::Fact(fact)) => {
                WhatView::Fact { unit: fact.unit.as_deref(), text: &fact.text }
            }
            Some(What::Goal(goal)) => {
                WhatView::Goal { state: goal_state(goal.state).0, why: goal.why.as_deref() }
            }
            // A newer node knows something that this osctl does not.
            None => WhatView::Unknown,
        };
        Self { seq: event.seq, at_ms: millis(event.at.as_ref()), what }
    }
}

/// One event on one line: its number, seconds since init started, and what happened.
pub(crate) fn line(event: &Event, palette: Palette) -> String {
    let at = millis(event.at.as_ref());
    let stamp =
        palette.paint(Ink::Faint, &format!("{:>6} {:>6}.{:03}", event.seq, at / 1000, at % 1000));
    format!("{stamp}  {}\n", happened(event.what.as_ref(), palette))
}

fn happened(what: Option<&What>, palette: Palette) -> String {
    let because = |why: &Option<String>| {
        why.as_ref().map(|why| format!(": {}", printable_line(why))).unwrap_or_default()
    };
    match what {
        Some(What::Transition(one)) => {
            let (to, ink) = unit_state(one.to);
            let from = palette.paint(Ink::Faint, &format!("{} ->", unit_state(one.from).0));
            format!(
                "{}  {from} {}{}",
                printable_line(&one.unit),
                palette.paint(ink, to),
                because(&one.why)
            )
        }
        Some(What::Fact(fact)) => match &fact.unit {
            Some(unit) => format!("{}  {}", printable_line(unit), printable_line(&fact.text)),
            None => printable_line(&fact.text),
        },
        Some(What::Goal(goal)) => {
            let (state, ink) = goal_state(goal.state);
            format!("goal is {}{}", palette.paint(ink, state), because(&goal.why))
        }
        None => "something that this osctl does not know".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_proto::v1::{Fact, GoalChange, GoalState, UnitState, UnitTransition};

    fn events() -> Vec<Event> {
        let event = |seq, millis: i32, what| Event {
            seq,
            at: Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }),
            what,
        };
        let transition = |unit: &str, from: UnitState, to: UnitState, why: Option<&str>| {
            Some(What::Transition(UnitTransition {
                unit: unit.to_owned(),
                from: from.into(),
                to: to.into(),
                why: why.map(str::to_owned),
            }))
        };
        let fact = |unit: Option<&str>, text: &str| {
            Some(What::Fact(Fact { unit: unit.map(str::to_owned), text: text.to_owned() }))
        };
        let goal = GoalChange {
            state: GoalState::Degraded.into(),
            why: Some("kubelet failed".to_owned()),
        };
        vec![
            event(1, 4, transition("mount.proc", UnitState::Waiting, UnitState::Activating, None)),
            event(2, 5, transition("mount.proc", UnitState::Activating, UnitState::Running, None)),
            event(
                3,
                912,
                fact(Some("link@eth0"), "lease of 10.0.2.15/24 for 86400 s from 10.0.2.2"),
            ),
            event(4, 913, fact(None, "the clock was set forward by 12 s")),
            event(
                5,
                950,
                transition(
                    "kubelet",
                    UnitState::Activating,
                    UnitState::Failed,
                    Some("exit status 1"),
                ),
            ),
            event(6, 951, Some(What::Goal(goal))),
            event(7, 952, None),
        ]
    }

    #[test]
    fn lines() {
        let lines: String = events().iter().map(|event| line(event, Palette::PLAIN)).collect();
        insta::assert_snapshot!("events", lines);
    }

    #[test]
    fn json_lines() {
        let lines: Vec<_> = events()
            .iter()
            .map(|event| serde_json::to_string(&EventView::from(event)).unwrap())
            .collect();
        insta::assert_snapshot!("events_json", lines.join("\n"));
    }
}
