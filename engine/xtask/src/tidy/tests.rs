//! A small workspace with our names in it, broken in one place at a time; and our own workspace, which must be tidy.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// The crates of the small workspace: name, folder, what it depends on.
const CRATES: &[(&str, &str, &[&str])] = &[
    ("keel-unit", "engine/unit", &[]),
    ("keel-plan", "engine/plan", &["keel-unit"]),
    ("keel-exec", "engine/exec", &["keel-plan", "tokio"]),
    ("keel-host", "engine/host", &["keel-exec", "nix", "gptman", "rtnetlink"]),
    ("keel-control", "engine/control", &["tokio"]),
    ("keel-init", "engine/init", &["keel-host", "keel-control", "nix"]),
    ("keel-agent", "engine/agent", &["keel-control", "keel-proto", "rustls", "tonic"]),
    ("keel-proto", "proto", &["prost", "tonic"]),
    ("osctl", "osctl", &["keel-plan", "keel-proto", "clap", "rustls", "tonic"]),
];

/// Crates of others, each an empty library in `vendor`.
const VENDORED: &[&str] = &[
    "tokio",
    "petgraph",
    "nix",
    "libc",
    "gptman",
    "rtnetlink",
    "rustls",
    "tonic",
    "prost",
    "clap",
    "serde",
];

/// A workspace on disk that has nothing to find; each test spoils it.
struct Tree(TempDir);

impl Tree {
    fn tidy() -> Self {
        let tree = Self(TempDir::new().unwrap());
        tree.write(
            "Cargo.toml",
            "[workspace]\nresolver = \"3\"\nmembers = [\"engine/*\", \"osctl\", \"proto\"]\nexclude = [\"vendor\"]\n\n\
             [workspace.lints.rust]\nunsafe_code = \"deny\"\n",
        );
        for name in VENDORED {
            tree.write(&format!("vendor/{name}/Cargo.toml"), &manifest(name, 3, &[]));
            tree.write(&format!("vendor/{name}/src/lib.rs"), "");
        }
        for (name, folder, dependencies) in CRATES {
            let up = folder.split('/').count();
            let text = manifest(name, up, dependencies) + "\n[lints]\nworkspace = true\n";
            tree.write(&format!("{folder}/Cargo.toml"), &text);
            tree.write(&format!("{folder}/src/lib.rs"), "//! A room.\n");
        }
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn depend(&self, folder: &str, section: &str, on: &str) {
        let path = self.0.path().join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&path).unwrap();
        let line = dependency(on, folder.split('/').count());
        let section = format!("[{section}]\n");
        let text = match text.contains(&section) {
            true => text.replace(&section, &format!("{section}{line}")),
            false => format!("{text}\n{section}{line}"),
        };
        fs::write(path, text).unwrap();
    }

    fn findings(&self) -> Vec<String> {
        findings(self.0.path()).unwrap().iter().map(Finding::to_string).collect()
    }

    /// Without asking cargo, which takes its time.
    fn findings_in_sources(&self) -> Vec<String> {
        let root = self.0.path();
        let of = |(name, folder, _): &(&str, &str, _)| {
            sources::findings(root, name, &root.join(folder)).unwrap()
        };
        CRATES.iter().flat_map(of).map(|finding| finding.to_string()).collect()
    }
}

/// A crate's manifest; its folder lies `up` folders below the root.
fn manifest(name: &str, up: usize, dependencies: &[&str]) -> String {
    let lines: String = dependencies.iter().map(|on| dependency(on, up)).collect();
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{lines}"
    )
}

fn dependency(on: &str, up: usize) -> String {
    let ours =
        CRATES.iter().find(|(name, ..)| *name == on).map(|(_, folder, _)| (*folder).to_owned());
    let folder = ours.unwrap_or_else(|| format!("vendor/{on}"));
    format!("{on} = {{ path = \"{}{folder}\" }}\n", "../".repeat(up))
}

/// A tidy workspace in which this crate depends on that one, too.
fn check_dependency(folder: &str, on: &str, expect: &[&str]) {
    let tree = Tree::tidy();
    tree.depend(folder, "dependencies", on);
    assert_eq!(tree.findings(), expect, "{folder} depends on {on}");
    let tree = Tree::tidy();
    // osctl's own tests may know everything; cargo itself refuses a circle.
    if !on.starts_with("keel-") {
        tree.depend(folder, "dev-dependencies", on);
        assert_eq!(tree.findings(), [""; 0], "{folder} depends on {on} for its tests alone");
    }
}

/// A tidy workspace with this text in a file.
fn check_source(path: &str, text: &str, expect: &[&str]) {
    let tree = Tree::tidy();
    tree.write(path, text);
    assert_eq!(tree.findings_in_sources(), expect, "{path}: {text}");
}

