//! References: `{{ storage.data.filesystem }}` in a unit becomes the value in the machine config.
//!
//! A string that is one reference and nothing else takes the value with its type; an array item that is one reference to
//! an array is replaced by its items. A reference to a key that exists and is not set removes the key (or the item) that it
//! stands in. Anything else between the braces is an expression of minijinja, with undefined names refused.

mod config;
mod expression;

use std::cell::RefCell;

use self::expression::Expressions;
pub(crate) use self::{config::resolve_config, expression::Engine};
use crate::diagnostic::{Diagnostic, nearest};
use crate::keys::{Key, clip, default_node};
use crate::secret;
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};

/// Longest text that references may make.
const LONGEST: usize = 1 << 20;
/// Longest chain of references to references.
const DEEPEST: usize = 32;

/// What `item` means in a unit.
pub(crate) enum Item<'a> {
    /// Nothing: the unit is no template.
    None,
    /// This item of the list in the config.
    Known(&'a Node),
    /// An item that nobody knows: the template has no instance, and is checked all the same. These are the keys that an item
    /// has; none are known where there are none.
    Unknown(&'static [Key]),
}

/// What names in references mean: the effective machine config, and the item of a template's instance.
pub(crate) struct Context<'a> {
    config: &'a Table,
    keys: &'static [Key],
    item: Item<'a>,
    expressions: Expressions<'a>,
    /// Where values stand that depend on an unknown item.
    unknown: RefCell<Vec<Span>>,
    /// Keys that went away because they refer to what is not set.
    unset: RefCell<Vec<Entry>>,
    /// Where texts stand that hold a secret, and whether only something stands for it.
    secrets: RefCell<Vec<(Span, bool)>>,
    /// Where references stand, each with where its value was written.
    written: RefCell<Vec<(Span, Span)>>,
    /// Whether a secret that is nowhere is elsewhere.
    elsewhere: bool,
}

/// What is to be known of the references that were replaced.
pub(crate) struct Outcome {
    /// Where values stand that could not be known, because the item is not.
    pub(crate) unknown: Vec<Span>,
    /// The keys that went away because they refer to what is not set.
    pub(crate) unset: Vec<Entry>,
    /// Where texts stand that hold a secret, and whether only something stands for it.
    pub(crate) secrets: Vec<(Span, bool)>,
    /// Where references stand, each with where its value was written.
    pub(crate) written: Vec<(Span, Span)>,
}

impl<'a> Context<'a> {
    /// The context of one unit, or of one instance of a template.
    pub(crate) fn new(
        config: &'a Table,
        keys: &'static [Key],
        engine: &'a Engine,
        item: Item<'a>,
        elsewhere: bool,
    ) -> Self {
        let expressions = Expressions::new(engine);
        let (unknown, unset, secrets, written) =
            (RefCell::default(), RefCell::default(), RefCell::default(), RefCell::default());
        Context { config, keys, item, expressions, unknown, unset, secrets, written, elsewhere }
    }

    /// What is to be known of what was replaced.
    pub(crate) fn outcome(self) -> Outcome {
        let Context { unknown, unset, secrets, written, .. } = self;
        Outcome {
            written: written.into_inner(),
            unknown: unknown.into_inner(),
            unset: unset.into_inner(),
            secrets: secrets.into_inner(),
        }
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
    /// It depends on an item that nobody knows.
    Unknown,
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
        Value::Array(items) if !items.iter().any(refers) => {}
        Value::String(text) if has_reference(text) => match substitute(text, node.span, context) {
            Ok(Found::Node(found)) => node.value = found.value,
            Ok(Found::Unset) => return false,
            Ok(Found::Unknown) => context.unknown.borrow_mut().push(node.span),
            Err(finding) => findings.push(*finding),
        },
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
            let unset = table.extract_if(|entry| !resolve(&mut entry.node, context, findings));
            context.unset.borrow_mut().extend(unset);
        }
        _ => {}
    }
    true
}

/// Whether there may be a reference in a text.
fn has_reference(text: &str) -> bool {
    // Most texts have no brace at all.
    text.contains('{') && (text.contains("{{") || text.contains("{%"))
}

/// Whether there may be a reference in a value. Recursion is bounded: the parser refuses more than 80 levels of nesting.
fn refers(node: &Node) -> bool {
    match &node.value {
        Value::String(text) => has_reference(text),
        Value::Array(items) => items.iter().any(refers),
        Value::Table(table) => table.iter().any(|entry| refers(&entry.node)),
        _ => false,
    }
}

/// The inside of a text that is one `{{ … }}` and nothing else.
/// What stands inside a text that is one reference and nothing else.
pub(crate) fn single(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    (!inside.contains("{{") && !inside.contains("}}")).then(|| inside.trim())
}

/// Whether a text is one reference and nothing else.
pub(crate) fn is_reference(text: &str) -> bool {
    single(text).is_some()
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
        return Err(Box::new(bad(span, BROKEN)));
    };
    let mut out = String::new();
    let mut known = true;
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Expression(expression) => match evaluate(expression, span, context)? {
                Found::Node(node) => out.push_str(&scalar(&node, span, expression)?),
                Found::Unknown => known = false,
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
            return Err(Box::new(bad(span, TOO_LONG)));
        }
    }
    Ok(match known {
        true => Found::Node(Node { span, value: Value::String(out) }),
        false => Found::Unknown,
    })
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

