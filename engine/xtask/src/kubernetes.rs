//! Real Kubernetes for tests and the demo: kubelet, API server, controller-manager and scheduler, built from Debian's source package,
//! with etcd, kubectl, CNI plugins and a busybox from Debian's binary packages.
//!
//! Everything is pinned by its SHA-256 and built once; the Go toolchain is unpacked for the build and never installed. The
//! programs are static, so that they run on a node without a loader.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keel_image::{FetchError, Unwatched};
use sha2::{Digest, Sha256};

use crate::command::{Failure, command, output, run};
use crate::keep;
use crate::node::repository;
use crate::progress::say;

/// Where Debian's files are, now and when a release has replaced them.
const MIRRORS: [&str; 2] = [
    "https://deb.debian.org/debian/pool/main",
    "https://snapshot.debian.org/archive/debian/20260901T000000Z/pool/main",
];

/// A file of Debian's pool.
struct Pinned {
    path: &'static str,
    sha256: &'static str,
}

const fn pinned(path: &'static str, sha256: &'static str) -> Pinned {
    Pinned { path, sha256 }
}

/// Upstream's source as Debian has it. It is the newest in Debian that holds more than kubectl.
const SOURCE: Pinned = pinned(
    "k/kubernetes/kubernetes_1.20.5+really1.20.2.orig.tar.gz",
    "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc",
);
const VERSION: &str = "v1.20.2";

/// What builds it.
const TOOLS: [Pinned; 3] = [
    pinned(
        "g/golang-1.19/golang-1.19-go_1.19.8-2_amd64.deb",
        "545123039b6c79e75cf2d86528781a825424cf33ce9d3f4513d772d7144cd531",
    ),
    pinned(
        "g/golang-1.19/golang-1.19-src_1.19.8-2_all.deb",
        "2dfa82fe4f08f4e0193c532e561af4c91871f5235608f04f2bb8d57bb288df5a",
    ),
    // The tree's own reflect2 reads Go's maps as they were before 1.18: the API server then dies of SIGSEGV at random.
    pinned(
        "g/golang-github-modern-go-reflect2/golang-github-modern-go-reflect2-dev_1.0.2-2_all.deb",
        "af150a5172cf4c19bb321a53e67103e7fb18d07c1baa1e816a235155265d3948",
    ),
];

/// What runs beside it.
const BESIDE: [Pinned; 4] = [
    pinned(
        "e/etcd/etcd-server_3.4.23-4+b4_amd64.deb",
        "3a9445d4560ad6de1c375756b2a17d97713df44cbd20a658c871fe108af7ef5d",
    ),
    pinned(
        "k/kubernetes/kubernetes-client_1.20.5+really1.20.2-1.1+deb12u1_amd64.deb",
        "087c42dc26c847740043cdaa8b16db666be5591a1da957f822922aa1b677494e",
    ),
    pinned(
        "g/golang-github-containernetworking-plugins/containernetworking-plugins_1.1.1+ds1-3+b5_amd64.deb",
        "4cac8143474d1249b19f7b0e80b8d0daaa6dfdaa8bd514bc468d38d4a108099f",
    ),
    pinned(
        "b/busybox/busybox-static_1.35.0-4+deb12u1+b1_amd64.deb",
        "3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744",
    ),
];

/// What is taken from the packages: in the package, and in the kept folder.
const TAKEN: [(&str, &str); 6] = [
    ("usr/bin/etcd", "bin/etcd"),
    ("usr/bin/kubectl", "bin/kubectl"),
    ("bin/busybox", "bin/busybox"),
    ("usr/lib/cni/bridge", "cni/bridge"),
    ("usr/lib/cni/host-local", "cni/host-local"),
    ("usr/lib/cni/loopback", "cni/loopback"),
];

