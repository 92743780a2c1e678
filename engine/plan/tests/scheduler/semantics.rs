//! What each word means, one small graph each.

use keel_plan::{Action, Effect, Event, Report, Scheduler, Script, State, Token, UnitId};
use keel_testkit::notation::{ms, read};

use crate::support::{check, check_script, count, degraded};

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
