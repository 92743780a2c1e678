//! The files of a cluster in the kubelet's folder: put aside, put back, and removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::note::{Note, gone};
use crate::cluster::{Places, write};

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

/// Whether the kubelet has anything of its own.
pub(super) fn has_own(places: &Places) -> bool {
    OWN.iter().any(|name| places.kubelet.join(name).exists())
}

/// The digest of the kubeconfig for joining, if there is one.
pub(super) fn given(places: &Places) -> Option<String> {
    let text = fs::read(places.bootstrap()).ok()?;
    Some(Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Puts what the kubelet has of its own where it does not find it. Its CA stays, and is kept besides.
pub(super) fn put_aside(places: &Places) -> io::Result<()> {
    for path in OWN.map(|name| places.kubelet.join(name)) {
        if path.exists() {
            remove(&before(&path))?;
            fs::rename(&path, before(&path))?;
        }
    }
    let ca = places.ca();
    if ca.exists() && !before(&ca).exists() {
        write(&before(&ca), &fs::read_to_string(&ca)?)?;
    }
    synced(places)
}

/// Gives it back.
pub(super) fn put_back(places: &Places) -> io::Result<()> {
    let own = OWN.map(|name| places.kubelet.join(name));
    for path in own.into_iter().chain([places.ca()]) {
        if before(&path).exists() {
            remove(&path)?;
            fs::rename(before(&path), &path)?;
        }
    }
    synced(places)
}

/// Leaves what was there before a bootstrap, and nothing that it brought. If there was another config for it, what the kubelet got is from
/// there, and so is a kubeconfig for joining that is another than before; the units of the config before write theirs again.
pub(super) fn as_before(places: &Places, note: &Note, another_config: bool) -> io::Result<()> {
    put_back(places)?;
    if !note.had_ca {
        gone(&places.ca())?;
    }
    if another_config && !note.had_own {
        wipe_own(places)?;
    }
    if another_config && given(places) != note.given {
        gone(&places.bootstrap())?;
    }
    synced(places)
}

/// Removes what was put aside.
pub(super) fn let_go(places: &Places) -> io::Result<()> {
    remove(&before(&places.ca()))?;
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
    fn nothing_of_another_cluster_is_left_where_nothing_was() {
        let check = |(had_own, had_ca, same), another_config, expect: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let kubelet = folder.path().to_owned();
            let places = Places { trusted: kubelet.join("trust/ca.crt"), kubelet };
            let put = |name: &str, text: &str| {
                fs::create_dir_all(folder.path().join("pki")).unwrap();
                fs::write(folder.path().join(name), text).unwrap();
            };
            let all = ["pki/a.pem", "kubeconfig", "ca.crt", "bootstrap.kubeconfig"];
            if had_own {
                put("pki/a.pem", "a");
                put("kubeconfig", "a");
            }
            if had_ca {
                put("ca.crt", "a");
            }
            if same {
                put("bootstrap.kubeconfig", "b");
            }
            let note = Note { had_own, had_ca, given: given(&places), ..Note::default() };
            put_aside(&places).unwrap();
            for name in all {
                put(name, "b");
            }
            // Twice, as after a crash.
            for _ in 0..2 {
                as_before(&places, &note, another_config).unwrap();
            }
            let left = all.iter().filter_map(|name| {
                let text = fs::read_to_string(folder.path().join(name)).ok()?;
                Some(format!("{name} of {text}"))
            });
            assert_eq!(left.collect::<Vec<_>>(), expect);
        };
        check((false, false, false), true, &[]);
        let all = ["pki/a.pem of b", "kubeconfig of b", "bootstrap.kubeconfig of b"];
        check((false, false, false), false, &all);
        check((false, false, true), true, &["bootstrap.kubeconfig of b"]);
        check((false, true, false), true, &["ca.crt of a"]);
        check((true, true, false), true, &["pki/a.pem of a", "kubeconfig of a", "ca.crt of a"]);
    }

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
