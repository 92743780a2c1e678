//! What a kubelet takes, by its release. Its flags come and go, and one that is gone keeps it from starting: that is told when the image
//! is built, and not by a node that stays away.

use keel_unit::{Kind, UnitSet};

/// Where the kubelet is on a node.
pub(crate) const KUBELET: &str = "/usr/bin/kubelet";

/// A flag that kubelets of some releases do not have; releases are minors of 1.
struct Flag {
    name: &'static str,
    /// The first release that refuses it.
    gone: u32,
    /// What to do instead.
    instead: &'static str,
}

/// From the changelogs of Kubernetes.
const FLAGS: [Flag; 5] = [
    Flag { name: "--container-runtime", gone: 27, instead: "say `kubelet-version` in [cluster]" },
    Flag {
        name: "--network-plugin",
        gone: 24,
        instead: "the container runtime looks for its plugins itself",
    },
    Flag {
        name: "--cni-bin-dir",
        gone: 24,
        instead: "it stands in the container runtime's config",
    },
    Flag {
        name: "--cni-conf-dir",
        gone: 24,
        instead: "it stands in the container runtime's config",
    },
    Flag { name: "--docker-endpoint", gone: 24, instead: "no kubelet speaks to Docker any more" },
];

/// The first release that speaks to nothing but a CRI, and so needs no `--container-runtime=remote`.
const REMOTE_ALONE: u32 = 24;
/// The first release that takes the runtime's endpoint from its config.
const ENDPOINT_IN_CONFIG: u32 = 27;

/// The oldest release that the units were written for.
const OLDEST: u32 = 20;

/// What the units tell a kubelet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kubelet {
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its config, where a unit writes it.
    pub config: Option<String>,
}

impl Kubelet {
    /// What the units tell the kubelet, if one of them runs it.
    pub(crate) fn of(set: &UnitSet) -> Option<Self> {
        let arguments = set.units.iter().find_map(|unit| match &unit.kind {
            Kind::Service(service) if service.exec.program.as_str() == KUBELET => {
                Some(service.exec.arguments.clone())
            }
            _ => None,
        })?;
        let path = arguments.iter().find_map(|argument| argument.strip_prefix("--config="));
        let config = set.units.iter().find_map(|unit| match &unit.kind {
            Kind::File(file) if Some(file.path.as_str()) == path => file.content.as_ref(),
            _ => None,
        });
        let config = config.map(|content| content.as_str().to_owned());
        Some(Self { arguments, config })
    }
}

/// The release that a program of Kubernetes says that it is, such as `v1.20.2`; none if it does not say.
///
/// The linker puts it there (`-X …/version.gitVersion=`), and ends it with a zero byte as it ends no other text.
pub(crate) fn release(program: &[u8]) -> Option<String> {
    let mut found: Option<&[u8]> = None;
    for at in memchr::memmem::find_iter(program, b"v1.") {
        let text =
            program[at..].iter().position(|byte| *byte == 0).map(|end| &program[at..at + end]);
        let Some(text) = text.filter(|text| minor(text).is_some()) else { continue };
        match found {
            Some(other) if other != text => return None,
            _ => found = Some(text),
        }
    }
    found.map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The minor of a whole version: `v1.20.2`, `v1.33.1+k3s1`.
fn minor(version: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(version).ok().filter(|text| text.len() < 64)?;
    let (minor, rest) = text.strip_prefix("v1.")?.split_once('.')?;
    let patch = rest.split(['-', '+']).next()?;
    let number =
        |part: &str| (1..4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    let whole = number(minor) && number(patch) && rest.chars().all(plain);
    whole.then(|| minor.parse().ok())?
}

/// What of all that a kubelet of this release is told it does not take, or lacks; each with what to do.
pub(crate) fn misfits(version: &str, told: &Kubelet) -> Vec<String> {
    let Some(minor) = minor(version.as_bytes()) else { return Vec::new() };
    let mut wrong = Vec::new();
    if minor < OLDEST {
        wrong.push(format!("it is older than 1.{OLDEST}, the oldest that the units fit"));
    }
    let has = |name: &str| told.arguments.iter().any(|one| one.split('=').next() == Some(name));
    for Flag { name, gone, instead } in &FLAGS {
        if minor >= *gone && has(name) {
            wrong.push(format!("it has no {name}, which is gone since 1.{gone}: {instead}"));
        }
    }
    let say = format!("say `kubelet-version = \"1.{minor}\"` in [cluster]");
    if minor < REMOTE_ALONE && !has("--container-runtime") {
        wrong.push(format!("it wants --container-runtime=remote, or it looks for Docker: {say}"));
    }
    let in_config =
        told.config.as_ref().is_some_and(|text| text.contains("containerRuntimeEndpoint:"));
    let told = has("--container-runtime-endpoint") || minor >= ENDPOINT_IN_CONFIG && in_config;
    if !told {
        wrong.push(format!("nothing tells it where the container runtime is: {say}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_the_program() {
        let check = |program: &[u8], expect: Option<&str>| {
            assert_eq!(release(program).as_deref(), expect, "{}", program.escape_ascii());
        };
        check(b"..v1.20.2\0..", Some("v1.20.2"));
        check(b"v1.33.1+k3s1\0v1.33.1+k3s1\0", Some("v1.33.1+k3s1"));
        check(b"v1.36.0-alpha.1\0", Some("v1.36.0-alpha.1"));
        // Versions of libraries stand there too, without an end of their own.
        check(b"google.golang.org/grpc v1.27.1 v1.20.2\0 v1.4.0/", Some("v1.20.2"));
        check(b"v1.20.2\0v1.21.0\0", None);
        check(b"v1.20.2", None);
        check(b"v1.20\0v1.x.2\0v1.\0v1.2.3.\xff\0", None);
        check(b"", None);
    }

    fn check(version: &str, arguments: &[&str], config: &str, expect: &[&str]) {
        let arguments = arguments.iter().map(|one| (*one).to_owned()).collect();
        let told = Kubelet { arguments, config: Some(config.to_owned()) };
        let wrong = misfits(version, &told);
        assert_eq!(wrong.len(), expect.len(), "{version}: {wrong:?}");
        for (wrong, expect) in wrong.iter().zip(expect) {
            assert!(wrong.contains(expect), "{version}: {wrong}");
        }
    }

    #[test]
    fn each_release_takes_what_it_takes() {
        const OLD: &[&str] =
            &["--container-runtime=remote", "--container-runtime-endpoint=unix:///c"];
        const CONFIG: &str = "containerRuntimeEndpoint: unix:///c\n";
        check("v1.20.2", OLD, "", &[]);
        check("v1.26.9", OLD, "", &[]);
        check("v1.27.0", OLD, "", &["gone since 1.27"]);
        check("v1.27.0", &[], CONFIG, &[]);
        check("v1.34.1", &OLD[1..], "", &[]);
        check("v1.24.0", &OLD[1..], "", &[]);
        check(
            "v1.23.0",
            &OLD[1..],
            "",
            &["or it looks for Docker: say `kubelet-version = \"1.23\"`"],
        );
        check("v1.26.0", &[], CONFIG, &["where the container runtime is"]);
        check("v1.19.0", OLD, "", &["older than 1.20"]);
        check("v1.24.0", &[OLD[1], "--network-plugin=cni"], "", &["--network-plugin"]);
        check("nonsense", &[], "", &[]);
    }
}
