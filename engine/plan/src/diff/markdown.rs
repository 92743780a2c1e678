//! A difference as Markdown, for a pull request: what matters first, the rest behind a click.

use std::fmt::Write;

use super::text::{by_lines, line_changes, path, places, sentences, shown, signed, time, toml};
use super::{Changed, Diff, Key};
use crate::export::Setting;

/// Most rows of a table. GitHub shows a comment of at most 65,536 characters.
const MOST_ROWS: usize = 100;

/// The page.
pub fn markdown(diff: &Diff) -> String {
    let mut out = String::from("### Boot graph\n\n");
    if diff.is_empty() {
        let _ =
            writeln!(out, "No difference: {} units, `{}`.", diff.new.units, code(&diff.new.digest));
        return out;
    }
    summary(&mut out, diff);
    if diff.nothing_found() {
        out.push_str("Nothing that differs was exported, but the digests do.\n");
    }
    units(&mut out, diff);
    edges(&mut out, diff);
    shifts(&mut out, diff);
    out
}

fn summary(out: &mut String, diff: &Diff) {
    out.push_str("| | before | after |\n|---|---|---|\n");
    let (old, new) = (&diff.old, &diff.new);
    if old.goal != new.goal {
        let _ = writeln!(out, "| goal | `{}` | `{}` |", code(&old.goal), code(&new.goal));
    }
    let _ = writeln!(out, "| units | {} | {} |", old.units, new.units);
    let _ = writeln!(out, "| edges | {} | {} |", old.edges, new.edges);
    if diff.timed() {
        let longer = match diff.longer() {
            0 => String::new(),
            longer => format!(" (**{}**)", signed(longer)),
        };
        let (before, after) = (time(old.total_ms), time(new.total_ms));
        let _ = writeln!(out, "| predicted boot | {before} | {after}{longer} |");
    }
    let short = |digest: &str| code(digest).chars().take(19).collect::<String>();
    let _ = writeln!(out, "| digest | `{}` | `{}` |\n", short(&old.digest), short(&new.digest));
    if !diff.timed() {
        out.push_str("One of the two was exported without its times.\n\n");
    } else if old.critical_path == new.critical_path {
        let _ = writeln!(out, "Critical path, as before: {}\n", critical_path(&new.critical_path));
    } else {
        let _ = writeln!(out, "Critical path before: {}\n", critical_path(&old.critical_path));
        let _ = writeln!(out, "Critical path after: {}\n", critical_path(&new.critical_path));
    }
}

fn critical_path(units: &[String]) -> String {
    cell(&path(units).replace(" -> ", " → "))
}

/// A part behind a click. `open` shows it at once.
fn details(out: &mut String, title: &str, open: bool, body: impl FnOnce(&mut String)) {
    let open = if open { " open" } else { "" };
    let _ = writeln!(out, "<details{open}><summary>{title}</summary>\n");
    body(out);
    out.push_str("\n</details>\n\n");
}

fn units(out: &mut String, diff: &Diff) {
    let (added, removed, changed) = (diff.added.len(), diff.removed.len(), diff.changed.len());
    if added + removed + changed == 0 {
        return;
    }
    let title = format!("Units: {added} added, {removed} removed, {changed} changed");
    details(out, &title, true, |out| {
        for (word, entries) in [("added", &diff.added), ("removed", &diff.removed)] {
            for entry in entries.iter().take(MOST_ROWS) {
                let about = if entry.description.is_empty() { "" } else { ": " };
                let _ = writeln!(
                    out,
                    "- **{word}** `{}` ({}){about}{}",
                    code(&entry.name),
                    cell(&entry.kind),
                    cell(&entry.description),
                );
            }
            more(out, entries.len());
        }
        diff.changed.iter().take(MOST_ROWS).for_each(|unit| change(out, unit));
        more(out, changed);
    });
}

