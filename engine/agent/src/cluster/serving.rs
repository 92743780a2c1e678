//! The certificate that the cluster signs for this node's API: asked for with the kubelet's credentials once it has them, renewed before
//! it ends and when the node gets another address.
//!
//! In plain Kubernetes a person or a controller of one's own approves such a request, and until somebody does the node shows its
//! self-signed certificate. So that a cluster is never flooded, a request is named after what it asks for: one that is there already
//! is watched, whoever restarts meanwhile, and one that was denied is looked at again only after a long while.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keel_proto::v1::{CertificateRequest, RequestState};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::JoinErrorKind;
use super::http::{Answer, Http, Server};
use super::kubeconfig::{Join, bounded};
use super::request::{REQUESTS, Said, Wanted, node, object, read};
use super::{Places, check};
use crate::about::About;
use crate::identity::{Kept, Names, Signed};
use crate::log::{chain, say, utc};
use crate::tls::Shown;

/// Pauses before a cluster that cannot be asked is asked again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// The pause after a no. The cluster forgets a request that was denied after an hour.
const AFTER_NO: Duration = Duration::from_secs(60 * 60);
/// The pause before a request is made once more that somebody has deleted.
const AFTER_GONE: Duration = Duration::from_secs(60);
/// The pause after a certificate came, however short its life is.
const AFTER_YES: Duration = Duration::from_secs(5);
/// How long one watch lasts. A cluster that vanished meanwhile is found out that much later.
const WATCH: Duration = Duration::from_secs(300);
/// More than that at once is not waited for: a clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60 * 60);

