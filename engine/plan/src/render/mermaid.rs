//! Mermaid, as it is drawn in a comment on GitHub.
//!
//! GitHub draws no more than 500 edges and 50,000 characters. A graph beyond that is drawn with one box for each stage, and one
//! whose stages are too many as its critical path: a picture that is not drawn says nothing. What comes out was read by the parser of
//! Mermaid 11.17 (`mermaid.parse`) and drawn by it in Chromium, in its light and its dark theme.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::time::Duration;

use keel_unit::value::people;

use super::scene::{Look, Scene, Standing};
use crate::export::Export;
use crate::transaction::UnitId;

/// Mermaid's `maxEdges`.
const MOST_EDGES: usize = 500;
/// Mermaid's `maxTextSize`.
const MOST_TEXT: usize = 50_000;
/// Most units of a critical path that is drawn alone.
const MOST_ON_PATH: usize = 200;

/// The graph as a flowchart: stages as subgraphs, arrows in the order of time.
pub fn mermaid(export: &Export) -> String {
    let scene = Scene::new(export);
    let fits = |drawn: &Drawn| drawn.edges <= MOST_EDGES && drawn.text.len() <= MOST_TEXT;
    let ways: [fn(&Scene<'_>) -> Drawn; 2] = [by_unit, by_stage];
    let drawn = ways.iter().map(|draw| draw(&scene)).find(fits);
    drawn.unwrap_or_else(|| critical_path(&scene)).text
}

struct Drawn {
    text: String,
    edges: usize,
}

fn head(scene: &Scene<'_>, remark: &str) -> String {
    format!(
        "%% goal {}, {} units in {} layers, {} predicted, {}{remark}\nflowchart LR\n",
        scene.name(scene.goal),
        scene.started(),
        scene.layers,
        people(Duration::from_millis(scene.export.predicted.total_ms)),
        scene.export.digest,
    )
}

/// Only strokes have a colour: what is filled by the theme stays readable in the dark one too.
const CLASSES: &str = "  classDef critical stroke:#ea580c,stroke-width:3px\n  classDef conditional stroke-dasharray:5 4\n";

fn by_unit(scene: &Scene<'_>) -> Drawn {
    let mut ids = Ids::default();
    let mut text = head(scene, "");
    for stage in &scene.stages {
        if let Some(name) = stage.name {
            let _ = writeln!(text, "  subgraph {}[\"{name}\"]", ids.of("stage", name));
        }
        for unit in &stage.units {
            let name = scene.name(*unit);
            let (open, close) = match scene.is_target(*unit) {
                true => ("([", "])"),
                false => ("[", "]"),
            };
            let _ = writeln!(text, "    {}{open}\"{name}\"{close}", ids.of("unit", name));
        }
        if stage.name.is_some() {
            text.push_str("  end\n");
        }
    }
    let mut thick = Vec::new();
    for (at, line) in scene.lines.iter().enumerate() {
        let (first, then) = (scene.name(line.first), scene.name(line.then));
        let (first, then) = (ids.of("unit", first), ids.of("unit", then));
        let arrow = match line.look {
            Look::Firm => "-->",
            Look::Order => "-.->",
            Look::Need => "--o",
            Look::Want => "-.-o",
        };
        let _ = writeln!(text, "  {first} {arrow} {then}");
        if line.critical {
            thick.push(at.to_string());
        }
    }
    text.push_str(CLASSES);
    let is_conditional = |unit: &UnitId| scene.unit(*unit).conditional;
    let started = || scene.stages.iter().flat_map(|stage| &stage.units).copied();
    let conditional = started().filter(is_conditional).collect();
    let critical = started().filter(|unit| scene.critical(*unit)).collect();
    let mut classes: Vec<(&str, Vec<UnitId>)> =
        vec![("critical", critical), ("conditional", conditional)];
    for standing in Standing::ALL {
        let members: Vec<UnitId> =
            started().filter(|unit| scene.standing(*unit) == Some(standing)).collect();
        if !members.is_empty() {
            let (word, colour) = (standing.word(), standing.colour());
            let _ = writeln!(text, "  classDef {word} fill:{colour}40");
            classes.push((word, members));
        }
    }
    for (class, members) in classes {
        let members: Vec<String> =
            members.into_iter().map(|unit| ids.of("unit", scene.name(unit))).collect();
        if !members.is_empty() {
            let _ = writeln!(text, "  class {} {class}", members.join(","));
        }
    }
    if !thick.is_empty() {
        let links = thick.join(",");
        let _ = writeln!(text, "  linkStyle {links} stroke:#ea580c,stroke-width:3px");
    }
    Drawn { text, edges: scene.lines.len() }
}

/// One box for each stage, and an arrow where a unit of one waits for a unit of another.
fn by_stage(scene: &Scene<'_>) -> Drawn {
    let mut ids = Ids::default();
    let mut text = head(scene, "; too large for GitHub, so each box is a stage");
    let mut stage_of: HashMap<UnitId, usize> = HashMap::new();
    for (at, stage) in scene.stages.iter().enumerate() {
        stage_of.extend(stage.units.iter().map(|unit| (*unit, at)));
        let name = label(scene, at);
        let units = stage.units.len();
        let s = if units == 1 { "" } else { "s" };
        let _ = writeln!(text, "  {}[\"{name}<br>{units} unit{s}\"]", ids.of("stage", name));
    }
    let mut arrows: BTreeMap<(usize, usize), (usize, bool)> = BTreeMap::new();
    for line in scene.lines.iter().filter(|line| line.look.ordered()) {
        if let (Some(&first), Some(&then)) = (stage_of.get(&line.first), stage_of.get(&line.then))
            && first != then
        {
            let (count, critical) = arrows.entry((first, then)).or_default();
            *count += 1;
            *critical |= line.critical;
        }
    }
    let mut id = |stage: usize| ids.of("stage", label(scene, stage));
    for ((first, then), (count, critical)) in &arrows {
        let arrow = if *critical { "==" } else { "--" };
        let (first, then) = (id(*first), id(*then));
        let _ = writeln!(text, "  {first} {arrow}>|{count}| {then}");
    }
    Drawn { text, edges: arrows.len() }
}

/// What stands for a stage: its name, or that of the one unit that is of none, which is the goal as a rule.
fn label<'a>(scene: &Scene<'a>, stage: usize) -> &'a str {
    let stage = &scene.stages[stage];
    match (stage.name, stage.units.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => scene.name(*only),
        (None, _) => "of no stage",
    }
}

