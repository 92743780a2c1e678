//! A client, as its certificate tells of it.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::rfc4514;
use crate::authz::Role;

/// Organizations that make a caller something, and what.
pub(crate) const ORGANIZATIONS: &[(&str, Role)] = &[
    ("keel:admin", Role::Admin),
    ("kubeadm:cluster-admins", Role::Admin),
    ("system:masters", Role::Admin),
    ("keel:operator", Role::Operator),
    ("keel:viewer", Role::Viewer),
];

/// A client whose certificate was verified.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its own certificate, then those that it sent to lead to a CA.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// As RFC 4514 writes it.
    pub(crate) subject: String,
    /// What its Organizations make it, without doubles, the greatest last.
    pub(crate) roles: Vec<Role>,
    /// When the first certificate of its chain expires.
    pub(crate) not_after: SystemTime,
}

/// What a certificate that was not verified says of itself, for the log alone.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) for_clients: bool,
    pub(super) roles: Vec<Role>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Claim {
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let usage = certificate.extended_key_usage().ok()?;
        Some(Self {
            subject: rfc4514(certificate.subject()),
            issuer: rfc4514(certificate.issuer()),
            for_clients: usage.is_some_and(|usage| usage.value.client_auth),
            roles: roles(
                certificate.subject().iter_organization().filter_map(|name| name.as_str().ok()),
            ),
            not_before: moment(certificate.validity().not_before),
            not_after: moment(certificate.validity().not_after),
        })
    }
}

impl Client {
    pub(super) fn new(
        claim: Claim,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Self {
        let expiry = |der| Claim::read(der).map(|claim| claim.not_after);
        let not_after = others.iter().filter_map(expiry).fold(claim.not_after, SystemTime::min);
        let chain = [own].into_iter().chain(others);
        Self {
            chain: chain.map(|der| der.clone().into_owned()).collect(),
            subject: claim.subject,
            roles: claim.roles,
            not_after,
        }
    }

    /// The most that its Organizations make it; none if they make it nothing here.
    pub(crate) fn role(&self) -> Option<Role> {
        self.roles.last().copied()
    }
}

fn roles<'a>(organizations: impl Iterator<Item = &'a str>) -> Vec<Role> {
    let mut roles: Vec<_> = organizations
        .filter_map(|name| ORGANIZATIONS.iter().find(|(known, _)| *known == name))
        .map(|(_, role)| *role)
        .collect();
    roles.sort();
    roles.dedup();
    roles
}

/// A moment of a certificate. Those before 1970 are all alike to us: long ago.
pub(crate) fn moment(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(organizations: &[&str], expect: &[Role]) {
        assert_eq!(roles(organizations.iter().copied()), expect, "{organizations:?}");
    }

    #[test]
    fn organizations() {
        check(&["system:masters"], &[Role::Admin]);
        check(&["kubeadm:cluster-admins"], &[Role::Admin]);
        check(&["keel:admin"], &[Role::Admin]);
        check(&["keel:operator"], &[Role::Operator]);
        check(&["keel:viewer"], &[Role::Viewer]);
        check(&["keel:operator", "keel:viewer", "x"], &[Role::Viewer, Role::Operator]);
        check(&["keel:admin", "system:masters"], &[Role::Admin]);
        check(&[], &[]);
        check(&["Keel:Admin", "keel:admin ", "system:nodes", "keel:maintenance"], &[]);
    }
}
