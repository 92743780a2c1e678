//! `osctl graph …` as people use it: the real binary, what it prints and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const QEMU: [&str; 2] = ["--config", "machine-configs/qemu.toml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Runs `osctl graph …` at the top of the tree, expects this exit code, and gives what it printed: results, then the rest.
fn check(arguments: &[&str], code: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
    let output = command.arg("graph").args(arguments).current_dir(root()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}{err}");
    (out, err)
}

fn json(arguments: &[&str], code: i32) -> Value {
    let (out, _) = check(&[arguments, &["--output", "json"]].concat(), code);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn a_unit_is_explained() {
    let (page, _) = check(&[&["explain", "containerd"], &QEMU[..]].concat(), 0);
    insta::assert_snapshot!("explain-containerd", page);
    let (page, _) = check(&[&["explain", "network"], &QEMU[..]].concat(), 0);
    insta::assert_snapshot!("explain-network", page);
    let said = json(&[&["explain", "mount.data"], &QEMU[..]].concat(), 0);
    assert_eq!((&said["kind"], &said["started"]), (&"mount".into(), &true.into()));
    let waits = said["depends_on"].as_array().unwrap();
    let filesystem = waits.iter().find(|relation| relation["unit"] == "filesystem.data").unwrap();
    assert_eq!(filesystem["edges"][0]["kind"], "requires");
    assert_eq!(filesystem["edges"][0]["file"], "units/storage/data.toml");
    assert_eq!(said["if_it_fails"]["end"], "degraded");
    let lost = said["if_it_fails"]["lost"].as_array().unwrap();
    assert!(lost.iter().any(|loss| loss["unit"] == "containerd"), "{lost:?}");
}

#[test]
fn a_name_that_is_none_gets_the_one_that_was_meant() {
    let meant = |name: &str, expect: &str| {
        let (out, err) = check(&[&["explain", name], &QEMU[..]].concat(), 2);
        assert!(out.is_empty() && err.contains(expect), "{err}");
    };
    meant("contianerd", "did you mean `containerd`?");
    meant("data", "did you mean `filesystem.data`, `mount.data` or `partition.data`?");
    meant("data.mount", "did you mean `mount.data`?");
    meant("link", "did you mean `link@primary`?");
    meant("\u{1b}[31m", "there is no unit `\\u{1b}[31m`");
    check(&[&["path", "containerd", "dta"], &QEMU[..]].concat(), 2);
    let (_, err) = check(&[&["list", "--stage", "strage"], &QEMU[..]].concat(), 2);
    assert!(err.contains("did you mean `storage`?"), "{err}");
    let (_, err) = check(&[&["list", "--kind", "mont"], &QEMU[..]].concat(), 2);
    assert!(err.contains("'mount'"), "{err}");
}

#[test]
fn chains_have_their_reasons() {
    let path = |ends: [&str; 2], code| check(&[&["path"], &ends[..], &QEMU[..]].concat(), code).0;
    insta::assert_snapshot!("path-boot-filesystem", path(["boot", "filesystem.data"], 0));
    assert_eq!(path(["filesystem.data", "kubelet"], 0), path(["kubelet", "filesystem.data"], 0));
    assert!(path(["link.lo", "mount.tmp"], 1).contains("do not depend on each other"));
    check(&[&["path", "boot", "boot"], &QEMU[..]].concat(), 2);
    let said = json(&[&["path", "kubelet", "mount.data"], &QEMU[..]].concat(), 0);
    assert_eq!(said["chains"][0]["means"][0], "needs");
    assert_eq!(
        json(&[&["path", "link.lo", "mount.tmp"], &QEMU[..]].concat(), 1)["chains"],
        Value::Array(vec![])
    );
}

#[test]
fn units_are_listed_by_stage_and_kind() {
    let (page, _) = check(&[&["list", "--stage", "storage"], &QEMU[..]].concat(), 0);
    insta::assert_snapshot!("list-storage", page);
    let some = json(&[&["list", "--kind", "link", "--kind", "time"], &QEMU[..]].concat(), 0);
    let names: Vec<&Value> =
        some["units"].as_array().unwrap().iter().map(|unit| &unit["name"]).collect();
    assert_eq!(names, ["link.lo", "link@primary", "time.clock"]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("boot.toml"), "[target]\n").unwrap();
    fs::write(folder.path().join("idle.toml"), "[target]\n").unwrap();
    let (page, _) =
        check(&["list", "--unreachable", "--units", folder.path().to_str().unwrap()], 0);
    assert!(page.contains("idle (not started)") && !page.contains("boot"), "{page}");
}

#[test]
fn a_digest_is_one_line() {
    let (page, _) = check(&[&["digest"], &QEMU[..]].concat(), 0);
    let digest = page.trim_end();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{page}");
    assert_eq!(json(&[&["digest"], &QEMU[..]].concat(), 0)["digest"], digest);
    assert_eq!(json(&[&["render"], &QEMU[..]].concat(), 0)["digest"], digest);
}

#[test]
fn every_format_of_render_is_its_own() {
    let render = |format: &str| check(&[&["render", "--format", format], &QEMU[..]].concat(), 0).0;
    assert!(render("svg").starts_with("<svg "));
    assert!(render("mermaid").contains("\nflowchart LR\n"));
    assert!(render("dot").starts_with("digraph"));
    assert!(render("json").starts_with('{'));
    assert_eq!(render("text"), check(&[&["render"], &QEMU[..]].concat(), 0).0);
    for format in ["svg", "mermaid", "dot", "json", "text"] {
        assert_eq!(render(format), render(format));
    }
}

#[test]
fn a_change_of_the_config_is_told() {
    let pair = ["diff", "machine-configs/qemu.toml", "machine-configs/no-cluster.toml"];
    insta::with_settings!({filters => vec![("sha256:[0-9a-f]+", "sha256:…")]}, {
        insta::assert_snapshot!("diff-text", check(&pair, 1).0);
        insta::assert_snapshot!("diff-markdown", check(&[&pair[..], &["--format", "markdown"]].concat(), 1).0);
    });
    let said = json(&pair, 1);
    let kubelet = said["changed"].as_array().unwrap().iter().find(|unit| unit["name"] == "kubelet");
    let key = &kubelet.unwrap()["keys"][0];
    assert_eq!((&key["key"], &key["old"]), (&"condition.when".into(), &Value::Null));
    assert_eq!(key["new"]["file"], "machine-configs/no-cluster.toml");
}

#[test]
fn a_config_is_compared_with_an_exported_graph_and_with_other_units() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (exported, _) = check(&[&["render", "--format", "json"], &QEMU[..]].concat(), 0);
    fs::write(at("node.json"), exported).unwrap();
    let (page, _) = check(&["diff", &at("node.json"), "machine-configs/qemu.toml"], 0);
    assert!(page.starts_with("the same: "), "{page}");
    check(&["diff", &at("node.json"), "machine-configs/static-network.toml"], 1);

    fs::create_dir(at("units")).unwrap();
    fs::write(at("units/boot.toml"), "[target]\n").unwrap();
    let (page, _) = check(&["diff", "units", &at("units")], 1);
    assert!(page.contains("  - kubelet"), "{page}");
    let qemu = "machine-configs/qemu.toml";
    let old_units = at("units");
    let (page, _) = check(&["diff", qemu, qemu, "--old-units", &old_units], 1);
    assert!(page.contains("  + kubelet"), "{page}");
}

