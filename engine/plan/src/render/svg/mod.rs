//! A picture of the graph as SVG: time goes from left to right in layers, each stage has a lane, the critical path stands out.
//!
//! It is made here, without Graphviz, because of the lanes: no layout that could be had knows them, and with them a boot is
//! read at a glance. Numbers are rounded to a tenth, so that no machine's arithmetic shows.

mod bundle;
mod layout;
mod order;
mod place;
mod style;

use std::fmt::Write;
use std::time::Duration;

use keel_unit::value::people;

use self::layout::{LINE, Layout, Place, Route, What, wrap};
use super::scene::{Look, Scene, Standing};
use crate::export::Export;
use crate::transaction::UnitId;

/// Room around everything.
const MARGIN: f64 = 20.0;
/// Where the lanes begin: below the title and the numbers of the layers.
const TOP: f64 = 74.0;
/// Length of an arrow's tip.
const TIP: f64 = 7.0;
/// Width of one character of what is no name.
const CHARACTER: f64 = 5.4;
/// Most units that are listed as not started.
const MOST_IDLE: usize = 12;

/// The graph as an SVG image.
pub fn svg(export: &Export) -> String {
    let scene = Scene::new(export);
    let names = scene.stages.iter().filter_map(|stage| stage.name).map(str::len).max();
    // Names of stages stand before the first column.
    let left = MARGIN + 24.0 + 7.4 * names.unwrap_or(0) as f64;
    let layout = Layout::new(&scene, left, TOP);
    Picture { scene: &scene, layout: &layout }.draw()
}

struct Picture<'a> {
    scene: &'a Scene<'a>,
    layout: &'a Layout,
}

