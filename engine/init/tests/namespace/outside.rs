//! What is seen of a machine from outside, by the real agent over the real init: metrics, and the boots before this one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::steering::until_state;
use super::*;

/// What osctl learns, as JSON.
fn learns(machine: &Machine, port: u16, what: &[&str]) -> serde_json::Value {
    let endpoint = format!("127.0.0.1:{port}");
    let out = osctl(machine.directory.path(), &endpoint, what).output().expect("osctl");
    // That a machine is degraded is a finding.
    assert!(matches!(out.status.code(), Some(0 | 1)), "{what:?}: {out:?}");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    serde_json::from_str(&text).unwrap_or_else(|_| {
        // A line each.
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        serde_json::Value::Array(lines.collect())
    })
}

/// A node that was never given a CA is asked about the boot before: what it came to, what each unit did, and what was written last.
#[test]
fn the_boot_before_is_read_from_a_node_in_maintenance() {
    let keep = tempfile::tempdir().expect("a temporary directory");
    let mount = format!(
        "part-of = \"boot\"\n[mount]\nsource = \"{}\"\ntarget = \"/var/lib/keel\"\nfstype = \"none\"\noptions = [\"bind\"]\ntimeout = \"20s\"\n",
        keep.path().display()
    );
    let port = free_port();
    let (certificate, agent) = (certificate(), agent(port));
    let boot = |word: &str| {
        let says = format!(
            "part-of = \"boot\"\nafter = [\"mount.data\"]\n[oneshot]\n\
             exec = [\"/bin/sh\", \"-c\", \"echo last words of {word}; exit 4\"]\ntimeout = \"20s\"\n"
        );
        let units = [
            BOOT,
            ("data.toml", mount.as_str()),
            ("certificate.toml", certificate.as_str()),
            ("keel-agent.toml", agent.as_str()),
            ("says.toml", says.as_str()),
        ];
        let mut machine = Machine::boot(&format!("before-{word}"), &units);
        let report = machine.report();
        let why = format!("exited with status 4: last words of {word}");
        let failed = serde_json::json!([{ "unit": "says", "why": why }]);
        assert_eq!(report["degraded"], failed, "{report}");
        machine
    };
    let mut machine = boot("one");
    machine.signal("TERM");
    machine.end();
    drop(machine);

    let machine = boot("two");
    let learns = |what: &[&str]| learns(&machine, port, what);
    assert_eq!(learns(&["status"])["mode"], "maintenance");
    let boots = learns(&["boot", "list"]);
    assert_eq!(boots.as_array().map(Vec::len), Some(2), "{boots}");
    assert_eq!((&boots[1]["ended"], &boots[1]["state"]), (&"power-off".into(), &"degraded".into()));
    let before = boots[1]["id"].as_str().expect("an id");
    let trace = learns(&["boot", "show", "--boot", before]);
    assert_eq!(trace["format"], "keel-boot-trace", "{trace}");
    let units = trace["units"].as_array().expect("its units");
    assert!(units.iter().any(|unit| unit["name"] == "says"), "{trace}");
    let lines = |boot: &[&str]| {
        // A line each; a single one is a document of its own.
        let lines = match learns(&[&["logs", "says"], boot].concat()) {
            serde_json::Value::Array(lines) => lines,
            line => vec![line],
        };
        let lines = lines.iter();
        lines.map(|line| line["text"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lines(&["--boot", before]), ["last words of one"]);
    assert_eq!(lines(&[]), ["last words of two"]);
}

/// A page of metrics: a name with its labels, and its value.
fn scrape(mut stream: impl Read + Write) -> BTreeMap<String, f64> {
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").expect("a request");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page");
    let (head, body) = page.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let rows = body.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let (name, value) = row.rsplit_once(' ').expect("a value");
        (name.to_owned(), value.parse().expect("a number"))
    })
    .collect()
}

