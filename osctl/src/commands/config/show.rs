//! `osctl config show`: what holds after all files and all defaults, and who said so.

use clap::Args;
use keel_unit::config::{Effective, Origin, effective_config};
use keel_unit::json_schema::table_as_json;
use keel_unit::tree::{Node, Value};
use serde_json::json;

use crate::commands::inputs::Inputs;
use crate::error::{Exit, Failure};
use crate::output::{Format, Output};

/// Show the config that holds: every file laid over those before, every default filled in
///
/// What is printed is a machine config itself. A secret is shown as `<secret sha256:…>`. Units are read only where there are some, to know
/// which of their texts are secrets.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl config show --config machine-configs/qemu.toml\n  osctl config show --config site.toml --config rack-7.toml --with-origin\n  osctl config show --config rack-7.toml --with-origin --output json"
)]
pub(crate) struct Show {
    #[command(flatten)]
    inputs: Inputs,

    /// Say of each value which file and line set it, or that it is the default
    #[arg(long)]
    with_origin: bool,
}

impl Show {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        let effective = match effective_config(self.inputs.load_config()?) {
            Ok(effective) => effective,
            Err(report) => {
                out.findings(&report);
                return Ok(Exit::Findings);
            }
        };
        match out.format() {
            Format::Table => out.text(&effective.toml(self.with_origin))?,
            Format::Json => {
                let config = table_as_json(&effective.table);
                out.json(&match self.with_origin {
                    true => json!({
                        "config": config,
                        "origins": origins(&effective),
                        "unset": unset(&effective),
                    }),
                    false => config,
                })?;
            }
        }
        Ok(Exit::Clean)
    }
}

/// Who has unset what.
fn unset(effective: &Effective) -> Vec<serde_json::Value> {
    let each = effective.unset.iter().map(|unset| {
        let at = effective.sources.locate(unset.span);
        json!({ "path": unset.path, "file": *at.file, "line": at.line })
    });
    each.collect()
}

/// Who set each value, in the order of the config; a key is a path, for it may hold dots itself.
fn origins(effective: &Effective) -> Vec<serde_json::Value> {
    fn walk(
        effective: &Effective,
        path: &[serde_json::Value],
        node: &Node,
        all: &mut Vec<serde_json::Value>,
    ) {
        let below = |part: serde_json::Value| [path, &[part]].concat();
        match &node.value {
            Value::Table(table) if !table.is_empty() => {
                for entry in table.iter() {
                    walk(effective, &below(json!(entry.key)), &entry.node, all);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (i, item) in items.iter().enumerate() {
                    walk(effective, &below(json!(i)), item, all);
                }
            }
            _ => all.push(match effective.origin(node.span) {
                Origin::Default => json!({ "path": path, "default": true }),
                Origin::Written(at) => {
                    json!({ "path": path, "default": false, "file": *at.file, "line": at.line })
                }
            }),
        }
    }
    let mut all = Vec::new();
    for entry in effective.table.iter() {
        walk(effective, &[json!(entry.key)], &entry.node, &mut all);
    }
    all
}
