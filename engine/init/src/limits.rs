//! What every program on the machine may have, because it inherits it from PID 1.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// How many files a program may have open if it asks. The kernel starts PID 1 with 1024, and with 4096 for those that ask
/// (include/uapi/linux/fs.h, INR_OPEN_MAX). What containerd inherits is what every container gets: too few for a database. This is
/// systemd's value, so that containers find on Keel what they find elsewhere.
const OPEN_FILES: rlim_t = 524_288;

/// Lets every program of the machine open more files, if it asks.
///
/// # Errors
/// As setrlimit(2). It takes CAP_SYS_RESOURCE, which PID 1 of a namespace may lack.
pub(crate) fn raise() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match raised(soft, hard) {
        Some((soft, hard)) => setrlimit(Resource::RLIMIT_NOFILE, soft, hard),
        None => Ok(()),
    }
}

/// The limits to set, if they are lower. The soft one stays: select(2) breaks on descriptors above 1023, and who knows better raises
/// it.
fn raised(soft: rlim_t, hard: rlim_t) -> Option<(rlim_t, rlim_t)> {
    (hard < OPEN_FILES).then_some((soft, OPEN_FILES))
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::RLIM_INFINITY;

    use super::*;

    #[test]
    fn the_hard_limit_rises_and_never_falls() {
        let check = |limits: (rlim_t, rlim_t), expect| {
            assert_eq!(raised(limits.0, limits.1), expect, "{limits:?}");
        };
        check((1024, 4096), Some((1024, 524_288)));
        check((1024, 524_288), None);
        check((1024, 1_048_576), None);
        check((1024, RLIM_INFINITY), None);
    }
}
