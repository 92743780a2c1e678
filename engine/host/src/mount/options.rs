//! Mount options as mount(8) takes them, told apart as mount(2) wants them: flags, and a text for the filesystem.

use keel_unit::value::MountOption;
use nix::mount::MsFlags;

/// Options, told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Whether another place in the tree is mounted here, rather than a filesystem.
    pub bind: Option<Bind>,
    /// What the kernel itself heeds.
    pub flags: Flags,
    /// What is for the filesystem, with commas between.
    pub data: String,
}

/// How much a bind mount takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// The one mount.
    One,
    /// All mounts below too.
    Recursive,
}

/// Flags of mount(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub MsFlags);

impl Default for Flags {
    fn default() -> Self {
        Self(MsFlags::empty())
    }
}

/// An option that is no option of a mount unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the option `{option}` may not stand here{hint}")]
pub struct OptionError {
    /// The option.
    pub option: String,
    /// What to write instead.
    pub hint: &'static str,
}

/// What an option that the kernel heeds does to the flags.
enum Effect {
    Set(MsFlags),
    Clear(MsFlags),
}

/// The access-time options exclude each other.
const ATIME: MsFlags =
    MsFlags::MS_NOATIME.union(MsFlags::MS_RELATIME).union(MsFlags::MS_STRICTATIME);

fn effect(option: &str) -> Option<Effect> {
    use Effect::{Clear, Set};
    Some(match option {
        "ro" => Set(MsFlags::MS_RDONLY),
        "rw" => Clear(MsFlags::MS_RDONLY),
        "nosuid" => Set(MsFlags::MS_NOSUID),
        "suid" => Clear(MsFlags::MS_NOSUID),
        "nodev" => Set(MsFlags::MS_NODEV),
        "dev" => Clear(MsFlags::MS_NODEV),
        "noexec" => Set(MsFlags::MS_NOEXEC),
        "exec" => Clear(MsFlags::MS_NOEXEC),
        "sync" => Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Set(MsFlags::MS_DIRSYNC),
        "noatime" => Set(MsFlags::MS_NOATIME),
        "relatime" => Set(MsFlags::MS_RELATIME),
        "strictatime" => Set(MsFlags::MS_STRICTATIME),
        "atime" => Clear(MsFlags::MS_NOATIME),
        "nodiratime" => Set(MsFlags::MS_NODIRATIME),
        "diratime" => Clear(MsFlags::MS_NODIRATIME),
        "lazytime" => Set(MsFlags::MS_LAZYTIME),
        "nolazytime" => Clear(MsFlags::MS_LAZYTIME),
        "silent" => Set(MsFlags::MS_SILENT),
        "loud" => Clear(MsFlags::MS_SILENT),
        _ => return None,
    })
}

impl Options {
    /// Tells options apart. Where two contradict each other the later one holds, as everywhere.
    ///
    /// # Errors
    /// For what is not about how something is mounted, but about mounting as such.
    pub fn parse(options: &[MountOption]) -> Result<Self, OptionError> {
        let mut parsed = Self::default();
        let mut data = Vec::new();
        for option in options.iter().map(MountOption::as_str) {
            match effect(option) {
                Some(Effect::Set(flag)) => {
                    parsed.flags.0.remove(if ATIME.contains(flag) { ATIME } else { flag });
                    parsed.flags.0.insert(flag);
                    continue;
                }
                Some(Effect::Clear(flag)) => {
                    parsed.flags.0.remove(flag);
                    continue;
                }
                None => {}
            }
            match option {
                "bind" => parsed.bind = Some(Bind::One),
                "rbind" => parsed.bind = Some(Bind::Recursive),
                "defaults" => {}
                "auto" | "noauto" | "nofail" | "_netdev" | "user" | "users" | "owner" | "group" => {
                    return Err(refused(option, "; it says when to mount, and units say that"));
                }
                "remount" | "move" => {
                    return Err(refused(
                        option,
                        "; a unit says what is to be, not how it comes to be",
                    ));
                }
                "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate"
                | "unbindable" | "runbindable" => {
                    return Err(refused(option, "; the key `propagation` says that"));
                }
                "loop" => return Err(refused(option, "; there is no losetup on a node")),
                _ if option.starts_with("x-") || option.starts_with("X-") => {
                    return Err(refused(option, "; it is for other programs"));
                }
                _ => data.push(option),
            }
        }
        parsed.data = data.join(",");
        Ok(parsed)
    }
}

