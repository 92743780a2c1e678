//! `osctl verify`: whether an image holds what a graph uses, and a machine what it selects, before anything boots.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use keel_image::{Arguments, Image, Inventory, Question, Verdict};
use keel_plan::{BOOT, BootGraph, PlanError, Transaction, compile};
use keel_unit::config::{effective_config, merged_config};
use keel_unit::source::{FileId, Sources, Span};
use keel_unit::tree::{Node, Value};
use keel_unit::{Input, Report, Unit};

use crate::commands::inputs::{Fault, Inputs};
use crate::commands::validate::without_secret;
use crate::error::{Exit, Failure};
use crate::findings::views;
use crate::output::{Format, Ink, Output};

/// Check that an image holds everything that a graph uses, and a machine everything that it selects
///
/// The image itself is unpacked in memory and looked through: programs with their loaders and libraries, kernel modules for its
/// kernel, filesystem tools, paths. With an inventory also links, disks and their drivers. Without --config it is the graph in the
/// image itself that is checked. Exit code 0: all is there. 1: something is missing, and every place that needs it is shown. 2: the
/// command line is wrong.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl verify --image image\n  osctl verify --image image --config my.toml --inventory node.json\n  osctl verify --image image --config my.toml --output json"
)]
pub(crate) struct Verify {
    /// The folder that `osctl image build` wrote
    #[arg(long, value_name = "DIR")]
    image: PathBuf,

    #[command(flatten)]
    inputs: Inputs,

    /// The machine that the image is for, as `osctl inventory` recorded it or as docs/inventory.md describes it
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,

    /// The goal that the machine boots to
    #[arg(long, value_name = "UNIT", default_value = BOOT)]
    goal: String,
}

/// The most bytes of an inventory: a thousand disks with all that is on them.
const LARGEST_INVENTORY: u64 = 16 << 20;

impl Verify {
    pub(crate) fn run(self, out: &mut Output) -> Result<Exit, Failure> {
        if !self.image.exists() {
            let failure = Failure::usage(format!("there is no {}", self.image.display()));
            return Err(failure.next("say where `osctl image build` wrote the image with --image"));
        }
        let inventory = self.inventory.as_deref().map(read_inventory).transpose()?;
        let mut arguments = None;
        let mut asked = None;
        if !self.inputs.config.is_empty() {
            let input = self.inputs.load()?;
            arguments = kernel_arguments(input.clone());
            asked = match self.inputs.plan(input, &self.goal) {
                Ok(asked) => Some(asked),
                Err(Fault::Findings(report)) => return invalid(&report, out),
                Err(Fault::Other(failure)) => return Err(failure),
            };
        }
        let image = Image::open(&self.image).map_err(|error| {
            let failure = Failure::new(error.to_string()).because(error.kind);
            failure.next("build it again with `osctl image build`")
        })?;
        // The image's own graph: to compare with the one that is asked for, or to check when none is.
        let (own, own_plan) = match compile(image.input(), &self.goal) {
            Ok(own) => own,
            Err(PlanError::Invalid(report)) => return invalid(&report, out),
            Err(error) => {
                let failure = Failure::new("the graph in the image cannot be planned");
                return Err(failure.because(error));
            }
        };
        let (mut digests, mut differences) = (None, Vec::new());
        if let Some((graph, _)) = &asked {
            let without = without_secret(graph);
            if without.is_empty() {
                digests = Some((graph.digest().to_string(), own.digest().to_string()));
                differences = self.differences(&image, graph.sources())?;
            } else {
                let units = without.join(", ");
                out.notice(&format!(
                    "without --secrets, the secrets of {units} and the graph in the image were not compared"
                ));
            }
        }
        let arguments = match &asked {
            Some(_) => arguments,
            None => kernel_arguments(image.input()),
        };
        let (graph, plan) = asked.unwrap_or((own, own_plan));
        let units = started(&graph, &plan);
        let verdict = keel_image::verify(&Question {
            image: &image,
            sources: graph.sources(),
            units: &units,
            digests,
            differences,
            arguments,
            inventory: inventory.as_ref(),
        });
        self.tell(&image, &graph, &verdict, out)?;
        let wrong = !verdict.findings.diagnostics.is_empty();
        Ok(if wrong { Exit::Findings } else { Exit::Clean })
    }

