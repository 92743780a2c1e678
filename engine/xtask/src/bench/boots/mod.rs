//! `cargo xtask bench`: keel-init beside other inits, and beside the least that starting the same processes costs.
//!
//! Everybody gets the same graph in its own words, runs as PID 1 in namespaces of its own, and is timed in the same way: a program says
//! when it becomes the manager, and the graph's last unit says when it began. Each round runs one after the other, so that whatever else
//! the machine does falls on all of them. A time is told as a multiple of the floor's beside it.

mod chart;
mod ground;
mod peer;
mod report;
mod settled;
mod shape;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ground::{Ground, Run};
use peer::Peer;
use report::{Report, Row};
use settled::Machine;
use shape::{Graph, Shape};

use super::median;
use crate::apt;
use crate::command::{self, Failure, command};
use crate::node::{self, repository};
use crate::progress::{print, say, step};
use crate::setup;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Who runs, beside the floor
    #[arg(long, value_name = "PEER", value_delimiter = ',', value_enum)]
    peer: Vec<Peer>,

    /// Which graphs
    #[arg(long, value_name = "SHAPE", value_delimiter = ',', value_enum)]
    shape: Vec<Shape>,

    /// How many units
    #[arg(long = "n", value_name = "COUNT", value_delimiter = ',', default_values_t = [100, 1_000, 5_000])]
    units: Vec<usize>,

    /// How often each runs on each graph
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rounds: usize,

    /// Refuse a machine that does something else, instead of warning
    #[arg(long)]
    strict: bool,

    /// Measure this keel-init, instead of building one
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,

    /// How many seconds one run may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
}

/// How many at once the floor is tried with.
const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// With how many units it is tried.
const TRIED: usize = 1_000;

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.rounds == 0 || options.units.contains(&0) {
        return Err(Failure::new("--rounds and --n: at least one"));
    }
    setup::bench()?;
    let target = repository().join("target/bench");
    let programs =
        step("programs", || programs(&target.join("programs"), options.init.as_deref()))?;
    let peers = choice(&options.peer, &Peer::ALL);
    let shapes = choice(&options.shape, &Shape::ALL);
    let race = Race { target: &target, programs: &programs, options, peers };
    race.unpack()?;

    let machine = step("is the machine settled?", || Ok(Machine::now()))?;
    let trouble = machine.check(options.strict)?;
    if let Some(trouble) = &trouble {
        say(&format!("    warning: {trouble}; trust no figure but ratios, and those little"));
    }
    let width = step("the floor", || race.width())?;
    say(&format!("    {width} at once are the fastest"));

    let mut rows = Vec::new();
    for units in &options.units {
        for shape in &shapes {
            let name = format!("{units} units, {shape}");
            rows.extend(step(&name, || race.run(*shape, *units, width))?);
        }
    }
    let report = Report::new(rows, machine, trouble, width, options.rounds);
    report.write(&target)?;
    print(&report.table());
    say(&format!("wrote {0}/latest.json and {0}/latest.svg", target.display()));
    Ok(())
}

fn choice<T: Copy>(chosen: &[T], all: &[T]) -> Vec<T> {
    if chosen.is_empty() { all.to_vec() } else { chosen.to_vec() }
}

/// Builds keel-init as it ships, and the bench's own programs.
fn programs(folder: &Path, init: Option<&Path>) -> Result<PathBuf, Failure> {
    const SOURCES: [(&str, &str); 3] = [
        ("floor", include_str!("floor.c")),
        ("mark", include_str!("mark.c")),
        ("true", include_str!("true.c")),
    ];
    let put = || Failure::because("cannot write the bench's programs");
    fs::create_dir_all(folder).map_err(put())?;
    let source = tempfile::tempdir().map_err(put())?;
    for (name, text) in SOURCES {
        let file = source.path().join(format!("{name}.c"));
        fs::write(&file, text).map_err(put())?;
        let mut cc = command("cc", ["-O2", "-static", "-s", "-Wall", "-Werror", "-o"]);
        command::run(cc.arg(folder.join(name)).arg(file))?;
    }
    let built;
    let init = match init {
        Some(init) => init,
        None => {
            built = node::init()?;
            &built
        }
    };
    // What runs is not written to: the name gets a new file.
    let new = folder.join("keel-init.new");
    fs::copy(init, &new).map_err(put())?;
    fs::rename(new, folder.join("keel-init")).map_err(put())?;
    Ok(folder.to_owned())
}

