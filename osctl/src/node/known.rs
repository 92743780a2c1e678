//! The nodes that osctl knows: a file with one line a node, `HOST:PORT sha256:FINGERPRINT WHEN`, in the manner of ssh's known_hosts.

use std::fmt::Write as _;
use std::time::SystemTime;

use crate::error::Failure;
use crate::node::endpoint::Endpoint;
use crate::node::fingerprint::Fingerprint;
use crate::node::home::Kept;
use crate::node::words::moment;

const FILE: &str = "known-nodes";

/// How a new file begins.
const HEAD: &str = "# Nodes that osctl knows: where, SHA-256 of its key, since when. `osctl known-nodes` edits it.\n";

/// A node that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownNode {
    pub(crate) endpoint: String,
    pub(crate) fingerprint: Fingerprint,
    /// When it was first trusted, as the file has it.
    pub(crate) since: Option<String>,
    /// The line that it stands on, from 1.
    pub(crate) line: usize,
}

/// A line that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not `HOST:PORT sha256:FINGERPRINT`: {why}")]
pub(crate) struct KnownError {
    line: usize,
    why: String,
}

/// What became of a node that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Added {
    New,
    /// It is known already, by this very fingerprint.
    Same,
    /// It is known by others, and nothing was written.
    Other(Vec<KnownNode>),
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct KnownNodes(Kept);

impl KnownNodes {
    pub(crate) fn open() -> Result<Self, Failure> {
        Kept::named(FILE).map(Self)
    }

    pub(crate) fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    /// All of them, in the file's order.
    pub(crate) fn list(&self) -> Result<Vec<KnownNode>, Failure> {
        self.read(&self.0.read()?)
    }

    /// What is known of one.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Result<Vec<KnownNode>, Failure> {
        Ok(of(self.list()?, endpoint))
    }

    pub(crate) fn add(
        &self,
        endpoint: &Endpoint,
        fingerprint: Fingerprint,
        now: SystemTime,
    ) -> Result<Added, Failure> {
        self.0.edit(|text| {
            let known = of(self.read(text)?, endpoint);
            if known.iter().any(|node| node.fingerprint == fingerprint) {
                return Ok((Added::Same, None));
            }
            if !known.is_empty() {
                return Ok((Added::Other(known), None));
            }
            Ok((Added::New, Some(with(text, endpoint, fingerprint, &moment(now)))))
        })
    }

    /// Forgets a node, and says how many lines went.
    pub(crate) fn remove(&self, endpoint: &Endpoint) -> Result<usize, Failure> {
        self.0.edit(|text| {
            let gone: Vec<_> =
                of(self.read(text)?, endpoint).iter().map(|node| node.line).collect();
            let left = (!gone.is_empty()).then(|| without(text, &gone));
            Ok((gone.len(), left))
        })
    }

    fn read(&self, text: &str) -> Result<Vec<KnownNode>, Failure> {
        parse(text).map_err(|error| {
            Failure::new(format!("cannot read {}", self.path()))
                .because(error)
                .next("mend or delete that line; osctl trusts nobody by a file that it does not understand")
        })
    }
}

fn of(mut nodes: Vec<KnownNode>, endpoint: &Endpoint) -> Vec<KnownNode> {
    let name = endpoint.to_string();
    nodes.retain(|node| node.endpoint == name);
    nodes
}

fn parse(text: &str) -> Result<Vec<KnownNode>, KnownError> {
    let mut nodes = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default();
        let mut fields = text.split_whitespace();
        let Some(endpoint) = fields.next() else { continue };
        let wrong = |why: String| KnownError { line, why };
        let endpoint = Endpoint::parse(endpoint).map_err(|error| wrong(error.to_string()))?;
        let fingerprint = fields.next().ok_or_else(|| wrong("it has no fingerprint".to_owned()))?;
        let fingerprint = fingerprint
            .parse()
            .map_err(|error: super::fingerprint::FingerprintError| wrong(error.to_string()))?;
        let since = fields.next().map(str::to_owned);
        nodes.push(KnownNode { endpoint: endpoint.to_string(), fingerprint, since, line });
    }
    Ok(nodes)
}

fn with(text: &str, endpoint: &Endpoint, fingerprint: Fingerprint, since: &str) -> String {
    let mut text = if text.is_empty() { HEAD.to_owned() } else { text.to_owned() };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    // Writing to a string does not fail.
    let _: std::fmt::Result = writeln!(text, "{endpoint} sha256:{fingerprint} {since}");
    text
}

fn without(text: &str, gone: &[usize]) -> String {
    let lines = (1..).zip(text.split_inclusive('\n'));
    lines.filter(|(line, _)| !gone.contains(line)).map(|(_, text)| text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fingerprint(byte: &str) -> Fingerprint {
        byte.repeat(32).parse().unwrap()
    }

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap()
    }

    fn check(text: &str, expect: &str) {
        let text = text.replace("FP", &"ab".repeat(32));
        let got = match parse(&text) {
            Ok(nodes) => nodes
                .iter()
                .map(|node| format!("{}@{}", node.endpoint, node.line))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        };
        assert!(got.starts_with(expect), "{text:?}: {got}");
    }

    #[test]
    fn files() {
        check("", "");
        check(
            "# a remark\n\n  a:1 FP\n[::1]:50051\tsha256:FP 2026-11-24T12:00:00Z # mine\n",
            "a:1@3 [::1]:50051@4",
        );
        check("A FP", "a:50051@1");
        check("a:1", "line 1 is not `HOST:PORT sha256:FINGERPRINT`: it has no fingerprint");
        check("\na:1 12", "line 2 is not `HOST:PORT sha256:FINGERPRINT`: a fingerprint has 64");
        check("a:x FP", "line 1 is not `HOST:PORT sha256:FINGERPRINT`: `a:x` is not an endpoint");
    }

    #[test]
    fn a_node_is_added_once_and_never_silently_changed() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownNodes(Kept::at(folder.path().join(FILE)));
        let now = SystemTime::UNIX_EPOCH;
        let node = endpoint("node-1");
        assert_eq!(known.add(&node, fingerprint("ab"), now).unwrap(), Added::New);
        assert_eq!(known.add(&node, fingerprint("ab"), now).unwrap(), Added::Same);
        let other = known.add(&node, fingerprint("cd"), now).unwrap();
        assert!(matches!(other, Added::Other(nodes) if nodes[0].line == 2));
        assert_eq!(known.of(&endpoint("node-1:50051")).unwrap().len(), 1);
        assert_eq!(known.of(&endpoint("node-1:1")).unwrap(), []);
        assert_eq!(known.remove(&endpoint("node-2")).unwrap(), 0);
        assert_eq!(known.remove(&node).unwrap(), 1);
        assert_eq!(known.0.read().unwrap(), HEAD);
    }

    proptest! {
        /// What somebody wrote between the lines stays as it is.
        #[test]
        fn adding_and_removing_gives_the_file_back(remarks in "(#[a-z ]{0,9}\n|\n){1,4}") {
            let node = endpoint("10.0.0.7");
            let text = with(&remarks, &node, fingerprint("ab"), "now");
            let line = parse(&text).unwrap()[0].line;
            prop_assert_eq!(without(&text, &[line]), remarks);
        }
    }
}
