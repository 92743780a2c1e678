//! Several files of one config: what a later one changes, who is blamed for what, and that no secret is shown.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use keel_unit::config::{effective_config, merged_config};
use keel_unit::diagnostic::Drawing;
use keel_unit::{Input, Kind, lower};

const KUBELET: &str = "after = \"containerd\"\n[service]\nexec = [\"/usr/bin/kubelet\", \"--v=2\"]\ntimeout = \"5s\"\n";
const CONTAINERD: &str = "[service]\nexec = [\"/usr/bin/containerd\"]\ntimeout = \"5s\"\n";
const TOKEN: &str =
    "[file]\npath = \"/etc/token\"\ncontent = \"token: {{ secrets.token }}\"\ntimeout = \"5s\"\n";

/// The units, the configs, and after a `---` the secrets.
fn input(configs: &[&str], secrets: Option<&str>) -> Input {
    let mut input = Input::default();
    input.unit("units/boot.toml", "[target]\n");
    input.unit("units/kubelet.toml", KUBELET);
    input.unit("units/containerd.toml", CONTAINERD);
    for (i, config) in configs.iter().enumerate() {
        let name = char::from(b'a' + i as u8);
        let schema = if i == 0 { "schema = 1\n" } else { "" };
        input.config(&format!("{name}.toml"), format!("{schema}{config}\n"));
    }
    if let Some(secrets) = secrets {
        input.secrets("secrets.toml", secrets);
    }
    input
}

