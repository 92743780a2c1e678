//! Records of boots, of machines whose data partition is a folder of the test's.

use super::secrets::{SECRETIVE, Watch, spellings};
use super::steering::steer;
use super::*;

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
