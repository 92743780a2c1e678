//! What a node showed for its first certificate is forgotten once it has one: in every config that is kept, and nothing restarts.

use keel_control::{Apply, ApplyMode, Fate};

use super::configs::{apply, data, wanted};
use super::mutations::{digest, pid};
use super::*;

const BOOTSTRAP: &str = "part-of = \"boot\"\nif-set = \"cluster.token\"\n[condition]\npath-missing = [\"/var/lib/keel/kubelet/certificate\"]\n[file]\npath = \"/var/lib/keel/kubelet/bootstrap.kubeconfig\"\ncontent = \"{{ cluster.token }}\"\nsecret = true\ntimeout = \"20s\"\n";
const KUBELET: &str = "part-of = \"boot\"\nif-set = \"cluster.api-server\"\nwants = \"file.kubelet-bootstrap\"\nafter = \"file.kubelet-bootstrap\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n";
const BARE: &str = "schema = 1\n";

/// Waits until it is known which config there is, so that the boot is over only then.
const LATER: (&str, &str) =
    ("later.toml", "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"20s\"\n");

fn joins(token: &str) -> String {
    let pin = format!("sha256:{}", "ab".repeat(32));
    format!(
        "schema = 1\n[cluster]\napi-server = \"https://a\"\ntoken = \"{{{{ secrets.join }}}}\"\nca-hash = \"{pin}\"\n[secrets]\njoin = \"{token}\"\n"
    )
}

/// The files below that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path())
    {
        match entry.is_dir() {
            true => found.extend(holding(&entry, text)),
            false if fs::read_to_string(&entry).is_ok_and(|it| it.contains(text)) => {
                found.push(entry);
            }
            false => {}
        }
    }
    found
}

#[test]
fn a_token_that_has_done_its_work_is_forgotten() {
    const TOKEN: &str = "abcdef.0123456789abcdef";
    const OTHER: &str = "abcdef.othertokenothert";
    const THIRD: &str = "abcdef.thirdtokenthirdt";
    let keep = tempfile::tempdir().expect("a temporary directory");
    let mount = data(keep.path());
    let units = [
        BOOT,
        LATER,
        ("data.toml", mount.as_str()),
        ("kubelet-bootstrap.toml", BOOTSTRAP),
        ("kubelet.toml", KUBELET),
    ];
    let mut machine = Machine::boot_with("forget-1", BARE, &units);
    machine.report();
    apply(&machine, wanted(&joins(TOKEN), ApplyMode::Auto)).unwrap();
    machine.line(&["config 1 holds"]);
    let remark = format!("# a remark\n{}", joins(TOKEN));
    apply(&machine, wanted(&remark, ApplyMode::Auto)).unwrap();
    apply(&machine, wanted(&joins(THIRD), ApplyMode::Staged)).unwrap();
    let kubelet = pid(&machine, "kubelet");
    let bootstrap = keep.path().join("kubelet/bootstrap.kubeconfig");
    assert_eq!(fs::read_to_string(&bootstrap).unwrap(), TOKEN);

    // What waits for its turn keeps what it will need; and nothing restarts.
    fs::write(keep.path().join("kubelet/certificate"), "").unwrap();
    assert_eq!(ask(&machine, async |init| init.forget().await), Ok(2));
    assert_eq!(ask(&machine, async |init| init.forget().await), Ok(0));
    assert_eq!(holding(keep.path(), TOKEN), Vec::<PathBuf>::new());
    assert!(!bootstrap.exists());
    assert_eq!(holding(keep.path(), THIRD), [keep.path().join("configs/text.3")]);
    assert_eq!(pid(&machine, "kubelet"), kubelet);
    let history = ask(&machine, async |init| init.history().await).unwrap();
    assert_eq!(history.generations[1].digest, digest(&machine));
    let shown = ask(&machine, async |init| init.config(None).await).unwrap().text;
    assert!(shown.contains("\nspent = \"sha256:"), "{shown}");

    // The same text as before is nothing new, with a comment it is kept without the token, and what is changed concerns no kubelet.
    let dry = Apply { dry_run: true, ..wanted(&remark, ApplyMode::Auto) };
    assert_eq!(apply(&machine, dry).unwrap().plan.changes, []);
    let again = format!("# another\n{}", joins(TOKEN));
    assert_eq!(apply(&machine, wanted(&again, ApplyMode::Auto)).unwrap().plan.changes, []);
    assert_eq!(holding(keep.path(), TOKEN), Vec::<PathBuf>::new());
    assert_eq!(apply(&machine, wanted(&again, ApplyMode::Auto)).unwrap().fate, Fate::Nothing);
    assert_eq!(pid(&machine, "kubelet"), kubelet);
    machine.signal("INT");
    machine.end();

    // The next boot needs it no more, and another one that comes is not needed either; nor is the one that had waited.
    let mut machine = Machine::boot_with("forget-2", BARE, &units);
    machine.report();
    assert!(pid(&machine, "kubelet").is_some());
    assert_eq!(apply(&machine, wanted(&again, ApplyMode::Auto)).unwrap().fate, Fate::Nothing);
    apply(&machine, wanted(&joins(OTHER), ApplyMode::Auto)).unwrap();
    machine.line(&["what it joined with is forgotten, in 2 config"]);
    assert_eq!(holding(keep.path(), OTHER), Vec::<PathBuf>::new());
    machine.signal("TERM");
    machine.end();
}

#[test]
fn what_stands_for_a_secret_is_none() {
    let keep = tempfile::tempdir().expect("a temporary directory");
    let mount = data(keep.path());
    let mut machine =
        Machine::boot_with("stand-in", BARE, &[BOOT, LATER, ("data.toml", mount.as_str())]);
    machine.report();
    let text = "schema = 1\n[secrets]\nold = \"hunter2\"\n";
    apply(&machine, wanted(text, ApplyMode::Auto)).unwrap();
    for keep_secrets in [true, false] {
        let text = "schema = 1\n[secrets]\nold = \"hunter3\"\nnew = \"<secret>\"\n";
        let wanted = Apply { keep_secrets, ..wanted(text, ApplyMode::Auto) };
        let said = apply(&machine, wanted).unwrap_err();
        assert!(said.contains("node.toml:4") && said.contains("no-secret"), "{said}");
        assert!(!said.contains("hunter"), "{said}");
    }
    // What is short as it comes is as long as what it stands for.
    let long = "x".repeat(keel_control::MAX_CONFIG - 60);
    let text = format!("schema = 1\n[secrets]\nold = \"{long}\"\n");
    apply(&machine, wanted(&text, ApplyMode::Auto)).unwrap();
    let text = format!("schema = 1\n[secrets]\nold = \"<secret>\" # {}\n", "x".repeat(100));
    let wanted = Apply { keep_secrets: true, ..wanted(&text, ApplyMode::Auto) };
    let said = apply(&machine, wanted).unwrap_err();
    assert!(said.contains("the config is longer than"), "{said}");
    machine.signal("TERM");
    machine.end();
}
