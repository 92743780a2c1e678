//! PID 1 of a Keel node: executes the boot graph, supervises its services, and takes the machine down again.
//!
//! It never exits and never panics out. One thread decides ([`run`]); a second one writes the console; blocking work runs on tokio's
//! blocking threads, which end when there is none. At rest nothing wakes up.

mod about;
mod arguments;
mod boot;
mod change;
mod choose;
mod config;
mod console;
mod control;
mod held;
mod inventory;
mod life;
mod logs;
mod losses;
mod operate;
mod record;
mod recorder;
mod rootfs;
mod run;
mod screen;
mod signals;
mod status;
mod store;
mod teardown;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let started = Instant::now();
    if std::process::id() != 1 {
        let usage = "keel-init is PID 1 of a machine or of a PID namespace; try `osctl image run`, or\n\
                     `unshare --pid --mount --fork keel-init` with KEEL_UNITS and KEEL_CONFIG in the environment.";
        screen::Screen::start().say_and_flush(usage);
        return ExitCode::from(2);
    }
    life::live(started)
}
