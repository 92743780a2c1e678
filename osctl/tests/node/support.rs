//! A node as osctl meets it, and osctl as a person runs it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use keel_control::{Limits, Service};
use keel_testkit::program::program;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// The node's machine id.
pub(crate) const MACHINE_ID: &str = "0f3a5c7e91b24d4e8a6b0123456789ab";

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where the repository is.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A machine's control server on a thread of its own, until it is dropped.
pub(crate) struct Control {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    pub(crate) fn start<S: Service + Send + Sync + 'static>(
        socket: &Path,
        machine: Arc<S>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (listening, is_listening) = channel();
        let socket = socket.to_owned();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = keel_control::bind(&socket).unwrap();
                listening.send(()).unwrap();
                tokio::select! {
                    never = keel_control::serve(listener, machine, Limits::default()) => match never {},
                    _ = stopped => {}
                }
            });
        });
        is_listening.recv().unwrap();
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A running keel-agent, its files and where it listens; gone with the value.
pub(crate) struct Node {
    pub(crate) folder: TempDir,
    agent: Child,
    pub(crate) endpoint: String,
}

impl Node {
    /// A node that trusts no CA yet.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// A node with what is put into its folder before it starts: `ca.crt` is the CA that it trusts.
    pub(crate) fn start_with(put: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::new().unwrap();
        let path = |file: &str| folder.path().join(file);
        fs::write(path("machine-id"), MACHINE_ID).unwrap();
        put(folder.path());
        let binary = program(env!("CARGO_BIN_EXE_osctl"), "keel-agent");
        let made = Command::new(&binary).args(["identity", "--dir"]).arg(folder.path()).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut agent = Command::new(&binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--dir"])
            .arg(folder.path())
            .arg("--control")
            .arg(path("control.sock"))
            .arg("--cluster-ca")
            .arg(path("ca.crt"))
            .arg("--audit-dir")
            .arg(path("audit"))
            .arg("--kubelet-dir")
            .arg(path("kubelet"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = stderr.find(|line| line.contains("serving on ")).expect("it serves");
        let (_, rest) = line.split_once("serving on ").unwrap();
        let endpoint = rest.split([' ', ',']).next().unwrap().to_owned();
        // What the agent says later is shown if the test fails, and must not fill the pipe.
        std::thread::spawn(move || stderr.for_each(|line| eprintln!("agent: {line}")));
        Self { folder, agent, endpoint }
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub(crate) fn fingerprint(&self) -> String {
        fs::read_to_string(self.folder.path().join("node.fingerprint")).unwrap().trim().to_owned()
    }

    /// Where osctl keeps what it knows of this node.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) fn osctl(&self, args: &[&str]) -> Ended {
        osctl_at(&self.home(), &[&["--endpoint", &self.endpoint], args].concat())
    }

    /// Starts an osctl that goes on.
    pub(crate) fn follow(&self, args: &[&str]) -> Following {
        let node = ["--endpoint", &self.endpoint, "--fingerprint", &self.fingerprint()];
        let mut osctl = osctl_command(&[&node, args].concat());
        let mut osctl = osctl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(osctl.stdout.take().unwrap());
        let stderr = BufReader::new(osctl.stderr.take().unwrap());
        Following { osctl, stdout, stderr }
    }

    /// With the node's own fingerprint: nothing to remark on.
    pub(crate) fn pinned(&self, args: &[&str]) -> Ended {
        self.osctl(&[&["--fingerprint", &self.fingerprint()], args].concat())
    }
}

/// An osctl that goes on until it is dropped.
pub(crate) struct Following {
    osctl: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Following {
    pub(crate) fn line(&mut self) -> String {
        next_line(&mut self.stdout).trim_end().to_owned()
    }

    pub(crate) fn said(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "osctl has ended");
        line.trim_end().to_owned()
    }

    /// Whether it says something with that word.
    pub(crate) fn said_until(&mut self, word: &str) -> bool {
        while !self.said().contains(word) {}
        true
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.osctl.kill();
        let _ = self.osctl.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

pub(crate) fn osctl_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
    // Nothing of the person who runs the tests.
    for name in std::env::vars_os().map(|(name, _)| name) {
        if name.to_string_lossy().starts_with("OSCTL_") {
            command.env_remove(name);
        }
    }
    command.args(args).env("OSCTL_HOME", "/nonexistent/osctl");
    command
}

/// How an osctl ended, and what it said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn osctl(args: &[&str]) -> Ended {
    osctl_at(TempDir::new().unwrap().path(), args)
}

/// With the files that an osctl keeps in `home`.
pub(crate) fn osctl_at(home: &Path, args: &[&str]) -> Ended {
    Ended::of(osctl_command(args).env("OSCTL_HOME", home))
}

impl Ended {
    pub(crate) fn of(osctl: &mut Command) -> Self {
        let Output { status, stdout, stderr } = osctl.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// A command line that is wrong: what it says.
#[track_caller]
pub(crate) fn check_usage(args: &[&str], expect: &str) {
    let ended = osctl(args);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(expect), "{} does not contain {expect}", ended.stderr);
}

pub(crate) fn next_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}
