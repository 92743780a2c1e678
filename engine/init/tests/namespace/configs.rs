//! A machine's configs through time: applied, tried, confirmed, undone, and gone back to, over boots of the real init.

use keel_control::{
    Answer, Applied, Apply, ApplyMode, Decision, Fate, GenerationResult, Layer, Rollback,
};

use super::*;

/// A data partition that stays, and the machine's boots.
struct Node {
    keep: tempfile::TempDir,
    boots: u32,
    name: &'static str,
}

const PATCHED: &str = "schema = 1\n[machine]\nhostname = \"two\"\n[secrets]\ntoken = \"xyzzy\"\n";

impl Node {
    fn new(name: &'static str) -> Self {
        Self { keep: tempfile::tempdir().expect("a temporary directory"), boots: 0, name }
    }

    /// Boots, to the end of the boot. The image's config calls the machine `one`.
    fn boot(&mut self) -> Machine {
        self.boot_units(&[])
    }

    fn boot_units(&mut self, more: &[(&str, &str)]) -> Machine {
        self.boots += 1;
        let mount = data(self.keep.path());
        let greeting = "part-of = \"boot\"\n[file]\npath = \"{dir}/greeting\"\ncontent = \"{{ machine.hostname if machine.hostname else 'nobody' }}\"\ntimeout = \"20s\"\n";
        let strict = "part-of = \"boot\"\nafter = [\"file.greeting\"]\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"grep -q . {dir}/greeting && ! grep -q broken {dir}/greeting\"]\ntimeout = \"20s\"\n";
        // What a machine that runs cannot do: a filesystem of the kernel's stays mounted. So every change of the name takes a reboot.
        let lasting = "part-of = \"boot\"\ncondition = { path-missing = [\"/nowhere/{{ machine.hostname }}\"] }\n[mount]\nsource = \"tmpfs\"\nfstype = \"tmpfs\"\ntarget = \"{dir}/lasting\"\ntimeout = \"20s\"\n";
        let mut units = vec![
            BOOT,
            ("lasting.toml", lasting),
            ("data.toml", mount.as_str()),
            ("greeting.toml", greeting),
            ("strict.toml", strict),
        ];
        units.extend(more);
        let config = "schema = 1\n[machine]\nhostname = \"one\"\n";
        let name = format!("{}-{}", self.name, self.boots);
        let mut machine = Machine::boot_with(&name, config, &units);
        machine.report();
        machine
    }
}

/// The unit of a data partition that is kept at this path.
pub(super) fn data(keep: &Path) -> String {
    format!(
        "part-of = \"boot\"\n[mount]\nsource = \"{}\"\ntarget = \"/var/lib/keel\"\nfstype = \"none\"\noptions = [\"bind\"]\ntimeout = \"20s\"\n",
        keep.display()
    )
}

pub(super) fn wanted(text: &str, mode: ApplyMode) -> Apply {
    Apply {
        layers: vec![Layer { name: "node.toml".to_owned(), text: text.to_owned() }],
        secrets: None,
        base: None,
        dry_run: false,
        mode,
        timeout_ms: 60_000,
        author: "ada".to_owned(),
        reason: "a test".to_owned(),
        wait: false,
        over: None,
        keep_secrets: false,
    }
}

pub(super) fn apply(machine: &Machine, wanted: Apply) -> Result<Applied, String> {
    match ask(machine, async |init| init.apply(wanted).await)? {
        Answer::Planned(applied) => Ok(applied),
        Answer::Invalid(findings) => Err(findings.drawn),
    }
}

/// What became of each config, and the one that runs.
pub(super) fn history(machine: &Machine) -> (Vec<GenerationResult>, Option<u64>) {
    let history = ask(machine, async |init| init.history().await).expect("a history");
    assert_eq!(history.damage, Vec::<String>::new());
    (history.generations.iter().map(|it| it.result).collect(), history.current)
}

use GenerationResult::{Good, RolledBack, Staged, UnderWay};

