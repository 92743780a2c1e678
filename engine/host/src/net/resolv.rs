//! resolv.conf: what the machine's resolvers read.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The text of a resolv.conf (resolv.conf(5)).
pub(super) fn render(dns: &[IpAddr], search: &[String]) -> String {
    let mut text =
        String::from("# Written by keel-init from the machine config and the DHCP lease.\n");
    if !search.is_empty() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

/// Puts `text` at `path` in one step: who reads meanwhile reads the old or the new file, whole.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        #[track_caller]
        fn check(dns: &[&str], search: &[&str], expect: &str) {
            let dns: Vec<IpAddr> = dns.iter().map(|server| server.parse().unwrap()).collect();
            let search: Vec<String> = search.iter().map(|&name| name.to_owned()).collect();
            let text = render(&dns, &search);
            assert_eq!(text.split_once('\n').unwrap().1, expect);
        }
        check(&[], &[], "");
        check(&["10.0.0.1", "fd00::1"], &[], "nameserver 10.0.0.1\nnameserver fd00::1\n");
        check(
            &["10.0.0.1"],
            &["a.example", "b.example"],
            "search a.example b.example\nnameserver 10.0.0.1\n",
        );
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/resolv.conf");
        write(&path, "one\n").unwrap();
        write(&path, "two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // A link to elsewhere is replaced, not followed.
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere/resolv.conf", &path).unwrap();
        write(&path, "three\n").unwrap();
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    }
}
