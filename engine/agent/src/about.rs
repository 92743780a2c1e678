//! What the agent tells of itself beside what init says of the machine.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use keel_proto::v1;
use tokio::sync::watch;

use crate::identity::{Details, Identity};
use crate::trust::{Door, State};

/// What the agent tells of itself.
#[derive(Debug)]
pub(crate) struct About {
    started: Instant,
    certificate: RwLock<(String, Details)>,
    /// What the cluster has signed, while that is shown.
    signed: RwLock<Option<Details>>,
    /// How it stands with what the cluster is asked to sign.
    request: RwLock<Option<v1::CertificateRequest>>,
    trust: watch::Receiver<Arc<State>>,
}

impl About {
    pub(crate) fn new(identity: &Identity, trust: watch::Receiver<Arc<State>>) -> Self {
        let certificate = RwLock::new((identity.fingerprint.clone(), identity.details.clone()));
        let (signed, request) = (RwLock::default(), RwLock::default());
        Self { started: Instant::now(), certificate, signed, request, trust }
    }

    /// Notes that another certificate is shown from now on.
    pub(crate) fn renewed(&self, identity: &Identity) {
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) =
            (identity.fingerprint.clone(), identity.details.clone());
    }

    /// Notes what the cluster has signed, which is shown in place of the node's own.
    pub(crate) fn signed(&self, details: Option<Details>) {
        *self.signed.write().unwrap_or_else(PoisonError::into_inner) = details;
    }

    /// Notes how it stands with what the cluster is asked to sign.
    pub(crate) fn requested(&self, request: Option<v1::CertificateRequest>) {
        *self.request.write().unwrap_or_else(PoisonError::into_inner) = request;
    }

    /// Adds to init's status what the agent knows.
    pub(crate) fn complete(&self, status: &mut v1::NodeStatus) {
        let state = self.trust.borrow().clone();
        let (fingerprint, certificate) =
            self.certificate.read().unwrap_or_else(PoisonError::into_inner).clone();
        status.fingerprint = fingerprint;
        status.mode = match state.door {
            Door::Open => v1::Mode::Maintenance,
            Door::Guarded(_) | Door::Shut(_) => v1::Mode::Bootstrapped,
        }
        .into();
        status.time = Some(SystemTime::now().into());
        let signed = self.signed.read().unwrap_or_else(PoisonError::into_inner).clone();
        let signed = signed.filter(|signed| SystemTime::now() <= signed.not_after);
        let certificate = signed.unwrap_or(certificate);
        status.certificate = Some(v1::ServingCertificate {
            fingerprint: certificate.fingerprint,
            not_before: Some(certificate.not_before.into()),
            not_after: Some(certificate.not_after.into()),
            names: certificate.names,
            issuer: certificate.issuer,
            request: self.request.read().unwrap_or_else(PoisonError::into_inner).clone(),
        });
        let authorities = state.authorities().iter();
        status.authorities = authorities
            .map(|authority| v1::TrustedAuthority {
                subject: authority.subject.clone(),
                fingerprint: authority.fingerprint.clone(),
                not_after: Some(authority.not_after.into()),
                source: authority.source.display().to_string(),
            })
            .collect();
        status.agent_uptime = self.started.elapsed().try_into().ok();
        let agent = "keel-agent".to_owned();
        let problems = state.problems.iter();
        status
            .degraded
            .extend(problems.map(|why| v1::Degradation { unit: agent.clone(), why: why.clone() }));
    }
}
