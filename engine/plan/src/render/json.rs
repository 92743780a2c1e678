//! JSON, for scripts and for comparing graphs.

use serde::Serialize;

use crate::graph::BootGraph;
use crate::transaction::Transaction;

#[derive(Serialize)]
struct Graph<'a> {
    digest: String,
    goal: &'a str,
    units: Vec<Unit<'a>>,
    edges: Vec<Edge<'a>>,
}

#[derive(Serialize)]
struct Unit<'a> {
    name: &'a str,
    kind: &'a str,
    stage: Option<&'a str>,
    description: &'a str,
    file: String,
    line: u32,
    /// Whether the goal starts it.
    started: bool,
    deadline_ms: Option<u64>,
    on_failure: &'a str,
    conditional: bool,
}

#[derive(Serialize)]
struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    kind: &'a str,
    #[serde(rename = "await")]
    awaits: Option<&'a str>,
    why: String,
    file: String,
    line: u32,
}

/// The graph as one JSON object; in an edge, `from` depends on `to`.
pub fn json(graph: &BootGraph, transaction: &Transaction) -> String {
    let mut started = vec![false; graph.len()];
    transaction.jobs().iter().for_each(|job| started[job.unit.index()] = true);
    let units = graph.ids().map(|id| {
        let unit = graph.unit(id);
        let at = graph.locate(unit.span);
        Unit {
            name: unit.name.as_str(),
            kind: unit.kind.name().as_str(),
            stage: graph.stage(id).map(|s| s.as_str()),
            description: &unit.description,
            file: at.file.to_string(),
            line: at.line,
            started: started[id.index()],
            deadline_ms: unit.deadline().map(|d| d.as_millis() as u64),
            on_failure: unit.failure.on.as_str(),
            conditional: !unit.condition.is_empty(),
        }
    });
    let edges = graph.ids().flat_map(|id| {
        graph.dependencies(id).map(move |(other, edge)| {
            let at = graph.locate(edge.span);
            Edge {
                from: graph.unit(id).name.as_str(),
                to: graph.unit(other).name.as_str(),
                kind: edge.kind.as_str(),
                awaits: edge.kind.awaits().map(|a| a.as_str()),
                why: edge.why.to_string(),
                file: at.file.to_string(),
                line: at.line,
            }
        })
    });
    let goal = graph.unit(transaction.goal()).name.as_str();
    let graph = Graph {
        digest: graph.digest().to_string(),
        goal,
        units: units.collect(),
        edges: edges.collect(),
    };
    // Strings, numbers and booleans under fixed keys: there is nothing here that JSON cannot hold.
    let mut text = serde_json::to_string_pretty(&graph).unwrap_or_default();
    text.push('\n');
    text
}
