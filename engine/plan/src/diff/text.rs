//! A difference as a page for a terminal: `+` is new, `-` is gone, `~` is another.

use std::fmt::Write;
use std::time::Duration;

use keel_unit::value::people;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::{Changed, Diff, Entry, Key};
use crate::export::{Edge, Setting};

/// Most units whose times are listed.
const MOST_SHIFTED: usize = 20;
/// Most units of a critical path that are listed.
const MOST_ON_PATH: usize = 24;
/// A list that takes more characters is compared item by item.
const LONG: usize = 60;
/// Lines around a change in a value of several lines.
const AROUND: usize = 2;

/// The page.
pub fn text(diff: &Diff) -> String {
    if diff.is_empty() {
        return format!("the same: {} units, {}\n", diff.new.units, shown(&diff.new.digest));
    }
    let mut out = String::new();
    for (mark, side) in [('-', &diff.old), ('+', &diff.new)] {
        let (units, edges) = (side.units, side.edges);
        let _ = writeln!(out, "{mark} {}  {units} units, {edges} edges", shown(&side.digest));
    }
    if diff.old.goal != diff.new.goal {
        let _ = writeln!(out, "~ goal {} -> {}", shown(&diff.old.goal), shown(&diff.new.goal));
    }
    if diff.nothing_found() {
        out.push_str("~ nothing that differs was exported, but the digests do\n");
    }
    units(&mut out, diff);
    edges(&mut out, diff);
    follows(&mut out, diff);
    out
}

fn units(out: &mut String, diff: &Diff) {
    if diff.added.is_empty() && diff.removed.is_empty() && diff.changed.is_empty() {
        return;
    }
    out.push_str("\nUnits\n");
    for (mark, entries) in [('+', &diff.added), ('-', &diff.removed)] {
        let width = |text: fn(&Entry) -> &String| {
            entries.iter().map(|entry| text(entry).chars().count()).max().unwrap_or(0)
        };
        let (name, kind) = (width(|entry| &entry.name), width(|entry| &entry.kind));
        for entry in entries {
            let place = shown(&format!("{}:{}", entry.file, entry.line));
            let (own, own_kind) = (shown(&entry.name), shown(&entry.kind));
            let _ = writeln!(out, "  {mark} {own:name$}  {own_kind:kind$}  {place}");
        }
    }
    for unit in &diff.changed {
        changed(out, unit);
    }
}

fn changed(out: &mut String, unit: &Changed) {
    let _ = writeln!(out, "  ~ {}", shown(&unit.name));
    if let Some([old, new]) = &unit.kind {
        let _ = writeln!(out, "      is a {}, was a {}", shown(new), shown(old));
    }
    if let Some([_, started]) = unit.started {
        let now = if started { "is now started" } else { "is no longer started" };
        let _ = writeln!(out, "      {now}");
    }
    for key in &unit.keys {
        key_change(out, key);
    }
}

fn key_change(out: &mut String, key: &Key) {
    let path = shown(&key.key);
    if let Some([old, new]) = by_lines(key) {
        let _ = writeln!(out, "      {path}  ({})", places(key));
        for line in line_changes(&old, &new) {
            let _ = writeln!(out, "        {}", shown(&line));
        }
        return;
    }
    let value = |setting: &Option<Setting>| {
        setting.as_ref().map_or("(not set)".to_owned(), |setting| shown(&toml(&setting.value)))
    };
    let _ = writeln!(
        out,
        "      {path}  {} -> {}  ({})",
        value(&key.old),
        value(&key.new),
        places(key)
    );
}

/// Where a key was set, and where it is set now.
pub(super) fn places(key: &Key) -> String {
    let place = |setting: &Setting| shown(&format!("{}:{}", setting.file, setting.line));
    match (key.old.as_ref().map(place), key.new.as_ref().map(place)) {
        (Some(old), Some(new)) if old != new => format!("{old} -> {new}"),
        (Some(old), None) => format!("was {old}"),
        (_, Some(new)) => new,
        (None, None) => String::new(),
    }
}

/// Both values by lines, if one of them takes several: a text that has them, or a list that is too long for one.
pub(super) fn by_lines(key: &Key) -> Option<[String; 2]> {
    let values = [&key.old.as_ref()?.value, &key.new.as_ref()?.value];
    let lines = values.map(|value| match value {
        Value::String(text) => Some((text.clone(), text.trim_end().contains('\n'))),
        list @ Value::Array(items) => {
            let lines = items.iter().map(|item| format!("{}\n", toml(item))).collect();
            Some((lines, toml(list).chars().count() > LONG))
        }
        _ => None,
    });
    let [Some((old, old_long)), Some((new, new_long))] = lines else { return None };
    (old_long || new_long).then_some([old, new])
}

