//! Many services at once: all of them are killed in one moment, and come back as their policies say. And a machine at rest, which does
//! nothing.
//!
//! CI takes as many as it has time for. `KEEL_SERVICES=10000 KEEL_ROUNDS=100` in the environment makes a benchmark of it, and `KEEL_REST=60` looks
//! for a minute; what was measured goes to standard error.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use keel_control::{Control, UnitState};

use super::{BOOT, Machine, SIGINT, agent, certificate, free_port};

/// The longest that PID 1 may keep a caller waiting: 50 ms as it ships, and without optimisation a few times as long.
const STALL: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 50 });

/// One service in so many is not started again.
const MORTAL: usize = 10;

fn from_environment(name: &str, default: usize) -> usize {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A static program that sleeps for ever: of a service it costs the least.
fn sleeper(folder: &Path) -> String {
    let source = folder.join("sleeper.c");
    fs::write(&source, "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
        .expect("its source");
    let program = folder.join("sleeper");
    let built = Command::new("gcc")
        .args(["-static", "-Os", "-o"])
        .args([&program, &source])
        .status()
        .expect("gcc");
    assert!(built.success());
    program.to_str().expect("a path in UTF-8").to_owned()
}

/// What PID 1 holds.
#[derive(Debug)]
struct Holds {
    descriptors: usize,
    memory_kib: u64,
}

fn holds(machine: &Machine) -> Holds {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", machine.init)).expect("/proc").count();
    let rss = machine.status("VmRSS");
    let memory_kib = rss.trim_end_matches(" kB").trim().parse().expect("a number");
    Holds { descriptors, memory_kib }
}

/// How long a thread has run, and how long it waited for a processor.
fn had(thread: &str) -> [Duration; 2] {
    let text = fs::read_to_string(format!("/proc/{thread}/schedstat")).expect("schedstat");
    let mut numbers = text.split_whitespace().map(|text| text.parse().expect("a number"));
    [(); 2].map(|()| Duration::from_nanos(numbers.next().expect("a number")))
}

/// Asks PID 1 how it is. How long it did other things before it answered: for as long as others had its processor, it did nothing, and
/// for as long as this test waited for one, the answer may have been there.
async fn ask(init: &mut Control, machine: &Machine) -> Duration {
    let pid_1 = format!("{0}/task/{0}", machine.init);
    let ([before, _], [_, waited]) = (had(&pid_1), had("thread-self"));
    init.status().await.expect("an answer");
    let ([after, _], [_, waited_since]) = (had(&pid_1), had("thread-self"));
    (after - before).saturating_sub(waited_since - waited)
}

/// The processes of all units.
async fn pids(init: &mut Control) -> BTreeSet<u32> {
    let units = init.units().await.expect("the units").units;
    units.iter().filter_map(|unit| unit.pid).collect()
}

/// Until as many run, none as a process of before, and as many have failed; the longest answer meanwhile.
async fn until(
    init: &mut Control,
    machine: &Machine,
    running: usize,
    failed: usize,
    before: &BTreeSet<u32>,
) -> Duration {
    let patience = Instant::now() + Duration::from_secs(900);
    let mut longest = Duration::ZERO;
    loop {
        for _ in 0..50 {
            longest = longest.max(ask(init, machine).await);
        }
        let units = init.units().await.expect("the units").units;
        let count = |state| units.iter().filter(|unit| unit.state == state).count();
        let others = units.iter().filter_map(|unit| unit.pid).all(|pid| !before.contains(&pid));
        if others && (count(UnitState::Running), count(UnitState::Failed)) == (running, failed) {
            return longest;
        }
        assert!(Instant::now() < patience, "{} of {running} run", count(UnitState::Running));
    }
}

#[test]
fn all_services_killed_at_once_come_back_and_pid_1_answers_meanwhile() {
    let services = from_environment("KEEL_SERVICES", 500);
    let rounds = from_environment("KEEL_ROUNDS", 3);
    let folder = tempfile::tempdir().expect("a folder");
    let sleeper = sleeper(folder.path());
    let unit = |i: usize| {
        let restart = if i.is_multiple_of(MORTAL) { "never" } else { "always" };
        let text = format!(
            "part-of = \"boot\"\n[service]\nexec = [\"{sleeper}\"]\nrestart = \"{restart}\"\nrestart-delay = \"1ms\"\n\
             restart-max-delay = \"100ms\"\nstart-limit = {{ burst = 1000, interval = \"1s\" }}\ntimeout = \"10m\"\n"
        );
        (format!("s{i}.toml"), text)
    };
    let files: Vec<_> = (0..services).map(unit).collect();
    let mut units = vec![BOOT];
    units.extend(files.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    let mut machine = Machine::boot("many", &units);
    let reached = Instant::now() + Duration::from_secs(900);
    while !machine
        .lines
        .recv_timeout(reached - Instant::now())
        .expect("the boot ends")
        .contains("KEEL-REPORT ")
    {}

    let mortal = services.div_ceil(MORTAL);
    let socket = machine.control_socket();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut init = Control::connect(&socket).await.expect("init's socket");
        until(&mut init, &machine, services, 0, &BTreeSet::new()).await;
        let limits = init.unit("s1".to_owned()).await.expect("a unit").unit.pid;
        let inside = limits.expect("it runs");
        let limits =
            fs::read_to_string(format!("/proc/{}/root/proc/{inside}/limits", machine.init));
        let limits = limits.expect("its limits");
        let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        assert_eq!(files.split_whitespace().nth(3), Some("1024"), "{files}");

        let mut after_first = None;
        for round in 1..=rounds {
            let before = pids(&mut init).await;
            let kill = machine.cgroup.join("keel/cgroup.kill");
            fs::write(kill, "1").expect("all are killed");
            let longest = until(&mut init, &machine, services - mortal, mortal, &before).await;
            let holds = holds(&machine);
            eprintln!("round {round}: the longest answer took {longest:?}; {holds:?}");
            assert!(longest < STALL, "round {round}: PID 1 did not answer for {longest:?}");
            // What those hold that stay down is given back in the first round.
            let first = after_first.get_or_insert(holds);
            let now = self::holds(&machine);
            assert!(now.descriptors <= first.descriptors + 16, "{first:?} became {now:?}");
            assert!(now.memory_kib <= first.memory_kib + 2048, "{first:?} became {now:?}");
        }
    });
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}

/// What each thread of a process has done so far: how often it went to sleep or was put to sleep, and for how long it ran.
fn doings(pid: u32) -> BTreeMap<String, (u64, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads");
    let doing = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let switches = status.lines().filter(|line| line.contains("_ctxt_switches:"));
        let switches =
            switches.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        let ran = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ran = ran.split_whitespace().next()?.parse().ok()?;
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let name = format!("{} {}", task.file_name().to_string_lossy(), name.trim());
        Some((name, (switches.sum(), ran)))
    };
    tasks.flatten().filter_map(doing).collect()
}

