//! How the dashboard looks: from the model to a screen, and nothing else. Any size will do, down to none at all.

use std::time::Duration;

use keel_proto::v1::{GetUnitResponse, Mode, Unit, UnitState, UnitVerb};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, Cell, Clear, List, ListItem, ListState, Paragraph, Row, Table, TableState,
};

use super::model::{EVERY, Feed, Model, Overlay, Tab};
use crate::commands::{events, units};
use crate::node::{age, goal_state, millis, short, unit_state};
use crate::output::{Ink, Palette, printable};

/// From this height on the page of units shows the log of the one under the cursor below them.
const ROOM_FOR_LOG: u16 = 16;

/// Draws everything.
pub(crate) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(model), head);
    frame.render_widget(tab_line(model), tabs);
    match model.tab {
        Tab::Boot => boot(model, frame, body),
        Tab::Units => unit_page(model, frame, body),
        Tab::Processes => processes(model, frame, body),
        Tab::Events => event_page(model, frame, body),
    }
    frame.render_widget(footer(model), foot);
    if let Some(overlay) = &model.overlay {
        over(model, overlay, frame, body);
    }
}

/// The style for what a colour means; without colour, weight alone.
fn style(model: &Model, ink: Ink) -> Style {
    let colour = match ink {
        Ink::Good => Some(Color::Green),
        Ink::Warning => Some(Color::Yellow),
        Ink::Bad => Some(Color::Red),
        Ink::Faint | Ink::Strong => None,
    };
    let plain = match ink {
        Ink::Bad | Ink::Strong => Style::new().add_modifier(Modifier::BOLD),
        Ink::Faint => Style::new().add_modifier(Modifier::DIM),
        Ink::Good | Ink::Warning => Style::new(),
    };
    match colour.filter(|_| model.colour) {
        Some(colour) => plain.fg(colour),
        None => plain,
    }
}

fn cursor() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn header(model: &Model) -> Line<'static> {
    let mut spans = Vec::new();
    match &model.status {
        Some(status) => {
            let (state, ink) = goal_state(status.state);
            let up = millis(status.uptime.as_ref());
            spans.push(Span::styled(printable(&status.hostname), style(model, Ink::Strong)));
            spans.push(Span::raw(format!("  {} ", printable(&status.goal))));
            spans.push(Span::styled(state, style(model, ink)));
            let mode = match status.mode() {
                Mode::Maintenance => "  maintenance",
                Mode::Bootstrapped => "  bootstrapped",
                Mode::Unspecified => "",
            };
            spans.push(Span::raw(format!("  up {}{mode}  {}", short(up), model.endpoint)));
        }
        None => spans.push(Span::raw(format!("{}  …", model.endpoint))),
    }
    if let Some(stale) = stale(model) {
        spans.push(Span::styled(format!("  {stale}"), style(model, Ink::Bad)));
    }
    Line::from(spans)
}

/// How old what is shown is, where it is not fresh, and why.
fn stale(model: &Model) -> Option<String> {
    let feed = match model.tab {
        Tab::Boot | Tab::Units => Feed::Units,
        Tab::Processes => Feed::Processes,
        Tab::Events => Feed::Events,
    };
    let feeds = [Feed::Status, feed].map(|feed| model.feeds.get(&feed));
    let failed = feeds.into_iter().flatten().find_map(|feed| feed.failed.clone());
    let oldest = match feeds {
        // A stream is as fresh as its last word; that it is silent says nothing.
        [status, _] if feed == Feed::Events => status?.answered,
        [status, page] => match (status?.answered, page?.answered) {
            (Some(status), Some(page)) => Some(status.min(page)),
            _ => None,
        },
    };
    let old = oldest.map(|at| model.now.saturating_sub(at)).filter(|old| *old > EVERY * 3);
    let old = old.map(|old| format!("{} old", seconds(old)));
    match (old, failed) {
        (None, None) => None,
        (Some(old), None) => Some(old),
        (None, Some(why)) => Some(printable(&why)),
        (Some(old), Some(why)) => Some(format!("{old}: {}", printable(&why))),
    }
}

fn seconds(span: Duration) -> String {
    age(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

fn tab_line(model: &Model) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, tab) in (1..).zip(Tab::ALL) {
        let name = format!(" {number} {} ", tab.name());
        let style = if tab == model.tab { cursor() } else { style(model, Ink::Faint) };
        spans.push(Span::styled(name, style));
    }
    if !model.filter.is_empty() && !model.typing {
        spans.push(Span::raw(format!("  /{}", printable(&model.filter))));
    }
    Line::from(spans)
}

