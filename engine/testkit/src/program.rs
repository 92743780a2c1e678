//! Programs of other packages that a test runs beside those of its own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program of a package, as its sources are now. `own` is a program of the package under test, and tells where cargo builds:
/// `env!("CARGO_BIN_EXE_…")`.
///
/// Where the whole workspace is tested, cargo has built it already. Where one package is, it may be missing or older than its
/// sources; then cargo builds it here.
///
/// # Panics
/// If cargo cannot build it.
#[must_use]
pub fn program(own: &str, package: &str) -> PathBuf {
    let own = Path::new(own);
    let program = own.with_file_name(package);
    if is_current(&program) {
        return program;
    }
    let folder = own.parent().expect("cargo builds into a folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", package, "--bin", package, "--profile", profile])
        .arg("--target-dir")
        .arg(folder.parent().expect("a folder for each profile"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "cargo does not build {package}");
    program
}

/// Whether a program is younger than all that it was made from, which cargo lists beside it.
fn is_current(program: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let (Some(built), Ok(list)) =
        (changed(program), fs::read_to_string(program.with_extension("d")))
    else {
        return false;
    };
    sources(&list).all(|source| changed(Path::new(&source)).is_some_and(|at| at <= built))
}

/// The files in a list such as `target/debug/a: src/a.rs src/with\ space.rs`.
fn sources(list: &str) -> impl Iterator<Item = String> {
    let (_, files) = list.split_once(": ").unwrap_or_default();
    let files = files.replace("\\ ", "\0");
    let files: Vec<_> = files.split_whitespace().map(|file| file.replace('\0', " ")).collect();
    files.into_iter()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_program_is_current_until_a_source_of_it_changes() {
        let folder = env::temp_dir().join(format!("keel-testkit-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let at = |name: &str, seconds| {
            let path = folder.join(name);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            File::create(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let program = at("agent", 20);
        assert!(!is_current(&program), "nobody knows what it was made from");
        let (one, two) = (at("one.rs", 10), at("the other.rs", 20));
        let list = format!("{}: {} {}\n", program.display(), one.display(), two.display());
        fs::write(folder.join("agent.d"), list.replace("the other", "the\\ other")).unwrap();
        assert!(is_current(&program));
        at("the other.rs", 21);
        assert!(!is_current(&program));
        at("the other.rs", 20);
        fs::remove_file(one).unwrap();
        assert!(!is_current(&program));
        fs::remove_dir_all(folder).unwrap();
    }
}
