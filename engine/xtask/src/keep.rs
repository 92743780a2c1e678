//! Folders that are made once and kept in a cache (`$KEEL_CACHE`, else `~/.cache/keel`), each named after what it is made from.
//! A folder is used again only if each of its files still has the checksum that it had when it was made.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::command::{Failure, command, output, succeeds};

/// The folder of all caches.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("KEEL_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("keel")))
        .or_else(|| Some(set("HOME")?.join(".cache/keel")))
        .ok_or_else(|| {
            Failure::new("neither KEEL_CACHE nor HOME is set: nowhere to keep downloads")
        })
}

/// The folder of that name in the cache. If it is not there, or not whole, `make` fills an empty one; it gets that and a folder for
/// what is not kept. A second xtask that wants the same waits for the first.
pub(crate) fn folder(
    cache: &Path,
    key: &str,
    make: impl FnOnce(&Path, &Path) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    let (root, sums) = (cache.join(key), cache.join(format!("{key}.b2")));
    let cannot =
        || Failure::because::<std::io::Error>(format!("cannot make {} anew", root.display()));
    fs::create_dir_all(cache).map_err(cannot())?;
    let lock = File::create(cache.join(format!("{key}.lock"))).map_err(cannot())?;
    lock.lock().map_err(cannot())?;
    if is_whole(&root, &sums) {
        return Ok(root);
    }
    let new = tempfile::tempdir_in(cache).map_err(cannot())?;
    let (made, scratch) = (new.path().join("root"), new.path().join("scratch"));
    fs::create_dir(&made).and_then(|()| fs::create_dir(&scratch)).map_err(cannot())?;
    make(&made, &scratch)?;
    let mut list = command("find", [".", "-type", "f", "-exec", "b2sum", "{}", "+"]);
    let listed = output(list.current_dir(&made))?;
    let new_sums = new.path().join("sums");
    fs::write(&new_sums, listed).map_err(cannot())?;
    if root.exists() {
        fs::rename(&root, new.path().join("broken")).map_err(cannot())?;
    }
    fs::rename(&new_sums, &sums).map_err(cannot())?;
    fs::rename(&made, &root).map_err(cannot())?;
    Ok(root)
}

fn is_whole(root: &Path, sums: &Path) -> bool {
    let mut check = command("b2sum", ["--check", "--quiet", "--strict"]);
    root.exists() && sums.exists() && succeeds(check.arg(sums).current_dir(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_again_when_it_is_damaged() {
        let cache = tempfile::tempdir().unwrap();
        let mut made = 0;
        let mut get = || {
            folder(cache.path(), "k", |root, _| {
                made += 1;
                fs::write(root.join("a"), "whole").unwrap();
                Ok(())
            })
            .unwrap()
        };
        let root = get();
        assert_eq!(get(), root);
        fs::write(root.join("a"), "other").unwrap();
        assert_eq!(fs::read(get().join("a")).unwrap(), b"whole");
        fs::remove_file(root.join("a")).unwrap();
        get();
        assert_eq!(made, 3);
    }

    #[test]
    fn what_failed_is_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        let failed = folder(cache.path(), "k", |root, _| {
            fs::write(root.join("a"), "half").unwrap();
            Err(Failure::new("no"))
        });
        assert!(failed.is_err());
        assert!(!cache.path().join("k").exists());
    }
}
