//! What a key asks of a unit that is up when its value changes, and what each kind leaves on the machine: two tables.

use keel_unit::value::Source;
use keel_unit::{Kind, KindName};

/// What a changed key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asks {
    /// Nothing of the unit itself: people read it, or the scheduler goes by it from now on.
    Nothing,
    /// Its work is to be done anew, in the way of its kind.
    Work,
    /// What a machine that runs cannot do.
    Reboot,
}

/// The table of keys. A key is a path such as `service.exec`, as [`crate::export`] writes it.
pub(super) fn asks(kind: KindName, key: &str) -> Asks {
    use KindName as K;
    let mut parts = key.split('.');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if first != kind.as_str() {
        return match first {
            // A condition is looked at before a start, so the unit has to stand before one.
            "condition" if lasting(kind) => Asks::Reboot,
            "condition" => Asks::Work,
            // Words of order and requirement are edges, which change no unit that is up; policies are the scheduler's.
            _ => Asks::Nothing,
        };
    }
    match (kind, second) {
        (_, "timeout") => Asks::Nothing,
        (
            K::Service,
            "ready" | "restart" | "restart-delay" | "restart-max-delay" | "start-limit"
            | "stop-timeout" | "reload-signal" | "log",
        ) => Asks::Nothing,
        (K::Oneshot, "log") => Asks::Nothing,
        // Its mount point is made once.
        (K::Mount, "mode") => Asks::Nothing,
        // A module takes them only while it is loaded.
        (K::Module, "parameters") => Asks::Reboot,
        (kind, _) if lasting(kind) => Asks::Reboot,
        _ => Asks::Work,
    }
}

/// Kinds on whose work everything else stands: who the machine is, and how its disk is divided.
pub(super) fn lasting(kind: KindName) -> bool {
    matches!(kind, KindName::Partition | KindName::Filesystem | KindName::Identity)
}

/// How the work of a kind is done anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It goes down, and everything that stands on it; then all of it comes up.
    Down,
    /// In place: what stands on it stays up.
    InPlace,
    /// Not while the machine runs.
    Never,
}

/// The table of kinds.
pub(super) fn way(kind: &Kind) -> Way {
    match kind {
        Kind::Mount(mount) if mount.existing => Way::Never,
        // The kernel's filesystems stay mounted to the end: nothing could run without them.
        Kind::Mount(mount) if matches!(mount.source, Some(Source::Pseudo(_))) => Way::Never,
        Kind::Partition(_) | Kind::Filesystem(_) | Kind::Identity(_) => Way::Never,
        // A target does no work; what it stands for goes down with it.
        Kind::Mount(_) | Kind::Service(_) | Kind::Target(_) => Way::Down,
        Kind::Module(_)
        | Kind::Sysctl(_)
        | Kind::Device(_)
        | Kind::Link(_)
        | Kind::Hostname(_)
        | Kind::Time(_)
        | Kind::File(_)
        | Kind::Oneshot(_) => Way::InPlace,
    }
}

/// Whether a stop takes away what others stand on. What a file, a parameter or a oneshot did stays until the power goes.
pub(super) fn stop_takes_away(kind: &Kind) -> bool {
    matches!(kind, Kind::Mount(_) | Kind::Service(_) | Kind::Target(_) | Kind::Link(_))
}

/// Whether what the unit makes is read by the programs that wait for it.
pub(super) fn is_read(kind: &Kind) -> bool {
    matches!(kind, Kind::File(_) | Kind::Oneshot(_))
}
