//! Who may come in, decided at the handshake and again for each call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::State;
use super::authority::Authority;
use super::client::{Claim, Client};
use crate::log::{chain, utc};

/// Who may come in.
#[derive(Debug)]
pub(crate) enum Door {
    /// Everybody: no CA is known.
    Open,
    /// Clients of a trusted CA.
    Guarded(Guard),
    /// Nobody, and why.
    Shut(String),
}

/// What clients are checked against.
#[derive(Debug)]
pub(crate) struct Guard {
    authorities: Vec<Authority>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    /// Of all of them together: what clients are told of whom is trusted.
    verifier: Arc<dyn ClientCertVerifier>,
    /// Of each by itself, in the same order, with the lists that it heeds. CAs may share a name, as the old and the new one of a cluster
    /// do, and webpki takes a list for a CA's by that name alone.
    each: Vec<Arc<dyn ClientCertVerifier>>,
}

impl Door {
    /// A door for clients of these CAs, of which there is at least one.
    pub(super) fn guarded(
        authorities: Vec<Authority>,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Self {
        let verifiers = || {
            let all = verifier(authorities.iter(), crls.clone())?;
            let each =
                authorities.iter().map(|one| verifier([one].into_iter(), heeded(one, &crls)));
            Ok::<_, VerifierBuilderError>((all, each.collect::<Result<Vec<_>, _>>()?))
        };
        match verifiers() {
            Ok((verifier, each)) => Self::Guarded(Guard { authorities, crls, verifier, each }),
            Err(error) => Self::Shut(format!("cannot check clients: {}", chain(&error))),
        }
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Open, Self::Open) => true,
            (Self::Shut(one), Self::Shut(other)) => one == other,
            (Self::Guarded(one), Self::Guarded(other)) => {
                one.authorities == other.authorities && one.crls == other.crls
            }
            _ => false,
        }
    }
}

/// Whether a verifier takes these CRLs.
pub(super) fn check_crls(
    crls: &[CertificateRevocationListDer<'static>],
) -> Result<(), VerifierBuilderError> {
    match verifier([].iter(), crls.to_vec()) {
        // It was read before that.
        Ok(_) | Err(VerifierBuilderError::NoRootAnchors) => Ok(()),
        Err(error) => Err(error),
    }
}

fn verifier<'a>(
    authorities: impl Iterator<Item = &'a Authority>,
    mut crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    // Of several lists of one CA webpki heeds the first: the newest.
    crls.sort_by_key(|crl| std::cmp::Reverse(published(crl)));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.map(|authority| authority.der.clone()));
    // The order in which rustls looks at both is its own; a broken CRL must be seen without a CA too.
    for crl in &crls {
        webpki_takes(crl)?;
    }
    let provider = Arc::new(ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(crls)
        // A CA that has published no list has revoked nobody.
        .allow_unknown_revocation_status()
        .build()
}

fn webpki_takes(crl: &CertificateRevocationListDer<'_>) -> Result<(), VerifierBuilderError> {
    // rustls looks for roots before it looks at lists, so without a CA it would not say. Its list of what is wrong with one is webpki's,
    // in other words; ours only needs to say that it is not taken.
    match webpki::OwnedCertRevocationList::from_der(crl) {
        Ok(_) => Ok(()),
        Err(error) => Err(VerifierBuilderError::InvalidCrl(
            rustls::CertRevocationListError::Other(rustls::OtherError(Arc::new(error))),
        )),
    }
}

/// The lists that count for clients of a CA: its own, and those of CAs with other names, which may be between it and a client.
fn heeded(
    authority: &Authority,
    crls: &[CertificateRevocationListDer<'static>],
) -> Vec<CertificateRevocationListDer<'static>> {
    use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

    let Ok((_, certificate)) = X509Certificate::from_der(&authority.der) else {
        return crls.to_vec();
    };
    let foreign = |crl: &CertificateRevocationListDer<'_>| {
        CertificateRevocationList::from_der(crl).is_ok_and(|(_, crl)| {
            crl.issuer().as_raw() == certificate.subject().as_raw()
                && crl.verify_signature(certificate.public_key()).is_err()
        })
    };
    crls.iter().filter(|crl| !foreign(crl)).cloned().collect()
}

/// When a list was published; long ago, if it does not say.
fn published(crl: &CertificateRevocationListDer<'_>) -> i64 {
    use x509_parser::prelude::{CertificateRevocationList, FromDer};

    CertificateRevocationList::from_der(crl).map_or(0, |(_, crl)| crl.last_update().timestamp())
}

