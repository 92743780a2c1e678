//! What is kept, what goes, and what a restart or a power failure leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::ring::FILES;
use super::*;

fn record(method: &str) -> Record {
    let mut record = Record { method: method.to_owned(), ..Record::default() };
    record.at(SystemTime::UNIX_EPOCH, Duration::from_millis(3));
    record
}

fn numbers(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}

#[test]
fn numbers_rise_across_restarts() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path().join("audit");
    for _ in 0..3 {
        let mut writer = Writer::open(&folder).unwrap();
        writer.keep(Sort::Read, record("r"));
        writer.keep(Sort::Change, record("c"));
    }
    let all = past(&folder, 0).unwrap();
    assert_eq!(numbers(&all), [1, 2, 3, 4, 5, 6]);
    let methods: String = all.iter().map(|record| record.method.as_str()).collect();
    assert_eq!(methods, "rcrcrc");
    assert_eq!(numbers(&past(&folder, 3).unwrap()), [4, 5, 6]);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let file = folder.join("changes.jsonl");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_record_is_one_line() {
    let record = Record {
        seq: 7,
        peer: "[::1]:2".to_owned(),
        subject: "CN=a\nb".to_owned(),
        roles: vec!["admin".to_owned()],
        digest_before: Some("sha256:00".to_owned()),
        why: Some("\"quoted\"".to_owned()),
        ..record("/m")
    };
    let line = record.line();
    assert_eq!(line.matches('\n').count(), 1);
    assert_eq!(Record::parse(&line), Some(record));
}

#[test]
fn a_flood_pushes_out_its_own_kind_alone() {
    let folder = TempDir::new().unwrap();
    let mut writer = Writer::with_files_of(folder.path(), 1_000).unwrap();
    writer.keep(Sort::Change, record("c"));
    for _ in 0..1_000 {
        writer.keep(Sort::Refused, record(""));
        writer.keep(Sort::Read, record("r"));
    }
    let all = past(folder.path(), 0).unwrap();
    assert_eq!(all[0].method, "c");
    assert!(all.len() > 10, "the newest are there");
    assert_eq!(all.last().unwrap().seq, 2_001);
    let mut size = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        size += entry.unwrap().metadata().unwrap().len();
    }
    assert!(size <= 2 * 1_000 * FILES as u64 + 1_000, "{size}");
    // The next number is found although most are gone.
    let mut writer = Writer::with_files_of(folder.path(), 1_000).unwrap();
    assert_eq!(writer.keep(Sort::Read, record("r")).seq, 2_002);
}

#[test]
fn half_a_line_spoils_only_itself() {
    let folder = TempDir::new().unwrap();
    Writer::open(folder.path()).unwrap().keep(Sort::Read, record("one"));
    let file = folder.path().join("reads.jsonl");
    let mut text = fs::read(&file).unwrap();
    text.extend(b"{\"seq\":2,\"time\":\"19\xff");
    fs::write(&file, text).unwrap();
    Writer::open(folder.path()).unwrap().keep(Sort::Read, record("two"));
    let all = past(folder.path(), 0).unwrap();
    assert_eq!(numbers(&all), [1, 3], "half a record leaves a gap");
    assert_eq!(all[1].method, "two");
    assert_eq!(Writer::open(folder.path()).unwrap().keep(Sort::Read, record("three")).seq, 4);
    assert_eq!(numbers(&past(folder.path(), 0).unwrap()), [1, 3, 4]);
}

/// A filesystem of that size, in a mount namespace of its own: the test named runs again in there, and knows where.
fn on_a_disk_of(size: &str, test: &str, work: impl FnOnce(&Path)) {
    const PLACE: &str = "KEEL_TEST_DISK";
    if let Ok(place) = std::env::var(PLACE) {
        return work(Path::new(&place));
    }
    let place = TempDir::new().unwrap();
    let options = format!("size={size},nr_inodes=64");
    let mount =
        format!("mount -t tmpfs -o {options} none {} && exec \"$@\"", place.path().display());
    let again = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &mount, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("audit::tests::{test}"), "--exact"])
        .env(PLACE, place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("1 passed"), "{again:?}");
}

/// Takes all the room that is left.
fn fill(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    while std::io::Write::write(&mut file, &[b'x'; 512]).is_ok() {}
    path
}

