//! The store on a real ext4, whose power is cut: a block device that notes every write and every flush while configs come, are tried and
//! settle, and then each state in which a cut could have left it, checked by e2fsck, mounted, and read.
//!
//! The device is a loop device over a file of a FUSE filesystem, which lives here. A flush of the device is an fsync of that file. What
//! was written before the last flush is there after a cut; of what was written since, any part may be, in any order.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyWrite, Request,
};
use nix::mount::{MsFlags, mount, umount};

use super::tests::{page, pending};
use super::*;

const SIZE: usize = 8 << 20;
const FILE: u64 = 2;

/// At least so many cuts at random, beside those at each flush.
const RANDOM_CUTS: usize = 500;

/// What the disk was asked for.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, Vec<u8>),
    Flush,
}

/// A disk in memory.
#[derive(Debug, Default)]
struct Medium {
    bytes: Vec<u8>,
    log: Vec<Step>,
}

/// A filesystem with that one file.
struct Recorder(Arc<Mutex<Medium>>);

const TTL: Duration = Duration::from_secs(1);

fn about(ino: u64) -> FileAttr {
    let (kind, size) = match ino {
        FILE => (FileType::RegularFile, SIZE as u64),
        _ => (FileType::Directory, 0),
    };
    FileAttr {
        ino,
        size,
        blocks: size / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Recorder {
    fn lookup(&mut self, _: &Request<'_>, _: u64, name: &OsStr, reply: ReplyEntry) {
        match name == "disk" {
            true => reply.entry(&TTL, &about(FILE), 0),
            false => reply.error(nix::errno::Errno::ENOENT as i32),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _: Option<u64>, reply: ReplyAttr) {
        reply.attr(&TTL, &about(ino));
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        let at = usize::try_from(offset).unwrap().min(SIZE);
        let end = (at + size as usize).min(SIZE);
        reply.data(&self.0.lock().unwrap().bytes[at..end]);
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        let at = usize::try_from(offset).unwrap();
        let mut medium = self.0.lock().unwrap();
        medium.bytes[at..at + data.len()].copy_from_slice(data);
        medium.log.push(Step::Write(at, data.to_vec()));
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        self.0.lock().unwrap().log.push(Step::Flush);
        reply.ok();
    }
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // e2fsck ends with 1 when it has mended something: a journal that was played back, an inode that was in use.
    let mended = program == "e2fsck" && output.status.code() == Some(1);
    assert!(output.status.success() || mended, "{program}: {}: {said}", output.status);
    said.trim().to_owned()
}

/// A loop device with ext4, mounted.
struct Mounted {
    node: String,
    at: PathBuf,
}

impl Mounted {
    fn new(file: &Path, at: &Path) -> Self {
        let node = tool("losetup", &["--find", "--show", file.to_str().unwrap()]);
        mount(Some(node.as_str()), at, Some("ext4"), MsFlags::empty(), None::<&str>).unwrap();
        Self { node, at: at.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount(&self.at);
        let _ = Command::new("losetup").args(["--detach", &self.node]).status();
    }
}

/// Random enough, and the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }
}

/// The medium after a cut behind the first `cut` steps. Of what no flush has made durable, `keeps` says what is there.
fn after(base: &[u8], log: &[Step], cut: usize, mut keeps: impl FnMut() -> bool) -> Vec<u8> {
    let flushed = log[..cut].iter().rposition(|step| matches!(step, Step::Flush)).unwrap_or(0);
    let mut bytes = base.to_vec();
    for (n, step) in log[..cut].iter().enumerate() {
        if let Step::Write(at, data) = step
            && (n < flushed || keeps())
        {
            bytes[*at..*at + data.len()].copy_from_slice(data);
        }
    }
    bytes
}

/// What else lies on the data partition, and must come through.
const OTHERS: [(&str, &str); 3] = [
    ("identity/machine-id", "0f3a5c7e91b24d4e8a6b0123456789ab\n"),
    ("identity/node.crt", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
    ("identity/node.key", "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"),
];

fn text(number: u64) -> String {
    format!("schema = 1\n# {number}: {}\n", "x".repeat(3000))
}

/// The config after which all texts are replaced.
const FORGETS: u64 = 3;

/// What takes the place of a text.
fn forgotten(number: u64) -> String {
    format!("schema = 1\n# {number}: nothing\n")
}

/// Where the log stood when a book was on the disk.
type Marks = Vec<(usize, Book)>;

/// Configs come, are tried, and settle or are undone.
fn live(store: &mut Store<Folder>, at: impl Fn() -> usize) -> Marks {
    let mut marks = vec![(0, store.book().clone())];
    for number in 2..=4_u64 {
        store.keep(number, &text(number)).unwrap();
        let comes = store.book().with(page(number, &text(number)), pending(number));
        let ends = |store: &Store<Folder>| match number % 2 {
            0 => store.book().settled(),
            _ => store.book().undone("it was not well"),
        };
        store.commit(comes).unwrap();
        marks.push((at(), store.book().clone()));
        store.commit(store.book().tried()).unwrap();
        marks.push((at(), store.book().clone()));
        store.commit(ends(store)).unwrap();
        marks.push((at(), store.book().clone()));
        if number == FORGETS {
            let pages = store.book().pages.clone();
            let texts: Vec<_> =
                pages.iter().map(|it| (it.number, forgotten(it.number), None)).collect();
            let mut between = store.book().clone();
            for page in &mut between.pages {
                page.becomes = Some(sha256(forgotten(page.number).as_bytes()));
            }
            store.replace(&texts).unwrap();
            // Where the log stood between the two nobody knows: it is passed by, and may be found.
            marks.push((at(), between));
            marks.push((at(), store.book().clone()));
        }
    }
    marks
}

/// Every cut leaves the book before or the one after, never a mix; every text it counts on, the machine's id and its key are whole.
#[test]
fn a_power_cut_at_any_write_leaves_the_old_or_the_new() {
    // Mounts of its own: a thread that ends takes them along.
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        cut_everywhere();
    });
    thread.join().unwrap();
}

fn cut_everywhere() {
    // In memory: what is proven here is the order of writes, and 500 checks take their time on a disk.
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let folder = |name: &str| {
        let path = place.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (images, disks) = (folder("fuse"), folder("disk"));
    let image = place.path().join("image");
    fs::File::create(&image).unwrap().set_len(SIZE as u64).unwrap();
    tool("mke2fs", &["-q", "-t", "ext4", "-J", "size=1", "-F", image.to_str().unwrap()]);
    let medium = Arc::new(Mutex::new(Medium { bytes: fs::read(&image).unwrap(), log: Vec::new() }));
    let options = [MountOption::FSName("keel-test".to_owned())];
    let session = fuser::spawn_mount2(Recorder(medium.clone()), &images, &options).expect("FUSE");
    let at = || medium.lock().unwrap().log.len();

    let mounted = Mounted::new(&images.join("disk"), &disks);
    fs::create_dir(disks.join("identity")).unwrap();
    OTHERS.iter().for_each(|(name, content)| fs::write(disks.join(name), content).unwrap());
    let mut store = Store::open(Folder::at(&disks.join("configs")).unwrap()).unwrap();
    store.keep(1, &text(1)).unwrap();
    store.commit(store.book().with(page(1, &text(1)), pending(1))).unwrap();
    store.commit(store.book().settled()).unwrap();
    nix::unistd::sync();
    let base = {
        let mut medium = medium.lock().unwrap();
        medium.log.clear();
        medium.bytes.clone()
    };
    let marks = live(&mut store, at);
    let log = medium.lock().unwrap().log.clone();
    drop(store);
    drop(mounted);
    drop(session);

    let flushes: Vec<usize> = (0..log.len()).filter(|n| matches!(log[*n], Step::Flush)).collect();
    // Writing out before it is put in place, the new name, and the folder: nothing less makes a change durable.
    assert!(flushes.len() >= 3 * (marks.len() - 1), "{} flushes", flushes.len());
    let mut dice = Dice(7);
    let check = |cut: usize, bytes: Vec<u8>| {
        fs::write(&image, bytes).unwrap();
        tool("e2fsck", &["-f", "-y", image.to_str().unwrap()]);
        let _mounted = Mounted::new(&image, &disks);
        let store = Store::open(Folder::at(&disks.join("configs")).unwrap()).unwrap();
        let done = marks.iter().rposition(|(at, _)| *at <= cut).unwrap();
        let between = |book: &Book| book.pages.iter().any(|page| page.becomes.is_some());
        let next = marks.get(done + 1).map_or(2, |(_, book)| if between(book) { 3 } else { 2 });
        let may_be: Vec<&Book> = marks[done..].iter().take(next).map(|(_, book)| book).collect();
        assert!(
            may_be.contains(&store.book()),
            "cut {cut}: {:?} is none of {may_be:?}",
            store.book()
        );
        assert_eq!(store.damage(), Vec::<String>::new(), "cut {cut}");
        for page in &store.book().pages {
            let (found, was) = (store.text(page.number).unwrap(), text(page.number));
            let replaced = found == forgotten(page.number);
            let said = page.becomes.is_some() || page.text_sha256 == sha256(found.as_bytes());
            assert!(said && (replaced || found == was), "cut {cut}: {found}");
        }
        for (name, content) in OTHERS {
            assert_eq!(fs::read_to_string(disks.join(name)).unwrap(), content, "cut {cut}: {name}");
        }
    };
    for cut in &flushes {
        check(*cut, after(&base, &log, *cut, || true));
        check(*cut + 1, after(&base, &log, *cut + 1, || false));
    }
    for _ in 0..RANDOM_CUTS {
        let cut = dice.below(log.len() + 1);
        let odds = dice.below(5);
        let bytes = after(&base, &log, cut, || dice.below(4) < odds);
        check(cut, bytes);
    }
}
