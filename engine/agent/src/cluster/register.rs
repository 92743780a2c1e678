//! The node's own registration: whoever wrote a bootstrap kubeconfig for the kubelet (a unit made from the machine config) has said
//! which cluster this node joins. The agent verifies that cluster and takes its CA for its own: from then on only that CA's clients
//! get in. Once the kubelet has credentials of its own, the ones for bootstrapping are removed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask};
use keel_control::ControlError;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt;

use super::kubeconfig::{Join, bounded};
use super::{Ca, JoinError, JoinErrorKind, Pin, verify};
use crate::init::Init;
use crate::log::{chain, say};

/// Pauses before a cluster that could not be joined is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often the folder is looked at though nothing was heard of it: it may not be there yet, or a data partition that comes late may
/// have been mounted over the one that is watched.
const LOOK: Duration = Duration::from_secs(10);

/// The files that registration is about.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The kubelet's folder.
    pub(crate) kubelet: PathBuf,
    /// Where the trusted CA of the cluster goes.
    pub(crate) trusted: PathBuf,
}

impl Places {
    pub(crate) fn bootstrap(&self) -> PathBuf {
        self.kubelet.join("bootstrap.kubeconfig")
    }

    /// The CA as the kubelet reads it.
    pub(crate) fn ca(&self) -> PathBuf {
        self.kubelet.join("ca.crt")
    }

    pub(crate) fn pin(&self) -> PathBuf {
        self.kubelet.join("ca-hash")
    }

    /// The kubelet's own certificate, with its key.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.kubelet.join("pki/kubelet-client-current.pem")
    }

    /// The kubeconfig that names it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubelet.join("kubeconfig")
    }

    /// What a bootstrap that is under way notes here: until it is over the node does not register by itself.
    pub(crate) fn under_way(&self) -> PathBuf {
        let folder = self.trusted.parent().unwrap_or(Path::new("/"));
        folder.join("bootstrap.json")
    }

    /// Whether the kubelet has credentials of its own: its certificate is there, and then the kubeconfig that names it.
    pub(crate) fn settled(&self) -> bool {
        self.certificate().exists() && self.kubeconfig().exists()
    }
}

/// What is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing, until a file changes.
    Nothing,
    /// The cluster has to be verified, and its CA kept.
    Verify,
    /// The credentials for bootstrapping have to be removed.
    Remove,
}

fn left(places: &Places) -> Left {
    if places.under_way().exists() {
        return Left::Nothing;
    }
    match (places.bootstrap().exists(), places.trusted.exists()) {
        (true, false) => Left::Verify,
        (true, true) if places.settled() => Left::Remove,
        _ => Left::Nothing,
    }
}

/// Registers the node whenever there is something to register it with, until the agent ends. `changed` is told whenever a file may
/// be another one.
///
/// # Errors
/// If nothing can be watched at all.
pub(crate) async fn register(
    places: Places,
    changed: Arc<Notify>,
    init: Option<Arc<Init>>,
) -> io::Result<()> {
    let mut events = Inotify::init()?.into_event_stream([0; 4096])?;
    let mut watched = None;
    let mut tries = Tries::default();
    // A node that was settled before may have lost its power before its configs had forgotten the token.
    let (mut remembered, mut complained) = (true, false);
    loop {
        watch(&events, &places.kubelet, &mut watched);
        changed.notify_one();
        if left(&places) != Left::Nothing {
            remembered = true;
        } else if remembered && places.settled() && !places.under_way().exists() {
            remembered = match forget(init.as_deref()).await {
                Ok(()) => false,
                Err(_) if complained => true,
                Err(error) => {
                    complained = true;
                    let why = chain(&error);
                    say(format_args!("the configs of this node still hold the token: {why}"));
                    true
                }
            };
        }
        let said = || [places.bootstrap(), places.pin()].map(|path| bounded(&path).ok());
        let before = said();
        let pause = match left(&places) {
            Left::Nothing => None,
            Left::Remove => match remove(&places) {
                Ok(()) => continue,
                Err(error) => {
                    say(format_args!("cannot remove the token from disk: {error}"));
                    Some(LONGEST_PAUSE)
                }
            },
            Left::Verify => match join(&places).await {
                Ok(api_server) => {
                    say(format_args!(
                        "joined the cluster at {api_server}: its clients alone get in"
                    ));
                    tries = Tries::default();
                    continue;
                }
                Err(error) => Some(tries.failed(&error)),
            },
        };
        let until = Instant::now() + pause.unwrap_or(LOOK);
        // What a try has written itself is no reason for the next one.
        let ca = bounded(&places.ca()).ok();
        let same = || said() == before && bounded(&places.ca()).ok() == ca;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(_)) if pause.is_some() && same() => {}
                    Some(Ok(_)) => break,
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                () = sleep_until(until) => break,
            }
        }
    }
}

