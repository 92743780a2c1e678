//! Debian packages: those that are installed on this machine, and those that are only unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Failure, command, output, run, succeeds};
use crate::progress::say;

/// A package as the package lists have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Its file name in a mirror's pool.
    pub(crate) file: String,
    pub(crate) sha256: String,
    /// What it depends on first: the real package, for a metapackage.
    pub(crate) first_dependency: Option<String>,
}

/// Installs those packages that are missing.
pub(crate) fn install(packages: &[&str]) -> Result<(), Failure> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    need_apt(&missing)?;
    say(&format!("    installing {}", missing.join(" ")));
    let install = || {
        let mut apt = as_root("apt-get")?;
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        run(apt.args(["install", "--yes", "--quiet=2", "--no-install-recommends"]).args(&missing))
    };
    // Lists that are days old name files that the mirror has replaced.
    install().or_else(|_| update().and_then(|()| install()))
}

fn is_installed(name: &str) -> bool {
    let status =
        command("dpkg-query", ["--show", "--showformat=${db:Status-Status}", name]).output();
    status.is_ok_and(|out| out.stdout == b"installed")
}

fn need_apt(missing: &[&str]) -> Result<(), Failure> {
    if succeeds(&mut command("apt-get", ["--version"])) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "there is no apt-get here; install these by hand: {}",
        missing.join(" ")
    )))
}

/// A command that runs as root: as it is, or through sudo.
fn as_root(program: &str) -> Result<Command, Failure> {
    if output(&mut command("id", ["-u"]))?.trim() == "0" {
        return Ok(Command::new(program));
    }
    if !succeeds(&mut command("sudo", ["--version"])) {
        return Err(Failure::new(format!(
            "{program} needs root, and there is no sudo: run `cargo xtask setup` as root"
        )));
    }
    Ok(command("sudo", ["--preserve-env=DEBIAN_FRONTEND", program]))
}

fn update() -> Result<(), Failure> {
    say("    fetching package lists");
    run(as_root("apt-get")?.args(["update", "--quiet=2"]))
}

/// The packages of those names that apt would install. Fetches the package lists if they know
/// nothing, as on a fresh machine or in a container.
pub(crate) fn candidates(names: &[&str]) -> Result<Vec<Package>, Failure> {
    // One call: each costs apt a second of reading its lists.
    let show = || output(command("apt-cache", ["show", "--no-all-versions"]).args(names));
    let records = show().or_else(|_| update().and_then(|()| show()))?;
    let known: Vec<Package> = records.split("\n\n").filter_map(parse_record).collect();
    let find = |name: &str| known.iter().find(|package| package.name == name).cloned();
    let unknown = |name| Failure::new(format!("apt-cache does not know where to get {name}"));
    names.iter().map(|name| find(name).ok_or_else(|| unknown(name))).collect()
}

/// Downloads a package into a directory, unless it is there and whole. Returns its path.
pub(crate) fn download(package: &Package, dir: &Path) -> Result<PathBuf, Failure> {
    let path = dir.join(&package.file);
    if is_whole(&path, &package.sha256) {
        return Ok(path);
    }
    say(&format!("    downloading {} {}", package.name, package.version));
    // apt names the file after the version as it sees fit, so it gets a directory of its own.
    let place = tempfile::tempdir_in(dir)
        .map_err(Failure::because("cannot make a directory in the cache"))?;
    let wanted = format!("{}={}", package.name, package.version);
    run(command("apt-get", ["download", "--quiet=2", "-o", "APT::Sandbox::User=root", &wanted])
        .current_dir(&place))?;
    let mut files = fs::read_dir(&place).map_err(Failure::because("cannot read the cache"))?;
    let got = files
        .find_map(|entry| Some(entry.ok()?.path()))
        .filter(|got| is_whole(got, &package.sha256));
    let got = got.ok_or_else(|| {
        Failure::new(format!("what apt-get downloaded is not {wanted}: wrong checksum"))
    })?;
    fs::rename(got, &path).map_err(Failure::because("cannot move the package into the cache"))?;
    Ok(path)
}

fn is_whole(path: &Path, sha256: &str) -> bool {
    // The tool is many times faster than an unoptimised build of a library.
    path.exists()
        && output(Command::new("sha256sum").arg("--").arg(path))
            .is_ok_and(|out| out.starts_with(sha256))
}

fn parse_record(record: &str) -> Option<Package> {
    let field = |name: &str| {
        let value = record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(str::to_owned)
    };
    let file = field("Filename")?.rsplit('/').next()?.to_owned();
    let depends = field("Depends").unwrap_or_default();
    let first = depends.split([' ', ',']).next().filter(|name| !name.is_empty());
    Some(Package {
        name: field("Package")?,
        version: field("Version")?,
        file,
        sha256: field("SHA256")?,
        first_dependency: first.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_file_and_checksum() {
        let record = "Package: runc\nVersion: 1.1.5+ds1-1+deb12u1\nDepends: libc6 (>= 2.34)\n\
                      Description-en: runs\n Version: not this one\n\
                      Filename: pool/main/r/runc/runc_1.1.5+ds1-1+deb12u1_amd64.deb\nSize: 2\nSHA256: ab12\n";
        let expect = Package {
            name: "runc".into(),
            version: "1.1.5+ds1-1+deb12u1".into(),
            file: "runc_1.1.5+ds1-1+deb12u1_amd64.deb".into(),
            sha256: "ab12".into(),
            first_dependency: Some("libc6".into()),
        };
        assert_eq!(parse_record(record), Some(expect));
        assert_eq!(parse_record("Package: virtual\n"), None);
    }

    #[test]
    fn a_cut_off_file_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.deb");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(!is_whole(&path, abc));
        fs::write(&path, "ab").unwrap();
        assert!(!is_whole(&path, abc));
        fs::write(&path, "abc").unwrap();
        assert!(is_whole(&path, abc));
    }
}
