//! TOML with a span on every value: what is read before anything is given a meaning.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Sources, Span};

/// A value and where it stands. A tree may join values of several files (drop-ins), so the span names its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the value stands.
    pub span: Span,
    /// The value.
    pub value: Value,
}

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    String(String),
    /// An integer; TOML's are 64 bits wide.
    Integer(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Boolean(bool),
    /// A date or time, kept as it was written.
    Datetime(String),
    /// An array.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
}

/// A table in the order in which its keys were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub node: Node,
}

impl Node {
    /// What the value is, with an article: "a string".
    pub fn article(&self) -> &'static str {
        match self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// The same value as if all of it stood at `span`.
    pub fn moved(&self, span: Span) -> Node {
        let value = match &self.value {
            Value::Array(items) => Value::Array(items.iter().map(|i| i.moved(span)).collect()),
            Value::Table(table) => Value::Table(
                table
                    .iter()
                    .map(|e| Entry { key: e.key.clone(), key_span: span, node: e.node.moved(span) })
                    .collect(),
            ),
            other => other.clone(),
        };
        Node { span, value }
    }

    /// The value below a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.as_table()?.get(key))
    }
}

impl Table {
    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.node)
    }

    /// The entry of a key, to be changed.
    pub(crate) fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.key == key)
    }

    /// Takes out the entries for which `taken` holds, which may change those that stay.
    pub(crate) fn extract_if(&mut self, taken: impl FnMut(&mut Entry) -> bool) -> Vec<Entry> {
        self.entries.extract_if(.., taken).collect()
    }

    /// Keeps the entries that hold.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.entries.retain(keep);
    }

    /// At which place each key stands.
    pub(crate) fn places(&self) -> HashMap<String, usize> {
        self.entries.iter().enumerate().map(|(i, e)| (e.key.clone(), i)).collect()
    }

    /// The entry at a place, to be changed.
    pub(crate) fn entry_at(&mut self, place: usize) -> Option<&mut Entry> {
        self.entries.get_mut(place)
    }

    /// The entries, to be changed.
    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    /// The entries in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends an entry; the caller knows that the key is new.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Lays `over` on top: tables merge, everything else is replaced.
    pub fn merge(&mut self, over: &Table) {
        let places = self.places();
        for new in &over.entries {
            match places.get(&new.key).and_then(|i| self.entries.get_mut(*i)) {
                Some(old) => match (&mut old.node.value, &new.node.value) {
                    (Value::Table(below), Value::Table(above)) => below.merge(above),
                    _ => *old = new.clone(),
                },
                None => self.entries.push(new.clone()),
            }
        }
    }
}

impl FromIterator<Entry> for Table {
    fn from_iter<I: IntoIterator<Item = Entry>>(iter: I) -> Self {
        Table { entries: iter.into_iter().collect() }
    }
}

/// Parses one file of `sources`. Syntax errors go to `findings`; what could be read is returned all the same.
pub fn parse(sources: &Sources, file: FileId, findings: &mut Vec<Diagnostic>) -> Node {
    let text = sources.text(file);
    if let Some(rejected) = reject(file, &text) {
        findings.push(rejected);
        return Node { span: Span::whole(file), value: Value::Table(Table::default()) };
    }
    let (table, errors) = DeTable::parse_recoverable(&text);
    let broken = !errors.is_empty();
    // One slip makes a parser stumble over everything behind it; more than a few say nothing new.
    for error in errors.into_iter().take(5) {
        let at = error.span().unwrap_or(0..0);
        let span = Span { file, start: at.start as u32, end: at.end as u32 };
        let message = one_line(error.message());
        let first = (message == "duplicate key").then(|| first_place(&text, &at)).flatten();
        let label = match message.as_ref() {
            "duplicate key" => "written once already",
            _ => "not TOML from here",
        };
        let zero = message.contains("leading zero");
        let found = Diagnostic::new("syntax", span, message).label(label);
        let found = match first {
            Some(at) => {
                found.also(Span { file, start: at.start as u32, end: at.end as u32 }, "the first")
            }
            None => found,
        };
        findings.push(match zero {
            true => found.help("a mode stands in quotes, as in \"0644\""),
            false => found,
        });
    }
    if broken {
        return Node { span: Span::whole(file), value: Value::Table(Table::default()) };
    }
    let span = Span { file, start: 0, end: text.len() as u32 };
    Node { span, value: Value::Table(convert_table(file, table.into_inner(), findings)) }
}

