//! Where results and notices go: stdout for what was asked for, stderr for everything else.
//!
//! Colour appears only on a terminal, and never with `NO_COLOR` set (<https://no-color.org>). anstream decides, as it does for clap's
//! own help, so that the two agree on every variable that people set.

use std::io::{self, IsTerminal as _, Write};

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use keel_unit::diagnostic::{Drawing, Report};
use serde::Serialize;

use crate::error::Failure;

/// Text from a file or a node on one line, without an escape sequence that would repaint the reader's screen.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// As [`printable`], of a line that was written: tabs stay, and what turns the direction of text does not.
pub(crate) fn printable_line(text: &str) -> String {
    let harms = |c: char| match c {
        '\t' => false,
        // Bidirectional formatting: Unicode, Annex 9.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Ends of lines for some, and for others not.
        '\u{2028}' | '\u{2029}' => true,
        c => c.is_control(),
    };
    text.chars()
        .map(|c| if harms(c) { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// What can be typed after `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Notation {
    /// Pages and tables for people
    Table,
    /// JSON for programs; its keys are stable
    Json,
    /// The same as JSON, written as YAML
    Yaml,
}

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// People.
    Table,
    /// Programs: JSON, or the same document as YAML.
    Json,
}

/// What a colour means; commands name the meaning, not the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Good,
    Warning,
    Bad,
    Faint,
    Strong,
}

impl Ink {
    /// The SGR parameter (ECMA-48, 8.3.117) that turns it on.
    const fn sgr(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
            Self::Faint => "2",
            Self::Strong => "1",
        }
    }
}

/// Puts colour on text, or leaves it alone. Pages take one of these, so tests can render without a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette {
    colour: bool,
}

impl Palette {
    /// No colour at all.
    pub(crate) const PLAIN: Self = Self { colour: false };

    /// Whether there is any colour.
    pub(crate) fn has_colour(self) -> bool {
        self.colour
    }

    fn of(choice: ColorChoice) -> Self {
        Self { colour: choice != ColorChoice::Never }
    }

    fn drawing(self) -> Drawing {
        if self.colour { Drawing::Colour } else { Drawing::Plain }
    }

    /// `text` in that ink.
    pub(crate) fn paint(self, ink: Ink, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", ink.sgr()) } else { text.to_owned() }
    }
}

const UNWRITABLE: &str = "cannot write the result for programs";

/// A document with its newline at the end.
fn document<T: Serialize>(notation: Notation, value: &T) -> Result<String, Failure> {
    let mut text = match notation {
        Notation::Yaml => serde_saphyr::to_string(value)
            .map_err(|source| Failure::new(UNWRITABLE).because(source))?,
        Notation::Table | Notation::Json => serde_json::to_string_pretty(value)
            .map_err(|source| Failure::new(UNWRITABLE).because(source))?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The two streams of this process.
pub(crate) struct Output {
    notation: Notation,
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    palette: Palette,
    stderr_palette: Palette,
    /// Goes before the next text.
    before: &'static str,
}

impl Output {
    pub(crate) fn to_terminal(notation: Notation) -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        Self {
            notation,
            palette: Palette::of(AutoStream::choice(&stdout)),
            stderr_palette: Palette::of(AutoStream::choice(&stderr)),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            before: "",
        }
    }

    /// What is written next takes the place of what stands there: on a terminal it does, elsewhere it follows as a block of its own.
    pub(crate) fn next_page(&mut self, first: bool) {
        self.before = match self.notation {
            Notation::Table if io::stdout().is_terminal() => "\x1b[H\x1b[2J",
            Notation::Table if !first => "\n",
            Notation::Yaml => "---\n",
            Notation::Table | Notation::Json => "",
        };
    }

    pub(crate) fn format(&self) -> Format {
        match self.notation {
            Notation::Table => Format::Table,
            Notation::Json | Notation::Yaml => Format::Json,
        }
    }

    /// The colours of stdout.
    pub(crate) fn palette(&self) -> Palette {
        self.palette
    }

    /// Writes text as it is; callers end their own lines.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        let before = std::mem::take(&mut self.before);
        let written = self.stdout.write_all(before.as_bytes());
        written
            .and_then(|()| self.stdout.write_all(text.as_bytes()))
            .and_then(|()| self.stdout.flush())
            .map_err(|source| {
                let failure = Failure::new("cannot write to stdout").because(source);
                failure.next("see whether there is room where the output goes")
            })
    }

    /// Writes one document for programs, as JSON or as YAML.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = document(self.notation, value)?;
        self.text(&text)
    }

    /// Writes one document as JSON, whatever `--output` says: in formats that are JSON.
    pub(crate) fn only_json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = document(Notation::Json, value)?;
        self.text(&text)
    }

    /// Writes one document of a stream: one line of JSON, or one document of a YAML stream.
    pub(crate) fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = match self.notation {
            Notation::Yaml => format!("---\n{}", document(Notation::Yaml, value)?),
            Notation::Table | Notation::Json => {
                let line = serde_json::to_string(value)
                    .map_err(|source| Failure::new(UNWRITABLE).because(source))?;
                format!("{line}\n")
            }
        };
        self.text(&text)
    }

    /// Says something on stderr that is not the result.
    pub(crate) fn notice(&mut self, text: &str) {
        let label = self.stderr_palette.paint(Ink::Warning, "note");
        // A notice that cannot be shown must not cost the user the result.
        let _: io::Result<()> = writeln!(self.stderr, "{label}: {text}");
    }

    /// How findings are drawn on stdout.
    pub(crate) fn drawing(&self) -> Drawing {
        self.palette.drawing()
    }

    /// Shows findings on stderr, where they are not the result.
    pub(crate) fn findings(&mut self, report: &Report) {
        let drawn = report.draw(self.stderr_palette.drawing());
        // The exit code says it too, if stderr is gone.
        let _: io::Result<()> = self.stderr.write_all(drawn.as_bytes());
    }

    /// Explains on stderr why the command ends.
    pub(crate) fn failure(&mut self, failure: &Failure) -> io::Result<()> {
        for (label, text) in failure.lines() {
            let ink = if label == "error" { Ink::Bad } else { Ink::Faint };
            let label = self.stderr_palette.paint(ink, label);
            writeln!(self.stderr, "{label}: {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_those_who_want_it() {
        assert_eq!(
            Palette::of(ColorChoice::Always).paint(Ink::Bad, "failed"),
            "\x1b[31mfailed\x1b[0m"
        );
        assert_eq!(Palette::of(ColorChoice::Never).paint(Ink::Bad, "failed"), "failed");
    }

    fn check(value: serde_json::Value, expect: &str) {
        assert_eq!(document(Notation::Yaml, &value).unwrap(), expect);
    }

    /// Many YAML parsers still read `no` as false and `12:30:00` as a number; what is text in JSON has to stay text.
    #[test]
    fn text_stays_text_in_yaml() {
        use serde_json::json;
        check(json!({ "a": null, "b": true, "n": 1 }), "a: null\nb: true\n\"n\": 1\n");
        check(
            json!(["no", "1", "12:30:00", "~", ""]),
            "- \"no\"\n- \"1\"\n- \"12:30:00\"\n- \"~\"\n- \"\"\n",
        );
        check(json!({ "x": "a: b", "y": "# c" }), "x: \"a: b\"\n\"y\": \"# c\"\n");
        check(json!({ "exec": [], "env": {} }), "env: {}\nexec: []\n");
        check(json!("\u{1b}[31m"), "\"\\e[31m\"\n");
    }
}
