//! What each word means, one small graph each.

use std::time::Duration;

use keel_plan::{
    Action, Effect, Event, ExitStatus, Job, JobKind, JobResult, KILL_GRACE, Refusal, Report,
    Scheduler, Script, ShutdownKind, Simulation, State, Token, Transaction, UnitId, Why, simulate,
};

use keel_testkit::notation::{history, ms, read};

/// Boots the graph and compares the histories of the units that are named.
fn check(graph: &str, expect: &[(&str, &str)]) -> Simulation {
    check_script(graph, Script::default(), expect)
}

fn check_script(graph: &str, script: Script, expect: &[(&str, &str)]) -> Simulation {
    let (transaction, machine) = read(graph);
    let run = simulate(&transaction, machine, 1, &script);
    for &(name, states) in expect {
        let unit = transaction.find(name).unwrap();
        assert_eq!(history(&run, unit), states, "history of {name} in\n{graph}");
    }
    assert_eq!(run.ignored, 0, "the machine says nothing that the scheduler has no use for");
    run
}

fn requests(graph: &str, requests: &[(u64, JobKind, &str)], until: u64) -> Script {
    let (transaction, _) = read(graph);
    let event = |&(at, kind, name): &(u64, JobKind, &str)| {
        (ms(at), Event::Request(Job { unit: transaction.find(name).unwrap(), kind }))
    };
    Script {
        events: requests.iter().map(event).collect(),
        keep_running: true,
        horizon: ms(until),
        ..Script::default()
    }
}

fn shutdown(at: u64) -> Script {
    let events = vec![(ms(at), Event::Shutdown(ShutdownKind::PowerOff))];
    Script { events, keep_running: true, ..Script::default() }
}

/// `(unit, culprit, sentence)` of everything degraded.
fn degraded(graph: &str, run: &Simulation) -> Vec<(String, String, String)> {
    let (transaction, _) = read(graph);
    let outcome = run.outcome.as_ref().expect("the run ended");
    let name = |unit: UnitId| transaction.spec(unit).name.to_string();
    let shortfalls = outcome.degraded.iter();
    shortfalls
        .map(|it| (name(it.unit), name(it.culprit), it.why.describe(&transaction).to_string()))
        .collect()
}

fn count(run: &Simulation, matches: impl Fn(&Action) -> bool) -> usize {
    run.log.iter().filter(|(_, action)| matches(action)).count()
}

#[test]
fn units_without_edges_run_side_by_side_and_edges_hold() {
    let run = check(
        "a oneshot takes=30
         b service takes=20 started-in=5
         after-a oneshot after=a
         after-start oneshot after=b:started
         after-ready oneshot after=b
         goal target after=a,b,after-a,after-start,after-ready",
        &[
            ("a", "waiting@0 activating@0 active(exited)@30"),
            ("b", "waiting@0 activating@0 active(running)@20"),
            ("after-a", "waiting@0 activating@30 active(exited)@40"),
            ("after-start", "waiting@0 activating@5 active(exited)@15"),
            ("after-ready", "waiting@0 activating@20 active(exited)@30"),
            ("goal", "waiting@0 activating@40 active(exited)@40"),
        ],
    );
    assert!(run.outcome.unwrap().reached);
    let path = run.timeline.critical_path(UnitId(5));
    let stretches: Vec<(u32, u64, u64)> = path
        .stretches
        .iter()
        .map(|it| (it.unit.0, it.from.as_millis() as u64, it.to.as_millis() as u64))
        .collect();
    assert_eq!(stretches, [(0, 0, 30), (2, 30, 40), (5, 40, 40)]);
    assert_eq!(
        (path.total, path.length, path.work, path.side_by_side),
        (ms(40), ms(40), ms(80), 3)
    );
    assert!((path.speedup() - 2.0).abs() < 1e-9);
}