fn refused(option: &str, hint: &'static str) -> OptionError {
    OptionError { option: option.to_owned(), hint }
}

impl Flags {
    /// Whether a mount with these options, as mountinfo shows them, heeds these flags. `relatime` is what the kernel does
    /// when nothing is said.
    pub fn are_shown_by(self, shown: &[String]) -> bool {
        let shown_flags = shown.iter().filter_map(|option| match effect(option) {
            Some(Effect::Set(flag)) => Some(flag),
            Some(Effect::Clear(_)) | None => None,
        });
        let shown_flags = shown_flags.fold(MsFlags::empty(), MsFlags::union);
        let per_mount = MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC
            | MsFlags::MS_NOATIME
            | MsFlags::MS_NODIRATIME;
        (shown_flags & per_mount) == (self.0 & per_mount)
    }
}

#[cfg(test)]
mod tests {
    use keel_unit::keys::Text;

    use super::*;

    fn parse(options: &[&str]) -> Result<Options, OptionError> {
        let options: Vec<_> =
            options.iter().map(|option| MountOption::parse(option).unwrap()).collect();
        Options::parse(&options)
    }

    #[test]
    fn flags_are_told_from_data() {
        let check = |options: &[&str], bind: Option<Bind>, flags: MsFlags, data: &str| {
            let expect = Options { bind, flags: Flags(flags), data: data.to_owned() };
            assert_eq!(parse(options), Ok(expect), "{options:?}");
        };
        let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        check(&[], None, MsFlags::empty(), "");
        check(&["defaults", "nosuid", "nodev", "noexec"], None, hardened, "");
        check(&["nosuid", "mode=0755", "size=20%"], None, MsFlags::MS_NOSUID, "mode=0755,size=20%");
        check(
            &["nosuid", "noexec", "gid=5", "ptmxmode=0666"],
            None,
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            "gid=5,ptmxmode=0666",
        );
        check(&["nsdelegate"], None, MsFlags::empty(), "nsdelegate");
        check(&["rbind", "ro"], Some(Bind::Recursive), MsFlags::MS_RDONLY, "");
        check(&["ro", "rw"], None, MsFlags::empty(), "");
        check(&["noatime", "relatime"], None, MsFlags::MS_RELATIME, "");
        check(
            &["relatime", "strictatime", "nodiratime"],
            None,
            MsFlags::MS_STRICTATIME | MsFlags::MS_NODIRATIME,
            "",
        );
    }

    #[test]
    fn what_is_no_option_of_a_unit_is_refused() {
        let check = |option: &str, expect: &str| {
            assert_eq!(parse(&[option]).unwrap_err().to_string(), expect)
        };
        check(
            "rshared",
            "the option `rshared` may not stand here; the key `propagation` says that",
        );
        check(
            "remount",
            "the option `remount` may not stand here; a unit says what is to be, not how it comes to be",
        );
        check(
            "nofail",
            "the option `nofail` may not stand here; it says when to mount, and units say that",
        );
        check(
            "x-systemd.automount",
            "the option `x-systemd.automount` may not stand here; it is for other programs",
        );
    }

    #[test]
    fn shown_options_are_compared_by_what_they_do() {
        let check = |options: &[&str], shown: &str, expect: bool| {
            let shown: Vec<_> = shown.split(',').map(str::to_owned).collect();
            assert_eq!(
                parse(options).unwrap().flags.are_shown_by(&shown),
                expect,
                "{options:?} {shown:?}"
            );
        };
        check(&["nosuid", "nodev"], "rw,nosuid,nodev,relatime", true);
        check(&["nosuid", "nodev", "relatime"], "rw,nosuid,nodev,relatime", true);
        check(&["nosuid"], "rw,relatime", false);
        check(&[], "rw,nosuid,relatime", false);
        check(&["ro"], "rw,relatime", false);
        check(&["noatime"], "rw,noatime", true);
        check(&["noatime"], "rw,relatime", false);
    }
}
