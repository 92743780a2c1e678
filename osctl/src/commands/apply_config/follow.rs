//! From a change that is asked for to its end, through a reboot of the node if need be.

use std::time::{Duration, Instant};

use keel_proto::v1::{
    ApplyRequest, ApplyResponse, ChangeFate, ChangePlan, ChangeProgress, ChangeStage,
    ConfigFindings, ConfirmRequest, Generation, GenerationResult, HistoryRequest, HistoryResponse,
    RollbackRequest, apply_response, rollback_response,
};
use tonic::{Code, Status, Streaming};

use super::page;
use super::{How, Mode};
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, millis};
use crate::output::{Format, Output, printable};

/// How often a node that reboots is tried.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a node may be away. Firmware of servers takes minutes.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a node is asked for.
pub(crate) enum Asked {
    Apply(ApplyRequest),
    Rollback(RollbackRequest),
}

/// The answers, whichever of the two it was.
enum Answers {
    Apply(Streaming<ApplyResponse>),
    Rollback(Streaming<keel_proto::v1::RollbackResponse>),
}

/// One answer.
enum Told {
    Findings(ConfigFindings),
    Plan(ChangePlan),
    Progress(ChangeProgress),
}

impl Answers {
    async fn next(&mut self) -> Result<Option<Told>, Status> {
        Ok(match self {
            Self::Apply(stream) => {
                stream.message().await?.and_then(|it| it.what).map(|it| match it {
                    apply_response::What::Findings(it) => Told::Findings(it),
                    apply_response::What::Plan(it) => Told::Plan(it),
                    apply_response::What::Progress(it) => Told::Progress(it),
                })
            }
            Self::Rollback(stream) => {
                stream.message().await?.and_then(|it| it.what).map(|it| match it {
                    rollback_response::What::Findings(it) => Told::Findings(it),
                    rollback_response::What::Plan(it) => Told::Plan(it),
                    rollback_response::What::Progress(it) => Told::Progress(it),
                })
            }
        })
    }
}

/// How a change ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// The config holds, or nothing was to be done.
    pub(super) good: bool,
    /// In one line.
    pub(super) text: String,
    pub(super) culprit: Option<String>,
    pub(super) last_lines: Vec<String>,
    pub(super) undone: Vec<String>,
}

