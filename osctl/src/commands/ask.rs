//! Asking a person before something cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::error::Failure;

/// The most that is read of an answer.
const LONGEST: u64 = 256;

/// Asks until `yes` or something else is said; only `y` and `yes` are yes. `without` says what to add to the command line where
/// nobody is there to be asked.
pub(crate) fn yes(question: &str, without: &str) -> Result<bool, Failure> {
    let answer = answer(&format!("{question} [y/N] "), without)?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a line of text, without the space around it.
pub(crate) fn answer(question: &str, without: &str) -> Result<String, Failure> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        let failure = Failure::usage("nobody is there to be asked whether that is meant");
        return Err(failure.next(without));
    }
    let failed = |source| Failure::new("cannot ask").because(source).next(without);
    write!(stderr, "{question}").and_then(|()| stderr.flush()).map_err(failed)?;
    let mut line = String::new();
    io::Read::take(stdin.lock(), LONGEST).read_line(&mut line).map_err(failed)?;
    Ok(line.trim().to_owned())
}

/// What is said when a person says no.
pub(crate) fn declined() -> Failure {
    Failure::new("nothing was done").next("say yes, or add --yes")
}
