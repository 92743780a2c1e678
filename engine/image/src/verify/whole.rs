//! The image as a whole: kernel, init, manifest, and whether it was built from the graph that is asked for.

use keel_unit::Diagnostic;

use super::archive::Kind;
use super::content::Content;
use super::image::{CONFIG, Listing, UNITS};
use super::{Findings, Question};

pub(super) fn check(question: &Question<'_>, listing: &Listing<'_>, found: &mut Findings) {
    blobs(question, listing, found);
    files(question, listing, found);
    kernel(question, listing, found);
    init(question, listing, found);
    graph(question, listing, found);
    arguments(question, listing, found);
}

/// The files beside the manifest.
fn blobs(question: &Question<'_>, listing: &Listing<'_>, found: &mut Findings) {
    let image = question.image;
    let both = [
        (&image.manifest.kernel, &image.kernel_sha256),
        (&image.manifest.initramfs, &image.initramfs_sha256),
    ];
    let firmware = image.manifest.firmware.iter().zip(&image.firmware_sha256);
    let all = both.into_iter().chain(firmware);
    for (blob, sha256) in all.filter(|(blob, sha256)| blob.sha256 != **sha256) {
        let message = format!("{} is not the file that the build wrote", blob.file);
        let finding = Diagnostic::new("image-changed", listing.span_of(&blob.sha256), message);
        found.push(finding.label(format!("it has sha256 {sha256}")).help("build the image again"));
    }
}

/// Every file of the initramfs against the manifest's list.
fn files(question: &Question<'_>, listing: &Listing<'_>, found: &mut Findings) {
    let image = question.image;
    for taken in &image.manifest.files {
        let differs = match image.files.at(&taken.path).map(|file| (&file.kind, file.mode)) {
            None => Some("it is not in the initramfs".to_owned()),
            Some((_, mode)) if u32::from_str_radix(&taken.mode, 8) != Ok(mode) => {
                Some(format!("in the initramfs its mode is {mode:04o}"))
            }
            Some((Kind::Regular { sha256, .. }, _)) => (taken.sha256.as_ref() != Some(sha256))
                .then(|| format!("in the initramfs it has sha256 {sha256}")),
            Some((Kind::Symlink(target), _)) => (taken.link.as_ref() != Some(target))
                .then(|| format!("in the initramfs it is a link to {target}")),
            Some((Kind::Directory, _)) => Some("in the initramfs it is a directory".to_owned()),
            Some((Kind::Special, _)) => None,
        };
        if let Some(differs) = differs {
            let message = format!("the manifest is wrong about {}", taken.path);
            let finding = Diagnostic::new("manifest-wrong", listing.span_of(&taken.path), message);
            found.push(finding.label(differs).help("build the image again"));
        }
    }
    let listed: std::collections::BTreeSet<&str> =
        image.manifest.files.iter().map(|taken| taken.path.as_str()).collect();
    for (path, file) in image.files.iter() {
        if file.kind != Kind::Directory && !listed.contains(path.as_str()) {
            let message = format!("the initramfs holds {path}, of which the manifest says nothing");
            let finding = Diagnostic::new("manifest-wrong", listing.span_of("files"), message);
            found.push(finding.help("build the image again"));
        }
    }
}

fn kernel(question: &Question<'_>, listing: &Listing<'_>, found: &mut Findings) {
    let image = question.image;
    let at = listing.span_of(&image.manifest.kernel.file);
    let (wanted, file) = (&image.manifest.kernel_release, &image.manifest.kernel.file);
    match &image.kernel.release {
        Some(release) if release != wanted => {
            let message =
                format!("{file} is kernel {release}, and the modules are those of {wanted}");
            let finding = Diagnostic::new("other-kernel", at, message);
            found.push(
                finding
                    .label("it would load none of them")
                    .help("give `--kernel` and `--modules` of one package"),
            );
        }
        _ => {}
    }
    match (&image.kernel.machine, image.machine().map(|machine| machine.to_string())) {
        (Some(kernel), Some(init)) if *kernel != init => {
            let message = format!("{file} is a kernel for {kernel}, and init is built for {init}");
            found.push(Diagnostic::new("wrong-machine", at, message));
        }
        (None, _) => {
            let message = format!("{file} does not say what machine it is for");
            let note = Diagnostic::new("unknown-kernel", at, message);
            found.note(note.label("the programs are compared with init alone"));
        }
        _ => {}
    }
}