/// Why a client was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The subject that its certificate claims; empty without one.
    pub(crate) subject: String,
    /// The reason, in one line.
    pub(crate) why: String,
}

impl Guard {
    pub(crate) fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// Verifies a client's certificates at a moment.
    fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Client, (Error, Refusal)> {
        let claim = Claim::read(own);
        let subject = claim.as_ref().map(|claim| claim.subject.clone()).unwrap_or_default();
        let refuse = |error: Error, why: String| (error, Refusal { subject: subject.clone(), why });
        let Some(claim) = &claim else {
            let why = "the client's certificate is no X.509 certificate".to_owned();
            return Err(refuse(CertificateError::BadEncoding.into(), why));
        };
        self.verify(own, others, now).map_err(|error| {
            let why = self.explain(&error, claim, now);
            refuse(error, why)
        })?;
        // webpki lets a certificate pass that says nothing of what it is for.
        if !claim.for_clients {
            let why = not_for_clients(claim);
            return Err(refuse(CertificateError::InvalidPurpose.into(), why));
        }
        let mut client = Client::new(claim.clone(), own, others);
        // The CA itself is not among what the client sends, and ends with everything that it has issued.
        let last = others.last().and_then(Claim::read);
        let issuer = last.as_ref().unwrap_or(claim).issuer.as_str();
        let authorities = self.authorities.iter().filter(|authority| authority.subject == issuer);
        if let Some(end) = authorities.map(|authority| authority.not_after).max() {
            client.not_after = client.not_after.min(end);
        }
        Ok(client)
    }

    fn verify(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        // webpki does not look at the dates of what it is told to trust.
        let both = self.authorities.iter().zip(&self.each);
        let valid = both.filter(|(authority, _)| authority.not_after >= time);
        let mut refused = Error::from(CertificateError::UnknownIssuer);
        for (_, verifier) in valid {
            match verifier.verify_client_cert(own, others, now) {
                Ok(_) => return Ok(()),
                Err(error) if telling(&error) >= telling(&refused) => refused = error,
                Err(_) => {}
            }
        }
        Err(refused)
    }

    /// What an error of webpki means here.
    fn explain(&self, error: &Error, claim: &Claim, now: UnixTime) -> String {
        let Error::InvalidCertificate(error) = error else { return error.to_string() };
        let Claim { subject, issuer, .. } = claim;
        let names_issuer = |authority: &&Authority| authority.subject == *issuer;
        match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
                let bound = match error {
                    CertificateError::ExpiredContext { not_after, .. } => Some(*not_after),
                    CertificateError::NotValidYetContext { not_before, .. } => Some(*not_before),
                    _ => None,
                };
                let bound =
                    bound.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs()));
                let late = matches!(
                    error,
                    CertificateError::Expired | CertificateError::ExpiredContext { .. }
                );
                match late {
                    true => expired(subject, bound.unwrap_or(claim.not_after), time),
                    false => not_yet(subject, bound.unwrap_or(claim.not_before), time),
                }
            }
            CertificateError::Revoked => format!("the certificate of {subject} is revoked"),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                not_for_clients(claim)
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                match self.authorities.iter().find(names_issuer) {
                    Some(authority)
                        if authority.not_after
                            < SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs()) =>
                    {
                        format!(
                            "the CA {issuer} that issued {subject} expired at {}",
                            utc(authority.not_after)
                        )
                    }
                    Some(_) => format!(
                        "{subject} was issued by another CA that calls itself {issuer}: the signature is not the trusted one's"
                    ),
                    None if subject == issuer => {
                        format!("{subject} is self-signed; trusted is {}", self.trusted())
                    }
                    None => format!(
                        "{subject} was issued by {issuer}, which is not trusted; trusted is {}",
                        self.trusted()
                    ),
                }
            }
            other => format!("the certificate of {subject} cannot be verified: {other}"),
        }
    }

    fn trusted(&self) -> String {
        let names: Vec<_> = self.authorities.iter().map(|ca| ca.subject.as_str()).collect();
        names.join(" and ")
    }
}

/// How much an error says: that one CA knows nothing of a client is no news when another has revoked it.
fn telling(error: &Error) -> u8 {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => 0,
        Error::InvalidCertificate(CertificateError::BadSignature) => 1,
        _ => 2,
    }
}

fn not_for_clients(claim: &Claim) -> String {
    format!(
        "the certificate of {} is not for clients: its extended key usage does not hold clientAuth",
        claim.subject
    )
}