#[test]
fn a_config_is_applied_holds_and_is_gone_back_from() {
    let mut node = Node::new("applied");
    let mut machine = node.boot();
    assert_eq!(machine.read("greeting"), "one");
    assert_eq!(history(&machine), (vec![], None));

    // What would happen, and nothing does.
    let plan =
        apply(&machine, Apply { dry_run: true, ..wanted(PATCHED, ApplyMode::Auto) }).unwrap();
    assert_eq!((plan.fate, plan.generation, plan.plan.needs_reboot), (Fate::DryRun, None, true));
    let changes: Vec<_> =
        plan.plan.changes.iter().map(|it| (it.unit.as_str(), it.decision)).collect();
    let expect = [("file.greeting", Decision::Rerun), ("mount.lasting", Decision::NeedsReboot)];
    assert_eq!(changes, expect, "{plan:?}");
    assert_eq!(plan.plan.changes[0].because, ["file.content changes"]);
    assert_eq!(history(&machine), (vec![], None));

    // A bad one is refused whole, with everything that is wrong with it, and no secret.
    let bad = "schema = 1\n[machine]\nhostnam = \"two\"\n[network]\nntp = 7\n[secrets]\ntoken = \"xyzzy\"\n";
    let findings = apply(&machine, wanted(bad, ApplyMode::Auto)).unwrap_err();
    assert!(findings.contains("node.toml:3") && findings.contains("node.toml:5"), "{findings}");
    assert!(!findings.contains("xyzzy"), "{findings}");
    let other = Apply { base: Some("sha256:00".to_owned()), ..wanted(PATCHED, ApplyMode::Auto) };
    let refusal = apply(&machine, other).unwrap_err();
    assert!(refusal.contains("sha256:00") && refusal.contains(&plan.plan.base), "{refusal}");
    let refusal = apply(&machine, wanted(PATCHED, ApplyMode::NoReboot)).unwrap_err();
    assert_eq!(refusal, "mount.lasting changes only by a reboot");
    assert_eq!(history(&machine), (vec![], None));

    let applied = apply(&machine, wanted(PATCHED, ApplyMode::Auto)).unwrap();
    assert_eq!((applied.fate, applied.generation), (Fate::Begun, Some(1)));
    assert_eq!(machine.end(), Some(SIGHUP), "it reboots");

    let mut machine = node.boot();
    machine.position(&["config 1 takes over from the image's"]);
    assert_eq!(machine.read("greeting"), "two");
    machine.line(&["config 1 holds"]);
    assert_eq!(history(&machine), (vec![Good], Some(1)));

    // The same once more is nothing, and the secret stays where it is.
    let same = apply(&machine, wanted(PATCHED, ApplyMode::Auto)).unwrap();
    assert_eq!((same.fate, same.generation, same.plan.changes.len()), (Fate::Nothing, Some(1), 0));
    let shown = ask(&machine, async |init| init.config(None).await).unwrap();
    assert_eq!(shown.text, PATCHED.replace("xyzzy", "<secret>"));
    let edited = Apply { keep_secrets: true, ..wanted(&shown.text, ApplyMode::Auto) };
    assert_eq!(apply(&machine, edited).unwrap().fate, Fate::Nothing);

    // A comment changes the text and not the machine: it holds at once.
    let remark = format!("# a remark\n{PATCHED}");
    let applied = apply(&machine, wanted(&remark, ApplyMode::Auto)).unwrap();
    assert_eq!((applied.fate, applied.generation), (Fate::Begun, Some(2)));
    assert_eq!(history(&machine), (vec![Good, Good], Some(2)));
    let back = |generation| Rollback {
        generation,
        dry_run: false,
        mode: ApplyMode::Auto,
        timeout_ms: 0,
        author: "ada".to_owned(),
        reason: String::new(),
        wait: false,
        over: None,
    };
    let missing = ask(&machine, async |init| init.rollback(back(Some(9))).await).unwrap_err();
    assert_eq!(missing, "no config 9 is remembered; the oldest is 1");
    ask(&machine, async |init| init.rollback(back(None)).await).unwrap();
    assert_eq!(history(&machine), (vec![Good, Good, Good], Some(3)));
    let shown = ask(&machine, async |init| init.config(Some(3)).await).unwrap();
    assert_eq!(shown.text, PATCHED.replace("xyzzy", "<secret>"));
    machine.signal("TERM");
    machine.end();
}

#[test]
fn a_config_that_is_not_well_gets_one_boot() {
    let mut node = Node::new("one-boot");
    let mut machine = node.boot();
    let broken = "schema = 1\n[machine]\nhostname = \"broken\"\n";
    apply(&machine, wanted(broken, ApplyMode::Auto)).unwrap();
    machine.end();

    // `strict` was up before, and is not: the machine goes back by itself.
    let mut machine = node.boot();
    assert_eq!(machine.end(), Some(SIGHUP));
    machine.position(&["config 1 was undone: strict: strict is not up, and was before"]);

    let machine = node.boot();
    assert_eq!(machine.read("greeting"), "one");
    assert_eq!(history(&machine), (vec![RolledBack], None));
}

