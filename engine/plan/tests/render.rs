//! Pictures: what is drawn of a graph, that nothing lies on anything else, and that equal inputs give equal bytes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashSet;

use keel_plan::export::Export;
use keel_plan::{BOOT, BootGraph, Transaction, compile, render};
use keel_unit::Input;
use proptest::prelude::*;
use roxmltree::Document;

type Render = fn(&Export) -> String;

const FORMATS: [(&str, Render); 5] = [
    ("text", render::text),
    ("dot", render::dot),
    ("mermaid", render::mermaid),
    ("json", render::json),
    ("svg", render::svg),
];

/// Units as `(path, body)`, and what becomes of them.
fn planned(units: &[(String, String)]) -> (BootGraph, Transaction) {
    let mut input = Input::default();
    units.iter().for_each(|(path, body)| input.unit(path, body.as_str()));
    compile(input, BOOT).unwrap_or_else(|error| panic!("{error:?}"))
}

fn unit(name: &str, words: &str, kind: &str) -> (String, String) {
    let body = match kind {
        "target" => "[target]\n".to_owned(),
        _ => format!("[{kind}]\nexec = [\"/bin/{name}\"]\ntimeout = \"10s\"\n"),
    };
    (format!("units/{name}.toml"), format!("{words}\n{body}"))
}

/// A boot with every look of a line, in two stages.
fn every_look() -> Vec<(String, String)> {
    vec![
        unit("boot", "description = \"<up> & \\\"running\\\"\"", "target"),
        unit("early", "part-of = \"boot\"", "target"),
        unit("late", "part-of = \"boot\"", "target"),
        unit("a", "part-of = \"early\"", "oneshot"),
        unit("a2", "part-of = \"early\"", "oneshot"),
        unit("a3", "part-of = \"early\"", "oneshot"),
        unit(
            "b",
            "part-of = \"late\"\nrequires = \"a\"\nafter = [\"a\", \"a2\", \"a3\"]",
            "oneshot",
        ),
        unit("c", "part-of = \"late\"\nafter = [\"a\", \"a2\", \"a3\"]\nwants = \"d\"", "oneshot"),
        unit("d", "requires = \"c\"\nafter = \"b\"", "service"),
        unit("e", "part-of = \"late\"\nconflicts = \"idle\"\n[condition]\nwhen = false", "oneshot"),
        unit("idle", "", "oneshot"),
    ]
}

/// A graph as a node exports it.
fn with_states() -> Export {
    let (graph, transaction) = planned(&every_look());
    let mut export = Export::new(&graph, &transaction);
    let states = [
        ("a", "active(exited)"),
        ("b", "failed"),
        ("c", "failed(dependency)"),
        ("d", "waiting"),
        ("e", "skipped"),
        ("idle", "inactive"),
    ];
    for unit in &mut export.units {
        let state = states.iter().find(|(name, _)| *name == unit.name);
        unit.state = Some(state.map_or("active(running)", |(_, state)| state).to_owned());
    }
    export
}

#[test]
fn the_states_of_a_node_are_drawn_in() {
    let export = with_states();
    insta::assert_snapshot!("live-text", render::text(&export));
    insta::assert_snapshot!("live-dot", render::dot(&export));
    insta::assert_snapshot!("live-mermaid", render::mermaid(&export));
    let svg = render::svg(&export);
    for standing in ["up", "moving", "failed", "down"] {
        // In the legend, and on a unit but for the one that is not drawn.
        assert!(svg.contains(&format!("class=\"state {standing}\"")), "{standing}");
    }
    let back: Export = serde_json::from_str(&render::json(&export)).unwrap();
    assert_eq!(back, export);
    assert_eq!(render::text(&back), render::text(&export));
}

/// What another machine says is drawn as far as it makes sense, and never a reason to panic.
#[test]
fn a_graph_that_makes_no_sense_is_drawn_all_the_same() {
    let mut export = with_states();
    export.goal = "nobody".to_owned();
    export.predicted.critical_path.push("nobody".to_owned());
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "nobody"), ("nobody", "a")] {
        let mut edge = export.edges[0].clone();
        (edge.from, edge.to, edge.kind) = (from.to_owned(), to.to_owned(), "after".to_owned());
        export.edges.push(edge);
    }
    export.edges[0].kind = "adores".to_owned();
    for (_, render) in FORMATS {
        assert!(!render(&export).is_empty());
    }
}

