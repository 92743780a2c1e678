//! The boot that ships, with each unit failing in turn and each hanging in turn: it always ends, and the report names the
//! culprit.

use std::sync::Arc;
use std::time::Duration;

use keel_exec::Happening;
use keel_plan::{
    Class, Fault, FaultKind, KILL_GRACE, Machine, Outcome, RestartPolicy, Script, Transaction,
    UnitId,
};
use keel_testkit::run::run;
use keel_testkit::scenario::shipped;

/// Boots with one unit at fault, and says how that ended and when.
fn boot(transaction: &Arc<Transaction>, fault: Option<(UnitId, FaultKind)>) -> (Outcome, Duration) {
    let mut machine = Machine::new(Arc::clone(transaction));
    if let Some((unit, kind)) = fault {
        machine.behaviour(unit).fault = Some(Fault::always(kind));
    }
    let run = run(transaction, machine, 7, &Script::default());
    match run.happened.last() {
        Some((at, Happening::Finished(outcome))) => (outcome.clone(), *at),
        other => panic!("the boot did not end: {other:?}"),
    }
}

/// The units of the boot that do work.
fn working(transaction: &Transaction) -> Vec<UnitId> {
    let jobs = transaction.jobs().iter().map(|job| job.unit);
    jobs.filter(|unit| transaction.spec(*unit).class != Class::Target).collect()
}

fn name(transaction: &Transaction, unit: UnitId) -> String {
    transaction.spec(unit).name.to_string()
}

/// Every unit that is named has the culprit at the root of its trouble, and the culprit itself is named.
fn check(transaction: &Transaction, culprit: UnitId, outcome: &Outcome) {
    let at = name(transaction, culprit);
    assert!(outcome.reached, "{at}: the default policy degrades");
    assert!(
        outcome.degraded.iter().any(|s| s.unit == culprit),
        "{at} is not named: {:?}",
        outcome.degraded
    );
    for shortfall in &outcome.degraded {
        assert_eq!(
            shortfall.culprit,
            culprit,
            "{} blames another than {at}",
            name(transaction, shortfall.unit)
        );
    }
}

#[test]
fn a_sound_boot_reaches_the_goal_with_nothing_amiss() {
    let (outcome, _) = boot(&shipped(), None);
    assert_eq!((outcome.reached, outcome.degraded.len()), (true, 0));
}

#[test]
fn each_unit_failing_in_turn_degrades_the_boot_and_is_named() {
    let transaction = shipped();
    assert!(working(&transaction).len() > 25);
    for unit in working(&transaction) {
        let why = "injected".into();
        let (outcome, _) = boot(&transaction, Some((unit, FaultKind::Fail { why })));
        check(&transaction, unit, &outcome);
    }
}

#[test]
fn each_unit_hanging_in_turn_ends_at_its_deadline_and_is_named() {
    let transaction = shipped();
    let (_, sound) = boot(&transaction, None);
    for hang in [FaultKind::Hang, FaultKind::HangForever] {
        for unit in working(&transaction) {
            let (outcome, took) = boot(&transaction, Some((unit, hang.clone())));
            check(&transaction, unit, &outcome);
            let deadline = transaction.spec(unit).deadline;
            let most = sound + deadline + KILL_GRACE + Duration::from_secs(1);
            assert!(took <= most, "{} held the boot for {took:?}", name(&transaction, unit));
        }
    }
}

/// What an operator needs to look at a machine must not hang on the disk.
#[test]
fn without_a_data_partition_the_machine_can_still_be_reached() {
    let transaction = shipped();
    let find = |name: &str| transaction.find(name).unwrap();
    let (outcome, _) = boot(&transaction, Some((find("partition.data"), FaultKind::Hang)));
    let lost: Vec<String> = outcome.degraded.iter().map(|s| name(&transaction, s.unit)).collect();
    assert!(lost.contains(&"containerd".to_owned()), "{lost:?}");
    for needed in ["keel-agent", "link@primary", "link.lo", "hostname"] {
        assert!(!lost.contains(&needed.to_owned()), "{needed} is lost: {lost:?}");
    }
}

/// Nobody could start it again: not after fifty deaths, nor after fifty restarts that were asked for and one death.
#[test]
fn the_only_door_to_the_node_is_never_given_up() {
    let transaction = shipped();
    let restart = transaction.spec(transaction.find("keel-agent").unwrap()).restart;
    assert_eq!((restart.policy, restart.limit), (RestartPolicy::Always, None));
    assert!(restart.backoff.max <= Duration::from_secs(30));
}
