//! Reading unit files and machine configs from disk: regular files of bounded size, and nothing that can hang.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::lower::Input;
use crate::side_by_side;
use crate::source::{FileId, Sources, Span};

/// Largest file that is read, in bytes.
pub const LARGEST_FILE: u64 = 1 << 20;
/// Most unit files in one tree.
const MOST_FILES: usize = 200_000;
/// Deepest folder in a tree of units.
const DEEPEST: usize = 8;
/// Most folders in one tree.
const MOST_FOLDERS: usize = 10_000;

/// Where the files of a machine are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files<'a> {
    /// The folder of unit files.
    pub units: Option<&'a Path>,
    /// Machine configs; each patches those before it.
    pub configs: &'a [PathBuf],
    /// The file of secrets.
    pub secrets: Option<&'a Path>,
}

/// Reads a tree of unit files and a machine config. What cannot be read becomes a finding at the file.
pub fn load(units: &Path, config: Option<&Path>) -> Input {
    let configs: Vec<_> = config.into_iter().map(Path::to_owned).collect();
    load_all(Files { units: Some(units), configs: &configs, secrets: None })
}

/// Reads all files of a machine. What cannot be read becomes a finding at the file.
pub fn load_all(files: Files<'_>) -> Input {
    let mut input = Input::default();
    let mut walk = Walk { found: Vec::new(), above: Vec::new(), folders: 0, input: &mut input };
    if let Some(units) = files.units {
        walk.folder(units);
    }
    let found = walk.found;
    for (path, text) in found.iter().zip(side_by_side::map(&found, |path| read(path))) {
        let shown = path.to_string_lossy();
        match text {
            Ok(text) => input.unit(&shown, text),
            Err(unreadable) => {
                let finding = unreadable.finding(&mut input.sources, &shown);
                input.unreadable_unit(&shown, finding);
            }
        }
    }
    for path in files.configs {
        if let Some(text) = input.readable(path) {
            input.config(&path.to_string_lossy(), text);
        }
    }
    if let Some(path) = files.secrets
        && let Some(text) = input.readable(path)
    {
        input.secrets(&path.to_string_lossy(), text);
    }
    input
}

/// The text of a file of the machine config, whatever it says; none if it cannot be read.
pub fn text(path: &Path) -> Option<String> {
    read(path).ok()
}

impl Input {
    /// The text of a file of the machine config.
    fn readable(&mut self, path: &Path) -> Option<String> {
        match read(path) {
            Ok(text) => Some(text),
            Err(unreadable) => {
                let finding = unreadable.finding(&mut self.sources, &path.to_string_lossy());
                self.findings.push(finding);
                self.config_unread = true;
                None
            }
        }
    }
}

/// The unit files below a folder, in the order of their names.
struct Walk<'a> {
    found: Vec<PathBuf>,
    /// The folders that the walk is in, by their true paths.
    above: Vec<PathBuf>,
    folders: usize,
    input: &'a mut Input,
}

impl Walk<'_> {
    // Recursion is bounded by DEEPEST.
    fn folder(&mut self, folder: &Path) {
        match self.paths(folder) {
            Ok(paths) => {
                for (name, path) in paths {
                    self.path(folder, Path::new(&name), path);
                }
                self.above.pop();
            }
            Err(unreadable) => self.input.unreadable_folder(folder, unreadable),
        }
    }

    /// Enters a folder and lists it: names and paths, in the order of the names.
    fn paths(&mut self, folder: &Path) -> Result<Vec<(OsString, PathBuf)>, Unreadable> {
        let entries = fs::read_dir(folder).map_err(Unreadable::Io)?;
        let paths = entries.map(|entry| entry.map(|entry| (entry.file_name(), entry.path())));
        let paths: io::Result<Vec<_>> = paths.collect();
        let mut paths = paths.map_err(Unreadable::Io)?;
        let place = folder.canonicalize().map_err(Unreadable::Io)?;
        if self.above.contains(&place) {
            return Err(Unreadable::Circle);
        }
        self.folders += 1;
        if self.above.len() > DEEPEST || self.folders > MOST_FOLDERS {
            return Err(Unreadable::Folders);
        }
        self.above.push(place);
        // The order of a directory differs from machine to machine; names do not.
        paths.sort_unstable();
        Ok(paths)
    }

    fn path(&mut self, folder: &Path, name: &Path, path: PathBuf) {
        if name.as_os_str().as_encoded_bytes().starts_with(b".") {
            return;
        }
        if name.extension().is_some_and(|e| e == "toml") {
            match self.found.len() < MOST_FILES {
                true => self.found.push(path),
                false => self.input.unreadable_folder(folder, Unreadable::Files),
            }
        } else if path.is_dir() {
            self.folder(&path);
        }
    }
}

impl Input {
    fn unreadable_folder(&mut self, folder: &Path, unreadable: Unreadable) {
        let why = match &unreadable {
            Unreadable::Io(error) => Some(format!("cannot read the folder: {error}")),
            _ => None,
        };
        let mut finding = unreadable.finding(&mut self.sources, &folder.to_string_lossy());
        finding.message = why.unwrap_or(finding.message);
        self.findings.push(finding);
        self.unread.folder = true;
    }
}

enum Unreadable {
    Io(io::Error),
    Kind(&'static str),
    Circle,
    Folders,
    Files,
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
    // Room for all of it and for one byte more: one read for the text and one that finds its end.
    let mut bytes = Vec::with_capacity(about.len().min(LARGEST_FILE) as usize + 1);
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
            Unreadable::Circle => {
                let file = whole(sources);
                let message = "the folder is a link to one that it lies in";
                Diagnostic::new("unreadable", Span::whole(file), message)
            }
            Unreadable::Folders => {
                let file = whole(sources);
                let message = format!(
                    "more than {DEEPEST} folders deep, or more than {MOST_FOLDERS} of them"
                );
                Diagnostic::new("too-many", Span::whole(file), message)
            }
            Unreadable::Files => {
                let file = whole(sources);
                let message = format!("more than {MOST_FILES} unit files");
                Diagnostic::new("too-many", Span::whole(file), message)
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
