//! What of a broken machine config still holds: whom the machine lets in.
//!
//! A machine whose config is broken comes up with little more than its API. Were the config's word on whom to trust lost with the rest, a
//! mistake in any other key would open a machine that is closed to all but a few.

use toml::{Table, Value};
use toml_writer::{TomlStringBuilder, TomlWrite as _};

/// The key of `[agent]` that closes a machine.
const TRUSTED_CA: &str = "trusted-ca";

/// The shipped agent trusts whom this variable names, and nobody at all if it is empty.
const SHUT: &str = "schema = 1\n[units.keel-agent.service.environment]\nKEEL_TRUSTED_CA = \"\"\n";

/// Machine configs for a machine whose own is broken, the best first. Each says as little as it can, and none lets in more people than the
/// broken one did.
pub fn rescue(broken: &str) -> Vec<String> {
    let mut configs = Vec::new();
    if let Ok(config) = toml::from_str::<Table>(broken)
        && let Some(trusted) = config.get("agent").and_then(|agent| agent.get(TRUSTED_CA))
        && let Some(trusted) = written(trusted)
    {
        configs.push(format!("schema = 1\n[agent]\n{TRUSTED_CA} = {trusted}\n"));
    }
    // Wherever it stands, and in whatever state: someone wanted this machine closed.
    match broken.contains(TRUSTED_CA) {
        true => configs.push(SHUT.to_owned()),
        false => configs.push("schema = 1\n".to_owned()),
    }
    configs
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
        check("agent.trusted-ca = \"a\"\nagent.trusted-ca = \"b\"\n", &[SHUT]);
    }
}
