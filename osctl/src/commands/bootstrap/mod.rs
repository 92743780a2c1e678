//! `osctl bootstrap` and `osctl unbootstrap`: a node joins a Kubernetes cluster, and leaves it. The node does it; here it is asked for and
//! shown.

mod follow;
mod leave;
mod page;
mod status;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use keel_proto::v1::BootstrapRequest;

pub(crate) use self::leave::Unbootstrap;
use crate::cli::NodeArgs;
use crate::commands::apply_config::time;
use crate::error::{Exit, Failure};
use crate::node;
use crate::output::Output;

/// The most bytes of a file that is sent.
const LARGEST: u64 = 48 * 1024;

/// Have a node join a Kubernetes cluster
///
/// The node reaches the API server, verifies it and shows it the token; whatever is wrong with them changes nothing. Then it takes the
/// cluster into its machine config, on trial: that holds once the node is registered, and is undone by the node itself if it is not in
/// time. It goes on without osctl: `osctl bootstrap status` shows how. Once it is registered only clients of the cluster get in: from then
/// on use `osctl --kubeconfig FILE`. The same cluster once more changes nothing.
///
/// Before `bootstrap`, --kubeconfig says who you are to the node; after it, what the node shows to the cluster.
///
/// Exit code 0 if the node is registered, 1 if it is not. With --dry-run: 0 if nothing would change, 1 if something would, 2 if it cannot
/// be.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  osctl --endpoint http://192.0.2.10:50051 bootstrap --api-server https://203.0.113.10:6443 --token abcdef.0123456789abcdef --ca-cert ca.crt
  kubeadm token create | osctl --endpoint 192.0.2.10 bootstrap --api-server https://203.0.113.10:6443 --token - --ca-cert ca.crt
  osctl --endpoint 192.0.2.10 bootstrap --api-server https://203.0.113.10:6443 --token-file token \\
    --ca-hash sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad --node-name worker-7
  osctl --endpoint 192.0.2.10 bootstrap --kubeconfig joiner.kubeconfig --dry-run
  osctl --endpoint 192.0.2.10 --kubeconfig ~/.kube/config bootstrap status"
)]
pub(crate) struct Bootstrap {
    #[command(subcommand)]
    what: Option<What>,

    /// Where the cluster's API server answers
    #[arg(long, value_name = "https://HOST:PORT")]
    api_server: Option<String>,

    /// What the node shows for its first certificate: a bootstrap token, or the JWT of a service account. `-`: it is read from stdin, and
    /// stays out of the list of processes
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", hide_env_values = true)]
    token: Option<String>,

    /// The same, from a file for its owner alone (mode 0600)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The cluster's certificate authority, in PEM
    #[arg(long, value_name = "FILE", conflicts_with = "ca_hash")]
    ca_cert: Option<PathBuf>,

    /// In its place the pin that `kubeadm token create --print-join-command` prints
    #[arg(long, value_name = "sha256:HASH")]
    ca_hash: Option<String>,

    /// In place of all of these: a kubeconfig with what the node shows to the cluster. After `bootstrap`, --kubeconfig is this one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["api_server", "token", "token_file", "ca_cert", "ca_hash"])]
    node_kubeconfig: Option<PathBuf>,

    /// What the node is called in the cluster; else as its machine config says, or its host name
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// Verify the cluster, and only show what would change
    #[arg(long)]
    dry_run: bool,

    /// Leave the cluster that the node is in for this one
    #[arg(long)]
    force: bool,

    /// How long the node may take to be registered
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what cluster a node is in, or how it gets there
    #[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 bootstrap status
  osctl --endpoint 192.0.2.10 --kubeconfig ~/.kube/config bootstrap status --output json | jq .state")]
    Status,
}

impl Bootstrap {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        if let Some(What::Status) = self.what {
            return status::run(node, out);
        }
        let dry_run = self.dry_run;
        let request = self.request()?;
        node::ask(follow::carry_out(request, dry_run, node, out))
    }

    fn request(self) -> Result<BootstrapRequest, Failure> {
        if self.node_kubeconfig.is_none() {
            let missing = [
                (self.api_server.is_none(), "--api-server https://HOST:PORT"),
                (self.token.is_none() && self.token_file.is_none(), "--token TOKEN"),
                (self.ca_cert.is_none() && self.ca_hash.is_none(), "--ca-cert FILE"),
            ];
            let missing: Vec<_> =
                missing.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
            if !missing.is_empty() {
                let failure = Failure::usage("it is not said which cluster, or how to get in");
                return Err(failure.next(format!("add {}", missing.join(" "))));
            }
        }
        let token = match (self.token, self.token_file) {
            (Some(token), _) if token == "-" => read("stdin", std::io::stdin().lock())?,
            (Some(token), _) => token,
            (None, Some(path)) => secret(&path)?,
            (None, None) => String::new(),
        };
        let kubeconfig = self.node_kubeconfig.as_deref().map(secret).transpose()?;
        let ca_cert = self.ca_cert.as_deref().map(text).transpose()?;
        Ok(BootstrapRequest {
            api_server: self.api_server.unwrap_or_default(),
            token: token.trim().to_owned(),
            ca_cert: ca_cert.unwrap_or_default(),
            ca_hash: self.ca_hash.unwrap_or_default(),
            kubeconfig: kubeconfig.unwrap_or_default(),
            node_name: self.node_name.unwrap_or_default(),
            dry_run: self.dry_run,
            force: self.force,
            timeout: self.timeout.try_into().ok(),
        })
    }
}

/// A file with a secret in it.
fn secret(path: &Path) -> Result<String, Failure> {
    crate::commands::inputs::private(path)?;
    text(path)
}

fn text(path: &Path) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|source| unreadable(&shown).because(source))?;
    read(&shown, file)
}

fn read(shown: &str, from: impl std::io::Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = from.take(LARGEST + 1).read_to_string(&mut text);
    read.map_err(|source| unreadable(shown).because(source))?;
    if text.len() as u64 > LARGEST {
        let failure = Failure::usage(format!("{shown} is larger than {LARGEST} bytes"));
        return Err(failure.next("is it the right file?"));
    }
    Ok(text)
}

fn unreadable(shown: &str) -> Failure {
    Failure::usage(format!("cannot read {shown}")).next("check the path, and that it is yours")
}
