//! Programs of other packages that a test runs beside those of its own.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

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

/// Whether a program was built here, and is younger than all that it was made from.
fn is_current(program: &Path) -> bool {
    let Some(built) = changed(program) else { return false };
    let sources = match fs::read_to_string(program.with_extension("d")) {
        Ok(list) => listed(&list, program),
        // Cargo lists the sources of what it was asked for. A program that it built because the tests of its package run it has no list.
        Err(error) if error.kind() == ErrorKind::NotFound && is_linked(program) => workspace(),
        Err(_) => None,
    };
    sources.is_some_and(|all| all.iter().all(|path| changed(path).is_some_and(|at| at <= built)))
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The files in a list such as `target/debug/a: src/a.rs src/with\ space.rs`, if it is the list of this program: a folder that was
/// copied holds those of the place that it came from.
fn listed(list: &str, of: &Path) -> Option<Vec<PathBuf>> {
    let (program, files) = list.lines().next()?.split_once(": ")?;
    let plain = |path: &str| PathBuf::from(path.replace("\\ ", " "));
    let files = files.replace("\\ ", "\0");
    (plain(program) == of)
        .then(|| files.split_whitespace().map(|file| file.replace('\0', " ").into()).collect())
}

/// Whether a program is the very file that cargo built among its dependencies, in this place.
fn is_linked(program: &Path) -> bool {
    let same = |path: &Path| {
        let (one, other) = (fs::metadata(path).ok()?, fs::metadata(program).ok()?);
        Some((one.dev(), one.ino()) == (other.dev(), other.ino()))
    };
    let built = |path: &Path| {
        let list = fs::read_to_string(path.with_added_extension("d")).ok()?;
        let list = list.lines().find(|line| line.starts_with(&format!("{}: ", path.display())))?;
        listed(list, path)
    };
    let folder = program.with_file_name("deps");
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut twins = files.filter(|path| path != program && same(path) == Some(true));
    twins.any(|path| built(&path).is_some())
}

/// Every file that a program of this workspace may be made from.
fn workspace() -> Option<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let mut files = vec![root.join("Cargo.toml"), root.join("Cargo.lock")];
    let crates = fs::read_dir(root.join("engine")).ok()?.flatten().map(|entry| entry.path());
    for package in crates.chain(["osctl", "proto"].map(|name| root.join(name))) {
        files.push(package.join("Cargo.toml"));
        let mut folders = vec![package.join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).ok()?.flatten() {
                match entry.file_type().ok()?.is_dir() {
                    true => folders.push(entry.path()),
                    false => files.push(entry.path()),
                }
            }
        }
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A folder as cargo builds into one.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder =
                env::temp_dir().join(format!("keel-testkit-{name}-{}", std::process::id()));
            fs::create_dir_all(folder.join("deps")).unwrap();
            Self(folder)
        }

        fn at(&self, name: &str, time: SystemTime) -> PathBuf {
            let path = self.0.join(name);
            File::create(&path).unwrap().set_modified(time).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_program_is_current_until_a_source_of_it_changes() {
        let folder = Folder::new("listed");
        let at = |name: &str, seconds| {
            folder.at(name, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        };
        let program = at("agent", 20);
        assert!(!is_current(&program), "nobody knows what it was made from");
        let (one, two) = (at("one.rs", 10), at("the other.rs", 20));
        let list = format!("{}: {} {}\n", program.display(), one.display(), two.display());
        let list = list.replace("the other", "the\\ other");
        fs::write(folder.0.join("agent.d"), &list).unwrap();
        assert!(is_current(&program));
        at("the other.rs", 21);
        assert!(!is_current(&program));
        at("the other.rs", 20);
        fs::write(folder.0.join("agent.d"), format!("/elsewhere{list}")).unwrap();
        assert!(!is_current(&program), "the list is of another place's program");
        fs::write(folder.0.join("agent.d"), &list).unwrap();
        fs::remove_file(one).unwrap();
        assert!(!is_current(&program));
    }

    #[test]
    fn a_program_without_a_list_is_current_where_cargo_built_it_after_every_change() {
        let folder = Folder::new("linked");
        let later = SystemTime::now() + Duration::from_secs(60);
        let built = folder.at("deps/agent-3822", later);
        let program = folder.0.join("agent");
        fs::hard_link(&built, &program).unwrap();
        assert!(!is_current(&program), "nobody knows where it was built");
        let say = |place: &Path| {
            let place = place.display();
            let list = format!("{place}.d: src/main.rs\n\n{place}: src/main.rs\n\nsrc/main.rs:\n");
            fs::write(folder.0.join("deps/agent-3822.d"), list).unwrap();
        };
        say(&built);
        assert!(is_current(&program));
        say(Path::new("/elsewhere/deps/agent-3822"));
        assert!(!is_current(&program), "it was built elsewhere");
        say(&built);
        folder.at("agent", SystemTime::UNIX_EPOCH);
        assert!(!is_current(&program), "older than the workspace");
        fs::remove_file(&program).unwrap();
        fs::copy(&built, &program).unwrap();
        assert!(!is_current(&program), "a copy");
    }
}
