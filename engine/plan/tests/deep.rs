//! A chain far deeper than any stack: nothing on the way from text to a picture calls itself once for each unit.

use std::sync::Arc;
use std::thread;

use keel_gate::{Shape, input, texts};
use keel_plan::export::Export;
use keel_plan::{BOOT, Machine, SEED, Script, compile, diff, render, simulate, slack};

const DEEP: usize = 20_000;
/// A call takes some hundred bytes of stack at least; for one a unit this has room for 26 bytes.
const STACK: usize = 512 * 1024;

fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(STACK).spawn(work).expect("a thread");
    thread.join().expect("it ends well");
}

#[test]
fn a_deep_chain_resolves_simulates_and_is_drawn() {
    let texts = texts(Shape::Chain, DEEP);
    on_a_small_stack(move || {
        let (graph, transaction) = compile(input(&texts), BOOT).expect("a valid graph");
        let transaction = Arc::new(transaction);
        let machine = Machine::new(transaction.clone());
        let run = simulate(&transaction, machine.clone(), SEED, &Script::default());
        let path = run.timeline.critical_path(transaction.goal());
        assert_eq!(path.stretches.len(), DEEP + 1);
        assert_eq!(slack(&transaction, &machine, &run).len(), DEEP + 1);
        let export = Export::new(&graph, &transaction);
        assert!(render::dot(&export).len() > DEEP);
        assert!(diff::text(&diff::Diff::new(&export, &export)).len() < DEEP);
    });
}

#[test]
fn a_deep_cycle_is_found() {
    let mut texts = texts(Shape::Chain, DEEP);
    texts[0].1 = texts[0].1.replace("after = []", &format!("after = [\"u{}\"]", DEEP - 1));
    on_a_small_stack(move || {
        let report = compile(input(&texts), BOOT).map(drop).expect_err("a cycle");
        assert!(format!("{report:?}").contains("cycle"));
    });
}