const PROGRAMS: [&str; 4] =
    ["kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Rises when the way of building changes what comes out.
const RECIPE: u8 = 1;

/// Without cloud providers and dockershim: less to build, and none of it is used.
const TAGS: &str = "providerless,dockerless,selinux";

/// The one generated file that the tarball lacks.
const OPENAPI: &str = "pkg/generated/openapi/zz_generated.openapi.go";

/// Where tests find what [`fetch`] kept: a link to it.
const LINK: &str = "target/kubernetes";

/// Kubernetes, in `bin` and `cni` of the folder that is returned. Fetches and builds it if it is not there or not whole; the
/// build takes some minutes.
pub(crate) fn fetch() -> Result<PathBuf, Failure> {
    let cache = keep::cache()?;
    let root = keep::folder(&cache, &key(), make)?;
    let link = repository().join(LINK);
    let cannot = || Failure::because::<std::io::Error>(format!("cannot link {LINK}"));
    if fs::read_link(&link).ok().as_ref() != Some(&root) {
        fs::create_dir_all(link.parent().unwrap_or(&link)).map_err(cannot())?;
        let _ = fs::remove_file(&link);
        symlink(&root, &link).map_err(cannot())?;
    }
    say(&format!("    Kubernetes {VERSION}, {}", root.display()));
    Ok(root)
}

/// The folder's name: whatever it is made from, and how.
fn key() -> String {
    let mut hash = Sha256::new();
    for one in [SOURCE].iter().chain(&TOOLS).chain(&BESIDE) {
        hash.update(one.sha256);
    }
    hash.update(TAGS);
    hash.update([RECIPE]);
    let digest = hash.finalize();
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("kubernetes-{hex}")
}

fn make(root: &Path, scratch: &Path) -> Result<(), Failure> {
    let packages = scratch.join("packages");
    for package in TOOLS.iter().chain(&BESIDE) {
        let deb = download(package)?;
        run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(&packages))?;
    }
    for folder in ["bin", "cni"] {
        fs::create_dir(root.join(folder))
            .map_err(Failure::because("cannot make a directory in the cache"))?;
    }
    for (from, to) in TAKEN {
        fs::copy(packages.join(from), root.join(to))
            .map_err(Failure::because(format!("no {from} in Debian's packages")))?;
    }
    let go = Go::new(scratch, &packages);
    go.unpack(&download(&SOURCE)?, &packages)?;
    go.generate()?;
    go.build(&root.join("bin"))
}

