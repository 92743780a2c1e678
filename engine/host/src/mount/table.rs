//! The kernel's table of mounts: /proc/PID/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::{CStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its id; unique while it is mounted.
    pub id: u32,
    /// The id of the mount that it stands on; its own for the first of a namespace.
    pub parent: u32,
    /// The device of its files, as `stat` shows it.
    pub device: (u32, u32),
    /// Which directory of the filesystem is its root.
    pub root: PathBuf,
    /// Where it is, seen from this process's root.
    pub target: PathBuf,
    /// Its own options: `rw`, `nosuid`, `relatime`.
    pub options: Vec<String>,
    /// How mounts below it spread: `shared:7`, `master:2`; empty if they do not.
    pub propagation: Vec<String>,
    /// The type of the filesystem.
    pub fstype: String,
    /// What was mounted.
    pub source: PathBuf,
    /// The filesystem's options, which all its mounts have in common.
    pub super_options: Vec<String>,
}

/// The mounts of this thread's namespace in the order of mountinfo: of several at one place the last is on top.
///
/// It can be asked for before /proc is mounted: a procfs that is mounted nowhere answers just as well.
///
/// # Errors
/// When the kernel has no procfs, or says what is not a mountinfo.
pub fn observe() -> io::Result<Vec<Mounted>> {
    // Of this thread, not of the process: threads can be in different namespaces.
    let text = match std::fs::read("/proc/thread-self/mountinfo") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => read_detached()?,
        read => read?,
    };
    parse(&text).map_err(io::Error::other)
}

/// The mount on top at this place.
pub fn top<'a>(table: &'a [Mounted], target: &Path) -> Option<&'a Mounted> {
    table.iter().rev().find(|mounted| mounted.target == target)
}

/// A line that is none of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of mountinfo is malformed: {line:?}")]
pub struct Malformed {
    /// Which one, from 1.
    pub number: usize,
    /// What it says.
    pub line: String,
}

/// Reads a mountinfo.
///
/// # Errors
/// At the first line that is malformed: a mount that is overlooked might be mounted over.
pub fn parse(text: &[u8]) -> Result<Vec<Mounted>, Malformed> {
    let lines = text.split(|&byte| byte == b'\n').zip(1..).filter(|(line, _)| !line.is_empty());
    let malformed = |line: &[u8], number| Malformed {
        number,
        line: String::from_utf8_lossy(line).into_owned(),
    };
    lines.map(|(line, number)| parse_line(line).ok_or_else(|| malformed(line, number))).collect()
}

fn parse_line(line: &[u8]) -> Option<Mounted> {
    // One blank between fields: the source may be empty.
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let mut device = fields.next()?.split(|&byte| byte == b':');
    let device = (number(device.next()?)?, number(device.next()?)?);
    let root = path(fields.next()?);
    let target = path(fields.next()?);
    let options = list(fields.next()?);
    let mut propagation = Vec::new();
    loop {
        match fields.next()? {
            b"-" => break,
            field => propagation.push(text(field)),
        }
    }
    let fstype = text(fields.next()?);
    let source = path(fields.next()?);
    let super_options = list(fields.next()?);
    let whole = fields.next().is_none() && target.is_absolute();
    whole.then_some(Mounted {
        id,
        parent,
        device,
        root,
        target,
        options,
        propagation,
        fstype,
        source,
        super_options,
    })
}