impl Picture<'_> {
    fn draw(&self) -> String {
        let right = self.layout.columns.last().map_or(MARGIN, |column| column.right);
        let bottom = self.layout.lanes.iter().map(|lane| lane.bottom).fold(TOP, f64::max);
        let width = (right + MARGIN).max(720.0);
        let (legend, height) = self.legend(width, bottom + 26.0);
        let mut out = String::new();
        let goal = self.scene.name(self.scene.goal);
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\">\n<title>Boot graph of {}</title>\n<style>\n{}</style>\n<rect class=\"page\" width=\"{w}\" height=\"{h}\"/>\n",
            escape(goal),
            style::sheet(),
            w = tenth(width),
            h = tenth(height),
        );
        self.title(&mut out);
        self.lanes(&mut out);
        // What is critical lies above the rest.
        for critical in [false, true] {
            for route in &self.layout.routes {
                if route.critical == critical {
                    self.line(&mut out, route);
                }
            }
        }
        for place in &self.layout.places {
            match place.what {
                What::Unit(unit) => self.unit(&mut out, place, unit),
                What::Knot => {
                    let (x, y) = (tenth(self.layout.columns[place.column].left), tenth(place.y));
                    let _ = writeln!(out, "<circle class=\"tip\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/>");
                }
                What::Way { .. } => {}
            }
        }
        out.push_str(&legend);
        out.push_str("</svg>\n");
        out
    }

    fn title(&self, out: &mut String) {
        let scene = self.scene;
        let export = scene.export;
        text(out, "title ink", MARGIN, 32.0, scene.name(scene.goal));
        let about = format!(
            "{} units in {} layers · {} predicted, at most {} side by side · sha256:{}",
            scene.started(),
            scene.layers,
            people(Duration::from_millis(export.predicted.total_ms)),
            export.predicted.side_by_side,
            export.digest.trim_start_matches("sha256:").chars().take(12).collect::<String>(),
        );
        text(out, "note faint", MARGIN, 48.0, &about);
        let holds_units = |column: &&layout::Column| {
            column.places.iter().any(|place| self.layout.places[*place].unit().is_some())
        };
        for (at, column) in self.layout.columns.iter().filter(holds_units).enumerate() {
            middle(
                out,
                "note faint",
                (column.left + column.right) / 2.0,
                TOP - 7.0,
                &(at + 1).to_string(),
            );
        }
    }

    /// The lane's colour, by its place among the stages that have a name.
    fn hue(&self, lane: usize) -> String {
        let named =
            |lane: &layout::Lane| lane.stage.is_some_and(|s| self.scene.stages[s].name.is_some());
        match self.layout.lanes.get(lane) {
            Some(own) if named(own) => {
                let before = self.layout.lanes[..lane].iter().filter(|lane| named(lane)).count();
                format!("s{}", before % style::HUES)
            }
            _ => "plain".to_owned(),
        }
    }

    fn lanes(&self, out: &mut String) {
        let columns = &self.layout.columns;
        let outside = self.layout.lanes.iter().any(|lane| lane.stage.is_none());
        let last = columns.len().saturating_sub(if outside { 2 } else { 1 });
        let right = columns.get(last).map_or(MARGIN, |column| column.right + 14.0);
        for (at, lane) in self.layout.lanes.iter().enumerate() {
            let Some(name) = lane.stage.and_then(|stage| self.scene.stages[stage].name) else {
                continue;
            };
            let (height, width) = (lane.bottom - lane.top, right - MARGIN);
            let _ = write!(
                out,
                "<g class=\"{}\"><rect class=\"lane\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"8\"/>",
                self.hue(at),
                tenth(MARGIN),
                tenth(lane.top),
                tenth(width),
                tenth(height),
            );
            text(out, "stage", MARGIN + 12.0, (lane.top + lane.bottom) / 2.0 + 4.0, name);
            out.push_str("</g>\n");
        }
    }

    fn unit(&self, out: &mut String, place: &Place, id: UnitId) {
        let scene = self.scene;
        let unit = scene.unit(id);
        let target = scene.is_target(id);
        let mut class = self.hue(place.lane);
        let marks = [
            (target, " target"),
            (unit.conditional, " conditional"),
            (scene.critical(id), " critical"),
        ];
        marks.iter().filter(|(on, _)| *on).for_each(|(_, mark)| class.push_str(mark));
        let column = &self.layout.columns[place.column];
        let (left, width) = (column.left, column.right - column.left);
        let top = place.y - place.height / 2.0;
        let round = if target { place.height / 2.0 } else { 5.0 };
        let _ = write!(
            out,
            "<g class=\"{class}\"><title>{}</title><rect class=\"box\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\"/>",
            escape(&self.hint(id)),
            tenth(left),
            tenth(top),
            tenth(width),
            tenth(place.height),
            tenth(round),
        );
        if let Some(standing) = scene.standing(id) {
            let _ = write!(
                out,
                "<circle class=\"state {}\" fill=\"{}\" cx=\"{}\" cy=\"{}\" r=\"4\"/>",
                standing.word(),
                standing.colour(),
                tenth(left + width),
                tenth(top),
            );
        }
        let centre = left + width / 2.0;
        let lines = wrap(scene.name(id));
        for (at, line) in lines.iter().enumerate() {
            middle(out, "name ink", centre, top + 14.0 + LINE * at as f64, line);
        }
        let below = top + 13.0 + LINE * lines.len() as f64;
        middle(out, "when faint", centre, below, &when(scene, id));
        out.push_str("</g>\n");
    }

    /// What is shown to whoever points at a box.
    fn hint(&self, id: UnitId) -> String {
        let unit = self.scene.unit(id);
        let mut hint = unit.name.clone();
        if let Some(state) = &unit.state {
            let _ = write!(hint, " is {state}");
        }
        if !unit.description.is_empty() {
            let _ = write!(hint, "\n{}", unit.description);
        }
        let ms = Duration::from_millis;
        if let (Some(from), Some(to), false) = (unit.begins_ms, unit.up_ms, unit.skipped) {
            let _ = write!(hint, "\nfrom {} to {}", people(ms(from)), people(ms(to)));
        }
        if let Some(deadline) = unit.deadline_ms {
            let _ = write!(hint, ", within {}", people(ms(deadline)));
        }
        let _ = write!(hint, "\n{}:{}", unit.file, unit.line);
        hint
    }

    fn line(&self, out: &mut String, route: &Route) {
        let (&[first, ..], &[.., then]) = (&route.places[..], &route.places[..]) else { return };
        let (first, then) = (&self.layout.places[first], &self.layout.places[then]);
        let class = class(route.look, route.critical);
        let columns = &self.layout.columns;
        if first.column == then.column {
            self.beside(out, route, first, then);
            return;
        }
        let begin = (columns[first.column].right, first.y);
        let mut from = begin;
        if route.back {
            arrow(out, route.look, &class, begin, -TIP);
            from.0 += TIP;
        }
        let mut path = format!("M{} {}", tenth(from.0), tenth(from.1));
        for way in &route.places[1..route.places.len() - 1] {
            let way = &self.layout.places[*way];
            let column = &columns[way.column];
            curve(&mut path, from, (column.left, way.y));
            let _ = write!(path, "H{}", tenth(column.right));
            from = (column.right, way.y);
        }
        let tip = (columns[then.column].left, self.port(route, then));
        let has_tip = then.what != What::Knot && !route.back;
        curve(&mut path, from, (tip.0 - if has_tip { TIP } else { 0.0 }, tip.1));
        let _ = writeln!(out, "<path class=\"line {class}\" d=\"{path}\"/>");
        if has_tip {
            arrow(out, route.look, &class, tip, TIP);
        }
    }

    /// A line that says nothing of order may lead to its own column: it leaves and enters on the right.
    fn beside(&self, out: &mut String, route: &Route, first: &Place, then: &Place) {
        let right = self.layout.columns[first.column].right;
        let class = class(route.look, route.critical);
        let (bend, end) = (tenth(right + 26.0), tenth(right + TIP));
        let (from, to, edge) = (tenth(first.y), tenth(then.y), tenth(right));
        let path = format!("M{edge} {from}C{bend} {from} {bend} {to} {end} {to}");
        let _ = writeln!(out, "<path class=\"line {class}\" d=\"{path}\"/>");
        arrow(out, route.look, &class, (right, then.y), -TIP);
    }

    /// Where a line enters a box: those that come from above enter above.
    fn port(&self, route: &Route, then: &Place) -> f64 {
        let entries = &then.before;
        if then.what == What::Knot {
            return then.y;
        }
        let Some(own) = route.places.iter().rev().nth(1) else { return then.y };
        let places = &self.layout.places;
        let above = |other: &&usize| {
            let (other, own) = ((places[**other].y, **other), (places[*own].y, *own));
            other.0.total_cmp(&own.0).then(other.1.cmp(&own.1)).is_lt()
        };
        let rank = entries.iter().filter(above).count() as f64;
        let count = entries.len().saturating_sub(1) as f64;
        let apart = ((then.height - 14.0) / count.max(1.0)).min(7.0);
        then.y + (rank - count / 2.0) * apart
    }

    /// The legend, in as many rows as it takes, and how far down it goes.
    fn legend(&self, width: f64, top: f64) -> (String, f64) {
        let mut out = String::new();
        let (mut x, mut y) = (MARGIN, top);
        let mut entry = |out: &mut String, sample: f64, label: &str| {
            let wide = sample + 8.0 + CHARACTER * label.chars().count() as f64 + 24.0;
            if x + wide > width && x > MARGIN {
                (x, y) = (MARGIN, y + 20.0);
            }
            let at = (x, y);
            text(out, "note faint", x + sample + 8.0, y + 3.5, label);
            x += wide;
            at
        };
        let critical = entry(&mut out, 34.0, "critical path");
        sample(&mut out, Look::Firm, true, critical);
        for look in Look::ALL {
            if self.scene.lines.iter().any(|line| line.look == look) {
                let at = entry(&mut out, 34.0, look.meaning());
                sample(&mut out, look, false, at);
            }
        }
        let mut shape = |out: &mut String, class: &str, round: f64, label: &str| {
            let (x, y) = entry(out, 26.0, label);
            let (x, y) = (tenth(x), tenth(y - 6.5));
            let _ = writeln!(
                out,
                "<g class=\"plain {class}\"><rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"26\" height=\"13\" rx=\"{round}\"/></g>"
            );
        };
        shape(&mut out, "target", 6.5, "a target: no work of its own");
        let conditional = |id: &UnitId| self.scene.unit(*id).conditional;
        if self.scene.stages.iter().flat_map(|stage| &stage.units).any(conditional) {
            shape(&mut out, "conditional", 4.0, "started if its condition holds");
        }
        for standing in Standing::ALL {
            if self.scene.ids().any(|id| self.scene.standing(id) == Some(standing)) {
                let (x, y) = entry(&mut out, 12.0, standing.word());
                let (x, y) = (tenth(x + 6.0), tenth(y));
                let (word, fill) = (standing.word(), standing.colour());
                let _ = writeln!(
                    out,
                    "<circle class=\"state {word}\" fill=\"{fill}\" cx=\"{x}\" cy=\"{y}\" r=\"4\"/>"
                );
            }
        }
        let mut bottom = y;
        if !self.scene.idle.is_empty() {
            bottom += 22.0;
            let idle = self.scene.idle.iter().take(MOST_IDLE).map(|id| self.scene.name(*id));
            let mut label = format!("not started: {}", idle.collect::<Vec<_>>().join(", "));
            if let Some(more) = self.scene.idle.len().checked_sub(MOST_IDLE + 1) {
                let _ = write!(label, " and {} more", more + 1);
            }
            text(&mut out, "note faint", MARGIN, bottom + 3.5, &label);
        }
        (out, bottom + 24.0)
    }
}

