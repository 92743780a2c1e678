//! `osctl known-nodes`: the nodes that osctl trusts by their fingerprint.

use std::time::SystemTime;

use clap::Subcommand;
use serde::Serialize;

use crate::error::{Exit, Failure};
use crate::node::known::{Added, KnownNode, KnownNodes};
use crate::node::target::{fingerprint, parse};
use crate::output::{Format, Ink, Output, Palette};

/// List, add or forget the nodes that osctl knows by their certificate
///
/// A node signs its own certificate, so it is known as ssh knows a host: by the fingerprint that it showed first, kept in known-nodes in
/// osctl's folder (~/.config/keel, or $OSCTL_HOME).
#[derive(Debug, Subcommand)]
pub(crate) enum KnownNodesCommand {
    /// List the nodes that osctl knows
    #[command(after_help = "Examples:
  osctl known-nodes list
  osctl known-nodes list --output json | jq -r '.[].endpoint'")]
    List,

    /// Trust a node by its fingerprint before it is first called
    #[command(after_help = "Examples:
  osctl known-nodes add 192.0.2.10 c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00")]
    Add {
        /// The node's API: HOST[:PORT]
        #[arg(value_name = "HOST[:PORT]")]
        node: String,

        /// SHA-256 fingerprint of its key, as its console shows it
        #[arg(value_name = "SHA256")]
        sha256: String,
    },

    /// Forget a node, to trust whoever answers there next
    #[command(after_help = "Examples:
  osctl known-nodes remove 192.0.2.10")]
    Remove {
        /// The node's API: HOST[:PORT]
        #[arg(value_name = "HOST[:PORT]")]
        node: String,
    },
}

impl KnownNodesCommand {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        let known = KnownNodes::open()?;
        match self {
            Self::List => list(&known, out)?,
            Self::Add { node, sha256 } => add(&known, &node, &sha256, out)?,
            Self::Remove { node } => {
                let endpoint = parse(&node)?;
                if known.remove(&endpoint)? == 0 {
                    return Err(Failure::new(format!("{endpoint} is not known"))
                        .next("`osctl known-nodes list` shows those that are"));
                }
                out.notice(&format!("{endpoint} is forgotten"));
            }
        }
        Ok(Exit::Clean)
    }
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
struct View {
    endpoint: String,
    fingerprint: String,
    since: Option<String>,
}

fn list(known: &KnownNodes, out: &mut Output) -> Result<(), Failure> {
    let nodes = known.list()?;
    match out.format() {
        Format::Table if nodes.is_empty() => {
            out.notice("no node is known yet: the first call of one makes it known");
            Ok(())
        }
        Format::Table => out.text(&table(&nodes, out.palette())),
        Format::Json => {
            let view = |node: &KnownNode| {
                let KnownNode { endpoint, fingerprint, since, .. } = node;
                View {
                    endpoint: endpoint.clone(),
                    fingerprint: fingerprint.to_string(),
                    since: since.clone(),
                }
            };
            out.json(&nodes.iter().map(view).collect::<Vec<_>>())
        }
    }
}

fn table(nodes: &[KnownNode], palette: Palette) -> String {
    let width = nodes.iter().map(|node| node.endpoint.len()).max().unwrap_or(0).max(4);
    let head = format!("{:width$}  {:20}  SHA256", "NODE", "SINCE");
    let mut table = palette.paint(Ink::Faint, &head) + "\n";
    for node in nodes {
        let since = node.since.as_deref().unwrap_or_default();
        table += &format!("{:width$}  {since:20}  {}\n", node.endpoint, node.fingerprint);
    }
    table
}

fn add(known: &KnownNodes, node: &str, sha256: &str, out: &mut Output) -> Result<(), Failure> {
    let (endpoint, sha256) = (parse(node)?, fingerprint(sha256)?);
    match known.add(&endpoint, sha256, SystemTime::now())? {
        Added::New => out.notice(&format!("{endpoint} is known by {sha256}")),
        Added::Same => out.notice(&format!("{endpoint} was known by that fingerprint already")),
        Added::Other(nodes) => {
            let lines: Vec<_> = nodes
                .iter()
                .map(|node| format!("{} ({}:{})", node.fingerprint, known.path(), node.line))
                .collect();
            return Err(Failure::new(format!("{endpoint} is known by {}", lines.join(", ")))
                .next(format!("if that is over: osctl known-nodes remove {endpoint}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let node = |endpoint: &str, since: Option<&str>| KnownNode {
            endpoint: endpoint.to_owned(),
            fingerprint: "ab".repeat(32).parse().unwrap(),
            since: since.map(str::to_owned),
            line: 1,
        };
        let nodes =
            [node("192.0.2.10:50051", Some("2026-11-24T12:00:00Z")), node("[::1]:50051", None)];
        insta::assert_snapshot!("known_nodes", table(&nodes, Palette::PLAIN));
    }
}
