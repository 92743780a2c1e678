//! `osctl history`, `osctl confirm` and `osctl rollback`: the configs that a node has had, and what becomes of them.

use std::fmt::Write as _;

use clap::Subcommand;
use keel_proto::v1::{
    ApplyMode, ConfirmRequest, Generation, GenerationResult, GetRequest, HistoryRequest,
    HistoryResponse, RollbackRequest,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::cli::NodeArgs;
use crate::commands::apply_config::{Asked, How, carry_out};
use crate::error::{Exit, Failure};
use crate::node::{self, millis, short, timestamp};
use crate::output::{Format, Ink, Output, Palette, printable_line};

/// List the machine configs that a node has had, and show one
///
/// The newest comes last. A node remembers sixteen of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 history
  osctl --endpoint 192.0.2.10 history --output json | jq '.generations[-1].result'
  osctl --endpoint 192.0.2.10 history show 3")]
pub(crate) struct HistoryArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print one of them, without the texts of its secrets
    #[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 history show 3 > before.toml")]
    Show {
        /// Its number
        #[arg(value_name = "N")]
        number: u64,
    },
}

impl HistoryArgs {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        match self.what {
            Some(What::Show { number }) => print(Some(number), node, out),
            None => list(node, out),
        }
    }
}

/// Prints the text of a config.
pub(crate) fn print(
    generation: Option<u64>,
    node: &NodeArgs,
    out: &mut Output,
) -> Result<Exit, Failure> {
    node::ask(async {
        let connection = node::reach(node, out).await?;
        let answer = connection.config().get(GetRequest { generation }).await;
        let answer = answer.map_err(|status| refused("show its config", &status))?.into_inner();
        match out.format() {
            Format::Table => out.text(&whole(&answer.text))?,
            Format::Json => {
                out.json(&json!({ "generation": answer.generation, "text": answer.text }))?;
            }
        }
        Ok(Exit::Clean)
    })
}

/// A config to look at and to write into a file: its lines are kept, and none repaints the screen. TOML allows no control character in
/// a line but the tab.
fn whole(text: &str) -> String {
    text.lines().map(|line| printable_line(line) + "\n").collect()
}

fn list(node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    node::ask(async {
        let connection = node::reach(node, out).await?;
        let history = connection.config().history(HistoryRequest {}).await;
        let history = history.map_err(|status| refused("tell its history", &status))?.into_inner();
        for damage in &history.damage {
            out.notice(&format!(
                "broken on the node's disk, and left out: {}",
                printable_line(damage)
            ));
        }
        match out.format() {
            Format::Table => {
                let text = page(&history, out.palette());
                out.text(&text)?;
            }
            Format::Json => out.json(&view(&history))?,
        }
        Ok(Exit::Clean)
    })
}

/// What became of a config: its word, and what it means to the reader.
fn result(result: GenerationResult) -> (&'static str, Ink) {
    match result {
        GenerationResult::Staged => ("staged", Ink::Warning),
        GenerationResult::UnderWay => ("under-way", Ink::Warning),
        GenerationResult::Good => ("good", Ink::Good),
        GenerationResult::RolledBack => ("undone", Ink::Bad),
        GenerationResult::Unspecified => ("unknown", Ink::Warning),
    }
}

fn page(history: &HistoryResponse, palette: Palette) -> String {
    let mut page = String::new();
    if history.current.is_none() {
        page.push_str("The image's own config runs.\n");
    }
    let author = history.generations.iter().map(|it| it.author.chars().count()).max().unwrap_or(0);
    for one in &history.generations {
        let Generation { number, author: who, reason, note, .. } = one;
        let mark = match () {
            () if history.current == Some(*number) => "*",
            () if history.next == Some(*number) => ">",
            () => " ",
        };
        let (word, ink) = result(one.result());
        let word = palette.paint(ink, &format!("{word:9}"));
        let time = one.time.as_ref().map(timestamp).unwrap_or_default();
        let said = [reason, note.as_ref().unwrap_or(&String::new())]
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(|text| printable_line(text))
            .collect::<Vec<_>>()
            .join(": ");
        let who = printable_line(who);
        let _ = writeln!(page, "{mark} {number:>4}  {time}  {word}  {who:author$}  {said}");
    }
    if let Some(number) = history.trial {
        let left = short(millis(history.trial_left.as_ref()));
        let text = format!("config {number} is undone unless `osctl confirm` comes within {left}");
        page += &palette.paint(Ink::Warning, &text);
        page.push('\n');
    }
    if !history.generations.is_empty() {
        page += &palette.paint(Ink::Faint, "* runs  > comes with the next boot");
        page.push('\n');
    }
    page
}

