//! The filesystem unit: checked where there is one, made where the device is blank, refused where there is anything else.

pub mod plan;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keel_unit::kinds::Filesystem;
use uuid::Uuid;

use self::plan::{Observed, Plan, Verdict};
use super::block::{BlockFile, ReadBlocks};
use super::error::{DiskError, DiskErrorKind, error_of_kind};
use super::inventory::Roots;
use super::signature::{self, Content, Depth};
use super::source::{self, SourceError};
use super::{Say, ext4, intent, off_thread};
use crate::identity::random::random_uuid;
use crate::tool::{RunTool, Tool, ToolError, ToolOutput};

/// How long check or making may take when the unit does not say. A check after a crash reads all metadata of a large
/// filesystem in the worst case.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// The filesystem that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesystemOutcome {
    /// The device it is on.
    pub device: PathBuf,
    /// Which filesystem it is.
    pub uuid: Uuid,
    /// Whether it was made just now.
    pub made: bool,
    /// Whether the check mended something.
    pub corrected: bool,
    /// Whether its journal was replayed: the machine did not go down in order.
    pub recovered: bool,
}

/// Checks the filesystem, or makes it.
///
/// `say` is given lines for the log.
///
/// # Errors
/// When the device is not there, holds something else, or holds a filesystem with errors that only a person can mend.
/// Nothing has been written then, unless the reason is a tool's or a failed write.
pub async fn activate(
    filesystem: &Filesystem,
    roots: &Roots,
    tools: &dyn RunTool,
    say: &Say,
) -> Result<FilesystemOutcome, FilesystemError> {
    let (wanted, its_roots) = (filesystem.device.clone(), roots.clone());
    let failed = |kind| FilesystemError { device: filesystem.device.to_string(), kind };
    let device = blocking(move || source::resolve(&wanted, &its_roots))
        .await
        .map_err(failed)?
        .map_err(|error| failed(FilesystemErrorKind::Source(error)))?;
    let activation = Activation { filesystem, device: &device, tools, say };
    activation.run().await.map_err(failed)
}

/// What belongs together while one filesystem is activated.
struct Activation<'a> {
    filesystem: &'a Filesystem,
    device: &'a Path,
    tools: &'a dyn RunTool,
    say: &'a Say,
}

