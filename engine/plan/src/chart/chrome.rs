//! Trace events as Chrome defined them; ui.perfetto.dev, chrome://tracing and speedscope read them.

use serde_json::{Value, json};

use super::in_time;
use crate::trace::Trace;

/// The boot as a JSON object with `traceEvents`: a process for each stage, and in it as few threads as its units need side by side.
pub fn chrome(trace: &Trace) -> String {
    let critical = trace.critical();
    let mut stages: Vec<&str> = Vec::new();
    // When each thread of each stage is free again.
    let mut threads: Vec<Vec<u64>> = Vec::new();
    let mut events: Vec<Value> = Vec::new();
    for place in in_time(trace) {
        let unit = &trace.units[place];
        let stage = unit.stage.as_deref().unwrap_or(&trace.goal);
        let process = stages.iter().position(|known| *known == stage).unwrap_or_else(|| {
            stages.push(stage);
            threads.push(Vec::new());
            stages.len() - 1
        });
        let Some(began) = unit.began_us.or(unit.ended_us) else { continue };
        let ended = unit.ended_us.unwrap_or(trace.total_us.max(began));
        let lanes = &mut threads[process];
        let lane = lanes.iter().position(|free| *free <= began).unwrap_or_else(|| {
            lanes.push(0);
            lanes.len() - 1
        });
        lanes[lane] = ended;
        let args = json!({
            "state": unit.state.as_str(),
            "waited for": unit.waited_for,
            "attempts": unit.attempts,
            "why": unit.why,
            "critical path": critical[place],
            "slack_us": unit.slack_us,
        });
        let mut event = json!({
            "name": unit.name, "cat": unit.kind, "pid": process + 1, "tid": lane + 1, "ts": began, "args": args,
        });
        let point = unit.began_us.is_none() || ended == began;
        let more = if point {
            json!({ "ph": "i", "s": "t" })
        } else {
            json!({ "ph": "X", "dur": ended - began })
        };
        if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
            event.extend(more);
            if critical[place] && !point {
                // One of the names of colours that the viewers reserve.
                event.insert("cname".to_owned(), json!("terrible"));
            }
        }
        events.push(event);
    }
    let names = stages.iter().enumerate().flat_map(|(process, stage)| {
        let name = json!({ "ph": "M", "name": "process_name", "pid": process + 1, "args": { "name": stage } });
        let order = json!({ "ph": "M", "name": "process_sort_index", "pid": process + 1, "args": { "sort_index": process } });
        [name, order]
    });
    let events: Vec<Value> = names.chain(events).collect();
    let other = json!({
        "digest": trace.digest, "goal": trace.goal, "outcome": trace.outcome.as_str(), "total_us": trace.total_us,
    });
    let whole = json!({ "displayTimeUnit": "ms", "otherData": other, "traceEvents": events });
    // Strings and numbers under fixed keys: there is nothing here that JSON cannot hold.
    let mut text = serde_json::to_string_pretty(&whole).unwrap_or_default();
    text.push('\n');
    text
}
