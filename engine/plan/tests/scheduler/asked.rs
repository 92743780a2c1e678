//! What the scheduler is asked and told while it runs: starts, stops, shutdowns, reports.

use std::time::Duration;

use keel_plan::{
    Action, Event, ExitStatus, Job, JobKind, JobResult, KILL_GRACE, Refusal, Report, Scheduler,
    ShutdownKind, Simulation, Token, Transaction, UnitId, Why,
};
use keel_testkit::notation::{ms, read};

use crate::support::{check_script, count, requests, shutdown};

#[test]
fn a_shutdown_is_the_start_turned_around_and_ends_whatever_hangs() {
    let graph = "base service takes=5
                 left service after=base takes=5 fault=hang-stop stop-deadline=40
                 right service after=base takes=5
                 top target after=left,right
                 coming oneshot after=base takes=5000
                 goal target after=top";
    let run = check_script(
        graph,
        shutdown(100),
        &[
            ("top", "waiting@0 activating@10 active(exited)@10 deactivating@100 inactive@100"),
            ("right", "waiting@0 activating@5 active(running)@10 deactivating@100 inactive@110"),
            ("left", "waiting@0 activating@5 active(running)@10 deactivating@100 inactive@150"),
            ("coming", "waiting@0 activating@5 deactivating@100 inactive@110"),
            ("base", "waiting@0 activating@0 active(running)@5 deactivating@150 inactive@160"),
        ],
    );
    assert_eq!(run.log.last(), Some(&(ms(160), Action::Down(ShutdownKind::PowerOff))));

    let graph = "base service takes=5
                 stuck service after=base takes=5 fault=hang-forever
                 goal target after=base";
    let run = check_script(graph, shutdown(100), &[]);
    let last = ms(100 + 100 + 10) + KILL_GRACE;
    assert_eq!(run.log.last(), Some(&(last, Action::Down(ShutdownKind::PowerOff))));
}

#[test]
fn a_start_on_request_pulls_in_what_it_needs_and_stops_what_it_conflicts_with() {
    let graph = "old service takes=5
                 above-old service after=old requires=old takes=5
                 base oneshot idle
                 extra oneshot idle fault=fail
                 new service idle after=base,extra requires=base wants=extra conflicts=old takes=5
                 goal target after=old";
    let script = requests(graph, &[(100, JobKind::Start, "new")], 1000);
    let run = check_script(
        graph,
        script,
        &[
            (
                "above-old",
                "waiting@0 activating@5 active(running)@10 deactivating@100 inactive@110",
            ),
            ("old", "waiting@0 activating@0 active(running)@5 deactivating@110 inactive@120"),
            ("base", "waiting@100 activating@100 active(exited)@110"),
            ("new", "waiting@100 activating@120 active(running)@125"),
        ],
    );
    let unit = UnitId(4);
    let done =
        Action::JobEnded { job: Job { unit, kind: JobKind::Start }, result: JobResult::Done };
    assert_eq!(count(&run, |action| *action == done), 1);
}

#[test]
fn a_stop_and_a_restart_on_request_take_along_what_needs_the_unit() {
    let graph = "base service takes=5
                 user service after=base requires=base takes=5
                 beside service after=base takes=5
                 goal target after=base";
    check_script(
        graph,
        requests(graph, &[(100, JobKind::Restart, "base"), (200, JobKind::Stop, "base")], 1000),
        &[
            (
                "user",
                "waiting@0 activating@5 active(running)@10 deactivating@100 inactive@110 waiting@110 \
                 activating@125 active(running)@130 deactivating@200 inactive@210",
            ),
            (
                "base",
                "waiting@0 activating@0 active(running)@5 deactivating@110 inactive@120 waiting@120 activating@120 \
                 active(running)@125 deactivating@210 inactive@220",
            ),
            ("beside", "waiting@0 activating@5 active(running)@10"),
        ],
    );
}

