//! Where results and notices go: stdout for what was asked for, stderr for everything else.
//!
//! Colour appears only on a terminal, and never with `NO_COLOR` set (<https://no-color.org>).

use std::env;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use keel_unit::diagnostic::{Drawing, Report};
use serde::Serialize;

use crate::error::Failure;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Pages and tables for people
    Table,
    /// JSON for programs; its keys are stable
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
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colour: false };

    fn for_stream(is_terminal: bool) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: is_terminal && !refused }
    }

    fn drawing(self) -> Drawing {
        if self.colour { Drawing::Colour } else { Drawing::Plain }
    }

    /// `text` in that ink.
    pub(crate) fn paint(self, ink: Ink, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", ink.sgr()) } else { text.to_owned() }
    }
}

/// The two streams of this process.
pub(crate) struct Output {
    format: Format,
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    palette: Palette,
    stderr_palette: Palette,
}

impl Output {
    pub(crate) fn to_terminal(format: Format) -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        Self {
            format,
            palette: Palette::for_stream(stdout.is_terminal()),
            stderr_palette: Palette::for_stream(stderr.is_terminal()),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// The colours of stdout.
    pub(crate) fn palette(&self) -> Palette {
        self.palette
    }

    /// Writes text as it is; callers end their own lines.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.stdout
            .write_all(text.as_bytes())
            .and_then(|()| self.stdout.flush())
            .map_err(|source| Failure::new("cannot write to stdout").because(source))
    }

    /// Writes one JSON document and a newline.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|source| Failure::new("cannot write the result as JSON").because(source))?;
        self.text(&format!("{text}\n"))
    }

    /// Writes one JSON document on one line: streams are read line by line.
    pub(crate) fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|source| Failure::new("cannot write the result as JSON").because(source))?;
        self.text(&format!("{text}\n"))
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
    fn colour_is_for_terminals() {
        assert_eq!(Palette { colour: true }.paint(Ink::Bad, "failed"), "\x1b[31mfailed\x1b[0m");
        assert_eq!(Palette::PLAIN.paint(Ink::Bad, "failed"), "failed");
        assert!(!Palette::for_stream(false).colour);
    }
}
