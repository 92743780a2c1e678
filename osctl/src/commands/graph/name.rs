//! Units by the names that people type.

use keel_plan::explain::Reason;
use keel_plan::{BootGraph, UnitId};
use keel_unit::UnitName;

use crate::error::Failure;

/// The unit of this name. Another name is a slip on the command line.
pub(crate) fn unit(graph: &BootGraph, name: &str) -> Result<UnitId, Failure> {
    graph.find(name).ok_or_else(|| {
        let failure = Failure::usage(format!("there is no unit `{}`", name.escape_debug()));
        match graph.meant(name).as_slice() {
            [] => failure.next("`osctl graph list` names them all"),
            near => failure.next(format!("did you mean {}?", any_of(near))),
        }
    })
}

/// `a`, `b` or `c`: as many as can be read at a glance.
fn any_of(names: &[&UnitName]) -> String {
    let names: Vec<String> = names.iter().take(5).map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Edges as lines: what is said, why, and where; what is said in one place stands on one line.
pub(crate) fn said(edges: &[Reason]) -> Vec<(String, String)> {
    let mut lines: Vec<(Vec<String>, String)> = Vec::new();
    for edge in edges {
        let kind = match edge.awaits {
            Some(awaits) if awaits != "ready" => format!("{} ({awaits})", edge.kind),
            _ => edge.kind.to_owned(),
        };
        let place = format!("{}:{}", edge.file, edge.line);
        // `requires` because somebody wrote `requires` needs no further word.
        let why = match edge.why == edge.kind {
            true => place,
            false => format!("{}, {place}", edge.why),
        };
        match lines.iter_mut().find(|(_, known)| *known == why) {
            Some((kinds, _)) if !kinds.contains(&kind) => kinds.push(kind),
            Some(_) => {}
            None => lines.push((vec![kind], why)),
        }
    }
    lines.into_iter().map(|(kinds, why)| (kinds.join(" + "), why)).collect()
}
