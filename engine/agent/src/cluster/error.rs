//! What keeps a node from joining a cluster, each with what can be done about it.

use std::io;
use std::time::Duration;

use super::pin::Pin;

/// A cluster that cannot be joined.
#[derive(Debug, thiserror::Error)]
#[error("cannot join the cluster at {api_server}")]
pub(crate) struct JoinError {
    pub(crate) api_server: String,
    #[source]
    pub(crate) kind: JoinErrorKind,
}

/// Why a cluster cannot be joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinErrorKind {
    /// The machine config's reader has refused such an address; a kubeconfig may hold one.
    #[error("`{0}` is not the address of an API server: https://HOST:PORT")]
    Address(String),
    #[error("its name cannot be resolved")]
    Resolve(#[source] io::Error),
    #[error("nothing answers there")]
    Unreachable(#[source] io::Error),
    #[error("it did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("what answers there does not speak TLS 1.3")]
    NotTls(#[source] io::Error),
    #[error(
        "its certificate is not signed by the cluster's CA: the CA is that of another cluster, or what answers is not this cluster's API server"
    )]
    WrongCa(#[source] rustls::Error),
    #[error("its certificate is for other names than `{host}`")]
    WrongName {
        host: String,
        #[source]
        source: rustls::Error,
    },
    #[error(
        "its certificate is not valid at {here}, which this machine's clock says: the clock is wrong, or the certificate is"
    )]
    NotValidNow {
        here: String,
        #[source]
        source: rustls::Error,
    },
    #[error("the cluster's CA cannot be used: {0}")]
    BadCa(String),
    #[error(
        "this machine's clock says {here}, and the API server's {there}: what depends on time is refused"
    )]
    ClockSkew { here: String, there: String },
    #[error("the token has expired: it was valid until {0}")]
    TokenExpired(String),
    #[error(
        "the cluster does not know the token `{0}`: it has expired, or was deleted, or is another cluster's"
    )]
    TokenUnknown(String),
    #[error("the cluster knows the token `{0}`, and its secret part is another one")]
    TokenWrong(String),
    #[error("the cluster knows the token `{0}`, and it may not be used for authentication")]
    TokenNotForAuthentication(String),
    #[error(
        "the API server does not take the token (401): its service account is gone, or it is another cluster's"
    )]
    TokenRefused,
    #[error(
        "the token is known, and may not ask for a node's certificate: it lacks the role system:node-bootstrapper"
    )]
    NotAllowed,
    #[error(
        "it has no {0}, which discovery by a pin needs: give the CA's certificate, or set up the cluster's kube-public/cluster-info"
    )]
    NoClusterInfo(&'static str),
    #[error(
        "its cluster-info is not signed by the token `{0}`: the token is wrong, or what answers is not this cluster's API server"
    )]
    BadSignature(String),
    #[error("its CA does not have the pin {wanted}; it has {}", pins(.found))]
    WrongPin { wanted: Pin, found: Vec<Pin> },
    #[error(
        "what is read over verified TLS differs from what was read before: somebody stands between"
    )]
    Changed,
    #[error("what answers there is no API server: {0}")]
    NotKubernetes(String),
    #[error("it answered {status}: {message}")]
    Status { status: u16, message: String },
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    #[error("somebody has the node join a cluster, and that goes first")]
    Overtaken,
}

fn pins(pins: &[Pin]) -> String {
    match pins {
        [] => "none".to_owned(),
        pins => pins.iter().map(Pin::to_string).collect::<Vec<_>>().join(", "),
    }
}
