//! What this machine is called, and where it can be reached. Read when it is asked for: it changes while the machine runs.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use keel_control::{Address, Link, is_boot_id};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

/// Where programs find the machine id; the identity unit writes it.
const MACHINE_ID: &str = "/etc/machine-id";

/// Where keel-agent leaves its key's fingerprint, for people to compare.
///
/// The second is that of a machine without a data partition, and ends with its boot.
const FINGERPRINTS: [&str; 2] =
    ["/var/lib/keel/identity/node.fingerprint", "/run/keel/identity/node.fingerprint"];

/// The host name in force.
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The running kernel's release.
pub(crate) fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Time since the kernel began.
pub(crate) fn since_kernel() -> Option<Duration> {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).ok().map(Duration::from)
}

/// The id of this boot: the kernel's, 32 hexadecimal digits. A PID namespace is no boot of the kernel, and has one of its own.
pub(crate) fn boot_id(machine: bool) -> String {
    let _look = crate::rootfs::ProcPeek::new();
    let kernels = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let kernels = kernels.trim().replace('-', "");
    if machine && is_boot_id(&kernels) {
        return kernels;
    }
    // The keys of a `RandomState` are random.
    let [one, two] = [0; 2].map(|_: u8| RandomState::new().hash_one(()));
    format!("{one:016x}{two:016x}")
}

/// How many processors there are.
pub(crate) fn processors() -> Option<u32> {
    let processors = std::thread::available_parallelism().ok()?;
    u32::try_from(processors.get()).ok()
}

/// The machine id, once it is known.
pub(crate) fn machine_id() -> Option<String> {
    one_line(Path::new(MACHINE_ID))
}

/// The fingerprint of the node's certificate, once there is one. It lies on a disk, and a disk that does not answer must not hold
/// up who decides: it is read on a thread of its own, and done without if that takes longer than `patience`.
pub(crate) async fn fingerprint(patience: Duration) -> Option<String> {
    let read = || FINGERPRINTS.iter().find_map(|path| one_line(Path::new(path)));
    tokio::time::timeout(patience, tokio::task::spawn_blocking(read)).await.ok()?.ok()?
}

/// What a file says that holds one line.
pub(crate) fn one_line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.trim();
    (!line.is_empty() && !line.contains('\n')).then(|| line.to_owned())
}

/// The links that are up, and their addresses; without loopback, and without the link-local addresses that every link has.
pub(crate) fn links() -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for entry in getifaddrs().into_iter().flatten() {
        let up = entry.flags.contains(InterfaceFlags::IFF_UP)
            && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(ip) = entry.address.as_ref().and_then(ip).filter(|ip| up && is_reachable(*ip))
        else {
            continue;
        };
        let prefix = entry.netmask.as_ref().and_then(ip_of_mask).unwrap_or(if ip.is_ipv4() {
            32
        } else {
            128
        });
        let address = Address { ip, prefix };
        match links.iter_mut().find(|link| link.name == entry.interface_name) {
            Some(link) => link.addresses.push(address),
            None => links.push(Link { name: entry.interface_name, addresses: vec![address] }),
        }
    }
    links
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn ip_of_mask(mask: &SockaddrStorage) -> Option<u8> {
    let ones = match ip(mask)? {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    u8::try_from(ones).ok()
}

fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}

/// What makes the pauses of this machine differ from those of its neighbours. (The keys of a `RandomState` are random; the kernel
/// gives them without waiting for entropy.)
pub(crate) fn seed() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_can_reach() {
        let check =
            |ip: &str, expect: bool| assert_eq!(is_reachable(ip.parse().unwrap()), expect, "{ip}");
        check("10.0.2.15", true);
        check("169.254.3.4", false);
        check("127.0.0.1", false);
        check("fe80::1", false);
        check("::1", false);
        check("fd00::5", true);
    }

    #[test]
    fn every_boot_has_an_id() {
        assert!(is_boot_id(&boot_id(true)) && is_boot_id(&boot_id(false)));
        assert_eq!(boot_id(true), boot_id(true));
        assert_ne!(boot_id(false), boot_id(false));
    }

    #[test]
    fn files_of_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        let check = |text: &str, expect: Option<&str>| {
            std::fs::write(&path, text).unwrap();
            assert_eq!(one_line(&path).as_deref(), expect, "{text:?}");
        };
        check("abc\n", Some("abc"));
        check("", None);
        check("uninitialized\nmore\n", None);
        assert_eq!(one_line(&directory.path().join("missing")), None);
    }
}