#[test]
fn every_look_in_every_format() {
    let (graph, transaction) = planned(&every_look());
    for (name, render) in FORMATS {
        insta::assert_snapshot!(
            format!("every-look-{name}"),
            render(&Export::new(&graph, &transaction))
        );
    }
}

#[test]
fn the_order_of_files_makes_no_difference() {
    let mut units = every_look();
    let draw = |units: &[(String, String)]| {
        let (graph, transaction) = planned(units);
        FORMATS.map(|(_, render)| render(&Export::new(&graph, &transaction)))
    };
    let first = draw(&units);
    for _ in 0..units.len() {
        units.rotate_left(1);
        assert_eq!(draw(&units), first);
    }
    units.reverse();
    assert_eq!(draw(&units), first);
}

/// A rectangle: left, top, right, bottom.
#[derive(Debug, Clone, Copy)]
struct Area([f64; 4]);

impl Area {
    /// Numbers are rounded to a tenth, so that what only touches may seem to lie inside.
    fn holds(self, (x, y): (f64, f64)) -> bool {
        let Area([left, top, right, bottom]) = self;
        left + 0.2 < x && x < right - 0.2 && top + 0.2 < y && y < bottom - 0.2
    }

    fn meets(self, other: Area) -> bool {
        let (Area(a), Area(b)) = (self, other);
        a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
    }
}

fn number(node: &roxmltree::Node<'_, '_>, key: &str) -> f64 {
    node.attribute(key).unwrap_or("0").parse().unwrap()
}

/// What has this class, as the area that it takes.
fn areas(svg: &Document<'_>, class: &str) -> Vec<Area> {
    let nodes = svg.descendants().filter(|node| node.attribute("class") == Some(class));
    nodes
        .map(|node| {
            let (x, y) = (number(&node, "x"), number(&node, "y"));
            Area([x, y, x + number(&node, "width"), y + number(&node, "height")])
        })
        .collect()
}

/// Points along a path of `M`, `H` and `C`.
fn points(path: &str) -> Vec<(f64, f64)> {
    let spaced = path.replace(['M', 'H', 'C'], "\u{0}");
    let commands = path.chars().filter(|c| "MHC".contains(*c));
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (command, numbers) in commands.zip(spaced.split('\u{0}').skip(1)) {
        let n: Vec<f64> = numbers.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let (x, y) = points.last().copied().unwrap_or_default();
        let at = |t: f64| match command {
            'M' => (n[0], n[1]),
            'H' => (x + t * (n[0] - x), y),
            _ => {
                let bend = |from: f64, one: f64, two: f64, to: f64| {
                    let u = 1.0 - t;
                    u * u * u * from
                        + 3.0 * u * u * t * one
                        + 3.0 * u * t * t * two
                        + t * t * t * to
                };
                (bend(x, n[0], n[2], n[4]), bend(y, n[1], n[3], n[5]))
            }
        };
        points.extend((1..=20).map(|step| at(f64::from(step) / 20.0)));
    }
    points
}