/// Why there is no certificate yet.
#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error("the cluster cannot be asked")]
    Cluster(#[from] JoinErrorKind),
    #[error("the kubelet's own credentials cannot be used: {0}")]
    Credentials(String),
    #[error("no request can be made: {0}")]
    Make(String),
    #[error("somebody in the cluster has denied the request {name} ({why})")]
    Denied { name: String, why: String },
    #[error("the cluster could not sign the request {name}: {why}")]
    Failed { name: String, why: String },
    #[error("the request {name} is {by}'s, and not this node's")]
    Foreign { name: String, by: String },
    #[error("what the cluster signed for the request {name} cannot be used: {why}")]
    Unusable { name: String, why: String },
    #[error("the request {0} was deleted")]
    Gone(String),
    #[error("the certificate cannot be kept")]
    Keep(#[source] std::io::Error),
}

impl ServingError {
    /// How long to leave the cluster alone, after `before`.
    fn pause(&self, before: Duration) -> Duration {
        match self {
            Self::Denied { .. }
            | Self::Failed { .. }
            | Self::Foreign { .. }
            | Self::Unusable { .. } => AFTER_NO,
            Self::Gone(_) => AFTER_GONE,
            Self::Cluster(_) | Self::Credentials(_) | Self::Make(_) | Self::Keep(_) => {
                (before * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
            }
        }
    }

    /// As `osctl status` tells it.
    fn told(&self) -> CertificateRequest {
        let (name, state) = match self {
            Self::Denied { name, .. } => (name.as_str(), RequestState::Denied),
            Self::Failed { name, .. }
            | Self::Foreign { name, .. }
            | Self::Unusable { name, .. } => (name.as_str(), RequestState::Failed),
            Self::Gone(name) => (name.as_str(), RequestState::Failed),
            _ => ("", RequestState::Failed),
        };
        CertificateRequest { name: name.to_owned(), state: state.into(), why: chain(self) }
    }
}

/// What asking for a certificate takes, and whom it is for.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Whoever joins the cluster.
    pub(crate) places: Places,
    pub(crate) kept: Kept,
    pub(crate) shown: Arc<Shown>,
    pub(crate) about: Arc<About>,
    /// What the machine is called, as soon as that is known.
    pub(crate) names: watch::Receiver<Option<Names>>,
    /// Told whenever a file of the kubelet's may have changed.
    pub(crate) changed: Arc<Notify>,
}

/// Shows what the cluster has signed, and asks for it where it is missing, until the agent ends.
pub(crate) async fn keep_signed(mut serving: Serving) {
    let mut told = String::new();
    let mut pause = Duration::ZERO;
    loop {
        let left = serving.look();
        match left {
            Left::Nothing => {
                serving.about.requested(None);
                serving.changes(LONGEST_SLEEP).await;
            }
            Left::Wait(left) => serving.changes(left.min(LONGEST_SLEEP)).await,
            Left::Ask(addresses) => match serving.ask(addresses).await {
                Ok(()) => {
                    serving.about.requested(None);
                    (pause, told) = (Duration::ZERO, String::new());
                    serving.show();
                    sleep(AFTER_YES).await;
                }
                Err(error) => {
                    pause = error.pause(pause);
                    let why = chain(&error);
                    if why != told {
                        say(format_args!(
                            "no certificate from the cluster for this API: {why}; the node goes on with the one that it has, and \
                             looks again within {} s",
                            pause.as_secs().max(LONGEST_PAUSE.as_secs())
                        ));
                        told = why;
                    }
                    serving.about.requested(Some(error.told()));
                    serving.rest(pause).await;
                }
            },
        }
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// Nothing: the node has not joined a cluster.
    Nothing,
    /// What there is will do for so long.
    Wait(Duration),
    /// A certificate for these addresses has to be asked for.
    Ask(Vec<IpAddr>),
}

impl Serving {
    /// Shows what can be shown now, and says what is left to do.
    pub(crate) fn show(&self) -> Option<Signed> {
        let now = SystemTime::now();
        let authorities = bounded(&self.places.trusted).unwrap_or_default();
        let signed = self.kept.load(&authorities, now).ok();
        self.about.signed(signed.as_ref().map(|signed| signed.identity.details.clone()));
        let until = signed.as_ref().map(|signed| &signed.identity);
        self.shown.sign(until.map(|it| (it.certified.clone(), it.details.not_after)));
        signed
    }

    fn look(&mut self) -> Left {
        let signed = self.show();
        let joined = self.places.trusted.exists() && self.places.settled();
        if !joined || self.places.under_way().exists() {
            return Left::Nothing;
        }
        let Some(names) = self.names.borrow_and_update().clone() else {
            // The first names will be told of.
            return Left::Wait(LONGEST_SLEEP);
        };
        match signed.and_then(|signed| left(&signed, &names, SystemTime::now())) {
            Some(left) => Left::Wait(left),
            None => Left::Ask(names.addresses),
        }
    }

    /// Waits until a file or a name has changed, but no longer than that.
    async fn changes(&mut self, longest: Duration) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = changed(&mut self.names) => {}
            () = sleep(longest) => {}
        }
    }

    /// Waits until a name has changed, but no longer than that. Whoever touches files does not make us ask more often.
    async fn rest(&mut self, longest: Duration) {
        tokio::select! {
            () = changed(&mut self.names) => {}
            () = sleep(longest) => {}
        }
    }

    /// Asks for a certificate and waits for it, for as long as it takes; then shows it.
    async fn ask(&mut self, addresses: Vec<IpAddr>) -> Result<(), ServingError> {
        let (http, node) = self.cluster()?;
        let wanted = Wanted { node, addresses };
        let key = self.kept.key().map_err(ServingError::Make)?;
        let name = wanted.name(&key, &self.kept.mark());
        let mut names = self.names.clone();
        tokio::select! {
            // Another request is to be made then.
            () = changed(&mut names) => Ok(()),
            signed = self.signed(&http, &wanted, &name, &key) => {
                self.take(&name, &signed?, &wanted)
            }
        }
    }

    /// The cluster's API server, and what it calls this node.
    fn cluster(&self) -> Result<(Http, String), ServingError> {
        let wrong = |why: String| ServingError::Credentials(why);
        let cannot = |path: &PathBuf, error: std::io::Error| {
            ServingError::Credentials(format!("{} cannot be read: {error}", path.display()))
        };
        let (kubeconfig, pair) = (self.places.kubeconfig(), self.places.certificate());
        let join = Join::read(&bounded(&kubeconfig).map_err(|error| cannot(&kubeconfig, error))?)?;
        let ca = join.ca.ok_or_else(|| wrong("its kubeconfig names no CA".to_owned()))?;
        let text = bounded(&pair).map_err(|error| cannot(&pair, error))?;
        let first = CertificateDer::pem_slice_iter(text.as_bytes()).find_map(Result::ok);
        let common_name = first.and_then(|der| common_name(&der)).unwrap_or_default();
        let node = node(&common_name)
            .ok_or_else(|| wrong(format!("its certificate is `{common_name}`'s, and no node's")))?;
        let server = Server::parse(&join.api_server)?;
        let http = Http::as_client(server, &ca, Some(text.as_bytes()))?;
        Ok((http, node.to_owned()))
    }

    /// The certificate, in PEM, once somebody has approved it.
    async fn signed(
        &self,
        http: &Http,
        wanted: &Wanted,
        name: &str,
        key: &str,
    ) -> Result<String, ServingError> {
        let mut waits = false;
        let path = format!("{REQUESTS}/{name}");
        let mut known = http.get(&path, None).await?;
        if known.status == 404 {
            let signed =
                wanted.signed(key).map_err(|error| ServingError::Make(error.to_string()))?;
            known = http.post(REQUESTS, None, &object(name, &signed)).await?;
            if known.status == 409 {
                known = http.get(&path, None).await?;
            }
        }
        let user = wanted.user();
        let mut request = good(known)?;
        loop {
            if let Some(end) = ended(read(&request, &user), name) {
                return end;
            }
            if !std::mem::replace(&mut waits, true) {
                self.waits(name);
            }
            match watched(http, name, &request).await? {
                Some(changed) => request = changed,
                None => {
                    let known = http.get(&path, None).await?;
                    if known.status == 404 {
                        return Err(ServingError::Gone(name.to_owned()));
                    }
                    request = good(known)?;
                }
            }
        }
    }

    /// Says that a request waits.
    fn waits(&self, name: &str) {
        say(format_args!(
            "a certificate for this API waits for approval: kubectl certificate approve {name}; until then the node goes on with \
             the one that it has"
        ));
        let (name, state) = (name.to_owned(), RequestState::Pending.into());
        self.about.requested(Some(CertificateRequest { name, state, why: String::new() }));
    }

    /// Keeps a certificate that the cluster has signed.
    fn take(&self, name: &str, certificate: &str, wanted: &Wanted) -> Result<(), ServingError> {
        let authorities = bounded(&self.places.trusted).unwrap_or_default();
        let unusable = |why| ServingError::Unusable { name: name.to_owned(), why };
        let signed = self.kept.check(certificate, &authorities, SystemTime::now());
        let details = signed.map_err(unusable)?.details;
        let lacks = |address: &&IpAddr| !details.names.contains(&address.to_string());
        if let Some(address) = wanted.addresses.iter().find(lacks) {
            return Err(unusable(format!("it is not for {address}")));
        }
        self.kept.keep(certificate).map_err(ServingError::Keep)?;
        say(format_args!(
            "{} has signed the certificate of this API, with the same key; it is for {}, until {}",
            details.issuer,
            details.names.join(", "),
            utc(details.not_after)
        ));
        Ok(())
    }
}

