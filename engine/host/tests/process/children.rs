//! Children: they start clean, say their lines, and their statuses arrive.

use std::path::PathBuf;
use std::time::Duration;

use keel_host::process::{Command, Exit, LogBounds, LogBuffer, Reaper, ReaperError};

use crate::support::{lines, log, shell, spawn, until};

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
