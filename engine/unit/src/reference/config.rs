//! References inside the machine config itself: plain names of single values, and the loops that they can make.

use std::collections::HashMap;

use super::{
    BROKEN, DEEPEST, LONGEST, Piece, TOO_LONG, bad, effective, pieces, plain, scalar, secret_text,
    single, unknown,
};
use crate::diagnostic::Diagnostic;
use crate::keys::{Key, clip};
use crate::secret;
use crate::source::Span;
use crate::tree::{Node, Table, Value};

/// Resolves references inside the machine config itself: plain names of scalar values. Loops are reported with their way.
///
/// Secrets and drop-ins for units are left alone; the latter are resolved as part of the unit that they are merged into. Gives the places of the
/// texts that could not be resolved and stand there still.
pub(crate) fn resolve_config(
    config: &mut Table,
    keys: &'static [Key],
    elsewhere: bool,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Span> {
    let mut texts = HashMap::new();
    collect(config, "", &mut texts);
    // A secret is what it is, braces and all.
    texts.retain(|path, _| !path.starts_with("units.") && !path.starts_with("secrets."));
    let defaults = effective(config, keys);
    let mut resolver = ConfigResolver {
        texts: &texts,
        keys,
        defaults: &defaults,
        elsewhere,
        done: HashMap::new(),
        findings,
    };
    let mut paths: Vec<&String> = texts.keys().collect();
    paths.sort();
    for path in paths {
        resolver.resolve(path, &mut Vec::new());
    }
    let done = resolver.done;
    replace(config, "", &done);
    let failed = |path: &&String| done.get(*path).is_none_or(Option::is_none);
    texts.iter().filter(|(path, _)| failed(path)).map(|(_, (_, span))| *span).collect()
}

/// Every text with a reference, by its path.
fn collect(table: &Table, prefix: &str, texts: &mut HashMap<String, (String, Span)>) {
    for entry in table.iter() {
        collect_node(&entry.node, &format!("{prefix}{}", entry.key), texts);
    }
}

fn collect_node(node: &Node, path: &str, texts: &mut HashMap<String, (String, Span)>) {
    match &node.value {
        Value::String(text) if text.contains("{{") => {
            drop(texts.insert(path.to_owned(), (text.clone(), node.span)))
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                collect_node(item, &format!("{path}.{i}"), texts);
            }
        }
        Value::Table(table) => collect(table, &format!("{path}."), texts),
        _ => {}
    }
}

fn replace(table: &mut Table, prefix: &str, done: &HashMap<String, Option<Value>>) {
    let old = std::mem::take(table);
    *table = old
        .iter()
        .cloned()
        .map(|mut entry| {
            replace_node(&mut entry.node, &format!("{prefix}{}", entry.key), done);
            entry
        })
        .collect();
}

fn replace_node(node: &mut Node, path: &str, done: &HashMap<String, Option<Value>>) {
    match &mut node.value {
        Value::String(_) => {
            if let Some(Some(value)) = done.get(path) {
                node.value = value.clone();
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                replace_node(item, &format!("{path}.{i}"), done);
            }
        }
        Value::Table(table) => replace(table, &format!("{path}."), done),
        _ => {}
    }
}

struct ConfigResolver<'a> {
    texts: &'a HashMap<String, (String, Span)>,
    keys: &'static [Key],
    defaults: &'a Table,
    /// Whether a secret that is nowhere is elsewhere.
    elsewhere: bool,
    done: HashMap<String, Option<Value>>,
    findings: &'a mut Vec<Diagnostic>,
}

