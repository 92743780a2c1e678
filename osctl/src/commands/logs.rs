//! `osctl logs`: what units wrote, and with `--follow` what they write now.

use std::time::{Duration, SystemTime};

use keel_proto::v1::{GetStatusRequest, LogLine, ReadLogsRequest, ReadLogsResponse};
use keel_unit::keys::Text as _;
use keel_unit::value::Timespan;
use prost_types::Timestamp;
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, Broken, Comeback, Connection, Reader, millis};
use crate::output::{Format, Ink, Output, Palette, printable_line};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 logs
  osctl --endpoint 192.0.2.10 logs containerd kubelet --since 5m
  osctl --endpoint 192.0.2.10 logs --follow --tail 20
  osctl --endpoint 192.0.2.10 logs kubelet --boot 9f3a")]
pub(crate) struct Args {
    /// Only lines of these units [default: all]
    #[arg(value_name = "UNIT")]
    units: Vec<String>,

    /// Go on with what is written from now on, until interrupted; also when the agent or the node is restarted meanwhile
    #[arg(long, short)]
    follow: bool,

    /// Only lines from this moment on: so long ago (5m, 1h30m), or a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,

    /// Only so many of the lines that are there, the newest
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    tail: Option<u32>,

    /// The last lines of an earlier boot: its id, or the first digits of it; `osctl boot list` has them
    #[arg(long, value_name = "ID", conflicts_with = "follow")]
    boot: Option<String>,
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Since {
    Ago(Duration),
    At(Timestamp),
}

impl Since {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(span) = Timespan::parse(text) {
            return Ok(Self::Ago(span.0));
        }
        let at = text.parse::<Timestamp>();
        at.map(Self::At).map_err(|_| "write 5m, 1h30m or 2026-01-31T12:00:00Z".to_owned())
    }

    /// As a moment of a node whose clock shows `now`.
    fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(age) => {
                let now = SystemTime::try_from(now).unwrap_or_else(|_| SystemTime::now());
                now.checked_sub(age)
                    .map_or(SystemTime::UNIX_EPOCH, |at| at.max(SystemTime::UNIX_EPOCH))
                    .into()
            }
        }
    }
}

pub(crate) fn run(args: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    node::ask(async {
        let reading = Reading { args, since: None, next: 0, boot: None, width: 0 };
        node::read_on(reading, node, out).await?;
        Ok(Exit::Clean)
    })
}

/// Where a reader is.
struct Reading<'a> {
    args: &'a Args,
    /// `--since` as the node's clock has it; looked up once.
    since: Option<Timestamp>,
    /// The number of the next line; 0 before the first.
    next: u64,
    /// The boot that writes; known once the node has answered.
    boot: Option<String>,
    /// The widest name of a unit so far.
    width: usize,
}

impl Reader for Reading<'_> {
    fn follows(&self) -> bool {
        self.args.follow
    }

    fn answered(&self) -> bool {
        self.boot.is_some()
    }

    fn begin_anew(&mut self, out: &mut Output) -> bool {
        out.notice("the node has rebooted; these are the lines of the new boot");
        self.next = 1;
        self.boot = Some(String::new());
        true
    }

    async fn round(
        &mut self,
        node: &NodeArgs,
        comeback: &mut Comeback,
        out: &mut Output,
    ) -> Result<(), Broken> {
        let connection = node::reach(node, out).await.map_err(Broken::Away)?;
        let request = self.request(&connection).await?;
        let answer = connection.journal().read_logs(request).await;
        let refused =
            |status| Broken::by(&status, node::refused("tell what its units wrote", &status));
        let mut stream = answer.map_err(refused)?.into_inner();
        // From here on a break is one that is come back from.
        self.boot.get_or_insert_default();
        comeback.back(&format!("line {}", self.next.max(1)), out);
        while let Some(batch) = stream.message().await.map_err(refused)? {
            self.take(batch, out)?;
        }
        if self.args.follow {
            return Err(Broken::Away(Failure::new("the node ended the stream")));
        }
        Ok(())
    }
}

