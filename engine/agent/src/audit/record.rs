//! A record, as it stands in a file: one line of JSON.

use std::time::{Duration, SystemTime};

use keel_proto::v1;
use serde_json::{Map, Value};

use crate::log::utc;

/// The longest reason that is kept.
const LONGEST: usize = 1_024;

/// A call, or a connection that was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Given by the writer.
    pub(crate) seq: u64,
    /// RFC 3339, in UTC.
    pub(crate) time: String,
    pub(crate) peer: String,
    pub(crate) subject: String,
    pub(crate) roles: Vec<String>,
    pub(crate) method: String,
    pub(crate) digest_before: Option<String>,
    pub(crate) digest_after: Option<String>,
    pub(crate) result: String,
    pub(crate) why: Option<String>,
    pub(crate) took_us: u64,
}

impl Record {
    /// Notes when it ended, and how long it took.
    pub(crate) fn at(&mut self, end: SystemTime, took: Duration) {
        self.time = utc(end);
        self.took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(why) = &mut self.why
            && let Some((end, _)) = why.char_indices().nth(LONGEST)
        {
            why.truncate(end);
            why.push('…');
        }
    }

    /// As one line. These are the words of the API.
    pub(super) fn line(&self) -> String {
        let text = |text: &str| Value::from(text);
        let mut line = Map::new();
        line.insert("seq".to_owned(), self.seq.into());
        line.insert("time".to_owned(), text(&self.time));
        line.insert("peer".to_owned(), text(&self.peer));
        line.insert("subject".to_owned(), text(&self.subject));
        line.insert("roles".to_owned(), self.roles.clone().into());
        line.insert("method".to_owned(), text(&self.method));
        let optional = [
            ("digest_before", &self.digest_before),
            ("digest_after", &self.digest_after),
            ("why", &self.why),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                line.insert(key.to_owned(), text(value));
            }
        }
        line.insert("result".to_owned(), text(&self.result));
        line.insert("took_us".to_owned(), self.took_us.into());
        format!("{}\n", Value::Object(line))
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
        let roles = line.get("roles").and_then(Value::as_array).into_iter().flatten();
        Some(Self {
            seq: line.get("seq")?.as_u64()?,
            time: text("time")?,
            peer: text("peer")?,
            subject: text("subject")?,
            roles: roles.filter_map(Value::as_str).map(str::to_owned).collect(),
            method: text("method")?,
            digest_before: text("digest_before"),
            digest_after: text("digest_after"),
            result: text("result")?,
            why: text("why"),
            took_us: line.get("took_us")?.as_u64()?,
        })
    }
}

impl From<Record> for v1::AuditRecord {
    fn from(record: Record) -> Self {
        let took = Duration::from_micros(record.took_us);
        Self {
            seq: record.seq,
            time: record.time.parse().ok(),
            peer: record.peer,
            subject: record.subject,
            roles: record.roles,
            method: record.method,
            digest_before: record.digest_before,
            digest_after: record.digest_after,
            result: record.result,
            why: record.why,
            took: took.try_into().ok(),
        }
    }
}
