//! `osctl image build` and `osctl image payload` with what people get wrong: a clear error, and nothing half-written.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Inputs for a small image: a static init, one unit that runs `tool`, a kernel with one module.
struct Inputs {
    dir: tempfile::TempDir,
}

impl Inputs {
    fn new() -> Self {
        let inputs = Self { dir: tempfile::tempdir().unwrap() };
        for dir in ["units", "bin", "modules/lib/modules/6.1/kernel"] {
            fs::create_dir_all(inputs.at(dir)).unwrap();
        }
        inputs.write("main.c", "int main(void) { return 0; }");
        inputs.write("config.toml", "schema = 1\n");
        inputs.write("units/boot.toml", "description = \"all\"\n[target]\n");
        inputs.write(
            "units/tool.toml",
            "description = \"tool\"\npart-of = \"boot\"\n[oneshot]\nexec = [\"/usr/bin/tool\"]\ntimeout = \"1s\"\n",
        );
        inputs.write("vmlinuz", "a kernel");
        for (name, text) in [("order", ""), ("dep", "kernel/overlay.ko:\n")] {
            inputs.write(&format!("modules/lib/modules/6.1/modules.{name}"), text);
        }
        inputs.write("modules/lib/modules/6.1/kernel/overlay.ko", "overlay");
        inputs.gcc("bin/init", &["-static"]);
        inputs.gcc("bin/tool", &[]);
        inputs.write(
            "payload.toml",
            "# what the node runs\nschema = 1\n\n[[payload]]\nname = \"tool\" # built here\npath = \"bin/tool\"\n",
        );
        inputs
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.at(path), text).unwrap();
    }

    fn gcc(&self, out: &str, args: &[&str]) {
        let mut gcc = Command::new("gcc");
        gcc.args(args).arg(self.at("main.c")).arg("-o").arg(self.at(out));
        assert!(gcc.status().unwrap().success());
    }

    fn osctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osctl"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn build(&self, more: &[&str]) -> Command {
        let mut command =
            self.osctl(&["image", "build", "--config", "config.toml", "--units", "units"]);
        command.args(["--kernel", "vmlinuz", "--modules", "modules", "--init", "bin/init"]);
        command.args(more);
        command
    }

    /// A build that fails with these words, after which nothing is where the image would be.
    fn refused(&self, more: &[&str], expect: &[&str]) {
        let output = self.build(more).args(["--out", "image"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for words in expect {
            assert!(said.contains(words), "{words}\nis not in\n{said}");
        }
        assert!(!self.at("image").exists(), "{:?}", names(&self.at("image")));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const WHOLE: [&str; 4] = ["initramfs.zst", "manifest.json", "sbom.spdx.json", "vmlinuz"];

#[test]
fn a_manifest_in_this_folder_makes_it_one_command() {
    let inputs = Inputs::new();
    let output = inputs.build(&["--out", "image", "--output", "json"]).output().unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&succeeded(&output)).unwrap();
    let files = manifest["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file["path"] == "/usr/bin/tool"), "{manifest}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the payloads are those of payload.toml"), "{said}");
    assert!(!said.contains('\x1b'), "no progress where stderr is no terminal: {said}");
    assert_eq!(names(&inputs.at("image")), WHOLE);
    let bill = fs::read_to_string(inputs.at("image/sbom.spdx.json")).unwrap();
    let bill: serde_json::Value = serde_json::from_str(&bill).unwrap();
    assert_eq!(bill["spdxVersion"], "SPDX-2.3");
    let libc = bill["packages"].as_array().unwrap().iter().find(|p| p["name"] == "libc6").unwrap();
    assert!(libc["versionInfo"].as_str().unwrap().starts_with("2."), "{libc}");
}

#[test]
fn without_a_manifest_this_machine_is_taken_and_that_is_said() {
    let inputs = Inputs::new();
    fs::remove_file(inputs.at("payload.toml")).unwrap();
    let says = "note: no payload manifest: the programs of this machine are taken (none)";
    inputs.refused(
        &[],
        &[says, "no payload brings /usr/bin/tool (unit tool)", "next: name them in payload.toml"],
    );
}

#[test]
fn a_payload_that_is_missing_wrong_or_incomplete_is_named() {
    let inputs = Inputs::new();
    inputs.refused(&["--payload", "tool=gone"], &["cannot read payload gone", "No such file"]);

    inputs.write("tool.c", "int main(void) { return 0; }");
    let mut foreign = fs::read(inputs.at("bin/tool")).unwrap();
    foreign[18] = 0xb7;
    fs::write(inputs.at("bin/foreign"), foreign).unwrap();
    inputs.refused(
        &["--payload", "tool=bin/foreign"],
        &["cannot take tool", "it is built for arm64, and the node is x86-64"],
    );

    inputs.write("lib.c", "int there(void) { return 0; }");
    inputs.write("uses.c", "int there(void); int main(void) { return there(); }");
    let cc = |args: &[&str]| {
        assert!(
            Command::new("gcc")
                .args(args)
                .current_dir(inputs.dir.path())
                .status()
                .unwrap()
                .success()
        );
    };
    cc(&["-shared", "-fPIC", "lib.c", "-o", "libgone.so"]);
    cc(&["uses.c", "-o", "bin/uses", "-L.", "-lgone"]);
    fs::remove_file(inputs.at("libgone.so")).unwrap();
    inputs.refused(
        &["--payload", "tool=bin/uses"],
        &["cannot take tool", "libgone.so, which tool needs, is in none of: "],
    );
}

#[test]
fn a_module_that_the_kernel_lacks_is_named() {
    let inputs = Inputs::new();
    inputs.write("config.toml", "schema = 1\n[kernel]\nmodules = [\"overlai\"]\n");
    inputs.refused(
        &[],
        &["kernel 6.1 has no module overlai, which kernel.modules asks for (did you mean overlay?)"],
    );
}

#[test]
fn a_file_that_is_not_the_locked_one_is_refused() {
    let inputs = Inputs::new();
    succeeded(&inputs.osctl(&["image", "payload", "lock"]).output().unwrap());
    let locked = fs::read_to_string(inputs.at("payload.toml")).unwrap();
    assert!(
        locked.starts_with("# what the node runs\n") && locked.contains("# built here"),
        "{locked}"
    );
    assert!(locked.contains("sha256 = \""), "{locked}");
    succeeded(&inputs.osctl(&["image", "payload", "lock", "--check"]).output().unwrap());

    inputs.gcc("bin/tool", &["-O2", "-DCHANGED", "-g"]);
    inputs.refused(&[], &["payload tool: the sha256 of bin/tool is ", " was expected"]);
    let lock = inputs.osctl(&["image", "payload", "lock"]).output().unwrap();
    assert_eq!(lock.status.code(), Some(1));
    let said = String::from_utf8_lossy(&lock.stderr);
    assert!(
        said.contains("nothing was written") && said.contains("remove the old sha256"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(inputs.at("payload.toml")).unwrap(), locked);
}

#[test]
fn a_lock_waits_for_nobody() {
    let inputs = Inputs::new();
    assert!(Command::new("mkfifo").arg(inputs.at("fifo")).status().unwrap().success());
    inputs.write("p.toml", "schema = 1\npayload = [{ name = \"tool\", path = \"fifo\" }]\n");
    let lock = inputs.osctl(&["image", "payload", "lock", "p.toml"]).output().unwrap();
    let said = String::from_utf8_lossy(&lock.stderr);
    assert_eq!(lock.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot lock payload tool") && said.contains("FIFO"), "{said}");
    // Nor is the manifest itself waited for.
    let refused = |output: Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("fifo") && said.contains("it is no regular file"), "{said}");
    };
    refused(inputs.osctl(&["image", "payload", "lock", "fifo"]).output().unwrap());
    refused(inputs.build(&["--out", "image", "--payload-manifest", "fifo"]).output().unwrap());
}

#[test]
fn a_lock_takes_versions_from_dpkg_and_check_only_looks() {
    let inputs = Inputs::new();
    let text = "schema = 1\npayload = [{ name = \"mount\", path = \"/usr/bin/mount\" }]\n";
    inputs.write("p.toml", text);
    let check = inputs.osctl(&["image", "payload", "lock", "--check", "p.toml"]).output().unwrap();
    assert_eq!(check.status.code(), Some(1), "there is something to fill in");
    assert_eq!(fs::read_to_string(inputs.at("p.toml")).unwrap(), text);
    fs::set_permissions(inputs.at("p.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    let lock = inputs.osctl(&["image", "payload", "lock", "p.toml", "--output", "json"]);
    let locked: serde_json::Value =
        serde_json::from_str(&succeeded(&{ lock }.output().unwrap())).unwrap();
    assert_eq!(locked[0]["filled"], serde_json::json!(["version", "sha256"]));
    let version = locked[0]["version"].as_str().unwrap();
    let dpkg =
        Command::new("dpkg-query").args(["-W", "-f", "${Version}", "mount"]).output().unwrap();
    assert_eq!(version.as_bytes(), dpkg.stdout);
    assert!(fs::read_to_string(inputs.at("p.toml")).unwrap().contains(version));
    assert_eq!(fs::metadata(inputs.at("p.toml")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_manifest_with_a_fault_is_shown_with_its_place() {
    let inputs = Inputs::new();
    inputs.write("payload.toml", "schema = 1\n[[payload]]\nname = \"tool\"\npaht = \"bin/tool\"\n");
    inputs.refused(
        &[],
        &["payload.toml:4:1", "did you mean `path`?", "payload.toml does not validate"],
    );
    inputs.write(
        "payload.toml",
        "schema = 1\n[[payload]]\nname = \"tool\"\nurl = \"https://e.org/tool\"\n",
    );
    inputs.refused(&[], &["cannot take payload tool", "osctl image payload lock"]);
}

/// A folder that is on a full disk: a small tmpfs, mounted in a namespace of this test's own.
#[test]
fn no_space_leaves_nothing() {
    let inputs = Inputs::new();
    fs::create_dir(inputs.at("full")).unwrap();
    let tmpfs = inputs.at("full");
    let build = inputs.build(&["--out", "full/image", "--format", "disk"]);
    let mut words = vec![build.get_program().to_string_lossy().into_owned()];
    words.extend(build.get_args().map(|word| word.to_string_lossy().into_owned()));
    let script = "mount -t tmpfs -o size=2M tmpfs \"$1\" && shift && { \"$@\"; code=$?; ls -A full; exit $code; }";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(&tmpfs)
        .args(&words)
        .current_dir(inputs.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device") && said.contains("next: make room"), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "something is left");
}

/// As a user who may not write there; root may write everywhere.
#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let inputs = Inputs::new();
    fs::create_dir(inputs.at("readonly")).unwrap();
    fs::set_permissions(inputs.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(inputs.at("readonly"), fs::Permissions::from_mode(0o555)).unwrap();
    let build = inputs.build(&["--out", "readonly/image"]);
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
        ])
        .arg(build.get_program())
        .args(build.get_args())
        .current_dir(inputs.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot write readonly/image") && said.contains("Permission denied"),
        "{said}"
    );
    assert_eq!(names(&inputs.at("readonly")), [""; 0]);
}

/// The interrupt comes while xorriso runs, or what is called so here: it says that it has started, and never ends.
#[test]
fn an_interrupt_halfway_leaves_the_old_image_as_it_was() {
    let inputs = Inputs::new();
    succeeded(&inputs.build(&["--out", "image"]).output().unwrap());
    let content = || WHOLE.map(|name| fs::read(inputs.at("image").join(name)).unwrap());
    let before = content();
    let started = inputs.at("started");
    assert!(Command::new("mkfifo").arg(&started).status().unwrap().success());
    fs::create_dir(inputs.at("path")).unwrap();
    let tool = inputs.at("path/xorriso");
    fs::write(&tool, format!("#!/bin/sh\necho > {}\nexec sleep 86400\n", started.display()))
        .unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();

    let path = std::env::var("PATH").unwrap();
    let mut build = inputs.build(&["--out", "image", "--format", "iso"]);
    build.env("PATH", format!("{}:{path}", inputs.at("path").display()));
    let child = build.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Returns when the tool writes.
    fs::read(&started).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stopped; nothing was written"), "{said}");
    assert_eq!(names(&inputs.at("image")), WHOLE);
    assert!(before == content());
}

/// Builds from these units and this config, expects this exit code, and gives what was said.
fn unsound(units: &str, config: &str, code: i32) -> String {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("image");
    let output = Command::new(env!("CARGO_BIN_EXE_osctl"))
        .args(["image", "build", "--units", units, "--config", config])
        .args(["--kernel", "vmlinuz", "--modules", "modules", "--out"])
        .arg(&out)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty());
    assert!(!out.exists());
    said
}

#[test]
fn what_does_not_validate_makes_no_image() {
    let qemu = "machine-configs/qemu.toml";
    let said = unsound("testdata/units/err/cycle", qemu, 1);
    assert!(said.contains("ordering cycle of 3"), "{said}");
    let said = unsound("testdata/units/err/no-deadline", qemu, 1);
    assert!(said.contains("has no deadline"), "{said}");
    let said = unsound("units", "testdata/configs/err/unknown-key.toml", 1);
    assert!(said.contains("unknown key"), "{said}");
    unsound("units", "no-such.toml", 2);
    unsound("no/such/folder", qemu, 2);
}

#[test]
fn a_node_without_processors_is_refused() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_osctl"))
            .args(["image", "run", "no-such-image"])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in [["--cpus", "0"], ["--api-port", "0"]] {
        let (code, said) = run(&arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(arguments[0]) && said.contains("0 is not in 1.."), "{said}");
    }
}

#[test]
fn an_image_is_not_booted_as_its_own_disk() {
    let inputs = Inputs::new();
    succeeded(&inputs.build(&["--out", "image", "--format", "disk"]).output().unwrap());
    std::os::unix::fs::symlink("image/keel.img", inputs.at("soft.img")).unwrap();
    fs::hard_link(inputs.at("image/keel.img"), inputs.at("hard.img")).unwrap();
    for disk in ["image/keel.img", "image/../image/keel.img", "soft.img", "hard.img"] {
        let mut run = inputs.osctl(&["image", "run", "image/keel.img", "--firmware", "bios"]);
        let output = run.args(["--disk", disk]).env("PATH", "").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{disk}: {said}");
        assert!(said.contains("that is the image itself"), "{said}");
        assert!(said.contains("next: name a file that is not there"), "{said}");
    }
}

/// The loader of a disk image has the kernel's arguments, and nobody can add one.
#[test]
fn a_trace_of_a_disk_image_needs_its_loader_to_ask_for_the_report() {
    let inputs = Inputs::new();
    let run = |more: &[&str]| {
        let mut run = inputs.osctl(&["image", "run", "image/keel.img", "--firmware", "bios"]);
        // No QEMU: how far it comes is enough.
        let output = run.args(more).args(["--disk", "d.img"]).env("PATH", "").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    succeeded(&inputs.build(&["--out", "image", "--format", "disk"]).output().unwrap());
    let (code, said) = run(&["--trace", "trace.json"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("next: put keel.report=json into kernel.arguments"), "{said}");
    let (code, said) = run(&["--append", "quiet"]);
    assert_eq!(code, Some(2), "{said}");

    inputs.write("config.toml", "schema = 1\n[kernel]\narguments = [\"keel.report=json\"]\n");
    succeeded(&inputs.build(&["--out", "image", "--format", "disk"]).output().unwrap());
    let (code, said) = run(&["--trace", "trace.json"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot boot the node"), "{said}");
}
