//! What a boot looks like to people, recorded or simulated.

use std::fmt::Write as _;

use keel_plan::chart::{self, Tone};
use keel_plan::{Ending, Origin, StateName, Trace};
use keel_unit::value::people;

use crate::output::{Ink, Palette, printable};

/// How many columns the bars are wide.
const BARS: usize = 48;

/// Adds a fact.
pub(crate) fn field(text: &mut String, palette: Palette, label: &str, value: &str) {
    let label = palette.paint(Ink::Faint, &format!("{label:14}"));
    // Writing into a String cannot fail.
    let _ = writeln!(text, "  {label} {value}");
}

/// How the boot ended, and what decided that.
pub(crate) fn headline(trace: &Trace, palette: Palette) -> String {
    let ink = match trace.outcome {
        Ending::Reached => Ink::Good,
        Ending::Degraded | Ending::Unfinished => Ink::Warning,
        Ending::Missed | Ending::Emergency | Ending::Reboot => Ink::Bad,
    };
    let outcome = palette.paint(ink, trace.outcome.as_str());
    let origin = match trace.origin {
        Origin::Recorded => "recorded",
        Origin::Simulated => "simulated",
    };
    let mut text = format!("{} {outcome} in {} ({origin})\n", trace.goal, people(trace.total()));
    let about = &trace.machine;
    let mut machine: Vec<String> = Vec::new();
    machine.extend(about.hostname.clone());
    machine.extend(about.keel.as_ref().map(|version| format!("keel {version}")));
    machine.extend(about.kernel.as_ref().map(|release| format!("linux {release}")));
    machine.extend(about.cpus.map(|cpus| match cpus {
        1 => "1 processor".to_owned(),
        cpus => format!("{cpus} processors"),
    }));
    if !machine.is_empty() {
        field(&mut text, palette, "machine", &printable(&machine.join(", ")));
    }
    if let Some(kernel) = trace.kernel_us {
        let kernel = people(std::time::Duration::from_micros(kernel));
        field(&mut text, palette, "before init", &format!("{kernel} from the kernel's start"));
    }
    if let Some(preparation) = trace.preparation().filter(|preparation| !preparation.is_zero()) {
        field(&mut text, palette, "first unit", &format!("after {}", people(preparation)));
    }
    let path = trace.critical_path();
    let links: Vec<_> = path.iter().filter(|link| link.to > link.from).collect();
    let length = links.iter().map(|link| link.to - link.from).sum();
    // Where there are many, those that took a part of the time worth naming.
    let worth = if links.len() > 10 { trace.total() / 100 } else { std::time::Duration::ZERO };
    let short = links.iter().filter(|link| link.to - link.from < worth).count();
    let mut units: Vec<_> = links
        .iter()
        .filter(|link| link.to - link.from >= worth)
        .map(|link| {
            let processor = if link.for_processor { " (for a processor)" } else { "" };
            format!("{} {}{processor}", trace.units[link.unit].name, people(link.to - link.from))
        })
        .collect();
    if short > 0 {
        units.push(format!("{short} shorter ones between"));
    }
    field(
        &mut text,
        palette,
        "critical path",
        &format!("{}: {}", people(length), units.join(" > ")),
    );
    let busy = trace.business();
    let most = match busy.side_by_side {
        1 => "one unit at a time".to_owned(),
        most => format!("up to {most} units at once"),
    };
    let at_work = if busy.at_work < busy.side_by_side {
        format!(" ({} of them not waiting for a processor)", busy.at_work)
    } else {
        String::new()
    };
    field(
        &mut text,
        palette,
        "side by side",
        &format!("{most}{at_work}, {:.1}x as fast as one after another", busy.speed_up),
    );
    field(&mut text, palette, "graph", &printable(&trace.digest));
    text
}

/// What is not up, and why.
pub(crate) fn shortfalls(text: &mut String, trace: &Trace, palette: Palette) {
    let failed = trace.units.iter().filter(|unit| unit.state == StateName::Failed);
    for (index, unit) in failed.enumerate() {
        let why = unit.why.as_deref().unwrap_or("failed");
        field(
            text,
            palette,
            if index == 0 { "not up" } else { "" },
            &format!("{}: {}", unit.name, printable(why)),
        );
    }
}

/// A bar for each unit.
pub(crate) fn waterfall(trace: &Trace, palette: Palette) -> String {
    let mut text = String::new();
    for bar in chart::bars(trace, BARS) {
        let line = match bar.tone {
            Tone::Plain => bar.text,
            Tone::Heading | Tone::Faint => palette.paint(Ink::Faint, &bar.text),
            Tone::Critical => palette.paint(Ink::Strong, &bar.text),
            Tone::Bad => palette.paint(Ink::Bad, &bar.text),
        };
        text += &line;
        text.push('\n');
    }
    text
}
