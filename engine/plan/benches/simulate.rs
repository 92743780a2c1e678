//! Boots under virtual time, one and one for each unit that may fail: what `osctl graph simulate --each-failure` costs.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keel_plan::{
    Await, Class, FaultKind, Job, JobKind, Machine, SEED, Script, Spec, Transaction, UnitId, each,
    fallible, simulate,
};

const SIZES: [u32; 3] = [60, 300, 1_000];
const EDGES: u32 = 3;

/// Units that require three of the hundred before them, and a goal that waits for every one.
fn graph(size: u32) -> Arc<Transaction> {
    let mut units: Vec<Spec> = Vec::new();
    for index in 0..size {
        let before: Vec<UnitId> = (1..=EDGES)
            .filter_map(|edge| index.checked_sub(1 + edge * 7919 % index.clamp(1, 100)))
            .map(UnitId)
            .collect();
        units.push(Spec {
            deadline: Duration::from_secs(30),
            after: before.iter().map(|&unit| (unit, Await::Ready)).collect(),
            requires: before,
            hint: Some(Duration::from_millis(u64::from(index * 7919 % 97) + 1)),
            ..Spec::new(format!("unit-{index}"), Class::Oneshot)
        });
    }
    let everything: Vec<UnitId> = (0..size).map(UnitId).collect();
    units.push(Spec {
        after: everything.iter().map(|&unit| (unit, Await::Ready)).collect(),
        wants: everything,
        ..Spec::new("goal", Class::Target)
    });
    let jobs = (0..=size).map(|unit| Job { unit: UnitId(unit), kind: JobKind::Start }).collect();
    Arc::new(Transaction::new(UnitId(size), jobs, units).expect("made to be well-formed"))
}

fn simulations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one boot");
    group.sample_size(20);
    for size in SIZES {
        let transaction = graph(size);
        let machine = Machine::new(Arc::clone(&transaction));
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let script = Script::default();
            bencher.iter(|| black_box(simulate(&transaction, machine.clone(), SEED, &script)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("each failure");
    group.sample_size(10);
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    for (name, threads) in [("one thread", NonZeroUsize::MIN), ("all threads", threads)] {
        for size in SIZES {
            let transaction = graph(size);
            let machine = Machine::new(Arc::clone(&transaction));
            let units = fallible(&transaction);
            let fault = FaultKind::Fail { why: "injected".into() };
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let script = Script::default();
                    black_box(each(&transaction, &machine, &script, &units, &fault, threads))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, simulations);
criterion_main!(benches);
