//! keel-agent: the API of a node on the network. It carries questions to init and answers back; it changes nothing itself.

mod about;
mod answers;
mod audit;
mod authz;
mod bootstrap;
mod calls;
mod changes;
mod cluster;
mod convert;
mod effect;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod identity;
mod init;
mod listen;
mod log;
mod metrics;
mod notify;
mod peer;
mod places;
mod processes;
mod requests;
mod serve;
mod server;
mod service;
mod tls;
mod together;
mod trust;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::identity::{Given, Identity, Names, usable};
use crate::log::say;
use crate::serve::Settings;

/// Where a node keeps who it is.
const IDENTITY_DIR: &str = "/var/lib/keel/identity";

/// The API of a Keel node.
#[derive(Debug, Parser)]
#[command(name = "keel-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the node's key and certificate if it has none, and print the fingerprint
    Identity(IdentityArgs),
    /// Serve the API until SIGTERM
    Serve(Box<ServeArgs>),
}

#[derive(Debug, Args)]
struct IdentityArgs {
    /// The folder with machine-id, node.key, node.crt and node.fingerprint
    #[arg(long, default_value = IDENTITY_DIR)]
    dir: PathBuf,
    /// A host name that the certificate is for; else the machine's own
    #[arg(long)]
    hostname: Option<String>,
    /// An address that the certificate is for; may be given several times
    #[arg(long, value_name = "IP")]
    address: Vec<IpAddr>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The folder with node.key and node.crt
    #[arg(long, default_value = IDENTITY_DIR)]
    dir: PathBuf,
    /// A folder for an identity that ends with this boot, for a machine on which the other folder does not exist
    #[arg(long)]
    spare_dir: Option<PathBuf>,
    /// The CAs of the machine config, in PEM: nobody else is let in, and nobody at all without this file
    #[arg(long, value_name = "FILE")]
    trusted_ca: Option<PathBuf>,
    /// What the CAs of the machine config have revoked, in PEM
    #[arg(long, value_name = "FILE")]
    trusted_crl: Option<PathBuf>,
    /// The cluster's CAs, in PEM; the node is in maintenance until this file is there
    #[arg(long, value_name = "FILE", default_value = "/var/lib/keel/trust/cluster-ca.crt")]
    cluster_ca: PathBuf,
    /// What the cluster's CAs have revoked, in PEM, if the file is there
    #[arg(long, value_name = "FILE", default_value = "/var/lib/keel/trust/cluster-ca.crl")]
    cluster_crl: PathBuf,
    /// The kubelet's folder, which says what cluster this node joins
    #[arg(long, value_name = "DIR", default_value = "/var/lib/keel/kubelet")]
    kubelet_dir: PathBuf,
    /// The folder where calls are recorded
    #[arg(long, value_name = "DIR", default_value = "/var/lib/keel/audit")]
    audit_dir: PathBuf,
    /// The same, for a machine on which the identity ends with this boot
    #[arg(long, value_name = "DIR", default_value = "/run/keel/audit")]
    spare_audit_dir: PathBuf,
    /// Where to listen, an address and a port; [::] takes IPv4 too
    #[arg(long, default_value = "[::]:50051")]
    listen: SocketAddr,
    /// Serve metrics in the clear at this address and port, or on the Unix socket of this path
    #[arg(long, value_name = "WHERE")]
    metrics: Option<metrics::Where>,
    /// Init's socket
    #[arg(long, default_value = keel_control::SOCKET)]
    control: PathBuf,
}

impl From<ServeArgs> for Settings {
    fn from(args: ServeArgs) -> Self {
        Self {
            given: given(),
            metrics: args.metrics,
            identity: args.dir,
            spare: args.spare_dir,
            address: args.listen,
            control: args.control,
            trust: trust::Places {
                config: source("KEEL_TRUSTED_CA", args.trusted_ca),
                config_crl: source("KEEL_TRUSTED_CRL", args.trusted_crl),
                cluster: args.cluster_ca,
                cluster_crl: args.cluster_crl,
            },
            kubelet: args.kubelet_dir,
            audit: args.audit_dir,
            spare_audit: args.spare_audit_dir,
        }
    }
}

/// What the machine config says: as a text in the environment, or in a file.
fn source(variable: &str, file: Option<PathBuf>) -> Option<trust::Source> {
    match env::var(variable) {
        Ok(text) => Some(trust::Source::Text(text)),
        // Set, and unreadable: then nobody is let in, as with a file that is.
        Err(env::VarError::NotUnicode(_)) => Some(trust::Source::Text(String::new())),
        Err(env::VarError::NotPresent) => file.map(trust::Source::File),
    }
}

/// The program: reads its arguments, and makes an identity or serves.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Identity(args) => make_identity(args),
        Command::Serve(args) => serve::run((*args).into()).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {}", log::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

/// The identity that the machine config carries, if it does.
fn given() -> Option<Given> {
    let text = |variable| env::var(variable).ok().filter(|text| !text.is_empty());
    let (certificate, key) = (text("KEEL_NODE_CERTIFICATE"), text("KEEL_NODE_KEY"));
    (certificate.is_some() || key.is_some()).then_some(Given { certificate, key })
}

fn make_identity(args: IdentityArgs) -> Result<(), Box<dyn Error>> {
    let hostname = args.hostname.or_else(hostname);
    let names = Names { hostname, addresses: args.address };
    let identity = match given() {
        Some(given) => Identity::given(&given)?,
        None => {
            let identity = Identity::locate_or_make(&args.dir, &names)?;
            Identity::renew(&args.dir, &names)?.unwrap_or(identity)
        }
    };
    writeln!(io::stdout(), "{}", identity.fingerprint)?;
    Ok(())
}

/// The kernel's host name, unless nobody has set one, or one that no certificate can hold.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim_end();
    usable(name).then(|| name.to_owned())
}
