//! Files that are there wholly or not at all, whenever the power goes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longer than any machine id; a file that is larger is none.
const LONGEST: u64 = 4096;

/// The content of a small regular file; `None` if there is nothing of that name.
///
/// # Errors
/// When it cannot be read, or is a link or anything else that is no regular file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Without O_NONBLOCK a FIFO of that name would hold up the boot.
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// Makes a directory for root alone, and what leads to it.
///
/// # Errors
/// As mkdir(2).
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent(path);
    fs::create_dir_all(&parent)?;
    DirBuilder::new().mode(0o700).create(path)?;
    File::open(parent)?.sync_all()
}

/// Puts a file in place that everyone may read and nobody write. Returns when it survives a power cut.
///
/// # Errors
/// As the calls that it takes. The file is then there as it was before.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // What an earlier attempt left when the power went.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    file.write_all(content)?;
    // Set apart from opening, because the umask has its say there.
    file.set_permissions(fs::Permissions::from_mode(0o444))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}