#[test]
fn an_exit_is_awaited_as_long_as_the_waiting_units_own_deadline() {
    check(
        "job service takes=5 fault=exit:20:0
         goal oneshot after=job:exited",
        &[
            ("job", "waiting@0 activating@0 active(running)@5 inactive@25"),
            ("goal", "waiting@0 activating@25 active(exited)@35"),
        ],
    );
    let graph = "daemon service takes=5
                 goal oneshot after=daemon:exited deadline=300";
    let run = check(graph, &[("goal", "waiting@0 failed(dependency)@305")]);
    let sentence = "waited more than 300 ms for daemon".to_owned();
    assert_eq!(degraded(graph, &run), [("goal".into(), "daemon".into(), sentence)]);
}

#[test]
fn requires_passes_a_failure_on_and_wants_and_order_do_not() {
    let graph = "bad oneshot fault=fail
                 needs oneshot after=bad requires=bad
                 needs-that oneshot after=needs requires=needs
                 unordered oneshot requires=needs-that
                 wants oneshot after=bad wants=bad
                 slow oneshot takes=50
                 goal target after=needs-that,unordered,wants,slow wants=needs-that,unordered,wants";
    let run = check(
        graph,
        &[
            ("bad", "waiting@0 activating@0 failed@10"),
            ("needs", "waiting@0 failed(dependency)@10"),
            ("needs-that", "waiting@0 failed(dependency)@10"),
            ("unordered", "waiting@0 activating@0 active(exited)@10"),
            ("wants", "waiting@0 activating@10 active(exited)@20"),
            ("goal", "waiting@0 activating@50 active(exited)@50"),
        ],
    );
    assert!(run.outcome.as_ref().unwrap().reached);
    let names = |unit: &str, why: &str| (unit.to_owned(), "bad".to_owned(), why.to_owned());
    assert_eq!(
        degraded(graph, &run),
        [
            names("bad", "broken"),
            names("needs", "needs bad, which is not up"),
            names("needs-that", "needs needs, which is not up")
        ]
    );
}

#[test]
fn a_failure_settles_everywhere_before_anything_starts() {
    // `late` is let go by the very failure that dooms what it requires, and must not start because of it.
    check(
        "bad oneshot fault=fail
         late oneshot after=bad requires=middle
         middle oneshot after=bad requires=bad
         goal target after=late",
        &[
            ("middle", "waiting@0 failed(dependency)@10"),
            ("late", "waiting@0 failed(dependency)@10"),
        ],
    );
}

#[test]
fn a_skipped_unit_is_as_good_as_an_active_one_except_to_those_bound_to_it() {
    let graph = "absent oneshot condition=unmet
                 present oneshot condition=met after=absent
                 requires oneshot requires=absent after=absent
                 bound oneshot binds=absent after=absent
                 bound-early service binds=absent takes=20
                 goal target after=requires,bound,present";
    let run = check(
        graph,
        &[
            ("absent", "waiting@0 skipped@0"),
            ("present", "waiting@0 activating@0 active(exited)@10"),
            ("requires", "waiting@0 activating@0 active(exited)@10"),
            ("bound", "waiting@0 failed(dependency)@0"),
            ("bound-early", "waiting@0 activating@0 deactivating@0 inactive@10"),
        ],
    );
    let names = |it: &(String, String, String)| (it.0.clone(), it.1.clone());
    let pair = |unit: &str| (unit.to_owned(), "absent".to_owned());
    let all: Vec<_> = degraded(graph, &run).iter().map(names).collect();
    assert_eq!(all, [pair("bound"), pair("bound-early")]);
}

#[test]
fn a_retry_pauses_longer_each_time_and_holds_those_who_wait() {
    let run = check(
        "flaky oneshot attempts=4 fault=fail times=2
         next oneshot after=flaky requires=flaky
         goal target after=next requires=next",
        &[
            (
                "flaky",
                "waiting@0 activating@0 waiting@10 activating@110 waiting@120 activating@320 active(exited)@330",
            ),
            ("next", "waiting@0 activating@330 active(exited)@340"),
        ],
    );
    assert_eq!(run.outcome.unwrap().degraded, []);
    check(
        "broken oneshot attempts=2 fault=fail
         goal target after=broken wants=broken",
        &[
            ("broken", "waiting@0 activating@0 waiting@10 activating@110 failed@120"),
            ("goal", "waiting@0 activating@120 active(exited)@120"),
        ],
    );
}

