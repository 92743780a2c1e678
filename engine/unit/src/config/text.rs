//! A machine config as TOML again: what holds, for people; and all files as one, for a machine.

use std::fmt;

use toml_writer::{TomlKeyBuilder, TomlStringBuilder, TomlWrite as _};

use super::Effective;
use crate::patch::appended;
use crate::source::{Location, Span};
use crate::tree::{Entry, Node, Table, Value};

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: it is the key's default.
    Default,
    /// Whoever wrote it here.
    Written(Location),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Written(at) => at.fmt(f),
        }
    }
}

impl Effective {
    /// Who set the value that stands at `span`.
    pub fn origin(&self, span: Span) -> Origin {
        match span.is_default() {
            true => Origin::Default,
            false => Origin::Written(self.sources.locate(span)),
        }
    }

    /// The config as TOML, which reads as the same config again; `origins` adds to each value who set it.
    pub fn toml(&self, origins: bool) -> String {
        let origin = |span| self.origin(span).to_string();
        let writer =
            Writer { out: String::new(), origin: if origins { Some(&origin) } else { None } };
        let mut text = writer.document(&self.table);
        if origins && !self.unset.is_empty() {
            text.push_str("\n# Unset by a patch: the default holds, or there is no value.\n");
            for unset in &self.unset {
                let path: Vec<_> = unset.path.iter().map(|part| key(part)).collect();
                let line = format!("# {}  # {}", path.join("."), self.origin(unset.span));
                text.extend(line.chars().filter(|c| !c.is_control()));
                text.push('\n');
            }
        }
        text
    }
}

/// All files of a config as one.
pub(super) fn merged(table: &Table) -> String {
    let text = Writer { out: String::new(), origin: None }.document(table);
    format!("# Merged by osctl from several files: change those, and not this.\n{text}")
}

struct Writer<'a> {
    out: String,
    /// Who set what stands at a place, where that is to be written.
    origin: Option<&'a dyn Fn(Span) -> String>,
}

/// A line, and what is said of it.
struct Line {
    text: String,
    origin: Option<String>,
}

/// Tables that get a header of their own. An empty one is a value like any other, and so is one that adds to a list.
fn headed(node: &Node) -> bool {
    match &node.value {
        Value::Table(table) => !table.is_empty() && appended(&node.value).is_none(),
        Value::Array(items) => !items.is_empty() && items.iter().all(|i| i.as_table().is_some()),
        _ => false,
    }
}

impl Writer<'_> {
    fn document(mut self, table: &Table) -> String {
        self.table("", table, None);
        self.out
    }

    /// A table with its header, then the tables inside.
    ///
    /// Recursion is bounded: the parser refuses more than 80 levels of nesting.
    fn table(&mut self, path: &str, table: &Table, header: Option<String>) {
        let simple: Vec<&Entry> = table.iter().filter(|e| !headed(&e.node)).collect();
        // A table of tables alone needs no header, but an item of an array does.
        let needed = header.as_ref().is_some_and(|h| h.starts_with("[[") || !simple.is_empty());
        if let Some(header) = header.filter(|_| needed) {
            if !self.out.is_empty() {
                self.out.push('\n');
            }
            self.out.push_str(&header);
            self.out.push('\n');
        }
        let lines: Vec<Line> = simple.into_iter().flat_map(|entry| self.entry(entry)).collect();
        self.lines(&lines);
        for Entry { key, node, .. } in table.iter().filter(|e| headed(&e.node)) {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{}", self::key(key));
            match &node.value {
                Value::Table(table) => self.table(&path, table, Some(format!("[{path}]"))),
                Value::Array(items) => {
                    for table in items.iter().filter_map(Node::as_table) {
                        self.table(&path, table, Some(format!("[[{path}]]")));
                    }
                }
                _ => {}
            }
        }
    }

    fn entry(&self, entry: &Entry) -> Vec<Line> {
        let key = key(&entry.key);
        let origin = |span| self.origin.map(|origin| origin(span));
        if let (Value::Array(items), Some(_)) = (&entry.node.value, self.origin)
            && items.iter().any(|item| item.span.file != entry.node.span.file)
        {
            let line = |item: &Node| Line {
                text: format!("    {},", value(item)),
                origin: origin(item.span),
            };
            let bare = |text: String| Line { text, origin: None };
            let open = std::iter::once(bare(format!("{key} = [")));
            return open.chain(items.iter().map(line)).chain([bare("]".to_owned())]).collect();
        }
        let text = format!("{key} = {}", value(&entry.node));
        vec![Line { text, origin: origin(entry.node.span) }]
    }

    fn lines(&mut self, lines: &[Line]) {
        const WIDEST: usize = 60;
        let width = |line: &Line| line.text.chars().count();
        let widths = lines.iter().filter(|l| l.origin.is_some()).map(width);
        let column = widths.filter(|w| *w <= WIDEST).max().unwrap_or(0);
        for line in lines {
            self.out.push_str(&line.text);
            if let Some(origin) = &line.origin {
                // The name of a file may hold what ends a comment.
                let origin: String = origin.chars().filter(|c| !c.is_control()).collect();
                let gap = column.saturating_sub(width(line));
                self.out.push_str(&format!("{:gap$}  # {origin}", ""));
            }
            self.out.push('\n');
        }
    }
}

