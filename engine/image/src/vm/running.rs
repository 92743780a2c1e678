//! A machine that runs: its console, its monitor and its end.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;

use super::arguments::{QEMU, arguments};
use super::console::{Console, NoLine};
use super::leash::Leash;
use super::qmp::Qmp;
use super::{Network, VmSpec};

/// A running machine. Dropping it cuts its power, and so does the end of this process, whatever ends it.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    /// Let go after the child was waited for.
    _leash: Leash,
    console: Console,
    qmp: Qmp,
    forwarded: Vec<(u16, u16)>,
}

/// What a console has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// A line.
    Line(&'a str),
    /// Nothing for now.
    Quiet,
    /// Nothing any more: the machine is off.
    Off,
}

/// How long a Ctrl-C may go unnoticed: a signal's own code can do no more than count.
const GLANCE: Duration = Duration::from_millis(100);

/// A machine that did not do as expected.
#[derive(Error)]
#[error("the virtual machine {what}{}", tail(console))]
pub struct VmError {
    /// What it was to do.
    pub what: String,
    /// The end of its console.
    pub console: Vec<String>,
    /// What happened instead.
    #[source]
    pub kind: VmErrorKind,
}

/// What `unwrap` shows: in a test the console matters, and it is for people to read.
impl fmt::Debug for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

/// What happened instead.
#[derive(Debug, Error)]
pub enum VmErrorKind {
    /// QEMU could not be started or spoken to.
    #[error("{QEMU}: {said}")]
    Qemu {
        /// What QEMU printed, or what was tried.
        said: String,
        /// The cause.
        source: io::Error,
    },
    /// It did not happen in time.
    #[error("not within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The machine went off first.
    #[error("it went off first")]
    Off,
}

/// The last lines of a console, as an indented block.
fn tail(console: &[String]) -> String {
    const LINES: usize = 40;
    let skip = console.len().saturating_sub(LINES);
    console[skip..].iter().fold(String::new(), |text, line| text + "\n  | " + line)
}

impl Vm {
    /// Starts the machine. It boots while the caller goes on.
    ///
    /// # Errors
    /// If QEMU is missing or refuses the machine; what it says is in the error.
    pub fn start(spec: &VmSpec) -> Result<Self, VmError> {
        Self::launch(spec).map_err(|kind| VmError {
            what: "does not start".into(),
            console: Vec::new(),
            kind,
        })
    }

    fn launch(spec: &VmSpec) -> Result<Self, VmErrorKind> {
        let plain = |what: &str| {
            let said = what.to_owned();
            move |source| VmErrorKind::Qemu { said, source }
        };
        let (monitor, its_monitor) = UnixStream::pair().map_err(plain("no socket pair"))?;
        let (console, its_console) = UnixStream::pair().map_err(plain("no socket pair"))?;
        let mut command = Command::new(QEMU);
        command
            .args(arguments(spec))
            .stdin(OwnedFd::from(its_monitor))
            .stdout(OwnedFd::from(its_console))
            .stderr(Stdio::piped());
        if spec.detached {
            command.process_group(0);
        }
        let mut child =
            command.spawn().map_err(plain("is it installed (package qemu-system-x86)?"))?;
        // The command holds the other ends; while it lives, their closing would not be seen here.
        drop(command);

        let stderr = child.stderr.take();
        let said = thread::spawn(move || {
            stderr.and_then(|pipe| io::read_to_string(pipe).ok()).unwrap_or_default()
        });
        let connected = Leash::hold(&child).and_then(|leash| {
            let mut qmp = Qmp::connect(monitor)?;
            let forwarded = forwarded(&mut qmp, &spec.network)?;
            Ok((leash, qmp, forwarded))
        });
        match connected {
            Ok((leash, qmp, forwarded)) => {
                let console = Console::new(console);
                Ok(Self { child, _leash: leash, console, qmp, forwarded })
            }
            Err(source) => {
                // It is gone or hangs; either way its last words are wanted.
                let _ = child.kill();
                let _ = child.wait();
                let said = said.join().unwrap_or_default();
                Err(VmErrorKind::Qemu { said: said.trim().to_owned(), source })
            }
        }
    }

    /// The port of 127.0.0.1 that leads to a guest's port.
    #[must_use]
    pub fn forwarded(&self, guest: u16) -> Option<u16> {
        self.forwarded.iter().find(|(port, _)| *port == guest).map(|(_, host)| *host)
    }

    /// Waits for a console line that contains `text` and returns it. Lines before it are passed over.
    ///
    /// # Errors
    /// If it does not come in time, or the machine goes off first; the end of the console is in the
    /// error.
    pub fn wait_for(&mut self, text: &str, timeout: Duration) -> Result<String, VmError> {
        self.wait_until(&format!("does not print {text:?}"), timeout, |line| {
            line.contains(text).then(|| line.to_owned())
        })
    }

    /// Waits until `found` makes something of a console line.
    ///
    /// # Errors
    /// As [`Vm::wait_for`]; `what` completes "the virtual machine …".
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, VmError> {
        let deadline = Instant::now() + timeout;
        let kind = loop {
            match self.console.next(deadline) {
                Ok(line) => {
                    if let Some(value) = found(line) {
                        return Ok(value);
                    }
                }
                Err(NoLine::TimedOut) => break VmErrorKind::TimedOut(timeout),
                Err(NoLine::Closed) => break VmErrorKind::Off,
            }
        };
        Err(self.error(what, kind))
    }

