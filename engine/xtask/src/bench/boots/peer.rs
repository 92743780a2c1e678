//! Who is measured: the same graph in the words of each, and how each is started.
//!
//! Every graph ends with one unit more, which comes after all others and says when that was.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::shape::{Graph, Shape};

/// A program that starts processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// vfork and execve, as many at once as is fastest here: starts the processes and knows no order
    Floor,
    /// The same, one at a time: the floor of whatever has to keep an order
    FloorOne,
    /// keel-init
    Keel,
    /// systemd, without its journal, without generators and without status on the console
    Systemd,
    /// finit
    Finit,
}

/// What no package of this Debian offers, or what cannot say a graph, and why.
pub(super) const ABSENT: [(&str, &str); 5] = [
    ("dinit", "Debian has no package"),
    ("s6-rc", "Debian has no package"),
    ("s6", "supervises services: it knows no one-shot and no dependency"),
    ("runit", "supervises services: it knows no one-shot and no dependency"),
    ("openrc", "each unit is a shell script that a shell of its own runs: not the same processes"),
];

/// Where a peer finds what was written for it.
const HOME: &str = "/bench";

/// How a peer is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) words: Vec<String>,
    pub(super) environment: Vec<(&'static str, &'static str)>,
}

impl Peer {
    pub(super) const ALL: [Self; 5] =
        [Self::Floor, Self::FloorOne, Self::Keel, Self::Systemd, Self::Finit];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorOne => "floor-one",
            Self::Keel => "keel",
            Self::Systemd => "systemd",
            Self::Finit => "finit",
        }
    }

    /// Why it cannot be given such a graph, if that is so.
    pub(super) fn cannot(self, shape: Shape) -> Option<&'static str> {
        let layers = (self, shape) == (Self::Finit, Shape::Layers);
        layers.then_some(
            "has no words for this graph: what waits for a condition at its start may never run",
        )
    }

    /// Debian packages that are unpacked for it.
    pub(super) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Finit => &["finit", "libite5", "libuev3"],
            _ => &[],
        }
    }

    /// Writes what it needs into a folder that it sees as [`HOME`]; what stands below `etc` it sees as `/etc`.
    pub(super) fn write(self, graph: &Graph, folder: &Path) -> io::Result<()> {
        let etc = folder.join("etc");
        fs::create_dir_all(&etc)?;
        match self {
            Self::Floor | Self::FloorOne => Ok(()),
            Self::Keel => keel(graph, folder),
            Self::Systemd => systemd(graph, &folder.join("units")),
            Self::Finit => finit(graph, &etc),
        }
    }

    /// How to start it, with that many units and at most `width` of them at once, where that is the caller's to say.
    pub(super) fn start(self, units: usize, width: usize) -> Start {
        let words = |line: String| line.split_whitespace().map(str::to_owned).collect();
        let floor = |width: usize| Start {
            words: words(format!("{HOME}/floor {units} {width} {HOME}/true {END}")),
            ..Start::default()
        };
        match self {
            Self::Floor => floor(width),
            Self::FloorOne => floor(1),
            Self::Keel => Start {
                words: words(format!("{HOME}/keel-init")),
                environment: vec![
                    ("KEEL_UNITS", "/bench/units"),
                    ("KEEL_CONFIG", "/bench/config.toml"),
                ],
            },
            Self::Systemd => Start {
                words: words(
                    "/usr/lib/systemd/systemd --system --unit=boot.target --log-level=err \
                     --show-status=no"
                        .to_owned(),
                ),
                environment: vec![
                    ("container", "bench"),
                    ("SYSTEMD_UNIT_PATH", "/bench/units"),
                    ("SYSTEMD_GENERATOR_PATH", "/bench/none"),
                ],
            },
            Self::Finit => Start { words: words("/usr/sbin/finit".to_owned()), ..Start::default() },
        }
    }
}

/// What the last unit runs.
const END: &str = "/bench/mark /bench/fifo E";

