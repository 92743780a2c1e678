//! Oneshots and services: from what the unit file says to a [`Program`], and from its life to reports.

use std::path::PathBuf;
use std::time::Duration;

use keel_plan::{ExitStatus, Report};
use keel_unit::kinds::{Oneshot, Ready, Resources, Service};
use keel_unit::value::SignalName;
use keel_unit::{Kind, Unit};
use nix::sys::signal::Signal;

use super::Shared;
use super::slot::Activation;
use crate::process::{
    Asks, Command, Exit, Life, Limits, LogBounds, LogBuffer, Program, ReadyBy, Surroundings, live,
};

/// Runs the program of a unit to its end.
pub(super) async fn run(shared: &Shared, of: &Activation, asks: &mut Asks) -> Report {
    let unit = &of.unit;
    let (program, success) = match &unit.kind {
        Kind::Oneshot(oneshot) => (of_oneshot(unit.name.as_str(), oneshot), Some(oneshot)),
        Kind::Service(service) => (of_service(unit.name.as_str(), service), None),
        // The one caller has looked at the kind.
        _ => return Report::Done,
    };
    let failed = |why: String| Report::Failed { why: why.into() };
    let around = match surroundings(shared, &program) {
        Ok(around) => around,
        Err(why) => return failed(why),
    };
    let spare = LogBuffer::new(LogBounds::default());
    let log = of.slot.log.as_ref().unwrap_or(&spare);

    let is_service = success.is_none();
    let ended = live(&program, &around, log, asks, |life| match life {
        Life::Started(pid) => {
            *of.slot.pid() = Some(pid);
            if is_service {
                shared.report(of, Report::Started);
            }
        }
        Life::Ready if is_service => shared.report(of, Report::Ready),
        Life::Ready => {}
        Life::Fact(fact) => shared.fact(&of.slot, fact),
    })
    .await;
    *of.slot.pid() = None;

    match (ended, success) {
        (Ok(Exit::Code(code)), Some(oneshot))
            if oneshot.success.iter().any(|good| i32::from(good.0) == code) =>
        {
            Report::Done
        }
        // The program's last words are the best reason there is.
        (Ok(exit), Some(_)) => failed(match log.tail(1).first() {
            Some(line) => format!("{exit}: {}", line.text),
            None => exit.to_string(),
        }),
        (Ok(exit), None) => Report::Exited { status: status(exit) },
        (Err(error), _) => failed(reason(&error)),
    }
}

fn status(exit: Exit) -> ExitStatus {
    match exit {
        Exit::Code(code) => ExitStatus::Code(code),
        Exit::Signal { signal, .. } => ExitStatus::Signal(signal),
    }
}

/// An error with all its causes, in one line.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // A kind that its struct has already quoted is not said twice.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn surroundings(shared: &Shared, program: &Program) -> Result<Surroundings, String> {
    let cgroups = (shared.cgroups)().ok_or_else(|| {
        format!("no cgroup v2 hierarchy is mounted at {}", shared.places.cgroup.display())
    })?;
    let notifications = match program.ready {
        ReadyBy::Notify => Some(shared.notifications().map_err(|error| reason(&error))?),
        ReadyBy::Started | ReadyBy::Socket(_) => None,
    };
    Ok(Surroundings { reaper: shared.reaper.clone(), cgroups, notifications })
}

fn of_oneshot(unit: &str, oneshot: &Oneshot) -> Program {
    let Oneshot { exec, environment, working_directory, success: _, resources, log: _, timeout: _ } =
        oneshot;
    let mut command = Command::new(exec.program.as_path(), &exec.arguments);
    command.environment =
        environment.0.iter().map(|(name, value)| (name.into(), value.into())).collect();
    command.directory = Some(working_directory.as_path().to_owned());
    Program {
        unit: unit.to_owned(),
        command,
        limits: limits(resources),
        delegate: false,
        ready: ReadyBy::Started,
        stop_signal: Signal::SIGTERM as i32,
    }
}

fn of_service(unit: &str, service: &Service) -> Program {
    let mut command = Command::new(service.exec.program.as_path(), &service.exec.arguments);
    command.environment =
        service.environment.0.iter().map(|(name, value)| (name.into(), value.into())).collect();
    command.directory = Some(service.working_directory.as_path().to_owned());
    // 0 is what init itself has, and what a child inherits.
    command.oom_score_adj = Some(service.oom_score_adjust.0).filter(|score| *score != 0);
    Program {
        unit: unit.to_owned(),
        command,
        limits: limits(&service.resources),
        delegate: service.delegate,
        ready: match &service.ready {
            Ready::Started => ReadyBy::Started,
            Ready::Notify => ReadyBy::Notify,
            Ready::Socket(path) => ReadyBy::Socket(PathBuf::from(path.as_path())),
        },
        stop_signal: signal(service.stop_signal),
    }
}

fn limits(resources: &Resources) -> Limits {
    let Resources { memory_max, memory_high, pids_max, cpu_weight, cpu_max } = resources;
    const PERIOD: Duration = Duration::from_millis(100);
    Limits {
        memory_max: memory_max.map(|size| size.0),
        memory_high: memory_high.map(|size| size.0),
        pids_max: pids_max.map(u64::from),
        cpu_weight: cpu_weight.map(|weight| u64::from(weight.0)),
        cpu_max: cpu_max.map(|limit| u64::from(limit.percent) * PERIOD.as_micros() as u64 / 100),
    }
}

/// The signal on which a unit's program reads its configuration again.
pub(super) fn reload_signal(unit: &Unit) -> Option<i32> {
    match &unit.kind {
        Kind::Service(service) => service.reload_signal.map(signal),
        _ => None,
    }
}

fn signal(name: SignalName) -> i32 {
    (match name {
        SignalName::Term => Signal::SIGTERM,
        SignalName::Int => Signal::SIGINT,
        SignalName::Hup => Signal::SIGHUP,
        SignalName::Quit => Signal::SIGQUIT,
        SignalName::Kill => Signal::SIGKILL,
        SignalName::Usr1 => Signal::SIGUSR1,
        SignalName::Usr2 => Signal::SIGUSR2,
    }) as i32
}
