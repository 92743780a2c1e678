//! Where a boot comes from: a file, or a node that remembers it.

use std::path::PathBuf;

use clap::Args;
use keel_plan::Trace;
use keel_proto::v1::{Boot, GetBootRequest, ListBootsRequest};

use super::files;
use crate::cli::NodeArgs;
use crate::error::Failure;
use crate::node::{self, Connection};
use crate::output::Output;

/// The largest trace that is taken from a node: many times what a node keeps.
const LARGEST: usize = 64 << 20;

/// One boot.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// A trace, or the console of a boot with keel.report=json; - is standard input [default: the boot of the node of --endpoint]
    #[arg(value_name = "TRACE")]
    recorded: Option<PathBuf>,

    /// An earlier boot of the node: its id, or the first digits of it; `osctl boot list` has them
    #[arg(long, value_name = "ID", conflicts_with = "recorded")]
    boot: Option<String>,
}

impl Source {
    /// The boot's trace.
    pub(crate) fn read(&self, node: &NodeArgs, out: &mut Output) -> Result<Trace, Failure> {
        match &self.recorded {
            Some(path) => files::read(path),
            None => of_node(node, self.boot.as_deref().unwrap_or_default(), out),
        }
    }
}

/// The trace of a boot that a node remembers; of the one that runs if `boot` is empty.
pub(crate) fn of_node(args: &NodeArgs, boot: &str, out: &mut Output) -> Result<Trace, Failure> {
    node::ask(async { fetch(&reach(args, out).await?, boot).await })
}

/// The traces of these boots of a node; of all that it remembers, the oldest first, if there are none.
pub(crate) fn several_of_node(
    args: &NodeArgs,
    boots: &[String],
    out: &mut Output,
) -> Result<Vec<Trace>, Failure> {
    node::ask(async {
        let connection = reach(args, out).await?;
        let mut ids = boots.to_vec();
        if ids.is_empty() {
            ids = list(&connection).await?.into_iter().rev().map(|boot| boot.id).collect();
        }
        let mut traces = Vec::new();
        for id in &ids {
            traces.push(fetch(&connection, id).await?);
        }
        Ok(traces)
    })
}

/// The boots that a node remembers, newest first.
pub(crate) async fn list(connection: &Connection) -> Result<Vec<Boot>, Failure> {
    let answer = connection.journal().list_boots(ListBootsRequest {}).await;
    Ok(answer.map_err(|status| node::refused("list its boots", &status))?.into_inner().boots)
}

/// The id of the boot that a node runs.
pub(crate) async fn current(connection: &Connection) -> Result<String, Failure> {
    let boot = list(connection).await?.into_iter().find(|boot| boot.current);
    let failure = || {
        let failure = Failure::new("the node lists no boot that runs");
        failure.next("this is a defect of keel-agent; please report it")
    };
    boot.map(|boot| boot.id).ok_or_else(failure)
}

async fn reach(args: &NodeArgs, out: &mut Output) -> Result<Connection, Failure> {
    node::reach(args, out).await.map_err(|failure| {
        // Whoever names neither has probably forgotten the file.
        let nowhere = args.endpoint.is_empty() && failure.exit() == crate::error::Exit::Usage;
        if nowhere {
            Failure::usage("which boot?")
                .next("name a trace, or give --endpoint HOST for a boot that a node remembers")
        } else {
            failure
        }
    })
}

async fn fetch(connection: &Connection, boot: &str) -> Result<Trace, Failure> {
    let request = GetBootRequest { boot: boot.to_owned() };
    let refused = |status| node::refused("give the trace of that boot", &status);
    let answer = connection.journal().get_boot(request).await;
    let mut stream = answer.map_err(refused)?.into_inner();
    let mut bytes = Vec::new();
    while let Some(answer) = stream.message().await.map_err(refused)? {
        bytes.extend(answer.piece);
        if bytes.len() > LARGEST {
            return Err(Failure::new(format!("the trace is larger than {} MiB", LARGEST >> 20))
                .next("this is a defect of the node; please report it"));
        }
    }
    Trace::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| {
        let failure = Failure::new("cannot read the trace that the node gave").because(error);
        failure.next("the node may run a newer Keel than this osctl; compare their versions")
    })
}
