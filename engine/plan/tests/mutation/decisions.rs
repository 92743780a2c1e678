//! The decisions, as a table: a unit of each kind, a change of each of its keys, and what others have to bear.

use keel_plan::mutation::{Decision, Mutation, Outline, mutation};
use keel_plan::{State, Up};
use keel_unit::KindName;

use crate::side;

/// Everything is up.
fn all_up(old: &str, new: &str) -> Mutation {
    let (old, new) = (side(old), side(new));
    let up = |id| match old.graph.unit(id).kind.name() {
        KindName::Service => State::Active(Up::Running),
        _ => State::Active(Up::Exited),
    };
    let states: Vec<State> = old.graph.ids().map(up).collect();
    mutation(&old.graph, &old.transaction, &new.graph, &new.transaction, &states)
}

/// What is not kept, one line each.
fn lines(mutation: &Mutation) -> Vec<String> {
    let line = |change: &keel_plan::mutation::Change| {
        let interrupts = if change.interrupts { " (interrupts)" } else { "" };
        format!("{} {}: {}{interrupts}", change.decision, change.unit, change.because.join(", "))
    };
    mutation.moves().map(line).collect()
}

const WORLD: &str = "\
tmp\npart-of = \"boot\"\n[mount]\nsource = \"tmpfs\"\nfstype = \"tmpfs\"\ntarget = \"/tmp\"\ntimeout = \"1s\"\n---\n\
disk\npart-of = \"boot\"\n[mount]\nsource = \"/dev/vdb\"\nfstype = \"ext4\"\ntarget = \"/disk\"\ntimeout = \"1s\"\n---\n\
own\npart-of = \"boot\"\n[mount]\nsource = \"/dev/vdc\"\nfstype = \"ext4\"\ntarget = \"/own\"\ntimeout = \"1s\"\n---\n\
id\npart-of = \"boot\"\n[identity]\ndirectory = \"/own/identity\"\ntimeout = \"1s\"\n---\n\
mod\npart-of = \"boot\"\n[module]\nname = \"overlay\"\ntimeout = \"1s\"\n---\n\
sys\npart-of = \"boot\"\n[sysctl]\nkey = \"vm.swappiness\"\nvalue = \"1\"\ntimeout = \"1s\"\n---\n\
eth\npart-of = \"boot\"\n[link]\nname = \"eth0\"\naddresses = [\"10.0.0.2/24\"]\ntimeout = \"1s\"\n---\n\
host\npart-of = \"boot\"\n[hostname]\nname = \"a\"\ntimeout = \"1s\"\n---\n\
clock\npart-of = \"boot\"\n[time]\nservers = [\"192.0.2.1\"]\ntimeout = \"1s\"\n---\n\
dev\npart-of = \"boot\"\n[device]\npath = \"/dev/vdd\"\ntimeout = \"1s\"\n---\n\
conf\npart-of = \"boot\"\n[file]\npath = \"/etc/web\"\ncontent = \"one\"\ntimeout = \"1s\"\n---\n\
make\npart-of = \"boot\"\n[oneshot]\nexec = [\"/bin/make\"]\ntimeout = \"1s\"\n---\n\
web\npart-of = \"boot\"\nwants = \"file.conf\"\nafter = \"file.conf\"\n[service]\nexec = [\"/bin/web\"]\ntimeout = \"1s\"\n---\n\
log\npart-of = \"boot\"\nrequires = [\"file.conf\", \"make\"]\nafter = [\"file.conf\", \"make\"]\n[service]\nexec = [\"/bin/log\"]\nreload-signal = \"SIGHUP\"\ntimeout = \"1s\"\n---\n\
db\npart-of = \"boot\"\n[service]\nexec = [\"/bin/db\", \"/disk/db\"]\nworking-directory = \"/disk/db\"\ntimeout = \"1s\"\n---\n\
app\npart-of = \"boot\"\nrequires = \"db\"\nafter = \"db\"\n[service]\nexec = [\"/bin/app\"]\ntimeout = \"1s\"\n---\n\
side\npart-of = \"boot\"\nbinds-to = \"link.eth\"\nafter = \"link.eth\"\n[service]\nexec = [\"/bin/side\"]\ntimeout = \"1s\"\n";