fn init(question: &Question<'_>, listing: &Listing<'_>, found: &mut Findings) {
    let image = question.image;
    let at = listing.span_of("/init");
    match image.files.resolve("/init").map(|(_, file)| file) {
        None => {
            let message = "there is no /init for the kernel to start";
            found.push(Diagnostic::new("no-init", at, message));
        }
        Some(file) if file.mode & 0o100 == 0 => {
            let message = format!("/init has mode {:04o}", file.mode);
            found.push(Diagnostic::new("not-executable", at, message));
        }
        Some(file) => match &file.kind {
            Kind::Regular { content: Content::Elf(elf), .. } => {
                if elf.interpreter.is_some() || !elf.needed.is_empty() {
                    let message = "/init is a dynamic program, and has to be static";
                    found.push(Diagnostic::new("dynamic-init", at, message));
                }
            }
            _ => {
                let message = "/init is no program that a node can run";
                found.push(Diagnostic::new("no-init", at, message));
            }
        },
    }
    for (path, what) in [(CONFIG, "machine config"), (UNITS, "units")] {
        if image.files.resolve(path).is_none() {
            let message = format!("there is no {path}: init finds no {what}");
            found.push(Diagnostic::new("not-in-image", listing.span_of("files"), message));
        }
    }
}

/// What the loader of a firmware image, or `osctl image run`, tells the kernel: the manifest has it from the config of the build.
fn arguments(question: &Question<'_>, listing: &Listing<'_>, found: &mut Findings) {
    let Some(asked) = &question.arguments else { return };
    let built = &question.image.manifest.arguments;
    if asked.values == *built {
        return;
    }
    let said = |arguments: &[String]| match arguments {
        [] => "none".to_owned(),
        arguments => format!("`{}`", arguments.join(" ")),
    };
    let message = "the image was built with other kernel arguments than the machine config says";
    let (asks, has) = (
        format!("the config says {}", said(&asked.values)),
        format!("the image has {}", said(built)),
    );
    let listed = listing.span_of("arguments");
    let finding = match asked.span.is_default() {
        true => {
            Diagnostic::new("other-arguments", listed, message).label(format!("{has}, and {asks}"))
        }
        false => {
            Diagnostic::new("other-arguments", asked.span, message).label(asks).also(listed, has)
        }
    };
    found.push(finding.help("build the image again with this machine config"));
}

/// How many differences are named.
const MOST_NAMED: usize = 5;

fn graph(question: &Question<'_>, listing: &Listing<'_>, found: &mut Findings) {
    let Some((asked, inside)) = &question.digests else { return };
    let named = question.differences.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>();
    let more = question.differences.len().saturating_sub(MOST_NAMED);
    let mut named = named.join("; ");
    if more > 0 {
        named += &format!("; and {more} more");
    }
    if asked != inside {
        let message = "the image was built from another graph";
        let finding = Diagnostic::new("other-graph", listing.span_of(CONFIG), message);
        let finding = finding.label(format!(
            "what it holds makes {}, and {} is asked for",
            short(inside),
            short(asked)
        ));
        let again = "build the image again from these units and this machine config";
        found.push(finding.help(match named.as_str() {
            "" => again.to_owned(),
            named => format!("{named}\n{again}"),
        }));
    } else if !named.is_empty() {
        let message = "the image was built from other files, which make the same graph";
        let note = Diagnostic::new("other-files", listing.span_of(CONFIG), message);
        found.note(note.help(named));
    }
}

/// Enough of a digest to tell two apart.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}
