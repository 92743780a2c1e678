//! `osctl reboot` and `osctl shutdown`: the graph in reverse, and then the machine's own end.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use keel_proto::v1::{GetStatusRequest, GoalState, NodeStatus, PowerOffRequest, RebootRequest};
use serde_json::json;
use tonic::Status;

use crate::cli::NodeArgs;
use crate::commands::{ask, boot};
use crate::error::{Exit, Failure};
use crate::node::{self, goal_state, short};
use crate::output::{Format, Ink, Output, Palette, printable};

/// How often a node that reboots is tried.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a node may be away. Firmware of servers takes minutes.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Reboot a node: everything is stopped in reverse order, then the machine starts again
///
/// Exit code 1 if it was declined, could not be done or, with --wait, if the new boot did not reach its goal.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 reboot --dry-run
  osctl --endpoint 192.0.2.10 reboot --yes --wait")]
pub(crate) struct Reboot {
    #[command(flatten)]
    how: How,

    /// Wait until the node is back with a new boot that has reached its goal
    #[arg(long)]
    wait: bool,
}

/// Switch a node off: everything is stopped in reverse order, then the power goes
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 shutdown --dry-run
  osctl --endpoint 192.0.2.10 shutdown --yes")]
pub(crate) struct Shutdown {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Only show what would be stopped, in that order
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reboot,
    PowerOff,
}

impl Kind {
    async fn ask(
        self,
        connection: &node::Connection,
        dry_run: bool,
    ) -> Result<Vec<String>, Status> {
        let mut operation = connection.operation();
        match self {
            Kind::Reboot => {
                Ok(operation.reboot(RebootRequest { dry_run }).await?.into_inner().stops)
            }
            Kind::PowerOff => {
                Ok(operation.power_off(PowerOffRequest { dry_run }).await?.into_inner().stops)
            }
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Reboot => "reboot",
            Kind::PowerOff => "shut down",
        }
    }
}

impl Reboot {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        run(Kind::Reboot, &self.how, self.wait, node, out)
    }
}

impl Shutdown {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        run(Kind::PowerOff, &self.how, false, node, out)
    }
}