fn footer(model: &Model) -> Line<'static> {
    if model.typing {
        return Line::from(format!("/{}▏", printable(&model.filter)));
    }
    if let Some(said) = &model.said {
        return Line::styled(printable(said), style(model, Ink::Warning));
    }
    let keys = match (&model.overlay, model.tab) {
        (Some(Overlay::Confirm { plan: Some(_), .. }), _) => "y do it  n leave it",
        (Some(_), _) => "esc back  j/k move",
        (None, Tab::Events) => "j/k move  tab next page  ? help  q quit",
        (None, _) => {
            "enter describe  l logs  s start  r restart  S stop  / filter  tab next page  ? help  q quit"
        }
    };
    Line::styled(keys, style(model, Ink::Faint))
}

/// A mark for each state, so that colour is not all that tells them apart.
fn mark(state: UnitState) -> &'static str {
    match state {
        UnitState::Running | UnitState::Exited => "●",
        UnitState::Activating => "◐",
        UnitState::Deactivating => "◑",
        UnitState::Waiting => "○",
        UnitState::Failed => "✗",
        UnitState::Skipped => "–",
        UnitState::Inactive | UnitState::Unspecified => "·",
    }
}

fn is_up(unit: &Unit) -> bool {
    matches!(unit.state(), UnitState::Running | UnitState::Exited | UnitState::Skipped)
}

fn boot(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let now = millis(model.units.now.as_ref());
    let mut items = Vec::new();
    let mut at = None;
    let layers = model.layers();
    let width = layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0);
    let names = layers.iter().flat_map(|layer| &layer.units);
    let longest = names.map(|unit| unit.name.chars().count()).max().unwrap_or(0);
    for layer in &layers {
        let up = layer.units.iter().filter(|unit| is_up(unit)).count();
        let name = printable(layer.name);
        let mut spans = vec![Span::styled(format!("{name:width$}  "), style(model, Ink::Strong))];
        spans.extend(
            layer.units.iter().map(|unit| {
                Span::styled(mark(unit.state()), style(model, unit_state(unit.state).1))
            }),
        );
        spans.push(Span::raw(format!("  {up}/{}", layer.units.len())));
        items.push(ListItem::new(Line::from(spans)));
        for unit in &layer.units {
            if model.selected.as_ref() == Some(&unit.name) {
                at = Some(items.len());
            }
            let [name, state, _, took, note] = units::row(unit, now).map(|cell| printable(&cell));
            let (_, ink) = unit_state(unit.state);
            items.push(ListItem::new(Line::from(vec![
                Span::raw("  "),
                Span::styled(mark(unit.state()), style(model, ink)),
                Span::raw(format!(" {name:longest$}  ")),
                Span::styled(format!("{state:12}"), style(model, ink)),
                Span::raw(format!("  {took:>10}  {note}")),
            ])));
        }
    }
    let mut state = ListState::default().with_selected(at);
    frame.render_stateful_widget(List::new(items).highlight_style(cursor()), area, &mut state);
}

fn unit_page(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let with_log = area.height >= ROOM_FOR_LOG;
    let log = if with_log { area.height / 3 } else { 0 };
    let [table, log] = Layout::vertical([Constraint::Min(0), Constraint::Length(log)]).areas(area);
    let now = millis(model.units.now.as_ref());
    let listed = model.by_state();
    let at = listed.iter().position(|unit| model.selected.as_ref() == Some(&unit.name));
    let longest = listed.iter().map(|unit| unit.name.chars().count()).max().unwrap_or(0);
    let rows = listed.iter().map(|unit| {
        let [name, state, since, took, note] = units::row(unit, now).map(|cell| printable(&cell));
        let ink = style(model, unit_state(unit.state).1);
        Row::new([
            Cell::new(name),
            Cell::new(state).style(ink),
            Cell::new(since),
            Cell::new(took),
            Cell::new(note),
        ])
    });
    let widths = [
        Constraint::Length(width(longest)),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Min(0),
    ];
    draw_table(
        model,
        frame,
        table,
        (rows.collect(), &widths),
        ["UNIT", "STATE", "SINCE", "TOOK", "NOTE"],
        at,
    );
    if with_log {
        let title = format!(" log of {} ", printable(&model.log.0));
        let block = Block::bordered().title(title);
        let inner = block.inner(log);
        frame.render_widget(block, log);
        log_lines(model, frame, inner, 0);
    }
}