async fn changed(names: &mut watch::Receiver<Option<Names>>) {
    // Nobody tells of them any more: then nothing changes.
    if names.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn common_name(der: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    Some(name)
}

/// How long a certificate will do; none if another one has to be asked for now.
fn left(signed: &Signed, names: &Names, now: SystemTime) -> Option<Duration> {
    let details = &signed.identity.details;
    let has = |name: String| details.names.contains(&name);
    if !names.addresses.iter().all(|address| has(address.to_string())) {
        return None;
    }
    let renewal = renewal(signed.since, details.not_after, &details.fingerprint);
    renewal.duration_since(now).ok().filter(|left| !left.is_zero())
}

/// When a certificate is renewed: after 70 to 90 % of its life. Where in between is a matter of chance, so that the nodes of a cluster
/// do not all come at once, but always the same for one certificate.
fn renewal(since: SystemTime, until: SystemTime, fingerprint: &str) -> SystemTime {
    let life = until.duration_since(since).unwrap_or_default();
    let chance = u32::from_str_radix(fingerprint.get(..4).unwrap_or_default(), 16).unwrap_or(0);
    let part = 0.7 + 0.2 * f64::from(chance) / f64::from(u16::MAX);
    since + life.mul_f64(part)
}

fn ended(said: Said, name: &str) -> Option<Result<String, ServingError>> {
    let name = name.to_owned();
    Some(match said {
        Said::Pending => return None,
        Said::Issued(certificate) => Ok(certificate),
        Said::Denied(why) => Err(ServingError::Denied { name, why }),
        Said::Failed(why) => Err(ServingError::Failed { name, why }),
        Said::Foreign(by) => Err(ServingError::Foreign { name, by }),
    })
}

fn good(answer: Answer) -> Result<Value, ServingError> {
    match answer.status {
        200 | 201 => Ok(answer.body),
        _ => Err(check::status(&answer).into()),
    }
}

/// The request as it is after its next change; none if that was not seen, or it was deleted.
async fn watched(http: &Http, name: &str, request: &Value) -> Result<Option<Value>, ServingError> {
    let version = request.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let path = format!(
        "{REQUESTS}?watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds={}&resourceVersion={}",
        WATCH.as_secs(),
        version.filter(|it| it.bytes().all(|byte| byte.is_ascii_digit())).unwrap_or("0")
    );
    let mut events = http.watch(&path).await?;
    let next = async {
        while let Some(mut event) = events.next().await? {
            match event["type"].as_str() {
                Some("MODIFIED") => return Ok(Some(event["object"].take())),
                Some("ADDED" | "BOOKMARK") => {}
                _ => return Ok(None),
            }
        }
        Ok(None)
    };
    timeout(WATCH + LONGEST_PAUSE / 10, next).await.unwrap_or(Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_in_the_last_third_of_its_life() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let check = |since, until, fingerprint: &str, expect| {
            let renewal = renewal(at(since), at(until), fingerprint);
            let off = renewal.duration_since(at(expect)).unwrap_or_else(|error| error.duration());
            assert!(off < Duration::from_secs(1), "{fingerprint}: {renewal:?}");
        };
        check(1000, 2000, "0000aa", 1700);
        check(1000, 2000, "ffffaa", 1900);
        check(1000, 2000, "7fffaa", 1800);
        check(1000, 1000, "7fffaa", 1000);
        check(2000, 1000, "7fffaa", 2000);
        check(1000, 2000, "", 1700);
    }

    #[test]
    fn who_says_no_is_left_alone_for_long() {
        let (name, why) = ("r".to_owned(), "no".to_owned());
        let denied = ServingError::Denied { name: name.clone(), why };
        assert_eq!(denied.pause(FIRST_PAUSE), AFTER_NO);
        assert_eq!(denied.told().state(), RequestState::Denied);
        assert_eq!(ServingError::Gone(name).pause(FIRST_PAUSE), AFTER_GONE);
        let away = ServingError::Credentials("x".to_owned());
        let mut pause = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..11 {
            pause = away.pause(pause);
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!((away.told().name.as_str(), away.told().state()), ("", RequestState::Failed));
    }
}
