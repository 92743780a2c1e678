//! Processes for real: this test process is the reaper of its children. Each test is a process of its own (nextest).

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keel_host::process::{
    Ask, Asks, Cgroup, Cgroups, Child, Command, Exit, FindCgroups, Life, Limits, LogBounds,
    LogBuffer, Notifications, NotifySocket, Program, ReadyBy, Reaper, ReaperError, ReaperTools,
    SpawnError, Streams, Surroundings, live, until_answers,
};
use keel_host::tool::{RunTool, Tool, ToolErrorKind, ToolStatus};
use nix::sys::signal::Signal;

/// Where cgroup v2 is on a node, and where it is on a machine that also has v1.
fn hierarchy() -> PathBuf {
    let found = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let found =
        found.into_iter().map(PathBuf::from).find(|root| root.join("cgroup.controllers").exists());
    found.expect("these tests need a cgroup v2 hierarchy")
}

/// A directory of cgroups that goes away with the test.
struct Sandbox {
    cgroups: Cgroups,
}

impl Sandbox {
    fn new(name: &str) -> Self {
        let cgroups =
            Cgroups::at(&hierarchy(), &format!("keel-test-{name}-{}", std::process::id()));
        Self { cgroups: cgroups.expect("root may make cgroups") }
    }

    fn unit(&self, name: &str) -> Cgroup {
        self.cgroups.unit(name, &Limits::default(), false).expect("a cgroup").0
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let base = self.cgroups.base();
        drop(std::fs::write(base.join("cgroup.kill"), "1"));
        // Blocking on purpose: the runtime may be gone. The kernel needs a moment for what was killed above.
        for _ in 0..200 {
            let leftover = walk(base);
            leftover.iter().rev().for_each(|directory| drop(std::fs::remove_dir(directory)));
            if !base.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn walk(base: &Path) -> Vec<PathBuf> {
    let mut found = vec![base.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        next += 1;
    }
    found
}

fn shell(script: &str) -> Command {
    Command::new("/bin/sh", ["-c", script])
}

fn spawn(
    reaper: &Reaper,
    command: &Command,
    log: &LogBuffer,
    cgroup: Option<&Cgroup>,
) -> Result<Child, SpawnError> {
    let pipe = log.pipe().expect("a pipe");
    reaper.spawn(
        command,
        Streams { stdin: None, stdout: pipe.as_fd(), stderr: pipe.as_fd() },
        cgroup,
    )
}

fn log() -> LogBuffer {
    LogBuffer::new(LogBounds::default())
}

/// Waits until `found` is true, looking again whenever the runtime has nothing else to do for a moment. For what has no event to
/// wait for, such as another process's lines in a buffer. The test's own deadline bounds it.
async fn until(what: &str, mut found: impl FnMut() -> bool) {
    let looking = async {
        while !found() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}

fn lines(log: &LogBuffer) -> Vec<String> {
    log.tail(usize::MAX).into_iter().map(|line| line.text).collect()
}

#[tokio::test]
async fn a_child_runs_says_its_lines_and_ends() {
    let reaper = Reaper::start().unwrap();
    let check = async |script: &str, expect: Exit, said: &[&str]| {
        let log = log();
        let mut child = spawn(&reaper, &shell(script), &log, None).unwrap();
        child.executed().await.unwrap();
        assert_eq!(child.wait().await, expect, "{script}");
        assert_eq!(child.wait().await, expect, "asked again: {script}");
        until("its lines", || lines(&log) == said).await;
    };
    check("exit 0", Exit::Code(0), &[]).await;
    check("echo hello; exit 7", Exit::Code(7), &["hello"]).await;
    check("echo oops >&2; exit 1", Exit::Code(1), &["oops"]).await;
    check("kill -TERM $$", Exit::Signal { signal: 15, core: false }, &[]).await;
    // A real-time signal: nix's waitpid would lose this child.
    check("kill -40 $$", Exit::Signal { signal: 40, core: false }, &[]).await;
    check("cat; echo end", Exit::Code(0), &["end"]).await;
    assert_eq!(reaper.orphans(), 0);
}

#[tokio::test]
async fn a_child_starts_clean() {
    let reaper = Reaper::start().unwrap();
    let log = log();
    let leaked = std::fs::File::open("/proc/self/status").unwrap();
    // Not close-on-exec, as a careless library would leave it.
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; echo; \
                  pwd; echo $PATH; echo ${HOME-none} $X; umask; cat /proc/self/oom_score_adj; \
                  test $$ = $(cut -d' ' -f6 /proc/$$/stat) && echo leader";
    let mut command = shell(script).env("X", "y z");
    command.directory = Some("/usr".into());
    command.oom_score_adj = Some(500);
    let mut child = spawn(&reaper, &command, &log, None).unwrap();
    child.executed().await.unwrap();
    assert!(child.wait().await.success());
    let expect = [
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        // 3 is the directory that ls itself reads.
        "0 1 2 3 ",
        "/usr",
        keel_host::process::SEARCH_PATH,
        "none y z",
        "0022",
        "500",
        "leader",
    ];
    until("all lines", || lines(&log).len() == expect.len()).await;
    assert_eq!(lines(&log), expect);
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    let reaper = Reaper::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let check = async |program: PathBuf, change: fn(&mut Command), expect: &str| {
        let mut command = Command::new(&program, [""; 0]);
        change(&mut command);
        let mut child = spawn(&reaper, &command, &log(), None).unwrap();
        let error = child.executed().await.unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {expect}", program.display()));
        assert_eq!(child.wait().await, Exit::Code(127));
    };
    check("/no/such/program".into(), |_| {}, "no such file").await;
    check(
        file("script", "#!/no/such/interpreter\n", 0o755),
        |_| {},
        "the file is there, but its interpreter or dynamic loader is not on this machine",
    )
    .await;
    check(
        file("data", "neither ELF nor script", 0o755),
        |_| {},
        "cannot execute it: Exec format error",
    )
    .await;
    check(file("plain", "", 0o644), |_| {}, "cannot execute it: Permission denied").await;
    check(
        "/bin/true".into(),
        |command| command.directory = Some("/no/such/directory".into()),
        "cannot enter its working directory: No such file or directory",
    )
    .await;
}

#[tokio::test]
async fn there_is_one_reaper() {
    let _reaper = Reaper::start().unwrap();
    assert!(matches!(Reaper::start(), Err(ReaperError::AlreadyRunning)));
}

/// Children that are dead before their spawn has returned, from many threads at once: every status arrives at its owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fast_children_keep_their_status() {
    let reaper = Reaper::start().unwrap();
    let mut owners = tokio::task::JoinSet::new();
    for owner in 0..8 {
        let reaper = reaper.clone();
        owners.spawn(async move {
            for run in 0..40 {
                let code = (owner * 40 + run) % 126;
                let mut child =
                    spawn(&reaper, &shell(&format!("exit {code}")), &log(), None).unwrap();
                assert_eq!(child.wait().await, Exit::Code(code));
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(50), owners.join_all()).await.unwrap();
    assert_eq!(reaper.orphans(), 0);
}

/// The double fork of ten thousand daemons: each parent exits at once, and its child is ours to bury.
#[tokio::test]
async fn ten_thousand_orphans_are_reaped() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let reaper = Reaper::start().unwrap();
    let script = "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); ( : & ); done; exit 3";
    let mut child = spawn(&reaper, &shell(script), &log(), None).unwrap();
    assert_eq!(child.wait().await, Exit::Code(3));
    until("the last orphan", || reaper.orphans() == 10_000).await;
    let left = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()))
        .unwrap();
    assert_eq!(left, "");
}

/// What is left to do for a PID 1 that decides nothing any more.
#[test]
fn the_last_resort_still_buries_children() {
    std::thread::spawn(|| keel_host::process::reap_forever());
    for _ in 0..3 {
        #[expect(
            clippy::zombie_processes,
            reason = "somebody else waits for it, which is what this proves"
        )]
        let child = std::process::Command::new("true").spawn().unwrap();
        let zombie = PathBuf::from(format!("/proc/{}", child.id()));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while zombie.exists() {
            assert!(std::time::Instant::now() < deadline, "{} is still there", zombie.display());
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn a_child_lives_in_its_cgroup_and_dies_with_it() {
    let reaper = Reaper::start().unwrap();
    let sandbox = Sandbox::new("kill");
    let cgroup = sandbox.unit("service");
    assert!(!cgroup.populated().unwrap());

    // It ignores SIGTERM, and so do its children, which have sessions of their own and one of which is an orphan.
    let log = log();
    let script = "trap '' TERM; (setsid sleep 1000 &); setsid sleep 1000 & echo up; cat /proc/self/cgroup; wait; wait";
    let mut child = spawn(&reaper, &shell(script), &log, Some(&cgroup)).unwrap();
    child.executed().await.unwrap();
    until("three processes", || cgroup.processes().unwrap().len() == 3).await;
    until("its lines", || lines(&log).len() > 1).await;
    let own = lines(&log)
        .into_iter()
        .find_map(|line| line.strip_prefix("0::").map(str::to_owned))
        .unwrap();
    assert!(cgroup.holds(&own), "{own} is not in {}", cgroup.path().display());
    assert!(cgroup.populated().unwrap());

    child.signal(Signal::SIGTERM as i32).unwrap();
    cgroup.kill().unwrap();
    tokio::time::timeout(Duration::from_secs(20), cgroup.wait_empty()).await.unwrap().unwrap();
    assert_eq!(child.wait().await, Exit::Signal { signal: 9, core: false });
    child.signal(Signal::SIGTERM as i32).unwrap();

    cgroup.remove().unwrap();
    assert!(!cgroup.path().exists());
    // All of it is idempotent: a stop may find that the work is done.
    cgroup.kill().unwrap();
    cgroup.wait_empty().await.unwrap();
    cgroup.remove().unwrap();
    assert_eq!(cgroup.processes().unwrap(), []);
}

#[tokio::test]
async fn a_delegated_service_runs_in_a_leaf() {
    let reaper = Reaper::start().unwrap();
    let sandbox = Sandbox::new("delegate");
    let (cgroup, _) = sandbox.cgroups.unit("containerd", &Limits::default(), true).unwrap();
    let mut child =
        spawn(&reaper, &Command::new("sleep", ["1000"]), &log(), Some(&cgroup)).unwrap();
    child.executed().await.unwrap();
    let leaf = std::fs::read_to_string(cgroup.path().join("main/cgroup.procs")).unwrap();
    assert_eq!(leaf.trim(), child.pid().to_string());
    assert_eq!(std::fs::read_to_string(cgroup.path().join("cgroup.procs")).unwrap(), "");
    // Its own cgroup beside the leaf dies with the unit too.
    std::fs::create_dir(cgroup.path().join("pods")).unwrap();
    cgroup.kill().unwrap();
    child.wait().await;
    cgroup.wait_empty().await.unwrap();
    cgroup.remove().unwrap();
}

#[tokio::test]
async fn limits_are_set_or_named() {
    let sandbox = Sandbox::new("limits");
    let limits = Limits {
        memory_max: Some(64 << 20),
        memory_high: Some(32 << 20),
        pids_max: Some(50),
        cpu_weight: Some(200),
        cpu_max: Some(50_000),
    };
    let (cgroup, unapplied) = sandbox.cgroups.unit("limited", &limits, false).unwrap();
    let expect = [
        ("memory.max", "67108864"),
        ("memory.high", "33554432"),
        ("pids.max", "50"),
        ("cpu.weight", "200"),
        ("cpu.max", "50000 100000"),
    ];
    for (file, value) in expect {
        let refused = unapplied.iter().find(|unapplied| unapplied.limit == file);
        match (std::fs::read_to_string(cgroup.path().join(file)), refused) {
            (Ok(found), None) => assert_eq!(found.trim(), value),
            (Err(_), Some(refused)) => {
                let controller = file.split('.').next().unwrap();
                assert_eq!(
                    refused.to_string(),
                    format!("{file} is not enforced: the kernel offers no {controller} controller")
                );
            }
            (found, refused) => panic!("{file}: {found:?}, {refused:?}"),
        }
    }
}

#[tokio::test]
async fn no_hierarchy_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let error = Cgroups::at(directory.path(), "keel").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: no cgroup v2 hierarchy is mounted here", directory.path().display())
    );
}

/// A service that talks without end keeps running, and PID 1 keeps what fits.
#[tokio::test]
async fn output_is_bounded() {
    let reaper = Reaper::start().unwrap();
    let log = LogBuffer::new(LogBounds { lines: 10, bytes: 200, line: 50 });
    let mut child = spawn(&reaper, &shell("seq 1 200000; echo end"), &log, None).unwrap();
    assert!(child.wait().await.success());
    until("the last line", || log.tail(1).first().is_some_and(|line| line.text == "end")).await;
    assert_eq!(lines(&log).len(), 10);
    assert_eq!(log.dropped(), 200_001 - 10);
}

#[tokio::test]
async fn tools_run_to_their_end() {
    let sandbox = Sandbox::new("tools");
    let cgroups = sandbox.cgroups.clone();
    let with_cgroups =
        ReaperTools::new(Reaper::start().unwrap(), Arc::new(move || Some(cgroups.clone())));

    let run = async |tool: Tool| with_cgroups.run(&tool).await;
    let seconds = Duration::from_secs;
    let output =
        run(Tool::new("sh", seconds(20)).args(["-c", "echo out; echo $LC_ALL >&2; exit 4"]))
            .await
            .unwrap();
    assert_eq!((output.status, output.output.as_str()), (ToolStatus::Exited(4), "out\nC\n"));

    let mut reads = Tool::new("wc", seconds(20)).arg("-c");
    reads.stdin = Some(vec![b'x'; 300_000]);
    assert_eq!(run(reads).await.unwrap().last_line(), "300000");

    let mut deaf = Tool::new("true", seconds(20));
    deaf.stdin = Some(vec![b'x'; 300_000]);
    assert!(run(deaf).await.unwrap().success());

    let missing = run(Tool::new("keel-no-such-tool", seconds(20))).await.unwrap_err();
    assert!(matches!(missing.kind, ToolErrorKind::NotFound), "{missing}");
    let missing = run(Tool::new("/no/such/tool", seconds(20))).await.unwrap_err();
    assert!(matches!(missing.kind, ToolErrorKind::NotFound), "{missing}");

    // It outlives its timeout with a child that left its session: both end, and so does the cgroup.
    let hang =
        Tool::new("sh", Duration::from_millis(300)).args(["-c", "setsid sleep 1000 & sleep 1000"]);
    let late = run(hang).await.unwrap_err();
    assert!(matches!(late.kind, ToolErrorKind::TimedOut(_)), "{late}");
    until("the tools' cgroups are gone", || walk(sandbox.cgroups.base()).len() == 1).await;
}

#[tokio::test]
async fn a_tool_needs_no_cgroup() {
    let tools = ReaperTools::new(Reaper::start().unwrap(), Arc::new(|| None));
    let output = tools.run(&Tool::new("echo", Duration::from_secs(20)).arg("early")).await.unwrap();
    assert_eq!(output.output, "early\n");
    let hang = Tool::new("sh", Duration::from_millis(300)).args(["-c", "sleep 1000 & sleep 1000"]);
    let late = tools.run(&hang).await.unwrap_err();
    assert!(matches!(late.kind, ToolErrorKind::TimedOut(_)), "{late}");
}

/// Whoever waits for a tool may give up: then the tool ends, with or without a cgroup.
#[tokio::test]
async fn a_tool_ends_when_nobody_waits_for_it() {
    let sandbox = Sandbox::new("giveup");
    let reaper = Reaper::start().unwrap();
    let cgroups = sandbox.cgroups.clone();
    let places: [FindCgroups; 2] = [Arc::new(|| None), Arc::new(move || Some(cgroups.clone()))];
    for place in places {
        let tools = ReaperTools::new(reaper.clone(), place);
        let hang = Tool::new("sleep", Duration::from_secs(100)).arg("1000");
        let given_up = tokio::time::timeout(Duration::from_millis(200), tools.run(&hang)).await;
        assert!(given_up.is_err());
        tokio::time::timeout(Duration::from_secs(20), reaper.childless())
            .await
            .expect("the tool is gone");
    }
    until("the tools' cgroups are gone", || walk(sandbox.cgroups.base()).len() == 1).await;
}

#[tokio::test]
async fn notifications_carry_their_sender() {
    let reaper = Reaper::start().unwrap();
    let sandbox = Sandbox::new("notify");
    let directory = tempfile::tempdir().unwrap();
    let socket = NotifySocket::bind(&directory.path().join("run/notify")).unwrap();
    let cgroup = sandbox.unit("service");
    let other = sandbox.unit("other");

    // python3 because no tool of this machine speaks to a Unix datagram socket; it sends from a child of the main process.
    let script = "import os,socket,time\n\
                  s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
                  os.fork()==0 and (s.sendto(b'READY=1\\nSTATUS=from the child',os.environ['NOTIFY_SOCKET']),time.sleep(1000))\n\
                  time.sleep(1000)";
    let command = Command::new("python3", ["-c", script]).env("NOTIFY_SOCKET", socket.path());
    let mut child = spawn(&reaper, &command, &log(), Some(&cgroup)).unwrap();
    child.executed().await.unwrap();

    let (sender, notification) =
        tokio::time::timeout(Duration::from_secs(20), socket.receive()).await.unwrap().unwrap();
    assert!(notification.ready);
    assert_eq!(notification.status.as_deref(), Some("from the child"));
    assert_ne!(sender.pid, child.pid());
    assert!(sender.is_in(&cgroup), "{sender:?}");
    assert!(!sender.is_in(&other), "{sender:?}");

    let path = socket.path().to_path_buf();
    drop(socket);
    assert!(!path.exists());
}

/// A barrier's descriptor is closed by the kernel as soon as its message is read; a message that is too long is skipped.
#[tokio::test]
async fn notifications_keep_no_descriptor() {
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    use std::io::{IoSlice, Read as _};
    use std::os::fd::AsRawFd as _;
    let directory = tempfile::tempdir().unwrap();
    let socket = NotifySocket::bind(&directory.path().join("notify")).unwrap();
    let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let (mut barrier, passed) = std::io::pipe().unwrap();

    sender.send_to(&[b'x'; 5000], socket.path()).unwrap();
    sendmsg(
        sender.as_raw_fd(),
        &[IoSlice::new(b"BARRIER=1")],
        &[ControlMessage::ScmRights(&[passed.as_raw_fd()])],
        MsgFlags::empty(),
        Some(&UnixAddr::new(socket.path()).unwrap()),
    )
    .unwrap();
    drop(passed);
    let (from, _) = socket.receive().await.unwrap();
    assert_eq!(from.pid.as_raw(), std::process::id() as i32);
    assert_eq!(barrier.read(&mut [0]).unwrap(), 0, "the descriptor is still open somewhere");
}

#[tokio::test]
async fn a_socket_answers_when_somebody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made-late/service.sock");
    let waiting = tokio::spawn({
        let path = path.clone();
        async move { until_answers(&path).await }
    });
    // A directory without a socket, then a socket that nobody listens on (left from an earlier run): neither answers.
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let early = tokio::time::timeout(Duration::from_millis(300), until_answers(&path)).await;
    assert!(early.is_err());
    assert!(!waiting.is_finished());

    std::fs::remove_file(&path).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
}

/// Follows one activation to its end, asking for things as it goes: what it told, and how it ended.
async fn follow(
    around: &Surroundings,
    program: Program,
    mut react: impl FnMut(&Life) -> Option<Ask>,
) -> (Vec<String>, Result<Exit, String>) {
    let (ask, mut asks) = Asks::new();
    let mut told = Vec::new();
    let log = log();
    let living = live(&program, around, &log, &mut asks, |life| {
        if let Some(wish) = react(&life) {
            ask.try_send(wish).expect("room");
        }
        told.push(match life {
            Life::Started(_) => "started".to_owned(),
            Life::Ready => "ready".to_owned(),
            Life::Fact(fact) => fact,
        });
    });
    let ended =
        tokio::time::timeout(Duration::from_secs(20), living).await.expect("an end in time");
    (told, ended.map_err(|error| error.to_string()))
}

fn service(name: &str, script: &str, ready: ReadyBy) -> Program {
    Program {
        unit: name.to_owned(),
        command: shell(script),
        limits: Limits::default(),
        delegate: false,
        ready,
        stop_signal: Signal::SIGTERM as i32,
    }
}

#[tokio::test]
async fn a_program_lives_from_its_cgroup_to_its_end() {
    let sandbox = Sandbox::new("live");
    let directory = tempfile::tempdir().unwrap();
    let around = Surroundings {
        reaper: Reaper::start().unwrap(),
        cgroups: sandbox.cgroups.clone(),
        notifications: Some(Notifications::listen(&directory.path().join("notify")).unwrap()),
    };
    let killed = |signal: Signal| Ok(Exit::Signal { signal: signal as i32, core: false });
    let on_ready = |ask: Ask| move |life: &Life| (*life == Life::Ready).then_some(ask);

    let oneshot = service("oneshot", "exit 3", ReadyBy::Started);
    let (told, end) = follow(&around, oneshot, |_| None).await;
    assert_eq!((told.first().map(String::as_str), end), (Some("started"), Ok(Exit::Code(3))));

    let stops = service("stops", "sleep 1000 & wait", ReadyBy::Started);
    let (told, end) = follow(&around, stops, on_ready(Ask::Stop)).await;
    assert_eq!(
        (told, end),
        (vec!["started".to_owned(), "ready".to_owned()], killed(Signal::SIGTERM))
    );

    let stubborn = service("stubborn", "trap '' TERM; sleep 1000 & wait; wait", ReadyBy::Started);
    let mut asked = 0;
    let (_, end) = follow(&around, stubborn, |life| {
        asked += usize::from(*life == Life::Ready);
        (*life == Life::Ready).then_some(Ask::Kill)
    })
    .await;
    assert_eq!((asked, end), (1, killed(Signal::SIGKILL)));

    let notify = "import os,socket,time\n\
                  s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.connect(os.environ['NOTIFY_SOCKET'])\n\
                  s.send(b'STATUS=loading');time.sleep(.2);s.send(b'READY=1\\nSTATUS=serving');time.sleep(1000)";
    let mut notifies = service("notifies", "", ReadyBy::Notify);
    notifies.command = Command::new("python3", ["-c", notify]);
    let (told, end) = follow(&around, notifies, on_ready(Ask::Stop)).await;
    assert_eq!(
        (told, end),
        (
            ["started", "loading", "serving", "ready"].map(String::from).into(),
            killed(Signal::SIGTERM)
        )
    );

    let missing = Program {
        command: Command::new("/no/such/program", [""; 0]),
        ..service("missing", "", ReadyBy::Started)
    };
    let (told, end) = follow(&around, missing, |_| None).await;
    assert_eq!((told, end), (vec![], Err("/no/such/program: no such file".to_owned())));

    // Nothing of any of them is left, not even a cgroup.
    assert_eq!(walk(sandbox.cgroups.base()).len(), 1);
}

/// What a delegated service has started outlives it, as containers outlive a restart of containerd.
#[tokio::test]
async fn a_delegated_program_ends_alone() {
    let sandbox = Sandbox::new("alone");
    let around = Surroundings {
        reaper: Reaper::start().unwrap(),
        cgroups: sandbox.cgroups.clone(),
        notifications: None,
    };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let script = "import os,socket,sys,time\n\
                  os.fork()==0 and time.sleep(1000)\n\
                  s=socket.socket(socket.AF_UNIX);s.bind(sys.argv[1]);s.listen();time.sleep(1000)";
    let mut command = Command::new("python3", ["-c", script]);
    command.arguments.push(socket.clone().into());
    let containerd =
        Program { delegate: true, command, ..service("containerd", "", ReadyBy::Socket(socket)) };
    let (_, end) =
        follow(&around, containerd, |life| (*life == Life::Ready).then_some(Ask::Kill)).await;
    assert_eq!(end, Ok(Exit::Signal { signal: 9, core: false }));
    let (cgroup, _) = sandbox.cgroups.unit("containerd", &Limits::default(), true).unwrap();
    assert!(cgroup.populated().unwrap());
}
