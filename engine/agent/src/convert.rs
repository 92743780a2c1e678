//! The edge between init's words and the API's: every type on one side has one function here.

use std::time::{Duration, SystemTime};

use keel_control as control;
use keel_proto::v1;
use tonic::Status;

use crate::log::chain;

/// Init's status. What the agent knows is not in it yet.
pub(crate) fn status(status: control::Status) -> v1::NodeStatus {
    v1::NodeStatus {
        version: status.version,
        kernel: status.kernel,
        hostname: status.hostname,
        machine_id: status.machine_id,
        uptime: Some(duration(status.uptime_ms)),
        goal: status.goal,
        state: goal_state(status.state).into(),
        degraded: status.degraded.into_iter().map(degradation).collect(),
        digest: status.digest,
        links: status.links.into_iter().map(link).collect(),
        boot: status.boot.map(boot_report),
        ..v1::NodeStatus::default()
    }
}

fn degradation(degraded: control::Degraded) -> v1::Degradation {
    v1::Degradation { unit: degraded.unit, why: degraded.why }
}

fn link(link: control::Link) -> v1::Link {
    let cidr = |address: control::Address| format!("{}/{}", address.ip, address.prefix);
    v1::Link { name: link.name, addresses: link.addresses.into_iter().map(cidr).collect() }
}

fn boot_report(boot: control::BootReport) -> v1::BootReport {
    let critical = |unit: control::CriticalUnit| v1::CriticalUnit {
        unit: unit.unit,
        took: Some(duration(unit.ms)),
    };
    v1::BootReport {
        total: Some(duration(boot.total_ms)),
        critical_path: boot.critical_path.into_iter().map(critical).collect(),
        speed_up: boot.speed_up,
        max_side_by_side: boot.max_side_by_side,
        kernel: boot.kernel_us.map(micros),
        processors: boot.processors,
    }
}

fn goal_state(state: control::GoalState) -> v1::GoalState {
    match state {
        control::GoalState::Booting => v1::GoalState::Booting,
        control::GoalState::Reached => v1::GoalState::Reached,
        control::GoalState::Degraded => v1::GoalState::Degraded,
        control::GoalState::Emergency => v1::GoalState::Emergency,
        control::GoalState::Stopping => v1::GoalState::Stopping,
    }
}

/// Init's list of units.
pub(crate) fn units(list: control::UnitList) -> v1::ListUnitsResponse {
    v1::ListUnitsResponse {
        now: Some(duration(list.now_ms)),
        units: list.units.into_iter().map(unit).collect(),
    }
}

pub(crate) fn unit(unit: control::Unit) -> v1::Unit {
    v1::Unit {
        name: unit.name,
        kind: unit.kind,
        stage: unit.stage,
        description: unit.description,
        state: unit_state(unit.state).into(),
        since: Some(duration(unit.since_ms)),
        took: unit.took_ms.map(duration),
        attempts: unit.attempts,
        note: unit.note,
        deadline: unit.deadline_ms.map(duration),
        waits_for: unit.waits_for,
        pid: unit.pid,
        memory_bytes: unit.memory_bytes,
        boot: unit.boot.map(unit_boot),
    }
}

fn unit_boot(boot: control::UnitBoot) -> v1::UnitBoot {
    v1::UnitBoot {
        state: unit_state(boot.state).into(),
        began: boot.began_us.map(micros),
        ended: boot.ended_us.map(micros),
        waited_for: boot.waited_for,
        attempts: boot.attempts,
    }
}

pub(crate) fn unit_state(state: control::UnitState) -> v1::UnitState {
    match state {
        control::UnitState::Inactive => v1::UnitState::Inactive,
        control::UnitState::Waiting => v1::UnitState::Waiting,
        control::UnitState::Activating => v1::UnitState::Activating,
        control::UnitState::Running => v1::UnitState::Running,
        control::UnitState::Exited => v1::UnitState::Exited,
        control::UnitState::Deactivating => v1::UnitState::Deactivating,
        control::UnitState::Failed => v1::UnitState::Failed,
        control::UnitState::Skipped => v1::UnitState::Skipped,
    }
}

/// Init's inventory of the machine.
pub(crate) fn inventory(inventory: control::Inventory) -> v1::Inventory {
    v1::Inventory {
        architecture: inventory.architecture,
        kernel: inventory.kernel,
        cpus: inventory.cpus,
        memory_bytes: inventory.memory,
        links: inventory.links.into_iter().map(inventory_link).collect(),
        disks: inventory.disks.into_iter().map(inventory_disk).collect(),
        left_out: inventory.left_out,
    }
}

