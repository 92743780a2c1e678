//! From the files of the image to what is to be run.

use std::sync::Arc;

use keel_plan::{BootGraph, PlanError, Transaction, compile};
use keel_unit::config::{merged_config, rescue};
use keel_unit::diagnostic::Drawing;
use keel_unit::{Input, load};

use crate::arguments::Arguments;

/// What this boot is to do.
pub(crate) struct Boot {
    pub(crate) graph: BootGraph,
    pub(crate) transaction: Arc<Transaction>,
}

/// What the files of the image make possible.
pub(crate) enum Loaded {
    /// What they say.
    Whole(Boot),
    /// They contradict themselves, and this is why; but the units alone make a machine that can be reached.
    Rescue(Boot, String),
    /// They make nothing at all, and this is why.
    Nothing(String),
}

/// What a machine comes up with when its config is broken: enough to be reached and asked. No workload, and no disk is partitioned,
/// since nothing selects one; a data partition that is there is checked and mounted, because the machine's identity lies on it.
const RESCUE: &str = "\
description = \"What keeps a machine reachable whose config is broken\"
wants = [\"api-filesystems\", \"modules\", \"network\", \"identity\", \"keel-agent\"]
after = [\"api-filesystems\", \"modules\", \"network\", \"identity\", \"keel-agent\"]
[target]
";
const RESCUE_GOAL: &str = "keel-rescue";

/// Reads units and config, and plans the way to the goal. What is wrong is a report for people.
pub(crate) fn load(arguments: &Arguments) -> Loaded {
    let input = load::load(&arguments.units, Some(&arguments.config));
    let why = match boot(input, &arguments.goal) {
        Ok(boot) => return Loaded::Whole(boot),
        Err(why) => why,
    };
    for config in rescue(&load::text(&arguments.config).unwrap_or_default()) {
        let mut input = load::load(&arguments.units, None);
        input.config("(built in)", config);
        input.unit(&format!("(built in)/{RESCUE_GOAL}.toml"), RESCUE);
        if let Ok(boot) = boot(input, RESCUE_GOAL) {
            return Loaded::Rescue(boot, why);
        }
    }
    Loaded::Nothing(why)
}

/// The image's units with a config of the machine's own.
pub(crate) fn from_text(arguments: &Arguments, config: &str) -> Result<Boot, String> {
    let mut input = load::load(&arguments.units, None);
    input.config("config.toml", config);
    boot(input, &arguments.goal)
}

/// The image's config, which stands in for the machine's own.
pub(crate) struct StandIn {
    pub(crate) boot: Boot,
    /// All of it as one text.
    pub(crate) text: String,
}

/// The image's config with another's word on whom to let in, and who the machine is: the first two of `words` that, laid
/// over it, make a graph.
pub(crate) fn stand_ins(arguments: &Arguments, words: &[String]) -> Vec<StandIn> {
    let image = words.iter().map(|word| (word, arguments.goal.as_str()));
    // Where the image's config is broken as well.
    let bare = words.iter().map(|word| (word, RESCUE_GOAL));
    let made = image.chain(bare).filter_map(|(word, goal)| {
        let config = Some(arguments.config.as_path()).filter(|_| goal != RESCUE_GOAL);
        let mut input = load::load(&arguments.units, config);
        if goal == RESCUE_GOAL {
            input.unit(&format!("(built in)/{RESCUE_GOAL}.toml"), RESCUE);
        }
        input.config("(whom it lets in)", word.as_str());
        let text = merged_config(&input).ok()?;
        Some(StandIn { boot: boot(input, goal).ok()?, text })
    });
    made.take(2).collect()
}

/// What is wrong comes with the text underlined, as `osctl validate` does it; in ASCII, because nobody knows what is at the other end
/// of a serial line.
fn boot(input: Input, goal: &str) -> Result<Boot, String> {
    let (graph, transaction) = compile(input, goal).map_err(|error| match error {
        PlanError::Invalid(report) => report.draw(Drawing::Ascii),
        error => error.to_string(),
    })?;
    Ok(Boot { graph, transaction: Arc::new(transaction) })
}
