//! Findings as workflow commands of GitHub Actions, which its runner shows beside the changed lines of a pull request.
//!
//! <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>. Values are escaped as the runner takes them
//! apart: it knows `%25`, `%0D` and `%0A` in a message, and `%3A` and `%2C` besides in a property.

use std::path::Path;

use keel_unit::Report;

use super::{Region, told};

/// One `::error …` line a finding.
pub(crate) fn annotations(report: &Report, base: Option<&Path>) -> String {
    let mut lines = String::new();
    for diagnostic in &report.diagnostics {
        let Region { file, line, column, end_line, end_column } =
            Region::of(report, diagnostic.label.span, base);
        // Columns are taken only where the text is on one line, and an empty range is none.
        let end = match end_line == line {
            true => format!("col={column},endColumn={}", end_column.max(column + 1)),
            false => format!("endLine={end_line}"),
        };
        lines += &format!(
            "::error file={},line={line},{end},title={}::{}\n",
            property(&file),
            property(diagnostic.code),
            message(&told(report, diagnostic)),
        );
    }
    lines
}

fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, in_message: &str, in_property: &str) {
        assert_eq!(message(text), in_message);
        assert_eq!(property(text), in_property);
    }

    #[test]
    fn what_the_runner_would_obey_is_escaped() {
        check("plain", "plain", "plain");
        check("a: b, c", "a: b, c", "a%3A b%2C c");
        check("100%\r\n::error::", "100%25%0D%0A::error::", "100%25%0D%0A%3A%3Aerror%3A%3A");
        check("%0A", "%250A", "%250A");
    }
}
