//! Findings: what is wrong, where, and what to write instead. All of them are reported at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::source::{Location, Sources, Span};

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable name of the rule, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong, in lower case and without a full stop.
    pub message: String,
    /// The text that is wrong and what was expected there.
    pub label: Label,
    /// Other places that have to do with it.
    pub others: Vec<Label>,
    /// What to write instead.
    pub help: Option<String>,
}

/// A place with a remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// The remark; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// A finding at `span`.
    pub fn new(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        let label = Label { span, text: String::new() };
        Diagnostic { code, message: message.into(), label, others: Vec::new(), help: None }
    }

    /// Sets the remark under the marked text.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.label.text = text.into();
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.others.push(Label { span, text: text.into() });
        self
    }

    /// Sets what to write instead.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Sets the help to "did you mean" when one of `known` is near to `word`.
    #[must_use]
    pub fn did_you_mean<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(word, known) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// The word of `known` that a person most likely meant by `word`.
///
/// Jaro-Winkler suits short words with a slip or two; below 0.8 a guess confuses more than it helps.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Words as long as these are no slip of a name that we know, and the measure is quadratic.
    if word.len() > 200 {
        return None;
    }
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(word, k), k))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))
        .map(|(_, k)| k)
}

/// Looks for near words among many, for many.
///
/// To compare each of thousands of slips with each of thousands of names takes minutes, so an answer is kept, and after enough
/// comparisons there are no more: a report with that many findings is not read to its end.
pub struct Nearest<'a> {
    known: Vec<&'a str>,
    found: HashMap<String, Option<&'a str>>,
    /// Comparisons that are left.
    left: usize,
}

impl<'a> Nearest<'a> {
    /// Most comparisons.
    const MOST: usize = 500_000;

    /// Looks among these.
    pub fn new(known: impl IntoIterator<Item = &'a str>) -> Self {
        Nearest { known: known.into_iter().collect(), found: HashMap::new(), left: Self::MOST }
    }

    /// The word that a person most likely meant by `word`.
    pub fn to(&mut self, word: &str) -> Option<&'a str> {
        if let Some(found) = self.found.get(word) {
            return *found;
        }
        self.left = self.left.checked_sub(self.known.len())?;
        let found = nearest(word, self.known.iter().copied());
        self.found.insert(word.to_owned(), found);
        found
    }
}

/// All findings of a run together with the files that they point into.
#[derive(Clone)]
pub struct Report {
    /// The files.
    pub sources: Arc<Sources>,
    /// The findings, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Sorts findings by place and drops repetitions (a template's fault shows once, not once per instance).
    pub fn new(sources: Arc<Sources>, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by(|a, b| {
            (a.label.span, a.code, &a.message).cmp(&(b.label.span, b.code, &b.message))
        });
        diagnostics.dedup();
        Report { sources, diagnostics }
    }

    /// `file:line` of a finding.
    pub fn location(&self, diagnostic: &Diagnostic) -> Location {
        self.sources.locate(diagnostic.label.span)
    }

