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
    let lines = lines.filter(|line| !line.starts_with("# Unset"));
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

#[test]
fn a_patch_unsets_keys() {
    check(
        &[
            "[machine]\nhostname = \"x\"\n[network]\ndns = [\"192.0.2.1\"]",
            "unset = [\"network.dns\"]",
        ],
        &["hostname = \"x\" # a.toml:3", "# network.dns # b.toml:1"],
    );
    // It goes first, so that a table is replaced as a whole.
    check(
        &[
            "[storage.data.disk]\nbus = \"virtio\"\nserial = \"x\"",
            "unset = [\"storage.data.disk\"]\nstorage.data.disk.path = \"/dev/vda\"",
        ],
        &["path = \"/dev/vda\" # b.toml:2"],
    );
    // What a later one sets again is set.
    check(
        &["machine.hostname = \"x\"", "unset = [\"machine.hostname\"]", "machine.hostname = \"z\""],
        &["hostname = \"z\" # c.toml:1"],
    );
    check(
        &[
            "[kernel.sysctls]\n\"a.b\" = 1\n\"a.c\" = 2\n[units.\"kubelet\".service]\nstop-timeout = \"5s\"",
            "unset = ['kernel.sysctls.\"a.b\"', 'units.kubelet']",
        ],
        &[
            "\"a.c\" = 2 # a.toml:4",
            "# kernel.sysctls.\"a.b\" # b.toml:1",
            "# units.kubelet # b.toml:1",
        ],
    );
    let merged = merged_config(&input(
        &["machine.hostname = \"x\"\nkernel.modules = [\"m\"]", "unset = [\"machine.hostname\"]"],
        None,
    ));
    let merged = merged.unwrap();
    assert!(!merged.contains("unset") && !merged.contains("hostname"), "{merged}");
}

#[test]
fn a_slip_in_what_is_unset_is_told() {
    let check = |configs: &[&str], expect: &[&str]| {
        let report = lower(input(configs, None)).unwrap_err().to_string();
        assert_eq!(report.lines().collect::<Vec<_>>(), expect);
    };
    check(
        &["", "unset = [\"network.interface\"]"],
        &["b.toml:1:10: unknown key `network.interface` (did you mean `network.interfaces`?)"],
    );
    check(
        &["", "unset = [\"machine.hostname\"]"],
        &[
            "b.toml:1:10: `machine.hostname` is not set by the files before (remove it from `unset`)",
        ],
    );
    check(
        &["kernel.sysctls = {}", "unset = ['kernel.sysctls.\"a.b\"']"],
        &[
            "b.toml:1:10: `kernel.sysctls.a.b` is not set by the files before (remove it from `unset`)",
        ],
    );
    check(
        &["machine.hostname = \"x\"", "unset = [\"machine.hostname\", \"machine.hostname\"]"],
        &[
            "b.toml:1:30: `machine.hostname` is not set by the files before (remove it from `unset`)",
        ],
    );
    check(
        &["unset = [\"machine\"]"],
        &["a.toml:2:1: nothing is below this `unset` (leave out the keys that are not to be set)"],
    );
    check(
        &["", "unset = \"machine\""],
        &["b.toml:1:9: expected a list of keys such as [\"network.interfaces\"], found a string"],
    );
    check(
        &["machine.hostname = \"x\"", "unset = [5, \"a..b\"]"],
        &[
            "b.toml:1:10: expected the name of a key such as \"network.interfaces\", found an integer",
            "b.toml:1:13: `a..b` is no name of a key (parts are joined by dots, and one that holds a dot is quoted: 'kernel.sysctls.\"net.ipv4.ip_forward\"')",
        ],
    );
    check(
        &["machine.hostname = \"x\"", "unset = [\"schema\"]"],
        &["a.toml:1:1: missing key `schema`"],
    );
}