#[test]
fn each_kind_and_key() {
    let check = |from: &str, to: &str, expect: &[&str]| {
        assert_eq!(WORLD.matches(from).count(), 1, "{from} does not stand there once");
        let mutation = all_up(WORLD, &WORLD.replacen(from, to, 1));
        assert_eq!(lines(&mutation), expect, "{from} -> {to}");
        assert_ne!(mutation.base, mutation.target);
    };
    let keep = |from: &str, to: &str| check(from, to, &[]);

    // Words of every unit: people read them, or the scheduler goes by them.
    keep("web\n", "web\ndescription = \"The web\"\n");
    keep("db\n", "db\nduration = \"3s\"\n");
    keep("app\n", "app\nfailure = { on = \"emergency\" }\n");
    keep("app\n", "app\nwants = \"web\"\n");
    keep("make\n", "make\nbefore = \"db\"\n");
    keep("exec = [\"/bin/app\"]\ntimeout = \"1s\"", "exec = [\"/bin/app\"]\ntimeout = \"9s\"");
    check(
        "make\n",
        "make\ncondition = { when = false }\n",
        &[
            "re-run make: condition.when changes",
            "reload log: reads what make makes, which is re-run",
        ],
    );
    check(
        "id\n",
        "id\ncondition = { when = false }\n",
        &["needs reboot identity.id: condition.when changes"],
    );

    // Services: what they are told when they start restarts them, and what requires them.
    check(
        "[\"/bin/web\"]",
        "[\"/bin/web\", \"-v\"]",
        &["restart web: service.exec changes (interrupts)"],
    );
    for key in [
        "environment = { A = \"b\" }",
        "stop-signal = \"SIGINT\"",
        "delegate = true",
        "resources = { pids-max = 7 }",
        "oom-score-adjust = 5",
    ] {
        let name = key.split(' ').next().unwrap();
        let name = match name {
            "environment" => "environment.A",
            "resources" => "resources.pids-max",
            name => name,
        };
        check(
            "[\"/bin/web\"]",
            &format!("[\"/bin/web\"]\n{key}"),
            &[&format!("restart web: service.{name} changes (interrupts)")],
        );
    }
    for key in [
        "restart = \"always\"",
        "restart-delay = \"2s\"",
        "start-limit = { burst = 2, interval = \"1s\" }",
        "stop-timeout = \"3s\"",
        "ready = \"notify\"",
        "log = \"1MiB\"",
        "reload-signal = \"SIGUSR1\"",
    ] {
        keep("[\"/bin/web\"]", &format!("[\"/bin/web\"]\n{key}"));
    }
    check(
        "[\"/bin/db\", ",
        "[\"/bin/db2\", ",
        &[
            "restart db: service.exec changes (interrupts)",
            "restart app: requires db, which restarts (interrupts)",
        ],
    );

    // What is done in place, and who reads it.
    check(
        "\"one\"",
        "\"two\"",
        &[
            "re-run file.conf: file.content changes",
            "reload log: reads what file.conf makes, which is re-run",
            "restart web: reads what file.conf makes, which is re-run (interrupts)",
        ],
    );
    check(
        "[\"/bin/make\"]",
        "[\"/bin/make\", \"-j\"]",
        &[
            "re-run make: oneshot.exec changes",
            "reload log: reads what make makes, which is re-run",
        ],
    );
    check(
        "\"vm.swappiness\"\nvalue = \"1\"",
        "\"vm.swappiness\"\nvalue = \"2\"",
        &["re-run sysctl.sys: sysctl.value changes"],
    );
    check("name = \"a\"", "name = \"b\"", &["re-run hostname.host: hostname.name changes"]);
    check("192.0.2.1", "192.0.2.2", &["re-run time.clock: time.servers changes"]);
    check("/dev/vdd", "/dev/vde", &["re-run device.dev: device.path changes"]);
    check("\"overlay\"", "\"br_netfilter\"", &["re-run module.mod: module.name changes"]);
    check(
        "10.0.0.2",
        "10.0.0.3",
        &[
            "re-run link.eth: link.addresses changes (interrupts)",
            "restart side: is bound to link.eth, which is re-run (interrupts)",
        ],
    );

    // What goes down with all that stands on it.
    check(
        "/dev/vdb",
        "/dev/vdx",
        &[
            "restart mount.disk: mount.source changes (interrupts)",
            "restart db: requires mount.disk, which restarts (interrupts)",
            "restart app: requires db, which restarts (interrupts)",
        ],
    );
    keep("\"/dev/vdb\"", "\"/dev/vdb\"\nmode = \"0700\"");

    // What a machine that runs cannot do.
    check(
        "target = \"/tmp\"",
        "target = \"/tmp\"\noptions = [\"size=1m\"]",
        &["needs reboot mount.tmp: mount.options changes"],
    );
    check(
        "name = \"overlay\"",
        "name = \"overlay\"\nparameters = \"a=1\"",
        &["needs reboot module.mod: module.parameters changes"],
    );
    check("/own/identity", "/own/id", &["needs reboot identity.id: identity.directory changes"]);
    check(
        "/dev/vdc",
        "/dev/vdx",
        &[
            "restart mount.own: mount.source changes (interrupts)",
            "needs reboot identity.id: requires mount.own, which restarts",
        ],
    );
}

/// Takes one unit out of a world.
fn without(world: &str, name: &str) -> String {
    let units = world.split("---\n").filter(|unit| unit.lines().next() != Some(name));
    units.collect::<Vec<_>>().join("---\n")
}

