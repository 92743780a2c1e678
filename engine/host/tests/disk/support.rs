//! Loop devices, tools, and the units under test.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use keel_host::disk::Say;
use keel_host::disk::inventory::Roots;
use keel_host::tool::{
    RunTool, Tool, ToolError, ToolErrorKind, ToolFuture, ToolOutput, ToolStatus,
};
use keel_unit::keys::Text;
use keel_unit::kinds::{DiskSelector, Filesystem, FilesystemType, Partition, Wipe};
use nix::unistd::{Whence, lseek};
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const TYPE: &str = "7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441";

/// Runs a tool that must succeed; gives its output.
pub(crate) fn tool<I: IntoIterator<Item: AsRef<OsStr>>>(program: &str, args: I) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program}: {}: {text}", output.status);
    text
}

/// A disk: a loop device over a sparse file.
pub(crate) struct Loop {
    pub(crate) node: PathBuf,
    image: PathBuf,
    _dir: TempDir,
}

impl Loop {
    pub(crate) fn new(size: u64, sector_size: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        Self::over(dir, image, sector_size)
    }

    /// A disk with what is on another at this moment, as after a power cut.
    pub(crate) fn copy_of(other: &Self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        tool("cp", [OsStr::new("--sparse=always"), other.image.as_os_str(), image.as_os_str()]);
        Self::over(dir, image, 512)
    }

    fn over(dir: TempDir, image: PathBuf, sector_size: u32) -> Self {
        let sector_size = sector_size.to_string();
        let args = ["--find", "--show", "--sector-size", &sector_size].map(OsStr::new);
        let node = tool("losetup", args.into_iter().chain([image.as_os_str()])).trim().into();
        Self { node, image, _dir: dir }
    }

    pub(crate) fn name(&self) -> &str {
        self.node.file_name().unwrap().to_str().unwrap()
    }

    pub(crate) fn node(&self) -> &str {
        self.node.to_str().unwrap()
    }

    /// A digest of the whole medium: of each block that is not zero, and where it stands. Holes need not be read.
    pub(crate) fn digest(&self) -> String {
        use std::os::unix::fs::FileExt;
        let image = fs::File::open(&self.image).unwrap();
        image.sync_all().unwrap();
        let mut sum =
            Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = sum.stdin.take().unwrap();
        let mut at = 0;
        // ENXIO: no more data behind this offset.
        while let Ok(start) = lseek(&image, at, Whence::SeekData) {
            at = lseek(&image, start, Whence::SeekHole).unwrap();
            let mut data = vec![0; usize::try_from(at - start).unwrap()];
            image.read_exact_at(&mut data, start.unsigned_abs()).unwrap();
            for (block, offset) in data.chunks(4096).zip((start..).step_by(4096)) {
                if *block != [0; 4096][..block.len()] {
                    input.write_all(&offset.to_le_bytes()).unwrap();
                    input.write_all(block).unwrap();
                }
            }
        }
        drop(input);
        let output = sum.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes bytes past everything.
    pub(crate) fn poke(&self, offset: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        let disk = fs::OpenOptions::new().write(true).open(&self.node).unwrap();
        disk.write_all_at(bytes, offset).unwrap();
        disk.sync_all().unwrap();
    }

    /// Makes the kernel forget the partition, as a reboot would on a kernel that does not read the table itself.
    pub(crate) fn reboot(&self) {
        tool("delpart", [self.node(), "1"]);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("delpart").arg(&self.node).arg("1").stderr(Stdio::null()).status();
        let _ = Command::new("losetup").arg("--detach").arg(&self.node).status();
    }
}

/// A machine that has these disks alone: a sysfs with links to the real one.
pub(crate) struct Machine {
    pub(crate) roots: Roots,
    pub(crate) said: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
}

impl Machine {
    pub(crate) fn new<'a>(disks: impl IntoIterator<Item = &'a Loop>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("class/block")).unwrap();
        let roots = Roots::new(dir.path(), "/dev");
        let machine = Self { roots, said: Arc::default(), dir };
        disks.into_iter().for_each(|disk| machine.plug(disk.name()));
        machine
    }

    pub(crate) fn plug(&self, name: &str) {
        let link = self.dir.path().join("class/block").join(name);
        std::os::unix::fs::symlink(Path::new("/sys/class/block").join(name), link).unwrap();
    }

    pub(crate) fn say(&self) -> Say {
        let said = Arc::clone(&self.said);
        Arc::new(move |line| said.lock().unwrap().push(line))
    }
}

/// Tools as plain children; PID 1 has a reaper instead.
pub(crate) struct Children;

impl RunTool for Children {
    fn run<'a>(&'a self, tool: &'a Tool) -> ToolFuture<'a> {
        let tool = tool.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || run(&tool)).await.unwrap() })
    }
}

fn run(tool: &Tool) -> Result<ToolOutput, ToolError> {
    use std::os::unix::process::ExitStatusExt;
    let failed = |source| ToolError { program: tool.program(), kind: ToolErrorKind::Start(source) };
    let output = Command::new(&tool.argv[0])
        .args(&tool.argv[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    let signal = || ToolStatus::Signaled(output.status.signal().unwrap());
    Ok(ToolOutput {
        status: output.status.code().map_or_else(signal, ToolStatus::Exited),
        output: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    })
}

/// The partition unit that ships, for one selected disk.
pub(crate) fn partition(disk: Option<&Loop>, wipe: Wipe) -> Partition {
    let selector = |disk: &Loop| DiskSelector {
        path: Some(Text::parse(disk.node()).unwrap()),
        by_id: None,
        serial: None,
        model: None,
        min_size: None,
        max_size: None,
        bus: None,
    };
    Partition {
        disk: disk.map(selector),
        label: Text::parse("keel-data").unwrap(),
        type_guid: Text::parse(TYPE).unwrap(),
        size: None,
        wipe,
        timeout: Some(Text::parse("100ms").unwrap()),
    }
}

/// The filesystem unit that ships.
pub(crate) fn filesystem(device: &str) -> Filesystem {
    Filesystem {
        device: Text::parse(device).unwrap(),
        fstype: FilesystemType::Ext4,
        label: Some(Text::parse("keel-data").unwrap()),
        options: Vec::new(),
        timeout: None,
    }
}
