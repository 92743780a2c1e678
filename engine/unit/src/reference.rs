//! References: `{{ storage.data.filesystem }}` in a unit becomes the value in the machine config.
//!
//! A string that is one reference and nothing else takes the value with its type; an array item that is one reference to
//! an array is replaced by its items. A reference to a key that exists and is not set removes the key (or the item) that it
//! stands in. Anything else between the braces is an expression of minijinja, with undefined names refused.

use std::collections::{BTreeMap, HashMap};

use crate::diagnostic::{Diagnostic, nearest};
use crate::keys::{Key, clip, default_node};
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};

/// Longest text that references may make.
const LONGEST: usize = 1 << 20;
/// Steps that one expression may take; a loop over a large range ends here.
const FUEL: u64 = 100_000;
/// Longest chain of references to references.
const DEEPEST: usize = 32;

/// What names in references mean: the effective machine config, and the item of a template's instance.
pub(crate) struct Context<'a> {
    config: &'a Table,
    keys: &'static [Key],
    item: Option<&'a Node>,
    engine: &'a Engine,
}

/// The expression engine with the config converted once.
pub(crate) struct Engine {
    environment: minijinja::Environment<'static>,
    config: BTreeMap<String, minijinja::Value>,
}

impl Engine {
    /// Prepares the engine for an effective config.
    pub(crate) fn new(config: &Table, keys: &'static [Key]) -> Self {
        let mut environment = minijinja::Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(50);
        let config = keys
            .iter()
            .map(|k| (k.name.to_owned(), to_expression(config.get(k.name), (k.inner)())))
            .collect();
        Engine { environment, config }
    }
}

impl<'a> Context<'a> {
    /// The context of one unit, or of one instance of a template.
    pub(crate) fn new(
        config: &'a Table,
        keys: &'static [Key],
        engine: &'a Engine,
        item: Option<&'a Node>,
    ) -> Self {
        Context { config, keys, item, engine }
    }
}

/// The config with every default filled in, so that references see what holds.
pub(crate) fn effective(table: &Table, keys: &'static [Key]) -> Table {
    let mut filled = Table::default();
    for key in keys {
        let node = table.entry(key.name).cloned().or_else(|| {
            let node = default_node(key.default)?;
            Some(Entry { key: key.name.to_owned(), key_span: node.span, node })
        });
        let Some(mut entry) = node else { continue };
        fill(&mut entry.node, (key.inner)());
        filled.push(entry);
    }
    filled
}

fn fill(node: &mut Node, keys: &'static [Key]) {
    if keys.is_empty() {
        return;
    }
    match &mut node.value {
        Value::Table(table) => *table = effective(table, keys),
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, keys)),
        _ => {}
    }
}

/// What a name means.
enum Found {
    Node(Node),
    /// The key exists and is not set.
    Unset,
}

/// Replaces every reference in `node`. A reference that fails is reported and leaves its text.
///
/// Returns false when the node is to be removed.
pub(crate) fn resolve(
    node: &mut Node,
    context: &Context<'_>,
    findings: &mut Vec<Diagnostic>,
) -> bool {
    match &mut node.value {
        Value::String(text) if text.contains("{{") || text.contains("{%") => {
            match substitute(text, node.span, context) {
                Ok(Found::Node(found)) => node.value = found.value,
                Ok(Found::Unset) => return false,
                Err(finding) => findings.push(*finding),
            }
        }
        Value::Array(items) => {
            let mut resolved = Vec::with_capacity(items.len());
            for mut item in std::mem::take(items) {
                let reference = item.as_str().is_some_and(|t| single(t).is_some());
                if !resolve(&mut item, context, findings) {
                    continue;
                }
                match item.value {
                    Value::Array(inner) if reference => resolved.extend(inner),
                    value => resolved.push(Node { span: item.span, value }),
                }
            }
            *items = resolved;
        }
        Value::Table(table) => {
            let entries = std::mem::take(table);
            *table = entries
                .iter()
                .cloned()
                .filter_map(|mut entry| {
                    resolve(&mut entry.node, context, findings).then_some(entry)
                })
                .collect();
        }
        _ => {}
    }
    true
}