/// Asks, shows the plan, and tells how it goes to the end.
pub(crate) async fn carry_out(
    asked: Asked,
    how: &How,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Exit, Failure> {
    let failed = |status: Status| {
        let failure = refused(&status);
        if how.dry_run { failure.ending(Exit::Usage) } else { failure }
    };
    let connection = node::reach(node, out).await.map_err(|failure| match how.dry_run {
        true => failure.ending(Exit::Usage),
        false => failure,
    })?;
    let mut config = connection.config();
    let mut answers = match asked {
        Asked::Apply(request) => {
            Answers::Apply(config.apply(request).await.map_err(failed)?.into_inner())
        }
        Asked::Rollback(request) => {
            Answers::Rollback(config.rollback(request).await.map_err(failed)?.into_inner())
        }
    };
    let plan = match answers.next().await.map_err(failed)? {
        Some(Told::Plan(plan)) => plan,
        Some(Told::Findings(findings)) => {
            let failure = refused_config(&findings, out)?;
            return Err(if how.dry_run { failure.ending(Exit::Usage) } else { failure });
        }
        Some(Told::Progress(_)) | None => {
            let failure = Failure::new("the node did not say what it would do");
            return Err(failure.next("compare the versions of the node and of this osctl"));
        }
    };
    let people = out.format() == Format::Table;
    if people {
        let text = page::plan(&plan, out.palette());
        out.text(&text)?;
    }
    let end = match plan.fate() {
        ChangeFate::DryRun => {
            if !people {
                out.json(&page::View::new(&plan, None))?;
            }
            return Ok(if plan.changes.is_empty() { Exit::Clean } else { Exit::Findings });
        }
        ChangeFate::Nothing | ChangeFate::Staged | ChangeFate::Unspecified => {
            if !people {
                out.json(&page::View::new(&plan, None))?;
            }
            return Ok(Exit::Clean);
        }
        ChangeFate::Begun | ChangeFate::OnTrial => {
            watch(&plan, &mut answers, how, node, out).await?
        }
    };
    if people {
        let text = page::end(&end, out.palette());
        out.text(&text)?;
    } else {
        out.json(&page::View::new(&plan, Some(&end)))?;
    }
    Ok(if end.good { Exit::Clean } else { Exit::Findings })
}

/// What is said of a config that is refused whole.
pub(crate) fn refused_config(
    findings: &ConfigFindings,
    out: &mut Output,
) -> Result<Failure, Failure> {
    if out.format() == Format::Json {
        out.json(&page::findings(findings))?;
    }
    let count = findings.findings.len();
    let s = if count == 1 { "" } else { "s" };
    let what = format!("the config is refused, and nothing was changed: {count} finding{s}");
    let failure = Failure::new(what).because(printable(&findings.drawn));
    Ok(failure.next("mend what is underlined, and apply it again"))
}

/// Hears how it goes, until it is over.
async fn watch(
    plan: &ChangePlan,
    answers: &mut Answers,
    how: &How,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Ended, Failure> {
    let number = plan.generation();
    let on_trial = plan.fate() == ChangeFate::OnTrial;
    loop {
        let told = match answers.next().await {
            Ok(Some(Told::Progress(told))) => told,
            // The connection broke, or the node went down before it said so: what became of it is in its history.
            Ok(_) | Err(_) => break,
        };
        if out.format() == Format::Table {
            out.text(&format!("config {number} {}\n", printable(&told.text)))?;
        }
        match told.stage() {
            ChangeStage::Reboots => break,
            ChangeStage::Waits if on_trial && how.mode == Mode::Try => {
                return Ok(Ended { good: true, text: confirm_it(number), ..Ended::default() });
            }
            ChangeStage::Waits => break,
            ChangeStage::Reached => {
                let text = format!("config {number} holds");
                return Ok(Ended { good: true, text, ..Ended::default() });
            }
            ChangeStage::RolledBack | ChangeStage::Degraded => {
                return Ok(Ended {
                    good: false,
                    text: format!("config {number} {}", told.text),
                    culprit: told.culprit,
                    last_lines: told.last_lines,
                    undone: told.undone,
                });
            }
            ChangeStage::Began | ChangeStage::Unspecified => {}
        }
    }
    if how.no_follow {
        let text = format!("`osctl history` shows what becomes of config {number}");
        return Ok(Ended { good: true, text, ..Ended::default() });
    }
    come_back(number, how, node, out).await
}

fn confirm_it(number: u64) -> String {
    format!("config {number} is undone unless `osctl confirm` comes in time")
}

/// Waits for the node to be back, and for what became of the config.
async fn come_back(
    number: u64,
    how: &How,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Ended, Failure> {
    let since = Instant::now();
    loop {
        if let Some(history) = history(node, out).await {
            let page = history.generations.iter().find(|page| page.number == number);
            let Some(page) = page else {
                let text = format!("config {number} is not in the node's history");
                return Ok(Ended { text, ..Ended::default() });
            };
            match page.result() {
                GenerationResult::Good => {
                    let text = format!("config {number} holds");
                    return Ok(Ended { good: true, text, ..Ended::default() });
                }
                GenerationResult::RolledBack => {
                    let text = format!("config {number} was undone{}", because(page));
                    return Ok(Ended { text, ..Ended::default() });
                }
                GenerationResult::UnderWay if history.trial == Some(number) => {
                    if how.mode == Mode::Try {
                        let left = node::short(millis(history.trial_left.as_ref()));
                        let text = format!("{}; {left} are left", confirm_it(number));
                        return Ok(Ended { good: true, text, ..Ended::default() });
                    }
                    // Whoever can still reach the node through its links has the proof that they are well.
                    confirm(node, out).await;
                }
                _ => {}
            }
        }
        if since.elapsed() > PATIENCE {
            let failure = Failure::new("the node has not come back within 15 minutes");
            return Err(failure.next(
                "it goes back by itself to the config before; look at its console if it does not",
            ));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn because(page: &Generation) -> String {
    page.note.as_ref().map(|note| format!(": {}", printable(note))).unwrap_or_default()
}

/// The node's history, if it answers.
async fn history(node: &NodeArgs, out: &mut Output) -> Option<HistoryResponse> {
    let connection = node::reach(node, out).await.ok()?;
    Some(connection.config().history(HistoryRequest {}).await.ok()?.into_inner())
}

async fn confirm(node: &NodeArgs, out: &mut Output) {
    if let Ok(connection) = node::reach(node, out).await {
        // If that fails, the history says so next.
        let _ = connection.config().confirm(ConfirmRequest {}).await;
    }
}

fn refused(status: &Status) -> Failure {
    let next = match status.code() {
        Code::FailedPrecondition => {
            "nothing was changed; `osctl history` shows what runs and what has its turn, and --dry-run what would change"
        }
        Code::NotFound => "`osctl history` lists the configs that the node remembers",
        _ => return node::refused("take the config", status),
    };
    Failure::new(format!("the node did not take the config: {}", status.message())).next(next)
}