#[test]
fn each_request_is_answered_once_also_when_another_takes_its_place() {
    let graph = "base service takes=50 stops-in=20
                 goal target after=base";
    let start = JobKind::Start;
    let (stop, restart) = (JobKind::Stop, JobKind::Restart);
    let script = requests(
        graph,
        &[
            (10, stop, "base"),
            (15, start, "base"),
            (40, restart, "base"),
            (300, start, "base"),
            (400, stop, "base"),
            (500, stop, "base"),
        ],
        1000,
    );
    let run = check_script(
        graph,
        script,
        &[(
            "base",
            "waiting@0 activating@0 deactivating@10 inactive@30 waiting@30 activating@30 deactivating@40 inactive@60 \
             waiting@60 activating@60 active(running)@110 deactivating@400 inactive@420",
        )],
    );
    let results: Vec<(JobKind, JobResult)> = run
        .log
        .iter()
        .filter_map(|(_, action)| match action {
            Action::JobEnded { job, result } if job.unit == UnitId(0) => Some((job.kind, *result)),
            _ => None,
        })
        .collect();
    let (done, cancelled) = (JobResult::Done, JobResult::Cancelled);
    assert_eq!(
        results,
        [
            (start, cancelled),
            (stop, cancelled),
            (start, cancelled),
            (restart, done),
            (start, done),
            (stop, done),
            (stop, done)
        ]
    );
}