#[test]
fn what_hangs_is_killed_at_its_deadline_and_what_cannot_be_killed_is_given_up() {
    let graph = "hung oneshot fault=hang deadline=50 attempts=2
                 goal target after=hung";
    let run = check(
        graph,
        &[
            (
                "hung",
                "waiting@0 activating@0 deactivating@50 waiting@60 activating@160 deactivating@210 failed@220",
            ),
            ("goal", "waiting@0 activating@220 active(exited)@220"),
        ],
    );
    assert_eq!(
        degraded(graph, &run),
        [("hung".into(), "hung".into(), "timed out after 50 ms".into())]
    );

    let gone = 50 + KILL_GRACE.as_millis();
    let graph = "stuck oneshot fault=hang-forever deadline=50 attempts=9 restart=always
                 goal target after=stuck";
    let run = check(
        graph,
        &[("stuck", &format!("waiting@0 activating@0 deactivating@50 failed@{gone}"))],
    );
    assert_eq!(
        degraded(graph, &run),
        [("stuck".into(), "stuck".into(), "could not be killed".into())]
    );

    check(
        "undecided oneshot condition=met fault=hang-condition deadline=50
         goal target after=undecided",
        &[("undecided", "waiting@0 failed@50")],
    );
    check(
        "slow oneshot fault=slow:3
         goal target after=slow",
        &[("slow", "waiting@0 activating@0 active(exited)@30")],
    );
}

#[test]
fn a_service_that_exits_comes_back_with_growing_pauses_until_it_was_up_for_long() {
    let graph = "crashy service takes=5 restart=on-failure fault=exit:20:1 times=3
                 goal target after=crashy";
    check_script(
        graph,
        Script { keep_running: true, horizon: ms(5000), ..Script::default() },
        &[(
            "crashy",
            "waiting@0 activating@0 active(running)@5 waiting@25 activating@125 active(running)@130 waiting@150 \
             activating@350 active(running)@355 waiting@375 activating@775 active(running)@780",
        )],
    );
    // Up for 1 s, the longest pause: the next one is the first again.
    let graph = "steady service takes=5 restart=always fault=exit:1000:0 times=2
                 goal target after=steady";
    check_script(
        graph,
        Script { keep_running: true, horizon: ms(5000), ..Script::default() },
        &[(
            "steady",
            "waiting@0 activating@0 active(running)@5 waiting@1005 activating@1105 active(running)@1110 \
             waiting@2110 activating@2210 active(running)@2215",
        )],
    );
}

#[test]
fn a_clean_exit_is_no_failure() {
    let graph = "done service takes=5 restart=on-failure fault=exit:20:0
                 goal oneshot takes=100";
    let run = check(graph, &[("done", "waiting@0 activating@0 active(running)@5 inactive@25")]);
    assert_eq!(degraded(graph, &run), []);
    let graph = "lease oneshot takes=5 fault=lose:20
                 goal oneshot takes=100";
    check(graph, &[("lease", "waiting@0 activating@0 active(exited)@5 failed@25")]);
}

#[test]
fn the_start_limit_ends_a_crash_loop_and_a_request_begins_anew() {
    let graph = "crashy service takes=5 restart=always fault=exit:0:1 limit=3/10000 on=emergency
                 goal target after=crashy";
    let script = requests(graph, &[(2000, JobKind::Start, "crashy")], 2100);
    let run = check_script(
        graph,
        script,
        &[(
            "crashy",
            "waiting@0 activating@0 active(running)@5 waiting@5 activating@105 active(running)@110 waiting@110 \
             activating@310 active(running)@315 waiting@315 failed@715 \
             waiting@2000 activating@2000 active(running)@2005 waiting@2005",
        )],
    );
    assert_eq!(count(&run, |action| matches!(action, Action::Emergency { .. })), 1);
}

#[test]
fn a_boot_does_not_wait_for_a_service_that_crashes_in_a_loop() {
    let graph = "crashy service fault=fail restart=always times=2
                 dependent oneshot after=crashy requires=crashy
                 other oneshot after=crashy takes=200
                 goal target after=dependent,other";
    let run = check(
        graph,
        &[
            ("crashy", "waiting@0 activating@0 failed@10 waiting@10 activating@110 waiting@120"),
            ("dependent", "waiting@0 failed(dependency)@10"),
            ("goal", "waiting@0 activating@210 active(exited)@210"),
        ],
    );
    assert_eq!(
        degraded(graph, &run),
        [
            ("crashy".into(), "crashy".into(), "broken".into()),
            ("dependent".into(), "crashy".into(), "needs crashy, which is not up".into())
        ]
    );
}

