//! `osctl completion`: scripts that let a shell complete osctl's words.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Print a script that lets your shell complete commands, options and values
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  osctl completion bash > ~/.local/share/bash-completion/completions/osctl
  osctl completion zsh > \"${fpath[1]}/_osctl\"
  osctl completion fish > ~/.config/fish/completions/osctl.fish")]
pub(crate) struct Completion {
    /// For which shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "osctl", &mut script);
        out.text(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Clean)
    }
}
