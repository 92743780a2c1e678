//! Where a text came from: files, spans in them, and the line and column a person counts.

use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

/// Index of a file in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u32);

impl FileId {
    /// The file of what nobody wrote: the defaults of the keys.
    pub const DEFAULT: FileId = FileId(u32::MAX);
}

/// A run of bytes in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span of the first byte of `file`, for findings about a file as a whole.
    pub fn whole(file: FileId) -> Self {
        Span { file, start: 0, end: 0 }
    }

    /// Whether nobody wrote the value that stands here: it is a default.
    pub fn is_default(&self) -> bool {
        self.file == FileId::DEFAULT
    }
}

/// Every file that was read, by the name that is shown for it.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Arc<File>>,
}

#[derive(Debug)]
struct File {
    name: Arc<str>,
    text: Arc<str>,
    /// The text as it may be drawn: of the same length, without secrets and without what a terminal would obey.
    shown: Arc<str>,
    ascii: bool,
    /// Byte offset of the start of each line, so that a span becomes a line by binary search; known once somebody asks.
    lines: OnceLock<Vec<u32>>,
}

/// `file:line`, as it is shown to a person and stands in an edge's provenance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Name of the file, as given to [`Sources::add`].
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Sources {
    /// Adds a file. `name` is what diagnostics show; what a terminal would obey in it, they do not.
    pub fn add(&mut self, name: &str, text: impl Into<Arc<str>>) -> FileId {
        self.files.push(Arc::new(File::new(name, text.into())));
        FileId(self.files.len() as u32 - 1)
    }

    /// The name of a file.
    pub fn name(&self, file: FileId) -> Arc<str> {
        self.file(file).name.clone()
    }

    /// The text of a file.
    pub fn text(&self, file: FileId) -> Arc<str> {
        self.file(file).text.clone()
    }

    /// The text of a file as it may be drawn.
    pub(crate) fn shown(&self, file: FileId) -> &str {
        &self.file(file).shown
    }

    /// Hides a span in what is drawn.
    pub(crate) fn hide(&mut self, span: Span) {
        if span.is_default() {
            return;
        }
        let file = self.file(span.file);
        let range = span.start as usize..span.end as usize;
        let Some(secret) = file.shown.get(range.clone()) else { return };
        // Each byte by one, so that every other span stays where it is; lines stay lines.
        let hidden: String = secret.bytes().map(|b| if b == b'\n' { '\n' } else { '*' }).collect();
        let mut shown = file.shown.to_string();
        shown.replace_range(range, &hidden);
        let file = File {
            name: file.name.clone(),
            text: file.text.clone(),
            shown: shown.into(),
            ascii: file.ascii,
            lines: file.lines.clone(),
        };
        self.files[span.file.0 as usize] = Arc::new(file);
    }

    /// All files in the order in which they were added.
    pub fn files(&self) -> impl Iterator<Item = FileId> + use<> {
        (0..self.files.len() as u32).map(FileId)
    }

    /// Line and column of the start of a span.
    pub fn locate(&self, span: Span) -> Location {
        let file = self.file(span.file);
        let start = span.start.min(file.text.len() as u32);
        let lines = file.lines();
        let line = lines.partition_point(|l| *l <= start).max(1);
        let from = lines[line - 1] as usize;
        let column = match file.ascii {
            true => start - from as u32,
            false => file.text.get(from..start as usize).map_or(0, |s| s.chars().count()) as u32,
        } + 1;
        Location { file: file.name.clone(), line: line as u32, column }
    }

    fn file(&self, file: FileId) -> &File {
        static DEFAULT: LazyLock<File> = LazyLock::new(|| File::new("(default)", "".into()));
        match file {
            FileId::DEFAULT => &DEFAULT,
            FileId(at) => &self.files[at as usize],
        }
    }
}

impl File {
    fn new(name: &str, text: Arc<str>) -> Self {
        let (shown, ascii) = (harmless(&text), text.is_ascii());
        let name = match name.contains(['\n', '\t']) {
            true => name.replace(['\n', '\t'], "?").into(),
            false => name.into(),
        };
        File { name: harmless(&name), text, shown, ascii, lines: OnceLock::new() }
    }

    fn lines(&self) -> &[u32] {
        self.lines.get_or_init(|| {
            let bytes = self.text.bytes().enumerate();
            let starts = bytes.filter(|(_, b)| *b == b'\n').map(|(i, _)| i as u32 + 1);
            std::iter::once(0).chain(starts).collect()
        })
    }
}

/// Whether a terminal does something else than to show the character: a control character, or one that turns the direction of writing.
pub(crate) fn obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with control characters, and those that turn the direction of writing, replaced by others of the same length.
fn harmless(text: &Arc<str>) -> Arc<str> {
    let replaced = |c: char| obeyed(c) && c != '\n' && c != '\t';
    // What most files hold is told apart a byte at a time.
    let plain = |b: u8| matches!(b, b' '..=b'~' | b'\n' | b'\t');
    if text.bytes().all(plain) || !text.contains(replaced) {
        return text.clone();
    }
    let stand_in = |c: char| match c.len_utf8() {
        1 => '?',
        2 => '\u{bf}',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(|c| if replaced(c) { stand_in(c) } else { c }).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, at: u32, expect: (u32, u32)) {
        let mut sources = Sources::default();
        let file = sources.add("f", text);
        let found = sources.locate(Span { file, start: at, end: at });
        assert_eq!((found.line, found.column), expect, "offset {at} of {text:?}");
    }

    #[test]
    fn offsets_become_lines_and_columns() {
        check("", 0, (1, 1));
        check("ab\ncd", 0, (1, 1));
        check("ab\ncd", 2, (1, 3));
        check("ab\ncd", 3, (2, 1));
        check("ä=1", 3, (1, 3));
        check("ab\n", 99, (2, 1));
    }
}
