//! What of a broken machine config still holds: whom the machine lets in, and who it is.
//!
//! A machine whose config is broken comes up with little more than its API. Were the config's word on whom to trust lost with the rest, a
//! mistake in any other key would open a machine that is closed to all but a few. Were the identity lost that the config carries, the
//! machine would make another, and look like somebody else to those who know it.

use std::fmt::Write as _;

use toml::{Table, Value};
use toml_writer::{TomlStringBuilder, TomlWrite as _};

/// The key of `[agent]` that closes a machine.
const TRUSTED_CA: &str = "trusted-ca";

/// The keys of `[agent]` that say whom to trust, and those that say who the machine is.
const TRUST: [&str; 2] = [TRUSTED_CA, "trusted-crl"];
const IDENTITY: [&str; 1] = ["certificate"];

/// Where the key of a given identity stands: in the environment of the programs that use it.
const PROGRAMS: [[&str; 3]; 2] =
    [["certificate", "oneshot", "environment"], ["keel-agent", "service", "environment"]];
const KEY: &str = "KEEL_NODE_KEY";

/// The shipped agent trusts whom this variable names, and nobody at all if it is empty.
const SHUT: &str = "schema = 1\n[units.keel-agent.service.environment]\nKEEL_TRUSTED_CA = \"\"\n";

/// A machine config for a machine of which nobody knows any more whom it lets in: nobody, but who the cluster it has joined vouches for.
pub fn shut() -> &'static str {
    SHUT
}

/// Machine configs for a machine whose own is broken, the best first. Each says as little as it can, and none lets in more people than the
/// broken one did.
pub fn rescue(broken: &str) -> Vec<String> {
    let mut configs = Vec::new();
    if let Ok(config) = toml::from_str::<Table>(broken) {
        let trust = agent(&config, &TRUST);
        let closed = trust.contains(TRUSTED_CA);
        let whole = agent(&config, &[TRUST.as_slice(), &IDENTITY].concat()) + &key(&config);
        // A closed machine stays so, whoever it is.
        if (closed || !broken.contains(TRUSTED_CA)) && whole != trust {
            configs.push(format!("schema = 1\n{whole}"));
        }
        if closed {
            configs.push(format!("schema = 1\n{trust}"));
        }
    }
    // Wherever it stands, and in whatever state: someone wanted this machine closed.
    match broken.contains(TRUSTED_CA) {
        true => configs.push(SHUT.to_owned()),
        false => configs.push("schema = 1\n".to_owned()),
    }
    configs
}

/// The table `[agent]` with these keys, as far as they can be made out.
fn agent(config: &Table, keys: &[&str]) -> String {
    let agent = config.get("agent");
    let value = |key: &&str| agent?.get(key).and_then(written);
    let lines: String =
        keys.iter().filter_map(|key| Some(format!("{key} = {}\n", value(key)?))).collect();
    match lines.is_empty() {
        true => lines,
        false => format!("[agent]\n{lines}"),
    }
}

/// The key of a given identity: where it is handed to the programs, and the secrets that are named there.
fn key(config: &Table) -> String {
    let under = |table: &Table, path: &[&str]| {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(table.get(*first)?, |value, key| value.get(key)).cloned()
    };
    let (mut out, mut texts) = (String::new(), String::new());
    for [unit, kind, environment] in PROGRAMS {
        let value = under(config, &["units", unit, kind, environment, KEY]);
        let text = value.as_ref().filter(|value| value.is_str()).and_then(written);
        if let Some(text) = text {
            // Writing into a text never fails.
            let _ = write!(out, "[units.{unit}.{kind}.{environment}]\n{KEY} = {text}\n");
            texts.push_str(&text);
        }
    }
    let secrets = config.get("secrets").and_then(Value::as_table).into_iter().flatten();
    let named = secrets.filter(|(name, _)| texts.contains(&format!("secrets.{name}")));
    let lines = named.filter_map(|(name, value)| {
        let value = value.is_str().then(|| written(value)).flatten()?;
        Some(format!("{} = {value}\n", name_of(name)))
    });
    let lines: String = lines.collect();
    if !lines.is_empty() {
        out.push_str("[secrets]\n");
        out.push_str(&lines);
    }
    out
}