/// The lines of what holds that are no default, each with who set it.
fn holds(configs: &[&str]) -> Vec<String> {
    let effective = effective_config(input(configs, None)).unwrap();
    let text = effective.toml(true);
    let lines = text.lines().filter(|line| !line.is_empty() && !line.ends_with("# default"));
    let lines = lines.filter(|line| !line.starts_with('[') && !line.starts_with("schema"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn check(configs: &[&str], expect: &[&str]) {
    assert_eq!(holds(configs), expect, "{configs:#?}");
}

#[test]
fn later_files_patch_earlier_ones() {
    check(
        &["machine.hostname = \"x\"", "machine.hostname = \"y\""],
        &["hostname = \"y\" # b.toml:1"],
    );
    check(
        &[
            "[kernel.sysctls]\n\"a.b\" = 1\n\"a.c\" = 2",
            "[kernel.sysctls]\n\"a.c\" = 3",
            "[kernel.sysctls]\n\"a.d\" = 4",
        ],
        &["\"a.b\" = 1 # a.toml:3", "\"a.c\" = 3 # b.toml:2", "\"a.d\" = 4 # c.toml:2"],
    );
    check(
        &["kernel.modules = [\"one\", \"two\"]", "kernel.modules = [\"three\"]"],
        &["modules = [\"three\"] # b.toml:1"],
    );
    check(&["", "", "storage.data.size = \"1GiB\""], &["size = \"1GiB\" # c.toml:1"]);
}

#[test]
fn a_list_is_appended_to_where_that_is_said() {
    let two = ["kernel.modules = [\"one\"]", "kernel.modules = { append = [\"two\"] }"];
    check(&two, &["modules = [", "\"one\", # a.toml:2", "\"two\", # b.toml:1", "]"]);
    // To the default, where nobody wrote the list.
    check(
        &["", "[[network.interfaces.append]]\nname = \"storage\"\ndevice = \"eth1\""],
        &["name = \"storage\" # b.toml:2", "device = \"eth1\" # b.toml:3"],
    );
    // A drop-in waits for its unit; more than one of them go one behind the other.
    let more = |item: &str| format!("units.kubelet.service.exec = {{ append = [\"{item}\"] }}");
    let set = lower(input(&[&more("--a"), "", &more("--b")], None)).unwrap();
    let kubelet = set.units.iter().find(|unit| unit.name.as_str() == "kubelet").unwrap();
    let Kind::Service(service) = &kubelet.kind else { panic!("{:?}", kubelet.kind) };
    assert_eq!(service.exec.arguments, ["--v=2", "--a", "--b"]);
    // One name is a list of one.
    let after = "units.kubelet.after = { append = [\"boot\"] }";
    let set = lower(input(&[after], None)).unwrap();
    let kubelet = set.units.iter().find(|unit| unit.name.as_str() == "kubelet").unwrap();
    let names: Vec<_> = kubelet.after.iter().map(|after| after.unit.as_str()).collect();
    assert_eq!(names, ["containerd", "boot"]);
    let at = |i: usize| set.sources.locate(kubelet.after[i].span).to_string();
    assert_eq!([at(0), at(1)], ["units/kubelet.toml:1", "a.toml:2"]);
}

#[test]
fn all_that_is_wrong_with_all_files_is_told_at_once() {
    let found = |configs: &[&str], secrets: Option<&str>| {
        lower(input(configs, secrets)).unwrap_err().to_string()
    };
    let report = found(
        &["machine.hostnam = \"x\"", "[agent]\nlisten = 5\n", "kernel.modules = [\"../x\"]"],
        None,
    );
    let starts: Vec<_> = report.lines().map(|line| &line[..8]).collect();
    assert_eq!(starts, ["a.toml:2", "b.toml:2", "c.toml:1"], "{report}");
    let report = found(&["x = ", "y = ", "z = 1"], Some("w ="));
    let starts: Vec<_> = report.lines().map(|line| &line[..8]).collect();
    assert_eq!(starts, ["a.toml:2", "b.toml:1", "secrets."], "{report}");
    let report = found(&["machine.hostname = \"B_\"", "machine = 3"], None);
    let starts: Vec<_> = report.lines().map(|line| &line[..8]).collect();
    assert_eq!(starts, ["a.toml:2", "b.toml:1"], "{report}");
    let report = found(&["kernel.modules = { append = [\"x\"] }"], None);
    assert!(report.starts_with("a.toml:2:8: nothing is below this `append`"), "{report}");
    let report =
        found(&["machine.hostname = \"x\"", "machine.hostname = { append = [\"y\"] }"], None);
    assert!(report.starts_with("b.toml:1:9: `hostname` is no list to append to"), "{report}");
    let report = found(&["units.kubelet.service.timeout = { append = [\"y\"] }"], None);
    assert!(report.starts_with("a.toml:2:23: `timeout` is no list to append to"), "{report}");
}

#[test]
fn many_files_become_one_that_says_the_same() {
    let configs = [
        "[kernel]\nmodules = [\"one\"]\n[units.kubelet.service.environment]\nA = \"1\"",
        "[kernel]\nmodules = { append = [\"two\"] }\n[units.kubelet.service]\nexec = { append = [\"--x\"] }",
        "[machine]\nhostname = \"x\"\n[[network.interfaces]]\nname = \"a\"\n[[network.interfaces]]\nname = \"b\"\ndevice = \"eth1\"",
    ];
    let several = input(&configs, Some("token = \"hunter2\"\n"));
    let merged = merged_config(&several).unwrap();
    assert!(merged.contains("token = \"hunter2\""), "a machine needs it: {merged}");
    let mut one = input(&[], None);
    one.config("merged.toml", merged.clone());
    let (one, several) = (lower(one).unwrap(), lower(several).unwrap());
    let rest = |set: &keel_unit::UnitSet| {
        let c = &set.config;
        (c.machine.clone(), c.kernel.clone(), c.network.clone(), c.secrets.clone())
    };
    assert_eq!(rest(&one), rest(&several));
    let trees = |set: &keel_unit::UnitSet| -> Vec<String> {
        set.units.iter().map(|unit| format!("{:?}", unit.kind)).collect()
    };
    assert_eq!(trees(&one), trees(&several));
    // One file stays as it is, comments and all.
    let single = input(&["# why"], None);
    assert_eq!(merged_config(&single).unwrap(), "schema = 1\n# why\n");
}

fn with_token(configs: &[&str], secrets: Option<&str>) -> Input {
    let mut input = input(configs, secrets);
    input.unit("units/token.toml", TOKEN);
    input
}

#[test]
fn a_secret_reaches_what_it_is_for_and_is_shown_nowhere() {
    let environment = "units.kubelet.service.environment.T = \"{{ secrets.token }}\"";
    let set = lower(with_token(&[environment], Some("token = \"hunter2\"\n"))).unwrap();
    let unit = |name: &str| set.units.iter().find(|unit| unit.name.as_str() == name).unwrap();
    let Kind::File(file) = &unit("file.token").kind else { panic!() };
    assert_eq!(file.content.as_ref().unwrap().as_str(), "token: hunter2");
    assert!(file.secret, "what holds a secret is one");
    let Kind::Service(kubelet) = &unit("kubelet").kind else { panic!() };
    assert_eq!(kubelet.environment.0["T"], "hunter2");
    for name in ["file.token", "kubelet"] {
        let tree = format!("{:?}", unit(name).tree());
        assert!(tree.contains("<secret sha256:") && !tree.contains("hunter2"), "{tree}");
        assert!(!unit(name).secrets[0].missing);
    }
    assert!(!format!("{:?}", set.config).contains("hunter2"));
    let shown =
        effective_config(with_token(&[environment], Some("token = \"hunter2\"\n"))).unwrap();
    assert!(shown.toml(true).contains("token = \"<secret sha256:f52fbd32…>\"  # secrets.toml:1"));
}

#[test]
fn what_a_secret_may_not_do_is_told_without_it() {
    let check = |config: &str, secrets: &str, expect: &str| {
        let report = lower(with_token(&[config], Some(secrets))).unwrap_err();
        let told = format!("{report}{}", report.draw(Drawing::Plain));
        assert!(told.contains(expect), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    };
    let token = "token = \"hunter2\"\n";
    let nowhere_else = "a secret may not stand here";
    check("machine.hostname = \"{{ secrets.token }}\"", token, nowhere_else);
    check("units.\"file.token\".file.secret = false", token, "lets others read it");
    check("units.kubelet.description = \"{{ secrets.token }}\"", token, nowhere_else);
    check(
        "units.kubelet.service.exec = { append = [\"--t={{ secrets.token }}\"] }",
        token,
        nowhere_else,
    );
    check("units.kubelet.service.stop-signal = \"{{ secrets.token }}\"", token, nowhere_else);
    check("units.kubelet.for-each = \"secrets\"", token, "secrets make no instances");
    check("units.kubelet.for-each = \"secrets.token\"", token, nowhere_else);
    check("units.kubelet.description = \"{{ secrets }}\"", token, nowhere_else);
    check("units.kubelet.description = \"{{ secrets['token'] | upper }}\"", token, "plain name");
    check("", "tokne = \"hunter2\"\n", "did you mean `secrets.tokne`?");
    check("", "token = \"hunter2\\u0000\"\n", "the secret holds a NUL character");
    check("", "token = [\"hunter2\"]\n", "expected a text, found an array");
    check("", "[secrets]\ntoken = \"hunter2\"\n", "at the top of a file of secrets");
    check("", "token = \"hunter2\n", "not TOML");
    check("", "hunter2 = \"x\"\n\"hunter2 hunter2\" = \"token\"\n", "not the name of a secret");
    check("[secrets]\ntoken = \"hunter2\"\n[units.kubelet.servic]\n", "", "unknown key");
    check(
        "units.\"file.token\".file = { content = \"hunter2\", secret = true }\nunits.\"file.token\".mdoe = \"\"",
        "token = \"\"",
        "did you mean `mode` in [file]?",
    );
}

/// In CI the config is there and its secrets are not.
#[test]
fn a_config_can_be_checked_without_its_secrets_but_no_machine_made() {
    let mut without = with_token(&[""], None);
    without.secrets_elsewhere = true;
    let set = lower(without).unwrap();
    let unit = set.units.iter().find(|unit| unit.name.as_str() == "file.token").unwrap();
    assert!(unit.secrets[0].missing);
    let report = lower(with_token(&[""], None)).unwrap_err().to_string();
    assert!(
        report.contains("there is no secret `token`") && report.contains("--secrets"),
        "{report}"
    );
    // What is shown of a secret is none.
    let shown = "token = \"<secret sha256:f52fbd32…>\"\n";
    let report = lower(with_token(&[""], Some(shown))).unwrap_err().to_string();
    assert!(report.contains("only what is shown of it"), "{report}");
}
