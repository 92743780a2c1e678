//! Units become a graph: edges and why they are there, what is refused, and the order that follows.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keel_plan::export::Export;
use keel_plan::{
    BOOT, BootGraph, Fault, FaultKind, Machine, PlanError, Script, plan, render, resolve, simulate,
};
use keel_unit::{Input, lower};

/// Units as `name: body`, separated by lines of `---`.
fn input(units: &str) -> Input {
    let mut input = Input::default();
    for unit in units.split("---\n") {
        let (path, body) = unit.trim_start().split_once('\n').unwrap();
        input.unit(&format!("units/{}", path.trim()), body.to_owned());
    }
    input
}

fn graph(units: &str) -> BootGraph {
    resolve(lower(input(units)).unwrap_or_else(|r| panic!("{r}"))).unwrap_or_else(|r| panic!("{r}"))
}

/// The findings of resolving, one per line.
fn refused(units: &str) -> String {
    let set = lower(input(units)).unwrap_or_else(|r| panic!("{r}"));
    resolve(set).map(|g| g.len()).unwrap_err().to_string()
}

fn check(units: &str, from: &str, expect: &[&str]) {
    let graph = graph(units);
    let id = graph.find(from).unwrap();
    let edges: Vec<String> = graph
        .dependencies(id)
        .map(|(other, edge)| {
            let at = graph.locate(edge.span);
            format!("{} {} ({}, {at})", edge.kind.as_str(), graph.unit(other).name, edge.why)
        })
        .collect();
    assert_eq!(edges, expect, "edges of {from}");
}

const BOOT_UNIT: &str = "boot.toml\n[target]\n";

#[test]
fn words_become_edges_with_their_line() {
    let units = "a.toml\nrequires = [\"b\"]\nafter = [{ unit = \"b\", await = \"started\" }]\nbefore = \"c\"\npart-of = \"boot\"\n[target]\n---\n\
                 b.toml\n[target]\n---\nc.toml\nbinds-to = [\"b\"]\nconflicts = [\"boot\"]\n[target]\n---\nboot.toml\n[target]\n";
    check(
        units,
        "a",
        &["requires b (requires, units/a.toml:1)", "after b (after, units/a.toml:2)"],
    );
    check(
        units,
        "boot",
        &["wants a (part-of, units/a.toml:4)", "after a (part-of, units/a.toml:4)"],
    );
    check(
        units,
        "c",
        &[
            "after a (before, units/a.toml:3)",
            "binds-to b (binds-to, units/c.toml:1)",
            "conflicts boot (conflicts, units/c.toml:2)",
        ],
    );
}

#[test]
fn what_units_do_implies_edges() {
    let units = "data.toml\n[mount]\nsource = \"PARTLABEL=d\"\ntarget = \"/var/lib\"\nfstype = \"ext4\"\n---\n\
                 var.toml\n[mount]\nsource = \"tmpfs\"\ntarget = \"/var\"\nfstype = \"tmpfs\"\n---\n\
                 partition.toml\n[partition]\nlabel = \"d\"\ntype = \"7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441\"\n---\n\
                 filesystem.toml\n[filesystem]\ndevice = \"PARTLABEL=d\"\n---\n\
                 app.toml\n[condition]\npath-exists = [\"/var/x\"]\n[service]\nexec = [\"/bin/app\", \"--root=/var/lib/app\"]\n---\n\
                 coldplug.toml\n[module]\ncoldplug = true\n---\n\
                 eth0.toml\n[link]\nname = \"eth0\"\n---\nlo.toml\n[link]\nname = \"lo\"\n";
    check(
        units,
        "mount.data",
        &[
            "requires filesystem (implied: filesystem makes the filesystem of PARTLABEL=d, units/data.toml:2)",
            "after filesystem (implied: filesystem makes the filesystem of PARTLABEL=d, units/data.toml:2)",
            "requires mount.var (implied: /var/lib lies on mount.var, units/data.toml:3)",
            "after mount.var (implied: /var/lib lies on mount.var, units/data.toml:3)",
            "requires partition (implied: partition makes PARTLABEL=d, units/data.toml:2)",
            "after partition (implied: partition makes PARTLABEL=d, units/data.toml:2)",
        ],
    );
    check(
        units,
        "app",
        &[
            "requires mount.data (implied: /var/lib/app lies on mount.data, units/app.toml:4)",
            "after mount.data (implied: /var/lib/app lies on mount.data, units/app.toml:4)",
            "after mount.var (implied: /var/x lies on mount.var, units/app.toml:1)",
        ],
    );
    check(
        units,
        "link.eth0",
        &[
            "after module.coldplug (implied: module.coldplug may load the driver of eth0, units/eth0.toml:2)",
        ],
    );
    check(units, "link.lo", &[]);
}