fn number(field: &[u8]) -> Option<u32> {
    str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

fn list(field: &[u8]) -> Vec<String> {
    field.split(|&byte| byte == b',').filter(|option| !option.is_empty()).map(text).collect()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// The kernel writes blank, tab, newline, backslash and `#` as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// From linux/mount.h; libc has the numbers of the calls only.
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

/// Reads mountinfo from a procfs that is made for this alone and never gets a place in the tree.
fn read_detached() -> io::Result<Vec<u8>> {
    const PROC: &CStr = c"proc";
    const MOUNTINFO: &CStr = c"thread-self/mountinfo";
    let checked = |result: libc::c_long| match i32::try_from(result) {
        Ok(descriptor) if descriptor >= 0 => Ok(descriptor),
        _ => Err(io::Error::last_os_error()),
    };
    #[expect(
        unsafe_code,
        reason = "nix has no fsopen(2) and its kin; all pointers are constants or null, and each new descriptor gets one owner"
    )]
    let mut file = unsafe {
        let context = checked(libc::syscall(libc::SYS_fsopen, PROC.as_ptr(), FSOPEN_CLOEXEC))?;
        let context = OwnedFd::from_raw_fd(context);
        let none = std::ptr::null::<libc::c_char>();
        let created = libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            none,
            none,
            0,
        );
        checked(created)?;
        let mount =
            checked(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0))?;
        let mount = OwnedFd::from_raw_fd(mount);
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let file = libc::openat(mount.as_raw_fd(), MOUNTINFO.as_ptr(), flags);
        std::fs::File::from_raw_fd(checked(file.into())?)
    };
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expect: Option<(&str, &str, &str, &str)>) {
        let parsed = parse(line.as_bytes()).ok().map(|mut table| table.remove(0));
        let told = parsed.as_ref().map(|mounted| {
            let path = |path: &Path| path.to_str().unwrap().to_owned();
            (
                path(&mounted.target),
                mounted.fstype.clone(),
                path(&mounted.source),
                mounted.propagation.join(" "),
            )
        });
        let expect = expect.map(|(target, fstype, source, propagation)| {
            (target.to_owned(), fstype.to_owned(), source.to_owned(), propagation.to_owned())
        });
        assert_eq!(told, expect, "{line}");
    }

    #[test]
    fn lines_as_the_kernel_writes_them() {
        check("22 27 0:21 / /proc rw,relatime - proc proc rw", Some(("/proc", "proc", "proc", "")));
        check(
            "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:5 master:1 - ext3 /dev/root rw,errors=continue",
            Some(("/mnt2", "ext3", "/dev/root", "shared:5 master:1")),
        );
        check(
            r"30 1 0:5 / /a\040b\011c\134d\043 rw - fuse.x a\040b rw",
            Some(("/a b\tc\\d#", "fuse.x", "a b", "")),
        );
        check("30 1 0:5 / /x rw - tmpfs  rw", Some(("/x", "tmpfs", "", "")));
        // An escape that is none stays as it is.
        check(r"30 1 0:5 / /x\9 rw - tmpfs t\04 rw", Some((r"/x\9", "tmpfs", r"t\04", "")));
        check("30 1 0:5 / /x rw unbindable tmpfs t rw", None);
        check("30 1 0:5 / /x rw - tmpfs t", None);
        check("30 1 0:5 / /x rw - tmpfs t rw more", None);
        check("30 1 05 / /x rw - tmpfs t rw", None);
        check("-1 1 0:5 / /x rw - tmpfs t rw", None);
        check("30 1 0:5 / relative rw - tmpfs t rw", None);
    }

    #[test]
    fn a_malformed_line_is_named() {
        let error = parse(b"22 27 0:21 / /proc rw - proc proc rw\nnonsense\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2 of mountinfo is malformed: \"nonsense\"");
    }

    #[test]
    fn the_last_of_several_at_one_place_is_on_top() {
        let table = parse(b"2 1 0:5 / /x rw - tmpfs a rw\n3 2 0:6 / /x rw - tmpfs b rw\n").unwrap();
        assert_eq!(top(&table, Path::new("/x")).map(|mounted| mounted.id), Some(3));
        assert_eq!(top(&table, Path::new("/y")), None);
    }

    #[test]
    fn without_proc_the_table_is_the_same() {
        let attached = parse(&std::fs::read("/proc/thread-self/mountinfo").unwrap()).unwrap();
        let detached = parse(&read_detached().unwrap()).unwrap();
        // Other tests mount and unmount meanwhile; the root is there all the time.
        let root = |table: &[Mounted]| top(table, Path::new("/")).cloned();
        assert!(root(&attached).is_some());
        assert_eq!(root(&attached), root(&detached));
    }

    /// As the kernel does it (fs/proc_namespace.c, mangle).
    fn escape(bytes: &[u8]) -> Vec<u8> {
        let one = |&byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
            _ => vec![byte],
        };
        bytes.iter().flat_map(one).collect()
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1..=255_u8, 0..20)
    }

    proptest! {
        #[test]
        fn any_path_and_source_are_read_as_they_were(target in name(), source in name(), tag in 0..3_usize) {
            let tags = ["", "shared:1 ", "shared:1 master:2 "][tag];
            let target = [b"/", target.as_slice()].concat();
            let mut line = b"7 1 8:1 / ".to_vec();
            line.extend_from_slice(&escape(&target));
            line.extend_from_slice(format!(" rw,nodev {tags}- ext4 ").as_bytes());
            line.extend_from_slice(&escape(&source));
            line.extend_from_slice(b" rw\n");
            let table = parse(&line).unwrap();
            prop_assert_eq!(&table[0].target, &PathBuf::from(OsString::from_vec(target)));
            prop_assert_eq!(&table[0].source, &PathBuf::from(OsString::from_vec(source)));
            prop_assert_eq!(table[0].propagation.len(), tag);
        }

        #[test]
        fn no_bytes_are_too_strange(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&text);
        }
    }
}
