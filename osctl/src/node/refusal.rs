//! Why a node hung up during or right after the handshake, in sentences: TLS has a number for it, and people have a certificate.

use std::time::SystemTime;

use rustls::{AlertDescription, CertificateError, Error};

use crate::node::credentials::About;
use crate::node::words::moment;

/// What happened, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) what: String,
    pub(crate) next: String,
}

fn refusal(what: impl Into<String>, next: impl Into<String>) -> Refusal {
    Refusal { what: what.into(), next: next.into() }
}

const SHOW: &str =
    "use --kubeconfig FILE with the admin's kubeconfig of its cluster, or --cert and --key";

/// What an alert of the node means for a caller who showed this certificate, or none.
pub(crate) fn of_alert(
    alert: AlertDescription,
    shown: Option<&About>,
    now: SystemTime,
) -> Option<Refusal> {
    use AlertDescription as Alert;
    let refusal = match (alert, shown) {
        (Alert::CertificateRequired | Alert::AccessDenied | Alert::HandshakeFailure, None) => {
            refusal(
                "it wants a client certificate, and none was shown",
                format!("the node is bootstrapped: {SHOW}"),
            )
        }
        (Alert::CertificateRequired, Some(about)) => refusal(
            format!("it wants another client certificate than {}", about.origin),
            "it names authorities that it trusts, and none of them signed yours: use the kubeconfig of the node's own cluster",
        ),
        (Alert::UnknownCA, Some(about)) => refusal(
            format!(
                "it does not trust the authority that signed your certificate ({}, signed by {})",
                about.subject, about.issuer
            ),
            "use the kubeconfig of the cluster that this node belongs to; `osctl context list` shows yours",
        ),
        (Alert::CertificateExpired, Some(about)) => expired(about, now),
        (Alert::CertificateRevoked, Some(about)) => refusal(
            format!("your certificate ({}) is revoked", about.subject),
            "ask the cluster's admin for a new one",
        ),
        (Alert::UnsupportedCertificate, Some(about)) => refusal(
            format!("your certificate ({}) is not one for clients", about.subject),
            "it needs the extended key usage clientAuth, as in the kubeconfig of a cluster's admin",
        ),
        (
            Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::DecryptError
            | Alert::AccessDenied,
            Some(about),
        ) => match about.untimely(now) {
            Some(why) => refusal(
                format!("it refuses your certificate: {why}"),
                "renew the certificate, or set this computer's clock right",
            ),
            None => refusal(
                format!("it refuses your certificate ({})", about.subject),
                "the node's own log and `osctl audit` of somebody who gets in say why",
            ),
        },
        (Alert::NoApplicationProtocol, _) => refusal(
            "it does not speak HTTP/2",
            "is this the port of a Keel node's API? it is 50051 unless something forwards it",
        ),
        (Alert::ProtocolVersion, _) => refusal(
            "it does not speak TLS 1.3",
            "is this the port of a Keel node's API? it is 50051 unless something forwards it",
        ),
        _ => return None,
    };
    Some(refusal)
}

/// The node's clock decided; ours says which of the two is likely to be wrong.
fn expired(about: &About, now: SystemTime) -> Refusal {
    let own = about.untimely(now);
    match own {
        Some(why) => refusal(
            format!("your certificate is not valid now: {why}"),
            "renew it (`kubeadm certs renew admin.conf` on a control plane node), or set this computer's clock right",
        ),
        None => refusal(
            format!(
                "by its clock your certificate is not valid now; it is valid from {} to {}, and this computer's clock says {}",
                moment(about.not_before),
                moment(about.not_after),
                moment(now)
            ),
            "one of the two clocks is wrong: the node's console shows its own",
        ),
    }
}

/// Why a node's certificate was not taken: it is not signed by the authority that was given.
pub(crate) fn of_chain(error: &Error, now: SystemTime) -> String {
    let clock = || moment(now);
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the authority that you gave did not sign it".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("it has expired by this computer's clock, which says {}", clock())
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("it is not valid yet by this computer's clock, which says {}", clock())
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it is for other names and addresses".to_owned()
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(alert: AlertDescription, shown: bool, day: u64, expect: &str) {
        let at = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400);
        let about = About {
            subject: "O=keel:admin, CN=ann".to_owned(),
            issuer: "CN=kubernetes".to_owned(),
            not_before: at(10),
            not_after: at(20),
            origin: "a.crt".to_owned(),
        };
        let got = of_alert(alert, shown.then_some(&about), at(day)).map(|refusal| refusal.what);
        assert_eq!(got.as_deref().unwrap_or("nothing"), expect, "{alert:?}");
    }

    #[test]
    fn alerts() {
        use AlertDescription as Alert;
        check(
            Alert::CertificateRequired,
            false,
            15,
            "it wants a client certificate, and none was shown",
        );
        check(
            Alert::CertificateRequired,
            true,
            15,
            "it wants another client certificate than a.crt",
        );
        check(
            Alert::UnknownCA,
            true,
            15,
            "it does not trust the authority that signed your certificate (O=keel:admin, CN=ann, signed by CN=kubernetes)",
        );
        check(
            Alert::CertificateExpired,
            true,
            21,
            "your certificate is not valid now: it ended at 1970-01-21T00:00:00Z, and this computer's clock says \
             1970-01-22T00:00:00Z",
        );
        check(
            Alert::CertificateExpired,
            true,
            9,
            "your certificate is not valid now: it begins at 1970-01-11T00:00:00Z, and this computer's clock says \
             1970-01-10T00:00:00Z",
        );
        check(
            Alert::CertificateExpired,
            true,
            15,
            "by its clock your certificate is not valid now; it is valid from 1970-01-11T00:00:00Z to \
             1970-01-21T00:00:00Z, and this computer's clock says 1970-01-16T00:00:00Z",
        );
        check(
            Alert::CertificateRevoked,
            true,
            15,
            "your certificate (O=keel:admin, CN=ann) is revoked",
        );
        check(
            Alert::UnsupportedCertificate,
            true,
            15,
            "your certificate (O=keel:admin, CN=ann) is not one for clients",
        );
        check(
            Alert::BadCertificate,
            true,
            15,
            "it refuses your certificate (O=keel:admin, CN=ann)",
        );
        check(Alert::NoApplicationProtocol, false, 15, "it does not speak HTTP/2");
        check(Alert::InternalError, true, 15, "nothing");
        check(Alert::UnknownCA, false, 15, "nothing");
    }
}
