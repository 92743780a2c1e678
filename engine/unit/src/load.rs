//! Reading unit files and machine configs from disk: regular files of bounded size, and nothing that can hang.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::lower::Input;
use crate::source::{FileId, Sources, Span};

/// Largest file that is read, in bytes.
pub const LARGEST_FILE: u64 = 1 << 20;
/// Most unit files in one tree.
const MOST_FILES: usize = 200_000;
/// Deepest folder in a tree of units.
const DEEPEST: usize = 8;

/// Reads a tree of unit files and a machine config. What cannot be read becomes a finding at the file.
pub fn load(units: &Path, config: Option<&Path>) -> Input {
    let mut input = Input::default();
    let mut found = Vec::new();
    walk(units, 0, &mut found, &mut input);
    // The order of a directory differs from machine to machine; names do not.
    found.sort();
    for path in found {
        let shown = path.to_string_lossy();
        match read(&path) {
            Ok(text) => input.unit(&shown, text),
            Err(unreadable) => {
                let finding = unreadable.finding(&mut input.sources, &shown);
                input.findings.push(finding);
            }
        }
    }
    if let Some(path) = config {
        let shown = path.to_string_lossy();
        match read(path) {
            Ok(text) => input.config(&shown, text),
            Err(unreadable) => {
                let finding = unreadable.finding(&mut input.sources, &shown);
                input.findings.push(finding);
            }
        }
    }
    input
}

// Recursion is bounded by DEEPEST.
fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>, input: &mut Input) {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            let finding =
                Unreadable::Io(error).finding(&mut input.sources, &folder.to_string_lossy());
            input.findings.push(finding);
            return;
        }
    };
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        let toml = path.extension().is_some_and(|e| e == "toml");
        let folder = entry.file_type().is_ok_and(|t| t.is_dir());
        if hidden || found.len() >= MOST_FILES {
            continue;
        }
        if toml {
            found.push(path);
        } else if folder && depth < DEEPEST {
            walk(&path, depth + 1, found, input);
        }
    }
}

enum Unreadable {
    Io(io::Error),
    Kind(&'static str),
    Large(u64),
    NotUtf8 { text: String, at: usize },
}

fn read(path: &Path) -> Result<String, Unreadable> {
    // Asked before opening: to open a FIFO would wait for a writer that never comes.
    let about = fs::metadata(path).map_err(Unreadable::Io)?;
    if about.is_dir() {
        return Err(Unreadable::Kind("a directory"));
    }
    if !about.is_file() {
        return Err(Unreadable::Kind("a FIFO, socket or device"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Unreadable::Io)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(Unreadable::Io)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Unreadable::Large(about.len()));
    }
    String::from_utf8(bytes).map_err(|error| Unreadable::NotUtf8 {
        at: error.utf8_error().valid_up_to(),
        text: String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

impl Unreadable {
    fn finding(self, sources: &mut Sources, name: &str) -> Diagnostic {
        let whole = |sources: &mut Sources| -> FileId { sources.add(name, "") };
        match self {
            Unreadable::Io(error) => {
                let file = whole(sources);
                Diagnostic::new(
                    "unreadable",
                    Span::whole(file),
                    format!("cannot read the file: {error}"),
                )
            }
            Unreadable::Kind(kind) => {
                let file = whole(sources);
                Diagnostic::new(
                    "not-a-file",
                    Span::whole(file),
                    format!("expected a regular file, found {kind}"),
                )
            }
            Unreadable::Large(size) => {
                let file = whole(sources);
                let message = format!(
                    "the file has {size} bytes, more than the {LARGEST_FILE} (1 MiB) that are read"
                );
                Diagnostic::new("too-large", Span::whole(file), message)
            }
            Unreadable::NotUtf8 { text, at } => {
                let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
                let file = sources.add(name, text);
                let span = Span { file, start: at as u32, end: end as u32 };
                Diagnostic::new("not-utf8", span, "the file is not UTF-8")
                    .label("the first byte that is not")
                    .help("save it as UTF-8")
            }
        }
    }
}
