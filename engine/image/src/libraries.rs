//! Finds the shared libraries that a program needs, where its own loader would: first in the tree
//! that the program came from (an unpacked package), then on this host.
//!
//! On the image every library lies flat in `/usr/lib`, so a library found through a `RUNPATH` is
//! found there too; two different files of one name are an error of [`crate::tree::Tree`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::elf::{self, Elf, ElfError, Machine};

/// A library or loader to put into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    /// Its path in the image.
    pub(crate) path: String,
    /// Where it was found.
    pub(crate) source: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// A program whose libraries cannot be had.
#[derive(Debug, Error)]
#[error("cannot take {program}")]
pub struct LibraryError {
    /// The program, as it was asked for.
    pub program: String,
    /// What is in the way.
    #[source]
    pub kind: LibraryErrorKind,
}

/// What is in the way.
#[derive(Debug, Error)]
pub enum LibraryErrorKind {
    /// It is none.
    #[error("{} is no program that a node can run", path.display())]
    NotAProgram {
        /// Which file.
        path: PathBuf,
        /// What it is instead.
        source: ElfError,
    },
    /// Built for another machine than init.
    #[error("it is built for {found}, and the node is {wanted}")]
    WrongMachine {
        /// What it is built for.
        found: String,
        /// What init is built for.
        wanted: String,
    },
    /// A library is nowhere.
    #[error("{name}, which {by} needs, is in none of: {}", searched.join(", "))]
    NotFound {
        /// The library.
        name: String,
        /// What needs it: the program or another library.
        by: String,
        /// Where it was looked for.
        searched: Vec<String>,
    },
}

/// Everything that `program` needs beside itself, for a node of that machine: loader, libraries and
/// the libraries of the libraries. `roots` are searched in order.
pub(crate) fn closure(
    name: &str,
    program: &Path,
    bytes: &[u8],
    machine: Machine,
    roots: &[PathBuf],
) -> Result<Vec<Library>, LibraryError> {
    let fail = |kind| LibraryError { program: name.to_owned(), kind };
    let elf = elf::read(bytes).map_err(|source| {
        fail(LibraryErrorKind::NotAProgram { path: program.to_owned(), source })
    })?;
    if elf.machine != machine {
        let (found, wanted) = (elf.machine.to_string(), machine.to_string());
        return Err(fail(LibraryErrorKind::WrongMachine { found, wanted }));
    }
    let mut walk = Walk { machine, roots, seen: BTreeSet::new(), found: Vec::new() };
    if let Some(loader) = &elf.interpreter {
        let (source, loader_bytes) = walk
            .absolute(loader)
            .ok_or_else(|| fail(not_found(loader, name, std::slice::from_ref(loader))))?;
        walk.seen.insert(file_name(loader));
        walk.found.push(Library { path: loader.clone(), source, bytes: loader_bytes });
    }
    walk.needs(name, program, &elf, &[]).map_err(fail)?;
    Ok(walk.found)
}

struct Walk<'a> {
    machine: Machine,
    roots: &'a [PathBuf],
    seen: BTreeSet<String>,
    found: Vec<Library>,
}

