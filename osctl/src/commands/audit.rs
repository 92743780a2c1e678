//! `osctl audit`: who called a node, and what came of it.

use keel_proto::v1::{AuditRecord, ReadAuditRequest, ReadAuditResponse};
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node;
use crate::output::{Format, Ink, Output, Palette, printable};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 audit --tail 20
  osctl --endpoint 192.0.2.10 audit --follow
  osctl --endpoint 192.0.2.10 audit --output json | jq -r 'select(.result == \"REFUSED\").why'")]
pub(crate) struct Args {
    /// Go on with what happens from now on, until interrupted
    #[arg(long, short)]
    follow: bool,

    /// Print at most so many records of the past, the newest; all that the node keeps if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tail: Option<u32>,
}

pub(crate) fn run(args: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    node::ask(async {
        let request = ReadAuditRequest { tail: args.tail.unwrap_or_default(), follow: args.follow };
        let answer = node::reach(node, out).await?.journal().read_audit(request).await;
        let failed = |status| node::refused("tell who called it", &status);
        let mut stream = answer.map_err(failed)?.into_inner();
        while let Some(batch) = stream.message().await.map_err(failed)? {
            print(&batch, out)?;
        }
        Ok(Exit::Clean)
    })
}

fn print(batch: &ReadAuditResponse, out: &mut Output) -> Result<(), Failure> {
    if batch.dropped > 0 {
        out.notice(&format!("{} records before these are gone", batch.dropped));
    }
    match out.format() {
        Format::Table => {
            let palette = out.palette();
            let lines: String = batch.records.iter().map(|record| line(record, palette)).collect();
            out.text(&lines)
        }
        Format::Json => {
            batch.records.iter().try_for_each(|record| out.json_line(&RecordView::from(record)))
        }
    }
}

/// What `--output json` prints, one per line; its keys are an interface.
#[derive(Debug, Serialize)]
struct RecordView<'a> {
    seq: u64,
    time: Option<String>,
    peer: &'a str,
    subject: &'a str,
    roles: &'a [String],
    method: &'a str,
    digest_before: Option<&'a str>,
    digest_after: Option<&'a str>,
    result: &'a str,
    why: Option<&'a str>,
    took_us: u128,
}

impl<'a> From<&'a AuditRecord> for RecordView<'a> {
    fn from(record: &'a AuditRecord) -> Self {
        Self {
            seq: record.seq,
            time: record.time.as_ref().map(ToString::to_string),
            peer: &record.peer,
            subject: &record.subject,
            roles: &record.roles,
            method: &record.method,
            digest_before: record.digest_before.as_deref(),
            digest_after: record.digest_after.as_deref(),
            result: &record.result,
            why: record.why.as_deref(),
            took_us: took(record).as_micros(),
        }
    }
}

fn took(record: &AuditRecord) -> std::time::Duration {
    record.took.and_then(|took| took.try_into().ok()).unwrap_or_default()
}

/// One record on one line: its number, when, what came of it, who, and what was called; then why not.
fn line(record: &AuditRecord, palette: Palette) -> String {
    let time = record.time.map(|time| time.to_string()).unwrap_or_default();
    // To the second: the record in JSON has the rest.
    let time = time.get(..19).unwrap_or(&time);
    let stamp = palette.paint(Ink::Faint, &format!("{:>6} {time}Z", record.seq));
    let ink = match record.result.as_str() {
        "OK" => Ink::Good,
        "CANCELLED" => Ink::Faint,
        _ => Ink::Bad,
    };
    let result = palette.paint(ink, &printable(&record.result));
    let who = match (record.subject.as_str(), record.roles.join("+")) {
        ("", roles) if roles.is_empty() => printable(&record.peer),
        ("", roles) => format!("{} ({})", printable(&record.peer), printable(&roles)),
        (subject, roles) if roles.is_empty() => {
            format!("{} at {}", printable(subject), printable(&record.peer))
        }
        (subject, roles) => {
            format!("{} ({}) at {}", printable(subject), printable(&roles), printable(&record.peer))
        }
    };
    let method = record.method.strip_prefix("/keel.v1.").unwrap_or(&record.method);
    let method = match method {
        "" => String::new(),
        method => format!("  {}", printable(method)),
    };
    let took = u64::try_from(took(record).as_millis()).unwrap_or(u64::MAX);
    let took = match record.method.is_empty() {
        true => String::new(),
        false => palette.paint(Ink::Faint, &format!("  {}", node::short(took))),
    };
    let changed = match (&record.digest_before, &record.digest_after) {
        (Some(before), Some(after)) if before != after => {
            format!("\n        graph {} -> {}", printable(before), printable(after))
        }
        _ => String::new(),
    };
    let why = record.why.as_deref().map(|why| format!("\n        {}", printable(why)));
    format!("{stamp}  {result}{method}  {who}{took}{changed}{}\n", why.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<AuditRecord> {
        let record = |seq, result: &str| AuditRecord {
            seq,
            time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 5_000_000 }),
            peer: "192.0.2.7:40112".to_owned(),
            result: result.to_owned(),
            took: Some(prost_types::Duration { seconds: 0, nanos: 1_400_000 }),
            ..AuditRecord::default()
        };
        vec![
            AuditRecord {
                roles: vec!["maintenance".to_owned()],
                method: "/keel.v1.Node/GetStatus".to_owned(),
                ..record(1, "OK")
            },
            AuditRecord {
                why: Some(
                    "the client has no certificate, and the node is not in maintenance".to_owned(),
                ),
                ..record(2, "REFUSED")
            },
            AuditRecord {
                subject: "CN=ada,O=keel:operator".to_owned(),
                roles: vec!["operator".to_owned()],
                method: "/keel.v1.Operation/ControlUnit".to_owned(),
                digest_before: Some("sha256:00".to_owned()),
                digest_after: Some("sha256:11".to_owned()),
                ..record(3, "OK")
            },
            AuditRecord {
                subject: "CN=eve\u{1b}[2J,O=dev".to_owned(),
                method: "/grpc.health.v1.Health/Check".to_owned(),
                why: Some("CN=eve has no role on this node".to_owned()),
                ..record(4, "PERMISSION_DENIED")
            },
        ]
    }

    #[test]
    fn lines() {
        let lines: String = records().iter().map(|record| line(record, Palette::PLAIN)).collect();
        insta::assert_snapshot!("audit", lines);
    }

    #[test]
    fn json_lines() {
        let lines: Vec<_> = records()
            .iter()
            .map(|record| serde_json::to_string(&RecordView::from(record)).unwrap())
            .collect();
        insta::assert_snapshot!("audit_json", lines.join("\n"));
    }
}
