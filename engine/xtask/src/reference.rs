//! The reference of unit files and machine configs, made from the key tables that their decoder is made from: it cannot
//! say anything else than what is read.

use std::collections::BTreeMap;
use std::fmt::Write;

use keel_image::Inventory;
use keel_unit::KindName;
use keel_unit::config::MachineConfig;
use keel_unit::json_schema;
use keel_unit::keys::{Key, Table};
use keel_unit::rules::RULES;
use keel_unit::unit::Words;

const NOTE: &str = "<!-- Made by `cargo xtask codegen` from the key tables of engine/unit. Edit those, not this. -->\n";

/// Every page: file name -> text.
pub(crate) fn pages() -> BTreeMap<String, String> {
    [("units.md", units()), ("machine-config.md", machine_config()), ("findings.md", findings())]
        .map(|(name, text)| (name.to_owned(), text))
        .into()
}

/// The schemas for editors: file name -> text.
pub(crate) fn schemas() -> BTreeMap<String, String> {
    let schemas = [
        ("inventory.json", Inventory::json_schema()),
        ("machine-config.json", json_schema::machine_config()),
        ("unit.json", json_schema::unit()),
    ];
    schemas.map(|(name, schema)| (name.to_owned(), format!("{schema:#}\n"))).into()
}

fn units() -> String {
    let mut page = format!(
        "# Unit reference\n\n{NOTE}\nA unit file has the keys of every unit, and one table that names its kind. What they \
         mean together is told in [Writing units](../units.md).\n\n## Every unit\n\n"
    );
    keys(&mut page, "", Words::known(), 3);
    for kind in KindName::ALL {
        let _ = write!(page, "## `[{kind}]`\n\n{}\n\n", prose(kind.doc()));
        keys(&mut page, kind.as_str(), kind.keys(), 3);
    }
    trimmed(page)
}

fn findings() -> String {
    let mut page = format!(
        "# Findings\n\n{NOTE}\nEach finding of `osctl validate` and of `osctl verify` names one of these rules; `--format sarif`, `github` and `json` carry its code.\n\n"
    );
    for rule in RULES {
        let _ = write!(page, "## {}\n\n{}. {}\n\n", rule.code, rule.title, rule.text);
    }
    trimmed(page)
}

fn machine_config() -> String {
    let mut page = format!(
        "# Machine config reference\n\n{NOTE}\nHow the keys are used is told in [Machine config](../machine-config.md).\n\n"
    );
    keys(&mut page, "", MachineConfig::known(), 2);
    trimmed(page)
}

/// A table of keys, and below it those of the tables inside.
fn keys(page: &mut String, path: &str, keys: &[Key], level: usize) {
    if keys.is_empty() {
        page.push_str("It has no keys.\n\n");
        return;
    }
    page.push_str("| key | value | default | |\n|---|---|---|---|\n");
    for key in keys {
        let default = match (key.required, key.default) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("`{}`", cell(default)),
            (false, None) => "not set".to_owned(),
        };
        let (name, value, doc) = (key.name, cell(&(key.expected)()), cell(&prose(key.doc)));
        let _ = writeln!(page, "| `{name}` | {value} | {default} | {doc} |");
    }
    page.push('\n');
    for key in keys {
        let inner = (key.inner)();
        if !inner.is_empty() {
            let path =
                if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            let _ = write!(page, "{} `{path}`\n\n{}\n\n", "#".repeat(level), prose(key.doc));
            self::keys(page, &path, inner, (level + 1).min(6));
        }
    }
}

/// A doc comment as one paragraph.
fn prose(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text that may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn trimmed(mut page: String) -> String {
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_key_is_told() {
        let pages = pages();
        let units = &pages["units.md"];
        for kind in KindName::ALL {
            assert!(units.contains(&format!("## `[{kind}]`\n")), "{kind}");
            for key in kind.keys() {
                assert!(units.contains(&format!("| `{}` |", key.name)), "{kind} {}", key.name);
            }
        }
        assert!(units.contains("### `service.resources`\n"));
        assert!(pages["machine-config.md"].contains("### `storage.data`\n"));
    }

    #[test]
    fn no_bar_breaks_a_table() {
        for (name, page) in pages() {
            for line in page.lines().filter(|line| line.starts_with("| ")) {
                let bars = line.replace("\\|", "").matches('|').count();
                assert_eq!(bars, 5, "{name}: {line}");
            }
        }
    }
}
