//! What fails, hangs, crashes and comes back, one small graph each.

use keel_plan::{Action, JobKind, KILL_GRACE, Script, ShutdownKind, UnitId, simulate};
use keel_testkit::notation::{ms, read};

use crate::support::{check, check_script, count, degraded, requests};

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

#[test]
fn what_is_taken_down_for_a_loss_keeps_its_reason_though_it_comes_up_in_between() {
    // `bound` cannot stop before `user` is down, and its own work is done meanwhile.
    let graph = "base oneshot takes=20 fault=fail
                 bound oneshot takes=30 binds=base
                 user oneshot after=bound:started requires=bound takes=100 stops-in=20
                 goal target after=base,bound,user";
    let run = check(
        graph,
        &[
            ("bound", "waiting@0 activating@0 active(exited)@30 deactivating@40 inactive@50"),
            ("user", "waiting@0 activating@0 deactivating@20 inactive@40"),
            ("goal", "waiting@0 activating@50 active(exited)@50"),
        ],
    );
    let names = |unit: &str, why: &str| (unit.to_owned(), "base".to_owned(), why.to_owned());
    assert_eq!(
        degraded(graph, &run),
        [
            names("base", "broken"),
            names("bound", "bound to base, which is not up"),
            names("user", "needs bound, which is being stopped")
        ]
    );
}

#[test]
fn what_failed_and_came_back_and_exited_well_is_there_for_what_requires_it() {
    check(
        "job service restart=on-failure fault=fail times=1 then=exit:50:0
         needs oneshot requires=job deadline=100 attempts=2 fault=hang times=1
         goal target after=job,needs",
        &[
            (
                "job",
                "waiting@0 activating@0 failed@10 waiting@10 activating@110 active(running)@120 inactive@170",
            ),
            (
                "needs",
                "waiting@0 activating@0 deactivating@100 waiting@110 activating@210 active(exited)@220",
            ),
        ],
    );
}
