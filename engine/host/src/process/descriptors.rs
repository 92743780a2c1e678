//! How many descriptors PID 1 may have: a few for each program that it watches.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What any program may ask for, and PID 1 has. Descriptors that nobody opens cost nothing.
const MOST: u64 = 524_288;

/// Allows this process as many descriptors as programs may ever have: the kernel gives its first process 1,024, and 4,096 to ask for,
/// which is enough for five hundred services. Programs get what is usual when they are started.
pub fn allow_descriptors() {
    let Ok((_, greatest)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let most = MOST.max(greatest);
    // Who may not raise the greatest, in a namespace, takes all that there is.
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, greatest, greatest);
    }
}
