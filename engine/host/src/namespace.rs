//! Whether this process has the machine to itself, or runs in namespaces beside others.

use std::fs;

// The kernel's own first namespaces have fixed numbers (include/linux/proc_ns.h: PROC_PID_INIT_INO, PROC_CGROUP_INIT_INO).
const FIRST_PID: &str = "pid:[4026531836]";
const FIRST_CGROUP: &str = "cgroup:[4026531835]";

/// Whether this is the machine itself: PID 1 here is the machine's init.
pub fn is_machine() -> bool {
    is("/proc/self/ns/pid", FIRST_PID)
}

/// Whether all of the cgroup hierarchy that we see is ours: the machine's own, or a cgroup namespace's.
pub fn owns_cgroups() -> bool {
    is_machine() || !is("/proc/self/ns/cgroup", FIRST_CGROUP)
}

fn is(file: &str, namespace: &str) -> bool {
    fs::read_link(file).is_ok_and(|link| link.as_os_str() == namespace)
}
