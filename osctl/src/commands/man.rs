//! `osctl man`: its manual pages, made from the same words as `--help`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::cli::Cli;
use crate::error::{Exit, Failure};
use crate::output::Output;

/// Print the manual page of osctl, or write the page of each command to a folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  osctl man | man -l -
  osctl man -o ~/.local/share/man/man1   # then: man osctl-graph-render")]
pub(crate) struct Man {
    /// Write osctl.1, osctl-validate.1 and so on to this folder, which is made if it is not there
    #[arg(long, short = 'o', value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        match self.out {
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(Cli::command())
                    .render(&mut page)
                    .map_err(|error| Failure::new("cannot make the page").because(error))?;
                out.text(&String::from_utf8_lossy(&page))?;
            }
            Some(folder) => {
                fs::create_dir_all(&folder)
                    .and_then(|()| clap_mangen::generate_to(Cli::command(), &folder))
                    .map_err(|error| {
                        let what = format!("cannot write pages to {}", folder.display());
                        Failure::new(what).because(error).next("name another folder with -o")
                    })?;
            }
        }
        Ok(Exit::Clean)
    }
}
