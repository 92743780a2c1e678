//! How a bootstrap looks.

use std::time::Duration;

use keel_proto::v1::{
    BootstrapFault as Fault, BootstrapProgress, BootstrapStage as Stage, ChangePlan,
};
use serde_json::{Value, json};

use crate::commands::apply_config::plan_view;
use crate::error::Failure;
use crate::node::timestamp;
use crate::output::{Ink, Palette, printable_line};

/// Whether nothing comes after it.
pub(super) fn is_end(stage: Stage) -> bool {
    matches!(stage, Stage::Ready | Stage::NotReady | Stage::Already | Stage::Failed)
}

pub(super) fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Unspecified => "",
        Stage::Reaching => "reaching",
        Stage::Verified => "verified",
        Stage::Applied => "applied",
        Stage::Requested => "requested",
        Stage::Approved => "approved",
        Stage::Registered => "registered",
        Stage::Ready => "ready",
        Stage::NotReady => "not-ready",
        Stage::Already => "already",
        Stage::Failed => "failed",
    }
}

fn fault(fault: Fault) -> Option<&'static str> {
    Some(match fault {
        Fault::Unspecified => return None,
        Fault::Unreachable => "unreachable",
        Fault::WrongCluster => "wrong-cluster",
        Fault::Clock => "clock",
        Fault::Credentials => "credentials",
        Fault::NotAllowed => "not-allowed",
        Fault::NameTaken => "name-taken",
        Fault::Denied => "denied",
        Fault::NotApproved => "not-approved",
        Fault::Kubelet => "kubelet",
        Fault::Config => "config",
    })
}

fn since(stage: &BootstrapProgress, first: &BootstrapProgress) -> Duration {
    let at = |stage: &BootstrapProgress| {
        let time = stage.time.unwrap_or_default();
        std::time::SystemTime::try_from(time).unwrap_or(std::time::SystemTime::UNIX_EPOCH)
    };
    at(stage).duration_since(at(first)).unwrap_or_default()
}

/// A stage, as a line.
pub(super) fn stage(
    stage: &BootstrapProgress,
    first: &BootstrapProgress,
    palette: Palette,
) -> String {
    let ink = match stage.stage() {
        Stage::Registered | Stage::Ready | Stage::Already => Ink::Good,
        Stage::NotReady | Stage::Unspecified => Ink::Warning,
        Stage::Failed => Ink::Bad,
        _ => Ink::Faint,
    };
    let at = format!("{:7.1} s", since(stage, first).as_secs_f64());
    let word = palette.paint(ink, &format!("{:10}", word(stage.stage())));
    format!("{}  {word}  {}\n", palette.paint(Ink::Faint, &at), printable_line(&stage.text))
}

/// What `--output json` prints; its keys are an interface.
pub(super) fn view(plan: Option<&ChangePlan>, stages: &[BootstrapProgress]) -> Value {
    let last = stages.last();
    json!({
        "result": last.map(|last| word(last.stage())),
        "fault": last.and_then(|last| fault(last.fault())),
        "text": last.map(|last| &last.text),
        "generation": stages.iter().rev().find_map(|stage| stage.generation),
        "stages": stages.iter().map(stage_view).collect::<Vec<_>>(),
        "plan": plan.map(plan_view),
    })
}

pub(super) fn stage_view(stage: &BootstrapProgress) -> Value {
    json!({
        "stage": word(stage.stage()),
        "text": stage.text,
        "time": stage.time.as_ref().map(timestamp),
        "fault": fault(stage.fault()),
    })
}

/// Why the node did not join, and what to do.
pub(super) fn failure(last: &BootstrapProgress) -> Failure {
    let next = match last.fault() {
        Fault::Unreachable => {
            "check --api-server, and that the node's network reaches it: osctl logs keel-agent"
        }
        Fault::WrongCluster => {
            "take the CA from the cluster that is meant: kubectl config view --raw -o jsonpath='{.clusters[0].cluster.certificate-authority-data}' | base64 -d"
        }
        Fault::Clock => "set the clocks: time servers stand in `network.ntp` of the machine config",
        Fault::Credentials => {
            "make a new token: kubeadm token create, or kubectl create token ACCOUNT"
        }
        Fault::NotAllowed => "bind the token's account to the ClusterRole system:node-bootstrapper",
        Fault::NameTaken => "--node-name gives this node another name",
        Fault::Denied => "ask who denied it; then delete the request, and bootstrap again",
        Fault::NotApproved => "approve it as it is said above, and bootstrap again",
        Fault::Kubelet => "osctl logs kubelet, and `osctl units show kubelet`",
        Fault::Config => "osctl history, and `osctl config get`",
        Fault::Unspecified => "osctl logs keel-agent",
    };
    let why = printable_line(&last.text);
    let undone = match last.generation {
        Some(number) => format!("; config {number} is undone, and the node is as before"),
        None => "; nothing was changed".to_owned(),
    };
    Failure::new(format!("the node did not join{undone}")).because(why).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(seconds: i64, stage: Stage, text: &str) -> BootstrapProgress {
        BootstrapProgress {
            stage: stage.into(),
            text: text.to_owned(),
            time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            fault: Fault::Unspecified.into(),
            generation: None,
        }
    }

    #[test]
    fn stages_are_told_with_the_time_since_the_first() {
        let all = [
            progress(100, Stage::Reaching, "reaching the API server at https://a:6443"),
            progress(101, Stage::Verified, "verified the API server"),
            progress(103, Stage::Unspecified, "csr-1 waits to be approved\u{1b}[2J"),
            progress(110, Stage::Registered, "registered as node-1"),
        ];
        let page: String = all.iter().map(|it| stage(it, &all[0], Palette::PLAIN)).collect();
        insta::assert_snapshot!("stages", page);
        insta::assert_snapshot!("json", serde_json::to_string_pretty(&view(None, &all)).unwrap());
    }

    #[test]
    fn every_fault_has_its_next() {
        let all: Vec<_> = (0..=10).map(|n| Fault::try_from(n).unwrap()).collect();
        let page: String = all
            .into_iter()
            .map(|fault| {
                let mut last = progress(1, Stage::Failed, "because");
                last.fault = fault.into();
                last.generation = (fault == Fault::Kubelet).then_some(3);
                let lines = failure(&last).lines();
                let lines = lines.iter().map(|(head, line)| format!("{head}: {line}\n"));
                format!("{}{}", fault.as_str_name(), "\n") + &lines.collect::<String>()
            })
            .collect();
        insta::assert_snapshot!("faults", page);
    }
}
