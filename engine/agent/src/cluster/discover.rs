//! The cluster's CA from the cluster, known by its pin: kubeadm's discovery.

use serde_json::Value;

use super::error::JoinErrorKind;
use super::http::{Answer, Http, Server};
use super::kubeconfig;
use super::pin::Pin;
use super::token::{Token, signed};

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// What `cluster-info` holds, from whoever answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterInfo {
    kubeconfig: String,
    /// Signatures of it, by the ids of tokens.
    signatures: Vec<(String, String)>,
}

impl ClusterInfo {
    fn read(answer: &Answer) -> Result<Self, JoinErrorKind> {
        const NAME: &str = "ConfigMap kube-public/cluster-info that everybody may read";
        match answer.status {
            200 => {}
            401 | 403 | 404 => return Err(JoinErrorKind::NoClusterInfo(NAME)),
            _ => return Err(super::check::status(answer)),
        }
        let data = answer.body.get("data").and_then(Value::as_object);
        let data = data.ok_or(JoinErrorKind::NoClusterInfo(NAME))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kubeconfig = data.get("kubeconfig").and_then(text);
        let signatures = data.iter().filter_map(|(key, value)| {
            Some((key.strip_prefix("jws-kubeconfig-")?.to_owned(), text(value)?))
        });
        Ok(Self {
            kubeconfig: kubeconfig.ok_or(JoinErrorKind::NoClusterInfo("kubeconfig in it"))?,
            signatures: signatures.collect(),
        })
    }

    /// Whether a bootstrap token has signed it.
    pub(super) fn check(&self, id: &str, secret: &str) -> Result<(), JoinErrorKind> {
        let signature = self.signatures.iter().find(|(by, _)| by == id);
        let (_, signature) = signature.ok_or_else(|| JoinErrorKind::TokenUnknown(id.to_owned()))?;
        match signed(signature, self.kubeconfig.as_bytes(), id, secret) {
            true => Ok(()),
            false => Err(JoinErrorKind::BadSignature(id.to_owned())),
        }
    }

    /// Those of its CAs that have the pin, in PEM.
    fn authority(&self, pin: Pin) -> Result<String, JoinErrorKind> {
        let all = kubeconfig::authorities(&self.kubeconfig)?;
        let (chosen, found) = pin.choose(&all);
        match chosen.is_empty() {
            true => Err(JoinErrorKind::WrongPin { wanted: pin, found }),
            false => Ok(chosen),
        }
    }
}

/// Reads `cluster-info` there.
pub(super) async fn cluster_info(http: &Http) -> Result<ClusterInfo, JoinErrorKind> {
    ClusterInfo::read(&http.get(CLUSTER_INFO, None).await?)
}

/// The cluster's CA, in PEM.
pub(super) async fn discover(
    server: &Server,
    pin: Pin,
    token: Option<&Token>,
) -> Result<String, JoinErrorKind> {
    let info = cluster_info(&Http::unverified(server.clone())?).await?;
    // The pin comes first: of a server that is the wrong one nothing else is worth a word.
    let ca = info.authority(pin)?;
    if let Some(Token::Bootstrap { id, secret }) = token {
        info.check(id, secret)?;
    }
    // Once more, over TLS that this CA has verified.
    let again = cluster_info(&Http::verified(server.clone(), &ca)?).await?;
    match again.kubeconfig == info.kubeconfig {
        true => Ok(ca),
        false => Err(JoinErrorKind::Changed),
    }
}

#[cfg(test)]
pub(super) fn info(kubeconfig: &str, signatures: &[(&str, &str)]) -> ClusterInfo {
    let signatures = signatures.iter().map(|(id, jws)| ((*id).to_owned(), (*jws).to_owned()));
    ClusterInfo { kubeconfig: kubeconfig.to_owned(), signatures: signatures.collect() }
}