/// A key as TOML: the names of secrets are bare ones, and what is none is quoted.
fn name_of(key: &str) -> String {
    let mut out = String::new();
    // Writing into a text never fails.
    let _ = out.key(key);
    out
}

/// A text, or a list of texts, as TOML.
fn written(value: &Value) -> Option<String> {
    let text = |value: &Value| {
        let mut out = String::new();
        out.value(TomlStringBuilder::new(value.as_str()?).as_default()).ok()?;
        Some(out)
    };
    match value {
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(text).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        value => text(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(broken: &str, expect: &[&str]) {
        assert_eq!(rescue(broken), expect, "{broken}");
    }

    #[test]
    fn a_closed_machine_stays_closed() {
        check("schema = 1\n[machine]\nhostnam = 1\n", &["schema = 1\n"]);
        check("", &["schema = 1\n"]);
        check(
            "x = 1\n[agent]\ntrusted-ca = \"a\\nb\"\n",
            &["schema = 1\n[agent]\ntrusted-ca = \"\"\"\na\nb\"\"\"\n", SHUT],
        );
        check(
            "[agent]\ntrusted-ca = ['a', 'b']\n",
            &["schema = 1\n[agent]\ntrusted-ca = [\"a\", \"b\"]\n", SHUT],
        );
        check("[agent]\ntrusted-ca = 7\n", &[SHUT]);
        check("[agent]\ntrusted-ca = \n", &[SHUT]);
        check("[agent\ntrusted-ca = \"a\"\n", &[SHUT]);
        check(
            "[agent]\ntrusted-ca = 'a'\ntrusted-crl = ['b']\n",
            &["schema = 1\n[agent]\ntrusted-ca = \"a\"\ntrusted-crl = [\"b\"]\n", SHUT],
        );
        check("agent.trusted-ca = \"a\"\nagent.trusted-ca = \"b\"\n", &[SHUT]);
    }

    /// An identity that was given, in a config that is broken elsewhere.
    const GIVEN: &str = "
        machine.hostnam = 1
        agent.certificate = 'CERT'
        secrets.node-key = 'KEY'
        secrets.other = 'x'
        [units.certificate.oneshot.environment]
        KEEL_NODE_KEY = '{{ secrets.node-key }}'
        OTHER = '{{ secrets.other }}'
        [units.keel-agent.service.environment]
        KEEL_NODE_KEY = '{{ secrets.node-key }}'
        ";

    #[test]
    fn a_given_identity_is_kept() {
        let kept = "\
            [units.certificate.oneshot.environment]\n\
            KEEL_NODE_KEY = \"{{ secrets.node-key }}\"\n\
            [units.keel-agent.service.environment]\n\
            KEEL_NODE_KEY = \"{{ secrets.node-key }}\"\n\
            [secrets]\nnode-key = \"KEY\"\n";
        let whole = format!("schema = 1\n[agent]\ncertificate = \"CERT\"\n{kept}");
        check(GIVEN, &[&whole, "schema = 1\n"]);
        let closed = format!("agent.trusted-ca = 'a'\n{GIVEN}");
        let whole =
            format!("schema = 1\n[agent]\ntrusted-ca = \"a\"\ncertificate = \"CERT\"\n{kept}");
        check(&closed, &[&whole, "schema = 1\n[agent]\ntrusted-ca = \"a\"\n", SHUT]);
        check(&format!("agent.trusted-ca = 7\n{GIVEN}"), &[SHUT]);
        check(&format!("{GIVEN}["), &["schema = 1\n"]);
    }
}
