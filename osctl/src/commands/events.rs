//! `osctl events`: what happened to a node's units, and with `--follow` what happens now.

use keel_proto::v1::event::What;
use keel_proto::v1::{Event, WatchEventsRequest, WatchEventsResponse};
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, goal_state, millis, unit_state};
use crate::output::{Format, Ink, Output, Palette};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 events
  osctl --endpoint 192.0.2.10 events --follow --from 120
  osctl --endpoint 192.0.2.10 events --output json | jq -r 'select(.to == \"failed\").unit'")]
pub(crate) struct Args {
    /// Go on with what happens from now on, until interrupted
    #[arg(long, short)]
    follow: bool,

    /// The number of the first event to print
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
}

pub(crate) fn run(args: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    node::ask(async {
        let mut next = args.from;
        let request =
            WatchEventsRequest { from_seq: args.from, follow: args.follow, ..Default::default() };
        let failed = |status, next| {
            let what = format!("go on with its events; read on with --from {next}");
            node::refused(&what, &status)
        };
        let answer = node::connect(node, out).await?.watch_events(request).await;
        let mut stream =
            answer.map_err(|status| node::refused("tell its events", &status))?.into_inner();
        while let Some(batch) = stream.message().await.map_err(|status| failed(status, next))? {
            next = batch.events.last().map_or(next, |event| event.seq + 1);
            print(&batch, out)?;
        }
        Ok(Exit::Clean)
    })
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
    let because =
        |why: &Option<String>| why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match what {
        Some(What::Transition(one)) => {
            let (to, ink) = unit_state(one.to);
            let from = palette.paint(Ink::Faint, &format!("{} ->", unit_state(one.from).0));
            format!("{}  {from} {}{}", one.unit, palette.paint(ink, to), because(&one.why))
        }
        Some(What::Fact(fact)) => match &fact.unit {
            Some(unit) => format!("{unit}  {}", fact.text),
            None => fact.text.clone(),
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
