//! Whether the paths that the graph reads and writes can be there.

use keel_unit::kinds::{File, Mount};
use keel_unit::source::Span;
use keel_unit::value::{AbsPath, Source};
use keel_unit::{Diagnostic, Kind, Unit};

use super::archive::Kind as Entry;
use super::{Context, Findings, Question, comes_later, span_of};

/// Whether a unit's condition can hold on this image. One that cannot is told of, for it may be meant.
pub(super) fn may_start(question: &Question<'_>, unit: &Unit, found: &mut Findings) -> bool {
    let condition = &unit.condition;
    if !condition.when {
        return false;
    }
    let files = &question.image.files;
    let known = |path: &AbsPath| {
        (!comes_later(question.units, path)).then(|| files.resolve(path.as_str()).is_some())
    };
    let missing = condition.path_exists.iter().find(|path| known(path) == Some(false));
    let present = condition.path_missing.iter().find(|path| known(path) == Some(true));
    let why = match (missing, present) {
        (Some(path), _) => ("path-exists", format!("the image has no {path}")),
        (_, Some(path)) => ("path-missing", format!("the image has {path}")),
        (None, None) => {
            kernel_arguments(question, unit, found);
            return true;
        }
    };
    let (key, why) = why;
    let message = format!("{} will be skipped: {why}", unit.name);
    found.note(Diagnostic::new("never-met", unit.span_of(&["condition", key]), message));
    false
}

/// An argument may come from the bootloader too.
fn kernel_arguments(question: &Question<'_>, unit: &Unit, found: &mut Findings) {
    let given = &question.image.manifest.arguments;
    for wanted in &unit.condition.kernel_argument {
        let holds = |word: &String| {
            word == wanted.as_str()
                || word.split_once('=').is_some_and(|(name, _)| name == wanted.as_str())
        };
        if !given.iter().any(holds) {
            let message = format!("the image's kernel arguments have no {wanted}");
            let at = unit.span_of(&["condition", "kernel-argument"]);
            let note = Diagnostic::new("never-met", at, message);
            found.note(
                note.label(format!("{} will be skipped unless the bootloader gives it", unit.name)),
            );
        }
    }
}

pub(super) fn check(context: &Context<'_>, unit: &Unit, found: &mut Findings) {
    match &unit.kind {
        Kind::File(file) => file_unit(context, unit, file, found),
        Kind::Mount(mount) => mount_unit(context, unit, mount, found),
        Kind::Identity(identity) => {
            under_directories(context, &identity.directory, span_of(unit, "directory"), found);
        }
        _ => {}
    }
}

fn file_unit(context: &Context<'_>, unit: &Unit, file: &File, found: &mut Findings) {
    under_directories(context, &file.path, span_of(unit, "path"), found);
    let there = context.image.files.resolve(file.path.as_str()).map(|(_, there)| &there.kind);
    let clash = match there {
        Some(Entry::Directory) if !file.directory => Some("a directory"),
        Some(Entry::Regular { .. }) if file.directory => Some("a file"),
        _ => None,
    };
    if let Some(clash) = clash
        && !lies_below_mount(context, &file.path)
    {
        let message = format!("{} is {clash} in the image", file.path);
        found.push(Diagnostic::new("path-taken", span_of(unit, "path"), message));
    }
    let Some(from) = &file.copy else { return };
    let others = context.units.iter().copied().filter(|other| other.name != unit.name);
    let others: Vec<&Unit> = others.collect();
    if !comes_later(&others, from) && context.image.files.resolve(from.as_str()).is_none() {
        let message = format!("the image has no {from} to copy");
        let finding = Diagnostic::new("not-in-image", span_of(unit, "copy"), message);
        found.push(finding.help(format!("build the image with `--payload {from}=PATH`")));
    }
}

fn mount_unit(context: &Context<'_>, unit: &Unit, mount: &Mount, found: &mut Findings) {
    under_directories(context, &mount.target, span_of(unit, "target"), found);
    let image = &context.image.files;
    if let Some((_, there)) = image.resolve(mount.target.as_str())
        && matches!(there.kind, Entry::Regular { .. })
        && !matches!(&mount.source, Some(Source::Path(_)))
    {
        let message = format!("{} is a file in the image", mount.target);
        found.push(Diagnostic::new("path-taken", span_of(unit, "target"), message));
    }
    // What the image holds there is there no more once the mount is.
    let hidden = image.names_in(mount.target.as_str());
    if let Some(first) = hidden.first()
        && !mount.existing
        && !matches!(mount.target.as_str(), "/" | "/dev")
    {
        let more = match hidden.len() {
            1 => String::new(),
            more => format!(" and {} more", more - 1),
        };
        let message = format!("{} hides what the image has there: {first}{more}", unit.name);
        found.note(Diagnostic::new("hidden", span_of(unit, "target"), message));
    }
    if let Some(Source::Path(path)) = &mount.source
        && !path.as_str().starts_with("/dev/")
        && !context.comes_later(path)
        && image.resolve(path.as_str()).is_none()
    {
        let message = format!("the image has no {path} to mount");
        found.push(Diagnostic::new("not-in-image", span_of(unit, "source"), message));
    }
}

fn lies_below_mount(context: &Context<'_>, path: &AbsPath) -> bool {
    context.units.iter().any(|unit| match &unit.kind {
        Kind::Mount(mount) => {
            !mount.existing && mount.target.as_str() != "/" && path.lies_in(&mount.target)
        }
        _ => false,
    })
}

/// Directories above a path are made when they are missing, unless something else has their place.
fn under_directories(context: &Context<'_>, path: &AbsPath, at: Span, found: &mut Findings) {
    if lies_below_mount(context, path) {
        return;
    }
    for (end, _) in path.as_str().match_indices('/').skip(1) {
        let parent = &path.as_str()[..end];
        match context.image.files.resolve(parent).map(|(_, there)| &there.kind) {
            None => return,
            Some(Entry::Directory) => {}
            Some(_) => {
                let message = format!("{parent} is no directory in the image");
                let finding = Diagnostic::new("path-taken", at, message);
                found.push(finding.label(format!("{path} cannot lie below it")));
                return;
            }
        }
    }
}
