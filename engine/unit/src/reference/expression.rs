//! What stands between the braces and is no plain name: an expression of minijinja.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;

use super::{DEEPEST, Found, LONGEST, UNSET, bad};
use crate::diagnostic::Diagnostic;
use crate::keys::{Key, clip};
use crate::secret;
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};

/// Longest expression, in bytes. Parser and compiler of minijinja recurse with every operator, so this bounds the stack.
const LONGEST_EXPRESSION: usize = 500;
/// Steps that one expression may take.
const FUEL: u64 = 10_000;
/// Most expressions of one unit.
const MOST_EXPRESSIONS: u32 = 1_000;

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
        // Its loops cost no fuel, and no unit counts.
        environment.remove_global("range");
        // What is computed of a secret would not be known as one.
        let config = &without_secrets(config);
        let config = keys
            .iter()
            .filter(|k| k.name != secret::TABLE)
            .map(|k| (k.name.to_owned(), to_expression(config.get(k.name), (k.inner)())))
            .collect();
        Engine { environment, config }
    }
}

/// The expressions of one unit, or of one instance of a template.
pub(super) struct Expressions<'a> {
    engine: &'a Engine,
    /// Made when the first expression needs them; most units hold plain names alone.
    variables: OnceCell<minijinja::Value>,
    evaluated: Cell<u32>,
}

impl<'a> Expressions<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Expressions { engine, variables: OnceCell::new(), evaluated: Cell::new(0) }
    }

    pub(super) fn evaluate(
        &self,
        expression: &str,
        span: Span,
        item: Option<&Node>,
    ) -> Result<Found, Box<Diagnostic>> {
        if expression.is_empty() {
            return Err(Box::new(bad(span, "nothing stands between the braces")));
        }
        if expression.len() > LONGEST_EXPRESSION {
            let why = format!("an expression of more than {LONGEST_EXPRESSION} characters");
            return Err(Box::new(bad(span, &why)));
        }
        self.evaluated.set(self.evaluated.get() + 1);
        if self.evaluated.get() > MOST_EXPRESSIONS {
            let why = format!("more than {MOST_EXPRESSIONS} expressions in one unit");
            return Err(Box::new(bad(span, &why)));
        }
        let variables = self.variables.get_or_init(|| {
            let config = self.engine.config.iter().map(|(k, v)| (k.clone(), v.clone()));
            let item = item.map(|item| ("item".to_owned(), to_expression(Some(item), &[])));
            config.chain(item).collect::<BTreeMap<_, _>>().into()
        });
        let compiled = self.engine.environment.compile_expression(expression);
        let value = compiled.and_then(|e| e.eval(variables)).map_err(|error| {
            let why = match error.kind() {
                minijinja::ErrorKind::OutOfFuel => "it takes too many steps".to_owned(),
                kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
            };
            let found = bad(span, &format!("`{}`: {why}", clip(expression)));
            Box::new(match subtraction(expression) {
                Some((table, key)) => found.help(format!(
                    "in an expression `-` is minus; write `{table}['{key}']` for the key"
                )),
                None if expression.contains(secret::TABLE) => {
                    found.help("a secret stands by its plain name: `{{ secrets.NAME }}`")
                }
                None => found,
            })
        })?;
        if value.is_none() {
            return Ok(Found::Unset);
        }
        if value.to_string().contains('\0') {
            return Err(Box::new(secret::misplaced(span).help(
                "in an expression one can only ask whether it is set; it stands by its plain name, such as `{{ cluster.token }}`",
            )));
        }
        from_expression(&value, span, 0).map(Found::Node).ok_or_else(|| {
            Box::new(bad(span, &format!("`{}` gives no value of TOML", clip(expression))))
        })
    }
}

/// What an expression sees of a key that is a secret. The NUL keeps it apart from anything that a file can hold.
const HERE: &str = "\0\0\0\0";

/// The config with something in place of each of its keys that are secrets.
fn without_secrets(config: &Table) -> Table {
    let mut config = config.clone();
    for key in secret::KEYS {
        if let Some(Value::Table(table)) = config.entry_mut(key[0]).map(|e| &mut e.node.value)
            && let Some(entry) = table.entry_mut(key[1])
        {
            entry.node.value = Value::String(HERE.to_owned());
        }
    }
    config
}

/// The first name in an expression that has a `-` in it, such as `cluster.node-name`: table and key.
fn subtraction(expression: &str) -> Option<(&str, &str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    expression
        .split(|c: char| !part(c))
        .filter_map(|name| name.rsplit_once('.'))
        .find(|(table, key)| !table.is_empty() && key.trim_matches('-').contains('-'))
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
