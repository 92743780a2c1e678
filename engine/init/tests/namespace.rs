//! The real binary as PID 1 of a PID and mount namespace: units start, are watched and go down, and everything else that PID 1 owes a
//! machine. util-linux's `unshare` makes the namespace; the units are in testdata.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use keel_control::{
    Control, ControlError, ControlErrorKind, ControlUnit, Happened, Reset, UnitPlan, UnitState,
    UnitVerb,
};
use keel_testkit::program::program;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine that runs keel-init in namespaces of its own.
struct Machine {
    unshare: Child,
    init: u32,
    lines: Receiver<String>,
    seen: Vec<String>,
    cgroup: PathBuf,
    directory: tempfile::TempDir,
}

impl Machine {
    /// Boots the units: file name and text. `{dir}` in a text is a directory that the machine and the test share.
    fn boot(name: &str, units: &[(&str, &str)]) -> Self {
        Self::boot_with(name, "schema = 1\n", units)
    }

    fn boot_with(name: &str, config_text: &str, units: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = directory.path().join("units");
        fs::create_dir(&folder).expect("a folder for units");
        let shared = directory.path().to_str().expect("a path in UTF-8");
        for (file, text) in units {
            fs::write(folder.join(file), text.replace("{dir}", shared)).expect("a unit file");
        }
        let config = directory.path().join("config.toml");
        fs::write(&config, config_text).expect("a config");
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let root = roots
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
            .expect("cgroup v2");
        let cgroup = root.join(format!("keel-init-{name}-{}", std::process::id()));
        fs::create_dir(&cgroup).expect("a cgroup");
        // A cgroup namespace makes this cgroup the root of what is mounted inside.
        let enter = format!("echo $$ > {}/cgroup.procs && exec unshare \"$@\"", cgroup.display());
        let inside =
            "mount -t tmpfs tmpfs /run && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$0\"";
        let mut unshare = Command::new("sh")
            .args(["-c", &enter, "sh"])
            .args([
                "--pid",
                "--mount",
                "--cgroup",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
                "sh",
                "-c",
                inside,
            ])
            .arg(env!("CARGO_BIN_EXE_keel-init"))
            .env("KEEL_UNITS", &folder)
            .env("KEEL_CONFIG", &config)
            .env("KEEL_REPORT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare of util-linux");
        let output = BufReader::new(unshare.stdout.take().expect("a pipe"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let mut machine = Self { init: 0, unshare, lines, seen: Vec::new(), cgroup, directory };
        machine.init = machine.find_init();
        machine
    }

    /// The one child of unshare.
    fn find_init(&self) -> u32 {
        let outer = self.unshare.id();
        let path = format!("/proc/{outer}/task/{outer}/children");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let children = fs::read_to_string(&path).unwrap_or_default();
            if let Some(init) = children.split_whitespace().next().and_then(|pid| pid.parse().ok())
            {
                return init;
            }
            assert!(Instant::now() < deadline, "no init");
            std::thread::yield_now();
        }
    }

    /// Waits for a line with all these words, and gives it.
    fn line(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {words:?} among\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    /// Waits for the boot to end; its report.
    fn report(&mut self) -> serde_json::Value {
        let line = self.line(&["KEEL-REPORT "]);
        serde_json::from_str(line.trim_start_matches("KEEL-REPORT ")).expect("JSON")
    }

    fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").args([&format!("-{signal}"), &self.init.to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for the end of the namespace; the signal with which the kernel ended its init.
    fn end(&mut self) -> Option<i32> {
        let status = self.unshare.wait().expect("unshare's status");
        self.seen.extend(self.lines.iter());
        // unshare dies of the signal that its child died of, or says it as a shell does.
        status.signal().or(status.code().filter(|code| *code > 128).map(|code| code - 128))
    }

    /// Where in the console's output a line with these words stands.
    fn position(&self, words: &[&str]) -> usize {
        let found = self.seen.iter().position(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("no line with {words:?} among\n{}", self.seen.join("\n")))
    }

    fn shared(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A shared file as the machine sees it, with what it has mounted there.
    fn in_namespace(&self, file: &str) -> PathBuf {
        let root = format!("/proc/{}/root{}", self.init, self.directory.path().display());
        PathBuf::from(root).join(file)
    }

    /// Init's socket, through the root of its mount namespace.
    fn control_socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/keel/control.sock", self.init))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.shared(file)).unwrap_or_default()
    }

    /// Waits until the shared file says something that satisfies.
    fn until(&self, file: &str, satisfies: impl Fn(&str) -> bool) -> String {
        let look = || Some(self.read(file)).filter(|text| satisfies(text));
        look_at_changes(self.directory.path(), look)
            .unwrap_or_else(|| panic!("{file} says only {:?}", self.read(file)))
    }

    fn status(&self, key: &str) -> String {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.init)).expect("init's status");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the key");
        line.trim_start_matches(':').trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.unshare.wait();
        let mut found = vec![self.cgroup.clone()];
        let mut next = 0;
        while let Some(directory) = found.get(next).cloned() {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
            next += 1;
        }
        let events = self.cgroup.join("cgroup.events");
        let empty = || fs::read_to_string(&events).ok()?.contains("populated 0").then_some(());
        let _ = look_at_changes(&events, empty);
        found.iter().rev().for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

/// Looks at a file or folder until it finds something, again whenever something has changed there. Nothing if it takes too long.
fn look_at_changes<T>(path: &Path, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let kinds = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    changes.add_watch(path, kinds).ok()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut readable = [PollFd::new(changes.as_fd(), PollFlags::POLLIN)];
        if poll(&mut readable, PollTimeout::try_from(left).ok()?) == Ok(0) {
            return None;
        }
        let _ = changes.read_events();
    }
}

const BOOT: (&str, &str) = ("boot.toml", "description = \"goal\"\n[target]\n");

const SIGINT: i32 = 2;
const SIGHUP: i32 = 1;

#[test]
fn it_boots_reports_and_goes_down_in_reverse() {
    let mut machine = Machine::boot(
        "order",
        &[
            BOOT,
            (
                "first.toml",
                "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"echo first >> {dir}/order\"]\ntimeout = \"20s\"\n",
            ),
            (
                "second.toml",
                "part-of = \"boot\"\nrequires = [\"first\"]\nafter = [\"first\"]\n[service]\n\
                 exec = [\"/bin/sh\", \"-c\", \"echo second >> {dir}/order; trap 'echo second stops >> {dir}/order; exit 0' TERM; while :; do sleep 1; done\"]\n\
                 timeout = \"20s\"\n",
            ),
            (
                "third.toml",
                "part-of = \"boot\"\nafter = [\"second\"]\n[service]\n\
                 exec = [\"/bin/sh\", \"-c\", \"echo third >> {dir}/order; trap 'echo third stops >> {dir}/order; exit 0' TERM; touch {dir}/armed; while :; do sleep 1; done\"]\n\
                 timeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(report["reached"], true, "{report}");
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    assert!(report["total_ms"].as_u64() >= report["critical_path_ms"].as_u64(), "{report}");
    assert!(
        report["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")),
        "{report}"
    );
    // Both traps are set: a shell that has not come so far dies of the signal without a word.
    machine.until("order", |order| order.lines().count() == 3);
    machine.until("armed", |_| machine.shared("armed").exists());

    machine.signal("TERM");
    assert_eq!(
        machine.end(),
        Some(SIGINT),
        "reboot(2) ends a namespace's init with SIGINT for power-off"
    );
    // A service that is ready as soon as it runs may be overtaken by the next one's first word; not in stopping.
    let order = machine.read("order");
    assert!(
        order.starts_with(
            "first
"
        ) && order.ends_with(
            "
third stops
second stops
"
        ),
        "{order}"
    );
    assert!(machine.position(&["stopped", "third"]) < machine.position(&["stopped", "second"]));
    assert!(machine.position(&["stopped", "second"]) < machine.position(&["stopped", "first"]));
    machine.position(&["Powering off."]);
}

#[test]
fn ctrl_alt_del_reboots() {
    let mut machine = Machine::boot("reboot", &[BOOT]);
    machine.report();
    machine.signal("INT");
    assert_eq!(
        machine.end(),
        Some(SIGHUP),
        "reboot(2) ends a namespace's init with SIGHUP for a restart"
    );
    machine.position(&["Rebooting."]);
}

/// The words of a UPS, of container runtimes, of systemd and of busybox. In a PID namespace the kernel ends init with SIGINT for
/// power-off and for halt.
#[test]
fn every_signal_that_means_something_ends_the_machine_as_it_means() {
    for (signal, ends_by, last_word) in [
        ("PWR", SIGINT, "Powering off."),
        ("USR1", SIGINT, "Halted"),
        ("USR2", SIGINT, "Powering off."),
        // SIGRTMIN+3 to +5 (signal(7)).
        ("37", SIGINT, "Halted"),
        ("38", SIGINT, "Powering off."),
        ("39", SIGHUP, "Rebooting."),
    ] {
        let mut machine = Machine::boot(&format!("signal-{signal}"), &[BOOT]);
        machine.report();
        machine.signal(signal);
        assert_eq!(machine.end(), Some(ends_by), "{signal}");
        machine.position(&[last_word]);
    }
}

#[test]
fn a_service_that_dies_comes_back_and_leaves_nothing_behind() {
    let mut machine = Machine::boot(
        "restart",
        &[
            BOOT,
            (
                "web.toml",
                // Each run leaves a child that ignores SIGTERM and has a session of its own.
                "part-of = \"boot\"\n[service]\n\
                 exec = [\"/bin/sh\", \"-c\", \"setsid sh -c \\\"trap '' TERM; sleep 1000\\\" & echo run >> {dir}/runs; sleep 0.05; exit 3\"]\n\
                 restart = \"always\"\nrestart-delay = \"1ms\"\nrestart-max-delay = \"20ms\"\ntimeout = \"20s\"\n",
            ),
        ],
    );
    machine.report();
    machine.until("runs", |runs| runs.lines().count() >= 3);
    let rss = || machine.status("VmRSS");
    let early = rss();
    machine.until("runs", |runs| runs.lines().count() >= 23);
    let late = rss();
    let kib = |rss: &str| rss.trim_end_matches(" kB").trim().parse::<u64>().expect("a number");
    assert!(kib(&late) <= kib(&early) + 512, "PID 1 grew from {early} to {late} over 20 restarts");
    // At any moment at most one run's processes are there: the shell, its child's shell and the sleep, twice over while one ends.
    let alive =
        fs::read_to_string(machine.cgroup.join("keel/web/cgroup.procs")).unwrap_or_default();
    assert!(alive.lines().count() <= 4, "{alive}");
    machine.line(&["again", "web", "exited with code 3"]);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    let mut machine = Machine::boot(
        "orphans",
        &[
            BOOT,
            (
                "bomb.toml",
                "part-of = \"boot\"\n[oneshot]\n\
                 exec = [\"/bin/sh\", \"-c\", \"i=0; while [ $i -lt 10000 ]; do i=$((i+1)); ( : & ); done\"]\n\
                 timeout = \"60s\"\n",
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(report["reached"], true, "{report}");
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let children = format!("/proc/{0}/task/{0}/children", machine.init);
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&children).expect("init's children").is_empty() {
        assert!(Instant::now() < deadline, "zombies are left");
        // The kernel has no event for it that anybody but the parent gets.
        std::thread::yield_now();
    }
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn a_failure_degrades_with_its_last_words_and_a_hang_is_killed() {
    let mut machine = Machine::boot(
        "degraded",
        &[
            BOOT,
            (
                "bad.toml",
                "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"echo line one; echo the disk is full >&2; exit 4\"]\ntimeout = \"20s\"\n",
            ),
            (
                "child.toml",
                "part-of = \"boot\"\nrequires = [\"bad\"]\nafter = [\"bad\"]\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n",
            ),
            (
                "hang.toml",
                "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"trap '' TERM; sleep 1000 & wait; wait\"]\ntimeout = \"300ms\"\n",
            ),
            (
                "gone.toml",
                "part-of = \"boot\"\n[service]\nexec = [\"/no/such/daemon\"]\nrestart = \"never\"\ntimeout = \"20s\"\n",
            ),
            (
                "unmet.toml",
                "part-of = \"boot\"\n[condition]\npath-exists = [\"/no/such/file\"]\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(report["reached"], true, "{report}");
    let mut degraded: Vec<String> = report["degraded"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|unit| {
            format!(
                "{}: {}",
                unit["unit"].as_str().unwrap_or(""),
                unit["why"].as_str().unwrap_or("")
            )
        })
        .collect();
    degraded.sort();
    assert_eq!(
        degraded,
        [
            "bad: exited with status 4: the disk is full",
            "child: needs bad, which is not up",
            "gone: /no/such/daemon: no such file",
            "hang: timed out after 300 ms",
        ]
    );
    let bad = machine.position(&["FAILED", "bad"]);
    assert!(machine.seen[bad + 1].ends_with("| line one"), "{}", machine.seen[bad + 1]);
    assert!(machine.seen[bad + 2].ends_with("| the disk is full"), "{}", machine.seen[bad + 2]);
    machine.position(&["skipped", "unmet", "/no/such/file does not exist"]);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

/// A FIFO that nobody writes to stands for a disk that does not answer: who opens it waits for ever.
#[test]
fn a_disk_that_does_not_answer_does_not_hold_up_pid_1() {
    let mut machine = Machine::boot(
        "stuck",
        &[
            BOOT,
            (
                "stuck.toml",
                "part-of = \"boot\"\n[oneshot]\n\
                 exec = [\"/bin/sh\", \"-c\", \"mkdir -p /run/keel/identity && mkfifo /run/keel/identity/node.fingerprint\"]\n\
                 timeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(report["reached"], true, "{report}");
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    assert_eq!(report["fingerprint"], serde_json::Value::Null, "{report}");
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn readiness_by_notification_and_by_socket() {
    let notify = "import os,socket,time\\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\\ntime.sleep(.2)\\n\
                  s.sendto(b'READY=1',os.environ['NOTIFY_SOCKET'])\\ntime.sleep(1000)";
    let answer = "import socket,time\\ns=socket.socket(socket.AF_UNIX)\\ns.bind('{dir}/answer.sock')\\ntime.sleep(.2)\\n\
                  s.listen()\\ntime.sleep(1000)";
    let service = |script: &str, ready: &str| {
        format!(
            "part-of = \"boot\"\n[service]\nexec = [\"/usr/bin/python3\", \"-c\", \"{script}\"]\nready = \"{ready}\"\ntimeout = \"25s\"\n"
        )
    };
    let mut machine = Machine::boot(
        "ready",
        &[
            BOOT,
            ("notifies.toml", &service(notify, "notify")),
            ("answers.toml", &service(answer, "{dir}/answer.sock")),
            // Never says a word.
            (
                "silent.toml",
                &service("import time; time.sleep(1000)", "notify").replace("25s", "500ms"),
            ),
        ],
    );
    let report = machine.report();
    assert_eq!(
        report["degraded"],
        serde_json::json!([{ "unit": "silent", "why": "timed out after 500 ms" }]),
        "{report}"
    );
    let took = |unit: &str| {
        let line = &machine.seen[machine.position(&["ready", unit])];
        line.split_whitespace()
            .rev()
            .nth(1)
            .and_then(|ms| ms.parse::<u64>().ok())
            .expect("milliseconds")
    };
    assert!(took("notifies") >= 200 && took("answers") >= 200);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn a_broken_graph_keeps_the_machine_up_and_says_why() {
    let mut machine = Machine::boot(
        "broken",
        &[
            BOOT,
            (
                "typo.toml",
                "part-of = \"boot\"\n[oneshot]\nexecute = [\"/bin/true\"]\ntimeout = \"1s\"\n",
            ),
        ],
    );
    machine.line(&["EMERGENCY", "make no graph"]);
    machine.line(&["typo.toml:3"]);
    machine.line(&["execute = "]);
    machine.line(&["osctl validate"]);
    machine.signal("INT");
    assert_eq!(machine.end(), Some(SIGHUP));
}

/// A config that cannot be read still leaves a machine that one can ask what is wrong: network and agent, and nothing else.
#[test]
fn a_broken_config_leaves_a_machine_that_can_be_reached() {
    let target = |stage: &'static str| (stage, "part-of = \"boot\"\n[target]\n");
    let oneshot = |word: &str, stage: &str| {
        format!(
            "part-of = \"{stage}\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"echo {word} >> {dir}/ran\"]\ntimeout = \"20s\"\n",
            dir = "{dir}"
        )
    };
    let mut machine = Machine::boot_with(
        "rescue",
        "schema = 1\n[machine]\nhostnam = \"x\"\n",
        &[
            BOOT,
            target("api-filesystems.toml"),
            target("modules.toml"),
            target("network.toml"),
            target("identity.toml"),
            ("uplink.toml", &oneshot("link", "network")),
            ("keel-agent.toml", &oneshot("agent", "boot")),
            ("workload.toml", &oneshot("workload", "boot")),
        ],
    );
    machine.line(&["EMERGENCY", "make no graph"]);
    machine.line(&["config.toml:3"]);
    machine.line(&["hostnam = "]);
    let report = machine.report();
    assert_eq!(
        (&report["goal"], &report["reached"]),
        (&"keel-rescue".into(), &false.into()),
        "{report}"
    );
    assert_eq!(report["emergency"], true, "{report}");
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let mut ran: Vec<_> = machine.read("ran").lines().map(str::to_owned).collect();
    ran.sort();
    assert_eq!(ran, ["agent", "link"]);
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[test]
fn failure_policies_emergency_and_reboot() {
    let failing = |policy: &str| {
        format!(
            "part-of = \"boot\"\n[failure]\non = \"{policy}\"\n[oneshot]\nexec = [\"/bin/false\"]\ntimeout = \"20s\"\n"
        )
    };
    let mut machine = Machine::boot("emergency", &[BOOT, ("vital.toml", &failing("emergency"))]);
    machine.line(&["EMERGENCY", "vital", "exited with status 1"]);
    let report = machine.report();
    assert_eq!(report["reached"], false, "{report}");
    // It stays up until somebody says otherwise.
    machine.signal("USR1");
    assert_eq!(machine.end(), Some(SIGINT));
    machine.position(&["Halted"]);

    let mut machine = Machine::boot("policy", &[BOOT, ("vital.toml", &failing("reboot"))]);
    assert_eq!(machine.end(), Some(SIGHUP));
    machine.position(&["rebooting, as its failure policy says"]);
}

/// What keel-agent asks over the control socket, asked by the same client.
#[test]
fn the_control_socket_answers() {
    use keel_control::{GoalState, Shutdown};
    let mut machine = Machine::boot(
        "control",
        &[
            BOOT,
            (
                "web.toml",
                "description = \"a service\"\npart-of = \"boot\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    let socket = machine.control_socket();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut control = Control::connect(&socket).await.unwrap();
        let status = control.status().await.unwrap();
        assert_eq!((status.state, status.goal.as_str()), (GoalState::Reached, "boot"));
        assert_eq!(report["digest"], status.digest);
        assert!(status.boot.is_some_and(|boot| !boot.critical_path.is_empty()));

        let units = control.units().await.unwrap();
        let web = units.units.iter().find(|unit| unit.name == "web").unwrap();
        assert_eq!((web.state, web.kind.as_str(), web.attempts), (UnitState::Running, "service", 1));
        assert_eq!(web.description, "a service");
        assert!(web.pid.is_some_and(|pid| pid > 1) && web.took_ms.is_some() && web.note.is_none(), "{web:?}");

        let events = Control::connect(&socket).await.unwrap();
        let mut watch = events.watch(1, false).await.unwrap();
        let first = watch.next().await.unwrap().unwrap();
        assert_eq!(first.events.first().map(|event| event.seq), Some(1));
        let up = |event: &keel_control::Event| matches!(&event.what, Happened::Transition { unit, to: UnitState::Running, .. } if unit == "web");
        assert!(first.events.iter().any(up), "{first:?}");

        control.shutdown(Shutdown::Reboot).await.unwrap();
    });
    assert_eq!(machine.end(), Some(SIGHUP));
}

/// A loop device with a filesystem; detached in the end.
struct Loop(String);

impl Loop {
    fn ext4(directory: &Path) -> Self {
        let file = directory.join("disk");
        fs::File::create(&file).and_then(|file| file.set_len(16 << 20)).expect("a file");
        let made = Command::new("mkfs.ext4").arg("-q").arg(&file).status().expect("mkfs.ext4");
        assert!(made.success());
        let attached = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .output()
            .expect("losetup");
        Self(String::from_utf8_lossy(&attached.stdout).trim().to_owned())
    }

    /// A disk with nothing on it.
    fn blank(directory: &Path, size: u64) -> Self {
        let file = directory.join("disk");
        fs::File::create(&file).and_then(|file| file.set_len(size)).expect("a file");
        let attached = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .output()
            .expect("losetup");
        Self(String::from_utf8_lossy(&attached.stdout).trim().to_owned())
    }

    /// What the superblock says of it.
    fn superblock(&self) -> String {
        let output = Command::new("dumpe2fs").args(["-h", &self.0]).output().expect("dumpe2fs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("delpart").args([&self.0, "1"]).stderr(Stdio::null()).status();
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// What containerd leaves behind (a shim, here with a file open for writing on the data partition) is ended when the machine goes
/// down: asked first, then killed, before the partition is unmounted. The filesystem is clean afterwards.
#[test]
fn nothing_outlives_the_machine_and_the_disk_is_clean() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = Loop::ext4(directory.path());
    let mount = format!(
        "part-of = \"boot\"\n[mount]\nsource = \"{}\"\ntarget = \"{{dir}}/data\"\nfstype = \"ext4\"\ntimeout = \"20s\"\n",
        disk.0
    );
    let shim = "trap 'touch {dir}/polite' TERM; exec 3> {dir}/data/open; echo up > {dir}/shim; while :; do echo x >&3; sleep 0.1; done";
    let service = format!(
        "part-of = \"boot\"\nrequires = [\"mount.data\"]\nafter = [\"mount.data\"]\n[service]\ndelegate = true\n\
         exec = [\"/bin/sh\", \"-c\", \"setsid sh -c \\\"{shim}\\\" & wait\"]\ntimeout = \"20s\"\n"
    );
    let mut machine =
        Machine::boot("leftovers", &[BOOT, ("data.toml", &mount), ("shim.toml", &service)]);
    let report = machine.report();
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    machine.until("shim", |text| text == "up\n");
    assert!(disk.superblock().contains("needs_recovery"), "mounted, so its journal is in use");

    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
    assert!(
        machine.shared("polite").exists(),
        "the leftover was asked to end before it was killed"
    );
    assert!(machine.position(&["stopped", "shim"]) < machine.position(&["stopped", "mount.data"]));
    let events = fs::read_to_string(machine.cgroup.join("cgroup.events")).expect("events");
    assert_eq!(events.lines().next(), Some("populated 0"));
    let superblock = disk.superblock();
    assert!(!superblock.contains("needs_recovery"), "{superblock}");
}

/// An agent that comes back at once whenever it is killed, on a port of its own.
fn agent(port: u16) -> String {
    let agent = program(env!("CARGO_BIN_EXE_keel-init"), "keel-agent");
    let agent = agent.display();
    format!(
        "part-of = \"boot\"\nafter = [\"certificate\"]\n[service]\n\
         exec = [\"{agent}\", \"serve\", \"--listen\", \"127.0.0.1:{port}\", \"--dir\", \"{{dir}}/identity\", \
         \"--cluster-ca\", \"{{dir}}/ca.crt\", \"--audit-dir\", \"{{dir}}/audit\"]\n\
         ready = \"notify\"\nrestart = \"always\"\nrestart-delay = \"1ms\"\nrestart-max-delay = \"20ms\"\n\
         start-limit = {{ burst = 200, interval = \"10m\" }}\ntimeout = \"20s\"\n"
    )
}

/// The agent's identity, made once.
fn certificate() -> String {
    let agent = program(env!("CARGO_BIN_EXE_keel-init"), "keel-agent");
    let agent = agent.display();
    let make = format!(
        "mkdir -p {{dir}}/identity && (test -e {{dir}}/identity/node.key || \
         (echo 0f3a5c7e91b24d4e8a6b0123456789ab > {{dir}}/identity/machine-id && {agent} identity --dir {{dir}}/identity))"
    );
    format!(
        "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"{make}\"]\ntimeout = \"20s\"\n"
    )
}

/// How often the agent is killed.
const KILLS: u32 = 50;

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// An osctl that asks a node.
fn osctl(home: &Path, endpoint: &str, what: &[&str]) -> Command {
    let mut osctl = Command::new(program(env!("CARGO_BIN_EXE_keel-init"), "osctl"));
    osctl.args(["--endpoint", endpoint, "--output", "json"]).args(what);
    osctl.env("OSCTL_HOME", home).stderr(Stdio::null());
    osctl
}

/// One that goes on, and what it prints: a line of JSON each.
fn follow(mut osctl: Command) -> (Child, impl Iterator<Item = serde_json::Value> + use<>) {
    let mut osctl = osctl.stdout(Stdio::piped()).spawn().expect("osctl");
    let lines = BufReader::new(osctl.stdout.take().expect("a pipe")).lines();
    (osctl, lines.map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON")))
}

/// The agent is killed fifty times while others ask without pause, somebody follows what a unit writes, and somebody else what happens:
/// each line and each event arrives once, and PID 1 stays as it is.
#[test]
fn a_follower_misses_nothing_when_the_agent_is_killed() {
    let port = free_port();
    let agent = agent(port);
    // Built first where it has to be: what a unit writes meanwhile is more than init remembers.
    assert!(program(env!("CARGO_BIN_EXE_keel-init"), "osctl").is_file());
    let counts = "part-of = \"boot\"\n[service]\n\
                  exec = [\"/bin/sh\", \"-c\", \"i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done\"]\ntimeout = \"20s\"\n";
    let mut machine = Machine::boot(
        "killed",
        &[
            BOOT,
            ("certificate.toml", &certificate()),
            ("keel-agent.toml", &agent),
            ("counts.toml", counts),
        ],
    );
    let report = machine.report();
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let endpoint = format!("127.0.0.1:{port}");
    let home = machine.directory.path().to_owned();
    let (mut follower, lines) = follow(osctl(&home, &endpoint, &["logs", "counts", "--follow"]));
    let mut lines = lines.map(|line| {
        let number: u64 = line["text"].as_str().and_then(|n| n.parse().ok()).expect("a number");
        (line["seq"].as_u64().expect("a number"), number)
    });
    let (mut watcher, mut events) = follow(osctl(&home, &endpoint, &["events", "--follow"]));
    // It has reached the agent: the first time osctl does not insist.
    let first = events.next().expect("an event");
    assert_eq!(first["seq"], 1);
    let (tell, seqs) = mpsc::channel();
    std::thread::spawn(move || {
        let mut seqs = events.map(|event| event["seq"].as_u64().expect("a number"));
        seqs.try_for_each(|seq| tell.send(seq))
    });
    let over = Arc::new(AtomicBool::new(false));
    let askers = [["units"], ["status"]].map(|what| {
        let (home, endpoint, over) = (home.clone(), endpoint.clone(), over.clone());
        std::thread::spawn(move || {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                let asked = osctl(&home, &endpoint, &what).output().expect("osctl");
                answered += u32::from(asked.status.success());
            }
            answered
        })
    });
    let procs = machine.cgroup.join("keel/keel-agent/cgroup.procs");
    let agent_pid = || {
        let text = fs::read_to_string(&procs).unwrap_or_default();
        text.lines().next().map(str::to_owned)
    };
    let (mut expected, mut newest) = (1, 0);
    let (mut rss, mut killed) = (Vec::new(), String::new());
    for round in 0..KILLS {
        // It runs and serves: the follower has had something of it since the last time.
        for _ in 0..5 {
            let (seq, number) = lines.next().expect("a line");
            assert_eq!(number, expected, "in round {round}");
            assert!(seq > newest, "{seq} after {newest}");
            (expected, newest) = (number + 1, seq);
        }
        // Another than the one before, which may not be gone yet.
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(pid) = agent_pid().filter(|pid| *pid != killed)
                && Command::new("kill").args(["-9", &pid]).status().expect("kill").success()
            {
                killed = pid;
                break;
            }
            assert!(Instant::now() < deadline, "no agent in round {round}");
            std::thread::yield_now();
        }
        rss.push(machine.status("VmRSS").trim_end_matches(" kB").parse::<u64>().expect("KiB"));
    }
    for _ in 0..100 {
        let (_, number) = lines.next().expect("a line");
        assert_eq!(number, expected);
        expected += 1;
    }
    // Whatever has happened until now has come.
    let told = osctl(&home, &endpoint, &["events"]).output().expect("osctl");
    let last = String::from_utf8(told.stdout).expect("UTF-8");
    let last: serde_json::Value =
        serde_json::from_str(last.lines().last().expect("an event")).expect("JSON");
    let last = last["seq"].as_u64().expect("a number");
    assert!(last > u64::from(KILLS), "each kill is an event: {last}");
    for seq in 2..=last {
        assert_eq!(seqs.recv_timeout(PATIENCE), Ok(seq));
    }
    over.store(true, Ordering::Relaxed);
    let answered = askers.map(|asker| asker.join().expect("an asker"));
    assert!(answered.iter().all(|&answers| answers > 0), "{answered:?}");
    for osctl in [&mut follower, &mut watcher] {
        let _ = osctl.kill();
        let _ = osctl.wait();
    }
    // Buffers that are bounded fill up at first.
    assert!(rss[49] <= rss[24] + 512, "PID 1 grew: {rss:?}");
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

/// The openssl program, in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let openssl = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let openssl = openssl.expect("openssl");
    assert!(openssl.status.success(), "openssl {arguments}: {openssl:?}");
}

/// Every way in which bytes are likely to be written down: as they are, in hexadecimal digits, in base64 wherever they begin.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    for before in 0..3 {
        let bytes = [&vec![0; before][..], secret].concat();
        // The first characters and the last one are of other bytes too.
        let first = (before * 8).div_ceil(6);
        for base64 in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            all.push(base64.as_bytes()[first..base64.len() - 1].to_vec());
        }
    }
    all
}

/// Secrets, and everything that must not tell them.
struct Watch(Vec<(&'static str, Vec<Vec<u8>>)>);

impl Watch {
    #[track_caller]
    fn look(&self, place: &str, bytes: &[u8]) {
        for (secret, spellings) in &self.0 {
            let found = spellings
                .iter()
                .find(|text| bytes.windows(text.len()).any(|window| window == text.as_slice()));
            assert!(found.is_none(), "{place} tells {secret}: {}", bytes.escape_ascii());
        }
    }

    /// Every file below a folder.
    fn look_into(&self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => self.look_into(&path),
                false => self.look(&path.to_string_lossy(), &fs::read(&path).expect("a file")),
            }
        }
    }
}

#[test]
fn a_watch_sees_a_secret_however_it_is_written() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let secret = b"correct-horse-\xff\xfe-battery";
    let sees = |text: &[u8]| {
        spellings(secret).iter().any(|s| text.windows(s.len()).any(|window| window == s.as_slice()))
    };
    for before in ["", "a", "ab", "abc"] {
        let whole = [before.as_bytes(), secret, b"and more"].concat();
        assert!(sees(&whole) && sees(STANDARD.encode(&whole).as_bytes()), "{before}");
    }
    assert!(
        !sees(b"correct-horse") && !sees(&STANDARD.encode("correct-horse-battery").into_bytes())
    );
}

/// Whatever a secret may stand in, and a program that has one and fails.
const SECRETIVE: [(&str, &str); 5] = [
    (
        "file.whole.toml",
        "part-of = \"boot\"\n[file]\npath = \"{dir}/whole\"\ncontent = \"{{ secrets.whole }}\"\ntimeout = \"5s\"\n",
    ),
    (
        "file.inside.toml",
        "part-of = \"boot\"\n[file]\npath = \"{dir}/inside\"\ncontent = \"token={{ secrets.inside }}.\"\ntimeout = \"5s\"\n",
    ),
    (
        "file.literal.toml",
        "part-of = \"boot\"\n[file]\npath = \"{dir}/literal\"\nsecret = true\ncontent = \"in-the-unit-itself-5d1c\"\ntimeout = \"5s\"\n",
    ),
    (
        "runs.toml",
        "part-of = \"boot\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n\
         [service.environment]\nTOKEN = \"{{ secrets.service }}\"\n",
    ),
    (
        "fails.toml",
        "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"test -n \\\"$TOKEN\\\" && exit 3\"]\ntimeout = \"20s\"\n\
         [oneshot.environment]\nTOKEN = \"Bearer {{ secrets.oneshot }}\"\n",
    ),
];

/// The secret keys of a machine config, which exclude each other: the key and its text.
const CLUSTERS: [(&str, &str, &str); 2] = [
    (
        "token",
        "a2f9c1.7d03b5e86f124ca9",
        "api-server = \"https://203.0.113.10:6443\"\n\
         ca-hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n",
    ),
    ("kubeconfig", "clusters: [of-a-kubeconfig-b81e]", ""),
];

#[test]
fn a_client_in_python_calls_every_method_and_is_told_no_secret() {
    a_client_in_python("python", CLUSTERS[0]);
}

#[test]
fn no_client_is_told_the_kubeconfig() {
    a_client_in_python("kubeconfig", CLUSTERS[1]);
}

/// What people ask a node with osctl. No answer may tell a secret.
const ASKED: [&[&str]; 19] = [
    &["status"],
    &["units"],
    &["units", "show", "runs"],
    &["units", "show", "fails"],
    &["explain", "fails", "--node"],
    &["graph", "render", "--node"],
    &["events"],
    &["logs"],
    &["logs", "keel-agent"],
    &["dmesg", "--tail", "5"],
    &["inventory"],
    &["processes"],
    &["boot", "list"],
    &["boot", "show"],
    &["boot", "blame"],
    &["boot", "record"],
    &["config", "get"],
    &["history"],
    &["audit"],
];

/// A client that shares nothing with ours calls every method of the API, and each answers as its proto file says; osctl asks all that it
/// can. No byte of an answer, of the console or of what is kept of it tells a secret, whichever key of a config or field of a unit it was
/// planted in, nor the node's key.
fn a_client_in_python(name: &str, (joined, text, beside): (&'static str, &str, &str)) {
    let port = free_port();
    let makes_ca = "part-of = \"boot\"\nbefore = [\"keel-agent\"]\n[oneshot]\n\
                    exec = [\"/bin/sh\", \"-c\", \"until test -e {dir}/ca.crt; do sleep 0.02; done\"]\ntimeout = \"20s\"\n";
    let joins = format!(
        "part-of = \"boot\"\n[file]\npath = \"{{dir}}/joins\"\ncontent = \"with {{{{ cluster.{joined} }}}}\"\ntimeout = \"5s\"\n"
    );
    let planted = [
        ("whole", "the-whole-file-1f09"),
        ("inside", "inside-of-a-file-77ab"),
        ("service", "of-a-service-c0de"),
        ("oneshot", "of-a-oneshot-93e2"),
        ("dropped", "of-a-drop-in-e4a7"),
    ];
    let config: String =
        planted.iter().map(|(name, secret)| format!("{name} = \"{secret}\"\n")).collect();
    let (certificate, agent) = (certificate(), agent(port));
    let units = [
        BOOT,
        ("certificate.toml", certificate.as_str()),
        ("authority.toml", makes_ca),
        ("keel-agent.toml", agent.as_str()),
    ];
    let units = [&units[..], &SECRETIVE, &[("file.joins.toml", joins.as_str())]].concat();
    let config = format!(
        "schema = 1\n[secrets]\n{config}[cluster]\n{beside}{joined} = \"{text}\"\n\
         [units.runs.service.environment]\nDROPPED = \"Bearer {{{{ secrets.dropped }}}}\"\n"
    );
    let mut machine = Machine::boot_with(name, &config, &units);
    let folder = machine.directory.path().to_owned();
    let key = "ecparam -name prime256v1 -genkey -noout -out";
    openssl(&folder, &format!("{key} ca.key"));
    openssl(&folder, &format!("{key} ada.key"));
    openssl(&folder, "req -new -key ada.key -subj /O=keel:admin/CN=ada -out ada.csr");
    openssl(&folder, "req -x509 -new -key ca.key -subj /CN=cluster -days 2 -out ca.new");
    fs::write(folder.join("extensions"), "extendedKeyUsage = clientAuth\n").expect("a file");
    openssl(
        &folder,
        "x509 -req -in ada.csr -CA ca.new -CAkey ca.key -CAcreateserial -days 1 -extfile extensions -out ada.crt",
    );
    fs::rename(folder.join("ca.new"), folder.join("ca.crt")).expect("the CA in its place");
    let report = machine.report();
    let failed = serde_json::json!([{ "unit": "fails", "why": "exited with status 3" }]);
    assert_eq!(report["degraded"], failed, "{report}");
    assert_eq!(machine.read("inside"), "token=inside-of-a-file-77ab.");
    assert_eq!(machine.read("joins"), format!("with {text}"));

    let mut watch =
        Watch(planted.map(|(name, secret)| (name, spellings(secret.as_bytes()))).into());
    watch.0.push(("a bootstrap token", spellings(b"planted5token5ab")));
    watch.0.push(("literal", spellings(b"in-the-unit-itself-5d1c")));
    watch.0.push((joined, spellings(text.as_bytes())));
    watch.0.push(("the node's key", spellings(&private_key(&machine.read("identity/node.key")))));

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/python/bin/python3");
    assert!(python.exists(), "first: cargo xtask setup");
    let client = Command::new(python)
        .arg(root.join("testdata/python/client.py"))
        .arg(root.join("proto"))
        .arg(format!("127.0.0.1:{port}"))
        .arg(folder.join("identity/node.crt"))
        .arg("localhost")
        .args([folder.join("ada.crt"), folder.join("ada.key")])
        .output()
        .expect("python");
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    let text = String::from_utf8(client.stdout).expect("UTF-8");
    let calls: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let answer = |method: &str| {
        let found = calls.iter().find(|call| call["method"] == method);
        found.unwrap_or_else(|| panic!("{method} was not called: {text}"))
    };
    for call in &calls {
        // A machine without a data partition has nothing to wipe, and no config on trial; and one that is in a cluster joins no other.
        let expected = match call["method"].as_str() {
            Some("/keel.v1.Operation/Reset" | "/keel.v1.Config/Confirm") => "FAILED_PRECONDITION",
            Some("/keel.v1.Cluster/Bootstrap") if joined == "token" => "FAILED_PRECONDITION",
            _ => "OK",
        };
        assert_eq!(call["code"], expected, "{call}");
    }
    let protos = fs::read_dir(root.join("proto/keel/v1")).expect("the proto files");
    let declared: usize = protos
        .map(|file| fs::read_to_string(file.expect("a file").path()).expect("a proto file"))
        .map(|proto| proto.lines().filter(|line| line.trim_start().starts_with("rpc ")).count())
        .sum();
    assert_eq!(calls.len(), declared);
    let status = &answer("/keel.v1.Node/GetStatus")["answers"][0]["status"];
    assert_eq!(status["state"], "GOAL_STATE_DEGRADED");
    assert_eq!(status["mode"], "MODE_BOOTSTRAPPED");
    assert_eq!(status["digest"], report["digest"]);
    for call in &calls {
        for piece in call["wire"].as_array().expect("what came") {
            let digits = piece.as_str().expect("hexadecimal digits").as_bytes();
            let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).expect("digits"), 16);
            let bytes: Result<Vec<u8>, _> = digits.chunks(2).map(byte).collect();
            watch.look(call["method"].as_str().expect("a method"), &bytes.expect("digits"));
        }
    }
    let graph = answer("/keel.v1.Node/ExportGraph")["wire"].to_string();
    let in_place: String = "<secret sha256:".bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(graph.matches(&in_place).count() >= SECRETIVE.len(), "they are in the graph, by hash");
    let jobs = &answer("/keel.v1.Operation/ControlUnit")["answers"][0]["jobs"];
    assert!(jobs.is_array(), "stopping the goal stops something: {jobs}");
    let audit = &answer("/keel.v1.Journal/ReadAudit")["answers"];
    assert!(audit.to_string().contains("CN=ada"), "{audit}");
    for asked in ASKED {
        for form in ["table", "json"] {
            let mut osctl = Command::new(program(env!("CARGO_BIN_EXE_keel-init"), "osctl"));
            osctl.args(["--endpoint", &format!("127.0.0.1:{port}"), "--output", form]).args(asked);
            osctl.arg("--cert").arg(folder.join("ada.crt"));
            osctl.arg("--key").arg(folder.join("ada.key")).env("OSCTL_HOME", &folder);
            let out = osctl.output().expect("osctl");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(!out.stdout.is_empty(), "{asked:?} --output {form}: {said}");
            watch.look(&format!("osctl {asked:?} --output {form}"), &out.stdout);
            watch.look(&format!("osctl {asked:?}"), &out.stderr);
            if *asked == ["config", "get"] && form == "table" {
                // It is a config that can be edited and sent back.
                let shown = String::from_utf8_lossy(&out.stdout);
                let lines: Vec<_> = shown.lines().collect();
                assert!(lines.contains(&"whole = \"<secret>\""), "{shown}");
                assert!(lines.contains(&format!("{joined} = \"<secret>\"").as_str()), "{shown}");
            }
        }
    }
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
    watch.look("the console", machine.seen.join("\n").as_bytes());
    watch.look_into(&machine.shared("audit"));
}

/// The secret number in a key on P-256, as PKCS #8 has it: the version (3 bytes behind the outermost head of 3), the algorithm (21),
/// and the heads of an octet string, a sequence, a version and an octet string around 32 bytes.
fn private_key(pem: &str) -> Vec<u8> {
    use base64::Engine as _;
    let text: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(text).expect("PEM");
    der.get(36..68).expect("a key on P-256").to_vec()
}

/// Records of boots, of machines whose data partition is a folder of the test's.
#[test]
fn a_boot_is_remembered_by_the_next() {
    let keep = tempfile::tempdir().expect("a temporary directory");
    let mount = format!(
        "part-of = \"boot\"\n[mount]\nsource = \"{}\"\ntarget = \"/var/lib/keel\"\nfstype = \"none\"\noptions = [\"bind\"]\ntimeout = \"20s\"\n",
        keep.path().display()
    );
    let says = |word: &str| {
        format!(
            "part-of = \"boot\"\nafter = [\"mount.data\"]\n[service]\n\
             exec = [\"/bin/sh\", \"-c\", \"echo hello of {word}; trap 'echo goodbye of {word}; exit 0' TERM; touch {{dir}}/armed; while :; do sleep 0.1; done\"]\n\
             timeout = \"20s\"\n"
        )
    };
    let records = || {
        let folder = fs::read_dir(keep.path().join("boots")).into_iter().flatten().flatten();
        let files =
            folder.flat_map(|boot| fs::read_dir(boot.path()).into_iter().flatten().flatten());
        let mut records: Vec<_> = files
            .map(|file| {
                let text = fs::read_to_string(file.path()).unwrap_or_default();
                (file.file_name().into_string().expect("UTF-8"), text)
            })
            .collect();
        records.sort();
        records
    };
    for (boot, ended, signal) in [("one", "power-off", "TERM"), ("two", "reboot", "INT")] {
        let service = says(boot);
        let units = [BOOT, ("data.toml", mount.as_str()), ("says.toml", service.as_str())];
        let mut machine = Machine::boot(&format!("record-{boot}"), &units);
        let report = machine.report();
        assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
        machine.until("armed", |_| machine.shared("armed").exists());
        machine.signal(signal);
        machine.end();
        let records = records();
        let (name, text) = records.last().expect("a record");
        assert_eq!(*name, if boot == "one" { "1.jsonl" } else { "2.jsonl" });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0]["boot"]["ended"], ended, "{}", lines[0]);
        assert_eq!(lines[0]["boot"]["state"], "reached", "{}", lines[0]);
        assert_eq!(lines[1]["format"], "keel-boot-trace");
        assert_eq!(lines[1]["outcome"], "reached");
        let said: Vec<_> = lines[2..].iter().filter_map(|line| line["text"].as_str()).collect();
        assert_eq!(said, [format!("hello of {boot}"), format!("goodbye of {boot}")]);
    }
    assert_eq!(records().len(), 2, "the first boot's record is still there");
}

/// The storage is not there while the machine boots, and comes long after: the boot is written down then, from its beginning. The record
/// can be read in maintenance too, and tells no secret, though a program that had one has failed.
#[test]
fn a_boot_that_reaches_its_storage_late_is_recorded_then() {
    let mount = "part-of = \"boot\"\n[mount]\nsource = \"{dir}/late\"\ntarget = \"/var/lib/keel\"\nfstype = \"none\"\n\
                 options = [\"bind\"]\ntimeout = \"20s\"\n";
    let says = "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/echo\", \"said before there was a disk\"]\ntimeout = \"20s\"\n";
    let planted = [
        ("whole", "the-whole-file-1f09"),
        ("inside", "inside-of-a-file-77ab"),
        ("service", "of-a-service-c0de"),
        ("oneshot", "of-a-oneshot-93e2"),
    ];
    let secrets: String =
        planted.iter().map(|(name, secret)| format!("{name} = \"{secret}\"\n")).collect();
    let mut watch =
        Watch(planted.map(|(name, secret)| (name, spellings(secret.as_bytes()))).into());
    watch.0.push(("literal", spellings(b"in-the-unit-itself-5d1c")));
    let units = [&[BOOT, ("data.toml", mount), ("says.toml", says)][..], &SECRETIVE].concat();
    let config = format!("schema = 1\n[secrets]\n{secrets}");
    let mut machine = Machine::boot_with("late", &config, &units);
    let report = machine.report();
    let degraded = report["degraded"].as_array().expect("a list");
    assert!(degraded.iter().any(|one| one["unit"] == "mount.data"), "{report}");
    let late = machine.shared("late");
    let boots = late.join("boots");
    fs::create_dir(&late).expect("a place for records");
    steer(&machine, "mount.data", UnitVerb::Start, false).expect("a plan");
    look_at_changes(&late, || boots.exists().then_some(())).expect("a place for boots");
    let first = || fs::read_dir(&boots).ok()?.flatten().next();
    let boot = look_at_changes(&boots, first).expect("a boot").path();
    let record = || fs::read_to_string(boot.join("1.jsonl")).ok();
    let text = look_at_changes(&boot, record).expect("a record");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["boot"]["state"], "degraded", "{}", lines[0]);
    assert_eq!(lines[0]["boot"]["ended"], serde_json::Value::Null, "{}", lines[0]);
    assert_eq!(lines[1]["format"], "keel-boot-trace");
    assert_eq!(lines[2]["text"], "said before there was a disk");
    assert!(text.contains("exited with status 3"), "{text}");
    watch.look("the record", text.as_bytes());
    machine.signal("TERM");
    machine.end();
    let text = record().expect("a record");
    watch.look("the last record", text.as_bytes());
    let head = text.lines().next().expect("a head");
    assert!(head.contains(r#""ended":"power-off""#), "{head}");
}

#[test]
fn without_storage_the_console_says_that_a_boot_is_forgotten() {
    let mut machine = Machine::boot("forgotten", &[BOOT]);
    machine.report();
    machine.signal("TERM");
    machine.end();
    machine.position(&["there is no record of this boot: nothing was mounted at /var/lib/keel"]);
}

#[test]
fn it_is_nothing_but_pid_1() {
    let output = Command::new(env!("CARGO_BIN_EXE_keel-init")).output().expect("the binary");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("PID 1"));
}

/// Asks init over its control socket, as the agent does.
fn ask<T>(
    machine: &Machine,
    question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
) -> Result<T, String> {
    let socket = machine.control_socket();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut control = Control::connect(&socket).await.expect("init's socket");
        question(&mut control).await.map_err(|error| match error.kind {
            ControlErrorKind::Refused(refusal) => refusal.kind.to_string(),
            kind => panic!("{kind}"),
        })
    })
}

fn steer(machine: &Machine, unit: &str, verb: UnitVerb, dry_run: bool) -> Result<UnitPlan, String> {
    let ask_for = ControlUnit { unit: unit.to_owned(), verb, dry_run, digest: None };
    ask(machine, async |init| init.control_unit(ask_for).await)
}

/// A plan as `stop web! requires base`; `!` where something that runs is interrupted.
fn told(plan: &UnitPlan) -> Vec<String> {
    let line = |job: &keel_control::PlannedJob| {
        let mark = if job.interrupts { "!" } else { "" };
        // Where the unit files lie differs from run to run.
        let why = job.why.split(": ").next().unwrap_or_default();
        format!("{:?} {}{mark} {why}", job.verb, job.unit)
    };
    plan.jobs.iter().map(line).collect()
}

fn state(machine: &Machine, unit: &str) -> UnitState {
    let detail = ask(machine, async |init| init.unit(unit.to_owned()).await);
    detail.expect("there is such a unit").unit.state
}

/// Reads what has happened, and what happens, until the unit is in that state.
fn until_state(machine: &Machine, unit: &str, wanted: UnitState) {
    let reading = async {
        let connect = async || Control::connect(&machine.control_socket()).await;
        let mut init = connect().await.expect("init's socket");
        let events = connect().await.expect("init's socket");
        let mut events = events.watch(1, true).await.expect("its events");
        loop {
            let batch = events.next().await.expect("init").expect("it goes on");
            let mut states = batch.events.iter().filter_map(|event| match &event.what {
                Happened::Transition { unit: of, to, .. } if of == unit => Some(*to),
                _ => None,
            });
            // It may have been so before, and be so no longer.
            if states.any(|to| to == wanted)
                && init.unit(unit.to_owned()).await.expect("the unit").unit.state == wanted
            {
                return;
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let read = runtime
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(PATIENCE, reading).await });
    read.unwrap_or_else(|_| panic!("{unit} does not become {wanted:?}"));
}

#[test]
fn units_are_explained_and_steered_as_planned() {
    let mut machine = Machine::boot(
        "steer",
        &[
            BOOT,
            (
                "base.toml",
                "part-of = \"boot\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n",
            ),
            (
                "web.toml",
                "part-of = \"boot\"\nrequires = [\"base\"]\nafter = [\"base\"]\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n",
            ),
            (
                "broken.toml",
                "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"echo no such disk; exit 3\"]\ntimeout = \"20s\"\n",
            ),
            (
                "lacking.toml",
                "part-of = \"boot\"\nrequires = [\"broken\"]\nafter = [\"broken\"]\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n",
            ),
            (
                "mount.proc.toml",
                "part-of = \"boot\"\n[mount]\nsource = \"proc\"\ntarget = \"/proc\"\nfstype = \"proc\"\ntimeout = \"5s\"\n",
            ),
            (
                "file.secret.toml",
                "part-of = \"boot\"\n[file]\npath = \"{dir}/secret\"\nsecret = true\ncontent = \"hunter2\"\ntimeout = \"5s\"\n",
            ),
        ],
    );
    let report = machine.report();

    let graph = ask(&machine, async |init| init.export_graph().await).expect("a graph");
    let text = String::from_utf8(graph).expect("JSON");
    assert!(!text.contains("hunter2"), "a secret in an exported graph");
    let graph: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(graph["digest"], report["digest"]);
    let of = |name: &str| {
        let units = graph["units"].as_array().expect("units");
        units.iter().find(|unit| unit["name"] == name).expect("the unit").clone()
    };
    assert_eq!(of("web")["state"], "active(running)");
    assert_eq!(of("lacking")["state"], "failed(dependency)");

    let lacking = ask(&machine, async |init| init.unit("lacking".to_owned()).await).expect("it");
    assert_eq!(lacking.blocked_by, ["lacking", "broken"]);
    assert_eq!(
        lacking.last_lines.iter().map(|line| &*line.text).collect::<Vec<_>>(),
        ["no such disk"]
    );
    assert!(lacking.file.ends_with("lacking.toml"), "{}", lacking.file);
    let holds: Vec<_> = lacking.dependencies.iter().filter(|edge| edge.holds_up).collect();
    assert!(
        holds.iter().all(|edge| edge.unit == "broken" && edge.provenance.contains("lacking.toml:"))
    );
    assert!(holds.iter().any(|edge| edge.word == "requires"), "{lacking:?}");
    let unknown = ask(&machine, async |init| init.unit("lackin".to_owned()).await);
    assert_eq!(unknown, Err("there is no unit `lackin`; did you mean lacking?".to_owned()));

    let planned = steer(&machine, "base", UnitVerb::Stop, true).expect("a plan");
    assert_eq!(told(&planned), ["Stop web! requires base", "Stop base! asked for"]);
    assert_eq!(state(&machine, "web"), UnitState::Running, "that was only a question");
    assert_eq!(steer(&machine, "base", UnitVerb::Stop, false).as_ref(), Ok(&planned));
    until_state(&machine, "base", UnitState::Inactive);
    assert_eq!(state(&machine, "web"), UnitState::Inactive);
    let started = steer(&machine, "web", UnitVerb::Start, false).expect("a plan");
    assert_eq!(told(&started), ["Start base web requires it", "Start web asked for"]);
    until_state(&machine, "web", UnitState::Running);
    assert_eq!(told(&steer(&machine, "web", UnitVerb::Start, false).expect("a plan")), [""; 0]);

    let kept = steer(&machine, "mount.proc", UnitVerb::Stop, false).expect_err("it is kept");
    assert!(kept.starts_with("mount.proc is a filesystem of the kernel's"), "{kept}");
    let elsewhere = ControlUnit {
        unit: "web".to_owned(),
        verb: UnitVerb::Stop,
        dry_run: false,
        digest: Some("sha256:00".to_owned()),
    };
    let other =
        ask(&machine, async |init| init.control_unit(elsewhere).await).expect_err("a digest");
    assert!(other.ends_with("and no longer sha256:00"), "{other}");
    let nothing = Reset { dry_run: true, confirm: None };
    let nothing = ask(&machine, async |init| init.reset(nothing).await);
    assert_eq!(nothing, Err("this machine has no data partition".to_owned()));

    let stops = ask(&machine, async |init| init.rehearse_shutdown().await).expect("an order");
    let place = |unit: &str| stops.iter().position(|stop| stop == unit).expect("it is stopped");
    assert!(place("web") < place("base"), "{stops:?}");
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

/// A data partition on a loop device, and the identity that lies on it.
fn data_units(disk: &str, label: &str) -> Vec<(&'static str, String)> {
    let source = format!("PARTLABEL={label}");
    vec![
        ("boot.toml", "description = \"goal\"\n[target]\n".to_owned()),
        (
            "disk.toml",
            format!(
                "part-of = \"boot\"\n[partition]\nlabel = \"{label}\"\ntype = \"7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441\"\n\
                 disk = {{ path = \"{disk}\" }}\ntimeout = \"20s\"\n"
            ),
        ),
        (
            "fs.toml",
            format!(
                "part-of = \"boot\"\nrequires = [\"partition.disk\"]\nafter = [\"partition.disk\"]\n\
                 [filesystem]\ndevice = \"{source}\"\ntype = \"ext4\"\ntimeout = \"60s\"\n"
            ),
        ),
        (
            "data.toml",
            format!(
                "part-of = \"boot\"\nrequires = [\"filesystem.fs\"]\nafter = [\"filesystem.fs\"]\n\
                 [mount]\nsource = \"{source}\"\ntarget = \"{{dir}}/data\"\nfstype = \"ext4\"\ntimeout = \"20s\"\n"
            ),
        ),
        (
            "me.toml",
            "part-of = \"boot\"\nrequires = [\"mount.data\"]\nafter = [\"mount.data\"]\n\
             [identity]\ndirectory = \"{dir}/data/identity\"\npublish = \"{dir}/machine-id\"\ntimeout = \"20s\"\n"
                .to_owned(),
        ),
    ]
}

/// A machine that is reset stops, wipes its data partition, reboots, and comes up as another machine.
#[test]
fn a_reset_machine_comes_back_as_another_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = Loop::blank(directory.path(), 300 << 20);
    let label = format!("keel-reset-{}", std::process::id());
    // There already: a partition is only made where every disk of the machine can be looked at, and here some are the host's.
    let made = Command::new("sgdisk")
        .args(["-n", "1", "-t", "1:7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441", "-c"])
        .args([&format!("1:{label}"), &disk.0])
        .output()
        .expect("sgdisk");
    assert!(made.status.success(), "{made:?}");
    let units = data_units(&disk.0, &label);
    let units: Vec<(&str, &str)> =
        units.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let mut machine = Machine::boot("reset", &units);
    let report = machine.report();
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let id = machine.read("machine-id").trim().to_owned();
    assert_eq!(id.len(), 32, "{id}");
    fs::create_dir(machine.in_namespace("data/containerd"))
        .expect("a folder on the data partition");

    let reset = |dry_run, confirm: Option<&str>| {
        let reset = Reset { dry_run, confirm: confirm.map(str::to_owned) };
        ask(&machine, async |init| init.reset(reset).await)
    };
    let plan = reset(true, None).expect("a plan");
    assert!(plan.losses[0].what.starts_with(&label), "{plan:?}");
    assert!(plan.losses[0].size.is_some_and(|size| size > 290 << 20), "{plan:?}");
    let named = |folder: &str| plan.losses.iter().any(|loss| loss.what.ends_with(folder));
    assert!(named("/data/identity") && named("/data/containerd"), "{plan:?}");
    assert!(plan.stops.contains(&"mount.data".to_owned()), "{plan:?}");
    for other in [None, Some(""), Some("0f3a5c7e91b24d4e8a6b0123456789ab")] {
        let refused = reset(false, other);
        assert_eq!(refused, Err("this machine's id was not given as confirmation".to_owned()));
    }
    assert_eq!(reset(false, Some(&id)).as_ref(), Ok(&plan));
    assert_eq!(machine.end(), Some(SIGHUP), "it reboots");
    assert!(machine.position(&["stopped", "mount.data"]) < machine.position(&["is wiped."]));
    assert!(machine.position(&["is wiped."]) < machine.position(&["Rebooting."]));
    drop(machine);

    let mut machine = Machine::boot("reset-again", &units);
    let report = machine.report();
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let new = machine.read("machine-id").trim().to_owned();
    assert!(new.len() == 32 && new != id, "{new}");
    assert!(!machine.in_namespace("data/containerd").exists());
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

#[path = "namespace/configs.rs"]
mod configs;
#[path = "namespace/files.rs"]
mod files;
#[path = "namespace/forget.rs"]
mod forget;
#[path = "namespace/mutations.rs"]
mod mutations;
#[path = "namespace/outside.rs"]
mod outside;
#[path = "namespace/scale.rs"]
mod scale;
#[path = "namespace/trust.rs"]
mod trust;
