//! What the machine config says of a cluster, and what is laid over it so that it says something else.

use toml::{Table, Value};

use super::wish::Credentials;
use crate::cluster::Pin;

/// The keys of `[cluster]` that say which cluster it is, and how one gets in. All others are the machine's own.
const WHICH: [&str; 5] = ["api-server", "token", "ca-cert", "ca-hash", "kubeconfig"];

/// What a machine config says of its cluster. Its secrets are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) api_server: Option<String>,
    pub(crate) node_name: Option<String>,
    /// The pins of its CAs, or the one that it says.
    pub(crate) pins: Vec<Pin>,
    /// Those of the keys that are set.
    set: Vec<&'static str>,
}

impl Named {
    /// Reads a config, as init shows it.
    pub(crate) fn read(config: &str) -> Self {
        let config: Table = config.parse().unwrap_or_default();
        let Some(Value::Table(cluster)) = config.get("cluster") else { return Self::default() };
        let text = |key: &str| cluster.get(key).and_then(Value::as_str).map(str::to_owned);
        let given = match cluster.get("ca-cert") {
            Some(Value::String(pem)) => Pin::all(pem),
            Some(Value::Array(all)) => {
                all.iter().filter_map(Value::as_str).flat_map(Pin::all).collect()
            }
            _ => Vec::new(),
        };
        let pinned = text("ca-hash").and_then(|pin| Pin::parse(&pin));
        Self {
            api_server: text("api-server"),
            node_name: text("node-name"),
            pins: given.into_iter().chain(pinned).collect(),
            set: WHICH.into_iter().filter(|key| cluster.contains_key(*key)).collect(),
        }
    }

    /// Whether it names a cluster at all.
    pub(crate) fn any(&self) -> bool {
        !self.set.is_empty()
    }

    /// A patch after which it names none.
    pub(crate) fn none(&self) -> String {
        let unset = self.set.iter().map(|key| Value::String(format!("cluster.{key}")));
        format!("unset = {}\n", Value::Array(unset.collect()))
    }

    /// A patch after which it names this one. It holds a secret.
    pub(crate) fn instead(
        &self,
        api_server: &str,
        ca: &str,
        credentials: &Credentials,
        node_name: Option<&str>,
    ) -> String {
        let mut patch = match self.any() {
            true => self.none(),
            false => String::new(),
        };
        patch.push_str("[cluster]\n");
        let mut say = |key: &str, text: &str| {
            patch.push_str(&format!("{key} = {}\n", Value::String(text.to_owned())));
        };
        match credentials {
            Credentials::Token(token) => {
                say("api-server", api_server);
                say("token", &token.text());
                say("ca-cert", ca);
            }
            Credentials::Kubeconfig(text) => say("kubeconfig", text),
        }
        if let Some(name) = node_name {
            say("node-name", name);
        }
        patch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Token;

    #[test]
    fn what_a_config_says_of_its_cluster() {
        let pin = format!("sha256:{}", "ab".repeat(32));
        let named = Named::read(&format!(
            "schema = 1\n[cluster]\napi-server = \"https://a:1\"\ntoken = \"<secret>\"\nca-hash = \"{pin}\"\nnode-name = \"n\"\n"
        ));
        assert_eq!(named.api_server.as_deref(), Some("https://a:1"));
        assert_eq!(named.node_name.as_deref(), Some("n"));
        assert_eq!(named.pins, [Pin::parse(&pin).unwrap()]);
        assert_eq!(
            named.none(),
            "unset = [\"cluster.api-server\", \"cluster.token\", \"cluster.ca-hash\"]\n"
        );
        for none in ["", "schema = 1", "[cluster]\nkubelet-version = \"1.20\"", "not TOML ["] {
            assert!(!Named::read(none).any(), "{none}");
        }
    }

    #[test]
    fn a_patch_says_all_of_it_and_takes_nothing_away_that_is_not_there() {
        let token = Token::parse("abcdef.0123456789abcdef").unwrap();
        let credentials = Credentials::Token(token);
        let none = Named::default();
        let patch = none.instead("https://a", "PEM\nlines\n", &credentials, Some("n\"1"));
        let read: Table = patch.parse().unwrap();
        assert_eq!(read.len(), 1, "{patch}");
        let cluster = read["cluster"].as_table().unwrap();
        assert_eq!(cluster["ca-cert"].as_str(), Some("PEM\nlines\n"));
        assert_eq!(cluster["node-name"].as_str(), Some("n\"1"));
        let before = Named::read("[cluster]\nkubeconfig = \"<secret>\"\n");
        let patch = before.instead("https://a", "PEM", &credentials, None);
        assert!(patch.starts_with("unset = [\"cluster.kubeconfig\"]\n[cluster]\n"), "{patch}");
    }
}
