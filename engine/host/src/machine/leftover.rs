//! What outlives its unit while the machine goes down: the shims of containerd, and pods, whose cgroups the kubelet makes beside ours.
//!
//! While the machine runs they are meant to: a restart of containerd must not end the pods. But they hold the data partition, so
//! before that is unmounted they have to go: asked first, when the shutdown begins, so that pods have all the time that services
//! take to stop; and ended when something that they hold is to be unmounted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keel_unit::Kind;
use nix::sys::signal::{Signal, kill};

use super::Shared;
use crate::namespace;
use crate::process::{Cgroup, Cgroups};

/// How long what is left may take once it has been asked to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long what was killed may take to be gone; the mount's own stop has a deadline of 10 s.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// The machine goes down: pods are asked to end.
pub(super) fn going_down(shared: &Arc<Shared>) {
    if !shared.going_down.swap(true, Ordering::Relaxed) {
        pods(shared).iter().for_each(ask);
    }
}

/// Ends what is left, if the machine is going down.
pub(super) async fn end(shared: &Arc<Shared>) {
    if !shared.going_down.load(Ordering::Relaxed) {
        return;
    }
    let left: Vec<_> = pods(shared).into_iter().chain(delegated(shared)).collect();
    left.iter().for_each(ask);
    drop(tokio::time::timeout(PATIENCE, empty(&left)).await);
    left.iter().for_each(|cgroup| drop(cgroup.kill()));
    drop(tokio::time::timeout(KILL_PATIENCE, empty(&left)).await);
}

async fn empty(cgroups: &[Cgroup]) {
    for cgroup in cgroups {
        drop(cgroup.wait_empty().await);
    }
}

fn ask(cgroup: &Cgroup) {
    for process in cgroup.processes().into_iter().flatten() {
        let _ = kill(process, Signal::SIGTERM);
    }
}

/// The cgroups beside ours. On a machine of our own they are pods; in a namespace that shares the host's hierarchy they are the
/// host's, and none of our business.
fn pods(shared: &Shared) -> Vec<Cgroup> {
    let cgroups = namespace::owns_cgroups().then(|| (shared.cgroups)()).flatten();
    cgroups.as_ref().map(Cgroups::beside).unwrap_or_default()
}

fn delegated(shared: &Shared) -> Vec<Cgroup> {
    let Some(cgroups) = (shared.cgroups)() else { return Vec::new() };
    let units = shared.all_units();
    let delegates = units
        .iter()
        .filter(|unit| matches!(&unit.kind, Kind::Service(service) if service.delegate));
    delegates.filter_map(|unit| cgroups.existing(unit.name.as_str()).ok()).collect()
}