/// What `--output json` prints; its keys are an interface.
fn view(history: &HistoryResponse) -> Value {
    let generations = history.generations.iter().map(|one| {
        json!({
            "number": one.number,
            "digest": one.digest,
            "text_sha256": one.text_sha256,
            "author": one.author,
            "reason": one.reason,
            "time": one.time.as_ref().map(timestamp),
            "result": result(one.result()).0,
            "note": one.note,
        })
    });
    json!({
        "generations": generations.collect::<Vec<_>>(),
        "current": history.current,
        "next": history.next,
        "trial": history.trial,
        "trial_left_ms": history.trial.map(|_| millis(history.trial_left.as_ref())),
        "damage": history.damage,
    })
}

/// Say that the config on trial is well: it holds from now on
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 confirm")]
pub(crate) struct Confirm {}

impl Confirm {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        node::ask(async {
            let connection = node::reach(node, out).await?;
            let answer = connection.config().confirm(ConfirmRequest {}).await;
            let number =
                answer.map_err(|status| refused("confirm its config", &status))?.into_inner();
            let number = number.generation;
            match out.format() {
                Format::Table => out.text(&format!("config {number} holds\n"))?,
                Format::Json => out.json(&json!({ "generation": number }))?,
            }
            Ok(Exit::Clean)
        })
    }
}

/// Go back to an earlier machine config of a node
///
/// Without a number it is the one before the one that holds, which may be the image's own. It becomes the newest one, and is planned, kept
/// and tried like any other. Exit codes are those of `osctl apply-config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 rollback --dry-run
  osctl --endpoint 192.0.2.10 rollback 3 --reason 'the new kubelet leaks'")]
pub(crate) struct RollbackArgs {
    /// Its number, as `osctl history` shows it
    #[arg(value_name = "N")]
    number: Option<u64>,

    #[command(flatten)]
    how: How,
}

impl RollbackArgs {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let how = &self.how;
        let request = RollbackRequest {
            generation: self.number,
            dry_run: how.dry_run,
            mode: ApplyMode::from(how.mode).into(),
            timeout: how.timeout(),
            reason: how.reason.clone(),
            wait: how.wait,
        };
        node::ask(carry_out(Asked::Rollback(request), how, node, out))
    }
}

fn refused(what: &str, status: &Status) -> Failure {
    let next = match status.code() {
        Code::NotFound => "`osctl history` lists the configs that the node remembers",
        Code::FailedPrecondition => "`osctl history` shows what runs and what has its turn",
        _ => return node::refused(what, status),
    };
    Failure::new(format!("the node did not {what}: {}", status.message())).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_shown_as_one_that_can_be_sent_back() {
        let text = "schema = 1\n\n[machine]\n\thostname = 'a'  # a remark\n";
        assert_eq!(whole(text), text);
        assert_eq!(whole("a = 1\r\nb = 2"), "a = 1\nb = 2\n");
        assert_eq!(whole("# \u{1b}[2J\u{202e}\n"), "# \\u{1b}[2J\\u{202e}\n");
    }

    #[test]
    fn histories() {
        let one = |number, result: GenerationResult, note: Option<&str>| Generation {
            number,
            digest: format!("sha256:{number}"),
            text_sha256: "00".to_owned(),
            author: "CN=ada,O=keel:admin".to_owned(),
            reason: "a second disk".to_owned(),
            time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            result: result.into(),
            note: note.map(str::to_owned),
        };
        let history = HistoryResponse {
            generations: vec![
                one(1, GenerationResult::Good, None),
                one(2, GenerationResult::RolledBack, Some("kubelet is not up, and was before")),
                one(3, GenerationResult::UnderWay, None),
            ],
            current: Some(3),
            next: None,
            trial: Some(3),
            trial_left: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
            damage: vec![],
        };
        insta::assert_snapshot!("history", page(&history, Palette::PLAIN));
        insta::assert_snapshot!(
            "history_json",
            serde_json::to_string_pretty(&view(&history)).unwrap()
        );
        assert_eq!(
            page(&HistoryResponse::default(), Palette::PLAIN),
            "The image's own config runs.\n"
        );
    }
}
