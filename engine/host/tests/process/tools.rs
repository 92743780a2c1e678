//! Tools: programs whose end somebody waits for.

use std::sync::Arc;
use std::time::Duration;

use keel_host::process::{FindCgroups, Reaper, ReaperTools};
use keel_host::tool::{RunTool, Tool, ToolErrorKind, ToolStatus};

use crate::support::{Sandbox, until, walk};

#[tokio::test]
async fn tools_run_to_their_end() {
    let sandbox = Sandbox::new("tools");
    let cgroups = sandbox.cgroups.clone();
    let with_cgroups =
        ReaperTools::new(Reaper::start().unwrap(), Arc::new(move || Some(cgroups.clone())));

    let run = async |tool: Tool| with_cgroups.run(&tool).await;
    let seconds = Duration::from_secs;
    let output =
        run(Tool::new("sh", seconds(20)).args(["-c", "echo out; echo $LC_ALL >&2; exit 4"]))
            .await
            .unwrap();
    assert_eq!((output.status, output.output.as_str()), (ToolStatus::Exited(4), "out\nC\n"));

    let mut reads = Tool::new("wc", seconds(20)).arg("-c");
    reads.stdin = Some(vec![b'x'; 300_000]);
    assert_eq!(run(reads).await.unwrap().last_line(), "300000");

    let mut deaf = Tool::new("true", seconds(20));
    deaf.stdin = Some(vec![b'x'; 300_000]);
    assert!(run(deaf).await.unwrap().success());

    let missing = run(Tool::new("keel-no-such-tool", seconds(20))).await.unwrap_err();
    assert!(matches!(missing.kind, ToolErrorKind::NotFound), "{missing}");
    let missing = run(Tool::new("/no/such/tool", seconds(20))).await.unwrap_err();
    assert!(matches!(missing.kind, ToolErrorKind::NotFound), "{missing}");

    // It outlives its timeout with a child that left its session: both end, and so does the cgroup.
    let hang =
        Tool::new("sh", Duration::from_millis(300)).args(["-c", "setsid sleep 1000 & sleep 1000"]);
    let late = run(hang).await.unwrap_err();
    assert!(matches!(late.kind, ToolErrorKind::TimedOut(_)), "{late}");
    until("the tools' cgroups are gone", || walk(sandbox.cgroups.base()).len() == 1).await;
}

#[tokio::test]
async fn a_tool_needs_no_cgroup() {
    let tools = ReaperTools::new(Reaper::start().unwrap(), Arc::new(|| None));
    let output = tools.run(&Tool::new("echo", Duration::from_secs(20)).arg("early")).await.unwrap();
    assert_eq!(output.output, "early\n");
    let hang = Tool::new("sh", Duration::from_millis(300)).args(["-c", "sleep 1000 & sleep 1000"]);
    let late = tools.run(&hang).await.unwrap_err();
    assert!(matches!(late.kind, ToolErrorKind::TimedOut(_)), "{late}");
}

/// Whoever waits for a tool may give up: then the tool ends, with or without a cgroup.
#[tokio::test]
async fn a_tool_ends_when_nobody_waits_for_it() {
    let sandbox = Sandbox::new("giveup");
    let reaper = Reaper::start().unwrap();
    let cgroups = sandbox.cgroups.clone();
    let places: [FindCgroups; 2] = [Arc::new(|| None), Arc::new(move || Some(cgroups.clone()))];
    for place in places {
        let tools = ReaperTools::new(reaper.clone(), place);
        let hang = Tool::new("sleep", Duration::from_secs(100)).arg("1000");
        let given_up = tokio::time::timeout(Duration::from_millis(200), tools.run(&hang)).await;
        assert!(given_up.is_err());
        tokio::time::timeout(Duration::from_secs(20), reaper.childless())
            .await
            .expect("the tool is gone");
    }
    until("the tools' cgroups are gone", || walk(sandbox.cgroups.base()).len() == 1).await;
}
