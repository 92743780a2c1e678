//! What a request would do is what it then does, and who is to blame that a unit is not up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keel_plan::{
    Action, Because, Behaviour, Event, Job, JobKind, Machine, Planned, Scheduler, ShutdownKind,
    State, Transaction, Transition, UnitId,
};
use keel_testkit::notation::{ms, read};
use keel_testkit::random::{cases, request};
use proptest::prelude::*;
use proptest::sample::Index;

/// A scheduler and its machine, which can be stopped at any instant and looked at.
#[derive(Clone)]
struct Run {
    scheduler: Scheduler,
    machine: Machine,
    wake_at: Option<Duration>,
    transitions: Vec<Transition>,
}

impl Run {
    fn begin(transaction: &Arc<Transaction>, machine: Machine) -> Run {
        let scheduler = Scheduler::new(Arc::clone(transaction), 1);
        let mut run = Run { scheduler, machine, wake_at: None, transitions: Vec::new() };
        run.handle(Event::Submit, ms(0));
        run
    }

    fn handle(&mut self, event: Event, now: Duration) {
        for action in self.scheduler.handle(event, now) {
            match action {
                Action::Begin { token, effect } => self.machine.begin(token, effect, now),
                Action::WakeAt(at) => self.wake_at = Some(at),
                Action::Announce(transition) => self.transitions.push(transition),
                _ => {}
            }
        }
    }

    /// Everything that happens until then.
    fn until(mut self, horizon: Duration) -> Run {
        loop {
            let due = [self.machine.next_due(), self.wake_at].into_iter().flatten().min();
            let Some(now) = due.filter(|due| *due <= horizon) else { return self };
            if let Some((token, report)) = self.machine.pop_due(now) {
                self.handle(Event::Report { token, report }, now);
            } else if self.wake_at.is_some_and(|at| at <= now) {
                self.wake_at = None;
                self.handle(Event::TimerDue, now);
            }
        }
    }

    /// The states that each unit goes through.
    fn states(&self) -> BTreeMap<UnitId, Vec<State>> {
        let mut states: BTreeMap<UnitId, Vec<State>> = BTreeMap::new();
        self.transitions.iter().for_each(|it| states.entry(it.unit).or_default().push(it.to));
        states
    }
}

fn at(graph: &str, now: u64) -> (Arc<Transaction>, Run) {
    let (transaction, machine) = read(graph);
    let run = Run::begin(&transaction, machine).until(ms(now));
    (transaction, run)
}

/// One line for each unit: what becomes of it, and why; `!` where something of it is taken down.
fn lines(transaction: &Transaction, plan: &[Planned]) -> Vec<String> {
    let name = |unit: UnitId| transaction.spec(unit).name.to_string();
    let line = |it: &Planned| {
        let kind = match it.kind {
            JobKind::Start => "start",
            JobKind::Stop => "stop",
            JobKind::Restart => "restart",
        };
        let mark = if it.taken_down { "!" } else { "" };
        let because = match it.because {
            Because::Asked => String::new(),
            Because::For(other) => format!(" for {}", name(other)),
            Because::Requires(other) => format!(" requires {}", name(other)),
            Because::BoundTo(other) => format!(" bound to {}", name(other)),
            Because::Conflicts(other) => format!(" conflicts with {}", name(other)),
            Because::Lacked(other) => format!(" lacked {}", name(other)),
            Because::GoingDown => " going down".to_owned(),
        };
        format!("{kind}{mark} {}{because}", name(it.unit))
    };
    plan.iter().map(line).collect()
}

/// What a request would do at that instant.
fn check(graph: &str, now: u64, kind: JobKind, unit: &str, expect: &[&str]) {
    let (transaction, run) = at(graph, now);
    let job = Job { unit: transaction.find(unit).unwrap(), kind };
    let plan = match run.scheduler.rehearse(job, ms(now)) {
        Ok(plan) => lines(&transaction, &plan),
        Err(refusal) => vec![refusal.to_string()],
    };
    assert_eq!(plan, expect, "{kind:?} {unit} at {now} in\n{graph}");
}

