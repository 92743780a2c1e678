//! The Kubernetes cluster that this node joins: whether what answers is that cluster's API server, and whether what the node shows is
//! taken there.
//!
//! [`verify`] is all of it, for the node's own registration and for a bootstrap that somebody asks for. The CA is given, or it is
//! known by its pin and taken from the cluster as kubeadm does it: the public ConfigMap `cluster-info` is read from whoever answers,
//! its signature by the token and the pin say whether it is the right one, and then it is read once more over TLS that its CA has
//! verified. Nothing secret is sent before the server is verified.
//!
//! Once the node has joined, it asks the cluster to sign the certificate of its own API: see `serving`.

mod check;
mod discover;
mod error;
mod http;
mod kubeconfig;
mod pin;
mod register;
mod request;
mod serving;
mod token;

pub(crate) use self::error::{JoinError, JoinErrorKind};
pub(crate) use self::http::{Http, Server};
pub(crate) use self::kubeconfig::{Join, whole};
pub(crate) use self::pin::Pin;
pub(crate) use self::register::{Places, register, write};
pub(crate) use self::serving::{Serving, keep_signed};
pub(crate) use self::token::Token;

/// How the cluster's CA is known.
#[derive(Debug, Clone)]
pub(crate) enum Ca {
    /// Its certificates, in PEM.
    Given(String),
    /// By the pin of its public key.
    Pinned(Pin),
}

/// A cluster that answered, and takes the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The CAs that its API server is verified with, in PEM.
    pub(crate) ca: String,
}

/// Verifies the API server at that address, and that it takes the token there.
///
/// # Errors
/// See [`JoinErrorKind`].
pub(crate) async fn verify(
    api_server: &str,
    ca: &Ca,
    token: Option<&Token>,
) -> Result<Verified, JoinError> {
    let failed = |kind| JoinError { api_server: api_server.to_owned(), kind };
    let server = Server::parse(api_server).map_err(failed)?;
    let ca = match ca {
        Ca::Given(ca) => ca.clone(),
        Ca::Pinned(pin) => discover::discover(&server, *pin, token).await.map_err(failed)?,
    };
    let http = Http::verified(server, &ca).map_err(failed)?;
    match token {
        Some(token) => check::token(&http, token).await.map_err(failed)?,
        None => check::answers(&http).await.map_err(failed)?,
    }
    Ok(Verified { ca })
}

#[cfg(test)]
mod tests;
