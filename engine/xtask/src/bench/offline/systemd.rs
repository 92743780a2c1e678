//! A systemd manager of our own, for `systemd-analyze dot`, which asks one: it runs as a user's manager in a mount namespace of
//! its own, so that the machine's `/run` is left alone. Needs root.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::{Failure, command, succeeds};

const RUNTIME: &str = "/run/user/0";
/// How long a manager may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// The manager; it ends with the value.
pub(super) struct Systemd(Child);

impl Systemd {
    /// Starts one that has loaded every unit of a folder and started none.
    pub(super) fn start(units: &Path) -> Result<Self, Failure> {
        // systemd runs as a user's manager only where a system's one has left its folder.
        let inside = format!(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system {RUNTIME} && \
             exec /lib/systemd/systemd --user --unit=idle.target"
        );
        let arguments = ["--mount", "--propagation", "private", "sh", "-c", &inside];
        let child = with_units(&mut command("unshare", arguments), units)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Failure::because("cannot run unshare"))?;
        let running = Self(child);
        let asked = Instant::now();
        while !succeeds(&mut running.inside(
            "systemctl",
            &["--user", "is-active", "idle.target"],
            units,
        )) {
            if asked.elapsed() > PATIENCE {
                return Err(Failure::new("systemd does not run as a user's manager here"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(running)
    }

    /// A program beside the manager.
    pub(super) fn inside(&self, program: &str, arguments: &[&str], units: &Path) -> Command {
        let id = self.0.id().to_string();
        let mut enter = command("nsenter", ["--mount", "--target", &id, program]);
        enter.args(arguments);
        with_units(&mut enter, units);
        enter
    }
}

fn with_units<'a>(command: &'a mut Command, units: &Path) -> &'a mut Command {
    command.env("XDG_RUNTIME_DIR", RUNTIME).env("SYSTEMD_UNIT_PATH", units)
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // It has started nothing that would outlive it.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