#[test]
fn a_full_disk_costs_what_does_not_fit_and_nothing_else() {
    on_a_disk_of("64k", "a_full_disk_costs_what_does_not_fit_and_nothing_else", |disk| {
        let folder = disk.join("audit");
        // A page is what the disk gives: a record across its end is written in part.
        let mut writer = Writer::with_files_of(&folder, 8_000).unwrap();
        let mut written = Vec::new();
        let mut refused = 0;
        for round in 0..3 {
            for _ in 0..200 {
                writer.keep(Sort::Change, record("c"));
            }
            let before = past(&folder, 0).unwrap();
            let filler = fill(disk);
            for _ in 0..200 {
                let kept = writer.keep(Sort::Change, record("lost?"));
                match past(&folder, 0).unwrap().last().unwrap().seq == kept.seq {
                    true => written.push(kept.seq),
                    false => refused += 1,
                }
            }
            let during = past(&folder, 0).unwrap();
            assert!(
                during.len() + 60 > before.len(),
                "round {round}: what does not fit pushes out what is there: {} of {}",
                during.len(),
                before.len()
            );
            // An agent that starts on a full disk keeps what comes when there is room again.
            drop(writer);
            writer = Writer::with_files_of(&folder, 8_000).unwrap();
            assert!(writer.keeps_all());
            fs::remove_file(&filler).unwrap();
            let next = writer.keep(Sort::Change, record("again"));
            let after = past(&folder, 0).unwrap();
            assert_eq!(after.last().unwrap(), &next, "round {round}");
            let lines =
                Sort::ALL.map(|sort| super::ring::each(&folder, sort, &mut |_| {}).unwrap());
            assert_eq!(lines, [0; 3], "round {round}: no half a line is left");
        }
        assert!(refused > 0 && !written.is_empty(), "the disk was full: {refused}");
    });
}

#[test]
fn a_move_that_was_cut_short_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let mut writer = Writer::with_files_of(folder.path(), 1_000).unwrap();
    for _ in 0..12 {
        writer.keep(Sort::Read, record("r"));
    }
    let all = numbers(&past(folder.path(), 0).unwrap());
    // Power failed when the files had moved on and the new one had not taken its place.
    let path = |name: &str| folder.path().join(name);
    for (from, to) in [("reads.2", "reads.3"), ("reads.1", "reads.2"), ("reads", "reads.1")] {
        let (from, to) = (path(&format!("{from}.jsonl")), path(&format!("{to}.jsonl")));
        if from.exists() {
            fs::rename(from, to).unwrap();
        }
    }
    fs::write(path("reads.new"), "\n").unwrap();
    let mut writer = Writer::with_files_of(folder.path(), 1_000).unwrap();
    assert_eq!(numbers(&past(folder.path(), 0).unwrap()), all);
    for seq in 13..20 {
        assert_eq!(writer.keep(Sort::Read, record("r")).seq, seq);
    }
    assert_eq!(past(folder.path(), 0).unwrap().last().unwrap().seq, 19);
}

#[test]
fn of_a_flood_some_are_told() {
    let start = Instant::now();
    let mut bucket = Bucket::new(start);
    let told = (0..10_000).filter(|_| bucket.take(start).is_some()).count();
    assert_eq!(told, REFUSALS_AT_ONCE as usize);
    assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(9_800));
    assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(0));
    assert_eq!(bucket.take(start + Duration::from_secs(1)), None);
}

#[test]
fn what_has_no_room_leaves_a_gap() {
    let queue = Queue::default();
    let told = broadcast::Sender::new(2_048);
    let mut seen = told.subscribe();
    let put = || queue.put(Item::Keep(Sort::Read, Box::new(record("r"))));
    // The writer has not begun: beyond what may wait they are lost.
    (0..1_024 + 5).for_each(|_| put());
    queue.close();
    Writer::nowhere().run(&queue, &told);
    assert_eq!(seen.try_recv().unwrap().seq, 6);
    assert_eq!(seen.len(), 1_023);
}

#[test]
fn what_comes_together_is_written_together() {
    let folder = TempDir::new().unwrap();
    let mut writer = Writer::with_files_of(folder.path(), 1_000).unwrap();
    for _ in 0..4 {
        writer.keep(Sort::Read, record("before"));
    }
    let (queue, told) = (Queue::default(), broadcast::Sender::new(64));
    let mut seen = told.subscribe();
    for sort in [Sort::Read, Sort::Change, Sort::Refused, Sort::Read].repeat(4) {
        queue.put(Item::Keep(sort, Box::new(record(sort.word()))));
    }
    let (written, mut wait) = oneshot::channel();
    queue.put(Item::Flush(written));
    queue.close();
    writer.run(&queue, &told);
    assert_eq!(wait.try_recv(), Ok(()));
    // In the order in which they came, over more than one file.
    let all = past(folder.path(), 0).unwrap();
    assert_eq!(numbers(&all), (1..=20).collect::<Vec<_>>());
    let told: Vec<_> = std::iter::from_fn(|| seen.try_recv().ok()).collect();
    assert_eq!(
        told.iter().map(|record| record.seq).collect::<Vec<_>>(),
        (5..=20).collect::<Vec<_>>()
    );
    for entry in fs::read_dir(folder.path()).unwrap() {
        let size = entry.unwrap().metadata().unwrap().len();
        assert!(size <= 1_000, "{size}");
    }
}
