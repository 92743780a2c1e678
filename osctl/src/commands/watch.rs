//! `--watch`: the same question again and again.

use std::thread;
use std::time::Duration;

use crate::error::{Exit, Failure};
use crate::output::Output;

/// Whether to ask again, and when.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Ask again and again until interrupted; on a terminal an answer takes the last one's place
    #[arg(long, short)]
    watch: bool,

    /// Seconds between an answer and the next question
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600), requires = "watch")]
    interval: u64,
}

impl Watch {
    /// Asks once, or until interrupted. A node that does not answer is told of, and asked again.
    pub(crate) fn run(
        &self,
        out: &mut Output,
        mut ask: impl FnMut(&mut Output) -> Result<Exit, Failure>,
    ) -> Result<Exit, Failure> {
        if !self.watch {
            return ask(out);
        }
        let mut first = true;
        loop {
            out.next_page(first);
            match ask(out) {
                Err(failure) if failure.exit() == Exit::Usage || failure.is_closed_pipe() => {
                    return Err(failure);
                }
                Err(failure) => {
                    // Without a stderr there is still the next answer.
                    let _: std::io::Result<()> = out.failure(&failure);
                }
                Ok(_) => first = false,
            }
            thread::sleep(Duration::from_secs(self.interval));
        }
    }
}