/// What differs between two texts, line by line, with what stands around.
pub(super) fn line_changes(old: &str, new: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(old, new);
    let mut lines = Vec::new();
    for (at, group) in diff.grouped_ops(AROUND).iter().enumerate() {
        if at > 0 {
            lines.push("…".to_owned());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let mark = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            lines.push(format!("{mark} {}", change.value().trim_end_matches('\n')));
        }
    }
    lines
}

/// A value as it would stand in a file.
pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{key} = {}", toml(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn edges(out: &mut String, diff: &Diff) {
    if diff.edges_added.is_empty() && diff.edges_removed.is_empty() {
        return;
    }
    out.push_str("\nEdges\n");
    for (mark, edges) in [('+', &diff.edges_added), ('-', &diff.edges_removed)] {
        for (said, why) in sentences(edges) {
            let _ = writeln!(out, "  {mark} {said}  ({why})");
        }
    }
}

/// Edges as sentences, each with its reason; what is said of two units in one place is one sentence.
pub(super) fn sentences(edges: &[Edge]) -> Vec<(String, String)> {
    let mut said: Vec<([&str; 2], Vec<String>, String)> = Vec::new();
    for edge in edges {
        let kind = match edge.awaits.as_deref() {
            Some("ready") | None => shown(&edge.kind),
            Some(awaits) => format!("{} ({})", shown(&edge.kind), shown(awaits)),
        };
        let why = shown(&format!("{}, {}:{}", edge.why, edge.file, edge.line));
        let ends = [edge.from.as_str(), edge.to.as_str()];
        match said.last_mut() {
            Some(last) if last.0 == ends && last.2 == why => last.1.push(kind),
            _ => said.push((ends, vec![kind], why)),
        }
    }
    let sentence = |([from, to], kinds, why): ([&str; 2], Vec<String>, String)| {
        (format!("{} {} {}", shown(from), kinds.join(" + "), shown(to)), why)
    };
    said.into_iter().map(sentence).collect()
}

fn follows(out: &mut String, diff: &Diff) {
    out.push_str("\nWhat follows\n");
    if !diff.timed() {
        out.push_str("  not known: one of the two was exported without its times\n");
        return;
    }
    let (old, new) = (time(diff.old.total_ms), time(diff.new.total_ms));
    let _ = match diff.longer() {
        0 => writeln!(out, "  the boot takes {new}, as before"),
        longer => writeln!(out, "  the boot takes {new}, before {old} ({})", signed(longer)),
    };
    let name = diff.shifted.iter().map(|shift| shift.unit.len()).max().unwrap_or(0);
    for shift in diff.shifted.iter().take(MOST_SHIFTED) {
        let unit = shown(&shift.unit);
        let [begins, up] = [shift.begins_ms, shift.up_ms].map(|[old, new]| {
            let (before, after) = (time(old), time(new));
            if old == new { after } else { format!("{before} -> {after}") }
        });
        let word = match (shift.begins_later(), shift.up_later()) {
            (0, 1..) => "takes longer",
            (0, _) => "takes less",
            (1.., _) => "later",
            _ => "earlier",
        };
        let _ = writeln!(out, "  {unit:name$}  {word}: begins at {begins}, up at {up}");
    }
    if let Some(more) = diff.shifted.len().checked_sub(MOST_SHIFTED + 1) {
        let _ = writeln!(out, "  and {} more", more + 1);
    }
    if diff.old.critical_path != diff.new.critical_path {
        let _ = writeln!(out, "  critical path before: {}", path(&diff.old.critical_path));
        let _ = writeln!(out, "  critical path after:  {}", path(&diff.new.critical_path));
    } else {
        let _ = writeln!(out, "  the critical path is the same: {}", path(&diff.new.critical_path));
    }
}

/// A critical path on one line.
pub(super) fn path(units: &[String]) -> String {
    if units.is_empty() {
        return "not known".to_owned();
    }
    let from = units.len().saturating_sub(MOST_ON_PATH);
    let units: Vec<String> = units[from..].iter().map(|unit| shown(unit)).collect();
    let before = if from > 0 { "… -> " } else { "" };
    format!("{before}{}", units.join(" -> "))
}

/// How much later, with a sign.
pub(super) fn signed(ms: i64) -> String {
    format!("{}{}", if ms < 0 { '-' } else { '+' }, time(ms.unsigned_abs()))
}

pub(super) fn time(ms: u64) -> String {
    people(Duration::from_millis(ms))
}

/// A text from an exported graph, which may come from anywhere, without what a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    let obeyed =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