#[test]
fn what_a_later_file_hides_is_checked_too() {
    let check = |configs: &[&str], expect: &[&str]| {
        let report = lower(input(configs, None)).unwrap_err().to_string();
        let lines: Vec<_> =
            report.lines().map(|line| &line[..line.len().min(expect[0].len())]).collect();
        assert_eq!(lines, expect, "{report}");
    };
    check(&["machine.hostname = \"B_\"", "machine.hostname = \"y\""], &["a.toml:2:20: "]);
    check(&["machine.hostname = 5", "", "machine.hostname = \"y\""], &["a.toml:2:20: "]);
    check(&["kernel.modules = [\"a\", \"../x\"]", "kernel.modules = [\"b\"]"], &["a.toml:2:24: "]);
    check(&["storage.data.size = \"1GB\"", "unset = [\"storage.data.size\"]"], &["a.toml:2:21: "]);
    check(
        &["[[network.interfaces]]\nname = \"a\"\nmtu = \"x\"", "network.interfaces = []"],
        &["a.toml:4:7: "],
    );
    check(
        &["[kernel.sysctls]\n\"a b\" = 1", "kernel.sysctls.\"a b\" = 1\nkernel.sysctls.\"c\" = 1"],
        &["a.toml:3:1", "b.toml:1:1"],
    );
    // What could only be judged together with the rest is not judged.
    let fine = [
        "[cluster]\nnode-name = \"{{ machine.hostname }}\"\n[[network.interfaces]]\nname = \"a\"\n[storage.data.disk]\nmin-size = \"2GiB\"",
        "cluster.node-name = \"y\"\nstorage.data.disk.min-size = \"1GiB\"\n[[network.interfaces]]\nname = \"b\"",
    ];
    lower(input(&fine, None)).unwrap();
}

/// What has to be changed is the config's line; the unit is told beside it.
#[test]
fn a_value_that_does_not_fit_a_unit_is_told_where_it_was_written() {
    let places = |configs: &[&str], unit: &str| {
        let mut input = input(configs, None);
        input.unit("units/x.toml", unit);
        let report = lower(input).unwrap_err();
        let [found] = report.diagnostics.as_slice() else { panic!("{report}") };
        let all = std::iter::once(&found.label).chain(&found.others);
        all.map(|label| report.sources.locate(label.span).to_string()).collect::<Vec<_>>()
    };
    let file =
        |path: &str| format!("[file]\npath = \"{path}\"\ncontent = \"x\"\ntimeout = \"1s\"\n");
    let layers = ["machine.hostname = \"x\"", "machine.hostname = \"y\""];
    let alone = file("{{ machine.hostname }}");
    assert_eq!(places(&layers, &alone), ["b.toml:1", "units/x.toml:2"]);
    assert_eq!(
        places(&layers, &file("etc/{{ machine.hostname }}")),
        ["b.toml:1", "units/x.toml:2"]
    );
    // Nobody wrote a default, and of two nobody can say which.
    assert_eq!(places(&[""], &file("{{ storage.data.filesystem }}")), ["units/x.toml:2"]);
    let two = file("{{ machine.hostname }}{{ cluster.node-name }}");
    assert_eq!(
        places(&["machine.hostname = \"x\"\ncluster.node-name = \"y\""], &two),
        ["units/x.toml:2"]
    );
    // A name that is not there is wrong in the unit.
    assert_eq!(places(&layers, &file("{{ machine.host }}")), ["units/x.toml:2"]);
}

/// `[cluster]` with a token and a CA.
const CLUSTER: &str = "cluster.api-server = \"https://a:6443\"\ncluster.ca-hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n";

