//! Where everybody is measured: as PID 1 of namespaces of its own, with a small root, in a cgroup that counts its processor time.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::peer::Start;
use crate::command::{Failure, command, run};

/// How long a manager rests before its memory is read.
const REST: Duration = Duration::from_millis(300);

/// How often it is looked whether a manager lives on.
const LOOK: Duration = Duration::from_millis(100);

/// What one run came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Run {
    /// From the start of the manager to that of the last process, which comes after all others.
    pub(super) wall: Duration,
    /// Processor time of everybody meanwhile.
    pub(super) cpu: Duration,
    /// Memory of the manager at rest, in KiB.
    pub(super) rss: u64,
    /// The most that it ever had.
    pub(super) peak: u64,
}

/// A folder with what a peer needs, which it sees as `/bench`.
pub(super) struct Ground {
    folder: tempfile::TempDir,
    cgroup: PathBuf,
}

/// Makes the root, and becomes the manager once it has said so. `$1` is the folder, `$2` the lower directories of `/usr`; the rest is
/// the manager.
const INSIDE: &str = "\
set -e
folder=$1 lower=$2
shift 2
root=/mnt
mount -t tmpfs tmpfs $root
cd $root
mkdir usr proc sys dev run tmp var bench root
cp -a $folder/etc etc
echo 0123456789abcdef0123456789abcdef > etc/machine-id
for part in bin sbin lib lib64; do ln -s usr/$part $part; done
if [ \"$lower\" = /usr ]; then mount --bind /usr usr; else mount -t overlay -o lowerdir=$lower overlay usr; fi
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --bind $folder bench
exec chroot $root /bench/mark /bench/fifo B \"$@\"
";

impl Ground {
    /// An empty one, with the programs of the bench.
    pub(super) fn new(programs: &Path) -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(Failure::because("cannot make a folder"))?;
        for entry in fs::read_dir(programs).into_iter().flatten().flatten() {
            fs::copy(entry.path(), folder.path().join(entry.file_name()))
                .map_err(Failure::because("cannot copy the programs"))?;
        }
        run(&mut command("mkfifo", [folder.path().join("fifo")]))?;
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists());
        let root = root.ok_or_else(|| Failure::new("no cgroup v2 hierarchy is mounted here"))?;
        let cgroup = root.join(format!("keel-bench-{}", std::process::id()));
        Ok(Self { folder, cgroup })
    }

    /// Where a peer's files are written.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a manager until its last unit has begun. `lower` are directories that lie over the machine's `/usr`.
    pub(super) fn run(
        &self,
        start: &Start,
        lower: &[PathBuf],
        units: usize,
        patience: Duration,
    ) -> Result<Run, Failure> {
        let io = |what: &str| Failure::because(format!("cannot {what}"));
        fs::create_dir(&self.cgroup).map_err(io("make a cgroup"))?;
        let _gone = Removed(&self.cgroup);
        let marks = Marks::listen(&self.folder().join("fifo"))?;
        let output = File::create(self.folder().join("output")).map_err(io("write a file"))?;
        let lower: Vec<_> = lower.iter().map(|path| path.to_string_lossy()).collect();
        let lower = [lower.as_slice(), &["/usr".into()]].concat().join(":");
        let enter = "echo $$ > \"$0\"/cgroup.procs && exec unshare \"$@\"";
        let namespaces =
            ["--pid", "--mount", "--cgroup", "--fork", "--kill-child", "--", "sh", "-c", INSIDE];
        let mut child = command("sh", ["-c", enter])
            .arg(&self.cgroup)
            .args(namespaces)
            .arg("sh")
            .arg(self.folder())
            .arg(lower)
            .args(&start.words)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(start.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(io("share a file"))?)
            .stderr(output)
            .spawn()
            .map(Ends)
            .map_err(io("run sh"))?;
        let begun = Instant::now();
        let mut next = |letter: char| marks.next(letter, &mut child, begun + patience);
        let (began, _) = next('B')?;
        let before = self.processor_time();
        let (ended, pid) = next('E')?;
        let cpu = self.processor_time().saturating_sub(before);
        if pid < units {
            return Err(Failure::new(format!("no more than {pid} processes ran of {units}")));
        }
        thread::sleep(REST);
        let (rss, peak) = memory(child.0.id());
        Ok(Run { wall: Duration::from_nanos(ended - began), cpu, rss, peak })
    }

    /// What the last manager printed, its end.
    pub(super) fn output(&self) -> String {
        let text = fs::read(self.folder().join("output")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    fn processor_time(&self) -> Duration {
        let text = fs::read_to_string(self.cgroup.join("cpu.stat")).unwrap_or_default();
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        Duration::from_micros(micros.unwrap_or(0))
    }
}

/// Memory of the one child of a process: now, and at most.
fn memory(outer: u32) -> (u64, u64) {
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
    let children = children.unwrap_or_default();
    let Some(manager) = children.split_whitespace().next() else { return (0, 0) };
    let status = fs::read_to_string(format!("/proc/{manager}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// A child that ends with the value, and all of its namespace with it.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A cgroup that is removed with all below once nobody is in it any more.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _killed = fs::write(self.0.join("cgroup.kill"), "1");
        let populated = || {
            let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
            events.contains("populated 1")
        };
        let asked = Instant::now();
        while populated() && asked.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        let mut found = vec![self.0.to_path_buf()];
        let mut next = 0;
        while let Some(directory) = found.get(next).cloned() {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            found.extend(folders.map(|entry| entry.path()));
            next += 1;
        }
        for directory in found.iter().rev() {
            let _removed = fs::remove_dir(directory);
        }
    }
}

/// What the programs that mark a moment say.
struct Marks {
    lines: Receiver<String>,
    fifo: File,
    reads: Option<JoinHandle<()>>,
}

impl Marks {
    fn listen(fifo: &Path) -> Result<Self, Failure> {
        // Opened for both, so that there is no end as long as nobody has opened the other.
        let open = || OpenOptions::new().read(true).write(true).open(fifo);
        let reader = open().map_err(Failure::because("cannot open the fifo"))?;
        let fifo = open().map_err(Failure::because("cannot open the fifo"))?;
        let (tell, lines) = mpsc::channel();
        let reads = thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).for_each(|line| drop(tell.send(line)));
        });
        Ok(Self { lines, fifo, reads: Some(reads) })
    }

    /// The moment of a letter, and the number of the process that said it.
    fn next(
        &self,
        letter: char,
        child: &mut Ends,
        deadline: Instant,
    ) -> Result<(u64, usize), Failure> {
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => {
                    let mut words = line.split(' ');
                    if !words.next().is_some_and(|word| word.starts_with(letter)) {
                        continue;
                    }
                    let mut number = || words.next()?.parse::<u64>().ok();
                    let (Some(at), Some(pid)) = (number(), number()) else { continue };
                    return Ok((at, usize::try_from(pid).unwrap_or(usize::MAX)));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new("the marks cannot be read"));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(Failure::new("it took longer than the bench waits"));
                }
                Err(RecvTimeoutError::Timeout) => match child.0.try_wait() {
                    Ok(None) => {}
                    _ => return Err(Failure::new("it ended before its last unit")),
                },
            }
        }
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        // The end, for the thread that reads; before it has gone, it would take what the next one is to read.
        if self.fifo.write_all(b"\n").is_ok() {
            self.reads.take().map(JoinHandle::join);
        }
    }
}