/// How often the threads of a process woke up in that time, and for how many nanoseconds each ran.
fn woke(pid: u32, rest: Duration) -> (u64, BTreeMap<String, u64>) {
    let before = doings(pid);
    std::thread::sleep(rest);
    let after = doings(pid);
    let mut woke = 0;
    let mut ran = BTreeMap::new();
    for (thread, (switches, nanoseconds)) in after {
        let (had, did) = before.get(&thread).copied().unwrap_or_default();
        woke += switches - had;
        ran.insert(thread, nanoseconds - did);
    }
    (woke, ran)
}

/// The most wake-ups of the agent in ten seconds.
const AGENT: u64 = 10;

/// How many windows a machine has to come to rest.
const WINDOWS: usize = 6;

#[test]
fn at_rest_pid_1_is_silent_and_the_agent_nearly() {
    let rest = Duration::from_secs(from_environment("KEEL_REST", 10) as u64);
    let service =
        "part-of = \"boot\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n";
    let mut machine = Machine::boot(
        "rest",
        &[
            BOOT,
            ("one.toml", service),
            ("two.toml", service),
            ("certificate.toml", &certificate()),
            ("keel-agent.toml", &agent(free_port())),
        ],
    );
    let report = machine.report();
    assert_eq!(report["degraded"], serde_json::json!([]), "{report}");
    let cgroup = machine.cgroup.join("keel/keel-agent/cgroup.procs");
    let agent = fs::read_to_string(cgroup).expect("its processes");
    let agent = agent.trim().parse().expect("one process");
    let agents = AGENT * rest.as_secs().div_ceil(10);
    // How long the end of a boot takes, its record and the threads that leave when they have nothing to do, depends on the machine.
    let silent = (1..=WINDOWS).any(|_| {
        let watched = machine.init;
        let pid_1 = std::thread::spawn(move || woke(watched, rest));
        let (agent, agent_ran) = woke(agent, rest);
        let (pid_1, pid_1_ran) = pid_1.join().expect("it was watched");
        eprintln!(
            "PID 1 woke up {pid_1} times and ran {pid_1_ran:?} ns, the agent {agent}, {agent_ran:?}"
        );
        pid_1 == 0 && agent <= agents
    });
    assert!(silent, "PID 1 woke up in each window, or the agent more than {agents} times");
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
}