/// That a certificate has expired, with both clocks and what lies between them.
pub(crate) fn expired(subject: &str, not_after: SystemTime, now: SystemTime) -> String {
    let skew = between(now.duration_since(not_after).unwrap_or_default());
    format!(
        "the certificate of {subject} has expired: it is valid until {}, the node's clock says {}, which is {skew} later",
        utc(not_after),
        utc(now)
    )
}

fn not_yet(subject: &str, not_before: SystemTime, now: SystemTime) -> String {
    let skew = between(not_before.duration_since(now).unwrap_or_default());
    format!(
        "the certificate of {subject} is not valid yet: it is valid from {}, the node's clock says {}, which is {skew} earlier",
        utc(not_before),
        utc(now)
    )
}

/// A length of time for people: its two largest units.
fn between(length: Duration) -> String {
    let seconds = length.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown = parts[first..].iter().take(2).filter(|(count, _)| *count > 0);
    let shown: Vec<_> = shown.map(|(count, unit)| format!("{count} {unit}")).collect();
    match shown.is_empty() {
        true => "0 s".to_owned(),
        false => shown.join(" "),
    }
}

/// Checks the client of one handshake, and keeps what came of it.
#[derive(Debug)]
pub(crate) struct Admission {
    state: Arc<State>,
    hints: Vec<DistinguishedName>,
    outcome: Mutex<Option<Result<Arc<Client>, Refusal>>>,
}

impl Admission {
    pub(crate) fn new(state: Arc<State>) -> Self {
        let hints = match &state.door {
            Door::Guarded(guard) => guard.verifier.root_hint_subjects().to_vec(),
            Door::Open | Door::Shut(_) => Vec::new(),
        };
        Self { state, hints, outcome: Mutex::new(None) }
    }

    /// What came of it; nothing if the handshake did not come that far.
    pub(crate) fn outcome(&self) -> Option<Result<Arc<Client>, Refusal>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, outcome: Result<Arc<Client>, Refusal>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}

impl State {
    /// Whether a client that was let in may stay, at this moment.
    pub(crate) fn readmit(&self, client: Option<&Client>) -> Result<(), String> {
        match (&self.door, client) {
            (Door::Shut(why), _) => Err(format!("the node lets nobody in: {why}")),
            (Door::Open, None) => Ok(()),
            (Door::Guarded(_), None) => Err("the node is no longer in maintenance: connect again, with a certificate of its cluster".to_owned()),
            (Door::Open, Some(_)) => Err("the node is in maintenance".to_owned()),
            (Door::Guarded(guard), Some(client)) => {
                let Some((own, others)) = client.chain.split_first() else {
                    return Err("the client has no certificate".to_owned());
                };
                guard.judge(own, others, UnixTime::now()).map(|_| ()).map_err(|(_, no)| no.why)
            }
        }
    }
}

impl ClientCertVerifier for Admission {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = match &self.state.door {
            Door::Guarded(guard) => guard.judge(own, others, now),
            Door::Open | Door::Shut(_) => {
                let subject = Claim::read(own).map(|claim| claim.subject).unwrap_or_default();
                let why = match &self.state.door {
                    Door::Shut(why) => format!("the node lets nobody in: {why}"),
                    _ => "nobody was asked for a certificate".to_owned(),
                };
                let error = CertificateError::ApplicationVerificationFailure.into();
                Err((error, Refusal { subject, why }))
            }
        };
        match judged {
            Ok(client) => {
                self.keep(Ok(Arc::new(client)));
                Ok(ClientCertVerified::assertion())
            }
            Err((error, refusal)) => {
                self.keep(Err(refusal));
                Err(error)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, expect: &str) {
        assert_eq!(between(Duration::from_secs(seconds)), expect);
    }

    #[test]
    fn lengths_of_time() {
        check(0, "0 s");
        check(59, "59 s");
        check(61, "1 min 1 s");
        check(3_600, "1 h");
        check(90_061, "1 d 1 h");
        check(365 * 86_400 + 59, "365 d");
    }

    #[test]
    fn both_clocks_are_named() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(
            expired("CN=ada", at(0), at(90_000)),
            "the certificate of CN=ada has expired: it is valid until 1970-01-01T00:00:00Z, the node's clock says 1970-01-02T01:00:00Z, which is 1 d 1 h later"
        );
        assert_eq!(
            not_yet("CN=ada", at(60), at(0)),
            "the certificate of CN=ada is not valid yet: it is valid from 1970-01-01T00:01:00Z, the node's clock says 1970-01-01T00:00:00Z, which is 1 min earlier"
        );
    }
}
