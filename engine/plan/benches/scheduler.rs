//! A boot and a shutdown through the scheduler alone, for graphs of growing size.
//!
//! What a unit costs must stay flat, and it does in instructions: 9,450 for each at 100 units, 9,840 at 100,000 (callgrind). Its time
//! grows all the same, for the edges lead anywhere: from 10,000 units on the rows leave the caches one after the other, and a look
//! at a neighbour becomes a read of memory.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keel_plan::{
    Action, Await, Class, Effect, Event, Job, JobKind, Report, Scheduler, ShutdownKind, Spec,
    Token, Transaction, UnitId,
};

const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];
const EDGES: u64 = 3;

/// Units with three edges each, to units anywhere before them, and a goal that waits for every one: the widest row
/// that a graph can have.
fn graph(size: u32) -> Arc<Transaction> {
    let mut state = 1u64;
    let mut draw = |below: u32| {
        // Knuth's MMIX multiplier and increment; any generator will do that gives the same graph each time.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        UnitId(((state >> 33) % u64::from(below)) as u32)
    };
    let mut units: Vec<Spec> = Vec::new();
    for index in 0..size {
        let before: Vec<UnitId> = (0..EDGES).filter(|_| index > 0).map(|_| draw(index)).collect();
        units.push(Spec {
            deadline: Duration::from_secs(30),
            after: before.iter().map(|&unit| (unit, Await::Ready)).collect(),
            requires: before,
            ..Spec::new(format!("unit-{index}"), Class::Oneshot)
        });
    }
    let everything = (0..size).map(UnitId);
    units.push(Spec {
        after: everything.map(|unit| (unit, Await::Ready)).collect(),
        ..Spec::new("goal", Class::Target)
    });
    let jobs = (0..=size).map(|unit| Job { unit: UnitId(unit), kind: JobKind::Start }).collect();
    Arc::new(Transaction::new(UnitId(size), jobs, units).expect("made to be well-formed"))
}

/// Answers every effect at once, until the machine is up; then takes it down. Returns how many actions that took.
fn boot_and_shut_down(transaction: &Arc<Transaction>) -> usize {
    let mut scheduler = Scheduler::new(Arc::clone(transaction), 1);
    let mut begun: VecDeque<(Token, Effect)> = VecDeque::new();
    let mut now = Duration::ZERO;
    let mut actions = 0;
    for first in [Event::Submit, Event::Shutdown(ShutdownKind::PowerOff)] {
        let mut next = Some(first);
        while let Some(event) = next.take() {
            now += Duration::from_micros(10);
            for action in scheduler.handle(event, now) {
                actions += 1;
                if let Action::Begin { token, effect } = action {
                    begun.push_back((token, effect));
                }
            }
            next = begun.pop_front().map(|(token, effect)| {
                let report = if effect == Effect::Start { Report::Done } else { Report::Stopped };
                Event::Report { token, report }
            });
        }
    }
    actions
}

fn scheduler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("boot and shutdown");
    group.sample_size(10);
    for size in SIZES {
        let transaction = graph(size);
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| black_box(boot_and_shut_down(&transaction)));
        });
    }
    group.finish();
}

criterion_group!(benches, scheduler);
criterion_main!(benches);
