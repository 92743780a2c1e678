//! Which Debian package a file of this machine belongs to, as dpkg knows it. Where there is no dpkg, no file has a package.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A package of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianPackage {
    /// Its name, without the architecture.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is built for.
    pub architecture: String,
}

/// The packages of these files. One call each to find the owners and their versions, however many files there are.
#[must_use]
pub fn owners(files: &[PathBuf]) -> BTreeMap<PathBuf, DebianPackage> {
    // A file is known by the path that its package has, which may be the one from before the merge of /usr.
    let mut asked: BTreeMap<String, &Path> = BTreeMap::new();
    for file in files {
        let real = file.canonicalize().unwrap_or_else(|_| file.clone());
        for path in [file.as_path(), &real] {
            let Some(path) = path.to_str() else { continue };
            let other = path.strip_prefix("/usr").map_or(format!("/usr{path}"), str::to_owned);
            asked.insert(path.to_owned(), file);
            asked.entry(other).or_insert(file);
        }
    }
    if asked.is_empty() {
        return BTreeMap::new();
    }
    let found = ask("--search", asked.keys());
    let owned: Vec<(&str, &Path)> = found
        .lines()
        .filter_map(parse_owner)
        .filter_map(|(package, path)| Some((package, *asked.get(path)?)))
        .collect();
    let names: Vec<String> = owned.iter().map(|(package, _)| (*package).to_owned()).collect();
    if names.is_empty() {
        return BTreeMap::new();
    }
    let format =
        "--showformat=${binary:Package} ${Package} ${Version} ${Architecture}\\n".to_owned();
    let shown = ask("--show", [&format].into_iter().chain(&names));
    let packages: BTreeMap<&str, DebianPackage> = shown.lines().filter_map(parse_package).collect();
    let known = owned.into_iter().filter_map(|(package, file)| {
        // `binary:Package` has the architecture only where two could be installed side by side.
        let short = package.split(':').next().unwrap_or(package);
        let package = packages.get(package).or_else(|| packages.get(short))?;
        Some((file.to_owned(), package.clone()))
    });
    known.collect()
}

/// What dpkg-query says, whether or not it knows all of it.
fn ask<'a>(what: &str, about: impl IntoIterator<Item = &'a String>) -> String {
    let mut command = Command::new("dpkg-query");
    // `--` would end the options before the format.
    command.arg(what).args(about).env("LC_ALL", "C").stdin(Stdio::null());
    command
        .output()
        .map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
        .unwrap_or_default()
}

/// `libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6`, and of diversions nothing.
fn parse_owner(line: &str) -> Option<(&str, &str)> {
    let (packages, path) = line.split_once(": ")?;
    let package = packages.split(", ").next()?;
    (path.starts_with('/') && !package.contains(' ')).then_some((package, path))
}

fn parse_package(line: &str) -> Option<(&str, DebianPackage)> {
    let [binary, name, version, architecture] =
        line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let [name, version, architecture] = [name, version, architecture].map(str::to_owned);
    Some((binary, DebianPackage { name, version, architecture }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_and_diversions_are_not() {
        let check =
            |line: &str, expect: Option<(&str, &str)>| assert_eq!(parse_owner(line), expect);
        check("mount: /bin/mount", Some(("mount", "/bin/mount")));
        check("libc6:amd64: /lib/x/libc.so.6", Some(("libc6:amd64", "/lib/x/libc.so.6")));
        check("a:amd64, b:amd64: /usr/share/doc", Some(("a:amd64", "/usr/share/doc")));
        check("diversion by dash from: /bin/sh", None);
        check("dpkg-query: no path found matching pattern /x", None);
    }

    /// On a Debian machine, which the tests need anyhow.
    #[test]
    fn a_program_and_a_library_have_their_packages() {
        let files: Vec<PathBuf> = ["/usr/bin/mount", "/lib/x86_64-linux-gnu/libc.so.6", "/nowhere"]
            .map(PathBuf::from)
            .into();
        let owners = owners(&files);
        let name = |i: usize| owners.get(&files[i]).map(|package| package.name.as_str());
        assert_eq!((name(0), name(1), name(2)), (Some("mount"), Some("libc6"), None));
        assert!(owners[&files[1]].version.starts_with("2."), "{owners:?}");
    }
}
