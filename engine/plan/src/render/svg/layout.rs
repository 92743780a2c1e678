//! Where everything goes: units in columns by layer and in lanes by stage, long lines through places of their own.
//!
//! The way of Sugiyama, Tagawa and Toda, with lanes: a line over several columns gets a place in each of them, so that it never
//! runs through a box; then places are put in an order with few crossings (`order`), and get their heights (`place`).

use std::collections::{BTreeSet, HashMap};

use super::bundle::{Bundle, bundles};
use super::{order, place, when};
use crate::render::scene::{Line, Look, Scene};
use crate::transaction::UnitId;

/// Width of one character of a name.
const GLYPH: f64 = 6.7;
/// Width of one character of what stands below it.
const SMALL: f64 = 5.6;
/// Most characters in one line of a name.
const WRAP: usize = 24;
/// Most lines of a name.
const MOST_LINES: usize = 3;
/// Height of a line of a name.
pub(super) const LINE: f64 = 13.0;
/// Height of a box beside its name.
const BOX: f64 = 21.0;
/// Height of a place where a line runs through.
const WAY: f64 = 2.0;
/// Height of a knot.
const KNOT: f64 = 6.0;
/// Room above and below the boxes of a lane.
const LANE_PAD: f64 = 12.0;
/// Room between lanes.
const LANE_GAP: f64 = 8.0;
/// Room to the left of the first column, and between columns; it grows with the lines that it holds.
const COLUMN_GAP: (f64, f64) = (46.0, 110.0);
/// With more places than this, long lines go the straight way: nobody follows that many.
const MOST_WAYS: usize = 20_000;

/// A place in a column.
pub(super) struct Place {
    pub(super) what: What,
    pub(super) column: usize,
    pub(super) lane: usize,
    pub(super) height: f64,
    /// The middle.
    pub(super) y: f64,
    /// Places in the column before and in the column behind that a line leads to.
    pub(super) before: Vec<usize>,
    pub(super) behind: Vec<usize>,
}

/// What stands in a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The box of a unit.
    Unit(UnitId),
    /// A line runs through. Those of one chain are to be level.
    Way { chain: usize },
    /// The lines of a bundle meet.
    Knot,
}

impl Place {
    pub(super) fn unit(&self) -> Option<UnitId> {
        match self.what {
            What::Unit(unit) => Some(unit),
            _ => None,
        }
    }
}

/// A line and the places that it runs through, its ends included.
pub(super) struct Route {
    pub(super) look: Look,
    pub(super) critical: bool,
    /// Its tip is where it begins: what it says of no order leads back in time.
    pub(super) back: bool,
    pub(super) places: Vec<usize>,
}

/// A line before it has its way.
#[derive(Clone, Copy)]
struct Link {
    from: usize,
    to: usize,
    look: Look,
    critical: bool,
    back: bool,
}

/// A lane: the units of one stage.
pub(super) struct Lane {
    /// Index into the stages of the scene; `None` for the goal, which stands behind all lanes.
    pub(super) stage: Option<usize>,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// A column: the units of one layer.
pub(super) struct Column {
    pub(super) left: f64,
    pub(super) right: f64,
    /// Its places from top to bottom, lane by lane.
    pub(super) places: Vec<usize>,
}

/// A finished layout.
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    pub(super) columns: Vec<Column>,
    pub(super) lanes: Vec<Lane>,
    pub(super) routes: Vec<Route>,
}

/// The lines of a name as they stand in its box.
pub(super) fn wrap(name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = name;
    // Names are of ASCII, so that a character is a byte.
    while rest.len() > WRAP && lines.len() + 1 < MOST_LINES {
        let part = &rest[..WRAP];
        // A short first line would look like a slip.
        let cut = part.rfind(['.', '@', '-', ':']).filter(|at| *at > WRAP / 3).unwrap_or(WRAP);
        lines.push(rest[..cut].to_owned());
        rest = &rest[cut..];
    }
    lines.push(match rest.len() > WRAP {
        true => format!("{}…", &rest[..WRAP - 1]),
        false => rest.to_owned(),
    });
    lines
}

impl Layout {
    /// Lays a scene out. `left` is where the first column begins, `top` where the first lane does.
    pub(super) fn new(scene: &Scene<'_>, left: f64, top: f64) -> Layout {
        let mut layout = Layout {
            places: Vec::new(),
            columns: Vec::new(),
            lanes: Vec::new(),
            routes: Vec::new(),
        };
        let bundles = bundles(scene);
        let boxes = layout.boxes(scene, &bundles);
        let links = layout.links(scene, &bundles, &boxes);
        layout.ways(&links);
        order::order(&mut layout);
        layout.columns_across(scene, left);
        layout.lanes_down(top);
        place::place(&mut layout);
        layout
    }