/// What stands below the name: what the unit is, and how long it takes.
fn when(scene: &Scene<'_>, id: UnitId) -> String {
    let unit = scene.unit(id);
    let ms = Duration::from_millis;
    let kind = &unit.kind;
    match (scene.is_target(id), unit.up_ms) {
        (true, Some(at)) => format!("at {}", people(ms(at))),
        (true, None) => kind.clone(),
        _ if unit.skipped => format!("{kind} · skipped"),
        _ => format!("{kind} · {}", people(ms(unit.expected_ms.unwrap_or_default()))),
    }
}

fn class(look: Look, critical: bool) -> String {
    let look = match look {
        Look::Firm => "firm",
        Look::Order => "order",
        Look::Need => "need",
        Look::Want => "want",
    };
    if critical { format!("{look} critical") } else { look.to_owned() }
}

/// A bend that begins and ends level.
fn curve(path: &mut String, from: (f64, f64), to: (f64, f64)) {
    if (from.1 - to.1).abs() < 0.05 {
        let _ = write!(path, "H{}", tenth(to.0));
        return;
    }
    let middle = (from.0 + to.0) / 2.0;
    let _ = write!(
        path,
        "C{m} {} {m} {} {} {}",
        tenth(from.1),
        tenth(to.1),
        tenth(to.0),
        tenth(to.1),
        m = tenth(middle)
    );
}

