//! `osctl image payload`: which programs go into an image, and the manifest that pins them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keel_image::{DebianPackage, Needs, Payload, Watch, found_below, from_manifest};
use keel_unit::payload::{self, PayloadEntry, PayloadManifest};
use serde::Serialize;
use toml_edit::{DocumentMut, TableLike, value};

use super::progress::Progress;
use crate::error::{Exit, Failure};
use crate::output::{Format, Ink, Output};
use crate::place;

/// The manifest's name, where nothing else is said.
const MANIFEST: &str = "payload.toml";

/// The most bytes of a manifest: many thousand programs.
const LARGEST: u64 = 4 << 20;

/// The programs of an image.
#[derive(Debug, Subcommand)]
pub(crate) enum PayloadCommand {
    /// Fill in what a payload manifest leaves open: the SHA-256 of each file, and its version where dpkg knows it
    #[command(
        after_help = "Examples:\n  osctl image payload lock\n  osctl image payload lock --check images/payload.toml"
    )]
    Lock(LockArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// The manifest
    #[arg(value_name = "FILE", default_value = MANIFEST)]
    manifest: PathBuf,

    /// Write nothing; exit with 1 if there is something to fill in
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(command: &PayloadCommand, out: &mut Output) -> Result<Exit, Failure> {
    match command {
        PayloadCommand::Lock(args) => lock(args, out),
    }
}

/// What a lock found of one payload.
#[derive(Debug, Serialize)]
struct Locked {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    sha256: String,
    /// The keys that the manifest lacked.
    filled: Vec<&'static str>,
    /// The manifest's SHA-256, if the file has another.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
}

fn lock(args: &LockArgs, out: &mut Output) -> Result<Exit, Failure> {
    let (manifest, text) = read(&args.manifest, out)?;
    let base = base_of(&args.manifest);
    let progress = Progress::new()?;
    let sources =
        manifest.payload.iter().filter_map(|entry| Some(base.join(entry.path.as_ref()?.as_str())));
    let owners = keel_image::owners(&sources.collect::<Vec<_>>());
    let locked = manifest.payload.iter().map(|entry| locked(entry, base, &owners, &progress));
    let locked = locked.collect::<Result<Vec<_>, _>>()?;
    drop(progress);

    let wrong = locked.iter().any(|one| one.expected.is_some());
    let open = locked.iter().any(|one| !one.filled.is_empty());
    if open && !wrong && !args.check {
        write(&args.manifest, &filled(&text, &locked)?)?;
    }
    match out.format() {
        Format::Json => out.json(&locked)?,
        _ => {
            let page = page(&locked, args.check, out);
            out.text(&page)?;
        }
    }
    if wrong {
        return Err(Failure::new(
            "a file is not the one that the manifest names; nothing was written",
        )
        .next("if the new one is right, remove the old sha256 and lock again"));
    }
    Ok(if open && args.check { Exit::Findings } else { Exit::Clean })
}

fn locked(
    entry: &PayloadEntry,
    base: &Path,
    owners: &BTreeMap<PathBuf, DebianPackage>,
    watch: &dyn Watch,
) -> Result<Locked, Failure> {
    let name = entry.name.as_str().to_owned();
    let failed = || Failure::new(format!("cannot lock payload {name}"));
    let expected = entry.sha256.as_ref().map(|sum| sum.as_str().to_owned());
    let (sha256, owner) = match (&entry.path, &entry.url) {
        (Some(path), _) => {
            let path = base.join(path.as_str());
            watch.begin(&format!("reading {}", path.display()), None);
            let sum = keel_image::sum_of(&path).map_err(|error| {
                failed().because(error).next(format!("is {} there?", path.display()))
            })?;
            (sum, owners.get(&path))
        }
        (None, Some(url)) => {
            let fetched = keel_image::fetch(url.as_str(), expected.as_deref(), watch);
            (fetched.map_err(|error| failed().because(error))?.1, None)
        }
        (None, None) => return Err(failed()),
    };
    let written = entry.version.as_ref().map(|version| version.as_str().to_owned());
    let version = written.clone().or_else(|| owner.map(|package| package.version.clone()));
    let mut filled = Vec::new();
    if written.is_none() && version.is_some() {
        filled.push("version");
    }
    if expected.is_none() {
        filled.push("sha256");
    }
    let expected = expected.filter(|expected| *expected != sha256);
    Ok(Locked { name, version, sha256, filled, expected })
}

/// The manifest's text with what was missing; comments and order stay.
fn filled(text: &str, locked: &[Locked]) -> Result<String, Failure> {
    let cannot = || Failure::new("cannot edit the manifest");
    let mut document: DocumentMut = text.parse().map_err(|error| cannot().because(error))?;
    for (i, one) in locked.iter().enumerate().filter(|(_, one)| !one.filled.is_empty()) {
        let entry = document.get_mut("payload").and_then(|list| list.get_mut(i));
        let table: &mut dyn TableLike =
            entry.and_then(|entry| entry.as_table_like_mut()).ok_or_else(cannot)?;
        for key in &one.filled {
            let text = if *key == "sha256" { Some(&one.sha256) } else { one.version.as_ref() };
            if let Some(text) = text {
                table.insert(key, value(text));
            }
        }
    }
    Ok(document.to_string())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    place::write(path, text.as_bytes())
        .map_err(|error| Failure::new(format!("cannot write {}", path.display())).because(error))
}

fn page(locked: &[Locked], check: bool, out: &Output) -> String {
    let palette = out.palette();
    let mut page = String::new();
    for one in locked {
        let state = match (&one.expected, one.filled.as_slice()) {
            (Some(expected), _) => {
                palette.paint(Ink::Bad, &format!("the manifest says {}", &expected[..16]))
            }
            (None, []) => palette.paint(Ink::Good, "as locked"),
            (None, keys) => {
                let done = if check { "missing" } else { "filled in" };
                palette.paint(Ink::Warning, &format!("{done}: {}", keys.join(", ")))
            }
        };
        let version = one.version.as_deref().unwrap_or("-");
        page += &format!("{:<28} {version:<28} {}  {state}\n", one.name, &one.sha256[..16]);
    }
    page
}

/// Reads a manifest; what is wrong with it is shown with its place.
fn read(path: &Path, out: &mut Output) -> Result<(PayloadManifest, String), Failure> {
    let text = place::read_text(path, LARGEST).map_err(|error| {
        Failure::usage(format!("cannot read the payload manifest {}", path.display()))
            .because(error)
    })?;
    match payload::read(&path.to_string_lossy(), &text) {
        Ok(manifest) => Ok((manifest, text)),
        Err(report) => {
            out.findings(&report);
            Err(Failure::new(format!("{} does not validate", path.display())))
        }
    }
}

/// What a manifest's paths start from.
fn base_of(manifest: &Path) -> &Path {
    manifest.parent().unwrap_or(Path::new(""))
}

/// The payloads of an image: those of a manifest and of the command line; without either, what this machine has, and that is
/// said.
pub(super) fn chosen(
    manifest: Option<&Path>,
    named: &[Payload],
    needs: &Needs,
    watch: &dyn Watch,
    out: &mut Output,
) -> Result<Vec<Payload>, Failure> {
    let beside = Path::new(MANIFEST);
    let by_default = named.is_empty() && beside.exists();
    let Some(path) = manifest.or(by_default.then_some(beside)) else {
        if !named.is_empty() {
            return Ok(named.to_vec());
        }
        let (found, _) = found_below(Path::new("/"), needs);
        let list: Vec<_> =
            found.iter().map(|payload| payload.source.display().to_string()).collect();
        let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
        out.notice(&format!(
            "no payload manifest: the programs of this machine are taken ({list})"
        ));
        return Ok(found);
    };
    if manifest.is_none() {
        out.notice(&format!("the payloads are those of {MANIFEST}"));
    }
    let (manifest, _) = read(path, out)?;
    let mut payloads = from_manifest(&manifest, base_of(path), watch)
        .map_err(|error| Failure::new("cannot take the payloads").because(error))?;
    // What is named on the command line comes before what the manifest says.
    payloads.retain(|payload| named.iter().all(|other| other.target() != payload.target()));
    payloads.extend(named.iter().cloned());
    Ok(payloads)
}