    /// Every started unit gets a box. The goal stands behind everything else, if it is of no stage.
    fn boxes(&mut self, scene: &Scene<'_>, bundles: &[Bundle]) -> HashMap<UnitId, usize> {
        // Knots stand in columns of their own.
        let knots: BTreeSet<usize> = bundles.iter().map(|bundle| bundle.layer).collect();
        let mut boxes = HashMap::new();
        let outside = scene.stage(scene.goal).is_none();
        let mut last = 0;
        for (stage, members) in scene.stages.iter().enumerate() {
            let inside: Vec<UnitId> =
                members.units.iter().copied().filter(|id| !outside || *id != scene.goal).collect();
            if inside.is_empty() {
                continue;
            }
            let lane = self.lanes.len();
            self.lanes.push(Lane { stage: Some(stage), top: 0.0, bottom: 0.0 });
            for id in inside {
                let layer = scene.layer[id.index()].unwrap_or_default();
                let column = layer + knots.range(..layer).count();
                last = last.max(column + 1);
                boxes.insert(id, self.push(What::Unit(id), column, lane, height(scene, id)));
            }
        }
        if outside {
            let lane = self.lanes.len();
            self.lanes.push(Lane { stage: None, top: 0.0, bottom: 0.0 });
            let goal = scene.goal;
            boxes.insert(goal, self.push(What::Unit(goal), last, lane, height(scene, goal)));
        }
        boxes
    }

    fn push(&mut self, what: What, column: usize, lane: usize, height: f64) -> usize {
        while self.columns.len() <= column {
            self.columns.push(Column { left: 0.0, right: 0.0, places: Vec::new() });
        }
        let at = self.places.len();
        self.columns[column].places.push(at);
        let (before, behind) = (Vec::new(), Vec::new());
        self.places.push(Place { what, column, lane, height, y: 0.0, before, behind });
        at
    }

    /// What leads where: the lines of the scene, those of a bundle through its knot.
    fn links(
        &mut self,
        scene: &Scene<'_>,
        bundles: &[Bundle],
        boxes: &HashMap<UnitId, usize>,
    ) -> Vec<Link> {
        let mut links = Vec::new();
        let mut bundled = BTreeSet::new();
        for bundle in bundles {
            let firsts: Vec<usize> = bundle.firsts.iter().map(|unit| boxes[unit]).collect();
            let (column, lane) = (self.places[firsts[0]].column, self.places[firsts[0]].lane);
            let knot = self.push(What::Knot, column + 1, lane, KNOT);
            let link =
                |from, to| Link { from, to, look: bundle.look, critical: false, back: false };
            links.extend(firsts.into_iter().map(|from| link(from, knot)));
            links.extend(bundle.thens.iter().map(|unit| link(knot, boxes[unit])));
            for first in &bundle.firsts {
                bundled.extend(bundle.thens.iter().map(|then| (*first, *then)));
            }
        }
        // What is critical is seen as a line of its own.
        let alone = |line: &&Line| line.critical || !bundled.contains(&(line.first, line.then));
        links.extend(scene.lines.iter().filter(alone).map(|line| {
            let (first, then) = (boxes[&line.first], boxes[&line.then]);
            let back = self.places[first].column > self.places[then].column;
            let (from, to) = if back { (then, first) } else { (first, then) };
            Link { from, to, look: line.look, critical: line.critical, back }
        }));
        links
    }

    /// Every line gets its way through the columns between its ends. Lines from one unit into one lane share theirs.
    fn ways(&mut self, links: &[Link]) {
        let length =
            |link: &Link| self.places[link.to].column.saturating_sub(self.places[link.from].column);
        let straight = links.iter().map(length).sum::<usize>() > MOST_WAYS;
        let mut chains: HashMap<(usize, usize, Look, bool), usize> = HashMap::new();
        let mut shared: HashMap<(usize, usize), usize> = HashMap::new();
        for &Link { from: first, to: then, look, critical, back } in links {
            let (from, to) = (self.places[first].column, self.places[then].column);
            // Behind the lanes there is only the goal: what leads to it stays in its own lane until then.
            let own = self.lanes[self.places[then].lane].stage.is_none();
            let lane = self.places[if own { first } else { then }].lane;
            let mut places = vec![first];
            if !straight {
                let next = chains.len();
                let chain = *chains.entry((first, lane, look, critical)).or_insert(next);
                for column in from + 1..to.max(from + 1) {
                    let way = shared.entry((chain, column));
                    let way =
                        *way.or_insert_with(|| self.push(What::Way { chain }, column, lane, WAY));
                    places.push(way);
                }
            }
            places.push(then);
            if from < to {
                for pair in places.windows(2) {
                    if !self.places[pair[0]].behind.contains(&pair[1]) {
                        self.places[pair[0]].behind.push(pair[1]);
                        self.places[pair[1]].before.push(pair[0]);
                    }
                }
            }
            self.routes.push(Route { look, critical, back, places });
        }
    }