#[test]
fn what_failed_by_dependency_starts_when_the_unit_that_it_lacked_comes_up_after_all() {
    let graph = "late service fault=fail restart=always times=1 takes=10
                 needs oneshot after=late requires=late
                 needs-that service after=needs requires=needs takes=5
                 broken oneshot fault=fail
                 needs-both oneshot after=late,broken requires=late,broken
                 stopped oneshot after=late requires=late
                 goal target after=late,needs-that requires=needs-that";
    check_script(
        graph,
        requests(graph, &[(50, JobKind::Stop, "stopped")], 1000),
        &[
            (
                "late",
                "waiting@0 activating@0 failed@10 waiting@10 activating@110 active(running)@120",
            ),
            (
                "needs",
                "waiting@0 failed(dependency)@10 waiting@120 activating@120 active(exited)@130",
            ),
            (
                "needs-that",
                "waiting@0 failed(dependency)@10 waiting@130 activating@130 active(running)@135",
            ),
            ("needs-both", "waiting@0 failed(dependency)@10 waiting@120 failed(dependency)@120"),
            ("stopped", "waiting@0 failed(dependency)@10"),
            (
                "goal",
                "waiting@0 failed(dependency)@10 waiting@135 activating@135 active(exited)@135",
            ),
        ],
    );
}

#[test]
fn what_is_bound_goes_and_comes_with_what_it_is_bound_to() {
    let graph = "base service takes=5 restart=always fault=exit:45:1 times=1
                 bound service after=base binds=base takes=5
                 requires service after=base requires=base takes=5
                 goal target after=bound,requires";
    check_script(
        graph,
        Script { keep_running: true, horizon: ms(1000), ..Script::default() },
        &[
            (
                "base",
                "waiting@0 activating@0 active(running)@5 waiting@50 activating@150 active(running)@155",
            ),
            (
                "bound",
                "waiting@0 activating@5 active(running)@10 deactivating@50 inactive@60 waiting@60 activating@155 \
                 active(running)@160",
            ),
            ("requires", "waiting@0 activating@5 active(running)@10"),
        ],
    );
    let graph = "base service takes=5 fault=exit:45:1
                 bound service after=base binds=base takes=5
                 goal target after=bound";
    check_script(
        graph,
        Script { keep_running: true, horizon: ms(1000), ..Script::default() },
        &[
            ("base", "waiting@0 activating@0 active(running)@5 failed@50"),
            ("bound", "waiting@0 activating@5 active(running)@10 deactivating@50 inactive@60"),
        ],
    );
}

#[test]
fn emergency_misses_the_goal_and_leaves_the_machine_reachable() {
    let graph = "disk oneshot fault=fail on=emergency
                 data oneshot after=disk requires=disk
                 net oneshot takes=50
                 agent service after=net,disk wants=disk takes=20
                 running service takes=5
                 goal target after=data,agent wants=data,agent";
    let run = check(
        graph,
        &[
            ("data", "waiting@0 failed(dependency)@10"),
            ("net", "waiting@0 activating@0 active(exited)@50"),
            ("agent", "waiting@0 activating@50 active(running)@70"),
            ("running", "waiting@0 activating@0 active(running)@5"),
            ("goal", "waiting@0 failed(dependency)@10"),
        ],
    );
    let outcome = run.outcome.as_ref().unwrap();
    assert!(!outcome.reached);
    assert!(outcome.degraded.iter().all(|it| it.culprit == UnitId(0)), "{outcome:?}");
    assert_eq!(
        count(&run, |action| matches!(action, Action::Emergency { unit: UnitId(0), .. })),
        1
    );
}

