//! `osctl reset`: a node's data partition is wiped, and the machine starts as if for the first time. It asks twice.

use std::fmt::Write as _;

use keel_proto::v1::{GetStatusRequest, Loss, ResetRequest, ResetResponse};
use serde::Serialize;
use tonic::{Code, Status};

use crate::cli::NodeArgs;
use crate::commands::ask;
use crate::error::{Exit, Failure};
use crate::node;
use crate::output::{Format, Ink, Output, Palette, printable};

/// Wipe a node's data partition, and start the machine again as if for the first time
///
/// What goes is shown first, and it is asked for twice: the second time by the machine's id or its host name. Everything is stopped and
/// unmounted before anything is wiped. The machine comes back with a new id, a new key and a new certificate. Exit code 1 if it was
/// declined or could not be done.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 reset --dry-run
  osctl --endpoint 192.0.2.10 reset
  osctl --endpoint 192.0.2.10 reset --yes --confirm 0f3a5c7e91b24d4e8a6b0123456789ab")]
pub(crate) struct Reset {
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,

    /// Do not ask; needs --confirm
    #[arg(long, short)]
    yes: bool,

    /// The id of the machine that is meant, as `osctl status` shows it
    #[arg(long, value_name = "MACHINE-ID")]
    confirm: Option<String>,
}

impl Reset {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        if self.yes && self.confirm.is_none() && !self.dry_run {
            let failure = Failure::usage("--yes alone wipes nothing");
            return Err(failure.next("say which machine is meant: --confirm MACHINE-ID"));
        }
        node::ask(async {
            let connection = node::reach(node, out).await?;
            let status = connection.node().get_status(GetStatusRequest {}).await;
            let status = status.map_err(|status| node::refused("tell its status", &status))?;
            let status = status.into_inner().status.unwrap_or_default();
            let id = status.machine_id.unwrap_or_default();
            let ask = async |dry_run, confirm: &str| -> Result<ResetResponse, Failure> {
                let request = ResetRequest { dry_run, confirm: confirm.to_owned() };
                let answer = connection.operation().reset(request).await;
                Ok(answer.map_err(|status| refused(&status))?.into_inner())
            };
            let plan = ask(true, "").await?;
            let people = out.format() == Format::Table;
            if people {
                out.text(&page(&plan, out.palette()))?;
            }
            if self.dry_run {
                if !people {
                    out.json(&View::new(true, &plan))?;
                }
                return Ok(Exit::Clean);
            }
            let host = printable(&status.hostname);
            let confirm = match self.confirm {
                Some(confirm) => confirm,
                None => confirmed_by_hand(&host, &id)?,
            };
            if !self.yes && !ask::yes(&format!("Wipe {host}? It cannot be undone."), WITHOUT)? {
                return Err(ask::declined());
            }
            let plan = ask(false, &confirm).await?;
            match out.format() {
                Format::Table => out.text(&format!(
                    "{host} is stopping; then it is wiped, and boots as a new machine.\n"
                ))?,
                Format::Json => out.json(&View::new(false, &plan))?,
            }
            Ok(Exit::Clean)
        })
    }
}

const WITHOUT: &str = "look with --dry-run, and add --yes --confirm MACHINE-ID";

/// The machine's id, once a person has typed it or the host name.
fn confirmed_by_hand(host: &str, id: &str) -> Result<String, Failure> {
    let typed =
        ask::answer(&format!("Type the machine id, or the host name {host}, to go on: "), WITHOUT)?;
    if is_meant(&typed, host, id) {
        Ok(id.to_owned())
    } else {
        Err(Failure::new("that is another machine; nothing was done")
            .next("`osctl status` shows its id"))
    }
}

fn is_meant(typed: &str, host: &str, id: &str) -> bool {
    !typed.is_empty() && (typed == id || typed == host)
}

fn refused(status: &Status) -> Failure {
    match status.code() {
        Code::InvalidArgument => {
            let failure = Failure::new(format!("the node was not reset: {}", status.message()));
            failure.next("give the id that `osctl status` shows with --confirm")
        }
        Code::FailedPrecondition => {
            let failure = Failure::new(format!("the node was not reset: {}", status.message()));
            failure.next("`osctl units` shows how the data partition and its mount stand")
        }
        _ => node::refused("reset itself", status),
    }
}

fn page(plan: &ResetResponse, palette: Palette) -> String {
    let mut page = palette.paint(Ink::Bad, "This goes, and does not come back:");
    page.push('\n');
    let width = plan.losses.iter().map(|loss| loss.what.len()).max().unwrap_or(0);
    for Loss { what, meaning, size_bytes } in &plan.losses {
        let size = size_bytes.map(super::units::size).unwrap_or_else(|| "?".to_owned());
        let (what, meaning) = (printable(what), printable(meaning));
        let _ = writeln!(page, "  {what:width$}  {size:>10}  {meaning}");
    }
    let units = plan.stops.len();
    let _ = writeln!(
        page,
        "\n{units} units are stopped before; `osctl reboot --dry-run` lists them.\n"
    );
    page
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
struct View<'a> {
    dry_run: bool,
    stops: &'a [String],
    losses: Vec<LossView<'a>>,
}

#[derive(Debug, Serialize)]
struct LossView<'a> {
    what: &'a str,
    meaning: &'a str,
    size_bytes: Option<u64>,
}

impl<'a> View<'a> {
    fn new(dry_run: bool, plan: &'a ResetResponse) -> Self {
        let loss = |loss: &'a Loss| LossView {
            what: &loss.what,
            meaning: &loss.meaning,
            size_bytes: loss.size_bytes,
        };
        View { dry_run, stops: &plan.stops, losses: plan.losses.iter().map(loss).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes() {
        let loss = |what: &str, meaning: &str, size_bytes| Loss {
            what: what.to_owned(),
            meaning: meaning.to_owned(),
            size_bytes,
        };
        let losses = vec![
            loss(
                "keel-data (/dev/vda1)",
                "the partition's filesystem; the next boot makes a new one",
                Some(4 << 30),
            ),
            loss(
                "/var/lib/keel/identity",
                "machine id, key and certificate: the machine comes back as another one",
                Some(8192),
            ),
            loss(
                "/var/lib/keel/containerd",
                "images and containers, which are fetched and made again",
                None,
            ),
        ];
        let plan =
            ResetResponse { stops: vec!["kubelet".to_owned(), "mount.data".to_owned()], losses };
        insta::assert_snapshot!("reset", page(&plan, Palette::PLAIN));
    }

    #[test]
    fn only_the_machine_that_was_meant() {
        let check =
            |typed: &str, expect| assert_eq!(is_meant(typed, "node-1", "0f3a"), expect, "{typed}");
        check("0f3a", true);
        check("node-1", true);
        check("node-2", false);
        check("", false);
        assert!(!is_meant("", "", ""), "a machine without names is not meant by nothing");
    }
}