/// The tip of an arrow that ends here. `length` is negative if it comes from the right.
fn arrow(out: &mut String, look: Look, class: &str, at: (f64, f64), length: f64) {
    let hollow = if matches!(look, Look::Need | Look::Want) { " hollow" } else { "" };
    let half = length.abs() * 0.45;
    let _ = writeln!(
        out,
        "<path class=\"tip {class}{hollow}\" d=\"M{} {}L{back} {}L{back} {}Z\"/>",
        tenth(at.0),
        tenth(at.1),
        tenth(at.1 - half),
        tenth(at.1 + half),
        back = tenth(at.0 - length)
    );
}

fn sample(out: &mut String, look: Look, critical: bool, (x, y): (f64, f64)) {
    let class = class(look, critical);
    let (from, to) = (tenth(x), tenth(x + 34.0 - TIP));
    let _ = writeln!(out, "<path class=\"line {class}\" d=\"M{from} {y}H{to}\"/>", y = tenth(y));
    arrow(out, look, &class, (x + 34.0, y), TIP);
}

fn text(out: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let (x, y, text) = (tenth(x), tenth(y), escape(text));
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>");
}

fn middle(out: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let (x, y, text) = (tenth(x), tenth(y), escape(text));
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>"
    );
}

/// A number with at most one digit behind the point.
fn tenth(number: f64) -> String {
    let tenths = (number * 10.0).round();
    // There is no `-0`.
    let number = if tenths == 0.0 { 0.0 } else { tenths / 10.0 };
    number.to_string()
}

/// Text as XML holds it.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push(c),
            // XML holds no others, escaped or not.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_xml() {
        let check = |text: &str, expect: &str| assert_eq!(escape(text), expect);
        check("a < b & \"c\"", "a &lt; b &amp; &quot;c&quot;");
        check("\u{0}\u{1b}[31m", "\u{fffd}\u{fffd}[31m");
    }

    #[test]
    fn numbers_are_short() {
        let check = |number: f64, expect: &str| assert_eq!(tenth(number), expect);
        check(0.0, "0");
        check(-0.01, "0");
        check(12.34, "12.3");
        check(99.96, "100");
    }
}
