//! `osctl apply-config`: a node gets another machine config. The node plans it, keeps it and tries it; here that is shown.

mod follow;
mod page;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use keel_proto::v1::{ApplyMode, ApplyRequest, ConfigFile};
use keel_unit::load::LARGEST_FILE;

pub(crate) use self::follow::{Asked, carry_out, refused_config};
pub(crate) use self::page::{plan as plan_page, plan_view};
use crate::cli::NodeArgs;
use crate::commands::inputs::private;
use crate::error::{Exit, Failure};
use crate::node;
use crate::output::Output;

/// Give a node another machine config
///
/// The node plans what that changes, keeps the config on its data partition, and tries it: it holds once the node is up with it, and is
/// undone by the node itself if not. A config with anything wrong in it is refused whole, with all that is wrong, and nothing changes; the
/// same config once more changes nothing. With --dry-run: exit code 0 if there is nothing to do, 1 if something would change, 2 if it
/// cannot be. Otherwise exit code 1 if the config does not hold in the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 apply-config --file node.toml --dry-run
  osctl --endpoint 192.0.2.10 apply-config --file site.toml --patch rack-7.toml --reason 'a second disk'
  osctl --endpoint 192.0.2.10 apply-config --file node.toml --mode try --timeout 5m")]
pub(crate) struct ApplyConfig {
    /// The machine config
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,

    /// A file that is laid over those before; say it again for each further one
    #[arg(long, short, value_name = "FILE")]
    patch: Vec<PathBuf>,

    /// File with the config's secrets, `NAME = \"…\"` each; for its owner alone (mode 0600)
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,

    #[command(flatten)]
    how: How,
}

/// How far a change may go.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct How {
    /// Only show what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// How far it may go
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub(crate) mode: Mode,

    /// How long a config on trial waits for `osctl confirm`, counted from when the node is up with it
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = time)]
    pub(crate) timeout: Duration,

    /// Why, for the node's history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,

    /// Wait while another config has its turn on the node, rather than be refused
    #[arg(long)]
    pub(crate) wait: bool,

    /// Do not wait for a node that reboots for it
    #[arg(long)]
    pub(crate) no_follow: bool,
}

/// How far a change may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// At once; the node reboots if it must
    Auto,
    /// At once, or not at all if the node must reboot for it
    NoReboot,
    /// With the next boot
    Staged,
    /// At once, and undone by the node itself unless `osctl confirm` comes in time
    Try,
}

impl From<Mode> for ApplyMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::NoReboot => Self::NoReboot,
            Mode::Staged => Self::Staged,
            Mode::Try => Self::Try,
        }
    }
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    use keel_unit::keys::Text as _;
    use keel_unit::value::Timespan;

    Timespan::parse(text).map(|written| written.0).map_err(|_| "write it as 90s or 2m".to_owned())
}

impl How {
    /// On the wire.
    pub(crate) fn timeout(&self) -> Option<prost_types::Duration> {
        self.timeout.try_into().ok()
    }
}

impl ApplyConfig {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let unreadable = |failure: Failure| match self.how.dry_run {
            true => failure.ending(Exit::Usage),
            false => failure,
        };
        if let Some(secrets) = &self.secrets {
            private(secrets)?;
        }
        let files = std::iter::once(&self.file).chain(&self.patch).map(|path| file(path));
        let files = files.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        let secrets = self.secrets.as_deref().map(file).transpose().map_err(unreadable)?;
        let how = &self.how;
        node::ask(async {
            let request = ApplyRequest {
                files,
                secrets,
                base_digest: String::new(),
                dry_run: how.dry_run,
                mode: ApplyMode::from(how.mode).into(),
                timeout: how.timeout(),
                reason: how.reason.clone(),
                wait: how.wait,
                keep_secrets: true,
            };
            carry_out(Asked::Apply(request), how, node, out).await
        })
    }
}

/// A file, to be sent as it is.
fn file(path: &Path) -> Result<ConfigFile, Failure> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| {
        Failure::usage(format!("cannot read {shown}"))
            .because(error)
            .next("is that the right path?")
    })?;
    if about.len() > LARGEST_FILE {
        let failure = Failure::usage(format!("{shown} is larger than 1 MiB"));
        return Err(failure.next("is that a machine config?"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| {
        let failure = Failure::usage(format!("cannot read {shown}")).because(error);
        failure.next("a machine config is a file in UTF-8")
    })?;
    Ok(ConfigFile { name: shown.to_string(), text })
}
