//! `osctl explain`: what a key of a machine config or a unit file means, in the terminal; or how a unit of a node stands, and why.

use clap::Args;
use keel_unit::explain::{Page, Unknown, explain};
use serde_json::json;

use crate::cli::NodeArgs;
use crate::commands::units::live;
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output, Palette};

/// Explain a key of machine configs or unit files: type, default, meaning, example. With --node, a unit of a running node
///
/// NAME is a key of the machine config (`storage.data.filesystem`), a kind of unit (`service`), a key of a kind (`mount.options`), or a key of every
/// unit (`unit.after`). `config` and `unit` list what there is.
///
/// With --node, NAME is a unit, and the answer is live: what it waits for, since when, until when, what happens then, and the last lines
/// of the unit that holds it up in the end. Exit code 1 if it has failed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl explain storage.data.filesystem\n  osctl explain service\n  osctl explain unit.after\n  osctl explain config --output json\n  osctl --endpoint 192.0.2.10 explain kubelet --node"
)]
pub(crate) struct Explain {
    /// What to explain
    #[arg(value_name = "NAME", default_value = "config")]
    name: String,

    /// Explain a unit of the node that --endpoint names, as it stands now
    #[arg(long)]
    node: bool,

    /// Explain it again whenever something changes, until interrupted
    #[arg(long, short, requires = "node")]
    watch: bool,
}

impl Explain {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        if self.node {
            return live::show(&self.name, live::Depth::Why, self.watch, node, out);
        }
        let page = explain(&self.name).map_err(failure)?;
        match out.format() {
            Format::Json => out.json(&as_json(&page))?,
            Format::Table => {
                let text = as_text(&page, out.palette());
                out.text(&text)?;
            }
        }
        Ok(Exit::Clean)
    }
}

fn failure(unknown: Unknown) -> Failure {
    let failure = Failure::usage(unknown.to_string());
    failure.next(match (&unknown.near, unknown.elsewhere.as_slice()) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => {
            "`osctl explain config` and `osctl explain unit` list what there is".to_owned()
        }
        (None, elsewhere) => format!("there is {}", elsewhere.join(", ")),
    })
}

fn as_json(page: &Page) -> serde_json::Value {
    let words = page.words.iter();
    let inside = page.inside.iter();
    json!({
        "path": page.path,
        "doc": page.doc,
        "place": page.place,
        "expected": page.expected,
        "default": page.default,
        "required": page.required,
        "references": page.references,
        "words": words.map(|(word, doc)| json!({ "word": word, "doc": doc })).collect::<Vec<_>>(),
        "inside": inside.map(|(name, expected, doc)| json!({ "name": name, "expected": expected, "doc": doc }))
            .collect::<Vec<_>>(),
        "example": page.example,
    })
}

/// Where prose breaks, so that it can be read on any terminal.
const WIDTH: usize = 92;

fn as_text(page: &Page, palette: Palette) -> String {
    let strong = |text: &str| palette.paint(Ink::Strong, text);
    let faint = |text: &str| palette.paint(Ink::Faint, text);
    let mut text = format!("{}\n{}\n", strong(&page.path), wrapped(&page.doc, 2));
    let mut line = |label: &str, what: &str| {
        text +=
            &format!("  {}{}\n", faint(&format!("{label:<10}")), wrapped(what, 12).trim_start());
    };
    if let Some(expected) = &page.expected {
        line("value", expected);
        line(
            "default",
            match (page.default, page.required) {
                (Some(default), _) => default,
                (None, true) => "none; it is required",
                (None, false) => "not set",
            },
        );
    }
    line("where", &page.place);
    if page.references {
        line("reference", "`{{ … }}` into the machine config may stand for it");
    }
    let width = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0).min(24);
    if !page.words.is_empty() {
        text += "\n";
        let wide = width(&mut page.words.iter().map(|(word, _)| word.len()));
        for (word, doc) in &page.words {
            text += &format!(
                "  {}  {}\n",
                strong(&format!("{word:<wide$}")),
                wrapped(doc, wide + 4).trim_start()
            );
        }
    }
    if !page.inside.is_empty() {
        text += "\n";
        let wide = width(&mut page.inside.iter().map(|(name, ..)| name.len()));
        for (name, _, doc) in &page.inside {
            text += &format!(
                "  {}  {}\n",
                strong(&format!("{name:<wide$}")),
                wrapped(doc, wide + 4).trim_start()
            );
        }
    }
    text += &format!("\n  {}\n", faint("example"));
    for line in page.example.trim_end().lines() {
        let indent = if line.is_empty() { "" } else { "    " };
        text += &format!("{indent}{line}\n");
    }
    text
}

/// Prose in lines, each indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let room = lines.last().is_some_and(|line: &String| {
            line.is_empty() || line.chars().count() + 1 + word.chars().count() + indent <= WIDTH
        });
        if !room {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let lines = lines.into_iter().map(|line| format!("{:indent$}{line}", ""));
    lines.collect::<Vec<_>>().join("\n")
}