const NODE: &str = "disk oneshot takes=10
    containerd service after=disk requires=disk takes=10 restart=always
    kubelet service after=containerd requires=containerd takes=10 restart=always
    agent service takes=10 restart=always
    idle service idle after=agent requires=agent takes=10
    other service idle conflicts=agent takes=10
    goal target after=kubelet,agent wants=kubelet,agent";

#[test]
fn what_a_request_would_do() {
    use JobKind::{Restart, Start, Stop};
    check(NODE, 100, Start, "kubelet", &[]);
    check(NODE, 100, Stop, "kubelet", &["stop! kubelet"]);
    check(
        NODE,
        100,
        Stop,
        "containerd",
        &["stop! kubelet requires containerd", "stop! containerd"],
    );
    check(
        NODE,
        100,
        Restart,
        "containerd",
        &["restart! kubelet requires containerd", "restart! containerd"],
    );
    check(NODE, 100, Start, "idle", &["start idle"]);
    check(NODE, 100, Stop, "idle", &[]);
    check(NODE, 100, Restart, "idle", &["start idle"]);
    check(NODE, 100, Start, "other", &["stop! agent conflicts with other", "start other"]);
    // While the boot is under way, what it does anyway is not told of.
    check(NODE, 5, Start, "kubelet", &[]);
    check(NODE, 15, Stop, "kubelet", &["stop kubelet"]);
    check(NODE, 15, Stop, "containerd", &["stop kubelet requires containerd", "stop! containerd"]);
}

#[test]
fn what_failed_for_lack_of_a_unit_comes_with_it() {
    let graph = "net oneshot takes=10 fault=fail times=1
        dns oneshot after=net requires=net takes=10
        goal target after=dns wants=dns";
    check(graph, 100, JobKind::Start, "net", &["start net", "start dns lacked net"]);
    check(graph, 100, JobKind::Start, "dns", &["start net for dns", "start dns"]);
}

#[test]
fn a_pause_is_cut_short_by_whoever_asks() {
    let graph = "daemon service takes=10 restart=always fault=exit:5:1 times=1
        goal target after=daemon wants=daemon";
    check(graph, 50, JobKind::Start, "daemon", &["start daemon"]);
}

#[test]
fn nothing_is_asked_of_a_machine_that_goes_down() {
    let (transaction, mut run) = at(NODE, 100);
    let down = run.scheduler.rehearse_shutdown(ShutdownKind::Reboot, ms(100));
    let expect = [
        "stop! kubelet going down",
        "stop! agent going down",
        "stop! containerd going down",
        "stop! disk going down",
    ];
    let mut lines = lines(&transaction, &down);
    let order = |name: &str| lines.iter().position(|line| line.contains(name));
    assert!(order("kubelet") < order("containerd") && order("containerd") < order("disk"));
    lines.sort_unstable();
    assert_eq!(lines, {
        let mut all = expect;
        all.sort_unstable();
        all
    });
    run.handle(Event::Shutdown(ShutdownKind::Reboot), ms(100));
    let job = Job { unit: UnitId(0), kind: JobKind::Stop };
    let refusal = run.scheduler.rehearse(job, ms(101)).unwrap_err();
    assert_eq!(refusal.to_string(), "the machine is going down");
}

/// The chain that keeps a unit from being up.
fn check_blockers(graph: &str, now: u64, unit: &str, expect: &[&str]) {
    let (transaction, run) = at(graph, now);
    let chain = run.scheduler.blockers(transaction.find(unit).unwrap());
    let names: Vec<&str> = chain.iter().map(|id| &*transaction.spec(*id).name).collect();
    assert_eq!(names, expect, "{unit} at {now} in\n{graph}");
}

