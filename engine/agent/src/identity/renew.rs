//! Another certificate for the same key, when the machine's names change or before the old one expires.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keel_control::{Batch, Control, ControlError, Happened};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::about::About;
use crate::identity::files::Files;
use crate::identity::{Details, Identity, IdentityError, IdentityErrorKind, Names, certificate};
use crate::init::{Init, Line};
use crate::log::{chain, say};
use crate::tls::Shown;

/// A certificate is renewed when it has less than this left.
const LEFT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The most addresses that a certificate names.
const ADDRESSES: usize = 32;

/// How long addresses and names have to stay as they are before they are looked at.
const SETTLE: Duration = Duration::from_secs(1);

/// Pauses before init is asked again after it did not answer.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

impl Identity {
    /// Makes another certificate for the same key where the one in the folder lacks one of these names, or is about to expire.
    pub(crate) fn renew(
        folder: &std::path::Path,
        names: &Names,
    ) -> Result<Option<Self>, IdentityError> {
        let files = Files::new(folder);
        let identity = Self::load(folder)?;
        if !lacks(&identity.details, names, SystemTime::now()) {
            return Ok(None);
        }
        let make = || {
            let missing = IdentityErrorKind::Incomplete { missing: "key", there: "certificate" };
            let key = files.key()?.ok_or(missing)?;
            let made = certificate::self_signed(&key, files.machine_id()?, names);
            files.replace_certificate(&made.map_err(IdentityErrorKind::Make)?)
        };
        make().map_err(|kind| files.error(kind))?;
        Self::load(folder).map(Some)
    }
}

/// Whether a certificate is to be renewed. Names that the machine no longer has are no reason: it may have them again.
fn lacks(details: &Details, names: &Names, now: SystemTime) -> bool {
    let has = |name: &str| details.names.iter().any(|one| one == name);
    let hostname = names.hostname.iter().any(|name| !has(name));
    let address = names.addresses.iter().any(|address| !has(&address.to_string()));
    hostname || address || details.not_after < now + LEFT
}

/// What the running agent needs to show another certificate.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) folder: PathBuf,
    pub(crate) init: Arc<Init>,
    pub(crate) shown: Arc<Shown>,
    pub(crate) about: Arc<About>,
    /// Told what the machine is called now, without the addresses of links that Keel has not set up.
    pub(crate) names: watch::Sender<Option<Names>>,
}

/// Follows the machine's names as init tells of them, and keeps the certificate current, until the agent ends.
pub(crate) async fn keep_current(current: Current) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        // Init answers for itself wherever a person asks; here it is only waited for.
        let _: Result<(), ControlError> = current.follow().await;
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Current {
    async fn follow(&self) -> Result<(), ControlError> {
        let Line { control, place: _place } = self.init.follow().await?;
        let mut watch = control.watch(1, true).await?;
        let mut due = Some(Instant::now());
        loop {
            // Dropped half-way, it would leave half a frame behind.
            let next = watch.next();
            tokio::pin!(next);
            let batch = loop {
                tokio::select! {
                    batch = &mut next => break batch?,
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                        due = None;
                        self.check().await?;
                    }
                }
            };
            let Some(batch) = batch else { return Ok(()) };
            if names_may_differ(&batch) {
                due = Some(Instant::now() + SETTLE);
            }
        }
    }

    async fn check(&self) -> Result<(), ControlError> {
        let status = self.init.ask(Control::status).await?;
        let units = self.init.ask(Control::units).await?;
        let links: BTreeSet<_> =
            units.units.iter().filter_map(|unit| unit.name.strip_prefix("link@")).collect();
        let own = names(&status, |link| links.contains(link));
        self.names.send_if_modified(|known| known.replace(own.clone()) != Some(own));
        let names = names(&status, |_| true);
        let folder = self.folder.clone();
        let renewed = tokio::task::spawn_blocking(move || Identity::renew(&folder, &names)).await;
        match renewed {
            Ok(Ok(Some(identity))) => {
                say(format_args!(
                    "the certificate is renewed with the same key; it is for {}",
                    identity.details.names.join(", ")
                ));
                self.about.renewed(&identity);
                self.shown.replace(identity.certified);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                say(format_args!("the certificate cannot be renewed: {}", chain(&error)));
            }
            Err(error) => say(format_args!("the certificate cannot be renewed: {error}")),
        }
        Ok(())
    }
}

/// Whether a link or the host name has changed.
fn names_may_differ(batch: &Batch) -> bool {
    batch.dropped > 0
        || batch.events.iter().any(|event| match &event.what {
            Happened::Transition { unit, .. } => is_of_names(unit),
            Happened::Fact { unit, .. } => unit.as_deref().is_some_and(is_of_names),
            Happened::Goal { .. } | Happened::Mutation { .. } => false,
        })
}

fn is_of_names(unit: &str) -> bool {
    unit == "hostname" || unit.starts_with("link@")
}

/// The names of a machine that others can know it by: its host name, and the addresses of these links.
fn names(status: &keel_control::Status, of: impl Fn(&str) -> bool) -> Names {
    let links = status.links.iter().filter(|link| of(&link.name));
    let addresses = links.flat_map(|link| &link.addresses);
    let addresses: BTreeSet<_> = addresses
        .map(|address| address.ip)
        .filter(|ip| match ip {
            std::net::IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            std::net::IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        })
        .collect();
    let hostname = Some(status.hostname.clone()).filter(|name| usable(name));
    Names { hostname, addresses: addresses.into_iter().take(ADDRESSES).collect() }
}

/// Whether a certificate can hold a host name.
pub(crate) fn usable(name: &str) -> bool {
    !name.is_empty() && name != "(none)" && name.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn names(hostname: Option<&str>, addresses: &[&str]) -> Names {
        Names {
            hostname: hostname.map(str::to_owned),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn the_key_stays_when_names_change() {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("machine-id"), "0f3a5c7e91b24d4e8a6b0123456789ab")
            .unwrap();
        let first =
            Identity::locate_or_make(folder.path(), &names(Some("n1"), &["192.0.2.1"])).unwrap();
        let mut shown = first.details.clone();
        let mut check = |wanted: Names, renewed: bool| {
            let got = Identity::renew(folder.path(), &wanted).unwrap();
            assert_eq!(got.is_some(), renewed, "{wanted:?}");
            let now = Identity::load(folder.path()).unwrap();
            assert_eq!(now.fingerprint, first.fingerprint, "{wanted:?}");
            assert_eq!(now.details.fingerprint != shown.fingerprint, renewed, "{wanted:?}");
            shown = now.details;
        };
        check(names(Some("n1"), &["192.0.2.1"]), false);
        check(names(None, &[]), false);
        check(names(Some("n2"), &["192.0.2.1"]), true);
        check(names(Some("n2"), &["192.0.2.1", "2001:db8::1"]), true);
        check(names(Some("n2"), &["2001:db8::1"]), false);
        assert_eq!(shown.names.last().map(String::as_str), Some("2001:db8::1"));
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 4, "no draft is left: {left:?}");
    }

    #[test]
    fn before_it_expires() {
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        let details = Details {
            fingerprint: String::new(),
            issuer: String::new(),
            not_before: at(0),
            not_after: at(100),
            names: Vec::new(),
        };
        assert!(!lacks(&details, &Names::default(), at(69)));
        assert!(lacks(&details, &Names::default(), at(71)));
    }
}
