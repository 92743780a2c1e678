//! What a reset wipes: the data partition, and each folder on it, with what that means and how large it is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use keel_control::Loss;
use keel_host::disk::wipe::Condemned;

/// How long measuring may take: less than keel-agent waits for any answer. What is not measured by then is told of without a size.
const PATIENCE: Duration = Duration::from_secs(4);

/// How many folders are named.
const MOST: usize = 64;

/// What Keel keeps there, and what it means to be without.
const MEANINGS: [(&str, &str); 8] = [
    ("identity", "machine id, key and certificate: the machine comes back as another one"),
    ("containerd", "images and containers, which are fetched and made again"),
    ("kubelet", "state of the kubelet and volumes of the pods that ran here"),
    ("kubernetes", "the cluster's certificates and configuration: the node leaves its cluster"),
    ("etcd", "this node's copy of the cluster's data"),
    (
        "trust",
        "the cluster's CA: unless the machine config carries one, the node comes back in maintenance, open to all",
    ),
    ("audit", "who called this node, and what came of it"),
    ("boots", "traces and logs of earlier boots"),
];

/// The partition, and what is on it where it is mounted. Blocks.
pub(crate) fn losses(condemned: &Condemned, mounted: &Path) -> Vec<Loss> {
    let until = Instant::now() + PATIENCE;
    let mut losses = vec![Loss {
        what: format!("{} ({})", condemned.label, condemned.node.display()),
        meaning: "the partition's filesystem; the next boot makes a new one".to_owned(),
        size: Some(condemned.size),
    }];
    let mut entries: Vec<_> = fs::read_dir(mounted).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.iter().filter(|entry| entry.file_name() != "lost+found").take(MOST) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let known = MEANINGS.iter().find(|(folder, _)| *folder == name);
        losses.push(Loss {
            what: entry.path().display().to_string(),
            meaning: known.map_or("files", |(_, meaning)| meaning).to_owned(),
            size: size(&entry.path(), until),
        });
    }
    losses
}

/// What a file or folder takes on its disk, without what is mounted below it; none where time ran out.
fn size(path: &Path, until: Instant) -> Option<u64> {
    let about = fs::symlink_metadata(path).ok()?;
    let device = about.dev();
    let mut open = if about.is_dir() { vec![path.to_owned()] } else { Vec::new() };
    let mut bytes = about.blocks() * 512;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if Instant::now() > until {
                return None;
            }
            // What vanishes while one looks is of no size.
            let Ok(about) = entry.metadata() else { continue };
            if about.dev() != device {
                continue;
            }
            bytes += about.blocks() * 512;
            if about.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for (file, length) in
            [("identity/node.key", 100), ("containerd/a/b", 100_000), ("notes", 5)]
        {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, vec![7; length]).unwrap();
        }
        fs::create_dir(path.join("lost+found")).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        assert!(size(&path.join("containerd"), until).unwrap() >= 100_000);
        assert!(size(&path.join("notes"), until).unwrap() >= 5);
        assert_eq!(size(&path.join("containerd"), Instant::now() - Duration::from_secs(1)), None);
        assert_eq!(size(&path.join("missing"), until), None);
    }
}
