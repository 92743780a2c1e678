//! docs/ci/github-actions.yml: its own command lines, run as GitHub's runner runs them, in a clone with two branches.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const WORKFLOW: &str = "docs/ci/github-actions.yml";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn workflow() -> Value {
    serde_saphyr::from_str(&fs::read_to_string(root().join(WORKFLOW)).unwrap()).unwrap()
}

/// The steps of the one job that are command lines: name, text, whether they run after a failure.
fn steps(workflow: &Value) -> Vec<(String, String, bool)> {
    let steps = workflow["jobs"]["boot"]["steps"].as_array().unwrap();
    let text = |step: &Value, key: &str| step[key].as_str().map(str::to_owned);
    let run = |step: &Value| {
        let run = text(step, "run")?;
        let always = text(step, "if").as_deref() == Some("always()");
        Some((text(step, "name").unwrap(), run, always))
    };
    steps.iter().filter_map(run).collect()
}

/// A pull request: origin with a base branch, and a checkout of another branch with one change.
struct PullRequest {
    folder: TempDir,
}

impl PullRequest {
    fn new(change: impl Fn(&Path)) -> Self {
        let pull_request = Self { folder: TempDir::new().unwrap() };
        let origin = pull_request.path("origin");
        for folder in ["units", "machine-configs"] {
            copy(&root().join(folder), &origin.join(folder));
        }
        let git = |line: &str| pull_request.git(&origin, line);
        git("init --quiet --initial-branch main");
        git("add --all");
        git("commit --quiet --message base");
        git("checkout --quiet -b change");
        change(&origin);
        git("commit --quiet --all --message change");
        let clone =
            format!("clone --quiet {} {}", origin.display(), pull_request.path("work").display());
        pull_request.git(pull_request.folder.path(), &clone);
        pull_request
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn git(&self, folder: &Path, line: &str) {
        let status = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
            .args(line.split(' '))
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status()
            .unwrap();
        assert!(status.success(), "git {line}");
    }

    /// Runs the job: how each step went that ran.
    fn job(&self) -> Vec<(String, Output)> {
        let workflow = workflow();
        let mut ended: Vec<(String, Output)> = Vec::new();
        for (name, text, always) in steps(&workflow) {
            let failed = ended.iter().any(|(_, output)| !output.status.success());
            // Building osctl takes minutes, and the one under test is what it would build.
            if name == "Install osctl" || (failed && !always) {
                continue;
            }
            ended.push((name, self.step(&workflow, &text)));
        }
        ended
    }

    /// As <https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax> says of `shell: bash`.
    fn step(&self, workflow: &Value, text: &str) -> Output {
        assert_eq!(workflow["defaults"]["run"]["shell"], "bash");
        let script = self.path("step.sh");
        fs::write(&script, text).unwrap();
        let osctl = Path::new(env!("CARGO_BIN_EXE_osctl")).parent().unwrap();
        let path = format!("{}:{}", osctl.display(), env::var("PATH").unwrap());
        let variables = workflow["env"].as_object().unwrap().iter();
        Command::new("bash")
            .args(["--noprofile", "--norc", "-e", "-o", "pipefail"])
            .arg(&script)
            .current_dir(self.path("work"))
            .envs(variables.map(|(name, value)| (name, value.as_str().unwrap())))
            .env("PATH", path)
            .env("GITHUB_BASE_REF", "main")
            .env("GITHUB_STEP_SUMMARY", self.path("summary.md"))
            .output()
            .unwrap()
    }

    fn summary(&self) -> String {
        let summary = fs::read_to_string(self.path("summary.md")).unwrap();
        assert_eq!(summary.matches("```").count() % 2, 0, "a block is left open:\n{summary}");
        summary
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let into = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &into),
            false => fs::write(into, fs::read(path).unwrap()).unwrap(),
        }
    }
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{}", file.display());
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// The names of the steps that failed.
fn failed(ended: &[(String, Output)]) -> Vec<&str> {
    let bad = ended.iter().filter(|(_, output)| !output.status.success());
    bad.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_good_change_passes_and_is_shown() {
    let pull_request = PullRequest::new(|repository| {
        let unit = "description = \"A new one\"\npart-of = \"services\"\nafter = [\"containerd\"]\n\n\
                    [oneshot]\nexec = [\"/usr/bin/new\"]\ntimeout = \"5s\"\n";
        fs::write(repository.join("units/services/newcomer.toml"), unit).unwrap();
        let added = Command::new("git").args(["add", "--all"]).current_dir(repository).status();
        assert!(added.unwrap().success());
    });
    let ended = pull_request.job();
    assert_eq!(failed(&ended), Vec::<&str>::new(), "{ended:#?}");
    assert_eq!(ended.len(), 5, "every step ran");
    let summary = pull_request.summary();
    for shown in ["```mermaid\n", "newcomer", "Whatever fails"] {
        assert!(summary.contains(shown), "{shown} is not in the summary:\n{summary}");
    }
    let sarif = fs::read_to_string(pull_request.path("work").join("boot.sarif")).unwrap();
    let sarif: Value = serde_json::from_str(&sarif).unwrap();
    assert_eq!(sarif["runs"][0]["results"], Value::Array(vec![]));
}

#[test]
fn a_finding_stops_the_job_and_is_annotated() {
    let pull_request = PullRequest::new(|repository| {
        replace(&repository.join("units/storage/data.toml"), "filesystem.data", "filesystem.date");
    });
    let ended = pull_request.job();
    assert_eq!(failed(&ended), ["Validate every machine config"]);
    let printed = String::from_utf8_lossy(&ended[0].1.stdout);
    assert!(printed.contains("::error file=units/storage/data.toml,line=3,"), "{printed}");
    assert_eq!(printed.matches("::error ").count(), 1, "once, not once for each config: {printed}");
    let sarif = fs::read_to_string(pull_request.path("work").join("boot.sarif")).unwrap();
    let sarif: Value = serde_json::from_str(&sarif).unwrap();
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "unknown-unit");
    let place = &result["locations"][0]["physicalLocation"]["artifactLocation"];
    assert_eq!(place["uri"], "units/storage/data.toml");
}

#[test]
fn a_boot_beyond_its_budget_fails_the_job() {
    let pull_request = PullRequest::new(|repository| {
        let unit = repository.join("units/services/containerd.toml");
        replace(&unit, "part-of = ", "duration = \"10m\"\npart-of = ");
        replace(&unit, "\ntimeout = \"90s\"", "\ntimeout = \"20m\"");
    });
    let ended = pull_request.job();
    assert_eq!(failed(&ended), ["Prove the boot"], "{ended:#?}");
    let summary = pull_request.summary();
    assert!(summary.contains("BROKEN  the boot takes 10"), "{summary}");
}

#[test]
fn a_node_that_one_failure_makes_unreachable_fails_the_job() {
    let pull_request = PullRequest::new(|repository| {
        let unit = repository.join("units/services/keel-agent.toml");
        replace(&unit, "part-of = ", "requires = [\"containerd\"]\npart-of = ");
    });
    assert_eq!(failed(&pull_request.job()), ["Prove the boot"]);
    let summary = pull_request.summary();
    assert!(summary.contains("BROKEN  keel-agent is active"), "{summary}");
}

#[test]
fn the_workflow_installs_what_is_there() {
    let steps = steps(&workflow());
    let install = steps.iter().find(|(name, ..)| name == "Install osctl").unwrap();
    assert_eq!(install.1, "cargo install --locked --path osctl");
    assert!(root().join("osctl/Cargo.toml").exists());
}
