//! Whether a unit's condition holds on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use keel_plan::Report;
use keel_unit::words::Condition;

/// Decides a condition. A path may lie on a filesystem that does not answer, so it is looked for on a blocking thread.
pub(super) async fn report(condition: &Condition) -> Report {
    let condition = condition.clone();
    let exists = |path: &Path| path.exists();
    let check = move || {
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        check(&condition, exists, &command_line)
    };
    match tokio::task::spawn_blocking(check).await {
        Ok(Ok(())) => Report::ConditionMet,
        Ok(Err(unmet)) => Report::ConditionUnmet { why: unmet.into() },
        Err(error) => Report::Failed { why: error.to_string().into() },
    }
}

/// What is unmet, in words; the first of several.
fn check(
    condition: &Condition,
    exists: impl Fn(&Path) -> bool,
    command_line: &str,
) -> Result<(), String> {
    if !condition.when {
        return Err("the machine config does not ask for it".to_owned());
    }
    let find = |paths: &[keel_unit::value::AbsPath], wanted: bool| {
        paths.iter().map(|path| path.as_path().to_owned()).find(|path| exists(path) != wanted)
    };
    let said = |path: PathBuf, what: &str| Err(format!("{} {what}", path.display()));
    if let Some(path) = find(&condition.path_exists, true) {
        return said(path, "does not exist");
    }
    if let Some(path) = find(&condition.path_missing, false) {
        return said(path, "exists");
    }
    let argument = condition.kernel_argument.iter().find(|wanted| {
        !command_line.split_whitespace().any(|word| {
            word == wanted.as_str()
                || word.split_once('=').is_some_and(|(name, _)| name == wanted.as_str())
        })
    });
    match argument {
        Some(argument) => Err(format!("the kernel's command line has no {argument}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_unit::keys::Text;
    use keel_unit::value::{AbsPath, KernelArgument};

    #[test]
    fn conditions() {
        let path = |path: &str| AbsPath::parse(path).unwrap();
        let argument = |argument: &str| KernelArgument::parse(argument).unwrap();
        let check = |change: &dyn Fn(&mut Condition), expect: Result<(), &str>| {
            let mut condition = Condition {
                path_exists: vec![],
                path_missing: vec![],
                kernel_argument: vec![],
                when: true,
            };
            change(&mut condition);
            let exists = |path: &Path| path == Path::new("/there") || path == Path::new("/too");
            let found = check(&condition, exists, "quiet keel.goal=boot debug\n");
            assert_eq!(found, expect.map_err(str::to_owned), "{condition:?}");
        };
        check(&|_| {}, Ok(()));
        check(&|c| c.when = false, Err("the machine config does not ask for it"));
        check(&|c| c.path_exists = vec![path("/there"), path("/too")], Ok(()));
        check(
            &|c| c.path_exists = vec![path("/there"), path("/gone")],
            Err("/gone does not exist"),
        );
        check(&|c| c.path_missing = vec![path("/gone")], Ok(()));
        check(&|c| c.path_missing = vec![path("/gone"), path("/too")], Err("/too exists"));
        check(&|c| c.kernel_argument = vec![argument("debug"), argument("keel.goal")], Ok(()));
        check(&|c| c.kernel_argument = vec![argument("keel.goal=boot")], Ok(()));
        check(
            &|c| c.kernel_argument = vec![argument("keel.goal=storage")],
            Err("the kernel's command line has no keel.goal=storage"),
        );
        check(
            &|c| c.kernel_argument = vec![argument("debu")],
            Err("the kernel's command line has no debu"),
        );
    }
}
