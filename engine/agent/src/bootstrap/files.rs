//! The files of a cluster in the kubelet's folder: put aside, put back, and removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::note::gone;
use crate::cluster::Places;

/// What the kubelet has of its own: its certificates, and the kubeconfig that names them.
const OWN: [&str; 2] = ["pki", "kubeconfig"];

/// What is written for it.
const GIVEN: [&str; 4] = ["bootstrap.kubeconfig", "ca-hash", "ca.crt", "config.yaml"];

fn before(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".before");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn synced(places: &Places) -> io::Result<()> {
    match fs::File::open(&places.kubelet) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts what the kubelet has of its own where it does not find it.
pub(super) fn put_aside(places: &Places) -> io::Result<()> {
    for path in OWN.map(|name| places.kubelet.join(name)) {
        if path.exists() {
            remove(&before(&path))?;
            fs::rename(&path, before(&path))?;
        }
    }
    synced(places)
}

/// Gives it back.
pub(super) fn put_back(places: &Places) -> io::Result<()> {
    for path in OWN.map(|name| places.kubelet.join(name)) {
        if before(&path).exists() {
            remove(&path)?;
            fs::rename(before(&path), &path)?;
        }
    }
    synced(places)
}

/// Removes what was put aside.
pub(super) fn let_go(places: &Places) -> io::Result<()> {
    OWN.iter().try_for_each(|name| remove(&before(&places.kubelet.join(name))))?;
    synced(places)
}

/// Removes what the kubelet got for itself in a cluster that it does not join after all, unless it was there before.
pub(super) fn wipe_own(places: &Places) -> io::Result<()> {
    OWN.iter().try_for_each(|name| remove(&places.kubelet.join(name)))?;
    synced(places)
}

/// Removes what was written for the kubelet.
pub(super) fn wipe_given(places: &Places) -> io::Result<()> {
    GIVEN.iter().try_for_each(|name| gone(&places.kubelet.join(name)))?;
    synced(places)
}

/// What goes when a node leaves its cluster, as it is told.
pub(super) fn of_cluster(places: &Places) -> Vec<String> {
    let own = OWN.iter().chain(&GIVEN).map(|name| places.kubelet.join(name));
    let all = own.chain([places.trusted.clone(), places.trusted.with_extension("crl")]);
    all.filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            kubelet: folder.path().to_owned(),
            trusted: folder.path().join("trust/ca.crt"),
        };
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        put("pki/a.pem", "old");
        put("kubeconfig", "old");
        put_aside(&places).unwrap();
        assert_eq!((read("pki/a.pem"), read("kubeconfig")), (None, None));
        // Once more, after a crash: what is aside stays aside.
        put_aside(&places).unwrap();
        put("pki/a.pem", "new");
        put("config.yaml", "given");
        put_back(&places).unwrap();
        assert_eq!(read("pki/a.pem").as_deref(), Some("old"));
        assert_eq!(read("kubeconfig").as_deref(), Some("old"));
        put_back(&places).unwrap();
        assert_eq!(read("pki/a.pem").as_deref(), Some("old"));
        assert_eq!(of_cluster(&places).len(), 3);
        put_aside(&places).unwrap();
        let_go(&places).unwrap();
        put_back(&places).unwrap();
        wipe_own(&places).unwrap();
        wipe_given(&places).unwrap();
        assert_eq!(of_cluster(&places), Vec::<String>::new());
    }
}
