//! Who links whom: invariants 1 to 6 as far as `cargo metadata` shows them. Dev-dependencies do not count.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};

use crate::tidy::{Finding, TidyError};

/// What a crate must not link, directly or by way of another crate. `keel-*` stands for every crate of ours.
const NEVER_LINKS: &[(&str, &[&str])] = &[
    ("keel-unit", &["tokio", "petgraph", "keel-*"]),
    ("keel-plan", &["tokio"]),
    ("keel-exec", &["nix", "keel-host"]),
    ("keel-init", &["tonic", "rustls", "clap"]),
    ("osctl", &["keel-exec", "keel-host"]),
];

/// Crates that speak to the kernel, and who may name them: [`LINUX_ROOMS`] alone. That another library uses one of them is
/// its own business.
const LINUX_CRATES: &[&str] = &["nix", "libc", "rtnetlink", "netlink-*", "mozim", "gptman"];
const LINUX_ROOMS: &[&str] = &["keel-host", "keel-init"];
/// Who may name one of them all the same: as a library of partition tables gptman touches no device, and an image is a file.
const ALSO: &[(&str, &str)] = &[("keel-image", "gptman")];

/// Crates that may name these alone, of all or of ours.
const NAMES_ONLY: &[(&str, &str, &[&str])] = &[
    ("keel-agent", "keel-*", &["keel-control", "keel-proto"]),
    ("keel-control", "keel-*", &[]),
    ("keel-proto", "*", &["prost", "prost-types", "tonic", "tonic-prost"]),
];

pub(crate) fn findings(metadata: &Metadata) -> Result<Vec<Finding>, TidyError> {
    let mut findings = Vec::new();
    let links = Links::new(metadata);
    for one in metadata.workspace_packages() {
        let named = normal_dependencies(one);
        let mut found = |what| findings.push(Finding { place: one.name.to_string(), what });
        for (_, never) in NEVER_LINKS.iter().filter(|(name, _)| one.name == name) {
            for (linked, path) in links.reached_from(&one.id) {
                if never.iter().any(|pattern| matches(pattern, &linked)) {
                    found(format!("links {linked}, by way of {}", path.join(" -> ")));
                }
            }
        }
        if !LINUX_ROOMS.contains(&one.name.as_str()) {
            for linux in named
                .iter()
                .filter(|name| LINUX_CRATES.iter().any(|pattern| matches(pattern, name)))
                .filter(|name| !ALSO.contains(&(one.name.as_str(), name.as_str())))
            {
                found(format!(
                    "depends on {linux}, which is for {} alone",
                    LINUX_ROOMS.join(" and ")
                ));
            }
        }
        for (_, pattern, only) in NAMES_ONLY.iter().filter(|(name, ..)| one.name == name) {
            for other in
                named.iter().filter(|name| matches(pattern, name) && !only.contains(&name.as_str()))
            {
                found(format!("depends on {other}; of {pattern} it may name {only:?}"));
            }
        }
        if !takes_workspace_lints(one)? {
            found("its Cargo.toml does not take the lints of the workspace".to_owned());
        }
    }
    Ok(findings)
}

/// Whether a crate's name is meant: a name, or the beginning of one and `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

fn normal_dependencies(one: &Package) -> BTreeSet<String> {
    let normal =
        one.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.clone()).collect()
}

fn takes_workspace_lints(one: &Package) -> Result<bool, TidyError> {
    let path = one.manifest_path.as_std_path();
    let text = fs::read_to_string(path)
        .map_err(|source| TidyError::Read { path: path.to_owned(), source })?;
    Ok(text.contains("[lints]\nworkspace = true\n"))
}

/// The graph of normal dependencies, as cargo resolved it.
struct Links<'a> {
    names: HashMap<&'a PackageId, &'a str>,
    edges: HashMap<&'a PackageId, Vec<&'a PackageId>>,
}

impl<'a> Links<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        let names = metadata.packages.iter().map(|one| (&one.id, one.name.as_str())).collect();
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let edges = nodes
            .map(|node| {
                let normal = node.deps.iter().filter(|to| {
                    to.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
                });
                (&node.id, normal.map(|to| &to.pkg).collect())
            })
            .collect();
        Self { names, edges }
    }

    /// Every crate that one links, and a shortest way to it.
    fn reached_from(&self, start: &'a PackageId) -> BTreeMap<String, Vec<String>> {
        let mut ways: HashMap<&PackageId, Vec<String>> = HashMap::from([(start, vec![])]);
        let mut front = vec![start];
        while !front.is_empty() {
            let mut next = Vec::new();
            for from in front {
                let way = ways.get(from).cloned().unwrap_or_default();
                for to in self.edges.get(from).into_iter().flatten() {
                    if !ways.contains_key(to) {
                        let name = self.names.get(to).copied().unwrap_or_default().to_owned();
                        ways.insert(to, [way.clone(), vec![name]].concat());
                        next.push(*to);
                    }
                }
            }
            front = next;
        }
        ways.into_values().filter_map(|way| Some((way.last()?.clone(), way))).collect()
    }
}