impl ConfigResolver<'_> {
    // Recursion is bounded by DEEPEST.
    fn resolve(&mut self, path: &str, way: &mut Vec<String>) -> Option<Value> {
        if let Some(done) = self.done.get(path) {
            return done.clone();
        }
        let (text, span) = self.texts.get(path)?;
        if let Some(start) = way.iter().position(|p| p == path) {
            let round: Vec<_> = way[start..].iter().map(String::as_str).chain([path]).collect();
            let mut found = Diagnostic::new(
                "reference-loop",
                *span,
                format!("references go in a circle: {}", round.join(" -> ")),
            );
            for other in &way[start + 1..] {
                if let Some((_, span)) = self.texts.get(other) {
                    found = found.also(*span, format!("`{other}`"));
                }
            }
            self.findings.push(found.label(format!("`{path}` needs itself")));
            for member in &way[start..] {
                self.done.insert(member.clone(), None);
            }
            return None;
        }
        if way.len() >= DEEPEST {
            self.findings.push(Diagnostic::new(
                "reference-loop",
                *span,
                format!("a chain of more than {DEEPEST} references"),
            ));
            self.done.insert(path.to_owned(), None);
            return None;
        }
        way.push(path.to_owned());
        let value = self.text(text, *span, way);
        way.pop();
        // A loop through this path may have been reported on the way.
        self.done.entry(path.to_owned()).or_insert(value).clone()
    }

    fn text(&mut self, text: &str, span: Span, way: &mut Vec<String>) -> Option<Value> {
        let whole = single(text).map(|e| vec![Piece::Expression(e)]);
        let alone = whole.is_some();
        let Some(pieces) = whole.or_else(|| pieces(text)) else {
            self.findings.push(bad(span, BROKEN));
            return None;
        };
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Expression(expression) => {
                    let value = self.name(expression, span, alone, way)?;
                    if alone {
                        return Some(value);
                    }
                    match scalar(&Node { span, value }, span, expression) {
                        Ok(text) => out.push_str(&text),
                        Err(finding) => {
                            self.findings.push(*finding);
                            return None;
                        }
                    }
                }
            }
            if out.len() > LONGEST {
                self.findings.push(bad(span, TOO_LONG));
                return None;
            }
        }
        Some(Value::String(out))
    }

    fn name(
        &mut self,
        expression: &str,
        span: Span,
        alone: bool,
        way: &mut Vec<String>,
    ) -> Option<Value> {
        let Some(parts) = plain(expression) else {
            self.findings.push(bad(
                span,
                &format!(
                    "`{}`: in the machine config only plain names may stand here",
                    clip(expression)
                ),
            ));
            return None;
        };
        let at = way.last().map(|path| path.split('.').collect::<Vec<_>>()).unwrap_or_default();
        let for_a_secret = alone && secret::KEYS.contains(&at.as_slice());
        match parts.as_slice() {
            [secret::TABLE, name] if for_a_secret => {
                let text = secret_text(name, span, self.defaults, self.elsewhere);
                let text = text.map_err(|finding| self.findings.push(*finding)).ok()?;
                return Some(Value::String(text));
            }
            [secret::TABLE, ..] => {
                self.findings.push(secret::misplaced(span));
                return None;
            }
            parts if secret::holds_a_key(parts) => {
                self.findings.push(secret::misplaced(span));
                return None;
            }
            _ => {}
        }
        let path = parts.join(".");
        if self.texts.contains_key(&path) {
            return self.resolve(&path, way);
        }
        let mut node: Option<&Node> = None;
        let mut keys = self.keys;
        for (depth, part) in parts.iter().enumerate() {
            let table = match depth {
                0 => Some(self.defaults),
                _ => node.and_then(Node::as_table),
            };
            node = table.and_then(|t| t.get(part));
            let key = keys.iter().find(|k| k.name == *part);
            if node.is_none() && key.is_none() {
                let written = table.into_iter().flat_map(|t| t.iter().map(|e| e.key.as_str()));
                let known = keys.iter().map(|k| k.name);
                let known = known.chain(written.filter(|w| keys.iter().all(|k| k.name != *w)));
                self.findings.push(unknown(&parts, depth, span, known));
                return None;
            }
            keys = key.map_or(&[], |k| (k.inner)());
        }
        match node.map(|n| &n.value) {
            Some(
                value
                @ (Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_)),
            ) => Some(value.clone()),
            None => {
                let message = format!("`{}` is not set", clip(&path));
                let found = Diagnostic::new("unset-reference", span, message);
                self.findings.push(found.help(format!("set `{}` too", clip(&path))));
                None
            }
            Some(_) => {
                self.findings.push(bad(
                    span,
                    &format!(
                        "`{path}`: in the machine config only single values may be referred to"
                    ),
                ));
                None
            }
        }
    }
}