fn critical_path(scene: &Scene<'_>) -> Drawn {
    let mut ids = Ids::default();
    let mut text = head(scene, "; too large for GitHub, so this is the end of its critical path");
    let steps = &scene.path;
    let steps = &steps[steps.len().saturating_sub(MOST_ON_PATH)..];
    let ids: Vec<String> = steps.iter().map(|step| ids.of("unit", scene.name(*step))).collect();
    for (step, id) in steps.iter().zip(&ids) {
        let _ = writeln!(text, "  {id}[\"{}\"]", scene.name(*step));
    }
    for pair in ids.windows(2) {
        let _ = writeln!(text, "  {} ==> {}", pair[0], pair[1]);
    }
    Drawn { text, edges: ids.len() }
}

/// Ids that Mermaid takes, near to the names so that a drawing's own diff can be read.
#[derive(Default)]
struct Ids {
    given: HashMap<(&'static str, String), String>,
    taken: HashSet<String>,
}

impl Ids {
    fn of(&mut self, space: &'static str, name: &str) -> String {
        let key = (space, name.to_owned());
        if let Some(id) = self.given.get(&key) {
            return id.clone();
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        // With a word before it no id is one of Mermaid's own words, such as `end`.
        let wanted: String = format!("{space}_{}", name.chars().map(plain).collect::<String>());
        let mut id = wanted.clone();
        let mut again = 1;
        while !self.taken.insert(id.clone()) {
            again += 1;
            id = format!("{wanted}__{again}");
        }
        self.given.insert(key, id.clone());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_have_ids_that_differ() {
        let mut ids = Ids::default();
        let id = |ids: &mut Ids, name| ids.of("unit", name);
        assert_eq!(id(&mut ids, "link@primary"), "unit_link_primary");
        assert_eq!(id(&mut ids, "link.primary"), "unit_link_primary__2");
        assert_eq!(id(&mut ids, "link_primary__2"), "unit_link_primary__2__2");
        assert_eq!(id(&mut ids, "link@primary"), "unit_link_primary");
        assert_eq!(id(&mut ids, "end"), "unit_end");
        assert_eq!(ids.of("stage", "end"), "stage_end");
    }
}