struct Race<'a> {
    target: &'a Path,
    programs: &'a Path,
    options: &'a Options,
    peers: Vec<Peer>,
}

/// One who takes part: where, and what came of it so far.
struct Part {
    peer: Peer,
    ground: Ground,
    runs: Vec<Run>,
    failed: Option<String>,
}

impl Race<'_> {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.options.patience)
    }

    /// Where a peer's packages are unpacked: no init of another kind is installed on this machine.
    fn packages(&self, peer: Peer) -> Vec<PathBuf> {
        let folder = self.target.join("peers").join(peer.name());
        if peer.packages().is_empty() { Vec::new() } else { vec![folder.join("usr")] }
    }

    fn unpack(&self) -> Result<(), Failure> {
        for peer in &self.peers {
            let Some(usr) = self.packages(*peer).pop() else { continue };
            if usr.exists() {
                continue;
            }
            step(peer.name(), || {
                let home = usr.parent().unwrap_or(&usr);
                let part = home.with_extension("part");
                let put = || Failure::because(format!("cannot unpack into {}", part.display()));
                let _old = fs::remove_dir_all(&part);
                fs::create_dir_all(&part).map_err(put())?;
                for package in apt::candidates(peer.packages())? {
                    let file = apt::download(&package, &part)?;
                    command::run(command("dpkg-deb", ["-x"]).arg(file).arg(&part))?;
                }
                // Debian's `/bin`, `/sbin` and `/lib` are names for what lies in `/usr`.
                for name in ["bin", "sbin", "lib"] {
                    let from = part.join(name);
                    if from.exists() {
                        fs::create_dir_all(part.join("usr")).map_err(put())?;
                        command::run(command("cp", ["-a"]).arg(from).arg(part.join("usr")))?;
                    }
                }
                fs::rename(&part, home).map_err(put())
            })?;
        }
        Ok(())
    }

    /// How many processes at once are the fastest for who knows no order.
    fn width(&self) -> Result<usize, Failure> {
        let ground = Ground::new(self.programs)?;
        Peer::Floor
            .write(&Graph::new(Shape::Side, 0), ground.folder())
            .map_err(Failure::because("cannot write for the floor"))?;
        let mut best = (Duration::MAX, 1);
        for _ in 0..3 {
            for width in WIDTHS {
                let start = Peer::Floor.start(TRIED, width);
                let took = ground.run(&start, &[], TRIED, self.patience())?.wall;
                best = best.min((took, width));
            }
        }
        Ok(best.1)
    }

    fn run(&self, shape: Shape, units: usize, width: usize) -> Result<Vec<Row>, Failure> {
        let graph = Graph::new(shape, units);
        let floors = [Peer::Floor, Peer::FloorOne];
        let others = self.peers.iter().filter(|peer| !floors.contains(peer));
        let mut parts = floors
            .iter()
            .chain(others)
            .map(|peer| {
                let ground = Ground::new(self.programs)?;
                peer.write(&graph, ground.folder())
                    .map_err(Failure::because(format!("cannot write for {}", peer.name())))?;
                let failed = peer.cannot(shape).map(str::to_owned);
                Ok(Part { peer: *peer, ground, runs: Vec::new(), failed })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        // The first round reads files into the page cache and counts for nobody.
        for round in 0..=self.options.rounds {
            for part in parts.iter_mut().filter(|part| part.failed.is_none()) {
                let start = part.peer.start(units, width);
                let lower = self.packages(part.peer);
                match part.ground.run(&start, &lower, units, self.patience()) {
                    Ok(_) if round == 0 => {}
                    Ok(run) => part.runs.push(run),
                    Err(failure) => {
                        say(&format!("    {}: {}", part.peer.name(), failure.chain()));
                        say(&part.ground.output());
                        part.failed = Some(failure.to_string());
                    }
                }
            }
        }
        let floor = |of: Peer| {
            let part = parts.iter().find(|part| part.peer == of);
            median(&part.map(|part| walls(&part.runs)).unwrap_or_default())
        };
        let (best, one) = (floor(Peer::Floor), floor(Peer::FloorOne));
        let own = if shape == Shape::Chain { one } else { best };
        Ok(parts
            .into_iter()
            .map(|part| {
                Row::new(part.peer.name(), shape, units, &part.runs, part.failed, best, own)
            })
            .collect())
    }
}

fn walls(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|run| run.wall.as_secs_f64()).collect()
}
