//! A graph, how its units behave, and what became of it, as short lines of text.
//!
//! `kubelet service after=containerd requires=containerd takes=20 restart=always fault=exit:50:1`
//!
//! All times are in milliseconds. Lines stand in topological order; the last unit is the goal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keel_plan::{
    Action, Await, Backoff, Behaviour, Class, ExitStatus, Fault, FaultKind, Job, JobKind, Machine,
    OnFailure, RestartPolicy, Simulation, Spec, StartLimit, Transaction, UnitId,
};

/// So many milliseconds.
pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Pauses of 100, 200, 400, 800, 1000, 1000 … ms.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(1),
    factor: 2,
    jitter: 0,
};

/// Reads a graph. A unit marked `idle` has no job.
pub fn read(text: &str) -> (Arc<Transaction>, Machine) {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let ids: BTreeMap<&str, UnitId> = lines
        .iter()
        .enumerate()
        .map(|(index, line)| {
            (line.split_whitespace().next().expect("a name"), UnitId(index as u32))
        })
        .collect();

    let mut units = Vec::new();
    let mut behaviours = Vec::new();
    let mut jobs = Vec::new();
    for line in &lines {
        let (spec, behaviour, idle) = read_line(line, &ids);
        if !idle {
            jobs.push(Job { unit: ids[&*spec.name], kind: JobKind::Start });
        }
        units.push(spec);
        behaviours.push(behaviour);
    }
    let goal = UnitId(units.len() as u32 - 1);
    let transaction = Arc::new(Transaction::new(goal, jobs, units).expect("a transaction"));
    let mut machine = Machine::new(Arc::clone(&transaction));
    for (id, behaviour) in transaction.ids().zip(behaviours) {
        *machine.behaviour(id) = behaviour;
    }
    (transaction, machine)
}

fn read_line(line: &str, ids: &BTreeMap<&str, UnitId>) -> (Spec, Behaviour, bool) {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a name and a class");
    let class = match words.next().expect("a name and a class") {
        "target" => Class::Target,
        "oneshot" => Class::Oneshot,
        "service" => Class::Service,
        other => panic!("class {other}"),
    };
    let mut spec = Spec { deadline: ms(1000), stop_deadline: ms(100), ..Spec::new(name, class) };
    spec.failure.backoff = BACKOFF;
    spec.restart.backoff = BACKOFF;
    let mut behaviour = Behaviour::default();
    let mut idle = false;
    let (mut from, mut times, mut then) = (1, Fault::ALWAYS, None);
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let list = || value.split(',').map(|name| ids[name]);
        let millis = || ms(value.parse().expect("a number"));
        match key {
            "after" => {
                spec.after = value
                    .split(',')
                    .map(|edge| match edge.split_once(':') {
                        None => (ids[edge], Await::Ready),
                        Some((name, "started")) => (ids[name], Await::Started),
                        Some((name, "exited")) => (ids[name], Await::Exited),
                        Some(other) => panic!("await {other:?}"),
                    })
                    .collect();
            }
            "requires" => spec.requires = list().collect(),
            "binds" => spec.binds_to = list().collect(),
            "wants" => spec.wants = list().collect(),
            "conflicts" => spec.conflicts = list().collect(),
            "deadline" => spec.deadline = millis(),
            "stop-deadline" => spec.stop_deadline = millis(),
            "attempts" => spec.failure.attempts = value.parse().expect("a number"),
            "on" => {
                spec.failure.on = match value {
                    "emergency" => OnFailure::Emergency,
                    "reboot" => OnFailure::Reboot,
                    other => panic!("on {other}"),
                }
            }
            "restart" => {
                spec.restart.policy = match value {
                    "always" => RestartPolicy::Always,
                    "on-failure" => RestartPolicy::OnFailure,
                    other => panic!("restart {other}"),
                }
            }
            "limit" => {
                let (burst, interval) = value.split_once('/').expect("burst/interval");
                let interval = ms(interval.parse().expect("milliseconds"));
                spec.restart.limit =
                    Some(StartLimit { burst: burst.parse().expect("a number"), interval });
            }
            "idle" => idle = true,
            "takes" => behaviour.takes = millis(),
            "started-in" => behaviour.started_in = millis(),
            "stops-in" => behaviour.stops_in = millis(),
            "condition" => {
                spec.has_condition = true;
                behaviour.unmet = (value == "unmet").then(|| "no such file".into());
            }
            "then" => then = Some(Box::new(Fault::always(read_fault(value)))),
            "from" => from = value.parse().expect("a number"),
            "times" => times = value.parse().expect("a number"),
            "fault" => behaviour.fault = Some(Fault::always(read_fault(value))),
            other => panic!("key {other}"),
        }
    }
    if let Some(fault) = &mut behaviour.fault {
        (fault.from, fault.times, fault.then) = (from, times, then);
    }
    (spec, behaviour, idle)
}

pub(crate) fn read_fault(text: &str) -> FaultKind {
    let mut parts = text.split(':');
    let kind = parts.next().expect("a fault");
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).expect("a number");
    match kind {
        "fail" => FaultKind::Fail { why: "broken".into() },
        "hang" => FaultKind::Hang,
        "hang-forever" => FaultKind::HangForever,
        "hang-stop" => FaultKind::HangStop,
        "hang-condition" => FaultKind::HangCondition,
        "slow" => FaultKind::Slow(number() as u32),
        "exit" => {
            FaultKind::Exit { after: ms(number()), status: ExitStatus::Code(number() as i32) }
        }
        "lose" => FaultKind::Lose { after: ms(number()), why: "lost".into() },
        other => panic!("fault {other}"),
    }
}

/// `waiting@0 activating@10 active(exited)@30`: every state that the unit went through, and when.
pub fn history(run: &Simulation, unit: UnitId) -> String {
    let states = run.log.iter().filter_map(|(at, action)| match action {
        Action::Announce(transition) if transition.unit == unit => {
            Some(format!("{}@{}", transition.to, at.as_millis()))
        }
        _ => None,
    });
    states.collect::<Vec<_>>().join(" ")
}
