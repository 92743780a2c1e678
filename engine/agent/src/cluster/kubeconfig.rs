//! Kubeconfigs, as far as joining takes them: where the server is, its CA, and a token.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::error::JoinErrorKind;
use super::token::Token;

/// The most bytes of a kubeconfig, and of a file that it names.
const LARGEST: u64 = 1 << 20;

/// What a bootstrap kubeconfig says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) api_server: String,
    /// The CA in PEM, if it is there.
    pub(crate) ca: Option<String>,
    /// A token, if that is what the user shows.
    pub(crate) token: Option<Token>,
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Join({}, {:?})", self.api_server, self.token)
    }
}

fn wrong(why: &str) -> JoinErrorKind {
    JoinErrorKind::Kubeconfig(why.to_owned())
}

fn parse(text: &str) -> Result<Value, JoinErrorKind> {
    // What YAML says of a fault may quote the text, and that holds secrets.
    let config: Result<Value, _> = serde_saphyr::from_str(text);
    config
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| wrong("it is not YAML as a kubeconfig has it"))
}

/// The text of a key; none where it is missing, null, or no text.
fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// What stands below `what` in the item of that name, of a list.
fn named<'a>(config: &'a Value, list: &str, what: &str, name: Option<&str>) -> Option<&'a Value> {
    let items = config.get(list).and_then(Value::as_array)?;
    items.iter().find(|item| name.is_some() && text_of(item, "name") == name)?.get(what)
}

impl Join {
    /// Reads the text of a kubeconfig; files that it names are read too.
    pub(crate) fn read(text: &str) -> Result<Self, JoinErrorKind> {
        let config = parse(text)?;
        let context = named(&config, "contexts", "context", text_of(&config, "current-context"))
            .ok_or_else(|| wrong("its current-context is not in it"))?;
        let cluster = named(&config, "clusters", "cluster", text_of(context, "cluster"))
            .ok_or_else(|| wrong("its context names no cluster of it"))?;
        let user = named(&config, "users", "user", text_of(context, "user"));
        let token = user.and_then(|user| text_of(user, "token"));
        let token = token
            .map(|token| Token::parse(token).ok_or_else(|| wrong("its token is malformed")))
            .transpose()?;
        let api_server =
            text_of(cluster, "server").ok_or_else(|| wrong("its cluster has no server"))?;
        Ok(Self { api_server: api_server.to_owned(), ca: authority(cluster)?, token })
    }
}

/// Refuses what somebody sends who means files of his own machine, or has the node run a program.
pub(crate) fn whole(text: &str) -> Result<(), JoinErrorKind> {
    const ELSEWHERE: [&str; 6] = [
        "certificate-authority",
        "client-certificate",
        "client-key",
        "tokenFile",
        "exec",
        "auth-provider",
    ];
    let config = parse(text)?;
    let lists = [("clusters", "cluster"), ("users", "user")];
    let items = lists.into_iter().flat_map(|(list, what)| {
        let items = config.get(list).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(move |item| item.get(what))
    });
    for item in items {
        if let Some(key) = ELSEWHERE.into_iter().find(|key| item.get(key).is_some()) {
            return Err(wrong(&format!(
                "it says `{key}`, which means something outside of it: `kubectl config view --raw --flatten` puts all of it inside"
            )));
        }
    }
    Ok(())
}

/// The CAs of a cluster, in PEM; none if the file that it names is not there yet.
fn authority(cluster: &Value) -> Result<Option<String>, JoinErrorKind> {
    match (text_of(cluster, DATA), text_of(cluster, "certificate-authority")) {
        (Some(data), _) => {
            let bytes = STANDARD.decode(data.trim()).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            text.map(Some).ok_or_else(|| wrong("its certificate-authority-data is not base64"))
        }
        (None, Some(path)) => Ok(bounded(Path::new(path)).ok()),
        (None, None) => Ok(None),
    }
}

const DATA: &str = "certificate-authority-data";

/// The CAs of a kubeconfig that holds a cluster and nothing else, as `cluster-info` has it.
pub(super) fn authorities(text: &str) -> Result<String, JoinErrorKind> {
    let config = parse(text)?;
    let clusters = config.get("clusters").and_then(Value::as_array).map(Vec::as_slice);
    let Some([one]) = clusters else {
        return Err(JoinErrorKind::NoClusterInfo("one cluster in it"));
    };
    match one.get("cluster").filter(|cluster| text_of(cluster, DATA).is_some()) {
        // A path would be one of this machine, which the cluster knows nothing of.
        None => Err(JoinErrorKind::NoClusterInfo(DATA)),
        Some(cluster) => Ok(authority(cluster)?.unwrap_or_default()),
    }
}

/// The text of a file that is not large.
pub(super) fn bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}
