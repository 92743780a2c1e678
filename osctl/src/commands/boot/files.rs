//! Traces on disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use keel_plan::Trace;

use crate::error::Failure;
use crate::place;

/// The largest trace that is read: many times the largest that a machine writes.
const LARGEST: u64 = 64 << 20;

/// Reads one trace; `-` is standard input. A console with the lines of `keel.report=json` is read too.
pub(crate) fn read(path: &Path) -> Result<Trace, Failure> {
    let shown = path.display();
    let text = if path == Path::new("-") {
        text_of(io::stdin())
    } else {
        File::open(path).and_then(text_of)
    };
    let text = text.map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let failure = Failure::usage(format!("cannot read the trace {shown}")).because(error);
        if missing {
            failure.next("record one: osctl boot record --endpoint HOST -o boot.json")
        } else {
            failure
        }
    })?;
    let looks_like_json = text.trim_start().starts_with('{');
    let trace =
        if looks_like_json { Trace::parse(&text) } else { Trace::from_console(text.lines()) };
    trace.map_err(|error| {
        Failure::new(format!("cannot read the trace {shown}"))
            .because(error)
            .next("docs/trace.md describes what a trace looks like")
    })
}

/// Reads several.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<Trace>, Failure> {
    paths.iter().map(|path| read(path)).collect()
}

fn text_of(from: impl io::Read) -> io::Result<String> {
    let mut text = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    // A console may hold anything.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    place::write(path, text.as_bytes())
        .map_err(|error| Failure::new(format!("cannot write {}", path.display())).because(error))
}
