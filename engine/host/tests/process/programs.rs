//! Services: how they become ready, and their lives from the first cgroup to the last.

use std::time::Duration;

use keel_host::process::{
    Ask, Asks, Command, Exit, Life, Limits, Notifications, NotifySocket, Program, ReadyBy, Reaper,
    Surroundings, live, until_answers,
};
use nix::sys::signal::Signal;

use crate::support::{Sandbox, log, shell, spawn, walk};

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