fn width(chars: usize) -> u16 {
    u16::try_from(chars).unwrap_or(u16::MAX).min(40)
}

fn draw_table<const N: usize>(
    model: &Model,
    frame: &mut Frame<'_>,
    area: Rect,
    (rows, widths): (Vec<Row<'_>>, &[Constraint; N]),
    header: [&'static str; N],
    at: Option<usize>,
) {
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(style(model, Ink::Faint)))
        .column_spacing(2)
        .row_highlight_style(cursor());
    let mut state = TableState::default().with_selected(at);
    frame.render_stateful_widget(table, area, &mut state);
}

/// The newest lines that fit, `back` lines before the end.
fn tail(lines: Vec<Line<'static>>, area: Rect, back: usize) -> Paragraph<'static> {
    let end = lines.len().saturating_sub(back);
    let start = end.saturating_sub(usize::from(area.height));
    Paragraph::new(lines.into_iter().skip(start).take(end - start).collect::<Vec<_>>())
}

fn log_lines(model: &Model, frame: &mut Frame<'_>, area: Rect, back: usize) {
    let failed = model.feeds.get(&Feed::Logs).and_then(|feed| feed.failed.as_ref());
    if model.log.1.is_empty() {
        let why = failed.map_or("it has written nothing".to_owned(), |why| printable(why));
        frame.render_widget(Paragraph::new(Line::styled(why, style(model, Ink::Faint))), area);
        return;
    }
    let lines = model.log.1.iter().map(|line| {
        let at = millis(line.at.as_ref());
        Line::from(vec![
            Span::styled(format!("{:>6}.{:03}  ", at / 1000, at % 1000), style(model, Ink::Faint)),
            Span::raw(printable(&line.text)),
        ])
    });
    frame.render_widget(tail(lines.collect(), area, back), area);
}

fn processes(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let listed = model.by_load();
    let at = listed.iter().position(|unit| model.selected.as_ref() == Some(&unit.unit));
    let load = |unit: &str| model.load.get(unit).map(|load| percent(*load)).unwrap_or_default();
    let longest = listed.iter().map(|unit| unit.unit.chars().count()).max().unwrap_or(0);
    let rows = listed.iter().map(|unit| {
        let names =
            unit.processes.iter().map(|process| format!("{} {}", process.pid, process.name));
        let max = unit.memory_max_bytes.map(|max| format!(" of {}", units::size(max)));
        let memory = unit.memory_bytes.map(units::size).unwrap_or_default();
        Row::new([
            printable(&unit.unit),
            load(&unit.unit),
            format!("{memory}{}", max.unwrap_or_default()),
            unit.count.to_string(),
            printable(&names.collect::<Vec<_>>().join(", ")),
        ])
    });
    let widths = [
        Constraint::Length(width(longest)),
        Constraint::Length(8),
        Constraint::Length(24),
        Constraint::Length(5),
        Constraint::Min(0),
    ];
    let [total, table] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let memory: u64 = listed.iter().filter_map(|unit| unit.memory_bytes).sum();
    let busy: u64 = model.load.values().sum();
    let of = model.status.as_ref().and_then(|status| status.boot.as_ref()?.processors);
    let of = of.map(|of| format!(" of {of} processors")).unwrap_or_default();
    let line = format!("all units: {}{of}, {}", percent(busy), units::size(memory));
    frame.render_widget(Line::raw(line), total);
    draw_table(
        model,
        frame,
        table,
        (rows.collect(), &widths),
        ["UNIT", "CPU", "MEMORY", "PROCS", "PROCESSES"],
        at,
    );
}

/// Thousandths of a processor, in percent of one.
fn percent(load: u64) -> String {
    format!("{}.{} %", load / 10, load % 10)
}

fn event_page(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let lines = model.events.iter().map(|event| events::line(event, Palette::PLAIN));
    let lines = lines.map(|line| printable(line.trim_end()));
    let lines = lines.filter(|line| line.contains(model.filter.as_str()));
    frame.render_widget(tail(lines.map(Line::raw).collect(), area, model.back), area);
}

fn over(model: &Model, overlay: &Overlay, frame: &mut Frame<'_>, area: Rect) {
    let (title, lines) = match overlay {
        Overlay::Help => ("keys".to_owned(), help()),
        Overlay::Logs { unit } => (format!("log of {}", printable(unit)), Vec::new()),
        Overlay::Unit { unit, answer, down } => {
            let failed = model.feeds.get(&Feed::Unit).and_then(|feed| feed.failed.as_ref());
            let lines = match (answer, failed) {
                (Some(answer), _) => described(answer),
                (None, Some(why)) => vec![printable(why)],
                (None, None) => vec!["asking the node …".to_owned()],
            };
            (printable(unit), lines.into_iter().skip(*down).collect())
        }
        Overlay::Confirm { unit, verb, plan } => {
            let word = word(*verb);
            let mut lines = match plan {
                None => vec!["asking the node what would happen …".to_owned()],
                Some(plan) if plan.jobs.is_empty() => vec!["nothing is to be done".to_owned()],
                Some(plan) => plan.jobs.iter().map(job).collect(),
            };
            if plan.is_some() {
                lines.extend([String::new(), "y: do it    n: leave it".to_owned()]);
            }
            (format!("{word} {}?", printable(unit)), lines)
        }
    };
    let block = Block::bordered().title(format!(" {title} "));
    let inner = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    if matches!(overlay, Overlay::Logs { .. }) {
        log_lines(model, frame, inner, model.back);
    } else {
        let lines: Vec<_> = lines.into_iter().map(Line::raw).collect();
        frame.render_widget(Paragraph::new(lines), inner);
    }
}

fn word(verb: UnitVerb) -> &'static str {
    match verb {
        UnitVerb::Start => "start",
        UnitVerb::Stop => "stop",
        UnitVerb::Restart => "restart",
        UnitVerb::Unspecified => "leave",
    }
}

fn job(job: &keel_proto::v1::PlannedJob) -> String {
    let interrupts = if job.interrupts { ", interrupts what runs" } else { "" };
    printable(&format!("{:8} {}  ({}{interrupts})", word(job.verb()), job.unit, job.why))
}

fn help() -> Vec<String> {
    [
        "1-4, tab     another page",
        "j/k, arrows  down and up; g and G to the ends",
        "enter, d     describe the unit: what it waits for, and what waits for it",
        "l            its log",
        "s r S        start, restart, stop it; the plan is shown first",
        "/            show only what holds a text; esc shows all again",
        "esc          back",
        "q, ctrl-c    quit",
        "",
        "●  up      ◐  activating  ○  waiting   ✗  failed",
        "–  skipped ◑  stopping    ·  inactive",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A unit in whole, line by line.
fn described(answer: &GetUnitResponse) -> Vec<String> {
    let now = millis(answer.now.as_ref());
    let mut lines = Vec::new();
    if let Some(unit) = &answer.unit {
        let [_, state, since, took, note] = units::row(unit, now);
        lines.push(unit.description.clone());
        lines.push(format!("{} in {}", unit.kind, answer.file));
        let took = if took.is_empty() { took } else { format!(", took {took}") };
        lines.push(format!("{state} for {since}{took}"));
        lines.extend(Some(note).filter(|note| !note.is_empty()));
    }
    if let Some(timeout) = &answer.timeout {
        let then = &answer.on_failure;
        lines.push(format!("may take {}; if it fails: {then}", short(millis(Some(timeout)))));
    }
    if let Some(blocker) = &answer.blocker {
        lines.push(format!("held up by {blocker}: {}", answer.blocked_by.join(" → ")));
    }
    for (title, edges) in
        [("depends on", &answer.dependencies), ("is waited for by", &answer.dependents)]
    {
        if !edges.is_empty() {
            lines.extend([String::new(), title.to_owned()]);
        }
        lines.extend(edges.iter().map(|edge| {
            let holds = if edge.holds_up { ", holds it up" } else { "" };
            let state = unit_state(edge.state).0;
            format!("  {} {} ({state}{holds})  {}", edge.word, edge.unit, edge.provenance)
        }));
    }
    if !answer.last_lines.is_empty() {
        lines.extend([String::new(), "last lines".to_owned()]);
    }
    lines.extend(answer.last_lines.iter().map(|line| format!("  {}: {}", line.unit, line.text)));
    lines.iter().map(|line| printable(line)).collect()
}
