//! Findings for other programs: as JSON, as SARIF, as GitHub's annotations. How they look to people is keel-unit's.

mod github;
mod sarif;

pub(crate) use github::annotations;
pub(crate) use sarif::log as sarif;

use std::path::Path;

use keel_unit::source::Span;
use keel_unit::{Diagnostic, Report};
use serde::Serialize;

/// Where something stands, in lines and characters from 1.
#[derive(Debug)]
struct Region {
    file: String,
    line: u32,
    column: u32,
    end_line: u32,
    /// One past the last character.
    end_column: u32,
}

impl Region {
    /// A place as CI systems want it: files by their path from `base`, the folder in which osctl was started.
    fn of(report: &Report, span: Span, base: Option<&Path>) -> Self {
        let start = report.sources.locate(span);
        let end = report.sources.locate(Span { start: span.end.max(span.start), ..span });
        Self {
            file: from_base(&start.file, base),
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
        }
    }
}

/// The path from `base` with slashes, where the file lies below it.
fn from_base(file: &str, base: Option<&Path>) -> String {
    let path = Path::new(file);
    let below = base.and_then(|base| path.strip_prefix(base).ok()).unwrap_or(path);
    let path = below.strip_prefix(".").unwrap_or(below).to_string_lossy();
    if cfg!(windows) { path.replace('\\', "/") } else { path.into_owned() }
}

/// What is wrong, and below it all that the finding says besides: for readers that show no underlined text.
fn told(report: &Report, diagnostic: &Diagnostic) -> String {
    let mut lines = vec![diagnostic.message.clone()];
    if !diagnostic.label.text.is_empty() {
        lines.push(format!("here: {}", diagnostic.label.text));
    }
    for other in &diagnostic.others {
        lines.push(format!("{}: {}", report.sources.locate(other.span), other.text));
    }
    lines.extend(diagnostic.help.as_ref().map(|help| format!("help: {help}")));
    lines.join("\n")
}

/// A finding in `--output json`; its keys are an interface.
#[derive(Debug, Serialize)]
pub(crate) struct FindingView<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(flatten)]
    place: PlaceView,
    label: &'a str,
    help: Option<&'a str>,
    others: Vec<OtherView<'a>>,
}

#[derive(Debug, Serialize)]
struct OtherView<'a> {
    #[serde(flatten)]
    place: PlaceView,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct PlaceView {
    file: String,
    line: u32,
    column: u32,
}

/// All findings of a report for programs.
pub(crate) fn views(report: &Report) -> Vec<FindingView<'_>> {
    let place = |span| {
        let at = report.sources.locate(span);
        PlaceView { file: at.file.to_string(), line: at.line, column: at.column }
    };
    let mut views = Vec::with_capacity(report.diagnostics.len());
    for diagnostic in &report.diagnostics {
        let others = diagnostic.others.iter();
        views.push(FindingView {
            code: diagnostic.code,
            message: &diagnostic.message,
            place: place(diagnostic.label.span),
            label: &diagnostic.label.text,
            help: diagnostic.help.as_deref(),
            others: others
                .map(|other| OtherView { place: place(other.span), text: &other.text })
                .collect(),
        });
    }
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, expect: &str) {
        assert_eq!(from_base(file, Some(Path::new("/work/repo"))), expect);
    }

    #[test]
    fn files_below_the_folder_are_named_from_it() {
        check("units/boot.toml", "units/boot.toml");
        check("./units/boot.toml", "units/boot.toml");
        check("/work/repo/units/boot.toml", "units/boot.toml");
        check("/work/repository/boot.toml", "/work/repository/boot.toml");
        check("../other/boot.toml", "../other/boot.toml");
        assert_eq!(from_base("/a/b", None), "/a/b");
    }
}