/// Where a key that is written twice, the second time at `again`, was written first.
///
/// The parser does not say. Of the keys of this name before it, it is the one without which the second is no error.
fn first_place(text: &str, again: &Range<usize>) -> Option<Range<usize>> {
    const MOST: usize = 8;
    let key = text.get(again.clone())?.trim_matches(['"', '\'']);
    let (before, _) = DeTable::parse_recoverable(text.get(..again.start)?);
    let mut places = Vec::new();
    places_of(before.get_ref(), key, &mut places);
    places.sort_by_key(|place| Reverse(place.start));
    places.into_iter().take(MOST).find(|place| {
        let mut without = text.to_owned();
        without.replace_range(place.clone(), &"_".repeat(place.len()));
        let (_, errors) = DeTable::parse_recoverable(&without);
        errors.iter().all(|error| error.span().as_ref() != Some(again))
    })
}

// Recursion is bounded as in `convert_table`.
fn places_of(table: &DeTable<'_>, key: &str, places: &mut Vec<Range<usize>>) {
    for (name, value) in table {
        if name.get_ref() == key {
            places.push(name.span());
        }
        match value.get_ref() {
            DeValue::Table(inner) => places_of(inner, key, places),
            DeValue::Array(items) => {
                for item in items.iter() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        places_of(inner, key, places);
                    }
                }
            }
            _ => {}
        }
    }
}

/// What editors and version control do to a text, and what no unit file may hold.
fn reject(file: FileId, text: &str) -> Option<Diagnostic> {
    let at =
        |start: usize, len: usize| Span { file, start: start as u32, end: (start + len) as u32 };
    if text.starts_with('\u{feff}') {
        let found =
            Diagnostic::new("byte-order-mark", at(0, 3), "the file starts with a byte order mark");
        return Some(
            found.label("these three bytes are invisible").help("save it as UTF-8 without BOM"),
        );
    }
    if let Some(nul) = text.find('\0') {
        return Some(
            Diagnostic::new("nul", at(nul, 1), "the file holds a NUL character").label("here"),
        );
    }
    if let Some(cr) = text.find('\r') {
        let found = Diagnostic::new("carriage-return", at(cr, 1), "the file has a carriage return");
        return Some(
            found.label("here").help("end lines with LF alone (`sed -i 's/\\r$//' FILE`)"),
        );
    }
    None
}

fn one_line(message: &str) -> Cow<'_, str> {
    match message.trim_end().contains('\n') {
        true => message.lines().map(str::trim).collect::<Vec<_>>().join("; ").into(),
        false => message.trim_end().into(),
    }
}

// Recursion is bounded: the parser refuses more than 80 levels of nesting.
fn convert_table(file: FileId, table: DeTable<'_>, findings: &mut Vec<Diagnostic>) -> Table {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .filter_map(|(key, value)| {
            let range = key.span();
            let key_span = Span { file, start: range.start as u32, end: range.end as u32 };
            let node = convert(file, value, findings)?;
            Some(Entry { key: key.into_inner().into_owned(), key_span, node })
        })
        .collect();
    entries.sort_by_key(|e| e.key_span);
    Table { entries }
}