    /// What the files that the graph was read from differ in from those in the image.
    fn differences(&self, image: &Image, sources: &Sources) -> Result<Vec<String>, Failure> {
        let files = || sources.files().map(|file| (sources.name(file), sources.text(file)));
        let units = files().filter_map(|(name, text)| {
            let below = Path::new(&*name).strip_prefix(&self.inputs.units).ok()?;
            Some((below.to_str()?.replace('\\', "/"), text.to_string()))
        });
        // An image holds one config, whatever number of files it was made from.
        let config = merged_config(&self.inputs.load()?).ok();
        Ok(image.differences(&units.collect::<Vec<_>>(), config.as_deref()))
    }

    fn tell(
        &self,
        image: &Image,
        graph: &BootGraph,
        verdict: &Verdict,
        out: &mut Output,
    ) -> Result<(), Failure> {
        if out.format() == Format::Json {
            return out.json(&serde_json::json!({
                "valid": verdict.findings.diagnostics.is_empty(),
                "digest": graph.digest().to_string(),
                "units": verdict.units,
                "files": image.manifest.files.len(),
                "inventory": self.inventory.is_some(),
                "findings": views(&verdict.findings),
                "notes": views(&verdict.notes),
            }));
        }
        let mut page = String::new();
        if !verdict.findings.diagnostics.is_empty() {
            page += &verdict.findings.draw(out.drawing());
            page.push('\n');
        }
        for note in &verdict.notes.diagnostics {
            let label = out.palette().paint(Ink::Warning, "note");
            page += &format!("{label}: {}: {}", verdict.notes.location(note), note.message);
            let more: Vec<_> = [&note.label.text]
                .into_iter()
                .chain(&note.help)
                .filter(|text| !text.is_empty())
                .map(|text| text.replace('\n', "; "))
                .collect();
            if !more.is_empty() {
                page += &format!(" ({})", more.join("; "));
            }
            page.push('\n');
        }
        let with =
            self.inventory.as_ref().map(|path| format!(", and the machine of {}", path.display()));
        let with = with.unwrap_or_default();
        let verdict_word = match verdict.findings.diagnostics.is_empty() {
            true => out.palette().paint(Ink::Good, "verified"),
            false => out.palette().paint(Ink::Bad, "not verified"),
        };
        page += &format!(
            "{verdict_word}: {} units against {} files of {}{with}\n",
            verdict.units,
            image.manifest.files.len(),
            self.image.display(),
        );
        out.text(&page)
    }
}

/// What a config tells the kernel. A config with a fault tells nothing; planning reports it.
fn kernel_arguments(input: Input) -> Option<Arguments> {
    let effective = effective_config(input).ok()?;
    let kernel = effective.table.get("kernel").and_then(Node::as_table);
    let Some(node) = kernel.and_then(|kernel| kernel.get("arguments")) else {
        return Some(Arguments { values: Vec::new(), span: Span::whole(FileId::DEFAULT) });
    };
    let Value::Array(items) = &node.value else { return None };
    let values = items.iter().filter_map(Node::as_str).map(str::to_owned).collect();
    Some(Arguments { values, span: node.span })
}

/// The units that the plan starts.
fn started<'a>(graph: &'a BootGraph, plan: &Transaction) -> Vec<&'a Unit> {
    let names = plan.jobs().iter().map(|job| &*plan.spec(job.unit).name);
    let ids = names.filter_map(|name| graph.find(name));
    ids.map(|id| &**graph.unit(id)).collect()
}

/// The units and the config are wrong by themselves.
fn invalid(report: &Report, out: &mut Output) -> Result<Exit, Failure> {
    match out.format() {
        Format::Json => out
            .json(&serde_json::json!({ "valid": false, "findings": views(report), "notes": [] }))?,
        Format::Table => out.text(&report.draw(out.drawing()))?,
    }
    Ok(Exit::Findings)
}

fn read_inventory(path: &Path) -> Result<Inventory, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::usage(format!("cannot read {}", path.display()))
            .because(error)
            .next("record one with `osctl --endpoint HOST inventory`, or see docs/inventory.md")
    };
    let about = fs::metadata(path).map_err(cannot)?;
    if !about.is_file() || about.len() > LARGEST_INVENTORY {
        return Err(Failure::usage(format!(
            "{} is no file of an inventory's size",
            path.display()
        )));
    }
    let text = fs::read_to_string(path).map_err(cannot)?;
    Inventory::parse(&text).map_err(|error| {
        Failure::usage(format!("cannot take {} as an inventory", path.display()))
            .because(error)
            .next("`osctl inventory --example` prints one to begin with")
    })
}
