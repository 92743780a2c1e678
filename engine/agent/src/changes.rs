//! What init says of configs and their changes, as the API says it: more of the edge that `convert` is.

use keel_control as control;
use keel_control::MutationProgress as Progress;
use keel_proto::v1;

use crate::convert::{duration, moment};

/// What comes of a config that somebody wants.
pub(crate) fn answer(answer: control::Answer) -> v1::ApplyResponse {
    use v1::apply_response::What;

    let what = match answer {
        control::Answer::Invalid(findings) => What::Findings(v1::ConfigFindings {
            drawn: findings.drawn,
            findings: findings.findings.into_iter().map(finding).collect(),
        }),
        control::Answer::Planned(applied) => What::Plan(plan(applied)),
    };
    v1::ApplyResponse { what: Some(what) }
}

fn finding(finding: control::Finding) -> v1::ConfigFinding {
    let control::Finding { code, message, help, file, line, column } = finding;
    v1::ConfigFinding { code, message, help, file, line, column }
}

fn plan(applied: control::Applied) -> v1::ChangePlan {
    let control::Applied { plan, fate, generation, from_seq: _ } = applied;
    v1::ChangePlan {
        base_digest: plan.base,
        target_digest: plan.target,
        changes: plan.changes.into_iter().map(change).collect(),
        kept: plan.kept,
        needs_reboot: plan.needs_reboot,
        boot: plan.boot.map(|boot| v1::BootChange {
            before: Some(duration(boot.before_ms)),
            after: Some(duration(boot.after_ms)),
            path_before: boot.before,
            path_after: boot.after,
        }),
        fate: match fate {
            control::Fate::DryRun => v1::ChangeFate::DryRun,
            control::Fate::Nothing => v1::ChangeFate::Nothing,
            control::Fate::Begun => v1::ChangeFate::Begun,
            control::Fate::OnTrial => v1::ChangeFate::OnTrial,
            control::Fate::Staged => v1::ChangeFate::Staged,
        }
        .into(),
        generation,
    }
}

fn change(change: control::UnitChange) -> v1::UnitChange {
    let decision = match change.decision {
        control::Decision::Keep => v1::UnitDecision::Keep,
        control::Decision::Start => v1::UnitDecision::Start,
        control::Decision::Stop => v1::UnitDecision::Stop,
        control::Decision::Restart => v1::UnitDecision::Restart,
        control::Decision::Reload => v1::UnitDecision::Reload,
        control::Decision::Rerun => v1::UnitDecision::Rerun,
        control::Decision::NeedsReboot => v1::UnitDecision::NeedsReboot,
    };
    v1::UnitChange {
        unit: change.unit,
        decision: decision.into(),
        because: change.because,
        interrupts: change.interrupts,
    }
}

/// Whether nothing comes after this: the config has had its turn, or the machine is about to be gone.
pub(crate) fn is_over(progress: &Progress) -> bool {
    match progress {
        Progress::Began | Progress::Waits { .. } => false,
        Progress::Reboots | Progress::Reached | Progress::RolledBack(_) | Progress::Degraded(_) => {
            true
        }
    }
}

/// How a change goes on.
pub(crate) fn progress(generation: u64, progress: Progress) -> v1::ApplyResponse {
    let text = progress.to_string();
    let stage = match &progress {
        Progress::Began => v1::ChangeStage::Began,
        Progress::Reboots => v1::ChangeStage::Reboots,
        Progress::Waits { .. } => v1::ChangeStage::Waits,
        Progress::Reached => v1::ChangeStage::Reached,
        Progress::RolledBack(_) => v1::ChangeStage::RolledBack,
        Progress::Degraded(_) => v1::ChangeStage::Degraded,
    };
    let undone = match progress {
        Progress::RolledBack(undone) | Progress::Degraded(undone) => Some(undone),
        _ => None,
    };
    let (culprit, last_lines, undone) =
        undone.map(|undone| (undone.culprit, undone.last_words, undone.undone)).unwrap_or_default();
    let stage = stage.into();
    let progress = v1::ChangeProgress { generation, stage, text, culprit, last_lines, undone };
    v1::ApplyResponse { what: Some(v1::apply_response::What::Progress(progress)) }
}

/// The same, of going back.
pub(crate) fn of_rollback(answer: v1::ApplyResponse) -> v1::RollbackResponse {
    use v1::apply_response::What as Of;
    use v1::rollback_response::What;

    let what = answer.what.map(|what| match what {
        Of::Findings(findings) => What::Findings(findings),
        Of::Plan(plan) => What::Plan(plan),
        Of::Progress(progress) => What::Progress(progress),
    });
    v1::RollbackResponse { what }
}

/// The configs that the machine remembers.
pub(crate) fn history(history: control::History) -> v1::HistoryResponse {
    v1::HistoryResponse {
        generations: history.generations.into_iter().map(generation).collect(),
        current: history.current,
        next: history.next,
        trial: history.trial.map(|trial| trial.generation),
        trial_left: history.trial.map(|trial| duration(trial.left_ms)),
        damage: history.damage,
    }
}

fn generation(one: control::Generation) -> v1::Generation {
    let result = match one.result {
        control::GenerationResult::Staged => v1::GenerationResult::Staged,
        control::GenerationResult::UnderWay => v1::GenerationResult::UnderWay,
        control::GenerationResult::Good => v1::GenerationResult::Good,
        control::GenerationResult::RolledBack => v1::GenerationResult::RolledBack,
    };
    v1::Generation {
        number: one.number,
        digest: one.digest,
        text_sha256: one.text_sha256,
        author: one.author,
        reason: one.reason,
        time: Some(moment(one.at_ms).into()),
        result: result.into(),
        note: one.note,
    }
}