fn download(one: &Pinned) -> Result<PathBuf, Failure> {
    let mut failed: Option<FetchError> = None;
    let name = one.path.rsplit('/').next().unwrap_or(one.path);
    say(&format!("    {name}"));
    for mirror in MIRRORS {
        let url = format!("{mirror}/{}", one.path);
        match keel_image::fetch(&url, Some(one.sha256), &Unwatched) {
            Ok((path, _)) => return Ok(path),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let what = format!("no mirror of Debian has {name}");
    Err(match failed {
        Some(error) => Failure::because(what)(error),
        None => Failure::new(what),
    })
}

/// The toolchain, and a tree to build in. The tree is of 2021 and builds as Go did then, in a GOPATH.
struct Go {
    scratch: PathBuf,
    root: PathBuf,
    tree: PathBuf,
}

impl Go {
    fn new(scratch: &Path, packages: &Path) -> Self {
        Self {
            scratch: scratch.to_owned(),
            root: packages.join("usr/lib/go-1.19"),
            tree: scratch.join("gopath/src/k8s.io/kubernetes"),
        }
    }

    /// `go`, or what it has built, with nothing of this machine's own settings. It leaves the processors to whoever waits.
    fn command(&self, program: &Path) -> Command {
        let mut go = command("nice", ["-n", "10"]);
        go.arg(program).current_dir(&self.tree).env_clear().stdin(Stdio::null());
        go.env("PATH", format!("{}:/usr/bin:/bin", self.root.join("bin").display()));
        go.env("GOROOT", &self.root).env("GOPATH", self.scratch.join("gopath"));
        go.env("GOCACHE", self.scratch.join("go-cache")).env("HOME", &self.scratch);
        go.env("GO111MODULE", "off").env("GOFLAGS", "").env("CGO_ENABLED", "0");
        go
    }

    fn go<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut go = self.command(&self.root.join("bin/go"));
        go.args(args);
        go
    }

    fn unpack(&self, source: &Path, packages: &Path) -> Result<(), Failure> {
        let cannot = || Failure::because::<std::io::Error>("cannot unpack Kubernetes");
        fs::create_dir_all(&self.tree).map_err(cannot())?;
        let mut tar = command("tar", ["--extract", "--gzip", "--strip-components=1", "--file"]);
        run(tar.arg(source).arg("--directory").arg(&self.tree))?;
        let reflect2 = self.tree.join("vendor/github.com/modern-go/reflect2");
        fs::remove_dir_all(&reflect2).map_err(cannot())?;
        let debians = packages.join("usr/share/gocode/src/github.com/modern-go/reflect2");
        run(command("cp", ["--recursive"]).arg(debians).arg(&reflect2))
    }

    fn generate(&self) -> Result<(), Failure> {
        say("    generating the API's description");
        let generator = self.scratch.join("openapi-gen");
        let mut build = self.go(["build", "-trimpath", "-o"]);
        run(build.arg(&generator).arg("./vendor/k8s.io/kube-openapi/cmd/openapi-gen"))?;
        let inputs = self.described()?;
        let mut generate = self.command(&generator);
        generate.args(["--logtostderr", "-O", "zz_generated.openapi", "-i", &inputs]);
        generate.args(["-p", "k8s.io/kubernetes/pkg/generated/openapi"]);
        generate.args(["-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"]);
        // Rules of taste that the tree breaks; a list of them goes here and not to the terminal.
        run(generate.arg("-r").arg(self.scratch.join("violations")))?;
        match self.tree.join(OPENAPI).exists() {
            true => Ok(()),
            false => Err(Failure::new(format!("openapi-gen made no {OPENAPI}"))),
        }
    }

    /// The packages whose types the API's description is made of, with commas.
    fn described(&self) -> Result<String, Failure> {
        let mut list = command("grep", ["-rl", "--include=*.go", "+k8s:openapi-gen="]);
        list.args(["pkg", "cmd", "plugin", "staging/src/k8s.io"]).current_dir(&self.tree);
        Ok(packages_of(&output(&mut list)?))
    }

    fn build(&self, to: &Path) -> Result<(), Failure> {
        let mut flags = "-s -w -buildid=".to_owned();
        for package in ["component-base/version", "client-go/pkg/version"] {
            let package = format!("k8s.io/kubernetes/vendor/k8s.io/{package}");
            for (name, value) in [
                ("gitVersion", VERSION),
                ("gitMajor", "1"),
                ("gitMinor", "20"),
                ("gitTreeState", "clean"),
            ] {
                flags.push_str(&format!(" -X {package}.{name}={value}"));
            }
        }
        let programs = PROGRAMS.map(|name| format!("./cmd/{name}"));
        let mut all = self.go(["list", "-deps", "-tags", TAGS]);
        let all = output(all.args(&programs))?.lines().count();
        let mut build = self.go(["build", "-v", "-trimpath", "-tags", TAGS, "-ldflags", &flags]);
        build.arg("-o").arg(to.join("")).args(&programs);
        progress(&mut build, all)
    }
}

/// The packages that hold these files, each once, as openapi-gen takes them.
fn packages_of(files: &str) -> String {
    let mut packages: Vec<String> = files
        .lines()
        .filter(|file| !["code-generator", "sample-"].iter().any(|not| file.contains(not)))
        .filter_map(|file| file.rsplit_once('/'))
        .map(|(folder, _)| match folder.strip_prefix("staging/src/") {
            Some(published) => format!("k8s.io/kubernetes/vendor/{published}"),
            None => format!("k8s.io/kubernetes/{folder}"),
        })
        .collect();
    packages.sort();
    packages.dedup();
    packages.join(",")
}

/// Runs a build that says a line for each package, and shows how far it is. What it says otherwise is shown if it fails.
fn progress(build: &mut Command, all: usize) -> Result<(), Failure> {
    /// How often a person hears of it.
    const PARTS: usize = 20;

    let cannot = || Failure::because::<std::io::Error>("cannot run go build");
    let mut child = build.stderr(Stdio::piped()).spawn().map_err(cannot())?;
    let (mut done, mut told, mut last) = (0, 0, Vec::new());
    for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(cannot())?;
        done += 1;
        if done * PARTS / all.max(1) > told {
            told = done * PARTS / all.max(1);
            say(&format!("    built {done} of {all} packages"));
        }
        last.push(line);
        last.drain(..last.len().saturating_sub(20));
    }
    let status = child.wait().map_err(cannot())?;
    match status.success() {
        true => Ok(()),
        false => {
            Err(Failure::new(format!("Kubernetes does not build: {status}\n{}", last.join("\n"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_as_the_tree_vendors_them() {
        let files = "pkg/apis/a/doc.go\npkg/apis/a/types.go\nstaging/src/k8s.io/api/v1/types.go\n\
                     staging/src/k8s.io/sample-apiserver/pkg/x.go\nstaging/src/k8s.io/code-generator/y.go\n";
        assert_eq!(
            packages_of(files),
            "k8s.io/kubernetes/pkg/apis/a,k8s.io/kubernetes/vendor/k8s.io/api/v1"
        );
    }

    #[test]
    fn a_build_that_fails_says_its_last_words() {
        let failure = progress(&mut command("sh", ["-c", "echo why >&2; exit 3"]), 9).unwrap_err();
        assert!(failure.to_string().contains("exit status: 3\nwhy"), "{failure}");
    }
}
