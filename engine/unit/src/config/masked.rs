//! A machine config that is shown to people, and comes back from them: its secrets do not leave the machine, and are not lost.

use toml_writer::{TomlStringBuilder, TomlWrite as _};

use crate::secret;
use crate::source::{Sources, Span};
use crate::tree::{Node, Table, Value, parse};

/// The text with `stand_in` where a secret stands, or may stand: in `[secrets]`, and as the content of a file. A text that is no TOML is
/// not shown at all.
pub fn masked(text: &str, stand_in: &str) -> String {
    let Some(config) = table(text) else {
        return "# This text is no TOML, and nobody knows where secrets stand in it.\n".to_owned();
    };
    let spans = secret::inline(&config, true);
    replaced(
        text,
        spans.into_iter().map(|span| (span, Change::Text(stand_in.to_owned()))).collect(),
    )
}

/// The text with what stood in `earlier` wherever `stand_in` stands for it.
pub fn restored(text: &str, earlier: &str, stand_in: &str) -> String {
    let (Some(config), Some(earlier)) = (table(text), table(earlier)) else {
        return text.to_owned();
    };
    let mut found = Vec::new();
    let mut restore = |path: &[&str]| {
        let at = |table: &Table| table.get(path[0]).and_then(|node| node.at(&path[1..])).cloned();
        if let (Some(now), Some(Node { value: Value::String(was), .. })) =
            (at(&config), at(&earlier))
            && now.as_str() == Some(stand_in)
        {
            found.push((now.span, Change::Text(was)));
        }
    };
    let names = |key: &str| {
        let table = config.get(key).and_then(Node::as_table);
        table.into_iter().flat_map(Table::iter).map(|entry| entry.key.as_str())
    };
    secret::KEYS.into_iter().for_each(&mut restore);
    names(secret::TABLE).for_each(|name| restore(&[secret::TABLE, name]));
    names("units").for_each(|unit| restore(&["units", unit, "file", "content"]));
    replaced(text, found)
}

/// A text as a table; nothing if it is no TOML.
pub(super) fn table(text: &str) -> Option<Table> {
    let mut sources = Sources::default();
    let file = sources.add("config", text);
    let mut findings = Vec::new();
    let node = parse(&sources, file, &mut findings);
    match node.value {
        Value::Table(table) if findings.is_empty() => Some(table),
        _ => None,
    }
}

/// What is put in place of something else.
pub(super) enum Change {
    /// As a TOML string, on one line.
    Text(String),
    /// As it is.
    Bare(String),
}

/// The text with these in place of what stands at their spans.
pub(super) fn replaced(text: &str, mut with: Vec<(Span, Change)>) -> String {
    let mut text = text.to_owned();
    with.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    for (span, new) in with {
        let literal = match new {
            Change::Bare(text) => text,
            Change::Text(new) => {
                let mut literal = String::new();
                // Writing into a string does not fail.
                let _ = literal.value(TomlStringBuilder::new(&new).as_basic());
                literal
            }
        };
        let range = span.start as usize..span.end as usize;
        if text.get(range.clone()).is_some() {
            text.replace_range(range, &literal);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str) {
        let masked = masked(text, "<secret>");
        assert_eq!(masked, shown);
        // What comes back as it was shown is what it was.
        assert_eq!(table(&restored(&masked, text, "<secret>")).map(plain), table(text).map(plain));
    }

    /// A table without its places.
    fn plain(table: Table) -> String {
        let mut out = String::new();
        for entry in table.iter() {
            let value = match &entry.node.value {
                Value::Table(inner) => plain(inner.clone()),
                value => format!("{value:?}"),
            };
            out += &format!("{}={value};", entry.key);
        }
        out
    }

    #[test]
    fn secrets_stay_where_they_are() {
        check("schema = 1 # as it is\n", "schema = 1 # as it is\n");
        check(
            "schema = 1\n[secrets]\na = 'x'\nb = \"\"\"two\nlines \\\" \"\"\"\n[machine]\nid = 'n'\n",
            "schema = 1\n[secrets]\na = \"<secret>\"\nb = \"<secret>\"\n[machine]\nid = 'n'\n",
        );
        check("secrets.a = 'x'\nschema = 1\n", "secrets.a = \"<secret>\"\nschema = 1\n");
        check(
            "schema = 1\n[cluster]\ntoken = 'x'\nca-hash = 'y'\n",
            "schema = 1\n[cluster]\ntoken = \"<secret>\"\nca-hash = 'y'\n",
        );
        check(
            "schema = 1\n[units.token.file]\ncontent = 'x'\nmode = '0600'\n",
            "schema = 1\n[units.token.file]\ncontent = \"<secret>\"\nmode = '0600'\n",
        );
    }

    #[test]
    fn what_is_new_is_not_replaced() {
        let earlier = "schema = 1\n[secrets]\na = 'old'\nb = 'old'\n";
        let edited = "schema = 1\n[secrets]\na = '<secret>'\nb = 'new'\nc = '<secret>'\n";
        let expect = "schema = 1\n[secrets]\na = \"old\"\nb = 'new'\nc = '<secret>'\n";
        assert_eq!(restored(edited, earlier, "<secret>"), expect);
    }

    #[test]
    fn nobody_knows_what_a_broken_text_holds() {
        assert!(!masked("[secrets\na = 'hunter2'\n", "<secret>").contains("hunter2"));
    }
}