fn change(out: &mut String, unit: &Changed) {
    let _ = write!(out, "- **changed** `{}`", code(&unit.name));
    if let Some([old, new]) = &unit.kind {
        let _ = write!(out, " was a {}, is a {}", cell(old), cell(new));
    }
    if let Some([_, started]) = unit.started {
        out.push_str(if started { " is now started" } else { " is no longer started" });
    }
    out.push('\n');
    unit.keys.iter().for_each(|key| key_change(out, key));
}

fn key_change(out: &mut String, key: &Key) {
    let (path, places) = (code(&key.key), cell(&places(key)));
    if let Some([old, new]) = by_lines(key) {
        let _ = writeln!(out, "  - `{path}` <sub>{places}</sub>\n\n    ~~~~diff");
        for line in line_changes(&old, &new) {
            // Four tildes end the block only where they begin a line.
            let _ = writeln!(out, "    {}", shown(&line));
        }
        out.push_str("    ~~~~\n");
        return;
    }
    let value = |setting: &Option<Setting>| match setting {
        Some(setting) => format!("`{}`", code(&toml(&setting.value))),
        None => "not set".to_owned(),
    };
    let (old, new) = (value(&key.old), value(&key.new));
    let _ = writeln!(out, "  - `{path}`: {old} → {new} <sub>{places}</sub>");
}

fn edges(out: &mut String, diff: &Diff) {
    let (added, removed) = (diff.edges_added.len(), diff.edges_removed.len());
    if added + removed == 0 {
        return;
    }
    let title = format!("Edges: {added} added, {removed} removed");
    details(out, &title, false, |out| {
        out.push_str("| | edge | why |\n|---|---|---|\n");
        for (mark, edges) in [("+", &diff.edges_added), ("-", &diff.edges_removed)] {
            let sentences = sentences(edges);
            for (said, why) in sentences.iter().take(MOST_ROWS) {
                let _ = writeln!(out, "| {mark} | `{}` | {} |", code(said), cell(why));
            }
            if sentences.len() > MOST_ROWS {
                let _ = writeln!(out, "| {mark} | and {} more | |", sentences.len() - MOST_ROWS);
            }
        }
    });
}

fn shifts(out: &mut String, diff: &Diff) {
    if diff.shifted.is_empty() {
        return;
    }
    let count =
        |wanted: fn(i64) -> bool| diff.shifted.iter().filter(|s| wanted(s.up_later())).count();
    let (later, earlier) = (count(|by| by > 0), count(|by| by < 0));
    let title = format!("Times: {later} units up later, {earlier} earlier");
    details(out, &title, false, |out| {
        out.push_str("| unit | begins | up | |\n|---|---|---|---|\n");
        for shift in diff.shifted.iter().take(MOST_ROWS) {
            let times = |[old, new]: [u64; 2]| match old == new {
                true => time(new),
                false => format!("{} → {}", time(old), time(new)),
            };
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} |",
                code(&shift.unit),
                times(shift.begins_ms),
                times(shift.up_ms),
                signed(shift.up_later())
            );
        }
        more(out, diff.shifted.len());
    });
}

fn more(out: &mut String, count: usize) {
    if let Some(more) = count.checked_sub(MOST_ROWS + 1) {
        let _ = writeln!(out, "\nand {} more", more + 1);
    }
}

/// A text between backticks, also in a table.
fn code(text: &str) -> String {
    let tame = |c: char| match c {
        '`' => "'".to_owned(),
        '|' => "\\|".to_owned(),
        c => c.to_string(),
    };
    shown(text).chars().map(tame).collect()
}

/// A text in a line of its own or in a table, taken for what it is: no markup, and nobody is called by an `@`.
fn cell(text: &str) -> String {
    let tame = |c: char| match c {
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '&' => "&amp;".to_owned(),
        '@' => "&#64;".to_owned(),
        '#' => "&#35;".to_owned(),
        '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '!' => format!("\\{c}"),
        c => c.to_string(),
    };
    shown(text).chars().map(tame).collect()
}
