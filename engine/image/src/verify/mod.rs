//! Whether an image holds what its graph uses, and whether a machine has what its config selects: found offline, before anything
//! boots.
//!
//! ```text
//! vmlinuz, initramfs.zst   archive.rs, content.rs, kernel.rs   ──►  Image     what is really there
//! units, config, Image, Inventory   whole, programs, paths, drivers, hardware   ──►  Verdict   findings, each with its line
//! ```
//!
//! Everything behind [`Image::open`] is a pure function of what was read. What a check cannot know (a file that a mount or another
//! unit brings later) it does not report.

mod archive;
mod content;
mod drivers;
mod hardware;
mod image;
mod kernel;
mod partition;
mod paths;
mod programs;
#[cfg(test)]
mod tests;
mod whole;

use std::sync::Arc;

use keel_unit::source::{Sources, Span};
use keel_unit::tree::Value;
use keel_unit::value::AbsPath;
use keel_unit::{Diagnostic, Kind, Report, Unit};

use self::drivers::Drivers;
pub use self::image::{Image, ImageError, ImageErrorKind};
use crate::elf::Machine;
use crate::inventory::Inventory;

/// What is asked of an image.
#[derive(Debug)]
pub struct Question<'a> {
    /// The image.
    pub image: &'a Image,
    /// The files that the units come from.
    pub sources: &'a Sources,
    /// The units that the goal starts.
    pub units: &'a [&'a Unit],
    /// The digest of the graph that is asked for, and that of the graph in the image; `None` where that one is asked for.
    pub digests: Option<(String, String)>,
    /// What the graphs' files differ in, as far as it has a name.
    pub differences: Vec<String>,
    /// The kernel arguments of the machine config.
    pub arguments: Option<Arguments>,
    /// The machine that the image is for.
    pub inventory: Option<&'a Inventory>,
}

/// The kernel arguments that a machine config says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// In their order.
    pub values: Vec<String>,
    /// Where they stand; the default's place where nobody wrote any.
    pub span: Span,
}

/// What was found.
#[derive(Debug)]
pub struct Verdict {
    /// What will not work.
    pub findings: Report,
    /// What a person should know, and may be meant.
    pub notes: Report,
    /// How many units were checked.
    pub units: usize,
}

/// Checks an image, and an inventory if there is one, against the units of a graph.
#[must_use]
pub fn verify(question: &Question<'_>) -> Verdict {
    let mut sources = question.sources.clone();
    let manifest = question.image.add_manifest(&mut sources);
    let mut found = Findings::default();
    whole::check(question, &manifest, &mut found);

    let running: Vec<&Unit> = question
        .units
        .iter()
        .copied()
        .filter(|unit| paths::may_start(question, unit, &mut found))
        .collect();
    let context = Context {
        image: question.image,
        machine: question.image.machine(),
        drivers: Drivers::read(&question.image.files, &question.image.manifest.kernel_release),
        units: &running,
    };
    for unit in &running {
        let before = found.mark();
        match &unit.kind {
            Kind::Oneshot(_) | Kind::Service(_) => programs::check(&context, unit, &mut found),
            Kind::Filesystem(_) => programs::filesystem(&context, unit, &mut found),
            Kind::Mount(_) | Kind::Module(_) => drivers::check(&context, unit, &mut found),
            _ => {}
        }
        paths::check(&context, unit, &mut found);
        found.blame(unit, before);
    }
    if let Some(inventory) = question.inventory {
        hardware::check(&context, inventory, &manifest, &mut found);
    }
    let sources = Arc::new(sources);
    Verdict {
        findings: Report::new(sources.clone(), found.findings),
        notes: Report::new(sources, found.notes),
        units: running.len(),
    }
}

/// What every check may look at.
struct Context<'a> {
    image: &'a Image,
    /// What init is built for, and everything else has to be.
    machine: Option<Machine>,
    drivers: Drivers,
    /// The units whose conditions can hold.
    units: &'a [&'a Unit],
}

impl Context<'_> {
    /// Whether a path is none of the image's business: a mount lies over it, or a unit makes it.
    fn comes_later(&self, path: &AbsPath) -> bool {
        comes_later(self.units, path)
    }
}

fn comes_later(units: &[&Unit], path: &AbsPath) -> bool {
    units.iter().any(|unit| match &unit.kind {
        Kind::Mount(mount) => {
            !mount.existing && mount.target.as_str() != "/" && path.lies_in(&mount.target)
        }
        Kind::File(file) => path.lies_in(&file.path),
        _ => false,
    })
}

/// What is found on the way.
#[derive(Debug, Default)]
struct Findings {
    findings: Vec<Diagnostic>,
    notes: Vec<Diagnostic>,
}

impl Findings {
    fn push(&mut self, finding: Diagnostic) {
        self.findings.push(finding);
    }

    fn note(&mut self, note: Diagnostic) {
        self.notes.push(note);
    }

    /// How many findings and notes there are.
    fn mark(&self) -> (usize, usize) {
        (self.findings.len(), self.notes.len())
    }

    /// Lets what was found of a unit since the mark point to where the values came from.
    fn blame(&mut self, unit: &Unit, (findings, notes): (usize, usize)) {
        let new = self.findings.iter_mut().skip(findings).chain(self.notes.iter_mut().skip(notes));
        new.for_each(|found| unit.origins.blame(found));
    }
}

/// Where a key of a unit's kind stands.
fn span_of(unit: &Unit, key: &str) -> Span {
    unit.span_of(&[unit.kind.name().as_str(), key])
}

/// Where the program of a unit's `exec` stands, or one of its arguments.
fn span_of_exec(unit: &Unit, item: usize) -> Span {
    let exec = unit.tree().get(unit.kind.name().as_str()).and_then(|node| node.at(&["exec"]));
    match exec.map(|node| (&node.value, node.span)) {
        Some((Value::Array(items), span)) => items.get(item).map_or(span, |item| item.span),
        _ => unit.span,
    }
}