/// Has the machine's configs forget the token. If they cannot, the next look tries again.
async fn forget(init: Option<&Init>) -> Result<(), ControlError> {
    let Some(init) = init else { return Ok(()) };
    let configs = init.ask(async |init| init.forget().await).await?;
    if configs > 0 {
        say("the kubelet has a certificate of its own: the configs of this node forget the token");
    }
    Ok(())
}

/// Watches the folder that is there now, if that is another than before. Without one, there will be a next look.
fn watch(
    events: &EventStream<[u8; 4096]>,
    folder: &Path,
    watched: &mut Option<(Folder, WatchDescriptor)>,
) {
    // Made where it can be, so that a file that comes later is seen.
    let _ = fs::create_dir(folder);
    let there = fs::metadata(folder).ok().map(|it| (it.dev(), it.ino()));
    if there == watched.as_ref().map(|(folder, _)| *folder) {
        return;
    }
    if let Some((_, old)) = watched.take() {
        // The kernel may have ended it.
        let _ = events.watches().remove(old);
    }
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
    if let Some(there) = there
        && let Ok(descriptor) = events.watches().add(folder, mask)
    {
        *watched = Some((there, descriptor));
    }
}

/// A folder, whatever it is called: its device and its inode.
type Folder = (u64, u64);

/// What was tried, so that a cluster that stays away is told of once and not each time.
#[derive(Debug, Default)]
struct Tries {
    pause: Duration,
    told: String,
}

impl Tries {
    /// Notes a failure, and says how long to wait.
    fn failed(&mut self, error: &JoinError) -> Duration {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let why = chain(error);
        if why != self.told {
            say(format_args!("{why}; trying again, at most {} s apart", LONGEST_PAUSE.as_secs()));
            self.told = why;
        }
        self.pause
    }
}

/// Verifies the cluster and keeps its CA. Returns its address.
async fn join(places: &Places) -> Result<String, JoinError> {
    let (join, ca) = wanted(places).map_err(|kind| {
        let api_server = places.bootstrap().display().to_string();
        JoinError { api_server, kind }
    })?;
    let verified = verify(&join.api_server, &ca, join.token.as_ref()).await?;
    keep(places, &join, &ca, &verified.ca)?;
    Ok(join.api_server)
}

/// Keeps the CA of a cluster that was verified, unless a bootstrap began meanwhile: then that one says which cluster it is. Nothing else
/// of the agent runs in between.
fn keep(places: &Places, join: &Join, ca: &Ca, verified: &str) -> Result<(), JoinError> {
    if places.under_way().exists() {
        let api_server = join.api_server.clone();
        return Err(JoinError { api_server, kind: JoinErrorKind::Overtaken });
    }
    let keep = |path: &Path| write(path, verified);
    // The kubelet's first: once the other is there, all of this is done.
    if matches!(ca, Ca::Pinned(_)) || !places.ca().exists() {
        keep(&places.ca()).map_err(|error| not_kept(join, &places.ca(), &error))?;
    }
    keep(&places.trusted).map_err(|error| not_kept(join, &places.trusted, &error))
}

fn not_kept(join: &Join, path: &Path, error: &io::Error) -> JoinError {
    let kind = JoinErrorKind::BadCa(format!("it cannot be written to {}: {error}", path.display()));
    JoinError { api_server: join.api_server.clone(), kind }
}