impl Reading<'_> {
    async fn request(&mut self, connection: &Connection) -> Result<ReadLogsRequest, Broken> {
        let begins = self.next == 0;
        if begins
            && self.since.is_none()
            && let Some(since) = self.args.since
        {
            // The age is counted on the node's clock, which may be another than ours.
            let status = connection.node().get_status(GetStatusRequest {}).await;
            let status = status
                .map_err(|status| Broken::by(&status, node::refused("tell its time", &status)))?;
            let now = status.into_inner().status.and_then(|status| status.time);
            self.since = Some(since.moment(now.unwrap_or_else(|| SystemTime::now().into())));
        }
        Ok(ReadLogsRequest {
            units: self.args.units.clone(),
            tail: self.args.tail.filter(|_| begins).unwrap_or(0),
            since: self.since.filter(|_| begins),
            from_seq: self.next,
            follow: self.args.follow,
            boot: self.args.boot.clone(),
        })
    }

    fn take(&mut self, batch: ReadLogsResponse, out: &mut Output) -> Result<(), Broken> {
        let known = self.boot.get_or_insert_default();
        if known.is_empty() {
            known.clone_from(&batch.boot);
        } else if *known != batch.boot {
            return Err(Broken::Rebooted(Failure::new("the node has rebooted")));
        }
        if batch.dropped > 0 {
            out.notice(&format!("{} lines before these are forgotten by the node", batch.dropped));
        }
        self.print(&batch, out).map_err(Broken::ForGood)?;
        self.next = batch.lines.last().map_or(self.next, |line| line.seq + 1);
        Ok(())
    }

    /// All of the new boot is news.
    fn print(&mut self, batch: &ReadLogsResponse, out: &mut Output) -> Result<(), Failure> {
        match out.format() {
            Format::Table => {
                let names = batch.lines.iter().map(|line| line.unit.chars().count());
                self.width = names.chain([self.width]).max().unwrap_or(0);
                let palette = out.palette();
                let lines = batch.lines.iter().map(|one| line(one, self.width, palette));
                out.text(&lines.collect::<String>())
            }
            Format::Json => batch
                .lines
                .iter()
                .try_for_each(|line| out.json_line(&LineView::new(line, &batch.boot))),
        }
    }
}

/// What `--output json` prints, one per line; its keys are an interface.
#[derive(Debug, Serialize)]
struct LineView<'a> {
    seq: u64,
    at_ms: u64,
    time: Option<String>,
    unit: &'a str,
    text: &'a str,
    cut: bool,
    boot: &'a str,
}

impl<'a> LineView<'a> {
    fn new(line: &'a LogLine, boot: &'a str) -> Self {
        Self {
            seq: line.seq,
            at_ms: millis(line.at.as_ref()),
            time: line.time.as_ref().map(moment),
            unit: &line.unit,
            text: &line.text,
            cut: line.cut,
            boot,
        }
    }
}

/// One line: when, who, what. A line that goes on in the unit's next one ends with `…`.
fn line(line: &LogLine, width: usize, palette: Palette) -> String {
    let time = line.time.as_ref().map(moment).unwrap_or_default();
    let unit = format!("{:width$}", printable_line(&line.unit));
    let cut = if line.cut { palette.paint(Ink::Faint, "…") } else { String::new() };
    format!(
        "{} {} {}{cut}\n",
        palette.paint(Ink::Faint, &time),
        palette.paint(Ink::Strong, &unit),
        printable_line(&line.text)
    )
}

/// To the millisecond, in UTC.
fn moment(at: &Timestamp) -> String {
    let seconds = node::timestamp(at);
    let millis = at.nanos.clamp(0, 999_999_999) / 1_000_000;
    format!("{}.{millis:03}Z", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since() {
        let now = Timestamp { seconds: 10_000, nanos: 5 };
        let check = |text: &str, expect: Result<i64, ()>| {
            let since = Since::parse(text).map(|since| since.moment(now).seconds).map_err(drop);
            assert_eq!(since, expect, "{text}");
        };
        check("5m", Ok(9_700));
        check("1h30m", Ok(4_600));
        check("365d", Ok(0));
        check("1970-01-01T01:00:00Z", Ok(3_600));
        check("1970-01-01T03:00:00+02:00", Ok(3_600));
        check("", Err(()));
        check("5 minutes", Err(()));
        check("yesterday", Err(()));
        check("-5m", Err(()));
    }

    #[test]
    fn lines() {
        let check = |unit: &str, text: &str, cut, expect: &str| {
            let time = Some(Timestamp { seconds: 1_700_000_000, nanos: 7_000_000 });
            let one = LogLine {
                unit: unit.to_owned(),
                text: text.to_owned(),
                time,
                cut,
                ..LogLine::default()
            };
            assert_eq!(line(&one, 6, Palette::PLAIN), expect);
        };
        check("web", "ready", false, "2023-11-14T22:13:20.007Z web    ready\n");
        check("web", "long", true, "2023-11-14T22:13:20.007Z web    long…\n");
        check(
            "a\u{1b}[31m",
            "\u{1b}]0;title\u{7}\ta\u{202e}b\nc",
            false,
            "2023-11-14T22:13:20.007Z a\\u{1b}[31m \\u{1b}]0;title\\u{7}\ta\\u{202e}b\\nc\n",
        );
    }
}
