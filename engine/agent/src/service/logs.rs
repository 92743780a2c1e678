//! One caller's stream of lines that units wrote: of the boot that runs from init, of an earlier one from its record.
//!
//! As with events, a caller that reads slowly must cost init nothing: init is let go of while the caller catches up, and asked again from
//! where it stopped.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keel_control::{ControlError, LogLine, LogQuery};
use keel_proto::v1::{ReadLogsRequest, ReadLogsResponse};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;
use tonic::Status;

use crate::convert;
use crate::init::{Init, Line};
use crate::service::watch::{End, PATIENCE, room};

/// Lines of an earlier boot in one answer.
const BATCH: usize = 256;

pub(crate) type Batch = Result<ReadLogsResponse, Status>;

/// What init is asked for.
pub(crate) fn query(request: ReadLogsRequest, now: SystemTime) -> Result<LogQuery, Status> {
    let since = request.since.map(SystemTime::try_from).transpose();
    let since = since.map_err(|_| Status::invalid_argument("`since` is no moment"))?;
    // What is yet to come is newer than everything.
    let age = |since| now.duration_since(since).unwrap_or_default();
    let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Ok(LogQuery {
        units: request.units,
        from_seq: request.from_seq,
        tail: request.tail,
        newer_than_ms: since.map(|since| millis(age(since))),
        follow: request.follow,
    })
}

/// Sends lines of the boot that runs.
pub(crate) async fn pump(
    init: Arc<Init>,
    mut query: LogQuery,
    batches: &Sender<Batch>,
) -> Result<(), Status> {
    loop {
        match pump_while_the_caller_keeps_up(&init, &mut query, batches).await {
            Ok(End::Newest) => return Ok(()),
            Ok(End::CallerIsSlow) => drop(room(batches).await?),
            Err(error) => return Err(convert::error(&error)),
        }
    }
}

async fn pump_while_the_caller_keeps_up(
    init: &Init,
    query: &mut LogQuery,
    batches: &Sender<Batch>,
) -> Result<End, ControlError> {
    let Line { mut control, place: _place } = init.follow().await?;
    let boot = control.boot().await?.id;
    let mut stream = control.read_logs(query.clone()).await?;
    loop {
        let Ok(Ok(room)) = timeout(PATIENCE, room(batches)).await else {
            return Ok(End::CallerIsSlow);
        };
        let Some(batch) = stream.next().await? else { return Ok(End::Newest) };
        // From here on the number says all.
        *query = LogQuery {
            from_seq: batch.next,
            tail: 0,
            newer_than_ms: None,
            ..std::mem::take(query)
        };
        room.send(Ok(convert::lines(batch, boot.clone(), SystemTime::now())));
    }
}

/// The lines of an earlier boot that a caller wants, of those that its record holds.
pub(crate) fn of_record(
    lines: Vec<LogLine>,
    request: &ReadLogsRequest,
    boot: &str,
    began_ms: u64,
) -> Vec<ReadLogsResponse> {
    let written = |line: &LogLine| convert::moment(began_ms.saturating_add(line.at_ms));
    let since = request.since.and_then(|since| SystemTime::try_from(since).ok());
    let wanted = |line: &LogLine| {
        (request.units.is_empty() || request.units.contains(&line.unit))
            && line.seq >= request.from_seq
            && since.is_none_or(|since| written(line) >= since)
    };
    let mut lines: Vec<_> = lines.into_iter().filter(wanted).collect();
    let tail = usize::try_from(request.tail).unwrap_or(usize::MAX);
    if tail > 0 {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    let told = |line: LogLine| {
        let time = written(&line);
        convert::log_line(line, Some(time))
    };
    let mut answers = Vec::new();
    let mut lines = lines.into_iter().map(told).peekable();
    while lines.peek().is_some() {
        let lines = lines.by_ref().take(BATCH).collect();
        answers.push(ReadLogsResponse { dropped: 0, lines, boot: boot.to_owned() });
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_of_a_record() {
        let line = |seq, unit: &str| LogLine {
            seq,
            at_ms: seq * 1000,
            unit: unit.to_owned(),
            text: String::new(),
            cut: false,
        };
        let lines = vec![line(1, "a"), line(2, "b"), line(3, "a"), line(5, "a")];
        let check = |request: ReadLogsRequest, expect: &[u64]| {
            let answers = of_record(lines.clone(), &request, "0f", 5_000);
            let seqs: Vec<_> =
                answers.iter().flat_map(|answer| &answer.lines).map(|line| line.seq).collect();
            assert_eq!(seqs, expect, "{request:?}");
        };
        let all = ReadLogsRequest::default();
        let since = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        check(all.clone(), &[1, 2, 3, 5]);
        check(ReadLogsRequest { units: vec!["a".to_owned()], ..all.clone() }, &[1, 3, 5]);
        check(ReadLogsRequest { units: vec!["c".to_owned()], ..all.clone() }, &[]);
        check(ReadLogsRequest { tail: 2, ..all.clone() }, &[3, 5]);
        check(ReadLogsRequest { from_seq: 3, ..all.clone() }, &[3, 5]);
        check(ReadLogsRequest { since: since(8), ..all.clone() }, &[3, 5]);
        check(ReadLogsRequest { since: since(60), ..all.clone() }, &[]);
        let answers = of_record(vec![line(1, "a"); 600], &all, "0f", u64::MAX);
        assert_eq!(answers.len(), 3);
        assert_eq!(answers[0].boot, "0f");
    }

    #[test]
    fn what_init_is_asked() {
        let now = convert::moment(100_000);
        let check = |seconds: Option<i64>, expect: Option<u64>| {
            let since = seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
            let asked = query(ReadLogsRequest { since, ..ReadLogsRequest::default() }, now);
            assert_eq!(asked.map(|query| query.newer_than_ms).map_err(drop), Ok(expect));
        };
        check(None, None);
        check(Some(40), Some(60_000));
        check(Some(1000), Some(0));
        check(Some(-60), Some(160_000));
        check(Some(i64::MAX), Some(0));
    }
}