fn keel(Graph(units): &Graph, folder: &Path) -> io::Result<()> {
    let quoted = |names: &mut dyn Iterator<Item = usize>| -> String {
        names.map(|i| format!("\"u{i}\"")).collect::<Vec<_>>().join(", ")
    };
    let unit = |before: &str, exec: &str| {
        format!(
            "part-of = \"boot\"\nrequires = [{before}]\nafter = [{before}]\n\n\
             [oneshot]\nexec = [{exec}]\ntimeout = \"1h\"\n"
        )
    };
    let home = folder.join("units");
    fs::create_dir_all(&home)?;
    fs::write(folder.join("config.toml"), "schema = 1\n")?;
    fs::write(home.join("boot.toml"), "description = \"Everything is up\"\n\n[target]\n")?;
    for (i, before) in units.iter().enumerate() {
        let text = unit(&quoted(&mut before.iter().copied()), "\"/bench/true\"");
        fs::write(home.join(format!("u{i}.toml")), format!("description = \"Unit {i}\"\n{text}"))?;
    }
    let end: Vec<_> = END.split(' ').map(|word| format!("\"{word}\"")).collect();
    let text = unit(&quoted(&mut (0..units.len())), &end.join(", "));
    fs::write(home.join("end.toml"), format!("description = \"The end\"\n{text}"))
}

fn systemd(Graph(units): &Graph, home: &Path) -> io::Result<()> {
    // Several lines a word, because systemd's lines have a greatest length.
    let lines = |word: &str, units: &mut dyn Iterator<Item = usize>| -> String {
        let names: Vec<_> = units.map(|i| format!("u{i}.service")).collect();
        names.chunks(1000).map(|some| format!("{word}={}\n", some.join(" "))).collect()
    };
    let unit = |before: &mut dyn Iterator<Item = usize>, exec: &str| {
        let before: Vec<_> = before.collect();
        let requires = || before.iter().copied();
        format!(
            "[Unit]\nDefaultDependencies=no\n{}{}\n\
             [Service]\nType=oneshot\nExecStart={exec}\nTimeoutStartSec=1h\n",
            lines("Requires", &mut requires()),
            lines("After", &mut requires()),
        )
    };
    fs::create_dir_all(home)?;
    for (i, before) in units.iter().enumerate() {
        let text = unit(&mut before.iter().copied(), "/bench/true");
        fs::write(home.join(format!("u{i}.service")), text)?;
    }
    fs::write(home.join("end.service"), unit(&mut (0..units.len()), END))?;
    let goal = "[Unit]\nDefaultDependencies=no\nRequires=end.service\nAfter=end.service\n";
    fs::write(home.join("boot.target"), goal)
}

/// Its tasks run side by side, and what it is to run in order it runs one by one; both end before the runlevel for which the last unit
/// is. (A task of its start that waits for a condition is not waited for.)
fn finit(Graph(units): &Graph, etc: &Path) -> io::Result<()> {
    let mut text = "host bench\nrunlevel 2\n".to_owned();
    for (i, before) in units.iter().enumerate() {
        let word = if before.is_empty() { "task" } else { "run" };
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{word} name:u{i} :{i} [S] /bench/true -- Unit {i}");
    }
    let _ = writeln!(text, "task name:end [2] {END} -- The end");
    fs::create_dir_all(etc.join("finit.d"))?;
    fs::write(etc.join("finit.conf"), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(peer: Peer, file: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        peer.write(&Graph(vec![vec![], vec![0]]), folder.path()).unwrap();
        fs::read_to_string(folder.path().join(file)).unwrap()
    }

    #[test]
    fn a_unit_says_the_same_in_every_language() {
        let check = |peer, file, expect| assert_eq!(written(peer, file), expect, "{file}");
        check(
            Peer::Keel,
            "units/u1.toml",
            "description = \"Unit 1\"\npart-of = \"boot\"\nrequires = [\"u0\"]\nafter = [\"u0\"]\n\n\
             [oneshot]\nexec = [\"/bench/true\"]\ntimeout = \"1h\"\n",
        );
        check(
            Peer::Systemd,
            "units/u1.service",
            "[Unit]\nDefaultDependencies=no\nRequires=u0.service\nAfter=u0.service\n\n\
             [Service]\nType=oneshot\nExecStart=/bench/true\nTimeoutStartSec=1h\n",
        );
        check(
            Peer::Finit,
            "etc/finit.conf",
            "host bench\nrunlevel 2\ntask name:u0 :0 [S] /bench/true -- Unit 0\n\
             run name:u1 :1 [S] /bench/true -- Unit 1\n\
             task name:end [2] /bench/mark /bench/fifo E -- The end\n",
        );
    }

    #[test]
    fn keel_plans_what_is_written_for_it() {
        let folder = tempfile::tempdir().unwrap();
        Peer::Keel.write(&Graph(vec![vec![], vec![0]]), folder.path()).unwrap();
        let input = keel_unit::load::load(
            &folder.path().join("units"),
            Some(&folder.path().join("config.toml")),
        );
        let (graph, _) = keel_plan::compile(input, keel_plan::BOOT).unwrap();
        assert_eq!(graph.len(), 4);
    }
}
