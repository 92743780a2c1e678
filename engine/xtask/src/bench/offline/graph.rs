//! One random graph, written as Keel's units and as systemd's: the same names, the same words, the same edges.

use std::fs;
use std::io;
use std::path::Path;

/// A unit by its number, and what it says of earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Those that it requires and comes after.
    requires: Vec<usize>,
    /// Those that it only comes after.
    after: Vec<usize>,
}

/// A graph without cycles: a unit names earlier units alone, some near and some far, as a boot does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Graph(Vec<Node>);

impl Graph {
    /// The same seed gives the same graph.
    pub(super) fn random(units: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pick = |i: usize| {
            let count = random.usize(0..=2).min(i);
            let mut picked: Vec<_> = (0..count)
                .map(|_| match random.bool() {
                    true => i - 1 - random.usize(0..i.min(20)),
                    false => random.usize(0..i),
                })
                .collect();
            picked.sort_unstable();
            picked.dedup();
            picked
        };
        Graph((0..units).map(|i| Node { requires: pick(i), after: pick(i) }).collect())
    }

    /// Words that name another unit, beside those by which the goal names each.
    pub(super) fn words(&self) -> usize {
        self.0.iter().map(|node| 2 * node.requires.len() + node.after.len()).sum()
    }

    /// Writes `u0.toml` and so on, and `boot.toml`.
    pub(super) fn keel(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (i, node) in self.0.iter().enumerate() {
            fs::write(folder.join(format!("u{i}.toml")), keel(i, node))?;
        }
        fs::write(folder.join("boot.toml"), "description = \"Everything is up\"\n\n[target]\n")
    }

    /// Writes `u0.service` and so on, `boot.target`, and `idle.target` that loads them all and starts none.
    pub(super) fn systemd(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (i, node) in self.0.iter().enumerate() {
            fs::write(folder.join(format!("u{i}.service")), systemd(i, node))?;
        }
        let all: Vec<_> = (0..self.0.len()).collect();
        // One line a word, because systemd's lines have a greatest length.
        let lines = |word: &str| -> String {
            all.chunks(1000).map(|some| format!("{word}={}\n", names(some))).collect()
        };
        let head = "[Unit]\nDescription=Everything is up\nDefaultDependencies=no\n";
        let boot = format!("{head}{}{}", lines("Wants"), lines("After"));
        fs::write(folder.join("boot.target"), boot)?;
        fs::write(folder.join("idle.target"), format!("{head}{}", lines("After")))
    }
}

fn keel(i: usize, node: &Node) -> String {
    let list =
        |units: &[usize]| units.iter().map(|u| format!("\"u{u}\"")).collect::<Vec<_>>().join(", ");
    let after = [node.requires.as_slice(), &node.after].concat();
    format!(
        "description = \"Unit {i}\"\npart-of = \"boot\"\nrequires = [{}]\nafter = [{}]\n\n\
         [oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"10s\"\n",
        list(&node.requires),
        list(&after),
    )
}

fn systemd(i: usize, node: &Node) -> String {
    let after = [node.requires.as_slice(), &node.after].concat();
    format!(
        "[Unit]\nDescription=Unit {i}\nDefaultDependencies=no\nBefore=boot.target\nRequires={}\nAfter={}\n\n\
         [Service]\nType=oneshot\nExecStart=/bin/true\nTimeoutStartSec=10s\n",
        names(&node.requires),
        names(&after),
    )
}

fn names(units: &[usize]) -> String {
    units.iter().map(|u| format!("u{u}.service")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_says_the_same_in_both_languages() {
        let node = Node { requires: vec![3], after: vec![0, 5] };
        assert_eq!(
            keel(7, &node),
            "description = \"Unit 7\"\npart-of = \"boot\"\nrequires = [\"u3\"]\n\
             after = [\"u3\", \"u0\", \"u5\"]\n\n[oneshot]\nexec = [\"/bin/true\"]\ntimeout = \"10s\"\n"
        );
        assert_eq!(
            systemd(7, &node),
            "[Unit]\nDescription=Unit 7\nDefaultDependencies=no\nBefore=boot.target\n\
             Requires=u3.service\nAfter=u3.service u0.service u5.service\n\n\
             [Service]\nType=oneshot\nExecStart=/bin/true\nTimeoutStartSec=10s\n"
        );
    }

    #[test]
    fn a_seed_is_a_graph_and_keel_plans_it() {
        assert_eq!(Graph::random(200, 1), Graph::random(200, 1));
        assert_ne!(Graph::random(200, 1), Graph::random(200, 2));
        let folder = tempfile::tempdir().unwrap();
        Graph::random(200, 1).keel(folder.path()).unwrap();
        let set = keel_unit::lower(keel_unit::load::load(folder.path(), None)).unwrap();
        let graph = keel_plan::resolve(set).unwrap();
        assert_eq!(graph.len(), 201);
        let transaction = keel_plan::plan(&graph, keel_plan::BOOT).unwrap();
        assert_eq!(transaction.jobs().len(), 201);
    }
}