fn run(
    kind: Kind,
    how: &How,
    wait: bool,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Exit, Failure> {
    node::ask(async {
        let target = node::one(node, out)?;
        let (connection, remark) = node::open(&target).await?;
        remark.into_iter().for_each(|remark| out.notice(&remark));
        let failed = |status: Status| crate::commands::units::refused(kind.word(), &status);
        let stops = kind.ask(&connection, true).await.map_err(failed)?;
        let host = status(&connection).await.map_err(failed)?.hostname;
        let before = if wait { boot::current(&connection).await? } else { String::new() };
        let people = out.format() == Format::Table;
        if people && (how.dry_run || !how.yes) {
            out.text(&page(&stops, out.palette()))?;
        }
        if how.dry_run {
            if !people {
                out.json(&json!({ "dry_run": true, "stops": stops }))?;
            }
            return Ok(Exit::Clean);
        }
        let question = format!("{} {}?", capital(kind.word()), printable(&host));
        if !how.yes && !ask::yes(&question, "add --yes")? {
            return Err(ask::declined());
        }
        let asked = Instant::now();
        let stops = kind.ask(&connection, false).await.map_err(failed)?;
        drop(connection);
        if people {
            out.text(&format!("{} is stopping its {} units.\n", printable(&host), stops.len()))?;
        }
        if !wait {
            if !people {
                out.json(&json!({ "dry_run": false, "stops": stops }))?;
            }
            return Ok(Exit::Clean);
        }
        let New { boot, state } = back(&before, asked, &target, out).await?;
        match out.format() {
            Format::Table => {
                let [host, boot, before] = [&host, &boot, &before].map(|text| printable(text));
                out.text(&format!("{host} runs boot {boot}; before it was {before}.\n"))?;
            }
            Format::Json => {
                let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                let state = goal_state(state.into()).0;
                out.json(&json!({
                    "dry_run": false, "stops": stops, "state": state, "took_ms": took, "boot": boot, "before": before,
                }))?;
            }
        }
        Ok(if state == GoalState::Reached { Exit::Clean } else { Exit::Findings })
    })
}

async fn status(connection: &node::Connection) -> Result<NodeStatus, Status> {
    let answer = connection.node().get_status(GetStatusRequest {}).await?.into_inner();
    answer.status.ok_or_else(|| Status::internal("the answer holds no status"))
}

/// The boot after a reboot, once it has ended.
struct New {
    boot: String,
    state: GoalState,
}

/// Waits for another boot than `before` to end, and tells how the node stands meanwhile.
async fn back(
    before: &str,
    asked: Instant,
    target: &node::target::Target,
    out: &mut Output,
) -> Result<New, Failure> {
    let mut said = String::new();
    loop {
        // While it is away there is nobody to reach. What there is to remark on it has been heard.
        let seen = match node::open(target).await {
            Ok((connection, _)) => seen(&connection).await,
            Err(_) => None,
        };
        let since = asked.elapsed();
        let stage = stage(seen.as_ref(), before);
        let text = stage.text();
        if out.format() == Format::Table && text != said {
            let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            out.text(&format!("{:>8}  {text}\n", short(since)))?;
            said = text;
        }
        if let (Stage::Over(state), Some(Seen { boot, .. })) = (stage, seen) {
            return Ok(New { boot, state });
        }
        if since > PATIENCE {
            let failure = Failure::new("the node has not come back within 15 minutes");
            return Err(failure.next("look at its console"));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// How a node that answers stands, and which boot that is.
struct Seen {
    boot: String,
    state: GoalState,
}

async fn seen(connection: &node::Connection) -> Option<Seen> {
    // The boot first: a state that is asked for later is never that of an earlier boot.
    let boot = boot::current(connection).await.ok()?;
    Some(Seen { boot, state: status(connection).await.ok()?.state() })
}

/// How far a reboot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Stopping,
    Away,
    Booting,
    Over(GoalState),
}

impl Stage {
    fn text(self) -> String {
        match self {
            Stage::Stopping => "its units are being stopped".to_owned(),
            Stage::Away => "it is away".to_owned(),
            Stage::Booting => "it is back, and boots".to_owned(),
            Stage::Over(state) => format!("boot {}", goal_state(state.into()).0),
        }
    }
}

/// How far a reboot is from the boot `before`. Uptimes would say it only as far as clocks agree.
fn stage(seen: Option<&Seen>, before: &str) -> Stage {
    match seen {
        None => Stage::Away,
        Some(seen) if seen.boot == before => Stage::Stopping,
        Some(seen) => match seen.state {
            GoalState::Booting | GoalState::Unspecified => Stage::Booting,
            // It has been told to go down once more.
            GoalState::Stopping => Stage::Stopping,
            over => Stage::Over(over),
        },
    }
}

fn page(stops: &[String], palette: Palette) -> String {
    let mut page = palette.paint(Ink::Strong, "These are stopped, in this order:");
    page.push('\n');
    for stop in stops {
        let _ = writeln!(page, "  {}", printable(stop));
    }
    page.push('\n');
    page
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_reboot_is() {
        let check = |boot: &str, state, expect| {
            let seen = Seen { boot: boot.to_owned(), state };
            assert_eq!(stage(Some(&seen), "a"), expect);
        };
        assert_eq!(stage(None, "a"), Stage::Away);
        check("a", GoalState::Reached, Stage::Stopping);
        check("a", GoalState::Stopping, Stage::Stopping);
        check("b", GoalState::Booting, Stage::Booting);
        check("b", GoalState::Stopping, Stage::Stopping);
        check("b", GoalState::Reached, Stage::Over(GoalState::Reached));
        check("b", GoalState::Degraded, Stage::Over(GoalState::Degraded));
    }

    #[test]
    fn questions() {
        assert_eq!(capital("shut down"), "Shut down");
        let stops = ["kubelet", "mount.data"].map(str::to_owned);
        let expect = "These are stopped, in this order:\n  kubelet\n  mount.data\n\n";
        assert_eq!(page(&stops, Palette::PLAIN), expect);
    }
}