    /// Waits for the console's next line, or for nothing more than `patience`.
    pub fn next(&mut self, patience: Duration) -> Next<'_> {
        match self.console.next(Instant::now() + patience) {
            Ok(line) => Next::Line(line),
            Err(NoLine::TimedOut) => Next::Quiet,
            Err(NoLine::Closed) => Next::Off,
        }
    }

    /// Shows the console until the machine is off. `stops` counts how often the person asked for the
    /// end (Ctrl-C): the first asks the node to shut down in order, the second cuts the power.
    ///
    /// # Errors
    /// If QEMU's monitor is gone, or QEMU itself failed.
    pub fn attend(
        mut self,
        stops: &AtomicUsize,
        mut show: impl FnMut(&str),
    ) -> Result<(), VmError> {
        let mut obeyed = 0;
        loop {
            match self.next(GLANCE) {
                Next::Line(line) => show(line),
                Next::Quiet => {}
                Next::Off => return self.ended(),
            }
            let asked = stops.load(Ordering::Relaxed);
            if asked > obeyed && obeyed == 0 {
                self.power_button()?;
            } else if asked > obeyed {
                self.kill();
            }
            obeyed = asked;
        }
    }

    /// The console so far.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Presses Ctrl-Alt-Del: a node reboots in order, and this machine ends where it would reboot.
    ///
    /// # Errors
    /// If QEMU's monitor is gone.
    pub fn ctrl_alt_del(&mut self) -> Result<(), VmError> {
        let keys = ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
        self.command("send-key", json!({ "keys": keys })).map(drop)
    }

    /// Presses the power button: a node powers off in order, once the button's driver is loaded.
    ///
    /// # Errors
    /// If QEMU's monitor is gone.
    pub fn power_button(&mut self) -> Result<(), VmError> {
        self.command("system_powerdown", json!({})).map(drop)
    }

    /// From now on a reboot is one, instead of the machine's end.
    ///
    /// # Errors
    /// If QEMU's monitor is gone.
    pub fn let_reboot(&mut self) -> Result<(), VmError> {
        self.command("set-action", json!({ "reboot": "reset" })).map(drop)
    }

    /// Waits until the machine is off by itself, and returns its whole console.
    ///
    /// # Errors
    /// If it is still on when the time is up, or QEMU itself failed.
    pub fn wait_off(mut self, timeout: Duration) -> Result<Vec<String>, VmError> {
        match self.wait_until("does not go off", timeout, |_| None::<()>) {
            Err(VmError { kind: VmErrorKind::Off, .. }) => {}
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        self.ended().map(|()| self.console.seen().to_vec())
    }

    /// Cuts the power: nothing is flushed, nothing is said. Returns the console so far.
    pub fn cut_power(mut self) -> Vec<String> {
        self.kill();
        self.console.drain(Duration::from_millis(100)).to_vec()
    }

    /// Collects QEMU, which closed the console and is on its way out.
    fn ended(&mut self) -> Result<(), VmError> {
        let (said, source) = match self.child.wait() {
            // Killed is what cutting the power looks like.
            Ok(status) if status.success() || status.signal().is_some() => return Ok(()),
            Ok(status) => (status.to_string(), io::ErrorKind::Other.into()),
            Err(source) => ("cannot wait for it".to_owned(), source),
        };
        Err(self.error("crashed", VmErrorKind::Qemu { said, source }))
    }

    fn command(&mut self, command: &str, arguments: Value) -> Result<Value, VmError> {
        self.qmp.execute(command, arguments).map_err(|source| {
            self.error("does not obey", VmErrorKind::Qemu { said: command.to_owned(), source })
        })
    }

    fn error(&self, what: &str, kind: VmErrorKind) -> VmError {
        VmError { what: what.to_owned(), console: self.console.seen().to_vec(), kind }
    }

    fn kill(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks QEMU which free ports it took: asking the kernel for one beforehand would race with
/// whoever asks next.
fn forwarded(qmp: &mut Qmp, network: &Network) -> io::Result<Vec<(u16, u16)>> {
    if !matches!(network, Network::User { forward } if !forward.is_empty()) {
        return Ok(Vec::new());
    }
    let listed = qmp.execute("human-monitor-command", json!({ "command-line": "info usernet" }))?;
    Ok(parse_usernet(listed.as_str().unwrap_or_default()))
}

/// Pairs of guest port and host port from `info usernet`:
/// `TCP[HOST_FORWARD]  12  127.0.0.1 41234  10.0.2.15 50051  0 0`.
fn parse_usernet(listed: &str) -> Vec<(u16, u16)> {
    let forwards = listed.lines().filter(|line| line.trim_start().starts_with("TCP[HOST_FORWARD]"));
    let pairs = forwards.filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        Some((columns.get(5)?.parse().ok()?, columns.get(3)?.parse().ok()?))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_qemu() {
        let listed = "Hub -1 (net):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
                      TCP[HOST_FORWARD]  12       127.0.0.1 41234       10.0.2.15 50051     0     0\n  \
                      UDP[236 sec]  15       10.0.2.15 41000       10.0.2.3 53     0     0\n";
        assert_eq!(parse_usernet(listed), [(50051, 41234)]);
    }

    #[test]
    fn an_error_shows_the_end_of_the_console() {
        let console = (0..50).map(|n| format!("line {n}")).collect();
        let error = VmError { what: "hangs".into(), console, kind: VmErrorKind::Off }.to_string();
        assert!(error.starts_with("the virtual machine hangs\n  | line 10\n"), "{error}");
        assert!(error.ends_with("\n  | line 49"), "{error}");
    }
}