/// What the files say.
fn wanted(places: &Places) -> Result<(Join, Ca), JoinErrorKind> {
    let text = bounded(&places.bootstrap())
        .map_err(|error| JoinErrorKind::Kubeconfig(format!("it cannot be read: {error}")))?;
    let join = Join::read(&text)?;
    let pin = bounded(&places.pin()).ok();
    let ca = match (pin, &join.ca) {
        (Some(pin), _) => Ca::Pinned(Pin::parse(&pin).ok_or_else(|| {
            JoinErrorKind::BadCa(format!("{} holds no pin", places.pin().display()))
        })?),
        (None, Some(ca)) => Ca::Given(ca.clone()),
        (None, None) => {
            return Err(JoinErrorKind::Kubeconfig("it has no certificate-authority".to_owned()));
        }
    };
    Ok((join, ca))
}

fn remove(places: &Places) -> io::Result<()> {
    fs::remove_file(places.bootstrap())?;
    File::open(&places.kubelet)?.sync_all()?;
    say("the kubelet has a certificate of its own: the token is removed from disk");
    Ok(())
}

/// Writes a file whole, or not at all, so that it is there after a power cut too. Everybody may read it.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut name = OsStr::new(".").to_owned();
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = folder.join(name);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            kubelet: dir.path().join("kubelet"),
            trusted: dir.path().join("trust/cluster-ca.crt"),
        };
        let make = |path: &Path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        assert_eq!(left(&places), Left::Nothing);
        make(&places.bootstrap());
        assert_eq!(left(&places), Left::Verify);
        make(&places.trusted);
        assert_eq!(left(&places), Left::Nothing, "the kubelet still needs it");
        make(&places.kubelet.join("pki/kubelet-client-current.pem"));
        assert_eq!(left(&places), Left::Nothing, "the kubelet has not said so yet");
        make(&places.kubelet.join("kubeconfig"));
        assert_eq!(left(&places), Left::Remove);
        remove(&places).unwrap();
        assert_eq!(left(&places), Left::Nothing);
    }

    #[test]
    fn a_pin_goes_before_a_ca_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let places =
            Places { kubelet: dir.path().to_owned(), trusted: dir.path().join("trusted.crt") };
        let kubeconfig = format!(
            "current-context: a\nclusters:\n- name: b\n  cluster:\n    server: https://a\n    \
             certificate-authority: {}\ncontexts:\n- name: a\n  context: {{cluster: b, user: c}}\n\
             users:\n- name: c\n  user: {{token: abcdef.0123456789abcdef}}\n",
            places.ca().display()
        );
        fs::write(places.bootstrap(), kubeconfig).unwrap();
        let why = wanted(&places).unwrap_err().to_string();
        assert!(why.contains("no certificate-authority"), "{why}");
        fs::write(places.ca(), "PEM").unwrap();
        assert!(matches!(wanted(&places).unwrap().1, Ca::Given(ca) if ca == "PEM"));
        fs::write(places.pin(), format!("sha256:{}\n", "ab".repeat(32))).unwrap();
        assert!(matches!(wanted(&places).unwrap().1, Ca::Pinned(_)));
        fs::write(places.pin(), "ab\n").unwrap();
        assert!(wanted(&places).is_err());
    }

    #[test]
    fn a_bootstrap_that_began_meanwhile_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let places =
            Places { kubelet: dir.path().to_owned(), trusted: dir.path().join("trusted.crt") };
        let join = Join { api_server: "https://a".to_owned(), ca: None, token: None };
        let keep = || keep(&places, &join, &Ca::Given("PEM".to_owned()), "PEM");
        fs::write(places.under_way(), "{}").unwrap();
        assert!(matches!(keep().unwrap_err().kind, JoinErrorKind::Overtaken));
        assert!(!places.ca().exists() && !places.trusted.exists());
        fs::remove_file(places.under_way()).unwrap();
        keep().unwrap();
        assert!(places.ca().exists() && places.trusted.exists());
    }

    #[test]
    fn a_cluster_that_stays_away_is_asked_less_and_less() {
        let error = JoinError { api_server: "https://a".into(), kind: JoinErrorKind::Changed };
        let mut tries = Tries::default();
        let pauses: Vec<u64> = (0..8).map(|_| tries.failed(&error).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
