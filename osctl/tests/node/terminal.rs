//! osctl in a terminal, as people run it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::support::PATIENCE;

/// An osctl in a terminal of its own, as script(1) makes one.
pub(crate) struct Terminal {
    script: Child,
    bytes: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Terminal {
    /// Runs osctl, with what it keeps in `home`.
    pub(crate) fn start(home: &Path, args: &[&str], (rows, columns): (u16, u16)) -> Self {
        let osctl = shlex::try_join([&[env!("CARGO_BIN_EXE_osctl")], args].concat()).unwrap();
        let command = format!("stty rows {rows} cols {columns}; exec {osctl}");
        let mut script = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env("OSCTL_HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = script.stdout.take().unwrap();
        let (send, bytes) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut piece) {
                let _ = send.send(piece[..count].to_vec());
            }
        });
        Self {
            script,
            bytes,
            screen: vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0),
        }
    }

    pub(crate) fn keys(&mut self, keys: &str) {
        self.script.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen is as hoped; a screen that never is fails the test rather than hang it.
    pub(crate) fn until(&mut self, hoped: impl Fn(&vt100::Screen) -> bool) {
        while !hoped(self.screen.screen()) {
            let piece = self.bytes.recv_timeout(PATIENCE);
            let piece = piece.unwrap_or_else(|_| panic!("{}", self.screen.screen().contents()));
            self.screen.process(&piece);
        }
    }

    /// What stands on it now.
    pub(crate) fn screen(&self) -> String {
        self.screen.screen().contents()
    }

    pub(crate) fn shows(&mut self, text: &str) {
        self.until(|screen| screen.contents().contains(text));
    }

    /// How it ends, and what stands on its screen then.
    pub(crate) fn end(mut self) -> (Option<i32>, vt100::Screen) {
        // Whoever reads what it writes ends with it.
        while let Ok(piece) = self.bytes.recv_timeout(PATIENCE) {
            self.screen.process(&piece);
        }
        (self.script.wait().unwrap().code(), self.screen.screen().clone())
    }
}
