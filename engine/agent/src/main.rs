//! keel-agent: the API of a node on the network. It carries questions to init and answers back; it changes nothing itself.

mod answers;
mod authz;
mod convert;
mod identity;
mod listen;
mod log;
mod notify;
mod processes;
mod serve;
mod service;
mod tls;

use std::error::Error;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::identity::{Identity, Names};
use crate::log::say;

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
    Serve(ServeArgs),
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
    /// Where to listen, an address and a port; [::] takes IPv4 too
    #[arg(long, default_value = "[::]:50051")]
    listen: SocketAddr,
    /// Init's socket
    #[arg(long, default_value = keel_control::SOCKET)]
    control: PathBuf,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Identity(args) => make_identity(args),
        Command::Serve(args) => {
            serve::run(&args.dir, args.spare_dir.as_deref(), args.listen, args.control)
                .map_err(Into::into)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {}", log::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

fn make_identity(args: IdentityArgs) -> Result<(), Box<dyn Error>> {
    let hostname = args.hostname.or_else(hostname);
    let names = Names { hostname, addresses: args.address };
    let identity = Identity::locate_or_make(&args.dir, &names)?;
    writeln!(io::stdout(), "{}", identity.fingerprint)?;
    Ok(())
}

/// The kernel's host name, unless nobody has set one, or one that no certificate can hold.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim_end();
    (!name.is_empty() && name != "(none)" && name.is_ascii()).then(|| name.to_owned())
}