impl Activation<'_> {
    async fn run(&self) -> Result<FilesystemOutcome, FilesystemErrorKind> {
        let observed = self.observe().await?;
        match plan::plan(&observed)? {
            Plan::Make => {
                let uuid = random_uuid().map_err(FilesystemErrorKind::Random)?;
                self.make(uuid, observed).await
            }
            Plan::MakeAgain(uuid) => {
                (self.say)(format!(
                    "{}: making again a filesystem that a power cut left unfinished",
                    self.device.display()
                ));
                self.make(uuid, observed).await
            }
            Plan::Check => self.check(observed).await,
        }
    }

    async fn observe(&self) -> Result<Observed, FilesystemErrorKind> {
        let device = self.device.to_owned();
        let observed = blocking(move || {
            let file = BlockFile::open(&device)?;
            observe(&file)
                .map_err(|source| DiskError { disk: device, kind: DiskErrorKind::Read(source) })
        });
        observed.await?.map_err(FilesystemErrorKind::Disk)
    }

    /// `seen` is what it was decided on. By now something else may be there: a slow disk keeps an attempt going in its thread when
    /// its unit has been given up long ago. So the device has to be as it was once nobody else can claim it.
    async fn make(
        &self,
        uuid: Uuid,
        seen: Observed,
    ) -> Result<FilesystemOutcome, FilesystemErrorKind> {
        (self.say)(format!("{}: making an ext4 filesystem", self.device.display()));
        let size = seen.size;
        self.write(move |file| {
            let now = observe(file)?;
            if now != seen {
                return Ok(Err(FilesystemErrorKind::Changed(now.content)));
            }
            intent::write_filesystem(file, uuid).map(Ok)
        })
        .await??;
        let tool = plan::mkfs(self.filesystem, self.device, size, uuid, self.timeout());
        let output = self.run_tool(&tool).await?;
        if !output.success() {
            return Err(FilesystemErrorKind::Tool { tool: tool.program(), output });
        }
        let made = self.observe().await?.superblock;
        if made.is_none_or(|made| made.uuid != uuid) {
            return Err(FilesystemErrorKind::NotMade);
        }
        self.write(|file| intent::clear_filesystem(file)).await?;
        Ok(FilesystemOutcome {
            device: self.device.to_owned(),
            uuid,
            made: true,
            corrected: false,
            recovered: false,
        })
    }

    async fn check(&self, observed: Observed) -> Result<FilesystemOutcome, FilesystemErrorKind> {
        let tool =
            Tool::new(self.filesystem.fstype.checker(), self.timeout()).arg("-p").arg(self.device);
        let output = self.run_tool(&tool).await?;
        let verdict = plan::verdict(output.status);
        if verdict != Verdict::Clean {
            output.output.lines().for_each(|line| (self.say)(line.to_owned()));
        }
        if verdict == Verdict::Failed {
            return Err(FilesystemErrorKind::Tool { tool: tool.program(), output });
        }
        // The check may have given a filesystem without a UUID one; what it is now counts.
        let superblock = self.observe().await?.superblock.ok_or(FilesystemErrorKind::NotMade)?;
        Ok(FilesystemOutcome {
            device: self.device.to_owned(),
            uuid: superblock.uuid,
            made: false,
            corrected: verdict == Verdict::Corrected,
            recovered: observed.superblock.is_some_and(|before| before.needs_recovery),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut BlockFile) -> io::Result<T> + Send + 'static,
    ) -> Result<T, FilesystemErrorKind> {
        let device = self.device.to_owned();
        let written = blocking(move || {
            let mut file = BlockFile::open_exclusive(&device)?;
            write(&mut file)
                .map_err(|source| DiskError { disk: device, kind: DiskErrorKind::Write(source) })
        });
        written.await?.map_err(FilesystemErrorKind::Disk)
    }

    async fn run_tool(&self, tool: &Tool) -> Result<ToolOutput, FilesystemErrorKind> {
        self.tools.run(tool).await.map_err(FilesystemErrorKind::NotRun)
    }

    fn timeout(&self) -> Duration {
        self.filesystem.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0)
    }
}

pub(super) fn observe(device: &dyn ReadBlocks) -> io::Result<Observed> {
    Ok(Observed {
        size: device.size(),
        content: signature::scan(device, Depth::Partition)?,
        superblock: ext4::read(device)?,
        unfinished: intent::read_filesystem(device)?,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FilesystemErrorKind> {
    off_thread(work).await.ok_or(FilesystemErrorKind::Stopped)
}

/// Why there is no usable filesystem.
#[derive(Debug)]
pub struct FilesystemError {
    /// The device, as the unit names it.
    pub device: String,
    /// What stands in the way.
    pub kind: FilesystemErrorKind,
}

error_of_kind!(FilesystemError, |error| format_args!("filesystem on {}", error.device));

/// What stands in the way of a filesystem.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemErrorKind {
    /// The device is not there.
    #[error(transparent)]
    Source(SourceError),
    /// The device holds something else.
    #[error("not ext4 and not blank: {0}; it is left untouched")]
    Foreign(Content),
    /// The device holds an ext4 filesystem, and something else around it.
    #[error("ext4, but also {0}; which of them is in use cannot be told, and neither is touched")]
    Ambiguous(Content),
    /// Something was written to the device after it was looked at, and before it was opened for writing.
    #[error("it has changed while it was looked at, and now holds {0}; it is left untouched")]
    Changed(Content),
    /// The device could not be read or written.
    #[error(transparent)]
    Disk(DiskError),
    /// The kernel gave no random bits.
    #[error("the kernel gave no random bits")]
    Random(#[source] io::Error),
    /// A tool did not run to its end.
    #[error(transparent)]
    NotRun(ToolError),
    /// A tool failed.
    #[error("{tool} failed ({}): {}", output.status, output.last_line())]
    Tool {
        /// Which one.
        tool: String,
        /// What it said.
        output: ToolOutput,
    },
    /// The tool said that all is well, but there is no filesystem.
    #[error("no ext4 superblock is there after the tool has ended")]
    NotMade,
    /// The machine shuts down.
    #[error("not done, because the machine shuts down")]
    Stopped,
}