impl Walk<'_> {
    /// Follows `DT_NEEDED`. The depth is the longest chain of libraries, a handful.
    fn needs(
        &mut self,
        by: &str,
        file: &Path,
        elf: &Elf,
        inherited: &[PathBuf],
    ) -> Result<(), LibraryErrorKind> {
        // ld.so(8): an object's RUNPATH holds for itself and hides every RPATH; an RPATH holds for
        // the objects below too.
        let own = |dirs: &[String]| -> Vec<PathBuf> {
            dirs.iter().flat_map(|d| self.expand(d, file)).collect()
        };
        let rpath: Vec<PathBuf> =
            own(&elf.rpath).into_iter().chain(inherited.iter().cloned()).collect();
        let first = if elf.runpath.is_empty() { rpath.clone() } else { own(&elf.runpath) };

        for library in &elf.needed {
            if !self.seen.insert(file_name(library)) {
                continue;
            }
            let (path, bytes, below) = self.find(library, by, &first)?;
            self.needs(library, &path, &below, &rpath)?;
            let target = format!("/usr/lib/{}", file_name(library));
            self.found.push(Library { path: target, source: path, bytes });
        }
        Ok(())
    }

    fn find(
        &self,
        name: &str,
        by: &str,
        first: &[PathBuf],
    ) -> Result<(PathBuf, Vec<u8>, Elf), LibraryErrorKind> {
        if name.contains('/') {
            return self
                .absolute(name)
                .and_then(|(path, bytes)| Some((path, elf::read(&bytes).ok()?, bytes)))
                .map(|(path, elf, bytes)| (path, bytes, elf))
                .ok_or_else(|| not_found(name, by, &[name.to_owned()]));
        }
        let dirs =
            first.iter().cloned().chain(self.roots.iter().flat_map(|root| search_dirs(root)));
        let mut searched = Vec::new();
        for dir in dirs {
            let path = dir.join(name);
            // A library of another machine on the way is passed over, as the loader does.
            if let Ok(bytes) = fs::read(&path)
                && let Ok(elf) = elf::read(&bytes)
                && elf.machine == self.machine
            {
                return Ok((path, bytes, elf));
            }
            if dir.is_dir() {
                searched.push(dir.display().to_string());
            }
        }
        Err(not_found(name, by, &searched))
    }

    /// An absolute path of the node, looked for under each root.
    fn absolute(&self, path: &str) -> Option<(PathBuf, Vec<u8>)> {
        self.roots.iter().find_map(|root| {
            let file = under(root, Path::new(path));
            fs::read(&file).ok().map(|bytes| (file, bytes))
        })
    }

    /// A RUNPATH entry as directories of this host. `$LIB` and `$PLATFORM` name directories that
    /// are searched anyway, so an entry with one of them adds nothing.
    fn expand(&self, dir: &str, file: &Path) -> Vec<PathBuf> {
        let origin = file.parent().unwrap_or(Path::new("/"));
        for token in ["$ORIGIN", "${ORIGIN}"] {
            if let Some(rest) = dir.strip_prefix(token) {
                return vec![origin.join(rest.trim_start_matches('/'))];
            }
        }
        if dir.contains('$') || !dir.starts_with('/') {
            return Vec::new();
        }
        self.roots.iter().map(|root| under(root, Path::new(dir))).collect()
    }
}

/// The tree that a program of an unpacked package came from: what is above its `usr/bin` or `bin`.
pub(crate) fn root_of(program: &Path) -> Option<PathBuf> {
    let mut dir = program.parent()?;
    for layer in [&["bin", "sbin", "libexec"][..], &["usr", "local"], &["usr"]] {
        match dir.file_name() {
            Some(name) if layer.iter().any(|l| name == *l) => dir = dir.parent()?,
            _ if layer.contains(&"bin") => return None,
            _ => break,
        }
    }
    Some(dir.to_owned())
}

/// Where a loader looks in a tree: what its ld.so.conf says, then what is built into the loaders of
/// the distributions.
fn search_dirs(root: &Path) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    read_conf(root, Path::new("/etc/ld.so.conf"), &mut dirs, 0);
    for dir in ["/lib", "/usr/lib"] {
        let dir = under(root, Path::new(dir));
        // Debian's multiarch directories, `x86_64-linux-gnu` and its kin.
        let mut multiarch: Vec<PathBuf> = fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with("-linux-gnu") && path.is_dir())
            .collect();
        multiarch.sort();
        dirs.extend(multiarch);
        dirs.push(dir);
    }
    dirs.extend(["/lib64", "/usr/lib64"].map(|dir| under(root, Path::new(dir))));
    let mut seen = BTreeSet::new();
    dirs.retain(|dir| seen.insert(dir.clone()));
    dirs
}

/// Reads ld.so.conf: one directory a line, `include` with a pattern, `#` comments. Missing files
/// are no error: a tree need not have one.
fn read_conf(root: &Path, conf: &Path, dirs: &mut Vec<PathBuf>, depth: u8) {
    const DEEPEST: u8 = 8; // a file may include itself
    let Ok(text) = fs::read_to_string(under(root, conf)) else { return };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("include") if depth < DEEPEST => {
                for pattern in words {
                    let base = conf.parent().unwrap_or(Path::new("/"));
                    for file in included(root, &base.join(pattern)) {
                        read_conf(root, &file, dirs, depth + 1);
                    }
                }
            }
            Some(dir) if dir.starts_with('/') => dirs.push(under(root, Path::new(dir))),
            _ => {}
        }
    }
}

/// The files that an `include DIR/*.conf` names, sorted. A star stands only in the file name, and
/// only once, in every ld.so.conf there is.
fn included(root: &Path, pattern: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|n| n.to_str()))
    else {
        return Vec::new();
    };
    let Some((start, end)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let mut files: Vec<PathBuf> = fs::read_dir(under(root, dir))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| {
            file.len() >= start.len() + end.len() && file.starts_with(start) && file.ends_with(end)
        })
        .map(|file| dir.join(file))
        .collect();
    files.sort();
    files
}

fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.components().filter(|c| matches!(c, Component::Normal(_))).collect::<PathBuf>())
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn not_found(name: &str, by: &str, searched: &[String]) -> LibraryErrorKind {
    LibraryErrorKind::NotFound {
        name: name.to_owned(),
        by: by.to_owned(),
        searched: searched.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::testing::chain;

    #[test]
    fn a_programs_root_is_above_its_bin() {
        let check = |path: &str, expect: Option<&str>| {
            assert_eq!(root_of(Path::new(path)).as_deref(), expect.map(Path::new), "{path}");
        };
        check("/pkg/usr/bin/containerd", Some("/pkg"));
        check("/pkg/usr/sbin/runc", Some("/pkg"));
        check("/pkg/usr/local/bin/kubelet", Some("/pkg"));
        check("/pkg/bin/mount", Some("/pkg"));
        check("/usr/bin/mount", Some("/"));
        check("/home/me/kubelet", None);
    }

    /// A real package layout: a program with a RUNPATH, a library beside it that needs a second one
    /// which only ld.so.conf knows. gcc builds them.
    struct Package(tempfile::TempDir);

    impl Package {
        fn new() -> Self {
            let package = Self(tempfile::tempdir().unwrap());
            for dir in ["usr/bin", "usr/lib/app", "opt/lib", "etc/ld.so.conf.d"] {
                fs::create_dir_all(package.at(dir)).unwrap();
            }
            fs::write(package.at("etc/ld.so.conf"), "include ld.so.conf.d/*.conf # all\n").unwrap();
            fs::write(package.at("etc/ld.so.conf.d/opt.conf"), "/opt/lib\n").unwrap();
            package.gcc(
                "int deep(void) { return 0; }",
                &["-shared", "-fPIC", "-nostdlib"],
                "opt/lib/libdeep.so",
            );
            package.gcc(
                "int deep(void); int near(void) { return deep(); }",
                &[
                    "-shared",
                    "-fPIC",
                    "-nostdlib",
                    "-Wl,--no-as-needed",
                    &package.lib("opt/lib"),
                    "-ldeep",
                ],
                "usr/lib/app/libnear.so",
            );
            package.gcc(
                "int near(void); int main(void) { return near(); }",
                &[
                    "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../lib/app,--allow-shlib-undefined",
                    &package.lib("usr/lib/app"),
                    "-lnear",
                ],
                "usr/bin/app",
            );
            package
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn lib(&self, dir: &str) -> String {
            format!("-L{}", self.at(dir).display())
        }

        fn gcc(&self, source: &str, args: &[&str], out: &str) {
            let code = self.at("source.c");
            fs::write(&code, source).unwrap();
            let done = Command::new("gcc")
                .arg(&code)
                .arg("-o")
                .arg(self.at(out))
                .args(args)
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }

        fn closure(&self) -> Result<Vec<Library>, LibraryError> {
            let program = self.at("usr/bin/app");
            let bytes = fs::read(&program).unwrap();
            let machine = elf::read(&bytes).unwrap().machine;
            closure("app", &program, &bytes, machine, &[self.0.path().to_owned(), "/".into()])
        }
    }

    #[test]
    fn follows_runpath_ld_so_conf_and_the_host() {
        let package = Package::new();
        let mut paths: Vec<_> = package.closure().unwrap().into_iter().map(|l| l.path).collect();
        paths.sort();
        assert_eq!(
            paths,
            [
                "/lib64/ld-linux-x86-64.so.2",
                "/usr/lib/libc.so.6",
                "/usr/lib/libdeep.so",
                "/usr/lib/libnear.so"
            ]
        );
    }

    #[test]
    fn a_missing_library_names_who_needs_it() {
        let package = Package::new();
        fs::remove_file(package.at("opt/lib/libdeep.so")).unwrap();
        let error = chain(&package.closure().unwrap_err());
        assert!(
            error.starts_with(
                "cannot take app: libdeep.so, which libnear.so needs, is in none of: "
            ),
            "{error}"
        );
        assert!(error.contains(&package.at("opt/lib").display().to_string()), "{error}");
    }

    #[test]
    fn a_library_of_another_machine_is_passed_over_and_a_program_is_refused() {
        let package = Package::new();
        let foreign = |path: &str| {
            let mut bytes = fs::read(package.at(path)).unwrap();
            bytes[18] = 0xb7; // e_machine: arm64
            bytes
        };
        fs::write(package.at("usr/lib/libdeep.so"), foreign("opt/lib/libdeep.so")).unwrap();
        assert_eq!(package.closure().unwrap().len(), 4);

        let bytes = foreign("usr/bin/app");
        let machine = elf::read(&fs::read(package.at("usr/bin/app")).unwrap()).unwrap().machine;
        let error = closure("app", Path::new("/x/app"), &bytes, machine, &[]).unwrap_err();
        assert_eq!(chain(&error), "cannot take app: it is built for arm64, and the node is x86-64");
    }
}
