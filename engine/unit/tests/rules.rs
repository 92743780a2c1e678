//! The list of rules has every code that a finding of any crate names, and none besides.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keel_unit::rules::{RULES, rule};

/// Every Rust source below `engine` but the list itself.
fn sources() -> Vec<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let paths: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "rules.rs" {
                found.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// The codes that `Diagnostic::new` is called with.
fn used(source: &str) -> impl Iterator<Item = &str> {
    source.split("Diagnostic::new(").skip(1).filter_map(|rest| {
        let (code, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(code)
    })
}

#[test]
fn every_code_has_its_rule_and_every_rule_its_code() {
    let sources = sources();
    let used: BTreeSet<&str> = sources.iter().flat_map(|source| used(source)).collect();
    let missing: Vec<_> = used.iter().filter(|code| rule(code).is_none()).collect();
    assert!(missing.is_empty(), "engine/unit/src/rules.rs says nothing of {missing:?}");
    let idle: Vec<_> = RULES.iter().map(|rule| rule.code).filter(|c| !used.contains(c)).collect();
    assert!(idle.is_empty(), "no finding names {idle:?}");
}

#[test]
fn rules_are_sorted_and_say_something() {
    assert!(RULES.is_sorted_by(|a, b| a.code < b.code));
    for rule in RULES {
        assert!(!rule.title.ends_with('.') && rule.text.ends_with('.'), "{rule:?}");
    }
}
