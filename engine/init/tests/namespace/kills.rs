//! An agent that is killed time and again, and those who follow it.

use super::*;

/// How often the agent is killed.
const KILLS: u32 = 50;

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
