//! A boot and a shutdown through the scheduler alone, for graphs of growing size.
//!
//! What a unit costs must stay flat, and it does in instructions: 9,450 for each at 100 units, 9,840 at 100,000 (callgrind). Its time
//! grows all the same, for the edges lead anywhere: from 10,000 units on the rows leave the caches one after the other, and a look
//! at a neighbour becomes a read of memory.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keel_plan::{Event, ShutdownKind};

const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];

fn scheduler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("boot and shutdown");
    group.sample_size(10);
    for size in SIZES {
        let transaction = keel_gate::transaction(size).expect("made to be well-formed");
        let events = [Event::Submit, Event::Shutdown(ShutdownKind::PowerOff)];
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| black_box(keel_gate::run(&transaction, &events)));
        });
    }
    group.finish();
}

criterion_group!(benches, scheduler);
criterion_main!(benches);
