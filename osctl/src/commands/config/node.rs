//! `osctl config get` and `osctl config edit`: the config that a node runs.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use keel_proto::v1::{ApplyMode, ApplyRequest, ConfigFile, GetRequest};
use similar::{ChangeTag, TextDiff};

use crate::cli::NodeArgs;
use crate::commands::apply_config::{Asked, How, carry_out};
use crate::commands::{ask, history};
use crate::error::{Exit, Failure};
use crate::node;
use crate::output::{Ink, Output, Palette, printable_line};

/// Print the machine config that a node runs
///
/// The texts of its secrets stay on the node: `<secret>` stands for each.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 config get > node.toml")]
pub(crate) struct Get {}

impl Get {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        history::print(None, node, out)
    }
}

/// Change the machine config that a node runs in your editor
///
/// The editor is $VISUAL or $EDITOR. What you changed is shown before it is applied; `<secret>` stands for a secret, and where it stays the
/// secret stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  EDITOR=vi osctl --endpoint 192.0.2.10 config edit
  osctl --endpoint 192.0.2.10 config edit --mode try --reason 'another time server'")]
pub(crate) struct Edit {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    how: How,
}

impl Edit {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let how = &self.how;
        node::ask(async {
            let connection = node::reach(node, out).await?;
            let failed = |status| node::refused("show its config", &status);
            let answer = connection.config().get(GetRequest { generation: None }).await;
            let before = answer.map_err(failed)?.into_inner().text;
            let status = connection.node().get_status(keel_proto::v1::GetStatusRequest {}).await;
            let status = status.map_err(|status| node::refused("tell its status", &status))?;
            let digest = status.into_inner().status.unwrap_or_default().digest;
            drop(connection);
            let after = edited(&before)?;
            if after == before {
                out.notice("nothing was changed");
                return Ok(Exit::Clean);
            }
            let text = difference(&before, &after, out.palette());
            out.notice("this is what you have changed:");
            if out.format() == crate::output::Format::Table {
                out.text(&text)?;
            }
            let question = "Apply it?";
            if !how.dry_run && !self.yes && !ask::yes(question, "add --yes to apply it")? {
                return Err(ask::declined());
            }
            let request = ApplyRequest {
                files: vec![ConfigFile { name: "node.toml".to_owned(), text: after }],
                secrets: None,
                // On the very graph that was looked at.
                base_digest: digest,
                dry_run: how.dry_run,
                mode: ApplyMode::from(how.mode).into(),
                timeout: how.timeout(),
                reason: how.reason.clone(),
                wait: how.wait,
                keep_secrets: true,
            };
            carry_out(Asked::Apply(request), how, node, out).await
        })
    }
}

/// The text as it comes back from the editor. The file is for its owner alone: a secret may be typed into it.
fn edited(text: &str) -> Result<String, Failure> {
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.filter(|editor| !editor.trim().is_empty());
    let Some(editor) = editor else {
        let failure = Failure::usage("neither $VISUAL nor $EDITOR says which editor to use");
        return Err(failure.next("set one, or use `osctl config get` and `osctl apply-config`"));
    };
    let failed = |source| {
        Failure::new("cannot edit the config")
            .because(source)
            .next("is there room in the folder for temporary files?")
    };
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
    // As shells have it: an editor may come with arguments.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or_default();
    let status = Command::new(program).args(words).arg(file.path()).status();
    let status = status.map_err(|source| {
        let failure = Failure::usage(format!("cannot start the editor `{editor}`")).because(source);
        failure.next("set $EDITOR to one that is there")
    })?;
    if !status.success() {
        return Err(Failure::new(format!("the editor ended with {status}; nothing was changed"))
            .next("save and leave the editor as it is usual, to apply what you changed"));
    }
    // Many editors put another file in its place.
    fs::read_to_string(file.path()).map_err(failed)
}

/// The lines that differ, with a few around them.
fn difference(before: &str, after: &str, palette: Palette) -> String {
    let diff = TextDiff::from_lines(before, after);
    let mut page = String::new();
    for (n, group) in diff.grouped_ops(2).iter().enumerate() {
        if n > 0 {
            page.push_str("  …\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let line = printable_line(change.value().trim_end_matches('\n'));
            let line = match change.tag() {
                ChangeTag::Delete => palette.paint(Ink::Bad, &format!("- {line}")),
                ChangeTag::Insert => palette.paint(Ink::Good, &format!("+ {line}")),
                ChangeTag::Equal => format!("  {line}"),
            };
            page += &line;
            page.push('\n');
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_with_what_is_around() {
        let before = "schema = 1\na = 1\nb = 2\nc = 3\nd = 4\ne = 5\n";
        let after = "schema = 1\na = 1\nb = 2\nc = 4\nd = 4\ne = 5\n";
        let expect = "  a = 1\n  b = 2\n- c = 3\n+ c = 4\n  d = 4\n  e = 5\n";
        assert_eq!(difference(before, after, Palette::PLAIN), expect);
    }
}