/// Every row of the metrics is what init says of the machine: over a Unix socket and over a port.
#[test]
fn metrics_say_what_init_says() {
    let (port, other, metrics) = (free_port(), free_port(), free_port());
    let agent = |port, at: &str| {
        agent(port).replace("\"--audit-dir\"", &format!("\"--metrics\", \"{at}\", \"--audit-dir\""))
    };
    let by_socket = agent(port, "{dir}/metrics.sock");
    // One of the two keeps the records.
    let by_port = agent(other, &format!("127.0.0.1:{metrics}")).replace("/audit\"", "/audit-2\"");
    let mut machine = Machine::boot(
        "metrics",
        &[
            BOOT,
            ("certificate.toml", &certificate()),
            ("keel-agent.toml", &by_socket),
            ("second.toml", &by_port),
            (
                "web.toml",
                "part-of = \"boot\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n",
            ),
            (
                "crashes.toml",
                "part-of = \"boot\"\n[service]\nexec = [\"/bin/sh\", \"-c\", \"exit 3\"]\nrestart = \"always\"\n\
                 restart-delay = \"1ms\"\nrestart-max-delay = \"2ms\"\nstart-limit = { burst = 3, interval = \"10m\" }\ntimeout = \"20s\"\n",
            ),
            (
                "absent.toml",
                "part-of = \"boot\"\ncondition = { path-exists = [\"/nowhere\"] }\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n",
            ),
        ],
    );
    let report = machine.report();
    until_state(&machine, "crashes", UnitState::Failed);
    let api = |what: &[&str]| osctl(machine.directory.path(), &format!("127.0.0.1:{port}"), what);
    for _ in 0..2 {
        assert!(api(&["inventory"]).output().expect("osctl").status.success());
    }
    assert!(!api(&["units", "show", "nothing"]).output().expect("osctl").status.success());

    let of_socket = UnixStream::connect(machine.shared("metrics.sock")).expect("the socket");
    let of_port = TcpStream::connect(("127.0.0.1", metrics)).expect("the port");
    let pages = [scrape(of_socket), scrape(of_port)];
    let (units, status) =
        ask(&machine, async |init| Ok((init.units().await?, init.status().await?))).expect("both");
    let boot = status.boot.expect("a boot that is over");
    assert_eq!(report["total_ms"], boot.total_ms);
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    let mut expected = BTreeMap::from([
        ("keel_init_up".to_owned(), 1.0),
        ("keel_degraded_units".to_owned(), 1.0),
        ("keel_goal_state{goal=\"boot\",state=\"degraded\"}".to_owned(), 1.0),
        ("keel_boot_duration_seconds".to_owned(), seconds(boot.total_ms)),
    ]);
    for unit in &units.units {
        let name = &unit.name;
        let state = match unit.state {
            UnitState::Running => "running",
            UnitState::Exited => "exited",
            UnitState::Failed => "failed",
            UnitState::Skipped => "skipped",
            other => panic!("{name} is {other:?}"),
        };
        expected.insert(format!("keel_unit_state{{unit=\"{name}\",state=\"{state}\"}}"), 1.0);
        let attempts = f64::from(unit.attempts);
        expected.insert(format!("keel_unit_attempts{{unit=\"{name}\"}}"), attempts);
        if let Some(took) = unit.took_ms {
            let took = seconds(took);
            expected.insert(format!("keel_unit_activation_seconds{{unit=\"{name}\"}}"), took);
        }
    }
    for (name, state) in [("web", "running"), ("crashes", "failed"), ("absent", "skipped")] {
        let row = format!("keel_unit_state{{unit=\"{name}\",state=\"{state}\"}}");
        assert!(expected.contains_key(&row), "{row}: {expected:#?}");
    }
    assert_eq!(expected["keel_unit_attempts{unit=\"crashes\"}"], 3.0);
    for page in &pages {
        for (row, value) in &expected {
            assert_eq!(page.get(row), Some(value), "{row}: {page:#?}");
        }
        let of_units = |row: &&String| row.starts_with("keel_unit_");
        let count = expected.keys().filter(of_units).count();
        assert_eq!(page.keys().filter(of_units).count(), count, "no row more: {page:#?}");
    }
    let calls = |page: &BTreeMap<String, f64>, method: &str, code: &str| {
        let row =
            format!("keel_api_calls_total{{method=\"/keel.v1.Node/{method}\",code=\"{code}\"}}");
        page.get(&row).copied()
    };
    assert_eq!(calls(&pages[0], "GetInventory", "OK"), Some(2.0), "{:#?}", pages[0]);
    assert_eq!(calls(&pages[0], "GetUnit", "NOT_FOUND"), Some(1.0), "{:#?}", pages[0]);
    assert_eq!(calls(&pages[1], "GetInventory", "OK"), None, "each counts its own");
}
