//! The part of a kubeconfig that says who the user is: a cluster's authority and a client certificate.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::Failure;
use crate::node::credentials::{self, Credentials, Source};

/// What is read of the file; what is not named here (preferences, extensions) is passed over, as kubectl passes it over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kubeconfig {
    #[serde(rename = "current-context")]
    current_context: Option<String>,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

/// Of what is not a certificate only that it is there: no token is ever held.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<Secret>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    token: Option<serde::de::IgnoredAny>,
    #[serde(rename = "tokenFile")]
    token_file: Option<serde::de::IgnoredAny>,
    username: Option<serde::de::IgnoredAny>,
}

/// Text that never shows.
#[derive(Deserialize)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// What is wrong with a kubeconfig for our purpose.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KubeconfigError {
    #[error("it is not a kubeconfig: {0}")]
    Syntax(String),
    #[error("it has no current-context")]
    NoCurrent,
    #[error("it has no context `{name}`; it has {}", list(.has))]
    NoContext { name: String, has: Vec<String> },
    #[error("its context `{context}` names the {what} `{name}`, which is not in it")]
    Dangling { context: String, what: &'static str, name: String },
    #[error(
        "its user `{user}` shows who it is by {by}, and a node takes client certificates alone"
    )]
    NotByCertificate { user: String, by: &'static str },
    #[error("its user `{user}` has no {what}")]
    Missing { user: String, what: &'static str },
    #[error("`{key}` of `{name}` is not base64")]
    Base64 { key: &'static str, name: String },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl KubeconfigError {
    fn next(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "give the file that kubectl uses for this cluster",
            Self::NoCurrent => "name one with --context",
            Self::NoContext { .. } => "name one of those with --context",
            Self::Dangling { .. } | Self::Base64 { .. } => {
                "mend the file; kubectl stumbles over it too"
            }
            Self::NotByCertificate { .. } | Self::Missing { .. } => {
                "use a kubeconfig with a client certificate: on a control plane node /etc/kubernetes/admin.conf, or one \
                 from `kubeadm kubeconfig user`; or give --cert and --key"
            }
        }
    }
}

/// Where a certificate or a key is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Inline { key: &'static str, name: String, bytes: Vec<u8> },
}

/// What a context of the file comes to.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    ca: Option<Place>,
    cert: Place,
    key: Place,
}

/// Reads the client certificate and the authority of one context; of the current one if none is named.
pub(crate) fn load(path: &Path, context: Option<&str>) -> Result<Credentials, Failure> {
    let file = credentials::read(path)?;
    let chosen = choose(&String::from_utf8_lossy(&file.bytes), context).map_err(|error| {
        let next = error.next();
        Failure::usage(format!("cannot use {}", path.display())).because(error).next(next)
    })?;
    // A path in the file counts from the file, as kubectl has it.
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut credentials = Credentials::default();
    let key_file = match &chosen.key {
        Place::File(key) => folder.join(key),
        Place::Inline { .. } => path.to_owned(),
    };
    credentials.remarks.extend(credentials::too_open(&key_file));
    let source = |place: Place| match place {
        Place::File(file) => credentials::read(&folder.join(file)),
        Place::Inline { key, name, bytes } => {
            let origin = format!("{key} of `{name}` in {}", path.display());
            Ok(Source { origin, bytes })
        }
    };
    credentials.identity =
        Some(credentials::identity(&source(chosen.cert)?, &source(chosen.key)?)?);
    if let Some(ca) = chosen.ca {
        credentials.authority = Some(credentials::authority(&source(ca)?)?);
    }
    Ok(credentials)
}

fn choose(text: &str, context: Option<&str>) -> Result<Chosen, KubeconfigError> {
    let config: Kubeconfig = serde_saphyr::from_str(text).map_err(|error| {
        // The library shows the lines around the fault, and a key may stand there: only where it is may be told.
        let place =
            error.location().map(|at| format!("line {}, column {}", at.line(), at.column()));
        KubeconfigError::Syntax(place.unwrap_or_else(|| "it cannot be read as YAML".to_owned()))
    })?;
    let current = config.current_context.as_deref().filter(|name| !name.is_empty());
    let wanted = context.or(current).ok_or(KubeconfigError::NoCurrent)?;
    let context = config.contexts.iter().find(|one| one.name == wanted).ok_or_else(|| {
        let has = config.contexts.iter().map(|one| one.name.clone()).collect();
        KubeconfigError::NoContext { name: wanted.to_owned(), has }
    })?;
    let dangling = |what, name: &str| KubeconfigError::Dangling {
        context: wanted.to_owned(),
        what,
        name: name.to_owned(),
    };
    let Context { cluster, user } = &context.context;
    let cluster = config
        .clusters
        .into_iter()
        .find(|one| one.name == *cluster)
        .ok_or_else(|| dangling("cluster", cluster))?;
    let user = config
        .users
        .into_iter()
        .find(|one| one.name == *user)
        .ok_or_else(|| dangling("user", user))?;
    let (name, user) = (user.name, user.user);
    let by = user.stand_in();
    let missing = |what| match by {
        Some(by) => KubeconfigError::NotByCertificate { user: name.clone(), by },
        None => KubeconfigError::Missing { user: name.clone(), what },
    };
    // Data wins over a file, as kubectl has it.
    let cert = place(
        "client-certificate-data",
        &name,
        user.client_certificate_data.as_deref(),
        user.client_certificate,
    )?
    .ok_or_else(|| missing("client certificate"))?;
    let key = user.client_key_data.as_ref().map(|secret| secret.0.as_str());
    let key = place("client-key-data", &name, key, user.client_key)?
        .ok_or_else(|| missing("client key"))?;
    let Cluster { certificate_authority: file, certificate_authority_data: data } = cluster.cluster;
    let ca = place("certificate-authority-data", &cluster.name, data.as_deref(), file)?;
    Ok(Chosen { ca, cert, key })
}

