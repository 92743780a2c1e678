//! A Gantt chart as SVG: one lane for each stage, one bar for each unit, the critical path marked. Light and dark by the reader's
//! own setting; no script, no font, nothing fetched.

use std::fmt::Write as _;
use std::time::Duration;

use keel_unit::value::people;

use super::{horizon, in_time, is_bad};
use crate::path::working_from;
use crate::trace::{Origin, StateName, Trace, UnitTrace};

const ROW: f64 = 20.0;
const BAR: f64 = 12.0;
const LANE_HEAD: f64 = 24.0;
const TOP: f64 = 100.0;
const CHART: f64 = 860.0;
const RIGHT: f64 = 110.0;
/// Width of a character of the chart's 12 px text, rounded up.
const CHARACTER: f64 = 7.3;

const STYLE: &str = "\
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2328}
.title{font-size:16px;font-weight:600}.faint{fill:#656d76}.end{text-anchor:end}.middle{text-anchor:middle}
.back{fill:#ffffff}.lane{fill:#f6f8fa}.grid{stroke:#d8dee4;stroke-width:1}.goal{stroke:#57606a;stroke-width:1;stroke-dasharray:4 3}
.bar{fill:#6ea8dc}.wait{fill:#b6d4ee}.critical{fill:#d9622b}.failed{fill:#b3261e}.mark{fill:#57606a}.skipped{fill:none;stroke:#8c959f}
.queued{fill:none;stroke:#8c959f;stroke-dasharray:2 2}.slack{fill:#8c959f;opacity:.55}.path{fill:none;stroke:#d9622b;stroke-width:1.5}
.on{fill:#a63d10;font-weight:600}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.back{fill:#0d1117}.lane{fill:#161b22}
.grid{stroke:#30363d}.goal{stroke:#9198a1}.bar{fill:#3f7fbf}.wait{fill:#274c72}.critical{fill:#f0883e}.failed{fill:#f85149}
.mark{fill:#9198a1}.skipped{stroke:#6e7681}.queued{stroke:#6e7681}.slack{fill:#6e7681}.path{stroke:#f0883e}.on{fill:#ffa657}}";

/// Where things are.
struct Plan {
    left: f64,
    end: Duration,
}

impl Plan {
    fn x(&self, time: Duration) -> f64 {
        let part =
            if self.end.is_zero() { 0.0 } else { time.as_secs_f64() / self.end.as_secs_f64() };
        self.left + CHART * part.min(1.0)
    }
}

/// The stages in the order in which they were reached, each with its units in the order in which they began.
fn lanes(trace: &Trace) -> Vec<(&str, Vec<usize>)> {
    let mut lanes: Vec<(&str, Vec<usize>)> = Vec::new();
    for place in in_time(trace) {
        let unit = &trace.units[place];
        let stage = unit.stage.as_deref().unwrap_or(&trace.goal);
        match lanes.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, units)) => units.push(place),
            None => lanes.push((stage, vec![place])),
        }
    }
    // What no stage waits for comes last: the goal is there.
    lanes.sort_by_key(|(stage, _)| {
        let reached = trace.find(stage).and_then(UnitTrace::ended).unwrap_or(Duration::MAX);
        (*stage == trace.goal, reached)
    });
    lanes
}

/// The boot as a picture.
pub fn svg(trace: &Trace) -> String {
    let longest = trace.units.iter().map(|unit| unit.name.chars().count()).max().unwrap_or(0);
    let plan = Plan { left: 24.0 + CHARACTER * longest as f64 + 12.0, end: horizon(trace) };
    let lanes = lanes(trace);
    let rows = trace.units.len() as f64 * ROW + lanes.len() as f64 * LANE_HEAD;
    let (width, height) = (plan.left + CHART + RIGHT, TOP + rows + 56.0);
    let critical = trace.critical();
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n<rect class=\"back\" width=\"100%\" height=\"100%\"/>",
        escape(&headline(trace))
    );
    head(&mut out, trace);
    let mut y = TOP;
    let mut bars = String::new();
    let mut rows = vec![0.0; trace.units.len()];
    for (number, (stage, units)) in lanes.iter().enumerate() {
        let lane = LANE_HEAD + ROW * units.len() as f64;
        if number % 2 == 0 {
            let _ = writeln!(
                out,
                "<rect class=\"lane\" x=\"8\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{lane:.1}\" rx=\"4\"/>",
                width - 16.0
            );
        }
        let _ = writeln!(
            bars,
            "<text class=\"faint\" x=\"16\" y=\"{:.1}\">{}</text>",
            y + 16.0,
            escape(stage)
        );
        y += LANE_HEAD;
        for &place in units {
            rows[place] = y + ROW / 2.0;
            row(&mut bars, &plan, &trace.units[place], critical[place], y);
            y += ROW;
        }
    }
    grid(&mut out, &plan, y);
    goal(&mut out, &plan, trace, y);
    out += &bars;
    path(&mut out, &plan, trace, &rows);
    legend(&mut out, trace, y + 32.0);
    out += "</svg>\n";
    out
}

fn headline(trace: &Trace) -> String {
    let origin = match trace.origin {
        Origin::Recorded => "Recorded",
        Origin::Simulated => "Simulated",
    };
    format!("{origin} boot: {} {} in {}", trace.goal, trace.outcome.as_str(), people(trace.total()))
}

fn head(out: &mut String, trace: &Trace) {
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"16\" y=\"30\">{}</text>",
        escape(&headline(trace))
    );
    let busy = trace.business();
    let path: Vec<_> = trace
        .critical_path()
        .iter()
        .filter(|link| link.to > link.from)
        .map(|link| trace.units[link.unit].name.clone())
        .collect();
    let mut facts = vec![
        format!("{} side by side at most", busy.side_by_side),
        format!("{:.1} times as fast as one after another", busy.speed_up),
    ];
    facts.extend(trace.machine.cpus.map(processors));
    facts.extend(trace.machine.hostname.clone());
    let short = trace.digest.get(..19).unwrap_or(&trace.digest);
    facts.push(short.to_owned());
    let _ = writeln!(
        out,
        "<text class=\"faint\" x=\"16\" y=\"50\">{}</text>",
        escape(&facts.join(" · "))
    );
    let shown = 7;
    let mut chain = path.iter().rev().take(shown).rev().cloned().collect::<Vec<_>>().join(" → ");
    if path.len() > shown {
        chain = format!("… → {chain}");
    }
    let _ = writeln!(
        out,
        "<text class=\"faint\" x=\"16\" y=\"68\">critical path: {}</text>",
        escape(&chain)
    );
}

fn row(out: &mut String, plan: &Plan, unit: &UnitTrace, critical: bool, y: f64) {
    let middle = y + ROW / 2.0;
    let name = if critical { "on end" } else { "end" };
    let _ = writeln!(out, "<g><title>{}</title>", escape(&tooltip(unit, plan.end)));
    let _ = writeln!(
        out,
        "<text class=\"{name}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        plan.left - 10.0,
        middle + 4.0,
        escape(&unit.name)
    );
    let last = unit.ended().unwrap_or(plan.end);
    let to = plan.x(last);
    let top = middle - BAR / 2.0;
    let took = unit.took(plan.end);
    let mut label = to + 6.0;
    match unit.began().zip(working_from(unit)).filter(|_| !took.is_zero()) {
        Some((began, working)) => {
            let (from, work) = (plan.x(began), plan.x(working));
            if work > from {
                let _ = writeln!(
                    out,
                    "<rect class=\"queued\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
                    work - from
                );
            }
            let class = match unit.state {
                state if is_bad(state) => "failed",
                _ if critical => "critical",
                _ if waits(unit) => "wait",
                _ => "bar",
            };
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{work:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
                (to - work).max(1.5)
            );
        }
        None => {
            let class = match unit.state {
                StateName::Skipped => "skipped",
                state if is_bad(state) => "failed",
                _ if critical => "critical",
                _ => "mark",
            };
            let _ = writeln!(
                out,
                "<path class=\"{class}\" d=\"M{:.1} {middle:.1}l5 -5 5 5 -5 5z\"/>",
                to - 5.0
            );
            label = to + 9.0;
        }
    }
    if let Some(slack) = unit.slack_us.map(Duration::from_micros).filter(|slack| !slack.is_zero()) {
        let until = plan.x(last.saturating_add(slack));
        let _ = writeln!(
            out,
            "<rect class=\"slack\" x=\"{to:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"1.5\"/>",
            top + BAR + 0.5,
            (until - to).max(0.5)
        );
    }
    let text = match unit.state {
        StateName::Skipped => "skipped".to_owned(),
        state if is_bad(state) => "failed".to_owned(),
        _ if took.is_zero() => String::new(),
        // What it worked, where it waited for a processor first: the bar, and not what stands before it.
        _ => people(last.saturating_sub(working_from(unit).unwrap_or(last))),
    };
    if !text.is_empty() {
        let _ = writeln!(
            out,
            "<text class=\"faint\" x=\"{label:.1}\" y=\"{:.1}\">{text}</text>",
            middle + 4.0
        );
    }
    out.push_str("</g>\n");
}

fn processors(count: u32) -> String {
    if count == 1 { "1 processor".to_owned() } else { format!("{count} processors") }
}

/// Whether a unit of this kind waits for something outside for most of its time.
fn waits(unit: &UnitTrace) -> bool {
    matches!(unit.kind.as_str(), "link" | "device" | "time" | "partition")
}

fn tooltip(unit: &UnitTrace, end: Duration) -> String {
    let mut lines = vec![format!("{} ({}): {}", unit.name, unit.kind, unit.state.as_str())];
    if let Some(began) = unit.began() {
        lines.push(format!("began at {}, took {}", people(began), people(unit.took(end))));
    }
    let mut fact = |label: &str, fact: Option<String>| {
        lines.extend(fact.map(|fact| format!("{label} {fact}")));
    };
    fact("after waiting for", unit.waited_for.clone());
    fact("waited for a processor for", unit.queued_us.map(|us| people(Duration::from_micros(us))));
    fact("could be later by", unit.slack_us.map(|us| people(Duration::from_micros(us))));
    fact("attempts:", (unit.attempts > 1).then(|| unit.attempts.to_string()));
    fact("why:", unit.why.clone());
    lines.join("\n")
}

/// Lines at round times.
fn grid(out: &mut String, plan: &Plan, bottom: f64) {
    let apart = apart(plan.end);
    let mut at = Duration::ZERO;
    while at <= plan.end && !apart.is_zero() {
        let x = plan.x(at);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>",
            TOP - 4.0
        );
        let _ = writeln!(
            out,
            "<text class=\"faint middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            TOP - 10.0,
            tick(at)
        );
        at += apart;
    }
}

/// How far apart the lines are: 1, 2 or 5 times a power of ten, such that there are five to twelve of them.
fn apart(end: Duration) -> Duration {
    let mut apart: u128 = 1;
    let total = end.as_micros();
    for factor in [2, 5, 10].into_iter().cycle() {
        let decade = 10u128.pow(apart.ilog10());
        if total / apart <= 10 {
            break;
        }
        apart = decade * factor;
    }
    Duration::from_micros(u64::try_from(apart).unwrap_or(u64::MAX))
}

fn tick(at: Duration) -> String {
    match at.as_micros() {
        0 => "0".to_owned(),
        micros if micros < 1_000 => format!("{micros} µs"),
        micros if micros < 1_000_000 => format!("{} ms", micros as f64 / 1e3),
        micros => format!("{} s", micros as f64 / 1e6),
    }
}

fn goal(out: &mut String, plan: &Plan, trace: &Trace, bottom: f64) {
    let x = plan.x(trace.total());
    let _ = writeln!(
        out,
        "<line class=\"goal\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>",
        TOP - 4.0
    );
}

/// The critical path, from each unit's end to the next one's beginning.
fn path(out: &mut String, plan: &Plan, trace: &Trace, rows: &[f64]) {
    let links = trace.critical_path();
    for pair in links.windows(2) {
        let (x1, y1) = (plan.x(pair[0].to), rows[pair[0].unit]);
        let (x2, y2) = (plan.x(pair[1].from), rows[pair[1].unit]);
        let _ = writeln!(out, "<path class=\"path\" d=\"M{x1:.1} {y1:.1}V{y2:.1}H{x2:.1}\"/>");
    }
}

fn legend(out: &mut String, trace: &Trace, y: f64) {
    let any = |has: fn(&UnitTrace) -> bool| trace.units.iter().any(has);
    let mut entries = vec![
        ("critical", "critical path"),
        ("bar", "works"),
        ("wait", "waits for something outside"),
    ];
    if any(|unit| unit.slack_us.is_some()) {
        entries.push(("slack", "slack: could be later"));
    }
    if any(|unit| unit.queued_us.is_some()) {
        entries.push(("queued", "waits for a processor"));
    }
    if any(|unit| is_bad(unit.state)) {
        entries.push(("failed", "failed"));
    }
    if any(|unit| unit.state == StateName::Skipped) {
        entries.push(("skipped", "skipped"));
    }
    let mut x = 16.0;
    for (class, text) in entries {
        let (top, height) = if class == "slack" { (y - 5.0, 1.5) } else { (y - 9.0, 10.0) };
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"18\" height=\"{height}\" rx=\"2\"/>"
        );
        let _ =
            writeln!(out, "<text class=\"faint\" x=\"{:.1}\" y=\"{y:.1}\">{text}</text>", x + 24.0);
        x += 24.0 + CHARACTER * text.chars().count() as f64 + 22.0;
    }
}

/// Text for XML; what XML cannot hold is left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' | '\t' => escaped.push(character),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_round() {
        let check = |micros: u64, expect: u64| {
            assert_eq!(
                apart(Duration::from_micros(micros)),
                Duration::from_micros(expect),
                "{micros}"
            );
        };
        check(0, 1);
        check(10, 1);
        check(25, 5);
        check(1_100_000, 200_000);
        check(4_500_000, 500_000);
        check(90_000_000, 10_000_000);
    }

    #[test]
    fn what_a_unit_says_cannot_leave_its_text() {
        assert_eq!(escape("a<b>&\"\u{1b}[2J\u{0}"), "a&lt;b&gt;&amp;&quot;[2J");
    }
}