#[test]
fn this_workspace_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let found: Vec<_> = findings(&root).unwrap().iter().map(Finding::to_string).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_small_workspace_is_tidy_until_it_is_spoilt() {
    assert_eq!(Tree::tidy().findings(), [""; 0]);
}

#[test]
fn invariant_1_units_and_plans_are_pure() {
    check_dependency(
        "engine/unit",
        "tokio",
        &[
            "keel-plan: links tokio, by way of keel-unit -> tokio",
            "keel-unit: links tokio, by way of tokio",
        ],
    );
    check_dependency("engine/unit", "petgraph", &["keel-unit: links petgraph, by way of petgraph"]);
    check_dependency(
        "engine/unit",
        "keel-proto",
        &[
            "keel-init: links tonic, by way of \
             keel-host -> keel-exec -> keel-plan -> keel-unit -> keel-proto -> tonic",
            "keel-unit: links keel-proto, by way of keel-proto",
        ],
    );
    check_dependency("engine/plan", "tokio", &["keel-plan: links tokio, by way of tokio"]);
    let plan = "engine/plan/src/lib.rs";
    let no_machine = "engine/plan/src/lib.rs:2: `std::fs`: the plan touches no machine";
    check_source(plan, "//! A room.\nuse std::fs;\n", &[no_machine]);
    check_source(plan, "//! A room.\nuse std::{fs, io};\n", &[no_machine]);
    check_source(
        plan,
        "//! A room.\nfn f() { std::fs::read(\"x\"); }\n",
        &["engine/plan/src/lib.rs:2: `std::fs::read`: the plan touches no machine"],
    );
    check_source(
        plan,
        "//! A room.\nuse std::time::{Duration, Instant};\n",
        &[
            "engine/plan/src/lib.rs:2: `std::time::Instant`: time is passed to the plan: it has no clock",
        ],
    );
    check_source(
        plan,
        "//! A room.\nuse std::time;\nfn f() { time::SystemTime::now(); }\n",
        &[
            "engine/plan/src/lib.rs:3: `time::SystemTime::now`: time is passed to the plan: it has no clock",
        ],
    );
    check_source(
        plan,
        "//! A room.\n// std::fs and Instant::now\nfn f() -> &str { \"std::fs\" }\n",
        &[],
    );
    check_source(plan, "//! A room.\n#[cfg(test)]\nmod tests { use std::fs; }\n", &[]);
    check_source("engine/plan/tests/files.rs", "//! Golden files.\nuse std::fs;\n", &[]);
}

#[test]
fn invariant_2_exec_knows_no_host() {
    check_dependency(
        "engine/exec",
        "nix",
        &[
            "keel-exec: depends on nix, which is for keel-host and keel-init alone",
            "keel-exec: links nix, by way of nix",
        ],
    );
    let tree = Tree::tidy();
    // The other way round first: cargo refuses a circle.
    tree.write(
        "engine/host/Cargo.toml",
        &(manifest("keel-host", 2, &["nix"]) + "\n[lints]\nworkspace = true\n"),
    );
    tree.depend("engine/exec", "dependencies", "keel-host");
    assert_eq!(
        tree.findings(),
        [
            "keel-exec: links keel-host, by way of keel-host",
            "keel-exec: links nix, by way of keel-host -> nix",
        ]
    );
}

#[test]
fn invariant_3_the_kernel_is_for_two_rooms_and_unsafe_for_one() {
    for on in ["nix", "libc", "gptman", "rtnetlink"] {
        let expect = format!("osctl: depends on {on}, which is for keel-host and keel-init alone");
        check_dependency("osctl", on, &[&expect]);
    }
    check_dependency("engine/init", "libc", &[]);
    check_source(
        "engine/control/src/lib.rs",
        "//! A room.\nfn f() { nix::unistd::sync(); }\n",
        &[
            "engine/control/src/lib.rs:2: `nix::unistd::sync`: the kernel is for keel-host and keel-init alone",
        ],
    );
    check_source(
        "engine/init/src/lib.rs",
        "//! A room.\nfn f() { unsafe { g() } }\n",
        &["engine/init/src/lib.rs:2: `unsafe`: only keel-host may hold unsafe code"],
    );
    check_source(
        "engine/init/src/lib.rs",
        "//! A room.\n#![expect(unsafe_code, reason = \"haste\")]\n",
        &["engine/init/src/lib.rs:2: `unsafe_code`: only keel-host may hold unsafe code"],
    );
    check_source(
        "engine/init/tests/a.rs",
        "//! A test.\n#[unsafe(no_mangle)]\nfn f() {}\n",
        &["engine/init/tests/a.rs:2: `unsafe`: only keel-host may hold unsafe code"],
    );
    check_source("engine/host/src/lib.rs", "//! A room.\nfn f() { unsafe { nix::g() } }\n", &[]);
    let tree = Tree::tidy();
    tree.write("osctl/Cargo.toml", &manifest("osctl", 1, &[]));
    assert_eq!(tree.findings(), ["osctl: its Cargo.toml does not take the lints of the workspace"]);
}

