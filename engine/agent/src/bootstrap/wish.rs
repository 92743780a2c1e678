//! What somebody asks for who has a node join a cluster, checked as far as one can without asking anybody.

use std::fmt;
use std::time::Duration;

use keel_proto::v1::BootstrapRequest;
use sha2::{Digest, Sha256};

use crate::cluster::{Ca, Join, JoinErrorKind, Pin, Server, Token, whole};

/// How long a node may take to be registered.
const TIMEOUT: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(3600);

/// The most bytes of a kubeconfig or of the CAs, and of the other texts.
const LARGEST: usize = 48 * 1024;
const LONGEST_TEXT: usize = 512;

/// A cluster to join, and what to show there. Nothing shows its secrets.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) api_server: String,
    pub(crate) ca: Ca,
    pub(crate) credentials: Credentials,
    pub(crate) node_name: Option<String>,
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    pub(crate) timeout: Duration,
    /// The same for two that ask for the same.
    pub(crate) key: [u8; 32],
}

/// What the kubelet shows for its first certificate.
#[derive(Clone)]
pub(crate) enum Credentials {
    Token(Token),
    /// A kubeconfig with something else than a token.
    Kubeconfig(String),
}

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wish({})", self.api_server)
    }
}

impl Credentials {
    pub(crate) fn token(&self) -> Option<&Token> {
        match self {
            Self::Token(token) => Some(token),
            Self::Kubeconfig(_) => None,
        }
    }
}

impl Wish {
    /// Reads a request. The text is what is wrong with it; it holds no secret.
    pub(crate) fn read(ask: BootstrapRequest) -> Result<Self, String> {
        let texts = [
            ("api_server", ask.api_server.len(), LONGEST_TEXT),
            ("ca_hash", ask.ca_hash.len(), LONGEST_TEXT),
            ("node_name", ask.node_name.len(), LONGEST_TEXT),
            ("token", ask.token.len(), 16_384),
            ("ca_cert", ask.ca_cert.len(), LARGEST),
            ("kubeconfig", ask.kubeconfig.len(), LARGEST),
        ];
        for (field, long, most) in texts {
            if long > most {
                return Err(format!("`{field}` is {long} bytes long; it may have {most}"));
            }
        }
        let mut hash = Sha256::new();
        let asked = [
            &ask.api_server,
            &ask.token,
            &ask.ca_cert,
            &ask.ca_hash,
            &ask.kubeconfig,
            &ask.node_name,
        ];
        for text in asked {
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        }
        let key = hash.finalize().into();
        let (api_server, ca, credentials) = match ask.kubeconfig.as_str() {
            "" => by_token(&ask)?,
            _ => by_kubeconfig(&ask)?,
        };
        Server::parse(&api_server).map_err(|error| error.to_string())?;
        let timeout = ask.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
        let timeout = timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT);
        Ok(Self {
            api_server: api_server.trim_end_matches('/').to_owned(),
            ca,
            credentials,
            node_name: Some(ask.node_name).filter(|name| !name.is_empty()),
            dry_run: ask.dry_run,
            force: ask.force,
            timeout: timeout.min(LONGEST),
            key,
        })
    }
}

type Way = (String, Ca, Credentials);

fn by_token(ask: &BootstrapRequest) -> Result<Way, String> {
    let text = |text: &str| text.to_owned();
    if ask.api_server.is_empty() {
        return Err(text("it is not said where the API server answers: https://HOST:PORT"));
    }
    if ask.token.is_empty() {
        return Err(text("there is no token to show to the cluster, and no kubeconfig"));
    }
    let token = Token::parse(&ask.token).ok_or_else(|| {
        text(
            "the token is malformed: it is neither a bootstrap token (abcdef.0123456789abcdef) nor the JWT of a service account (three parts with dots between them)",
        )
    })?;
    let ca = match (ask.ca_cert.as_str(), ask.ca_hash.as_str()) {
        ("", "") => {
            return Err(text(
                "nothing says which API server is the right one: give the cluster's CA, or its pin",
            ));
        }
        (pem, "") => {
            certificates(pem)?;
            Ca::Given(pem.to_owned())
        }
        ("", pin) => Ca::Pinned(Pin::parse(pin).ok_or_else(|| {
            text("the CA's hash is malformed: it is `sha256:` and 64 hexadecimal digits")
        })?),
        _ => return Err(text("the CA and its pin are both given: one of the two says it all")),
    };
    Ok((ask.api_server.clone(), ca, Credentials::Token(token)))
}

fn by_kubeconfig(ask: &BootstrapRequest) -> Result<Way, String> {
    let beside = [
        ("the API server's address", &ask.api_server),
        ("a token", &ask.token),
        ("a CA", &ask.ca_cert),
        ("the pin of a CA", &ask.ca_hash),
    ];
    if let Some((what, _)) = beside.iter().find(|(_, text)| !text.is_empty()) {
        return Err(format!("{what} is given beside a kubeconfig, which says it too"));
    }
    let said = |error: JoinErrorKind| error.to_string();
    whole(&ask.kubeconfig).map_err(said)?;
    let join = Join::read(&ask.kubeconfig).map_err(said)?;
    let ca = join.ca.ok_or("the kubeconfig has no certificate-authority-data: nothing says which API server is the right one")?;
    certificates(&ca)?;
    let credentials = match join.token {
        Some(token) => Credentials::Token(token),
        None => Credentials::Kubeconfig(ask.kubeconfig.clone()),
    };
    Ok((join.api_server, Ca::Given(ca), credentials))
}

/// Refuses what holds no certificate.
fn certificates(pem: &str) -> Result<(), String> {
    match Pin::all(pem).is_empty() {
        true => Err("the CA that is given holds no certificate in PEM".to_owned()),
        false => Ok(()),
    }
}