/// A key, quoted where it must be.
pub(crate) fn key(key: &str) -> String {
    let mut out = String::new();
    // Writing into a text cannot fail.
    let _: fmt::Result = out.key(TomlKeyBuilder::new(key).as_default());
    out
}

/// A value on one line; but a text of several lines keeps them.
pub(crate) fn value(node: &Node) -> String {
    let mut out = String::new();
    let _: fmt::Result = match &node.value {
        Value::String(text) => {
            let text = TomlStringBuilder::new(text);
            out.value(text.as_basic_pretty().unwrap_or_else(|| text.as_default()))
        }
        Value::Integer(i) => out.value(i),
        Value::Float(f) => out.value(f),
        Value::Boolean(b) => out.value(b),
        Value::Datetime(date) => {
            out.push_str(date);
            Ok(())
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(value).collect();
            out.push_str(&format!("[{}]", items.join(", ")));
            Ok(())
        }
        Value::Table(table) if table.is_empty() => {
            out.push_str("{}");
            Ok(())
        }
        Value::Table(table) => {
            let entry = |e: &Entry| format!("{} = {}", key(&e.key), value(&e.node));
            let entries: Vec<_> = table.iter().map(entry).collect();
            out.push_str(&format!("{{ {} }}", entries.join(", ")));
            Ok(())
        }
    };
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::{FileId, Sources};
    use crate::tree::parse;

    /// Any table, without what no reader of ours takes.
    fn any_table() -> impl Strategy<Value = Table> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Value::String),
            "[a-z\"'\\\\\n\r\t ]{0,9}".prop_map(Value::String),
            any::<i64>().prop_map(Value::Integer),
            any::<bool>().prop_map(Value::Boolean),
            (-1e9..1e9).prop_map(Value::Float),
        ];
        let node = |value| Node { span: Span::whole(FileId::DEFAULT), value };
        let table = move |entries: std::collections::BTreeMap<String, Value>| -> Table {
            let entry = |(key, value)| Entry {
                key,
                key_span: Span::whole(FileId::DEFAULT),
                node: node(value),
            };
            entries.into_iter().map(entry).collect()
        };
        let value = leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone().prop_map(node), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(any_key(), inner, 0..4)
                    .prop_map(table)
                    .prop_map(Value::Table),
            ]
        });
        prop::collection::btree_map(any_key(), value, 0..5).prop_map(table)
    }

    fn any_key() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z-]{1,6}", any::<String>()]
    }

    /// Values without their places, whatever the order of the keys.
    fn plain(value: &Value) -> String {
        match value {
            Value::Array(items) => {
                format!("{:?}", items.iter().map(|i| plain(&i.value)).collect::<Vec<_>>())
            }
            Value::Table(table) => {
                let entries = table.iter().map(|e| (&e.key, plain(&e.node.value)));
                format!("{:?}", entries.collect::<std::collections::BTreeMap<_, _>>())
            }
            other => format!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(table in any_table()) {
            let text = merged(&table);
            let mut sources = Sources::default();
            let file = sources.add("written.toml", text.clone());
            let mut findings = Vec::new();
            let read = parse(&sources, file, &mut findings);
            prop_assert!(findings.is_empty(), "{findings:?}\n{text}");
            prop_assert_eq!(plain(&read.value), plain(&Value::Table(table)), "{}", text);
        }
    }
}
