//! A bootstrap that is asked for, to its end: from the node's stream, and where that breaks off from what the node says of it when it is
//! asked again. It is never asked for twice.

use std::time::{Duration, Instant};

use keel_proto::v1::{
    BootstrapProgress, BootstrapRequest, BootstrapStage as Stage, BootstrapState, ChangePlan,
    GetBootstrapRequest, bootstrap_response::What,
};
use tonic::{Code, Status};

use super::page;
use crate::cli::NodeArgs;
use crate::commands::apply_config::{plan_page, refused_config};
use crate::error::{Exit, Failure};
use crate::node;
use crate::output::{Format, Output};

/// How often a node is asked again after the connection broke, and for how long it may be away.
const AGAIN: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// What was heard so far.
#[derive(Default)]
struct Heard {
    plan: Option<ChangePlan>,
    stages: Vec<BootstrapProgress>,
}

impl Heard {
    fn stage(&mut self, stage: BootstrapProgress, out: &mut Output) -> Result<(), Failure> {
        if out.format() == Format::Table && stage.stage() != Stage::Failed {
            let first = self.stages.first().unwrap_or(&stage);
            let line = page::stage(&stage, first, out.palette());
            out.text(&line)?;
        }
        self.stages.push(stage);
        Ok(())
    }
}

pub(super) async fn carry_out(
    request: BootstrapRequest,
    dry_run: bool,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Exit, Failure> {
    let usage = |failure: Failure| if dry_run { failure.ending(Exit::Usage) } else { failure };
    let connection = node::reach(node, out).await.map_err(usage)?;
    let answers = connection.cluster().bootstrap(request).await;
    let mut answers = answers.map_err(|status| usage(refused(&status)))?.into_inner();
    let mut heard = Heard::default();
    let broken = loop {
        match answers.message().await {
            Ok(Some(answer)) => match answer.what {
                Some(What::Progress(stage)) => heard.stage(stage, out)?,
                Some(What::Plan(plan)) => {
                    if out.format() == Format::Table && dry_run {
                        let text = plan_page(&plan, out.palette());
                        out.text(&text)?;
                    }
                    heard.plan = Some(plan);
                }
                Some(What::Findings(findings)) => {
                    return Err(usage(refused_config(&findings, out)?));
                }
                None => {}
            },
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
    };
    let over = heard.stages.last().is_some_and(|last| page::is_end(last.stage()));
    if let (Some(status), false) = (&broken, over) {
        if dry_run {
            return Err(refused(status).ending(Exit::Usage));
        }
        drop(connection);
        out.notice("the connection broke; the node goes on, and is asked again");
        ask_again(&mut heard, node, out).await?;
    }
    end(&heard, dry_run, out)
}

/// Asks the node how it goes, until it is over.
async fn ask_again(heard: &mut Heard, node: &NodeArgs, out: &mut Output) -> Result<(), Failure> {
    let mut since = Instant::now();
    loop {
        match look(node, out).await {
            Ok(answer) => {
                since = Instant::now();
                let known = heard.stages.len().min(answer.stages.len());
                let over = match answer.state() {
                    BootstrapState::UnderWay => false,
                    BootstrapState::Joined => {
                        answer.stages.last().is_none_or(|it| page::is_end(it.stage()))
                    }
                    _ => true,
                };
                for stage in answer.stages.into_iter().skip(known) {
                    heard.stage(stage, out)?;
                }
                if over {
                    return Ok(());
                }
            }
            Err(failure) if since.elapsed() > PATIENCE => {
                out.notice("if the node is registered by now, only clients of the cluster get in: osctl --kubeconfig FILE bootstrap status");
                return Err(failure);
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn look(
    node: &NodeArgs,
    out: &mut Output,
) -> Result<keel_proto::v1::GetBootstrapResponse, Failure> {
    let connection = node::reach(node, out).await?;
    let answer = connection.cluster().get_bootstrap(GetBootstrapRequest {}).await;
    Ok(answer.map_err(|status| refused(&status))?.into_inner())
}

fn end(heard: &Heard, dry_run: bool, out: &mut Output) -> Result<Exit, Failure> {
    let json = out.format() == Format::Json;
    if json {
        out.json(&page::view(heard.plan.as_ref(), &heard.stages))?;
    }
    let last = heard.stages.last();
    let stage = last.map_or(Stage::Unspecified, BootstrapProgress::stage);
    match stage {
        Stage::Failed => {
            let last = last.cloned().unwrap_or_default();
            let failure = page::failure(&last);
            Err(if dry_run { failure.ending(Exit::Usage) } else { failure })
        }
        Stage::Already => Ok(Exit::Clean),
        Stage::Ready | Stage::NotReady => {
            out.notice("from now on only clients of the cluster get in: use osctl --kubeconfig FILE, with the kubeconfig of the cluster's admin");
            Ok(Exit::Clean)
        }
        _ if dry_run => {
            let changes = heard.plan.as_ref().is_some_and(|plan| !plan.changes.is_empty());
            Ok(if changes { Exit::Findings } else { Exit::Clean })
        }
        _ => Err(Failure::new("the node did not say how it ended")
            .next("osctl bootstrap status, with --kubeconfig FILE if it is registered")),
    }
}

pub(super) fn refused(status: &Status) -> Failure {
    let next = match status.code() {
        Code::InvalidArgument => "see what `osctl bootstrap --help` says of it",
        Code::FailedPrecondition if status.message().contains("`force`") => {
            "look at `osctl bootstrap status`; --force leaves that cluster for this one"
        }
        Code::FailedPrecondition => "look at `osctl bootstrap status`, and try again",
        _ => return node::refused("join the cluster", status),
    };
    Failure::new(format!("the node did not begin: {}", status.message())).next(next)
}
