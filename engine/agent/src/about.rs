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
    trust: watch::Receiver<Arc<State>>,
}

impl About {
    pub(crate) fn new(identity: &Identity, trust: watch::Receiver<Arc<State>>) -> Self {
        let certificate = RwLock::new((identity.fingerprint.clone(), identity.details.clone()));
        Self { started: Instant::now(), certificate, trust }
    }

    /// Notes that another certificate is shown from now on.
    pub(crate) fn renewed(&self, identity: &Identity) {
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) =
            (identity.fingerprint.clone(), identity.details.clone());
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
        status.certificate = Some(v1::ServingCertificate {
            fingerprint: certificate.fingerprint,
            not_before: Some(certificate.not_before.into()),
            not_after: Some(certificate.not_after.into()),
            names: certificate.names,
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
