//! What can be typed: one place that names every command and every option that all commands share.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

use crate::commands::apply_config::ApplyConfig;
use crate::commands::boot::Boot;
use crate::commands::bootstrap::{Bootstrap, Unbootstrap};
use crate::commands::completion::Completion;
use crate::commands::config::Config;
use crate::commands::context::ContextCommand;
use crate::commands::explain::Explain;
use crate::commands::graph::Graph;
use crate::commands::history::{Confirm, HistoryArgs, RollbackArgs};
use crate::commands::image::ImageCommand;
use crate::commands::known_nodes::KnownNodesCommand;
use crate::commands::man::Man;
use crate::commands::power::{Reboot, Shutdown};
use crate::commands::processes::Processes;
use crate::commands::reset::Reset;
use crate::commands::validate::Validate;
use crate::commands::verify::Verify;
use crate::commands::{audit, dashboard, dmesg, events, inventory, logs, status, units};
use crate::output::Notation;

/// Boot graphs, images and nodes of Keel, from your own machine.
#[derive(Debug, Parser)]
#[command(
    name = "osctl",
    version,
    propagate_version = true,
    infer_subcommands = false,
    after_help = "Examples:
  osctl validate --config machine-configs/qemu.toml      # is anything wrong with it?
  osctl graph render --config machine-configs/qemu.toml  # what boots, and in which order
  osctl --endpoint 192.0.2.10 status                     # how a node is

Exit codes: 0 all is well, 1 something is wrong or could not be done, 2 the command line is wrong.
Colour is for terminals, and never with NO_COLOR set."
)]
pub(crate) struct Cli {
    /// How to print: for people or for programs
    #[arg(long, global = true, value_enum, default_value_t = Notation::Table)]
    pub(crate) output: Notation,

    #[command(flatten)]
    pub(crate) node: NodeArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const NODE: &str = "Talking to a node";

/// Which node to talk to, how to know that it is the right one, and who one is to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// The node's API: [https://]HOST[:PORT]; the port is 50051 when it is left out. Again for several nodes at once
    #[arg(long, global = true, value_name = "HOST[:PORT]", env = "OSCTL_ENDPOINT", value_delimiter = ',', help_heading = NODE)]
    pub(crate) endpoint: Vec<String>,

    /// SHA-256 fingerprint of the node's key, as its console shows it
    #[arg(long, global = true, value_name = "SHA256", env = "OSCTL_FINGERPRINT", help_heading = NODE)]
    pub(crate) fingerprint: Option<String>,

    /// Refuse a node that is not known, rather than trust it on first use
    #[arg(long, global = true, env = "OSCTL_KNOWN_ONLY", value_parser = FalseyValueParser::new(), help_heading = NODE)]
    pub(crate) known_only: bool,

    /// Show who you are by the client certificate of a kubeconfig
    #[arg(long, global = true, value_name = "FILE", env = "OSCTL_KUBECONFIG", help_heading = NODE)]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The kubeconfig's context, where it is not the current one
    #[arg(long, global = true, value_name = "NAME", help_heading = NODE)]
    pub(crate) context: Option<String>,

    /// Show who you are by this client certificate, in PEM form
    #[arg(long, global = true, value_name = "FILE", env = "OSCTL_CERT", help_heading = NODE)]
    pub(crate) cert: Option<PathBuf>,

    /// The key of that certificate
    #[arg(long, global = true, value_name = "FILE", env = "OSCTL_KEY", help_heading = NODE)]
    pub(crate) key: Option<PathBuf>,

    /// The authority that signed the node's certificate
    #[arg(long, global = true, value_name = "FILE", env = "OSCTL_CA", help_heading = NODE)]
    pub(crate) ca: Option<PathBuf>,

    /// The context of `osctl context` to use, where it is not the current one
    #[arg(long, global = true, value_name = "NAME", env = "OSCTL_CONTEXT", help_heading = NODE)]
    pub(crate) keel_context: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Validate(Validate),

    Verify(Verify),

    #[command(subcommand)]
    Config(Config),

    Explain(Explain),

    #[command(subcommand)]
    Graph(Graph),

    #[command(subcommand)]
    Boot(Boot),

    /// Build a node's image, and boot it in QEMU
    #[command(subcommand)]
    Image(ImageCommand),

    /// Show what a node is, how its boot went and what is wrong with it
    Status(status::Args),

    /// List the units of a node and their states; show, start, stop and restart one
    Units(units::Args),

    Processes(Processes),

    /// Print what happened to a node's units since boot
    Events(events::Args),

    /// Watch a node in the terminal: its boot, units, logs, processes and events
    Dashboard(dashboard::Args),

    /// Print who called a node, and what came of it
    Audit(audit::Args),

    /// Print what a node's units wrote, and follow it
    Logs(logs::Args),

    /// Print what a node's kernel wrote, and follow it
    Dmesg(dmesg::Args),

    /// Show what a node is made of, or record it for `osctl verify`
    Inventory(inventory::Args),

    Bootstrap(Bootstrap),

    Unbootstrap(Unbootstrap),

    ApplyConfig(ApplyConfig),

    Confirm(Confirm),

    History(HistoryArgs),

    Rollback(RollbackArgs),

    Reboot(Reboot),

    Shutdown(Shutdown),

