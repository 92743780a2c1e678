//! A leash: whoever is on it dies when this process does, however that dies.
//!
//! A process that is killed runs no code of its own any more. Linux has PR_SET_PDEATHSIG for that, which goes by threads, and
//! QEMU from 10.2 on an option; neither is wherever osctl runs. What every Unix has is a shell, and a pipe whose other end
//! the kernel closes when its holder is gone: a shell waits at the pipe, and kills when it ends without a word.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Kills if the pipe ends before a line came through it.
const WATCH: &str = "read -r word || kill -KILL \"$0\"";

/// Holds one process. Dropping it lets the process go.
#[derive(Debug)]
pub struct Leash {
    watch: Child,
}

impl Leash {
    /// Puts a child of ours on a leash.
    ///
    /// # Errors
    /// If there is no shell.
    pub fn hold(process: &Child) -> io::Result<Self> {
        let watch = Command::new("/bin/sh")
            .args(["-c", WATCH, &process.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal is for us, and what we make of it is not over yet.
            .process_group(0)
            .spawn()?;
        Ok(Self { watch })
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // Fails only if the shell is gone, and then nobody holds anything.
        if let Some(mut pipe) = self.watch.stdin.take() {
            let _ = pipe.write_all(b"\n");
        }
        let _ = self.watch.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    #[test]
    fn it_dies_when_the_pipe_ends() {
        let mut held = sleeper();
        let mut leash = Leash::hold(&held).unwrap();
        // What the kernel does to the pipes of a process that is killed.
        drop(leash.watch.stdin.take());
        assert_eq!(held.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn it_lives_when_it_is_let_go() {
        let mut held = sleeper();
        drop(Leash::hold(&held).unwrap());
        // The shell has ended: what it did not do, it never will.
        assert_eq!(held.try_wait().unwrap(), None);
        held.kill().unwrap();
        held.wait().unwrap();
    }
}