    fn columns_across(&mut self, scene: &Scene<'_>, left: f64) {
        let mut x = left;
        for at in 0..self.columns.len() {
            let places = &self.columns[at].places;
            let units = places.iter().filter_map(|p| self.places[*p].unit());
            // A column of knots is as wide as nothing.
            let width = units.map(|id| width(scene, id)).fold(0.0, f64::max);
            // A line into another lane is steep, and takes room.
            let room = |place: &Place| {
                let steep = |end: &&usize| self.places[**end].lane != place.lane;
                place.behind.len() + 3 * place.behind.iter().filter(steep).count()
            };
            let lines = places.iter().map(|p| room(&self.places[*p])).sum::<usize>() as f64;
            let gap = (COLUMN_GAP.0 + lines).min(COLUMN_GAP.1);
            (self.columns[at].left, self.columns[at].right) = (x, x + width);
            x += width + gap;
        }
    }

    /// A lane is as high as what it holds in its fullest column.
    fn lanes_down(&mut self, top: f64) {
        let mut needed = vec![0.0_f64; self.lanes.len()];
        for column in &self.columns {
            let mut used: HashMap<usize, (f64, usize)> = HashMap::new();
            for &at in &column.places {
                let lane = self.places[at].lane;
                let (height, last) = used.get(&lane).copied().unwrap_or((0.0, at));
                let gap = if last == at { 0.0 } else { gap(&self.places[last], &self.places[at]) };
                used.insert(lane, (height + gap + self.places[at].height, at));
            }
            for (lane, (height, _)) in used {
                needed[lane] = needed[lane].max(height);
            }
        }
        let mut y = top;
        for (lane, needed) in self.lanes.iter_mut().zip(needed) {
            if lane.stage.is_some() {
                (lane.top, lane.bottom) = (y, y + needed + 2.0 * LANE_PAD);
                y = lane.bottom + LANE_GAP;
            }
        }
        let bottom = y - LANE_GAP;
        for lane in self.lanes.iter_mut().filter(|lane| lane.stage.is_none()) {
            (lane.top, lane.bottom) = (top, bottom.max(top + 60.0));
        }
    }

    /// Between which heights the middle of a place may be.
    pub(super) fn room(&self, place: &Place) -> (f64, f64) {
        let lane = &self.lanes[place.lane];
        let half = place.height / 2.0;
        (lane.top + LANE_PAD + half, lane.bottom - LANE_PAD - half)
    }
}

/// The least room between two places, one below the other.
pub(super) fn gap(above: &Place, below: &Place) -> f64 {
    match (above.what, below.what) {
        (What::Knot, _) | (_, What::Knot) => 18.0,
        (What::Unit(_), What::Unit(_)) => 10.0,
        (What::Way { .. }, What::Way { .. }) => 7.0,
        _ => 9.0,
    }
}

fn height(scene: &Scene<'_>, id: UnitId) -> f64 {
    BOX + LINE * wrap(scene.name(id)).len() as f64
}

fn width(scene: &Scene<'_>, id: UnitId) -> f64 {
    let name = wrap(scene.name(id)).iter().map(|line| line.chars().count()).max().unwrap_or(0);
    // The ends of a pill hold no text.
    let ends = if scene.is_target(id) { 32.0 } else { 22.0 };
    let below = when(scene, id).chars().count() as f64 * SMALL;
    (name as f64 * GLYPH).max(below) + ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_break_where_a_word_ends() {
        let check = |name: &str, expect: &[&str]| assert_eq!(wrap(name), expect, "{name}");
        check("boot", &["boot"]);
        check("identity.machine-id", &["identity.machine-id"]);
        check(
            "sysctl@net.bridge.bridge-nf-call-iptables",
            &["sysctl@net.bridge", ".bridge-nf-call-iptables"],
        );
        check("sysctl@net.ipv4.ip_forward", &["sysctl@net.ipv4", ".ip_forward"]);
        check(
            &"x".repeat(128),
            &[&"x".repeat(24), &"x".repeat(24), &format!("{}…", "x".repeat(23))],
        );
    }
}