#[test]
fn a_key_that_is_a_secret_is_shown_nowhere() {
    let unit = "if-set = \"cluster.token\"\n[file]\npath = \"/etc/token\"\ncontent = \"token: {{ cluster.token }}\"\ntimeout = \"5s\"\n";
    let with = |token: &str, secrets: Option<&str>| {
        let mut input = input(&[&format!("{CLUSTER}cluster.token = \"{token}\"")], secrets);
        input.unit("units/token.toml", unit);
        input
    };
    let secrets = "t = \"abcdef.0123456789hunter\"\n";
    for (token, secrets) in [("abcdef.0123456789hunter", None), ("{{ secrets.t }}", Some(secrets))]
    {
        let set = lower(with(token, secrets)).unwrap_or_else(|report| panic!("{report}"));
        let unit = set.units.iter().find(|unit| unit.name.as_str() == "file.token").unwrap();
        let Kind::File(file) = &unit.kind else { panic!() };
        assert!(file.secret, "what holds a secret is one");
        assert_eq!(file.content.as_ref().unwrap().as_str(), "token: abcdef.0123456789hunter");
        let shown = format!("{:?} {:?}", unit.tree(), set.config.cluster);
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(!unit.secrets[0].missing);
        let effective = effective_config(with(token, secrets)).unwrap().toml(true);
        assert!(effective.contains("token = \"<secret sha256:"), "{effective}");
        assert!(!effective.contains("hunter"), "{effective}");
    }
    // Checked without its secrets, and without a token the unit is not there at all.
    let mut without = with("{{ secrets.t }}", None);
    without.secrets_elsewhere = true;
    assert!(lower(without).is_ok());
    let mut absent = input(&[""], None);
    absent.unit("units/token.toml", unit);
    absent.unit("units/after.toml", "after = \"file.token\"\n[target]\n");
    let set = lower(absent).unwrap_or_else(|report| panic!("{report}"));
    assert!(set.units.iter().all(|unit| unit.name.as_str() != "file.token"));
}

#[test]
fn what_is_wrong_with_a_key_that_is_a_secret_is_told_without_it() {
    let check = |config: &str, unit: &str, expect: &str| {
        let mut input = input(&[config], None);
        input.unit("units/one.toml", unit);
        let report = lower(input).unwrap_err().to_string();
        assert!(report.contains(expect), "{report}");
        assert!(!report.contains("hunter"), "{report}");
    };
    let token = &format!("{CLUSTER}cluster.token = \"abcdef.0123456789hunter\"");
    let misplaced = "a secret may not stand here";
    let file = |content: &str| {
        format!("[file]\npath = \"/a\"\ncontent = \"{content}\"\ntimeout = \"5s\"\n")
    };
    check(&format!("{CLUSTER}cluster.token = \"hunter2\""), "[target]", "neither a bootstrap");
    check(&format!("{CLUSTER}cluster.tokne = \"hunter2\""), "[target]", "unknown key `tokne`");
    check(&format!("{CLUSTER}cluster.token = \"hunter2"), "[target]", "string");
    check(
        &format!("{token}\nmachine.hostname = \"{{{{ cluster.token }}}}\""),
        "[target]",
        misplaced,
    );
    check(token, "description = \"{{ cluster.token }}\"\n[target]", misplaced);
    check(token, "description = \"{{ cluster.token ~ 'a' }}\"\n[target]", misplaced);
    check(token, &file("{{ cluster.token | upper }}"), misplaced);
    check(token, "for-each = \"cluster.token\"\n[target]", misplaced);
    let environment =
        "[oneshot]\nexec = [\"/a\"]\nenvironment = \"{{ cluster }}\"\ntimeout = \"5s\"";
    check(token, environment, misplaced);
    check("", "if-set = \"cluster.tokne\"\n[target]", "did you mean `cluster.token`?");
    check("", "if-set = \"{{ cluster.token }}\"\n[target]", "is a reference");
    check("", "if-set = 7\n[target]", "expected a key of the machine config");
    check("", "if-set = \"cluster.token\"\nafter = \"nobody\"\n[target]\nx = 1", "unknown key `x`");
}

#[test]
fn a_cluster_is_joined_in_one_way() {
    let check = |cluster: &str, expect: &str| {
        let report =
            lower(input(&[&format!("[cluster]\n{cluster}")], None)).unwrap_err().to_string();
        assert!(report.contains(expect), "{report}");
    };
    let api = "api-server = \"https://a\"\n";
    let token = "token = \"abcdef.0123456789abcdef\"\n";
    let pin =
        "ca-hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n";
    let ca =
        "ca-cert = \"\"\"\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n\"\"\"\n";
    check(&[api, token].concat(), "nothing says which API server this is");
    check(&[api, pin].concat(), "has nothing to show");
    check(&[token, pin].concat(), "`token` without `api-server`");
    check(&[api, token, pin, ca].concat(), "`ca-hash` beside `ca-cert`");
    check(&[api, token, "kubeconfig = \"clusters\"\n"].concat(), "`token` beside `kubeconfig`");
    check(&[api, "ca-cert = \"MAA=\""].concat(), "-----BEGIN CERTIFICATE-----");
}