/// The inside of a text that is one `{{ … }}` and nothing else.
fn single(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inside.contains("{{") && !inside.contains("}}")).then(|| inside.trim())
}

/// A plain name: `storage.data.disk`.
fn plain(expression: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = expression.split('.').collect();
    let word = |p: &&str| {
        p.starts_with(|c: char| c.is_ascii_alphabetic())
            && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    parts.iter().all(word).then_some(parts)
}

fn substitute(text: &str, span: Span, context: &Context<'_>) -> Result<Found, Box<Diagnostic>> {
    if let Some(expression) = single(text) {
        return evaluate(expression, span, context);
    }
    let Some(pieces) = pieces(text) else {
        return Err(Box::new(bad(span, text, "a `{{` without its `}}`, or a `{%` block")));
    };
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Expression(expression) => match evaluate(expression, span, context)? {
                Found::Node(node) => out.push_str(&scalar(&node, span, expression)?),
                Found::Unset => {
                    let message = format!("`{}` is not set", clip(expression));
                    return Err(Box::new(
                        Diagnostic::new("unset-reference", span, message)
                            .label("stands inside a longer text")
                            .help(format!("set `{}` in the machine config", clip(expression))),
                    ));
                }
            },
        }
        if out.len() > LONGEST {
            return Err(Box::new(bad(span, text, "the text becomes longer than 1 MiB")));
        }
    }
    Ok(Found::Node(Node { span, value: Value::String(out) }))
}

enum Piece<'a> {
    Text(&'a str),
    Expression(&'a str),
}

fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, after) = rest.split_at(start);
        let end = after.find("}}")?;
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Expression(after[2..end].trim()));
        rest = &after[end + 2..];
    }
    pieces.push(Piece::Text(rest));
    let block = |p: &Piece<'_>| matches!(p, Piece::Text(t) if t.contains("{%"));
    (!pieces.iter().any(block)).then_some(pieces)
}

fn scalar(node: &Node, span: Span, expression: &str) -> Result<String, Box<Diagnostic>> {
    match &node.value {
        Value::String(s) | Value::Datetime(s) => Ok(s.clone()),
        Value::Integer(i) => Ok(i.to_string()),
        Value::Float(f) => Ok(f.to_string()),
        Value::Boolean(b) => Ok(b.to_string()),
        Value::Array(_) | Value::Table(_) => {
            let message = format!(
                "`{}` is {} and cannot stand inside a text",
                clip(expression),
                node.article()
            );
            Err(Box::new(Diagnostic::new("wrong-type", span, message)))
        }
    }
}

fn bad(span: Span, text: &str, why: &str) -> Diagnostic {
    Diagnostic::new("bad-reference", span, format!("`{}`: {why}", clip(text)))
        .help("references look like `{{ machine.hostname }}`")
}

fn evaluate(expression: &str, span: Span, context: &Context<'_>) -> Result<Found, Box<Diagnostic>> {
    if let Some(path) = plain(expression) {
        return look_up(&path, span, context);
    }
    let variables = context.engine.config.iter().map(|(k, v)| (k.clone(), v.clone()));
    let item = context.item.map(|item| ("item".to_owned(), to_expression(Some(item), &[])));
    let variables: BTreeMap<String, minijinja::Value> = variables.chain(item).collect();
    let compiled = context.engine.environment.compile_expression(expression);
    let value = compiled.and_then(|e| e.eval(minijinja::Value::from(variables)));
    let value = value.map_err(|error| {
        let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Box::new(bad(span, expression, &why))
    })?;
    if value.is_none() {
        return Ok(Found::Unset);
    }
    from_expression(&value, span, 0)
        .map(Found::Node)
        .ok_or_else(|| Box::new(bad(span, expression, "no value of TOML")))
}