    Reset(Reset),
    #[command(subcommand)]
    Context(ContextCommand),

    #[command(subcommand)]
    KnownNodes(KnownNodesCommand),

    Completion(Completion),

    Man(Man),
}

/// The command line as it is read: `--kubeconfig` after `bootstrap` is what the node shows to the cluster, and not, as everywhere else, who
/// one is to the node.
pub(crate) fn words(typed: impl Iterator<Item = OsString>) -> Vec<OsString> {
    const OWN: &str = "--kubeconfig";
    const NODES: &str = "--node-kubeconfig";

    let mut words: Vec<OsString> = typed.collect();
    let shared = <Cli as clap::CommandFactory>::command();
    let takes_a_value = |word: &str| {
        let named = |argument: &&clap::Arg| {
            argument.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long))
        };
        let own = shared.find_subcommand("bootstrap").into_iter();
        let mut arguments =
            shared.get_arguments().chain(own.flat_map(clap::Command::get_arguments));
        let argument = arguments.find(named);
        argument.is_some_and(|argument| argument.get_action().takes_values())
    };
    let mut at = 1;
    let verb = loop {
        match words.get(at).map(|word| word.to_string_lossy()) {
            Some(word) if takes_a_value(&word) => at += 2,
            Some(word) if word.starts_with('-') => at += 1,
            Some(word) => break word == "bootstrap",
            None => break false,
        }
    };
    let mut next = at + 1;
    let status = loop {
        match words.get(next).map(|word| word.to_string_lossy()) {
            Some(word) if takes_a_value(&word) => next += 2,
            Some(word) if word.starts_with('-') => next += 1,
            word => break word.is_some_and(|word| word == "status"),
        }
    };
    if !verb || status {
        return words;
    }
    for word in &mut words[at + 1..] {
        let text = word.to_string_lossy().into_owned();
        if let Some(rest) = text.strip_prefix(OWN)
            && (rest.is_empty() || rest.starts_with('='))
        {
            *word = format!("{NODES}{rest}").into();
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Calls `visit` with each command below `command` and the words that one types for it.
    fn each(command: &clap::Command, words: &str, visit: &mut impl FnMut(&clap::Command, &str)) {
        for below in command.get_subcommands() {
            let words = format!("{words} {}", below.get_name());
            visit(below, &words);
            each(below, &words, visit);
        }
    }

    /// The command lines of an `Examples:` block; a line that ends in `\` goes on in the next one.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, lines)) = help.split_once("Examples:\n") else { return Vec::new() };
        let block = lines.split("\n\n").next().unwrap_or_default().replace("\\\n", " ");
        block.lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn which_kubeconfig_is_meant_is_where_it_stands() {
        let check = |typed: &str, expect: &str| {
            let read = words(typed.split(' ').map(OsString::from));
            assert_eq!(read.join(std::ffi::OsStr::new(" ")), expect);
        };
        check("osctl bootstrap --kubeconfig a", "osctl bootstrap --node-kubeconfig a");
        check("osctl bootstrap --kubeconfig=a", "osctl bootstrap --node-kubeconfig=a");
        check(
            "osctl --kubeconfig me --endpoint bootstrap bootstrap --kubeconfig a",
            "osctl --kubeconfig me --endpoint bootstrap bootstrap --node-kubeconfig a",
        );
        check(
            "osctl bootstrap --node-name status --kubeconfig a",
            "osctl bootstrap --node-name status --node-kubeconfig a",
        );
        for same in [
            "osctl --kubeconfig me bootstrap --token x",
            "osctl --known-only status --kubeconfig a",
            "osctl bootstrap status --kubeconfig me",
            "osctl bootstrap --output json status --kubeconfig me",
            "osctl --endpoint bootstrap status --kubeconfig a",
            "osctl",
        ] {
            check(same, same);
        }
    }

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_how() {
        each(&Cli::command(), "osctl", &mut |command, words| {
            assert!(
                command.get_about().is_some(),
                "`{words}` has no sentence that says what it does"
            );
            let leaf = command.get_subcommands().next().is_none();
            let shown = examples(command);
            assert!(!leaf || !shown.is_empty(), "`{words}` has no `Examples:` in its after_help");
            let own = words.trim_start_matches("osctl");
            assert!(
                !leaf || shown.iter().any(|line| line.contains("osctl") && line.contains(own)),
                "`{words}`: no example shows it: {shown:#?}"
            );
        });
    }

    #[test]
    fn every_argument_says_what_it_is() {
        each(&Cli::command(), "osctl", &mut |command, words| {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "`{words}` says nothing of {argument}");
            }
        });
    }

    #[test]
    fn every_example_is_one_that_osctl_takes() {
        let mut lines = examples(&Cli::command());
        each(&Cli::command(), "osctl", &mut |command, _| lines.extend(examples(command)));
        assert!(lines.len() > 15);
        for line in lines {
            let words = shlex::split(&line).unwrap_or_else(|| panic!("{line}: open quotes"));
            let words = words.iter().skip_while(|word| word.contains('=') && *word != "osctl");
            let words = words.take_while(|word| !matches!(word.as_str(), "|" | ">" | "&&" | ">>"));
            if let Err(error) = Cli::try_parse_from(super::words(words.map(OsString::from))) {
                panic!("{line}\n{error}");
            }
        }
    }
}
