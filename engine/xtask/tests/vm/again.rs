//! A node that starts again, steered from outside alone: by `osctl reboot --wait` as the same machine, by `osctl reset` as another one.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use keel_image::vm::Vm;
use serde_json::Value;

use crate::support::{
    API_PORT, blank, boot, certificates, inputs, next_report, node, repository, shut_down,
};

/// The cluster's admin, as the node's API knows her.
struct Ada<'a> {
    folder: &'a Path,
    endpoint: String,
}

impl Ada<'_> {
    fn arguments(&self) -> Vec<String> {
        let path = |name| self.folder.join(name).to_str().unwrap().to_owned();
        let known =
            ["--endpoint", &self.endpoint, "--cert", &path("ada.crt"), "--key", &path("ada.key")];
        known.map(str::to_owned).to_vec()
    }

    fn asks(&self, arguments: &[&str]) -> Output {
        let mut osctl = Command::new(inputs().osctl);
        osctl.args(self.arguments()).args(arguments).env("OSCTL_HOME", self.folder);
        osctl.output().unwrap()
    }

    /// What she is told, without a failure.
    #[track_caller]
    fn learns(&self, arguments: &[&str]) -> String {
        let out = self.asks(arguments);
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    #[track_caller]
    fn learns_json(&self, arguments: &[&str]) -> Value {
        let text = self.learns(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// What she sees in a terminal, which script(1) makes, and into which she types these lines.
    fn types(&self, command: &str, lines: &str) -> Output {
        let osctl =
            format!("{} {} {command}", inputs().osctl.display(), self.arguments().join(" "));
        let mut script = Command::new("script")
            .args(["--quiet", "--return", "--command", &osctl, "/dev/null"])
            .env("OSCTL_HOME", self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        script.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
        script.wait_with_output().unwrap()
    }

    /// The ids of the boots that the node remembers, the one that runs first.
    fn boots(&self) -> Vec<String> {
        let boots = self.learns_json(&["boot", "list"]);
        boots
            .as_array()
            .unwrap()
            .iter()
            .map(|boot| boot["id"].as_str().unwrap().to_owned())
            .collect()
    }

    fn fingerprint(&self) -> String {
        self.learns_json(&["status"])["fingerprint"].as_str().unwrap().to_owned()
    }
}

fn line_with(vm: &Vm, text: &str) -> usize {
    let lines = vm.console().seen();
    lines
        .iter()
        .position(|line| line.contains(text))
        .unwrap_or_else(|| panic!("{text}: {lines:#?}"))
}

#[test]
fn a_node_reboots_as_itself_and_is_reset_to_another() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let authority = fs::read_to_string(dir.path().join("cluster.crt")).unwrap();
    let trust = dir.path().join("trust.toml");
    fs::write(&trust, format!("[agent]\ntrusted-ca = \"\"\"\n{authority}\"\"\"\n")).unwrap();
    let config = repository().join("machine-configs/qemu.toml");
    let configs = ["--config", config.to_str().unwrap(), "--config", trust.to_str().unwrap()];
    let image = inputs().build(&dir.path().join("image"), &configs);
    let disk = dir.path().join("disk.img");
    blank(&disk, 1 << 30);

    let (mut vm, first) = boot(&node(&image, &[&disk]));
    assert!(first.reached && first.degraded.is_empty(), "{first:#?}");
    vm.let_reboot().unwrap();
    let endpoint = format!("127.0.0.1:{}", vm.forwarded(API_PORT).unwrap());
    let ada = Ada { folder: dir.path(), endpoint };
    let [before] = <[String; 1]>::try_from(ada.boots()).unwrap();

    let told = ada.learns(&["reboot", "--yes", "--wait"]);
    let second = next_report(&mut vm);
    assert!(second.reached && second.degraded.is_empty(), "{second:#?}");
    assert_eq!((&second.machine_id, &second.digest), (&first.machine_id, &first.digest));
    let boots = ada.boots();
    assert_eq!((boots.len(), &boots[1]), (2, &before));
    assert_ne!(boots[0], before);
    let end = format!("boot reached\nkeel-qemu runs boot {}; before it was {before}.\n", boots[0]);
    assert!(told.ends_with(&end), "{told}");
    for stage in ["is stopping its ", "  it is away\n"] {
        assert!(told.contains(stage), "{stage}: {told}");
    }

    // Asked twice, with a view of what goes. A no at the second question leaves everything as it is.
    let fingerprint = ada.fingerprint();
    let id = first.machine_id.unwrap();
    let declined = ada.types("reset", &format!("{id}\nno\n"));
    let shown = String::from_utf8_lossy(&declined.stdout);
    assert_eq!(declined.status.code(), Some(1), "{shown}");
    for part in
        ["keel-data", "/var/lib/keel/identity", "/var/lib/keel/containerd", "nothing was done"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(ada.boots(), boots);
    let reset = ada.types("reset", "keel-qemu\ny\n");
    let shown = String::from_utf8_lossy(&reset.stdout);
    assert_eq!(reset.status.code(), Some(0), "{shown}");
    assert!(shown.contains("[y/N]") && shown.contains("boots as a new machine"), "{shown}");

    // A first boot: another filesystem, machine and key; and nothing of the boots before.
    let third = next_report(&mut vm);
    assert!(third.reached && third.degraded.is_empty(), "{third:#?}");
    let new = third.machine_id.unwrap();
    assert!(new.len() == 32 && new != id, "{new}");
    assert!(line_with(&vm, "is wiped.") > line_with(&vm, "KEEL-REPORT "));
    let made = vm.console().seen().iter().filter(|line| line.contains("making an ext4 filesystem"));
    assert_eq!(made.count(), 2);
    // Which osctl does not take for the machine that it knew.
    let other = ada.asks(&["status"]);
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(said.contains("ITS CERTIFICATE IS NOT THE ONE THAT IS KNOWN"), "{said}");
    ada.learns(&["known-nodes", "remove", &ada.endpoint]);
    assert_ne!(ada.fingerprint(), fingerprint);
    assert_eq!(ada.learns_json(&["status"])["machine_id"], new.as_str());
    assert_eq!(ada.boots().len(), 1);
    shut_down(vm);
}