const BROKEN: &str = "a `{{` without its `}}`, or a `{%` block";
const TOO_LONG: &str = "the text becomes longer than 1 MiB";

// The text around a reference is not repeated: it is drawn, and may be a secret, which is not.
fn bad(span: Span, why: &str) -> Diagnostic {
    Diagnostic::new("bad-reference", span, why)
        .help("references look like `{{ machine.hostname }}`")
}

fn evaluate(expression: &str, span: Span, context: &Context<'_>) -> Result<Found, Box<Diagnostic>> {
    if let Some(path) = plain(expression) {
        return look_up(&path, span, context);
    }
    let item = match context.item {
        Item::Known(item) => Some(item),
        Item::Unknown(_) if names_item(expression) => return Ok(Found::Unknown),
        Item::Unknown(_) | Item::None => None,
    };
    let value = context.expressions.evaluate(expression, span, item);
    match context.item {
        Item::None if value.is_err() && names_item(expression) => Err(Box::new(no_item(span))),
        _ => value,
    }
}

fn no_item(span: Span) -> Diagnostic {
    Diagnostic::new("unknown-reference", span, "`item` is known only with `for-each`")
}

/// Whether an expression may ask for `item`; a text that happens to hold the word counts too.
fn names_item(expression: &str) -> bool {
    expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "item")
}

fn look_up(path: &[&str], span: Span, context: &Context<'_>) -> Result<Found, Box<Diagnostic>> {
    let (node, keys) = match (path[0], &context.item) {
        ("item", Item::Known(item)) => (Some(*item), None),
        ("item", Item::Unknown(keys)) => {
            let known = |part: &&str| keys.is_empty() || keys.iter().any(|k| k.name == *part);
            return match path.get(1).is_none_or(known) {
                true => Ok(Found::Unknown),
                false => Err(Box::new(unknown(path, 1, span, keys.iter().map(|k| k.name)))),
            };
        }
        ("item", Item::None) => {
            return Err(Box::new(no_item(span)));
        }
        (secret::TABLE, _) => return secret_of(path, span, context),
        (first, _) => {
            let names = || context.keys.iter().map(|k| k.name);
            let Some(key) = context.keys.iter().find(|k| k.name == first) else {
                return Err(Box::new(unknown(path, 0, span, names())));
            };
            (context.config.get(first), Some((key.inner)()))
        }
    };
    if secret::holds_a_key(path) {
        return key_of(path, span, context);
    }
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
        Some(node) => {
            if !node.span.is_default() && node.span != span {
                context.written.borrow_mut().push((span, node.span));
            }
            Found::Node(at(node, span))
        }
        None => Found::Unset,
    })
}

/// The text of a key that is a secret, noted as one.
fn key_of(path: &[&str], span: Span, context: &Context<'_>) -> Result<Found, Box<Diagnostic>> {
    let [table, key] = path else { return Err(Box::new(secret::misplaced(span))) };
    let node = context.config.get(table).and_then(|node| node.at(&[key]));
    let Some(text) = node.and_then(Node::as_str) else { return Ok(Found::Unset) };
    context.secrets.borrow_mut().push((span, secret::stands_for_one(text)));
    Ok(Found::Node(Node { span, value: Value::String(text.to_owned()) }))
}

/// The text of a secret, noted as one.
fn secret_of(path: &[&str], span: Span, context: &Context<'_>) -> Result<Found, Box<Diagnostic>> {
    let [_, name] = path else { return Err(Box::new(secret::misplaced(span))) };
    let text = secret_text(name, span, context.config, context.elsewhere)?;
    context.secrets.borrow_mut().push((span, secret::stands_for_one(&text)));
    Ok(Found::Node(Node { span, value: Value::String(text) }))
}

/// The text of the secret of that name, or what stands for it.
fn secret_text(
    name: &str,
    span: Span,
    config: &Table,
    elsewhere: bool,
) -> Result<String, Box<Diagnostic>> {
    let all = config.get(secret::TABLE).and_then(Node::as_table);
    let known = all.and_then(|all| all.get(name)).and_then(Node::as_str);
    let none = all.is_none_or(Table::is_empty);
    match known {
        Some(text) if elsewhere || !secret::stands_for_one(text) => Ok(text.to_owned()),
        None if elsewhere && none => Ok(secret::stand_in(name)),
        Some(_) => {
            let message = format!("the secret `{name}` is not here, only what is shown of it");
            let found = Diagnostic::new("unset-reference", span, message);
            Err(Box::new(found.help("osctl takes it with --secrets FILE")))
        }
        None => {
            let known = all.into_iter().flat_map(|all| all.iter().map(|e| e.key.as_str()));
            Err(Box::new(secret::unknown(name, span, known)))
        }
    }
}

/// Stands in an item for a key that is known and not set. The NUL keeps it apart from anything that a file can hold.
pub(crate) const UNSET: &str = "\0unset";

/// The value as it stands in the unit: errors point to the reference.
fn at(node: &Node, span: Span) -> Node {
    let mut moved = node.moved(span);
    forget_unset(&mut moved);
    moved
}

fn forget_unset(node: &mut Node) {
    match &mut node.value {
        Value::Array(items) => items.iter_mut().for_each(forget_unset),
        Value::Table(table) => {
            table.retain(|e| e.node.value != Value::String(UNSET.to_owned()));
            table.entries_mut().for_each(|e| forget_unset(&mut e.node));
        }
        _ => {}
    }
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