#[test]
fn the_policy_reboot_stops_everything_in_order_first() {
    let graph = "base service takes=5
                 fatal oneshot after=base fault=fail on=reboot
                 late oneshot after=fatal
                 goal target after=late";
    let run = check_script(
        graph,
        Script { keep_running: true, ..Script::default() },
        &[
            ("base", "waiting@0 activating@0 active(running)@5 deactivating@15 inactive@25"),
            ("fatal", "waiting@0 activating@5 failed@15"),
            ("late", "waiting@0 inactive@15"),
        ],
    );
    assert_eq!(count(&run, |action| matches!(action, Action::Reboot { unit: UnitId(1), .. })), 1);
    assert_eq!(run.log.last(), Some(&(ms(25), Action::Down(ShutdownKind::Reboot))));
}

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
fn what_waits_says_for_what() {
    let (transaction, _) =
        read("a oneshot\n b oneshot\n c oneshot after=a,b\n goal target after=c");
    let mut scheduler = Scheduler::new(transaction, 1);
    scheduler.handle(Event::Submit, ms(0));
    let status = scheduler.status(UnitId(2));
    assert_eq!((status.state, status.waiting_for), (State::Waiting, Some(UnitId(0))));
    let done = Event::Report { token: Token { unit: UnitId(0), attempt: 1 }, report: Report::Done };
    scheduler.handle(done, ms(10));
    assert_eq!(scheduler.status(UnitId(2)).waiting_for, Some(UnitId(1)));
    assert_eq!(scheduler.status(UnitId(0)).waiting_for, None);
}

#[test]
fn a_start_begins_only_effects_that_the_class_has() {
    let run = check("quiet target\n goal target after=quiet", &[]);
    assert_eq!(count(&run, |action| matches!(action, Action::Begin { .. })), 0);
    let run = check("a oneshot condition=met\n goal target after=a", &[]);
    let effects: Vec<Effect> =
        run.log
            .iter()
            .filter_map(|(_, action)| {
                if let Action::Begin { effect, .. } = action { Some(*effect) } else { None }
            })
            .collect();
    assert_eq!(effects, [Effect::CheckCondition, Effect::Start]);
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

/// Graphs in which something that comes back for ever holds a start: the boot ends by itself, and says what held it.
#[test]
fn what_never_comes_up_again_holds_nothing_for_ever() {
    // Each service comes up once and then hangs in every activation. Who is to blame, and why.
    let rows = [
        // One alone: the wait ends with the deadline of who waits.
        (
            "once service takes=5 deadline=300 stops-in=50 restart=always fault=exit:20:1 times=1 then=hang
             slow oneshot takes=100
             needs oneshot after=once,slow binds=once deadline=2000
             goal target after=needs wants=needs",
            2_200,
            "waited more than 2 s for once",
        ),
        // Two by turns: that one of them is being killed is no reason to begin the wait anew.
        (
            "once service takes=5 deadline=300 stops-in=1000 restart=always fault=exit:20:1 times=1 then=hang
             twice service takes=5 deadline=300 stops-in=1000 restart=always fault=exit:700:1 times=1 then=hang
             slow oneshot takes=100
             needs oneshot after=once,twice,slow binds=once,twice deadline=2000
             goal target after=needs wants=needs",
            4_000,
            "waited more than 2 s for twice",
        ),
        // Ordered only, and one of the two is always on its way down.
        (
            "once service takes=5 deadline=300 stops-in=4000 restart=always fault=exit:20:1 times=1 then=hang
             twice service takes=5 deadline=300 stops-in=4000 restart=always fault=exit:2000:1 times=1 then=hang
             slow oneshot takes=600
             needs oneshot after=once,twice,slow deadline=1000
             goal target after=needs wants=needs",
            8_000,
            "waited more than 6.10 s for once",
        ),
    ];
    for (graph, latest, sentence) in rows {
        let (transaction, machine) = read(graph);
        let run = simulate(&transaction, machine, 1, &Script::default());
        assert!(run.outcome.is_some(), "no end of\n{graph}");
        assert!(run.ended_at <= ms(latest), "{:?} for\n{graph}", run.ended_at);
        let found = degraded(graph, &run);
        let (_, culprit) = sentence.rsplit_once(' ').unwrap();
        let expect = ("needs".to_owned(), culprit.to_owned(), sentence.to_owned());
        assert!(found.contains(&expect), "{found:?}");
    }
}