#[test]
fn a_mount_waits_for_the_driver_of_its_device_and_of_its_type() {
    let units = "disk.toml\n[mount]\nsource = \"LABEL=d\"\ntarget = \"/disk\"\nfstype = \"squash-fs\"\n---\n\
                 bind.toml\n[mount]\nsource = \"/disk/a\"\ntarget = \"/b\"\nfstype = \"none\"\n---\n\
                 modules.toml\n[mount]\nsource = \"/dev/sr0\"\ntarget = \"/lib/modules\"\nfstype = \"squash-fs\"\n---\n\
                 dev.toml\n[mount]\nsource = \"devtmpfs\"\ntarget = \"/dev\"\nfstype = \"devtmpfs\"\n---\n\
                 coldplug.toml\n[module]\ncoldplug = true\n---\nsquash.toml\n[module]\nname = \"squash_fs\"\n";
    check(
        units,
        "mount.disk",
        &[
            "after module.coldplug (implied: module.coldplug may load the driver of LABEL=d, units/disk.toml:2)",
            "after module.squash (implied: module.squash is the driver of its type, units/disk.toml:4)",
            "requires mount.dev (implied: /dev lies on mount.dev, units/disk.toml:1)",
            "after mount.dev (implied: /dev lies on mount.dev, units/disk.toml:1)",
        ],
    );
    check(
        units,
        "mount.bind",
        &[
            "requires mount.disk (implied: /disk/a lies on mount.disk, units/bind.toml:2)",
            "after mount.disk (implied: /disk/a lies on mount.disk, units/bind.toml:2)",
        ],
    );
    // What holds the modules cannot wait for one of them.
    check(
        units,
        "mount.modules",
        &[
            "requires mount.dev (implied: /dev/sr0 lies on mount.dev, units/modules.toml:2)",
            "after mount.dev (implied: /dev/sr0 lies on mount.dev, units/modules.toml:2)",
        ],
    );
    check(
        units,
        "module.squash",
        &[
            "requires mount.modules (implied: /lib/modules lies on mount.modules, units/squash.toml:1)",
            "after mount.modules (implied: /lib/modules lies on mount.modules, units/squash.toml:1)",
        ],
    );
}

#[test]
fn every_path_that_a_unit_uses_lies_on_a_mount() {
    let mount = |name: &str, target: &str| {
        format!(
            "{name}.toml\n[mount]\nsource = \"tmpfs\"\ntarget = \"{target}\"\nfstype = \"tmpfs\"\n---\n"
        )
    };
    let mounts = mount("etc", "/etc") + &mount("proc", "/proc") + &mount("var", "/var");
    let check_on = |unit: &str, name: &str, expect: &[&str]| {
        let graph = graph(&format!("{mounts}{unit}"));
        let id = graph.find(name).unwrap();
        let required = graph.dependencies(id).filter(|(_, e)| e.kind.as_str() == "requires");
        let names: Vec<_> = required.map(|(other, _)| graph.unit(other).name.as_str()).collect();
        assert_eq!(names, expect, "{unit}");
    };
    check_on("m.toml\n[module]\nname = \"loop\"\n", "module.m", &["mount.proc"]);
    check_on("t.toml\n[time]\nfloor = \"/var/clock\"\n", "time.t", &["mount.var"]);
    check_on("l.toml\n[link]\ndhcp = true\n", "link.l", &["mount.etc", "mount.proc"]);
    check_on("l.toml\n[link]\nname = \"lo\"\n", "link.l", &["mount.proc"]);
    check_on(
        "o.toml\n[oneshot]\nexec = [\"/bin/a\"]\nenvironment = { HOME = \"/var/a\", PATH = \"/etc:/bin\" }\n",
        "o",
        &["mount.proc", "mount.var"],
    );
}