    /// The findings as miette reads them.
    pub fn findings(&self) -> impl Iterator<Item = Finding<'_>> {
        self.diagnostics.iter().map(|diagnostic| Finding { report: self, diagnostic })
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One line per finding; the underlined form is miette's, through [`Report::findings`].
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for d in &self.diagnostics {
            let at = self.location(d);
            write!(f, "{}:{}:{}: {}", at.file, at.line, at.column, d.message)?;
            if let Some(help) = &d.help {
                write!(f, " ({help})")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// How findings are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// With colours, for a terminal.
    Colour,
    /// Without colours.
    Plain,
    /// Without colours, and of ASCII alone, for a serial console.
    Ascii,
}

/// Most findings that are drawn; a file of the wrong kind has thousands, and they say the same.
const MOST_DRAWN: usize = 100;

impl Report {
    /// The findings with the text underlined, and a line that counts them.
    pub fn draw(&self, drawing: Drawing) -> String {
        let theme = match drawing {
            Drawing::Colour => miette::GraphicalTheme::unicode(),
            Drawing::Plain => miette::GraphicalTheme::unicode_nocolor(),
            Drawing::Ascii => miette::GraphicalTheme::none(),
        };
        let renderer =
            miette::GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
        let mut out = String::new();
        for finding in self.findings().take(MOST_DRAWN) {
            let mut drawn = String::new();
            // Where the line is too long to be drawn, place and message still can be said.
            if !finding.drawable() || renderer.render_report(&mut drawn, &finding).is_err() {
                let at = self.location(finding.diagnostic);
                drawn = format!("{}:{}:{}: {}\n", at.file, at.line, at.column, finding);
                let diagnostic = finding.diagnostic;
                let label = (!diagnostic.label.text.is_empty()).then_some(&diagnostic.label.text);
                label.into_iter().chain(&diagnostic.help).for_each(|line| {
                    drawn.push_str(&format!("  {line}\n"));
                });
            }
            out.push_str(&drawn);
            out.push('\n');
        }
        let (count, files) = (self.diagnostics.len(), self.files());
        let s = |n: usize| if n == 1 { "" } else { "s" };
        out.push_str(&format!("{count} finding{} in {files} file{}", s(count), s(files)));
        if count > MOST_DRAWN {
            out.push_str(&format!(", of which the first {MOST_DRAWN} are shown"));
        }
        out.push('\n');
        out
    }

    fn files(&self) -> usize {
        let files: std::collections::BTreeSet<_> =
            self.diagnostics.iter().map(|d| d.label.span.file).collect();
        files.len()
    }
}

/// A [`Diagnostic`] with its files at hand, for miette's renderers.
#[derive(Debug)]
pub struct Finding<'a> {
    report: &'a Report,
    diagnostic: &'a Diagnostic,
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Finding<'_> {}

impl miette::Diagnostic for Finding<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        // miette draws one file per report; places in other files are told in words.
        let file = self.diagnostic.label.span.file;
        let mut lines: Vec<String> = self.diagnostic.help.iter().cloned().collect();
        for other in self.diagnostic.others.iter().filter(|o| o.span.file != file) {
            lines.push(format!("{}: {}", self.report.sources.locate(other.span), other.text));
        }
        (!lines.is_empty()).then(|| Box::new(lines.join("\n")) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(self)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let file = self.diagnostic.label.span.file;
        // Behind the last character there is nothing that could be underlined.
        let text = self.report.sources.shown(file);
        let last = text.floor_char_boundary(text.len().saturating_sub(1));
        let labels = std::iter::once((&self.diagnostic.label, true)).chain(
            self.diagnostic.others.iter().filter(move |o| o.span.file == file).map(|o| (o, false)),
        );
        Some(Box::new(labels.map(move |(label, primary)| {
            let text = (!label.text.is_empty()).then(|| label.text.clone());
            let start = (label.span.start as usize).min(last);
            let end = (label.span.end as usize).max(start);
            if primary {
                miette::LabeledSpan::new_primary_with_span(text, start..end)
            } else {
                miette::LabeledSpan::new_with_span(text, start..end)
            }
        })))
    }
}

/// Lines longer than this are not drawn: a megabyte on one line would bury the finding.
const LONGEST_DRAWN: usize = 500;

impl Finding<'_> {
    /// Whether the lines that would be drawn are short enough for it.
    fn drawable(&self) -> bool {
        let labels = std::iter::once(&self.diagnostic.label).chain(&self.diagnostic.others);
        labels.into_iter().all(|label| {
            let text = self.report.sources.shown(label.span.file);
            let near = |from: usize, to: usize| text.get(from..to).unwrap_or("");
            let start = text.floor_char_boundary(label.span.start as usize);
            // A label's own line and its neighbours are what miette shows.
            let before = near(0, start).rsplit('\n').take(2);
            let after = near(start, text.len()).split('\n').take(2);
            before.chain(after).all(|line| line.len() <= LONGEST_DRAWN)
        })
    }
}

impl miette::SourceCode for Finding<'_> {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let sources = &self.report.sources;
        let file = self.diagnostic.label.span.file;
        let text: &'a str = sources.shown(file);
        let contents = text.read_span(span, before, after)?;
        Ok(Box::new(miette::MietteSpanContents::new_named(
            sources.name(file).to_string(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, known: &[&str], expect: Option<&str>) {
        assert_eq!(nearest(word, known.iter().copied()), expect, "{word}");
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        check("requries", &["requires", "wants"], Some("requires"));
        check("timout", &["timeout", "target"], Some("timeout"));
        check("x", &["requires", "wants"], None);
        check("binds_to", &["binds-to", "before"], Some("binds-to"));
        check(&"r".repeat(100_000), &["requires"], None);
    }
}
