//! From text to transaction: what `validate` and the first instants of PID 1 cost, and that the cost is linear in edges.
//!
//! `cargo bench -p keel-plan --bench compile`. Each unit has three edges; time per unit should stay the same from size to size.

#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keel_plan::{BOOT, compile, plan, resolve};
use keel_unit::{Input, lower};

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];

/// A tree of services in which each waits for three others, spread like a real boot: near ones and far ones.
fn texts(size: usize) -> Vec<(String, String)> {
    let mut texts: Vec<_> = (0..size)
        .map(|i| {
            let others: Vec<String> =
                [i / 2, i / 3, i.saturating_sub(1)].iter().filter(|o| **o < i).map(|o| format!("\"u{o}\"")).collect();
            let body = format!(
                "description = \"Unit {i}\"\npart-of = \"boot\"\nafter = [{}]\n\n[oneshot]\nexec = [\"/usr/bin/true\"]\ntimeout = \"10s\"\n",
                others.join(", ")
            );
            (format!("units/u{i}.toml"), body)
        })
        .collect();
    texts.push(("units/boot.toml".to_owned(), "[target]\n".to_owned()));
    texts
}

fn input(texts: &[(String, String)]) -> Input {
    let mut input = Input::default();
    texts.iter().for_each(|(path, text)| input.unit(path, text.as_str()));
    input
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("text to transaction");
    for size in SIZES {
        let texts = texts(size);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &texts, |b, texts| {
            b.iter(|| compile(input(black_box(texts)), BOOT).unwrap());
        });
    }
    group.finish();
}

fn stages(c: &mut Criterion) {
    let texts = texts(10_000);
    let set = lower(input(&texts)).unwrap();
    let graph = resolve(set.clone()).unwrap();
    let mut group = c.benchmark_group("10,000 units");
    group.bench_function("lower", |b| b.iter(|| lower(input(black_box(&texts))).unwrap()));
    group.bench_function("resolve", |b| b.iter(|| resolve(black_box(set.clone())).unwrap()));
    group.bench_function("plan", |b| b.iter(|| plan(black_box(&graph), BOOT).unwrap()));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5));
    targets = whole, stages
}
criterion_main!(benches);