fn convert(
    file: FileId,
    value: toml::Spanned<DeValue<'_>>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Node> {
    let range = value.span();
    let span = Span { file, start: range.start as u32, end: range.end as u32 };
    let value = match value.into_inner() {
        DeValue::String(s) => Value::String(s.into_owned()),
        DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
            Ok(i) => Value::Integer(i),
            Err(_) => {
                let found =
                    Diagnostic::new("out-of-range", span, "the integer does not fit 64 bits");
                findings.push(found.label("too large"));
                return None;
            }
        },
        DeValue::Float(f) => match f.as_str().parse() {
            Ok(f) => Value::Float(f),
            Err(_) => {
                findings.push(Diagnostic::new("out-of-range", span, "the number cannot be read"));
                return None;
            }
        },
        DeValue::Boolean(b) => Value::Boolean(b),
        DeValue::Datetime(d) => Value::Datetime(d.to_string()),
        DeValue::Array(items) => Value::Array(
            items.into_iter().filter_map(|item| convert(file, item, findings)).collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(file, table, findings)),
    };
    Some(Node { span, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let mut sources = Sources::default();
        let file = sources.add("f.toml", text);
        let mut findings = Vec::new();
        parse(&sources, file, &mut findings);
        let found: Vec<_> = findings.iter().map(|d| d.code).collect();
        assert_eq!(found, expect, "{:?}", text.chars().take(60).collect::<String>());
    }

    #[test]
    fn what_is_not_plain_toml_is_told() {
        check("a = 1\n[b]\nc = \"x\"\n", &[]);
        check("\u{feff}a = 1\n", &["byte-order-mark"]);
        check("a = 1\r\n", &["carriage-return"]);
        check("a = \"\0\"\n", &["nul"]);
        check("a = 99999999999999999999\n", &["out-of-range"]);
        check("a = \n", &["syntax"]);
        check("a = 1\na = 2\n", &["syntax"]);
    }

    #[test]
    fn a_key_that_is_written_twice_shows_the_first_place() {
        // The text, and where the first of the two begins.
        for (text, first) in [
            ("a = 1\nb = 2\na = 3\n", Some(0)),
            ("a = 1\n[t]\nx = 1\na = 2\n\"a\" = 3\n", Some(16)),
            ("[t]\na = 1\n[u]\na = 2\n[t]\nb = 1\n", Some(1)),
            ("t = { a = 1, b = 2, a = 3 }\na = 1\n", Some(6)),
            ("t.a = 1\nt.a = 2\n", Some(2)),
        ] {
            let mut sources = Sources::default();
            let file = sources.add("f.toml", text);
            let mut findings = Vec::new();
            parse(&sources, file, &mut findings);
            let others = findings.first().map(|d| d.others.first().map(|l| l.span.start));
            assert_eq!(others, Some(first), "{text:?}: {findings:?}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused_and_not_followed() {
        let text = format!("a = {}", "[".repeat(100_000));
        let mut sources = Sources::default();
        let file = sources.add("deep.toml", text);
        let mut findings = Vec::new();
        parse(&sources, file, &mut findings);
        assert!(!findings.is_empty() && findings.len() <= 5);
    }

    #[test]
    fn a_drop_in_merges_tables_and_replaces_the_rest() {
        let mut sources = Sources::default();
        let (a, b) = (
            sources.add("a", "x = [1]\n[t]\nk = 1\nl = 2\n"),
            sources.add("b", "x = [2]\n[t]\nl = 3\nm = 4\n"),
        );
        let mut findings = Vec::new();
        let Value::Table(mut below) = parse(&sources, a, &mut findings).value else {
            unreachable!()
        };
        let Value::Table(above) = parse(&sources, b, &mut findings).value else { unreachable!() };
        below.merge(&above);
        let t = below.get("t").and_then(Node::as_table).unwrap();
        let values: Vec<_> =
            t.iter().map(|e| (e.key.as_str(), e.node.value.clone(), e.node.span.file)).collect();
        assert_eq!(
            values,
            [("k", Value::Integer(1), a), ("l", Value::Integer(3), b), ("m", Value::Integer(4), b)]
        );
        assert_eq!(below.get("x").unwrap().span.file, b);
    }
}
