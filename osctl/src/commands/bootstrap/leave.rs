//! `osctl unbootstrap`: a node leaves its cluster.

use std::fmt::Write as _;

use keel_proto::v1::{
    ChangePlan, ChangeStage, Departed, Departure, UnbootstrapRequest, unbootstrap_response::What,
};
use serde_json::json;
use tonic::{Code, Status};

use crate::cli::NodeArgs;
use crate::commands::apply_config::{plan_page, plan_view, refused_config};
use crate::commands::ask;
use crate::error::{Exit, Failure};
use crate::node::{self, Connection};
use crate::output::{Format, Ink, Output, Palette, printable_line};

/// Have a node leave its Kubernetes cluster
///
/// The cluster goes out of the machine config, and with it the kubelet's certificates and the trust in the cluster's CA: the node is in
/// maintenance again, unless its machine config names a CA of its own. What that means is shown first, and it asks. Pods that run are not
/// moved: drain the node before. The cluster goes on listing it until the Node is deleted there. Exit code 1 if it was declined or could
/// not be done; with --dry-run as `osctl apply-config --dry-run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 --kubeconfig ~/.kube/config unbootstrap --dry-run
  osctl --endpoint 192.0.2.10 --kubeconfig ~/.kube/config unbootstrap --yes")]
pub(crate) struct Unbootstrap {
    /// Only show what would happen
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// What a node told.
#[derive(Default)]
struct Told {
    departure: Departure,
    plan: Option<ChangePlan>,
    failed: Option<String>,
    departed: Option<Departed>,
}

impl Unbootstrap {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let ending = |failure: Failure| match self.dry_run {
            true => failure.ending(Exit::Usage),
            false => failure,
        };
        node::ask(async {
            let connection = node::reach(node, out).await.map_err(ending)?;
            let plan = ask_for(&connection, true, out).await.map_err(ending)?;
            let people = out.format() == Format::Table;
            let changes = plan.plan.as_ref().is_some_and(|plan| !plan.changes.is_empty());
            if people {
                let text = page(&plan, out.palette());
                out.text(&text)?;
            }
            if self.dry_run {
                if !people {
                    out.json(&view(&plan))?;
                }
                let any = changes || !plan.departure.files.is_empty();
                return Ok(if any { Exit::Findings } else { Exit::Clean });
            }
            let question = "Leave the cluster?";
            if !self.yes && !ask::yes(question, "look with --dry-run, and add --yes")? {
                return Err(ask::declined());
            }
            let done = ask_for(&connection, false, out).await?;
            if !people {
                out.json(&view(&done))?;
            }
            match (&done.departed, &done.failed) {
                (Some(departed), _) => {
                    if people {
                        let text = out.palette().paint(Ink::Good, "the node is in no cluster");
                        out.text(&format!("{text}\n"))?;
                    }
                    departed.remarks.iter().for_each(|it| out.notice(&printable_line(it)));
                    Ok(Exit::Clean)
                }
                (None, why) => {
                    let why = why.clone().unwrap_or_else(|| "the connection ended".to_owned());
                    let failure = Failure::new("the node did not say that it has left the cluster");
                    Err(failure
                        .because(printable_line(&why))
                        .next("osctl bootstrap status, and osctl history"))
                }
            }
        })
    }
}

async fn ask_for(
    connection: &Connection,
    dry_run: bool,
    out: &mut Output,
) -> Result<Told, Failure> {
    let answers = connection.cluster().unbootstrap(UnbootstrapRequest { dry_run }).await;
    let mut answers = answers.map_err(|status| refused(&status))?.into_inner();
    let mut told = Told::default();
    loop {
        match answers.message().await {
            Ok(Some(answer)) => match answer.what {
                Some(What::Departure(departure)) => told.departure = departure,
                Some(What::Plan(plan)) => told.plan = Some(plan),
                Some(What::Findings(findings)) => return Err(refused_config(&findings, out)?),
                Some(What::Progress(progress)) => {
                    let bad =
                        matches!(progress.stage(), ChangeStage::RolledBack | ChangeStage::Degraded);
                    if bad {
                        told.failed = Some(progress.text);
                    } else if out.format() == Format::Table {
                        let number = progress.generation;
                        let text = printable_line(&progress.text);
                        out.text(&format!("config {number} {text}\n"))?;
                    }
                }
                Some(What::Departed(departed)) => told.departed = Some(departed),
                None => {}
            },
            Ok(None) => return Ok(told),
            // What was refused before anything was told; else the end of it is all that is missing.
            Err(status) if told.plan.is_none() => return Err(refused(&status)),
            Err(status) => {
                told.failed.get_or_insert(status.message().to_owned());
                return Ok(told);
            }
        }
    }
}

fn page(told: &Told, palette: Palette) -> String {
    let Departure { api_server, node_name, opens, files } = &told.departure;
    let mut page = match api_server.is_empty() {
        true => "The node leaves its cluster.\n".to_owned(),
        false => format!(
            "The node leaves the cluster at {}, where it is {}.\n",
            printable_line(api_server),
            printable_line(node_name)
        ),
    };
    if *opens {
        let text = "It is in maintenance afterwards: everybody who reaches it may look, and give it another config.";
        page += &palette.paint(Ink::Warning, text);
        page.push('\n');
    } else {
        page += "Afterwards those get in whom its machine config trusts.\n";
    }
    for file in files {
        let _ = writeln!(page, "  goes  {}", printable_line(file));
    }
    if let Some(plan) = &told.plan {
        page += &plan_page(plan, palette);
    }
    page
}

fn view(told: &Told) -> serde_json::Value {
    let Departure { api_server, node_name, opens, files } = &told.departure;
    json!({
        "api_server": api_server,
        "node_name": node_name,
        "opens": opens,
        "files": files,
        "plan": told.plan.as_ref().map(plan_view),
        "left": told.departed.is_some(),
        "remarks": told.departed.as_ref().map(|departed| &departed.remarks),
        "failed": told.failed,
    })
}

fn refused(status: &Status) -> Failure {
    match status.code() {
        Code::FailedPrecondition => {
            let failure = Failure::new(format!("the node did not leave: {}", status.message()));
            failure.next("`osctl bootstrap status` shows how it stands with a cluster")
        }
        _ => node::refused("leave its cluster", status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_means_is_said_before() {
        let told = Told {
            departure: Departure {
                api_server: "https://a:6443".to_owned(),
                node_name: "node-1".to_owned(),
                opens: true,
                files: vec!["/var/lib/keel/trust/cluster-ca.crt".to_owned()],
            },
            ..Told::default()
        };
        insta::assert_snapshot!("leave", page(&told, Palette::PLAIN));
    }
}