impl User {
    /// What this user has in place of a certificate.
    fn stand_in(&self) -> Option<&'static str> {
        if self.exec.is_some() {
            Some("a program that kubectl runs (exec)")
        } else if self.token.is_some() || self.token_file.is_some() {
            Some("a token")
        } else if self.auth_provider.is_some() {
            Some("an auth-provider")
        } else if self.username.is_some() {
            Some("a password")
        } else {
            None
        }
    }
}

fn place(
    key: &'static str,
    name: &str,
    data: Option<&str>,
    file: Option<PathBuf>,
) -> Result<Option<Place>, KubeconfigError> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let data: String = data.split_whitespace().collect();
        let bytes = STANDARD
            .decode(data)
            .map_err(|_| KubeconfigError::Base64 { key, name: name.to_owned() })?;
        return Ok(Some(Place::Inline { key, name: name.to_owned(), bytes }));
    }
    Ok(file.filter(|file| !file.as_os_str().is_empty()).map(Place::File))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "
apiVersion: v1
kind: Config
preferences: {}
current-context: admin@prod
clusters:
- name: prod
  cluster: { server: 'https://10.0.0.1:6443', certificate-authority-data: Y2E= }
- name: files
  cluster: { server: 'https://10.0.0.1:6443', certificate-authority: pki/ca.crt }
- name: open
  cluster: { server: 'https://10.0.0.1:6443', insecure-skip-tls-verify: true }
contexts:
- name: admin@prod
  context: { cluster: prod, user: admin, namespace: x }
- { name: files, context: { cluster: files, user: files } }
- { name: open, context: { cluster: open, user: admin } }
- { name: lost, context: { cluster: gone, user: admin } }
- { name: nobody, context: { cluster: prod, user: gone } }
- { name: exec, context: { cluster: prod, user: exec } }
- { name: token, context: { cluster: prod, user: token } }
- { name: half, context: { cluster: prod, user: half } }
- { name: bad, context: { cluster: prod, user: bad } }
users:
- name: admin
  user: { client-certificate-data: Y2VydA==, client-key-data: a2V5 }
- name: files
  user: { client-certificate: a.crt, client-key: /b.key }
- name: exec
  user: { exec: { apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks, get-token] } }
- name: token
  user: { token: t0p-s3cret }
- name: half
  user: { client-certificate-data: Y2VydA== }
- name: bad
  user: { client-certificate-data: '%%', client-key-data: a2V5 }
";

    fn check(context: Option<&str>, expect: &str) {
        let show = |place: &Place| match place {
            Place::File(file) => file.display().to_string(),
            Place::Inline { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        };
        let got = match choose(WHOLE, context) {
            Ok(Chosen { ca, cert, key }) => {
                format!(
                    "{} {} {}",
                    ca.as_ref().map_or("none".into(), show),
                    show(&cert),
                    show(&key)
                )
            }
            Err(error) => error.to_string(),
        };
        assert!(got.starts_with(expect), "{context:?}: {got}");
        assert!(!got.contains("s3cret"));
    }

    #[test]
    fn contexts() {
        check(None, "ca cert key");
        check(Some("files"), "pki/ca.crt a.crt /b.key");
        check(Some("open"), "none cert key");
        check(Some("lost"), "its context `lost` names the cluster `gone`, which is not in it");
        check(Some("nobody"), "its context `nobody` names the user `gone`");
        check(Some("prod"), "it has no context `prod`; it has `admin@prod`, `files`");
        check(
            Some("exec"),
            "its user `exec` shows who it is by a program that kubectl runs (exec), and",
        );
        check(Some("token"), "its user `token` shows who it is by a token, and a node takes");
        check(Some("half"), "its user `half` has no client key");
        check(Some("bad"), "`client-certificate-data` of `bad` is not base64");
    }

    #[test]
    fn what_is_no_kubeconfig_is_said_so_without_its_text() {
        assert_eq!(choose("", None), Err(KubeconfigError::NoCurrent));
        assert_eq!(choose("kind: Config", None), Err(KubeconfigError::NoCurrent));
        let error = choose("users: [{ name: a, user: { client-key-data: [t0p-s3cret] } }]", None);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("it is not a kubeconfig: line 1, column "), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