#[test]
fn a_request_that_cannot_be_taken_on_is_refused_and_changes_nothing() {
    let graph = "one oneshot idle conflicts=two
                 two oneshot idle
                 both oneshot idle requires=one,two
                 goal target";
    let (transaction, _) = read(graph);
    let mut scheduler = Scheduler::new(transaction, 1);
    let mut refusal = |unit: u32, shut: bool| {
        if shut {
            scheduler.handle(Event::Shutdown(ShutdownKind::Halt), ms(2));
        }
        let job = Job { unit: UnitId(unit), kind: JobKind::Start };
        match &scheduler.handle(Event::Request(job), ms(1))[..] {
            [Action::Refused { why, .. }] => *why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal(9, false), Refusal::UnknownUnit);
    assert_eq!(refusal(2, false), Refusal::Conflict { unit: UnitId(0), with: UnitId(1) });
    assert_eq!(refusal(0, true), Refusal::ShuttingDown);
}

/// Every report at every moment of a unit's life, with the right token and with a stale one: what has no meaning there
/// is ignored, changes nothing, and breaks nothing.
#[test]
fn reports_out_of_place_change_nothing() {
    let (transaction, _) =
        read("unit service condition=met restart=always fault=fail\n goal target after=unit");
    let unit = UnitId(0);
    let reports = || {
        let why = || "why".into();
        [
            Report::ConditionMet,
            Report::ConditionUnmet { why: why() },
            Report::Started,
            Report::Ready,
            Report::Done,
            Report::Exited { status: ExitStatus::Code(1) },
            Report::Failed { why: why() },
            Report::Stopped,
            Report::StopFailed { why: why() },
        ]
    };
    // The moments, each with the reports that mean something there.
    let stop = Event::Request(Job { unit, kind: JobKind::Stop });
    let report = |attempt, report| Event::Report { token: Token { unit, attempt }, report };
    let script = [
        (Event::TimerDue, vec![]),
        (Event::Submit, vec![Report::ConditionMet, reports()[1].clone(), reports()[6].clone()]),
        (
            report(1, Report::ConditionMet),
            vec![Report::Started, Report::Ready, reports()[5].clone(), reports()[6].clone()],
        ),
        (
            report(1, Report::Started),
            vec![Report::Ready, reports()[5].clone(), reports()[6].clone()],
        ),
        (report(1, Report::Ready), vec![reports()[5].clone(), reports()[6].clone()]),
        (stop, vec![Report::Stopped, reports()[8].clone()]),
        (report(1, Report::Stopped), vec![]),
    ];
    for moment in 0..script.len() {
        for stale in [false, true] {
            for tried in reports() {
                let mut scheduler = Scheduler::new(transaction.clone(), 1);
                for (event, _) in &script[..=moment] {
                    scheduler.handle(event.clone(), ms(1));
                }
                let (before, ignored) = (scheduler.status(unit), scheduler.ignored());
                let attempt = before.attempt + u32::from(stale);
                let actions = scheduler.handle(report(attempt, tried.clone()), ms(1));
                let means_something = !stale && script[moment].1.contains(&tried);
                let started_twice = moment == 3 && tried == Report::Started && !stale;
                assert_eq!(
                    scheduler.ignored() > ignored,
                    !means_something && !started_twice,
                    "{tried:?} at {moment}"
                );
                if !means_something {
                    assert_eq!(
                        (scheduler.status(unit), actions),
                        (before, vec![]),
                        "{tried:?} at moment {moment}"
                    );
                }
            }
        }
    }
}

#[test]
fn one_timer_wakes_for_all_and_the_deadline_of_a_unit_that_is_up_is_gone() {
    let (transaction, _) =
        read("a oneshot deadline=50\n b oneshot deadline=30\n goal target after=a,b");
    let mut scheduler = Scheduler::new(transaction, 1);
    let wakes = |actions: &[Action]| -> Vec<Duration> {
        actions
            .iter()
            .filter_map(|action| if let Action::WakeAt(at) = action { Some(*at) } else { None })
            .collect()
    };
    let done = |unit| Event::Report {
        token: Token { unit: UnitId(unit), attempt: 1 },
        report: Report::Done,
    };
    assert_eq!(wakes(&scheduler.handle(Event::Submit, ms(0))), [ms(30)]);
    assert_eq!(wakes(&scheduler.handle(done(1), ms(10))), [ms(50)]);
    assert_eq!(wakes(&scheduler.handle(done(0), ms(20))), [] as [Duration; 0]);
    assert_eq!(scheduler.handle(Event::TimerDue, ms(50)), []);
}

#[test]
fn a_shutdown_before_anything_began_is_over_at_once() {
    let (transaction, _): (std::sync::Arc<Transaction>, _) = read("goal target");
    let mut scheduler = Scheduler::new(transaction, 1);
    let actions = scheduler.handle(Event::Shutdown(ShutdownKind::Halt), ms(1));
    assert_eq!(actions, [Action::Down(ShutdownKind::Halt)]);
    assert_eq!(scheduler.handle(Event::Submit, ms(2)), []);
    assert_eq!(scheduler.status(UnitId(0)).why, Why::Nothing);
}

#[test]
fn a_restart_is_over_when_the_unit_is_up_again_and_not_when_the_old_start_is() {
    // Its stop waits for `user`, and meanwhile its first activation ends well (`slow`), or its program ends by itself (`brief`).
    let graph = "slow oneshot takes=30
                 user oneshot after=slow:started requires=slow takes=100 stops-in=20
                 late oneshot after=slow
                 goal target after=user,late";
    let run = check_script(
        graph,
        requests(graph, &[(20, JobKind::Restart, "slow")], 1000),
        &[
            (
                "slow",
                "waiting@0 activating@0 active(exited)@30 deactivating@40 inactive@50 waiting@50 activating@50 \
                 active(exited)@80",
            ),
            ("late", "waiting@0 activating@80 active(exited)@90"),
        ],
    );
    let ends = |run: &Simulation| -> Vec<(u64, JobResult)> {
        let ended = run.log.iter().filter_map(|(at, action)| match action {
            Action::JobEnded { job: Job { kind: JobKind::Restart, .. }, result } => {
                Some((at.as_millis() as u64, *result))
            }
            _ => None,
        });
        ended.collect()
    };
    assert_eq!(ends(&run), [(80, JobResult::Done)]);

    let graph = "brief service takes=5 fault=exit:40:1 times=1
                 user oneshot after=brief requires=brief stops-in=50
                 late oneshot idle after=brief
                 goal target after=user";
    let run = check_script(
        graph,
        requests(graph, &[(30, JobKind::Restart, "brief"), (46, JobKind::Start, "late")], 1000),
        &[
            (
                "brief",
                "waiting@0 activating@0 active(running)@5 inactive@45 waiting@45 activating@45 active(running)@50",
            ),
            ("late", "waiting@46 activating@50 active(exited)@60"),
        ],
    );
    assert_eq!(ends(&run), [(50, JobResult::Done)]);
}