/// Each side may have several layers, and secrets, of its own.
#[test]
fn both_sides_have_layers() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, owner).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let old_site = write("old-site.toml", "schema = 1\nkernel.modules = [\"overlay\"]\n");
    let old_rack = write("old-rack.toml", "kernel.modules = { append = [\"dummy\"] }\n");
    let new_site = write("new-site.toml", "schema = 1\nkernel.modules = [\"bonding\"]\n");
    let node = write("node.toml", "machine.hostname = \"x\"\n");
    let layers = ["--old-config", &old_site, "--old-config", &old_rack, "--config", &new_site];
    let said = json(&[&["diff", &node, &node], &layers[..]].concat(), 1);
    let names = |key: &str| {
        let units = said[key].as_array().unwrap_or_else(|| panic!("{said:#}"));
        units.iter().map(|unit| unit["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("added"), ["module@bonding"]);
    assert_eq!(names("removed"), ["module@dummy", "module@overlay"]);
    // The same layers on both sides are the same graph.
    let same = ["--old-config", &old_site, "--old-config", &old_rack];
    let new = ["--config", &old_site, "--config", &old_rack];
    check(&[&["diff", &node, &node], &same[..], &new[..]].concat(), 0);

    // A secret of its own: the digest of what holds it differs.
    let units = ["--units", "testdata/units/ok/secret"];
    let config = "testdata/configs/layers/secret.toml";
    let (a, b) =
        (write("a.toml", "token = \"hunter2\"\n"), write("b.toml", "token = \"hunter23\"\n"));
    let secrets = |old: &str, new: &str, code: i32| {
        let sides = ["--old-secrets", old, "--secrets", new];
        let (out, err) = check(&[&["diff", config, config], &units[..], &sides[..]].concat(), code);
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
    };
    secrets(&a, &a, 0);
    secrets(&a, &b, 1);

    let export = write("old.json", "{}");
    let (_, err) = check(&["diff", &export, &node, "--old-config", &old_site], 2);
    assert!(err.contains("takes no --old-config"), "{err}");
}

#[test]
fn what_cannot_be_compared_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let qemu = "machine-configs/qemu.toml";
    let fails = |old: &str, expect: &str| {
        let (out, err) = check(&["diff", old, qemu], 2);
        assert!(out.is_empty() && err.contains(expect), "{err}");
        let (out, _) = check(&["diff", qemu, old], 2);
        assert!(out.is_empty(), "{out}");
    };
    fails("testdata/units/err/cycle", "ordering cycle of 3");
    fails("testdata/configs/err/unknown-key.toml", "unknown key");
    fails("no-such.toml", "no-such.toml");
    fails("no-such.json", "cannot read no-such.json");
    fs::write(at("empty.json"), "").unwrap();
    fails(&at("empty.json"), "is no exported graph");
    fs::write(at("other.json"), "{\"units\": 7}").unwrap();
    fails(&at("other.json"), "is no exported graph");
    fs::create_dir(at("folder.json")).unwrap();
    fails(&at("folder.json"), "is no file");
}

#[test]
fn no_command_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let units = |secret: &str| {
        let at = folder.path().join(secret);
        fs::create_dir(&at).unwrap();
        fs::write(at.join("boot.toml"), "[target]\n").unwrap();
        let file = format!(
            "part-of = \"boot\"\n[file]\npath = \"/t\"\nsecret = true\ncontent = \"{secret}\"\ntimeout = \"1s\"\n"
        );
        fs::write(at.join("token.toml"), file).unwrap();
        at.to_str().unwrap().to_owned()
    };
    let (old, new) = (units("hunter2"), units("hunter3"));
    let prints = |arguments: &[&str], code: i32| {
        for output in ["table", "json"] {
            let (out, err) = check(&[arguments, &["--output", output]].concat(), code);
            let printed = format!("{out}{err}").replace(&old, "OLD").replace(&new, "NEW");
            assert!(!printed.contains("hunter"), "{printed}");
        }
    };
    for format in ["text", "dot", "mermaid", "json", "svg"] {
        prints(&["render", "--units", &old, "--format", format], 0);
    }
    prints(&["explain", "file.token", "--units", &old], 0);
    prints(&["list", "--units", &old], 0);
    prints(&["path", "boot", "file.token", "--units", &old], 0);
    for format in ["text", "markdown", "json"] {
        prints(&["diff", &old, &new, "--format", format], 1);
    }
}
