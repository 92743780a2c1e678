//! `osctl boot list`: the boots that a node remembers.

use clap::Args;
use keel_proto::v1::Boot;
use serde::Serialize;

use super::source;
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, goal_state, micros, timestamp};
use crate::output::{Format, Ink, Output, Palette, printable_line};

/// Digits of an id that tell the boots of one node apart.
const DIGITS: usize = 12;

/// List the boots that a node remembers
///
/// A node keeps how its last boots went, and what its units wrote last, on its data partition: the boot that runs and seven before it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl --endpoint 192.0.2.10 boot list\n  osctl --endpoint 192.0.2.10 boot list --output json | jq -r '.[1].id'"
)]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(self, args: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let boots = node::ask(async { source::list(&node::reach(args, out).await?).await })?;
        match out.format() {
            Format::Table => out.text(&table(&boots, out.palette()))?,
            Format::Json => out.json(&boots.iter().map(BootView::from).collect::<Vec<_>>())?,
        }
        Ok(Exit::Clean)
    }
}

/// What `--output json` prints of each; its keys are an interface.
#[derive(Debug, Serialize)]
struct BootView<'a> {
    id: &'a str,
    current: bool,
    began: Option<String>,
    recorded: Option<String>,
    goal: &'a str,
    state: &'static str,
    total_us: Option<u64>,
    digest: &'a str,
    ended: Option<&'a str>,
    size_bytes: u64,
}

impl<'a> From<&'a Boot> for BootView<'a> {
    fn from(boot: &'a Boot) -> Self {
        Self {
            id: &boot.id,
            current: boot.current,
            began: boot.began.as_ref().map(timestamp),
            recorded: boot.recorded.as_ref().map(timestamp),
            goal: &boot.goal,
            state: goal_state(boot.state).0,
            total_us: boot.total.as_ref().map(|total| micros(Some(total))),
            digest: &boot.digest,
            ended: boot.ended.as_deref(),
            size_bytes: boot.size_bytes,
        }
    }
}

fn table(boots: &[Boot], palette: Palette) -> String {
    let row = |[id, began, state, took, ended]: [&str; 5]| {
        format!("{id:DIGITS$}  {began:20}  {state:9}  {took:>9}  {ended}")
    };
    let heading = row(["BOOT", "BEGAN", "STATE", "TOOK", "ENDED"]);
    let mut text = format!("{}\n", palette.paint(Ink::Faint, &heading));
    for boot in boots {
        let id: String = printable_line(&boot.id).chars().take(DIGITS).collect();
        let began = boot.began.as_ref().map(timestamp).unwrap_or_default();
        let total = boot.total.as_ref().map(|total| node::short(micros(Some(total)) / 1000));
        let ended = match (&boot.ended, boot.current) {
            (Some(ended), false) => printable_line(ended),
            (_, true) => "runs".to_owned(),
            (None, false) => "without a word".to_owned(),
        };
        let (state, ink) = goal_state(boot.state);
        let cells = [&id, &*began, state, total.as_deref().unwrap_or("-"), &*ended];
        // Padded first, painted then: a terminal does not count colours as characters.
        let padded = format!("  {state:9}  ");
        let painted = format!("  {}  ", palette.paint(ink, &format!("{state:9}")));
        text += &row(cells).replacen(&padded, &painted, 1);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_proto::v1::GoalState;

    #[test]
    fn a_table() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let boot = |id: &str, current, state: GoalState, seconds: i64, ended: Option<&str>| Boot {
            id: id.repeat(32),
            current,
            began: at(1_700_000_000 + seconds),
            state: state.into(),
            total: (state == GoalState::Reached)
                .then_some(prost_types::Duration { seconds: 6, nanos: 800_000_000 }),
            ended: ended.map(str::to_owned),
            ..Boot::default()
        };
        let boots = [
            boot("a", true, GoalState::Reached, 600, None),
            boot("b", false, GoalState::Reached, 300, Some("reboot")),
            boot("c", false, GoalState::Emergency, 0, None),
        ];
        insta::assert_snapshot!("boots", table(&boots, Palette::PLAIN));
        let views: Vec<_> = boots.iter().map(BootView::from).collect();
        insta::assert_snapshot!("boots_json", serde_json::to_string_pretty(&views[1]).unwrap());
    }
}