#[test]
fn who_is_to_blame() {
    check_blockers(NODE, 5, "kubelet", &["kubelet", "containerd", "disk"]);
    check_blockers(NODE, 5, "goal", &["goal", "kubelet", "containerd", "disk"]);
    check_blockers(NODE, 5, "disk", &[]);
    check_blockers(NODE, 100, "kubelet", &[]);
    let lacking = "disk oneshot takes=10 fault=fail
        mount oneshot after=disk requires=disk
        kubelet service after=mount requires=mount
        goal target after=kubelet wants=kubelet";
    check_blockers(lacking, 100, "kubelet", &["kubelet", "mount", "disk"]);
    check_blockers(lacking, 100, "disk", &[]);
    // Its first start job is not over: it waits for its pause and for nothing else.
    let pausing = "lease oneshot takes=10 fault=fail attempts=5
        time oneshot after=lease
        goal target after=time wants=time";
    check_blockers(pausing, 50, "goal", &["goal", "time", "lease"]);
    check_blockers(pausing, 50, "lease", &[]);
    let skipped = "maybe oneshot condition=unmet
        slow oneshot after=maybe takes=500
        goal target after=slow wants=slow";
    check_blockers(skipped, 50, "maybe", &[]);
    check_blockers(skipped, 50, "goal", &["goal", "slow"]);
}

fn kinds(plan: &[Planned]) -> BTreeMap<UnitId, JobKind> {
    plan.iter().map(|it| (it.unit, it.kind)).collect()
}

/// What a request really changed: the units that go through other states with it than without it.
fn done(with: &Run, without: &Run) -> BTreeMap<UnitId, JobKind> {
    let (with, without) = (with.states(), without.states());
    let changed = with.iter().filter(|(unit, states)| without.get(unit) != Some(states));
    let kind = |states: &Vec<State>| {
        let taken_down = states.contains(&State::Deactivating) || states.contains(&State::Inactive);
        match (taken_down, states.last().is_some_and(|last| last.is_down())) {
            (true, true) => JobKind::Stop,
            (true, false) => JobKind::Restart,
            (false, _) => JobKind::Start,
        }
    };
    changed.map(|(unit, states)| (*unit, kind(states))).collect()
}

fn fails(run: &Run) -> bool {
    run.transitions.iter().any(|it| matches!(it.to, State::Failed(_)))
}

proptest! {
    #[test]
    fn what_was_planned_is_what_happens(
        case in cases(12),
        now in 0..150u64,
        asked in prop_oneof![Just(JobKind::Start), Just(JobKind::Stop), Just(JobKind::Restart)],
        unit in any::<Index>(),
    ) {
        let mut case = case;
        let mut machine = Machine::new(Arc::clone(&case.transaction));
        for id in case.transaction.ids() {
            // Nothing fails, and nothing is slower than it may be.
            let Behaviour { takes, started_in, stops_in, .. } = *case.machine.behaviour(id);
            let short = |time: Duration| time / 20;
            let (takes, started_in, stops_in) = (short(takes), short(started_in), short(stops_in));
            *machine.behaviour(id) = Behaviour { takes, started_in, stops_in, ..Behaviour::default() };
        }
        let now = ms(now);
        let mut before = Run::begin(&case.transaction, machine).until(now);
        before.transitions.clear();
        let Event::Request(job) = request(&case, asked, &unit) else { unreachable!() };
        let planned = before.scheduler.rehearse(job, now);

        let horizon = now + Duration::from_secs(3600);
        let without = before.clone().until(horizon);
        let mut with = before.clone();
        with.handle(Event::Request(job), now);
        let with = with.until(horizon);
        prop_assume!(!fails(&with) && !fails(&without));
        match planned {
            Ok(plan) => prop_assert_eq!(kinds(&plan), done(&with, &without)),
            Err(_) => prop_assert_eq!(with.states(), without.states(), "refused, and nothing changed"),
        }
    }
}
