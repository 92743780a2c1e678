//! The program keel-agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    keel_agent::run()
}