#[test]
fn a_parameter_is_claimed_however_it_is_written() {
    let unit =
        |name: &str, key: &str| format!("{name}.toml\n[sysctl]\nkey = \"{key}\"\nvalue = 1\n");
    let both = |one: &str, two: &str| format!("{}---\n{}", unit("a", one), unit("b", two));
    insta::assert_snapshot!(refused(&both("net/ipv4/conf/eth0.1/x", "net.ipv4.conf.eth0/1.x")),
        @"units/b.toml:2:7: `sysctl.a` and `sysctl.b` both claim the parameter net.ipv4.conf.eth0/1.x");
    graph(&both("net/ipv4/conf/eth0.1/x", "net.ipv4.conf.eth0.1.x"));
}

#[test]
fn a_module_is_loaded_for_all_that_ask_with_the_same_parameters() {
    let unit = |name: &str, module: &str| format!("{name}.toml\n[module]\nname = {module}\n");
    let both = |one: &str, two: &str| format!("{}---\n{}", unit("a", one), unit("b", two));
    graph(&both("\"ext4\"", "\"ext4\""));
    graph(&both("\"br-netfilter\"", "\"br_netfilter\""));
    graph(&both("\"loop\"\nparameters = \"a=1 b=2\"", "\"loop\"\nparameters = \"a=1  b=2\""));
    let other = both("\"loop\"", "\"loop\"\nparameters = \"a=1\"");
    insta::assert_snapshot!(refused(&other),
        @"units/b.toml:2:8: `module.a` and `module.b` both claim the module loop (it is loaded once, and with which `parameters` would be chance; write the same ones in both)");
    let other =
        both("\"br-netfilter\"\nparameters = \"a=2\"", "\"br_netfilter\"\nparameters = \"a=1\"");
    insta::assert_snapshot!(refused(&other),
        @"units/b.toml:2:8: `module.a` and `module.b` both claim the module br_netfilter (it is loaded once, and with which `parameters` would be chance; write the same ones in both)");
}

#[test]
fn a_contradiction_is_refused_with_both_places() {
    insta::assert_snapshot!(refused("a.toml\nafter = \"strage\"\n[target]\n---\nstorage.toml\n[target]\n"),
        @"units/a.toml:1:9: unknown unit `strage` (did you mean `storage`?)");
    insta::assert_snapshot!(refused("a.toml\nrequires = \"a\"\n[target]\n"), @"units/a.toml:1:12: `a` names itself");
    insta::assert_snapshot!(refused("a.toml\npart-of = \"b\"\n[target]\n---\nb.toml\n[service]\nexec = [\"/b\"]\n"),
        @"units/a.toml:1:11: `b` is no target");
    insta::assert_snapshot!(
        refused("a.toml\n[mount]\nsource=\"x\"\nfstype=\"x\"\ntarget=\"/m\"\n---\nb.toml\n[mount]\nsource=\"x\"\nfstype=\"x\"\ntarget=\"/m\"\n"),
        @"units/b.toml:4:8: `mount.a` and `mount.b` both claim the mount point /m");
    insta::assert_snapshot!(
        refused("a.toml\n[mount]\nexisting=true\ntarget=\"/\"\n---\nb.toml\n[mount]\nexisting=true\ntarget=\"/\"\n"),
        @"units/b.toml:3:8: `mount.a` and `mount.b` both claim the existing mount /");
    insta::assert_snapshot!(
        refused("a.toml\n[link]\nname=\"eth0\"\n---\nb.toml\n[link]\nname=\"eth0\"\n"),
        @"units/b.toml:2:6: `link.a` and `link.b` both claim the link eth0");
}