fn inventory_link(link: control::InventoryLink) -> v1::InventoryLink {
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    v1::InventoryLink {
        name: link.name,
        mac: link.mac.map(mac),
        carrier: link.carrier,
        kind: link.kind,
        port: link.port,
        drivers: link.drivers.into_iter().map(inventory_driver).collect(),
    }
}

fn inventory_disk(disk: control::InventoryDisk) -> v1::InventoryDisk {
    v1::InventoryDisk {
        path: disk.path,
        by_id: disk.ids,
        serial: disk.serial,
        model: disk.model,
        size_bytes: disk.size,
        bus: disk.bus,
        removable: disk.removable,
        read_only: disk.read_only,
        content: disk.content,
        unread: disk.unread,
        partitions: disk.partitions.into_iter().map(inventory_partition).collect(),
        image: disk.image.map(inventory_image),
        drivers: disk.drivers.into_iter().map(inventory_driver).collect(),
    }
}

fn inventory_image(image: control::InventoryImage) -> v1::InventoryImage {
    let control::InventoryImage { room, content, unfit } = image;
    v1::InventoryImage { room_bytes: room, content, unfit }
}

fn inventory_partition(partition: control::InventoryPartition) -> v1::InventoryPartition {
    v1::InventoryPartition {
        number: partition.number,
        label: partition.label,
        type_guid: partition.type_guid,
        size_bytes: partition.size,
        content: partition.content.map(|marks| v1::InventoryContent { marks }),
    }
}

fn inventory_driver(driver: control::InventoryDriver) -> v1::InventoryDriver {
    let control::InventoryDriver { name, modalias, built_in } = driver;
    v1::InventoryDriver { name, modalias, built_in }
}

/// Some of the events of the boot `boot`.
pub(crate) fn events(batch: control::Batch, boot: String) -> v1::WatchEventsResponse {
    v1::WatchEventsResponse {
        dropped: batch.dropped,
        events: batch.events.into_iter().map(event).collect(),
        next_seq: batch.next,
        boot,
    }
}

/// Some lines of the boot `boot`, which runs: init's clock counts from its start, and `now` is this moment by the machine's clock.
pub(crate) fn lines(
    batch: control::LogBatch,
    boot: String,
    now: SystemTime,
) -> v1::ReadLogsResponse {
    let written = |line: &control::LogLine| {
        now.checked_sub(Duration::from_millis(batch.now_ms.saturating_sub(line.at_ms)))
    };
    let lines = batch.lines.into_iter().map(|line| {
        let time = written(&line);
        log_line(line, time)
    });
    v1::ReadLogsResponse { dropped: batch.dropped, lines: lines.collect(), boot }
}

/// A line, and when it was written.
pub(crate) fn log_line(line: control::LogLine, time: Option<SystemTime>) -> v1::LogLine {
    v1::LogLine {
        unit: line.unit,
        seq: line.seq,
        at: Some(duration(line.at_ms)),
        time: time.map(Into::into),
        text: line.text,
        cut: line.cut,
    }
}

/// A boot, and what its record takes on the disk; 0 if there is none.
pub(crate) fn boot(boot: control::BootRecord, current: bool, size_bytes: u64) -> v1::Boot {
    let ended = boot.ended.map(|how| match how {
        control::Shutdown::Reboot => "reboot",
        control::Shutdown::PowerOff => "power-off",
        control::Shutdown::Halt => "halt",
    });
    v1::Boot {
        id: boot.id,
        current,
        began: Some(moment(boot.began_ms).into()),
        recorded: (size_bytes > 0).then(|| moment(boot.recorded_ms).into()),
        goal: boot.goal,
        state: goal_state(boot.state).into(),
        total: boot.total_us.map(micros),
        digest: boot.digest,
        ended: ended.map(str::to_owned),
        size_bytes,
    }
}

/// A moment from milliseconds since 1970; what no clock can say is 1970.
pub(crate) fn moment(ms: u64) -> SystemTime {
    // Beyond the year 9999 protobuf has no timestamps.
    const LAST: u64 = 253_402_300_799_999;
    SystemTime::UNIX_EPOCH + Duration::from_millis(if ms > LAST { 0 } else { ms })
}

fn event(event: control::Event) -> v1::Event {
    v1::Event { seq: event.seq, at: Some(duration(event.at_ms)), what: Some(happened(event.what)) }
}

