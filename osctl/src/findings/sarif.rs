//! Findings as SARIF 2.1.0, which code scanning of the forges and editors read.
//!
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/sarif-v2.1.0-errata01-os-complete.html>

use std::path::Path;

use keel_unit::Report;
use keel_unit::rules::RULES;
use keel_unit::source::Span;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Region, told};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// What a path keeps in a URI: RFC 3986's unreserved characters, and the slash.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A log of one run: no report, no findings.
pub(crate) fn log(report: Option<&Report>, base: Option<&Path>) -> Value {
    let rules: Vec<_> = RULES
        .iter()
        .map(|rule| {
            json!({
                "id": rule.code,
                "shortDescription": { "text": rule.title },
                "fullDescription": { "text": rule.text },
                "help": { "text": rule.text, "markdown": rule.text },
                "defaultConfiguration": { "level": "error" },
            })
        })
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "osctl",
                "fullName": "osctl validate",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": report.map_or_else(Vec::new, |report| results(report, base)),
        }],
    })
}

fn results(report: &Report, base: Option<&Path>) -> Vec<Value> {
    let result = |diagnostic: &keel_unit::Diagnostic| {
        let mut result = json!({
            "ruleId": diagnostic.code,
            "level": "error",
            "message": { "text": told(report, diagnostic) },
            "locations": [{ "physicalLocation": place(report, diagnostic.label.span, base) }],
        });
        if let Ok(index) = RULES.binary_search_by(|rule| rule.code.cmp(diagnostic.code)) {
            result["ruleIndex"] = json!(index);
        }
        if !diagnostic.others.is_empty() {
            let others = diagnostic.others.iter().enumerate().map(|(id, other)| {
                json!({
                    "id": id,
                    "message": { "text": other.text },
                    "physicalLocation": place(report, other.span, base),
                })
            });
            result["relatedLocations"] = others.collect();
        }
        result
    };
    report.diagnostics.iter().map(result).collect()
}

fn place(report: &Report, span: Span, base: Option<&Path>) -> Value {
    let Region { file, line, column, end_line, end_column } = Region::of(report, span, base);
    json!({
        "artifactLocation": { "uri": uri(&file) },
        "region": {
            "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column,
        },
    })
}

/// A relative path stays relative: whoever reads the log knows where the repository lies.
fn uri(file: &str) -> String {
    let path = utf8_percent_encode(file, PATH).to_string();
    match file.starts_with('/') {
        true => format!("file://{path}"),
        false => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, expect: &str) {
        assert_eq!(uri(file), expect);
    }

    #[test]
    fn paths_become_uris() {
        check("units/storage/data.toml", "units/storage/data.toml");
        check("/etc/my units/a:b.toml", "file:///etc/my%20units/a%3Ab.toml");
        check("größe#1.toml", "gr%C3%B6%C3%9Fe%231.toml");
        check("../a", "../a");
    }
}
