//! `osctl dmesg`: what a node's kernel wrote, and with `--follow` what it writes now.

use keel_proto::v1::{KernelRecord, ReadKernelLogRequest, ReadKernelLogResponse};
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, Broken, Comeback, Reader, micros};
use crate::output::{Format, Ink, Output, Palette, printable_line};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 dmesg
  osctl --endpoint 192.0.2.10 dmesg --follow --tail 20
  osctl --endpoint 192.0.2.10 dmesg --output json | jq -r 'select(.severity <= 3).text'")]
pub(crate) struct Args {
    /// Go on with what is written from now on, until interrupted; also when the agent or the node is restarted meanwhile
    #[arg(long, short)]
    follow: bool,

    /// Only so many of the records that are there, the newest
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    tail: Option<u32>,
}

pub(crate) fn run(args: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    node::ask(async {
        let reading = Reading { args, boot: None, next: 0 };
        node::read_on(reading, node, out).await?;
        Ok(Exit::Clean)
    })
}

/// Where a reader is.
struct Reading<'a> {
    args: &'a Args,
    /// The boot whose records these are; known once the node has answered.
    boot: Option<String>,
    /// The number of the next record; the kernel gives all it has to each that asks.
    next: u64,
}

impl Reader for Reading<'_> {
    fn follows(&self) -> bool {
        self.args.follow
    }

    fn answered(&self) -> bool {
        self.boot.is_some()
    }

    async fn round(
        &mut self,
        node: &NodeArgs,
        comeback: &mut Comeback,
        out: &mut Output,
    ) -> Result<(), Broken> {
        let connection = node::reach(node, out).await.map_err(Broken::Away)?;
        let tail = self.args.tail.filter(|_| self.next == 0).unwrap_or(0);
        let request = ReadKernelLogRequest { tail, follow: self.args.follow };
        let refused =
            |status| Broken::by(&status, node::refused("tell what its kernel wrote", &status));
        let answer = connection.journal().read_kernel_log(request).await;
        let mut stream = answer.map_err(refused)?.into_inner();
        self.boot.get_or_insert_default();
        comeback.back(&format!("record {}", self.next), out);
        while let Some(batch) = stream.message().await.map_err(refused)? {
            self.take(batch, out).map_err(Broken::ForGood)?;
        }
        if self.args.follow {
            return Err(Broken::Away(Failure::new("the node ended the stream")));
        }
        Ok(())
    }
}

impl Reading<'_> {
    fn take(&mut self, mut batch: ReadKernelLogResponse, out: &mut Output) -> Result<(), Failure> {
        let known = self.boot.get_or_insert_default();
        if *known != batch.boot {
            if !known.is_empty() {
                out.notice("the node has rebooted; these are the records of the new boot");
            }
            known.clone_from(&batch.boot);
            self.next = 0;
        }
        let read = self.next;
        batch.records.retain(|record| record.seq >= read);
        if batch.dropped > 0 {
            out.notice(&format!("{} records before these were overwritten", batch.dropped));
        }
        self.next = batch.records.last().map_or(self.next, |record| record.seq.saturating_add(1));
        match out.format() {
            Format::Table => {
                let palette = out.palette();
                let lines = batch.records.iter().map(|record| line(record, palette));
                out.text(&lines.collect::<String>())
            }
            Format::Json => {
                batch.records.iter().try_for_each(|record| out.json_line(&RecordView::from(record)))
            }
        }
    }
}

/// What `--output json` prints, one per line; its keys are an interface.
#[derive(Debug, Serialize)]
struct RecordView<'a> {
    seq: u64,
    at_us: u64,
    severity: u32,
    facility: u32,
    text: &'a str,
}

impl<'a> From<&'a KernelRecord> for RecordView<'a> {
    fn from(record: &'a KernelRecord) -> Self {
        let at_us = micros(record.at.as_ref());
        let KernelRecord { seq, severity, facility, text, .. } = record;
        Self { seq: *seq, at_us, severity: *severity, facility: *facility, text }
    }
}

/// One record as dmesg(1) shows it: what is an error stands out.
fn line(record: &KernelRecord, palette: Palette) -> String {
    let at = micros(record.at.as_ref());
    let stamp = format!("[{:>5}.{:06}]", at / 1_000_000, at % 1_000_000);
    let text = printable_line(&record.text);
    let text = match record.severity {
        0..=3 => palette.paint(Ink::Bad, &text),
        4 => palette.paint(Ink::Warning, &text),
        _ => text,
    };
    format!("{} {text}\n", palette.paint(Ink::Faint, &stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |micros: i32, text: &str, expect: &str| {
            let at = Some(prost_types::Duration { seconds: 12, nanos: micros * 1000 });
            let record = KernelRecord { at, text: text.to_owned(), ..KernelRecord::default() };
            assert_eq!(line(&record, Palette::PLAIN), expect);
        };
        check(5, "EXT4-fs (vda1): mounted", "[   12.000005] EXT4-fs (vda1): mounted\n");
        check(345_678, "a\u{1b}[2J\nb", "[   12.345678] a\\u{1b}[2J\\nb\n");
    }
}
