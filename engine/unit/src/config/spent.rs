//! Credentials for joining a cluster that have done their work: they go, and their hash stays in their place.

use sha2::{Digest as _, Sha256};

use super::masked::{Change, replaced, table};
use crate::reference::single;
use crate::secret::{self, KEYS};
use crate::tree::{Node, Table};

/// The key that stands in place of the credentials.
const SPENT: &str = "spent";

/// The text without the credentials for joining a cluster; nothing if it holds none. `cluster.spent` stands in their place, with their
/// SHA-256. A secret that is named there, and nowhere else, is emptied.
pub fn spent(text: &str) -> Option<String> {
    let config = table(text)?;
    let cluster = config.get(KEYS[0][0])?.as_table()?;
    let mut changes = Vec::new();
    for key in KEYS {
        let Some(entry) = cluster.iter().find(|entry| entry.key == key[1]) else { continue };
        let credentials = entry.node.as_str()?;
        let named = single(credentials).and_then(|inside| secret(&config, inside));
        let hashed = match &named {
            Some((_, node)) => node.as_str()?,
            None => credentials,
        };
        changes.push((entry.key_span, Change::Bare(SPENT.to_owned())));
        changes.push((entry.node.span, Change::Text(hash(hashed))));
        if let Some((name, node)) = named
            && uses(text, name) == 1
        {
            changes.push((node.span, Change::Text(String::new())));
        }
    }
    (!changes.is_empty()).then(|| replaced(text, changes))
}

/// The hash of the credentials that were there.
pub fn spent_hash(text: &str) -> Option<String> {
    let config = table(text)?;
    config.get(KEYS[0][0])?.at(&[SPENT])?.as_str().map(str::to_owned)
}

/// The secret that a reference names: `secrets.NAME`, or `secrets['NAME']`.
fn secret<'a>(config: &'a Table, reference: &str) -> Option<(&'a str, &'a Node)> {
    let rest = reference.strip_prefix(secret::TABLE)?;
    let name = rest.trim_matches(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
    let entry = config.get(secret::TABLE)?.as_table()?.iter().find(|entry| entry.key == name)?;
    Some((entry.key.as_str(), &entry.node))
}

/// How often a reference names the secret. Too often rather than too seldom.
fn uses(text: &str, name: &str) -> usize {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let uses = |by: &str| {
        let whole = format!("{}{by}{name}", secret::TABLE);
        let used = text.match_indices(&whole).filter(|(at, _)| {
            let after = &text[at + whole.len()..];
            // A line of its own sets the secret and does not use it.
            !after.starts_with(goes_on) && !after.trim_start().starts_with('=')
        });
        used.count()
    };
    [".", "['", "[\""].into_iter().map(uses).sum()
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SHA-256 of `x`.
    const X: &str = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

    #[test]
    fn the_credentials_go_and_their_hash_stays() {
        let check = |text: &str, expect: Option<&str>| {
            let expect = expect.map(|it| it.replace("HASH", X));
            assert_eq!(spent(text), expect, "{text}");
            if let Some(expect) = expect {
                assert_eq!(spent_hash(&expect).as_deref(), Some(X));
                assert_eq!(spent(&expect), None, "once");
            }
        };
        check("schema = 1\n", None);
        check("schema = 1\n[cluster]\nnode-name = 'n'\n", None);
        check("no TOML [", None);
        check(
            "[cluster] # here\ntoken = 'x' # a token\nca-hash = 'y'\n",
            Some("[cluster] # here\nspent = \"HASH\" # a token\nca-hash = 'y'\n"),
        );
        check("cluster.token = 'x'\n", Some("cluster.spent = \"HASH\"\n"));
        check("cluster = { token = 'x' }\n", Some("cluster = { spent = \"HASH\" }\n"));
        check("cluster.kubeconfig = '''x'''\n", Some("cluster.spent = \"HASH\"\n"));
        for reference in ["secrets.join", "secrets['join']"] {
            let text = format!(
                "[cluster]\ntoken = \"{{{{ {reference} }}}}\"\n[secrets]\njoin = 'x'\njoin-2 = 'z'\n"
            );
            check(
                &text,
                Some("[cluster]\nspent = \"HASH\"\n[secrets]\njoin = \"\"\njoin-2 = 'z'\n"),
            );
        }
        check(
            "cluster.token = '{{ secrets.join }}'\nsecrets.join = 'x'\n",
            Some("cluster.spent = \"HASH\"\nsecrets.join = \"\"\n"),
        );
        // Somebody else needs it.
        check(
            "cluster.token = '{{ secrets.a }}'\nsecrets.a = 'x'\nunits.u.file.content = '{{ secrets.a }}'\n",
            Some(
                "cluster.spent = \"HASH\"\nsecrets.a = 'x'\nunits.u.file.content = '{{ secrets.a }}'\n",
            ),
        );
    }
}