/// Nothing that is drawn lies on anything else.
fn check(svg: &str) {
    let svg = Document::parse(svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
    let root = svg.root_element();
    let page = Area([0.0, 0.0, number(&root, "width"), number(&root, "height")]);
    let all = areas(&svg, "box");
    for (at, one) in all.iter().enumerate() {
        assert!(page.holds((one.0[0], one.0[1])) && page.holds((one.0[2], one.0[3])), "{one:?}");
        for other in &all[at + 1..] {
            assert!(!one.meets(*other), "{one:?} lies on {other:?}");
        }
    }
    let lanes = areas(&svg, "lane");
    for (at, one) in lanes.iter().enumerate() {
        assert!(lanes[at + 1..].iter().all(|other| !one.meets(*other)), "{one:?}");
    }
    let lines = svg.descendants().filter(|node| {
        node.tag_name().name() == "path" && node.attribute("class").unwrap().starts_with("line")
    });
    for line in lines {
        let points = points(line.attribute("d").unwrap());
        for area in &all {
            let through = points.iter().find(|point| area.holds(**point));
            assert!(through.is_none(), "{:?} runs through {area:?}", line.attribute("d"));
        }
    }
    for text in svg.descendants().filter(|node| node.attribute("class") == Some("name ink")) {
        let at = (number(&text, "x"), number(&text, "y") - 4.0);
        let area = all.iter().find(|area| area.holds(at)).unwrap();
        // DejaVu Sans Mono, the widest of the fonts that are asked for, is 0.602 em wide.
        let width = text.text().unwrap().chars().count() as f64 * 0.602 * 11.0;
        assert!(width < area.0[2] - area.0[0], "{:?} is wider than {area:?}", text.text());
    }
}

#[test]
fn a_picture_of_every_look_is_clear() {
    let (graph, transaction) = planned(&every_look());
    check(&render::svg(&Export::new(&graph, &transaction)));
}

/// Boots of up to 70 units in up to five stages, each unit behind some of those before it.
fn boots() -> impl Strategy<Value = Vec<(String, String)>> {
    let drawn = (
        0..6_usize,
        prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 0..4),
        1..40_usize,
    );
    prop::collection::vec(drawn, 1..70).prop_map(|drawn| {
        let name = |at: usize, long: usize| format!("u{at}{}", "-long".repeat(long / 8));
        let names: Vec<String> = drawn.iter().enumerate().map(|(at, unit)| name(at, unit.2)).collect();
        let mut units = vec![unit("boot", "", "target")];
        units.extend((0..5).map(|stage| unit(&format!("stage{stage}"), "part-of = \"boot\"", "target")));
        for (at, (stage, others, _)) in drawn.iter().enumerate() {
            let stage = if *stage == 5 { "boot".to_owned() } else { format!("stage{stage}") };
            let mut words = [Vec::new(), Vec::new(), Vec::new()];
            for (other, how) in others.iter().filter(|_| at > 0) {
                let other = &names[other.index(at)];
                let kinds: &[usize] = match how {
                    0 => &[0, 1],
                    1 => &[1],
                    2 => &[0],
                    _ => &[2],
                };
                kinds.iter().for_each(|kind| words[*kind].push(format!("\"{other}\"")));
            }
            let [requires, after, wants] = words.map(|words| words.join(", "));
            let words = format!("part-of = \"{stage}\"\nrequires = [{requires}]\nafter = [{after}]\nwants = [{wants}]");
            units.push(unit(&names[at], &words, "oneshot"));
        }
        units
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_picture_of_any_boot_is_clear(units in boots()) {
        let (graph, transaction) = planned(&units);
        let svg = render::svg(&Export::new(&graph, &transaction));
        check(&svg);
        let shown = svg.matches("class=\"box\"").count();
        prop_assert!(shown > graph.len());
    }
}

/// Boots of `stages` stages with `each` units, which wait for all units of the stage before if `dense`.
fn many(stages: usize, each: usize, dense: bool) -> Vec<(String, String)> {
    let mut units = vec![unit("boot", "", "target")];
    for stage in 0..stages {
        units.push(unit(&format!("stage{stage}"), "part-of = \"boot\"", "target"));
        for own in 0..each {
            let before = |other: usize| format!("\"s{}-{other}\"", stage - 1);
            let others: Vec<String> = match stage {
                0 => Vec::new(),
                _ if dense => (0..each).map(before).collect(),
                _ => vec![before(own)],
            };
            let words = format!("part-of = \"stage{stage}\"\nafter = [{}]", others.join(", "));
            units.push(unit(&format!("s{stage}-{own}"), &words, "oneshot"));
        }
    }
    units
}

#[test]
fn mermaid_stays_within_what_github_draws() {
    let draw = |units: &[(String, String)]| {
        let (graph, transaction) = planned(units);
        let text = render::mermaid(&Export::new(&graph, &transaction));
        let arrows = ["-->", "-.->", "==>", "--o", "-.-o", "x--x"];
        let edges = text.lines().filter(|line| arrows.iter().any(|arrow| line.contains(arrow)));
        assert!(edges.count() <= 500 && text.len() <= 50_000, "{} bytes", text.len());
        text
    };
    let whole = draw(&many(4, 20, false));
    assert!(whole.contains("unit_s3_19"));
    for large in [many(3, 25, true), many(10, 100, false)] {
        let text = draw(&large);
        assert!(text.contains("each box is a stage") && !text.contains("unit_s"), "{text}");
    }
    let endless = draw(&many(900, 1, false));
    assert!(endless.contains("the end of its critical path"), "{endless}");
}

#[test]
fn ids_of_mermaid_are_unique_and_plain() {
    let (graph, transaction) = planned(&many(3, 10, false));
    let text = render::mermaid(&Export::new(&graph, &transaction));
    let ids: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().split_once(['[', '(']))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    assert!(ids.len() >= graph.len());
}