fn look_up(path: &[&str], span: Span, context: &Context<'_>) -> Result<Found, Box<Diagnostic>> {
    let (node, keys) = match (path[0], context.item) {
        ("item", Some(item)) => (Some(item), None),
        ("item", None) => {
            let found =
                Diagnostic::new("unknown-reference", span, "`item` is known only with `for-each`");
            return Err(Box::new(found));
        }
        (first, _) => {
            let names = || context.keys.iter().map(|k| k.name);
            let Some(key) = context.keys.iter().find(|k| k.name == first) else {
                return Err(Box::new(unknown(path, 0, span, names())));
            };
            (context.config.get(first), Some((key.inner)()))
        }
    };
    let (mut node, mut keys) = (node, keys);
    for (depth, part) in path.iter().enumerate().skip(1) {
        let known = keys.and_then(|k| k.iter().find(|k| k.name == *part));
        let next = node.and_then(|n| n.as_table()).and_then(|t| t.get(part));
        if next.is_none() && known.is_none() {
            // An item carries the keys of the list that it comes from; an unset one of those is not written in it.
            let entries = node
                .and_then(|n| n.as_table())
                .into_iter()
                .flat_map(|t| t.iter().map(|e| e.key.as_str()));
            let declared = keys.into_iter().flatten().map(|k| k.name);
            return Err(Box::new(unknown(path, depth, span, declared.chain(entries))));
        }
        (node, keys) = (next, known.map(|k| (k.inner)()).filter(|k| !k.is_empty()));
    }
    Ok(match node {
        Some(node) if node.value == Value::String(UNSET.to_owned()) => Found::Unset,
        Some(node) => Found::Node(at(node, span)),
        None => Found::Unset,
    })
}

/// Stands in an item for a key that is known and not set. The NUL keeps it apart from anything that a file can hold.
pub(crate) const UNSET: &str = "\0unset";

/// The value as it stands in the unit: errors point to the reference.
fn at(node: &Node, span: Span) -> Node {
    let value = match &node.value {
        Value::Array(items) => Value::Array(items.iter().map(|i| at(i, span)).collect()),
        Value::Table(table) => Value::Table(
            table
                .iter()
                .filter(|e| e.node.value != Value::String(UNSET.to_owned()))
                .map(|e| Entry { key: e.key.clone(), key_span: span, node: at(&e.node, span) })
                .collect(),
        ),
        other => other.clone(),
    };
    Node { span, value }
}

fn unknown<'k>(
    path: &[&str],
    depth: usize,
    span: Span,
    known: impl Iterator<Item = &'k str>,
) -> Diagnostic {
    let known: Vec<&str> = known.collect();
    let found = Diagnostic::new(
        "unknown-reference",
        span,
        format!("unknown reference `{}`", clip(&path.join("."))),
    );
    let place = if depth == 0 {
        "the machine config".to_owned()
    } else {
        format!("`{}`", path[..depth].join("."))
    };
    let found = found.label(format!("no `{}` in {place}", clip(path[depth])));
    match nearest(path[depth], known.iter().copied()) {
        Some(near) => {
            let mut better = path.to_vec();
            better[depth] = near;
            found.help(format!("did you mean `{}`?", better.join(".")))
        }
        None if known.is_empty() => found,
        None => found.help(format!("{place} has {}", known.join(", "))),
    }
}

fn to_expression(node: Option<&Node>, keys: &[Key]) -> minijinja::Value {
    let Some(node) = node else { return minijinja::Value::from(()) };
    match &node.value {
        Value::String(s) if s == UNSET => minijinja::Value::from(()),
        Value::String(s) | Value::Datetime(s) => minijinja::Value::from(s.as_str()),
        Value::Integer(i) => minijinja::Value::from(*i),
        Value::Float(f) => minijinja::Value::from(*f),
        Value::Boolean(b) => minijinja::Value::from(*b),
        Value::Array(items) => {
            items.iter().map(|i| to_expression(Some(i), keys)).collect::<Vec<_>>().into()
        }
        Value::Table(table) => {
            let unset = keys.iter().filter(|k| table.get(k.name).is_none());
            let unset = unset.map(|k| (k.name.to_owned(), minijinja::Value::from(())));
            let set = table.iter().map(|e| {
                let inner = keys.iter().find(|k| k.name == e.key).map_or(&[][..], |k| (k.inner)());
                (e.key.clone(), to_expression(Some(&e.node), inner))
            });
            unset.chain(set).collect::<BTreeMap<_, _>>().into()
        }
    }
}

