//! JSON Schemas of both kinds of files, made from the declarations that their decoder is made from.
//!
//! Draft 7, without what draft 4 lacks wherever that is possible: that is what taplo, Even Better TOML and other editors read. A schema
//! knows one file alone; what several keys, the units or the config say together is the matter of `osctl validate`.

use serde_json::{Map, Value as Json, json};

use crate::config::{MachineConfig, UNSET};
use crate::keys::{Key, Table as _, Text as _, default_node};
use crate::kinds::KindName;
use crate::name::UnitName;
use crate::shape::Shape;
use crate::tree::{Node, Table, Value};
use crate::unit::Words;

/// A text that is one reference and nothing else.
const REFERENCE: &str = r"^\s*\{\{[\s\S]*\}\}\s*$";
/// A text with a reference in it; what it becomes is not known here.
const WITH_REFERENCE: &str = r"\{\{[\s\S]*\}\}";

/// The schema of machine configs.
pub fn machine_config() -> Json {
    let mut schema = table(MachineConfig::known(), Place::Config, MachineConfig::DOC);
    let mut drop_in = table(Words::known(), Place::DropIn, "What is changed of a unit.");
    if let Some(properties) = drop_in.get_mut("properties").and_then(Json::as_object_mut) {
        properties.extend(kinds(Place::DropIn));
    }
    schema["definitions"] = json!({ "drop-in": drop_in });
    schema["properties"][UNSET] = json!({
        "type": "array",
        "items": { "type": "string", "examples": ["network.interfaces"] },
        "description": "In a file that patches others: keys that those have set, and that are to be as if nobody had.",
    });
    titled(schema, "Machine config")
}

/// The schema of unit files.
pub fn unit() -> Json {
    const DOC: &str = "The keys of every unit, and one table that names its kind.";
    let mut schema = table(Words::known(), Place::Unit, DOC);
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        properties.extend(kinds(Place::Unit));
    }
    // One table names the kind.
    schema["oneOf"] = KindName::words().map(|kind| json!({ "required": [kind] })).collect();
    titled(schema, "Unit file")
}

fn titled(mut schema: Json, title: &str) -> Json {
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!(title);
    schema
}

/// Where a value stands, which decides what may stand for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a machine config: single values may refer to others, lists may add to those of an earlier file.
    Config,
    /// In a unit: any value may be a reference.
    Unit,
    /// In a drop-in of a config: as in a unit, nothing is needed, and lists may add to the unit's.
    DropIn,
}

fn kinds(place: Place) -> Map<String, Json> {
    let one = |kind: &KindName| (kind.to_string(), table(kind.keys(), place, kind.doc()));
    KindName::ALL.iter().map(one).collect()
}

fn table(keys: &[Key], place: Place, doc: &str) -> Json {
    let properties: Map<String, Json> =
        keys.iter().map(|key| (key.name.to_owned(), property(key, place))).collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if place != Place::DropIn && !required.is_empty() {
        schema["required"] = json!(required);
    }
    describe(&mut schema, doc);
    schema
}

fn describe(schema: &mut Json, doc: &str) {
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    if !doc.is_empty() {
        schema["description"] = json!(doc);
    }
}

fn property(key: &Key, place: Place) -> Json {
    // A list is named there, and no value.
    let place = if matches!(key.name, "for-each" | "if-set") { Place::Config } else { place };
    let shape = (key.shape)();
    let mut schema = match &shape {
        // A secret is what it is, and no text with references.
        Shape::Map { .. } if key.name == "secrets" => map(&shape),
        shape => value(shape, place),
    };
    describe(&mut schema, key.doc);
    if let Some(default) = default_node(key.default) {
        schema["default"] = as_json(&default);
    }
    schema
}

// Recursion ends with the nesting of our own tables.
fn value(shape: &Shape, place: Place) -> Json {
    let schema = match shape {
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer { from, to } => integer(*from, *to),
        Shape::Text { example, pattern } => return text(example, pattern),
        Shape::Words(words) => {
            let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let docs: Vec<_> = words.iter().map(|(_, doc)| doc.trim()).collect();
            json!({ "type": "string", "enum": names, "x-taplo": { "docs": { "enumValues": docs } } })
        }
        Shape::List { item, least } => return list(item, *least, place),
        Shape::Map { .. } => map(shape),
        Shape::Table(keys) => table(keys, place, ""),
        Shape::OneOf(of) => {
            let of: Vec<_> = of.iter().map(|shape| value(shape, place)).collect();
            return json!({ "anyOf": of });
        }
        Shape::DropIns => {
            return json!({
                "type": "object",
                "propertyNames": { "pattern": UnitName::PATTERN },
                "additionalProperties": { "$ref": "#/definitions/drop-in" },
            });
        }
    };
    let single = !matches!(shape, Shape::Map { .. } | Shape::Table(_));
    match place == Place::Config && !single {
        true => schema,
        false => or_reference(schema),
    }
}

fn integer(from: i64, to: i64) -> Json {
    let mut schema = json!({ "type": "integer" });
    if from != i64::MIN {
        schema["minimum"] = json!(from);
    }
    if to != i64::MAX {
        schema["maximum"] = json!(to);
    }
    schema
}

fn text(example: &str, pattern: &str) -> Json {
    let mut schema = json!({ "type": "string", "examples": [example] });
    if !pattern.is_empty() {
        schema["pattern"] = json!(format!("{pattern}|{WITH_REFERENCE}"));
    }
    schema
}

fn list(item: &Shape, least: usize, place: Place) -> Json {
    let items = value(item, place);
    let mut of = vec![json!({ "type": "array", "items": items })];
    if least > 0 && place != Place::DropIn {
        of[0]["minItems"] = json!(least);
    }
    if place != Place::Unit {
        of.push(json!({
            "type": "object",
            "properties": { "append": { "type": "array", "items": items, "description": "Adds to the list below." } },
            "required": ["append"],
            "additionalProperties": false,
        }));
    }
    if place != Place::Config {
        of.push(reference());
    }
    match of.as_slice() {
        [only] => only.clone(),
        _ => json!({ "anyOf": of }),
    }
}

fn map(shape: &Shape) -> Json {
    let Shape::Map { pattern, value: inner, .. } = shape else { return json!({}) };
    json!({
        "type": "object",
        "propertyNames": { "pattern": pattern },
        "additionalProperties": value(inner, Place::Unit),
    })
}

fn reference() -> Json {
    json!({ "type": "string", "pattern": REFERENCE })
}

fn or_reference(schema: Json) -> Json {
    json!({ "anyOf": [schema, reference()] })
}

/// A value of TOML as one of JSON.
pub fn as_json(node: &Node) -> Json {
    match &node.value {
        Value::String(text) | Value::Datetime(text) => json!(text),
        Value::Integer(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Boolean(yes) => json!(yes),
        Value::Array(items) => items.iter().map(as_json).collect(),
        Value::Table(table) => table_as_json(table),
    }
}

/// A table of TOML as an object of JSON.
pub fn table_as_json(table: &Table) -> Json {
    table.iter().map(|entry| (entry.key.clone(), as_json(&entry.node))).collect()
}
