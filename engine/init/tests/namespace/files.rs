//! Files of units that are no longer there: they go, with the change or with the boot, and come back if that is undone.

use keel_control::{ApplyMode, Rollback};

use super::configs::{apply, data, wanted};
use super::*;

/// With a name there is a file; a machine that is called `broken` does not come up.
const EXTRA: &str = "part-of = \"boot\"\nif-set = \"machine.hostname\"\n[file]\npath = \"/var/lib/keel/sub/extra\"\ncontent = \"{{ machine.hostname }}\"\nsecret = true\ntimeout = \"20s\"\n";
const STRICT: &str = "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"test '{{ network.ntp | length }}' = 0\"]\ntimeout = \"20s\"\n";

const NAMED: &str = "schema = 1\n[machine]\nhostname = \"one\"\n";
const NAMELESS: &str = "schema = 1\n";
const BROKEN: &str = "schema = 1\n[network]\nntp = [\"192.0.2.1\"]\n";

#[test]
fn the_file_of_a_unit_goes_with_it() {
    let keep = tempfile::tempdir().expect("a temporary directory");
    let path = keep.path().join("sub/extra");
    let read = || fs::read_to_string(&path).ok();
    let mount = data(keep.path());
    let units =
        [BOOT, ("data.toml", mount.as_str()), ("extra.toml", EXTRA), ("strict.toml", STRICT)];
    let boot = |name: &str| {
        let mut machine = Machine::boot_with(name, NAMELESS, &units);
        machine.report();
        machine
    };
    let mut machine = boot("files-1");
    let mut number = 0;
    let mut holds = |machine: &mut Machine, text: &str| {
        apply(machine, wanted(text, ApplyMode::NoReboot)).unwrap();
        number += 1;
        machine.line(&[&format!("config {number} holds")]);
    };
    holds(&mut machine, NAMED);
    assert_eq!(read().as_deref(), Some("one"));
    holds(&mut machine, NAMELESS);
    assert_eq!(read(), None);

    // Going back restores it: by the user's wish, because nobody confirmed, and because another unit failed.
    let back = Rollback {
        generation: None,
        dry_run: false,
        mode: ApplyMode::Auto,
        timeout_ms: 0,
        author: "ada".to_owned(),
        reason: String::new(),
        wait: false,
        over: None,
    };
    ask(&machine, async |init| init.rollback(back).await).unwrap();
    machine.line(&["config 3 holds"]);
    assert_eq!(read().as_deref(), Some("one"));
    let trial = keel_control::Apply { timeout_ms: 200, ..wanted(NAMELESS, ApplyMode::Try) };
    apply(&machine, trial).unwrap();
    machine.line(&["config 4 is reached, and is undone unless"]);
    machine.line(&["config 4 was undone"]);
    assert_eq!(read().as_deref(), Some("one"));
    apply(&machine, wanted(BROKEN, ApplyMode::Auto)).unwrap();
    machine.line(&["config 5 was undone: strict"]);
    assert_eq!(read().as_deref(), Some("one"));

    // A config that has its turn with a boot: the file goes once it holds.
    apply(&machine, wanted(NAMELESS, ApplyMode::Staged)).unwrap();
    machine.signal("INT");
    machine.end();
    assert_eq!(read().as_deref(), Some("one"), "a machine that goes down changes no config");
    let mut machine = boot("files-2");
    machine.line(&["config 6 holds"]);
    machine.line(&["/var/lib/keel/sub/extra: removed, no unit has it"]);
    assert_eq!(read(), None);

    // One that does not hold leaves its file behind; it is gone before anything begins with the one that does.
    let both = format!("{NAMED}[network]\nntp = [\"192.0.2.1\"]\n");
    apply(&machine, wanted(&both, ApplyMode::Staged)).unwrap();
    machine.signal("INT");
    machine.end();
    let mut machine = Machine::boot_with("files-3", NAMELESS, &units);
    assert_eq!(machine.end(), Some(SIGHUP));
    machine.position(&["config 7 was undone: strict"]);
    assert_eq!(read().as_deref(), Some("one"));
    let machine = boot("files-4");
    assert_eq!(read(), None);
    assert!(machine.position(&["no unit has it"]) < machine.position(&["strict"]));
}