#[test]
fn a_cycle_is_the_smallest_one_with_the_place_of_each_edge() {
    let units = "a.toml\nafter = [\"b\", \"d\"]\n[target]\n---\nb.toml\nafter = [\"c\"]\n[target]\n---\n\
                 c.toml\nafter = [\"a\"]\n[target]\n---\nd.toml\nafter = [\"a\"]\n[target]\n";
    let set = lower(input(units)).unwrap();
    let report = resolve(set).unwrap_err();
    assert_eq!(report.diagnostics.len(), 1);
    let found = &report.diagnostics[0];
    let places: Vec<_> = std::iter::once(&found.label)
        .chain(&found.others)
        .map(|l| format!("{} {}", report.sources.locate(l.span), l.text))
        .collect();
    assert_eq!(found.message, "ordering cycle of 2: a -> d -> a");
    assert_eq!(
        places,
        ["units/a.toml:1 `a` waits for `d` (after)", "units/d.toml:1 `d` waits for `a` (after)"]
    );
    insta::assert_snapshot!(refused("a.toml\nafter = \"a\"\n[target]\n"), @"units/a.toml:1:9: ordering cycle of 1: a -> a (one of these orderings has to go; none is dropped to break the cycle)");
}

#[test]
fn a_ring_of_ten_thousand_is_found_in_one_walk() {
    let mut input = Input::default();
    for i in 0..10_000 {
        let next = (i + 1) % 10_000;
        input.unit(&format!("u{i}.toml"), format!("after = \"u{next}\"\n[target]\n"));
    }
    let report = resolve(lower(input).unwrap()).unwrap_err();
    assert!(report.diagnostics[0].message.starts_with("ordering cycle of 10000: "));
    assert!(report.diagnostics[0].message.len() < 300);
}

/// Layers of units that each wait for some of the next layer, in a ring: the smallest cycle is as long as there are layers, and
/// every unit is on one. To look through all of them would take minutes.
#[test]
fn the_search_for_the_smallest_cycle_ends() {
    const LAYERS: usize = 100;
    const WIDTH: usize = 100;
    let mut input = Input::default();
    for i in 0..LAYERS * WIDTH {
        let (layer, place) = (i % LAYERS, i / LAYERS);
        let next = (layer + 1) % LAYERS;
        let some = (0..3).map(|k| format!("\"u{}\"", (place * 7 + k * 31) % WIDTH * LAYERS + next));
        let after = some.collect::<Vec<_>>().join(", ");
        input.unit(&format!("u{i}.toml"), format!("after = [{after}]\n[target]\n"));
    }
    let report = resolve(lower(input).unwrap()).unwrap_err();
    assert!(report.diagnostics[0].message.starts_with("ordering cycle of 100: "), "{report}");
}

#[test]
fn what_gates_the_goal_needs_a_deadline() {
    let unit = |timeout: &str| {
        format!(
            "{BOOT_UNIT}---\nrun.toml\npart-of = \"boot\"\n[oneshot]\nexec = [\"/bin/true\"]\n{timeout}"
        )
    };
    assert!(plan(&graph(&unit("timeout = \"5s\"\n")), BOOT).is_ok());
    match plan(&graph(&unit("")), BOOT) {
        Err(PlanError::Invalid(report)) => insta::assert_snapshot!(report,
            @"units/run.toml:2:2: `run` has no deadline, and `boot` waits for it (say how long it may take: `timeout = \"30s\"` in [oneshot])"),
        other => panic!("{other:?}"),
    }
    // Started by the goal, but nothing waits for it.
    let beside =
        "boot.toml\nwants = \"run\"\n[target]\n---\nrun.toml\n[oneshot]\nexec = [\"/bin/true\"]\n";
    assert!(plan(&graph(beside), BOOT).is_ok());
    assert!(
        matches!(plan(&graph(beside), "bot"), Err(PlanError::UnknownGoal { near: Some(n), .. }) if n == "boot")
    );
}