#[test]
fn a_config_on_trial_holds_once_it_is_confirmed_and_not_before() {
    let mut node = Node::new("trial");
    let mut machine = node.boot();
    let refusal = ask(&machine, async |init| init.confirm().await).unwrap_err();
    assert_eq!(refusal, "no config waits to be confirmed");
    assert_eq!(apply(&machine, wanted(PATCHED, ApplyMode::Try)).unwrap().fate, Fate::OnTrial);
    machine.end();

    // The power goes before anybody has said a word.
    let mut machine = node.boot();
    machine.line(&["config 1 is reached, and is undone unless it is confirmed within 60 s"]);
    assert_eq!(machine.read("greeting"), "two");
    assert_eq!(history(&machine), (vec![UnderWay], Some(1)));
    let busy = apply(&machine, wanted("schema = 1\n", ApplyMode::Auto)).unwrap_err();
    assert_eq!(busy, "config 1 of ada is under way");
    drop(machine);

    let mut machine = node.boot();
    machine.position(&[
        "config 1 does not hold: the machine went down before it was known to be good",
    ]);
    assert_eq!(machine.read("greeting"), "one");
    assert_eq!(history(&machine), (vec![RolledBack], None));

    // Nobody says a word in time.
    let short = Apply { timeout_ms: 50, ..wanted(PATCHED, ApplyMode::Try) };
    apply(&machine, short).unwrap();
    machine.end();
    let mut machine = node.boot();
    assert_eq!(machine.end(), Some(SIGHUP));
    machine.position(&["config 2 was undone: nobody confirmed it within 0 s"]);

    // Somebody does.
    let mut machine = node.boot();
    assert_eq!(machine.read("greeting"), "one");
    apply(&machine, wanted(PATCHED, ApplyMode::Try)).unwrap();
    machine.end();
    let mut machine = node.boot();
    machine.line(&["config 3 is reached"]);
    assert_eq!(ask(&machine, async |init| init.confirm().await), Ok(3));
    assert_eq!(history(&machine), (vec![RolledBack, RolledBack, Good], Some(3)));
    machine.signal("INT");
    machine.end();
    let machine = node.boot();
    assert_eq!((machine.read("greeting").as_str(), history(&machine).1), ("two", Some(3)));
}

#[test]
fn a_staged_config_waits_for_the_next_boot_and_the_last_one_counts() {
    let mut node = Node::new("staged");
    let mut machine = node.boot();
    let third = "schema = 1\n[machine]\nhostname = \"three\"\n";
    assert_eq!(apply(&machine, wanted(PATCHED, ApplyMode::Staged)).unwrap().fate, Fate::Staged);
    assert_eq!(apply(&machine, wanted(third, ApplyMode::Staged)).unwrap().generation, Some(2));
    let history_now = ask(&machine, async |init| init.history().await).unwrap();
    assert_eq!((history_now.current, history_now.next), (None, Some(2)));
    assert_eq!(history(&machine).0, [RolledBack, Staged]);
    assert_eq!(machine.read("greeting"), "one");
    machine.signal("INT");
    machine.end();
    let mut machine = node.boot();
    machine.line(&["config 2 holds"]);
    assert_eq!(machine.read("greeting"), "three");
}

#[test]
fn a_config_that_the_image_no_longer_understands_is_left_out() {
    let mut node = Node::new("left-out");
    for text in [
        PATCHED,
        "schema = 1\n[machine]\nhostname = \"three\"\n[units.more]\ndescription = \"x\"\n",
    ] {
        let more: &[(&str, &str)] = &[("more.toml", "description = \"m\"\n[target]\n")];
        let mut machine = node.boot_units(more);
        apply(&machine, wanted(text, ApplyMode::Auto)).unwrap();
        machine.end();
        let mut machine = node.boot_units(more);
        machine.line(&["holds"]);
        machine.signal("TERM");
        machine.end();
    }
    // Another image, without the unit that the second config overrides.
    let machine = node.boot();
    machine.position(&["config 2 makes no graph any more, and is left out"]);
    assert_eq!(machine.read("greeting"), "two");
    assert_eq!(history(&machine), (vec![Good, RolledBack], Some(1)));
}