#[test]
fn units_that_come_and_go() {
    let check =
        |old: &str, new: &str, expect: &[&str]| assert_eq!(lines(&all_up(old, new)), expect);
    let bare = without(WORLD, "web");
    check(WORLD, WORLD, &[]);
    check(WORLD, &bare, &["stop web: is no longer there (interrupts)"]);
    check(&bare, WORLD, &["start web: is new"]);
    // Nothing is taken away by what leaves nothing behind that is taken away.
    check(WORLD, &without(WORLD, "sys"), &["stop sysctl.sys: is no longer there"]);
    check(
        WORLD,
        &without(WORLD, "tmp"),
        &["needs reboot mount.tmp: is no longer there, and stays mounted"],
    );
    // Last to first: what stands on a mount goes before it.
    let less = without(&without(&without(WORLD, "disk"), "db"), "app");
    check(
        WORLD,
        &less,
        &[
            "stop app: is no longer there (interrupts)",
            "stop db: is no longer there (interrupts)",
            "stop mount.disk: is no longer there (interrupts)",
        ],
    );
    // A mount that is new hides what its users had open.
    check(
        &without(WORLD, "disk"),
        WORLD,
        &[
            "start mount.disk: is new",
            "restart db: uses what mount.disk holds, which is mounted anew (interrupts)",
            "restart app: requires db, which restarts (interrupts)",
        ],
    );
    // No longer wanted by anybody.
    let idle = WORLD.replace("app\npart-of = \"boot\"\n", "app\n");
    check(WORLD, &idle, &["stop app: part-of changes, nothing starts it any more (interrupts)"]);
    check(
        &idle,
        &idle.replace("[\"/bin/app\"]", "[\"/bin/app2\"]"),
        &["restart app: service.exec changes (interrupts)"],
    );
}

#[test]
fn what_is_down_is_not_brought_up_in_passing() {
    let (old, new) = (side(WORLD), side(&WORLD.replace("\"one\"", "\"two\"")));
    let decide = |state: State, of: &str| {
        let states = old.graph.ids().map(|id| match old.graph.unit(id).name.as_str() == of {
            true => state,
            false => State::Active(Up::Exited),
        });
        let states: Vec<State> = states.collect();
        let it = mutation(&old.graph, &old.transaction, &new.graph, &new.transaction, &states);
        let change = it.changes.iter().find(|change| change.unit.as_str() == of).unwrap().clone();
        (change.decision, change.another_try)
    };
    use keel_plan::Blame;
    // Stopped by hand.
    assert_eq!(decide(State::Inactive, "app"), (Decision::Keep, false));
    assert_eq!(decide(State::Failed(Blame::Own), "app"), (Decision::Keep, false));
    // What they wait for is another now.
    assert_eq!(decide(State::Failed(Blame::Own), "log"), (Decision::Start, true));
    assert_eq!(decide(State::Failed(Blame::Dependency), "web"), (Decision::Start, true));
    assert_eq!(decide(State::Skipped, "web"), (Decision::Start, true));
    // Changed itself.
    assert_eq!(decide(State::Failed(Blame::Own), "file.conf"), (Decision::Start, false));
    assert_eq!(decide(State::Waiting, "file.conf"), (Decision::Start, false));
    assert_eq!(decide(State::Activating, "file.conf"), (Decision::Rerun, false));
}

#[test]
fn a_secret_is_a_change_and_never_a_value() {
    let secret = |text: &str| {
        format!(
            "token\npart-of = \"boot\"\n[file]\npath = \"/t\"\nsecret = true\ncontent = \"{text}\"\ntimeout = \"1s\"\n"
        )
    };
    let mutation = all_up(&secret("hunter2"), &secret("hunter3"));
    assert_eq!(lines(&mutation), ["re-run file.token: file.content changes"]);
    let (from, to) = (side(&secret("hunter2")), side(&secret("hunter3")));
    let outline = Outline::new(&mutation, &from, &to);
    let told = format!("{outline}{}{mutation:?}", serde_json::to_string(&outline).unwrap());
    assert!(!told.contains("hunter") && !told.contains("<secret"), "{told}");
}

#[test]
fn the_plan_in_words() {
    let new = WORLD
        .replace("\"one\"", "\"two\"")
        .replace("[\"/bin/db\", ", "[\"/bin/db2\", ")
        .replace("side\npart", "side\ndescription = \"Aside\"\npart");
    let new = format!(
        "{}---\nlate\npart-of = \"boot\"\nafter = \"app\"\nduration = \"2s\"\n[service]\nexec = [\"/bin/late\"]\ntimeout = \"9s\"\n",
        without(&new, "sys")
    );
    let page = |old: &str, new: &str| {
        let mutation = all_up(old, new);
        let outline = Outline::new(&mutation, &side(old), &side(new));
        outline
            .to_string()
            .replace(&outline.base, "sha256:old")
            .replace(&outline.target, "sha256:new")
    };
    insta::assert_snapshot!("plan", page(WORLD, &new));
    let reboot = new.replace("/own/identity", "/own/id");
    insta::assert_snapshot!("plan-reboot", page(WORLD, &reboot));
    insta::assert_snapshot!("plan-nothing", page(WORLD, WORLD));
    let mutation = all_up(WORLD, &new);
    let outline = Outline::new(&mutation, &side(WORLD), &side(&new));
    let json = serde_json::to_string_pretty(&outline).unwrap();
    assert_eq!(serde_json::from_str::<Outline>(&json).unwrap(), outline);
    let json = json.replace(&outline.base, "sha256:old").replace(&outline.target, "sha256:new");
    insta::assert_snapshot!("plan-json", json);
}
