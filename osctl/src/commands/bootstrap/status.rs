//! `osctl bootstrap status`: what cluster a node is in, or how it gets there.

use std::fmt::Write as _;

use keel_proto::v1::{BootstrapState, GetBootstrapRequest, GetBootstrapResponse};
use serde_json::{Value, json};

use super::page;
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, timestamp};
use crate::output::{Format, Ink, Output, Palette, printable_line};

pub(super) fn run(node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    node::ask(async {
        let connection = node::reach(node, out).await?;
        let answer = connection.cluster().get_bootstrap(GetBootstrapRequest {}).await;
        let answer = answer.map_err(|status| node::refused("tell of its cluster", &status))?;
        let answer = answer.into_inner();
        match out.format() {
            Format::Table => out.text(&shown(&answer, out.palette()))?,
            Format::Json => out.json(&view(&answer))?,
        }
        let failed = answer.state() == BootstrapState::Failed;
        Ok(if failed { Exit::Findings } else { Exit::Clean })
    })
}

fn word(state: BootstrapState) -> &'static str {
    match state {
        BootstrapState::Unspecified => "unknown",
        BootstrapState::None => "none",
        BootstrapState::UnderWay => "under-way",
        BootstrapState::Joined => "joined",
        BootstrapState::Failed => "failed",
    }
}

fn shown(answer: &GetBootstrapResponse, palette: Palette) -> String {
    let (api_server, name) =
        (printable_line(&answer.api_server), printable_line(&answer.node_name));
    let (ink, text) = match answer.state() {
        BootstrapState::Joined => {
            let ready = match answer.ready {
                Some(true) => ", and Ready".to_owned(),
                Some(false) => format!(", and not Ready: {}", printable_line(&answer.note)),
                None => format!("; it cannot be asked for: {}", printable_line(&answer.note)),
            };
            let good = answer.ready == Some(true);
            let ink = if good { Ink::Good } else { Ink::Warning };
            (ink, format!("in the cluster at {api_server}, as {name}{ready}"))
        }
        BootstrapState::UnderWay => {
            (Ink::Warning, format!("on its way into the cluster at {api_server}, as {name}"))
        }
        BootstrapState::Failed => {
            (Ink::Bad, format!("in no cluster: it could not join the one at {api_server}"))
        }
        BootstrapState::None | BootstrapState::Unspecified => {
            (Ink::Faint, "in no cluster".to_owned())
        }
    };
    let mut text = palette.paint(ink, &text) + "\n";
    if let Some(until) = &answer.certificate_until {
        let _ = writeln!(text, "the kubelet's certificate is valid until {}", timestamp(until));
    }
    if let Some(first) = answer.stages.first() {
        answer.stages.iter().for_each(|stage| text += &page::stage(stage, first, palette));
    }
    text
}

fn view(answer: &GetBootstrapResponse) -> Value {
    json!({
        "state": word(answer.state()),
        "api_server": answer.api_server,
        "node_name": answer.node_name,
        "ready": answer.ready,
        "note": answer.note,
        "certificate_until": answer.certificate_until.as_ref().map(timestamp),
        "stages": answer.stages.iter().map(page::stage_view).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        let answer = |state: BootstrapState, ready, note: &str| GetBootstrapResponse {
            state: state.into(),
            api_server: "https://a:6443".to_owned(),
            node_name: "node-1".to_owned(),
            ready,
            note: note.to_owned(),
            ..Default::default()
        };
        let all = [
            answer(BootstrapState::None, None, ""),
            answer(BootstrapState::UnderWay, None, ""),
            answer(BootstrapState::Failed, None, ""),
            answer(BootstrapState::Joined, Some(true), ""),
            answer(BootstrapState::Joined, Some(false), "no network yet"),
            answer(BootstrapState::Joined, None, "nothing answers there"),
        ];
        let page: String = all.iter().map(|it| shown(it, Palette::PLAIN)).collect();
        insta::assert_snapshot!("states", page);
    }
}