#[test]
fn invariant_4_init_stays_small_and_the_agent_outside() {
    for on in ["tonic", "rustls", "clap"] {
        let expect = format!("keel-init: links {on}, by way of {on}");
        check_dependency("engine/init", on, &[&expect]);
    }
    check_dependency(
        "engine/host",
        "rustls",
        &["keel-init: links rustls, by way of keel-host -> rustls"],
    );
    check_dependency(
        "engine/agent",
        "keel-plan",
        &[
            "keel-agent: depends on keel-plan; of keel-* it may name [\"keel-control\", \"keel-proto\"]",
        ],
    );
    check_dependency(
        "engine/agent",
        "keel-init",
        &[
            "keel-agent: depends on keel-init; of keel-* it may name [\"keel-control\", \"keel-proto\"]",
        ],
    );
}

#[test]
fn invariant_5_osctl_runs_on_every_laptop() {
    check_dependency("osctl", "keel-exec", &["osctl: links keel-exec, by way of keel-exec"]);
    check_dependency(
        "osctl",
        "keel-host",
        &[
            "osctl: links keel-exec, by way of keel-host -> keel-exec",
            "osctl: links keel-host, by way of keel-host",
        ],
    );
    check_source(
        "osctl/src/lib.rs",
        "//! A room.\n#[cfg(target_os = \"linux\")]\nuse std::os::linux::net::SocketAddrExt;\n",
        &[
            "osctl/src/lib.rs:2: `target_os`: osctl holds no Linux-only code",
            "osctl/src/lib.rs:3: `std::os::linux::net::SocketAddrExt`: osctl holds no Linux-only code",
        ],
    );
    check_source(
        "engine/agent/src/lib.rs",
        "//! A room.\nuse std::os::linux::net::SocketAddrExt;\n",
        &[],
    );
}

#[test]
fn invariant_6_the_wire_has_types_of_its_own() {
    check_dependency(
        "proto",
        "serde",
        &[
            "keel-proto: depends on serde; of * it may name [\"prost\", \"prost-types\", \"tonic\", \"tonic-prost\"]",
        ],
    );
    check_dependency(
        "engine/control",
        "keel-plan",
        &["keel-control: depends on keel-plan; of keel-* it may name []"],
    );
    check_source(
        "proto/src/lib.rs",
        "//! A room.\npub fn logic() {}\n",
        &["proto/src/lib.rs:2: `fn`: keel-proto holds no logic"],
    );
    check_source("proto/src/gen/keel.v1.rs", "impl X { fn f() { unsafe {} } }", &[]);
    check_source(
        "engine/unit/src/lib.rs",
        "//! A room.\n#[derive(serde::Serialize)]\nstruct S;\n",
        &[
            "engine/unit/src/lib.rs:2: `serde::Serialize`: internal types are not serialised as they are",
        ],
    );
}

#[test]
fn habits_that_no_lint_knows() {
    let file = "engine/unit/src/x.rs";
    let place = |line: usize, what: &str| format!("engine/unit/src/x.rs:{line}: {what}");
    let say_why = place(1, "its first line does not say why it exists (`//!`)");
    check_source(file, "struct S;\n", &[&say_why]);
    check_source(file, "", &[&say_why]);
    let lines = |count: usize| "//! Long.\n".to_owned() + &"const _: () = ();\n".repeat(count - 1);
    check_source(file, &lines(600), &[]);
    check_source(
        file,
        &lines(601),
        &[&place(601, "601 lines before its tests; split it before 600")],
    );
    check_source(
        file,
        &(lines(600) + "#[cfg(test)]\nmod tests {\n" + &"\n".repeat(500) + "}\n"),
        &[],
    );
    let mark = concat!("TO", "DO");
    let unfinished = place(2, &format!("`{mark}`: do it, or write an issue"));
    check_source(file, &format!("//! A file.\n// {mark}: later\n"), &[&unfinished]);
    check_source(file, &format!("//! A file.\n// {mark}S are fine\n"), &[]);
    let undone = place(2, "`todo!`: nothing is left undone");
    check_source(file, "//! A file.\nfn f() { todo!() }\n", &[&undone]);
    check_source(
        "engine/unit/tests/x.rs",
        "//! Tests.\n#[ignore = \"slow\"]\nfn f() {}\n",
        &["engine/unit/tests/x.rs:2: `ignore`: a test that does not run proves nothing"],
    );
    check_source(
        "engine/unit/src/utils.rs",
        "//! A file.\n",
        &["engine/unit/src/utils.rs:1: the name `utils` says nothing"],
    );
    check_source(
        "engine/unit/src/manager/mod.rs",
        "//! A file.\n",
        &["engine/unit/src/manager/mod.rs:1: the name `manager` says nothing"],
    );
    check_source(file, "//! A file.\nfn {\n", &[&place(1, "is no Rust")]);
}