/// osctl, the agent and init: from a file on somebody's laptop to a node that runs it, and back.
#[test]
fn osctl_changes_the_config_of_a_node() {
    let mut node = Node::new("osctl");
    let port = free_port();
    let keep = node.keep.path().to_str().expect("a path in UTF-8").to_owned();
    let (agent, certificate) =
        (agent(port).replace("{dir}/identity", &format!("{keep}/identity")), certificate());
    let certificate = certificate.replace("{dir}/identity", &format!("{keep}/identity"));
    let units = [("certificate.toml", certificate.as_str()), ("keel-agent.toml", agent.as_str())];
    let home = tempfile::tempdir().expect("a temporary directory");
    let endpoint = format!("127.0.0.1:{port}");
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let base = file("site.toml", "schema = 1\n[machine]\nhostname = \"base\"\n");
    let patch = file("rack.toml", "[machine]\nhostname = \"two\"\n");
    let run = |what: &[&str]| {
        let output = osctl(home.path(), &endpoint, what).stderr(Stdio::piped()).output();
        let output = output.expect("osctl");
        let json = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
        (output.status.code(), json, String::from_utf8_lossy(&output.stderr).into_owned())
    };

    let mut machine = node.boot_units(&units);
    let wanted = ["apply-config", "--file", &base, "--patch", &patch];
    let dry_run = [&wanted[..], &["--dry-run"]].concat();
    let (code, plan, said) = run(&dry_run);
    assert_eq!((code, &plan["fate"]), (Some(1), &"dry-run".into()), "{plan} {said}");
    assert_eq!(plan["changes"][0]["unit"], "file.greeting", "{plan}");
    assert_eq!(machine.read("greeting"), "one");

    // All that is wrong, each where it stands: in the patch that it stands in.
    let slip = file("slip.toml", "[machine]\nhostnam = \"two\"\n[network]\nntp = 7\n");
    let (code, refused, said) =
        run(&["apply-config", "--file", &base, "--patch", &slip, "--dry-run"]);
    assert_eq!(code, Some(2), "{refused} {said}");
    let at =
        |n: usize| (refused["findings"][n]["file"].clone(), refused["findings"][n]["line"].clone());
    assert_eq!([at(0), at(1)], [2, 4].map(|line| (slip.as_str().into(), line.into())), "{refused}");
    assert!(said.contains("nothing was changed: 2 findings"), "{said}");

    // The change itself, which osctl follows through a reboot if the node needs one.
    let reason = ["--reason", "a new rack"];
    let change = osctl(home.path(), &endpoint, &[&wanted[..], &reason].concat())
        .stdout(Stdio::piped())
        .spawn()
        .expect("osctl");
    if plan["needs_reboot"] == true {
        machine.end();
        machine = node.boot_units(&units);
    }
    let change = change.wait_with_output().expect("osctl");
    assert!(change.status.success(), "{}", String::from_utf8_lossy(&change.stdout));
    let change: serde_json::Value = serde_json::from_slice(&change.stdout).expect("JSON");
    assert_eq!((&change["generation"], &change["end"]["good"]), (&1.into(), &true.into()));
    assert_eq!(machine.read("greeting"), "two");

    let (code, again, _) = run(&wanted);
    assert_eq!((code, &again["fate"]), (Some(0), &"nothing".into()), "{again}");
    assert_eq!(run(&dry_run).0, Some(0), "nothing is left to do");
    let (_, history, _) = run(&["history"]);
    let first = &history["generations"][0];
    assert_eq!((&history["current"], &first["result"]), (&1.into(), &"good".into()), "{history}");
    assert_eq!(first["reason"], "a new rack");
    assert_eq!(first["author"], "somebody at 127.0.0.1");
    let (_, config, _) = run(&["config", "get"]);
    assert!(config["text"].as_str().is_some_and(|text| text.contains("hostname = \"two\"")));
    let (code, _, said) = run(&["confirm"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, back, said) = run(&["rollback", "--dry-run"]);
    assert_eq!((code, &back["changes"][0]["unit"]), (Some(1), &"file.greeting".into()), "{said}");
    machine.signal("TERM");
    machine.end();
}

#[test]
fn whoever_hangs_up_leaves_nothing_half_done() {
    let mut node = Node::new("hangs-up");
    let mut machine = node.boot();
    let socket = machine.control_socket();
    let staged = |name: u64| {
        let text = format!("schema = 1\n[machine]\nhostname = \"n{name}\"\n");
        wanted(&text, ApplyMode::Staged)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for after in 0..50 {
            let mut control = Control::connect(&socket).await.expect("init's socket");
            let asked = control.apply(staged(after));
            // Sooner and later: before it is read, while it is planned, while it is kept, or when all is done.
            let _ = tokio::time::timeout(Duration::from_micros(after * 500), asked).await;
        }
    });
    let applied = apply(&machine, staged(50)).expect("there is still a place to keep it");
    assert_eq!(applied.fate, Fate::Staged);
    let (results, current) = history(&machine);
    assert_eq!((results.last(), current), (Some(&Staged), None));
    machine.signal("TERM");
    machine.end();
}
