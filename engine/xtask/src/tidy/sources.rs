//! What the sources say: invariants 1, 3, 5 and 6 as far as imports and words show them, and the habits of all files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;

use crate::tidy::tokens::paths;
use crate::tidy::{Finding, TidyError};

/// What some crates must not say outside their tests.
const NEVER_SAID: &[Rule] = &[
    Rule {
        crates: Crates::Only(&["keel-plan"]),
        paths: &["std::fs", "tokio"],
        words: &[],
        why: "the plan touches no machine",
    },
    Rule {
        crates: Crates::Only(&["keel-plan"]),
        paths: &[],
        words: &["Instant", "SystemTime"],
        why: "time is passed to the plan: it has no clock",
    },
    Rule {
        crates: Crates::Except(&["keel-host", "keel-init"]),
        paths: &["nix", "libc", "rtnetlink", "mozim"],
        words: &[],
        why: "the kernel is for keel-host and keel-init alone",
    },
    Rule {
        // An image's table is in a file.
        crates: Crates::Except(&["keel-host", "keel-init", "keel-image"]),
        paths: &["gptman"],
        words: &[],
        why: "partition tables are for keel-host and keel-init alone, and for keel-image in files",
    },
    Rule {
        crates: Crates::Except(&["keel-host", "keel-init"]),
        paths: &["gptman::linux"],
        words: &[],
        why: "the kernel is for keel-host and keel-init alone",
    },
    Rule {
        // What osctl links runs on laptops of every kind.
        crates: Crates::Only(&["osctl", "keel-image", "keel-plan", "keel-unit", "keel-proto"]),
        paths: &["std::os::linux"],
        words: &["target_os"],
        why: "osctl holds no Linux-only code",
    },
    Rule {
        crates: Crates::Only(&["keel-unit", "keel-exec", "keel-host", "keel-init", "keel-agent"]),
        paths: &["serde"],
        words: &["Serialize", "Deserialize"],
        why: "internal types are not serialised as they are",
    },
    Rule {
        crates: Crates::Only(&["keel-proto"]),
        paths: &[],
        words: &["fn", "impl", "trait", "macro_rules!", "static", "const"],
        why: "keel-proto holds no logic",
    },
];

/// The same, said anywhere, tests included.
const NEVER_SAID_EVEN_IN_TESTS: &[Rule] = &[
    Rule {
        crates: Crates::Except(&["keel-host"]),
        paths: &[],
        words: &["unsafe", "#unsafe", "unsafe_code"],
        why: "only keel-host may hold unsafe code",
    },
    Rule {
        crates: Crates::Except(&[]),
        paths: &[],
        words: &["#ignore"],
        why: "a test that does not run proves nothing",
    },
    Rule {
        crates: Crates::Except(&[]),
        paths: &[],
        words: &["todo!", "unimplemented!"],
        why: "nothing is left undone",
    },
];

struct Rule {
    crates: Crates,
    /// Paths, and all below them.
    paths: &'static [&'static str],
    /// Words, wherever they stand in a path.
    words: &'static [&'static str],
    why: &'static str,
}

enum Crates {
    Only(&'static [&'static str]),
    Except(&'static [&'static str]),
}

impl Rule {
    fn is_for(&self, name: &str) -> bool {
        match self.crates {
            Crates::Only(names) => names.contains(&name),
            Crates::Except(names) => !names.contains(&name),
        }
    }

    fn forbids(&self, said: &str) -> bool {
        let at_or_below = |path: &&str| {
            said.strip_prefix(*path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        self.paths.iter().any(at_or_below)
            || said.split("::").any(|word| self.words.contains(&word))
    }
}

/// The most lines of a file that are not tests.
const LONGEST: usize = 600;

/// Marks of unfinished work; in two parts, so that this file holds none.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Module names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "helper", "helpers", "manager", "handler", "handlers", "misc"];

/// Looks at every source file of one crate.
pub(crate) fn findings(root: &Path, name: &str, folder: &Path) -> Result<Vec<Finding>, TidyError> {
    let mut findings = Vec::new();
    for path in rust_files(folder)? {
        let text = fs::read_to_string(&path)
            .map_err(|source| TidyError::Read { path: path.clone(), source })?;
        let file = File { name, path: path.strip_prefix(root).unwrap_or(&path), text: &text };
        findings.extend(file.findings());
    }
    Ok(findings)
}

/// The Rust files of a crate that people write, in the order of their paths.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, TidyError> {
    let mut files = Vec::new();
    let mut folders: Vec<_> =
        ["src", "tests", "benches", "examples"].map(|name| folder.join(name)).into();
    while let Some(folder) = folders.pop() {
        let error = |source| TidyError::Read { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(error)?,
        };
        for entry in entries {
            let path = entry.map_err(error)?.path();
            match path.is_dir() {
                // Generated: what it looks like is not up to us.
                true if path.ends_with("src/gen") => {}
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "rs") => {
                    files.push(path)
                }
                false => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

struct File<'a> {
    /// Its crate.
    name: &'a str,
    /// From the root of the workspace.
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = self.habits();
        match self.text.parse::<TokenStream>() {
            Ok(tokens) => findings.extend(self.words(tokens)),
            Err(_) => findings.push(self.finding(1, "is no Rust")),
        }
        findings
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { place: format!("{}:{line}", self.path.display()), what: what.into() }
    }

    fn habits(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.text.starts_with("//!") {
            findings.push(self.finding(1, "its first line does not say why it exists (`//!`)"));
        }
        let lines = self.lines_before_tests();
        if lines > LONGEST {
            let what = format!("{lines} lines before its tests; split it before {LONGEST}");
            findings.push(self.finding(lines, what));
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let stem = if stem == "mod" { self.folder_name() } else { stem };
        if EMPTY_NAMES.contains(&&*stem) {
            findings.push(self.finding(1, format!("the name `{stem}` says nothing")));
        }
        for (number, line) in (1..).zip(self.text.lines()) {
            for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
                findings.push(self.finding(number, format!("`{mark}`: do it, or write an issue")));
            }
        }
        findings
    }

    fn folder_name(&self) -> std::borrow::Cow<'_, str> {
        self.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy()
    }

    fn words(&self, tokens: TokenStream) -> Vec<Finding> {
        let before_tests = self.lines_before_tests();
        let mut findings = Vec::new();
        for path in paths(tokens) {
            let outside_tests = if path.line <= before_tests { NEVER_SAID } else { &[] };
            let rules = outside_tests.iter().chain(NEVER_SAID_EVEN_IN_TESTS);
            for rule in rules.filter(|rule| rule.is_for(self.name) && rule.forbids(&path.text)) {
                let said = path.text.trim_start_matches('#');
                findings.push(self.finding(path.line, format!("`{said}`: {}", rule.why)));
            }
        }
        findings
    }

    /// Where the tests begin: all of a file that holds nothing else, or from the module for them on.
    fn lines_before_tests(&self) -> usize {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let beside_src = self
            .path
            .components()
            .any(|part| ["tests", "benches"].map(Some).contains(&part.as_os_str().to_str()));
        if beside_src || stem == "tests" || stem.ends_with("_tests") {
            return 0;
        }
        let lines: Vec<_> = self.text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
        tests.unwrap_or(lines.len())
    }
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|found| found == word)
}
