//! `osctl boot predict`: what the simulator says of a boot that was recorded, and by how much it is off.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use keel_plan::{Basis, Prediction, predict, predictions};
use serde_json::json;

use super::files;
use super::source::Source;
use crate::cli::NodeArgs;
use crate::commands::inputs::{Fault, Inputs};
use crate::error::{Exit, Failure};
use crate::output::{Format, Output};

/// Say what a recorded boot should have taken, and by how much that is off
///
/// Twice: as it could be known before (other traces, hints, what is usual for the kind), which tells how good the estimates are; and
/// with the boot's own durations, which tells how good the simulator is.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  osctl boot predict boot.json --config machine-configs/qemu.toml\n  osctl boot predict boot.json --config machine-configs/qemu.toml --trace yesterday.json"
)]
pub(crate) struct Predict {
    #[command(flatten)]
    measured: Source,

    #[command(flatten)]
    inputs: Inputs,

    /// An earlier boot to take durations from; repeat it for several
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,

    /// Which of several recorded durations to take
    #[arg(long, value_name = "1..100", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    percentile: u8,

    /// How many units to list, those with the worst estimates first
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    most: usize,
}

impl Predict {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let measured = self.measured.read(node, out)?;
        let others = files::read_all(&self.trace)?;
        let (graph, transaction) = match self.inputs.planned(&measured.goal) {
            Ok(planned) => planned,
            Err(Fault::Findings(report)) => {
                out.findings(&report);
                return Ok(Exit::Findings);
            }
            Err(Fault::Other(failure)) => return Err(failure),
        };
        if measured.digest != graph.digest().to_string() {
            out.notice(
                "this was recorded of another graph: units of the same name are taken as the same",
            );
        }
        let transaction = Arc::new(transaction);
        let of = |basis| predict(&graph, &transaction, &measured, &others, self.percentile, basis);
        let (before, replay) = (of(Basis::Before), of(Basis::Replay));
        match out.format() {
            Format::Json => {
                out.json(&json!({ "before": json_of(&before), "replay": json_of(&replay) }))?
            }
            _ => out.text(&predictions(&before, &replay, self.most))?,
        }
        Ok(Exit::Clean)
    }
}

fn json_of(prediction: &Prediction) -> serde_json::Value {
    let micros = |span: std::time::Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let units = prediction.units.iter().map(|unit| {
        json!({
            "unit": unit.name, "took_us": micros(unit.took), "estimated_us": micros(unit.to_take),
            "ended_us": micros(unit.ended), "predicted_us": micros(unit.to_end),
        })
    });
    json!({
        "measured_us": micros(prediction.measured),
        "predicted_us": micros(prediction.predicted),
        "off_percent": (prediction.off() * 10.0).round() / 10.0,
        "units": units.collect::<Vec<_>>(),
        "unmatched": prediction.unmatched,
    })
}