fn from_expression(value: &minijinja::Value, span: Span, depth: usize) -> Option<Node> {
    use minijinja::value::ValueKind;
    if depth > DEEPEST {
        return None;
    }
    let value = match value.kind() {
        ValueKind::Bool => Value::Boolean(value.is_true()),
        ValueKind::Number if value.is_integer() => {
            Value::Integer(i64::try_from(value.clone()).ok()?)
        }
        ValueKind::Number => Value::Float(f64::try_from(value.clone()).ok()?),
        ValueKind::String => {
            Value::String(value.as_str().filter(|s| s.len() <= LONGEST)?.to_owned())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter().ok()?.take(LONGEST) {
                items.push(from_expression(&item, span, depth + 1)?);
            }
            Value::Array(items)
        }
        ValueKind::Map => {
            let mut table = Table::default();
            for key in value.try_iter().ok()?.take(LONGEST) {
                let inner = value.get_item(&key).ok()?;
                let node = from_expression(&inner, span, depth + 1)?;
                table.push(Entry { key: key.as_str()?.to_owned(), key_span: span, node });
            }
            Value::Table(table)
        }
        _ => return None,
    };
    Some(Node { span, value })
}

/// Resolves references inside the machine config itself: plain names of scalar values. Loops are reported with their way.
///
/// Drop-ins for units are left alone; they are resolved as part of the unit that they are merged into.
pub(crate) fn resolve_config(
    config: &mut Table,
    keys: &'static [Key],
    findings: &mut Vec<Diagnostic>,
) {
    let mut texts = HashMap::new();
    collect(config, "", &mut texts);
    texts.retain(|path, _| !path.starts_with("units."));
    let defaults = effective(config, keys);
    let mut resolver =
        ConfigResolver { texts: &texts, defaults: &defaults, done: HashMap::new(), findings };
    let mut paths: Vec<&String> = texts.keys().collect();
    paths.sort();
    for path in paths {
        resolver.resolve(path, &mut Vec::new());
    }
    let done = resolver.done;
    replace(config, "", &done);
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
    defaults: &'a Table,
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
            self.findings.push(bad(span, text, "a `{{` without its `}}`, or a `{%` block"));
            return None;
        };
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Expression(expression) => {
                    let value = self.name(expression, span, way)?;
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
                self.findings.push(bad(span, text, "the text becomes longer than 1 MiB"));
                return None;
            }
        }
        Some(Value::String(out))
    }

    fn name(&mut self, expression: &str, span: Span, way: &mut Vec<String>) -> Option<Value> {
        let Some(parts) = plain(expression) else {
            self.findings.push(bad(
                span,
                expression,
                "in the machine config only plain names may stand here",
            ));
            return None;
        };
        let path = parts.join(".");
        if self.texts.contains_key(&path) {
            return self.resolve(&path, way);
        }
        let mut node: Option<&Node> = None;
        for (depth, part) in parts.iter().enumerate() {
            let table = match depth {
                0 => Some(self.defaults),
                _ => node.and_then(Node::as_table),
            };
            node = table.and_then(|t| t.get(part));
            if node.is_none() {
                let known: Vec<&str> =
                    table.into_iter().flat_map(|t| t.iter().map(|e| e.key.as_str())).collect();
                let found = unknown(&parts, depth, span, known.into_iter());
                self.findings.push(found);
                return None;
            }
        }
        match node.map(|n| &n.value) {
            Some(
                value
                @ (Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_)),
            ) => Some(value.clone()),
            _ => {
                self.findings.push(bad(
                    span,
                    expression,
                    "in the machine config only single values may be referred to",
                ));
                None
            }
        }
    }
}