fn happened(what: control::Happened) -> v1::event::What {
    match what {
        control::Happened::Transition { unit, from, to, why } => {
            let (from, to) = (unit_state(from).into(), unit_state(to).into());
            v1::event::What::Transition(v1::UnitTransition { unit, from, to, why })
        }
        control::Happened::Fact { unit, text } => v1::event::What::Fact(v1::Fact { unit, text }),
        control::Happened::Goal { state, why } => {
            v1::event::What::Goal(v1::GoalChange { state: goal_state(state).into(), why })
        }
        control::Happened::Mutation { generation, progress } => {
            let text = format!("config {generation} {progress}");
            v1::event::What::Fact(v1::Fact { unit: None, text })
        }
    }
}

/// Why init did not answer, as gRPC says it.
pub(crate) fn error(error: &control::ControlError) -> Status {
    use control::{ControlErrorKind as Kind, RefusalKind};

    let text = chain(error);
    match &error.kind {
        Kind::Connect(_) | Kind::NoRoom | Kind::Silent | Kind::Closed | Kind::Frame(_) => {
            Status::unavailable(text)
        }
        Kind::Stranger | Kind::Version { .. } | Kind::Unexpected => Status::internal(text),
        Kind::Refused(refusal) => match &refusal.kind {
            RefusalKind::NotYet { .. } | RefusalKind::NoLine { .. } => {
                Status::out_of_range(refusal.kind.to_string())
            }
            RefusalKind::NoLog(_) => Status::not_found(refusal.kind.to_string()),
            RefusalKind::Stopping => Status::failed_precondition(refusal.kind.to_string()),
            RefusalKind::TooLarge | RefusalKind::Internal(_) => Status::internal(text),
            RefusalKind::UnknownUnit { .. } => Status::not_found(refusal.kind.to_string()),
            RefusalKind::OtherGraph { .. }
            | RefusalKind::Impossible(_)
            | RefusalKind::Busy { .. }
            | RefusalKind::NeedsReboot { .. }
            | RefusalKind::NoStore(_)
            | RefusalKind::NothingOnTrial => Status::failed_precondition(refusal.kind.to_string()),
            RefusalKind::NoGeneration { .. } => Status::not_found(refusal.kind.to_string()),
            RefusalKind::Unconfirmed => Status::invalid_argument(refusal.kind.to_string()),
        },
    }
}

pub(crate) fn duration(ms: u64) -> prost_types::Duration {
    on_the_wire(Duration::from_millis(ms))
}

fn micros(us: u64) -> prost_types::Duration {
    on_the_wire(Duration::from_micros(us))
}

pub(crate) fn on_the_wire(duration: Duration) -> prost_types::Duration {
    // Fails only beyond what the protocol can say: 10,000 years.
    duration.try_into().unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{ControlError, ControlErrorKind, RefusalKind};
    use tonic::Code;

    fn check(kind: ControlErrorKind, code: Code, message: &str) {
        let status = error(&ControlError { path: "/run/keel/control.sock".into(), kind });
        assert_eq!((status.code(), status.message()), (code, message));
    }

    #[test]
    fn errors_say_what_to_look_at() {
        check(
            ControlErrorKind::Connect(std::io::ErrorKind::NotFound.into()),
            Code::Unavailable,
            "cannot talk to init at /run/keel/control.sock: cannot connect: entity not found",
        );
        check(
            ControlErrorKind::Closed,
            Code::Unavailable,
            "cannot talk to init at /run/keel/control.sock: init closed the connection",
        );
        check(
            ControlErrorKind::Refused(RefusalKind::NotYet { asked: 9, next: 3 }.into()),
            Code::OutOfRange,
            "event 9 has not happened, the next one is 3; has the node rebooted since?",
        );
        let near = vec!["service.time".to_owned()];
        check(
            ControlErrorKind::Refused(RefusalKind::UnknownUnit { name: "tme".into(), near }.into()),
            Code::NotFound,
            "there is no unit `tme`; did you mean service.time?",
        );
        check(
            ControlErrorKind::Refused(RefusalKind::Unconfirmed.into()),
            Code::InvalidArgument,
            "this machine's id was not given as confirmation",
        );
        check(
            ControlErrorKind::Version { theirs: 2, software: "keel 0.2.0".to_owned() },
            Code::Internal,
            "cannot talk to init at /run/keel/control.sock: init is keel 0.2.0 and speaks version 2, not 5",
        );
    }

    #[test]
    fn durations() {
        assert_eq!(duration(1_500), prost_types::Duration { seconds: 1, nanos: 500_000_000 });
        assert_eq!(duration(0), prost_types::Duration { seconds: 0, nanos: 0 });
        assert_eq!(duration(u64::MAX).nanos, 615_000_000);
    }
}