/// What the goal does not wait for needs no deadline, and targets have none to write; the boot has its end all the same.
#[test]
fn every_boot_that_is_planned_ends() {
    let check = |units: &str, hangs: &str, fault: FaultKind, reached: bool| {
        let graph = graph(units);
        let transaction = Arc::new(plan(&graph, BOOT).unwrap());
        let mut machine = Machine::new(transaction.clone());
        machine.behaviour(graph.find(hangs).unwrap()).fault = Some(Fault::always(fault));
        let run = simulate(&transaction, machine, 1, &Script::default());
        let outcome = run.outcome.unwrap_or_else(|| panic!("{hangs} keeps the boot for ever"));
        assert_eq!(outcome.reached, reached, "{hangs}");
        assert!(run.ended_at <= Duration::from_secs(600), "{hangs}: {:?}", run.ended_at);
        assert_eq!(graph.unit(outcome.degraded[0].culprit).name.as_str(), hangs);
    };
    let daemon = "daemon.toml\n[service]\nexec = [\"/d\"]\ntimeout = \"5s\"\n";
    let exited = "boot.toml\nwants = \"daemon\"\nafter = [{ unit = \"daemon\", await = \"exited\" }]\n[target]\n---\n";
    check(&format!("{exited}{daemon}"), "daemon", FaultKind::HangStop, false);
    let asks = "boot.toml\n[condition]\npath-exists = [\"/x\"]\n[target]\n";
    check(asks, "boot", FaultKind::HangCondition, false);
    let beside =
        "boot.toml\nwants = \"run\"\n[target]\n---\nrun.toml\n[oneshot]\nexec = [\"/r\"]\n";
    check(beside, "run", FaultKind::Hang, true);
}

#[test]
fn two_units_that_conflict_are_not_started_together() {
    let units = "boot.toml\nwants = [\"a\", \"b\"]\n[target]\n---\na.toml\nconflicts = \"b\"\n[target]\n---\nb.toml\n[target]\n";
    assert!(matches!(plan(&graph(units), BOOT), Err(PlanError::Invalid(_))));
}

#[test]
fn the_digest_is_of_what_holds_and_not_of_how_it_is_written() {
    let digest = |units: &str| *graph(units).digest();
    let one = digest("a.toml\nafter = \"b\"\nwants = \"b\"\n[target]\n---\nb.toml\n[target]\n");
    let same = digest(
        "b.toml\n[target]\n---\na.toml\n# a remark\nwants = \"b\"\nafter   =   \"b\"\n[target]\n",
    );
    let other = digest("a.toml\nafter = \"b\"\n[target]\n---\nb.toml\n[target]\n");
    assert_eq!(one, same);
    assert_ne!(one, other);
    let secret = |content: &str| {
        let text =
            format!("a.toml\n[file]\npath = \"/a\"\nsecret = true\ncontent = \"{content}\"\n");
        (
            digest(&text),
            render::json(&Export::new(
                &graph(&format!("{text}---\n{BOOT_UNIT}")),
                &plan(&graph(&format!("{text}---\n{BOOT_UNIT}")), BOOT).unwrap(),
            )),
        )
    };
    assert_ne!(secret("one").0, secret("two").0);
    assert!(!secret("hunter2").1.contains("hunter2"));
}

fn shipped(config: &str) -> BootGraph {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut input = Input::default();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let mut files = Vec::new();
    for stage in std::fs::read_dir(root.join("units")).unwrap() {
        let path = stage.unwrap().path();
        match path.is_dir() {
            true => files.extend(std::fs::read_dir(path).unwrap().map(|f| f.unwrap().path())),
            false => files.push(path),
        }
    }
    files.sort();
    for file in files {
        input.unit(file.strip_prefix(&root).unwrap().to_str().unwrap(), read(&file));
    }
    let path = Path::new("machine-configs").join(config);
    input.config(path.to_str().unwrap(), read(&root.join(&path)));
    resolve(lower(input).unwrap_or_else(|r| panic!("{r}"))).unwrap_or_else(|r| panic!("{r}"))
}

#[test]
fn the_shipped_boot_in_words() {
    let graph = shipped("qemu.toml");
    let transaction = plan(&graph, BOOT).unwrap_or_else(|e| panic!("{e}"));
    // The digest is what it is; a reviewer reads the change below it.
    let text = render::text(&Export::new(&graph, &transaction))
        .replace(&graph.digest().to_string(), "sha256:…");
    insta::assert_snapshot!("shipped-qemu", text);
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let once = || {
        let graph = shipped("qemu.toml");
        let transaction = plan(&graph, BOOT).unwrap();
        (
            render::text(&Export::new(&graph, &transaction)),
            render::dot(&Export::new(&graph, &transaction)),
            render::mermaid(&Export::new(&graph, &transaction)),
            render::svg(&Export::new(&graph, &transaction)),
            render::json(&Export::new(&graph, &transaction)),
        )
    };
    assert_eq!(once(), once());
}
